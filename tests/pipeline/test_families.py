"""Every family of ``models/``: a tiny checkpoint goes through the whole chain; what is fused, parity, padding."""

import json
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING

from onnxfuse import catalog, models
from onnxfuse.config import ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.errors import ExportError, ModelError, UsageError
from onnxfuse.exporters import bounds
from onnxfuse.io import folders
from onnxfuse.pipeline.explain import explain_file, padding_of
from onnxfuse.pipeline.export import Exported, export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.runtime import open_runner
from onnxfuse.targets import NAMES
from onnxfuse.verify import parity
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from tests.families import IMAGE, PROMPTS, TINY, tiny

NO_MASK = "kept: attention has no mask"
KEPT = dict.fromkeys(("clip_vision_model", "deit", "dinov2", "siglip_vision_model", "vit"), NO_MASK)
"""Why padding stays in some families' models; in those of the others it is removed."""

UNKNOWN = sorted(set(TINY) - set(CONFIG_MAPPING))
"""Families that the installed transformers has not: 4.57 reads SigLIP's text tower as a part of the whole alone."""

UNFUSED = {"deberta-v2": 2}
"""Softmax of attention that stays, in two layers; in other families nothing is left."""

OF_THEIR_OWN = ("albert", "clip_text_model", "deberta-v2", "modernbert", "mpnet", "roberta", "siglip_vision_model")
"""Families whose graphs differ from all others': these for each target in the fast tests too."""

TWICE = ("modernbert", "roberta")
"""Families whose graphs torch.export makes in the fast tests too: it takes seconds for each."""


def saved(folder, family, exporter="torchscript", opset=None, **fields) -> Exported:
    tiny(family, **fields).save_pretrained(folder / "checkpoint")
    return export(ExportConfig(str(folder / "checkpoint"), folder / "out", exporter=exporter, opset=opset))


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """Each family's export through TorchScript, made once."""
    made: dict[str, Exported] = {}

    def of(family):
        if family not in made:
            made[family] = saved(tmp_path_factory.mktemp(family), family)
        return made[family]

    return of


def require_unknown(path, family, folder) -> None:
    """The installed transformers has no such model type, and the export of a checkpoint of it says so."""
    with pytest.raises(ExportError, match=f"does not know model type '{family}' of .*; install another version"):
        export(ExportConfig(str(path), folder / "out", model_type=family, exporter="torchscript"))


def require_right(path, exported: Exported) -> None:
    """The model computes what transformers does: on left, right and no padding, with holes, and at every length."""
    expected = expect(exported.original, grid(exported.model.inputs))
    assert parity.compare(expected, open_runner(path), "reassociate").require("it differs from transformers").cases > 1


def require_fused(step, family) -> None:
    assert step.fused == dict.fromkeys(step.fused, 0) | step.expected | {"unfused": UNFUSED.get(family, 0)}
    assert step.expected
    assert re.fullmatch(KEPT.get(family, "removed"), str(step.padding))


def test_a_family_is_one_short_file():
    files = sorted(path for path in Path(next(iter(models.__path__))).glob("*.py") if path.name != "__init__.py")
    assert len(files) >= 15
    assert {path.name: lines for path in files if (lines := len(path.read_text().splitlines())) > 60} == {}


@dataclass
class Rotary:
    """A config as transformers 4 has it, where whole numbers stand for others too."""

    num_hidden_layers: int = 1
    vocab_size: int = 50000
    rope_theta: float = 10000.0

    def to_dict(self):
        return asdict(self)


def test_the_base_of_rotary_positions_is_no_size():
    """It is larger than every axis, and a whole number where somebody wrote it so."""
    stored = {"words": np.zeros((50000, 1))}
    rotary = SimpleNamespace(home="here", family=catalog.architecture("modernbert"), config=Rotary(rope_theta=160000))
    bounds.require_bounded(rotary, stored)
    with pytest.raises(ExportError, match=r"config\.json has 160000 as vocab_size"):
        bounds.require_bounded(SimpleNamespace(**vars(rotary) | {"config": Rotary(vocab_size=160000)}), stored)


def test_what_is_known_in_memory_is_what_the_file_says(exports):
    """A head's own counts go by the task, which config.json beside the model names."""
    exported = exports("electra")
    assert exported.model.config == folders.read_config(exported.path)
    assert exported.model.config["onnxfuse_task"] == "text-classification"


def test_every_family_has_a_tiny_checkpoint():
    assert sorted(TINY) == sorted(catalog.families())


@pytest.mark.parametrize("family", sorted(TINY))
def test_the_whole_chain(exports, tmp_path, family):
    if family in UNKNOWN:
        tiny(family).save_pretrained(tmp_path / "checkpoint")
        require_unknown(tmp_path / "checkpoint", family, tmp_path)
        return
    exported = exports(family)
    assert {value.name for value in exported.model.inputs.inputs} == set(exported.checkpoint.inputs)
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "o.onnx", require=("all",)))
    require_fused(optimized, family)
    require_right(optimized.path, exported)
    assert quantize(QuantizeConfig(optimized.path, tmp_path / "q.onnx")).parity.passed


@pytest.mark.parametrize("target", [name for name in NAMES if name != "cpu"])
@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=() if family in OF_THEIR_OWN else pytest.mark.slow) for family in sorted(TINY)]
)
def test_every_target(exports, tmp_path, family, target):
    exported = exports(family)
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "o.onnx", target, require=("all",)))
    require_right(optimized.path, exported)


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=() if family in TWICE else pytest.mark.slow) for family in sorted(TINY)]
)
def test_through_torch_export(tmp_path, family):
    exported = saved(tmp_path, family, "dynamo")
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "o.onnx", require=("all",)))
    require_fused(optimized, family)
    require_right(optimized.path, exported)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_through_torch_export_with_its_own_operators(tmp_path, family):
    """At opset 23 it writes Attention and RotaryEmbedding itself."""
    exported = saved(tmp_path, family, "dynamo", opset=23)
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "o.onnx", require=("all",)))
    require_fused(optimized, family)
    require_right(optimized.path, exported)


def test_token_types_are_an_input_where_the_model_has_several(exports, tmp_path):
    assert "token_type_ids" not in exports("roberta").checkpoint.inputs
    assert list(saved(tmp_path, "roberta", type_vocab_size=2).checkpoint.inputs) == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]


@pytest.mark.parametrize(("family", "rows", "longest"), [("roberta", 34, 32), ("electra", 32, 32)])
def test_positions_behind_the_id_of_padding_are_left_out_of_the_usable_length(exports, family, rows, longest):
    exported = exports(family)
    assert exported.checkpoint.config["max_position_embeddings"] == rows
    assert catalog.architecture(family).longest(exported.checkpoint.config) == exported.model.inputs.longest == longest


def test_a_checkpoint_on_the_command_line(cli, tmp_path):
    tiny("xlm-roberta").save_pretrained(tmp_path / "checkpoint")
    shape = ("--rounds", "1", "--length", "8")
    result = cli("run", "checkpoint", "-o", "out", "--exporter", "torchscript", *shape, "--require", "all", "--json")
    assert result.returncode == 0, result.stderr
    made = json.loads(result.stdout)
    assert made["optimize"]["padding"] == "removed"
    assert cli("benchmark", "out", "--length", "33").returncode == 2, "one position too many"


# Towers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A folder of whole checkpoints: clip/ and siglip/."""
    import transformers

    folder = tmp_path_factory.mktemp("whole")
    for name, kind in (("clip", "CLIP"), ("siglip", "Siglip")):
        torch.manual_seed(0)
        towers = {"text_config": PROMPTS | {"projection_size": 32}, "vision_config": IMAGE}
        config = getattr(transformers, f"{kind}Config")(**towers, projection_dim=24)
        getattr(transformers, f"{kind}Model")(config).save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("part", ["text", "vision"])
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_whole_checkpoint_is_exported_tower_by_tower(whole, tmp_path, name, part):
    """Each gives what the whole model compares with the other tower's."""
    import transformers

    if f"{name}_{part}_model" in UNKNOWN:
        require_unknown(whole / name, f"{name}_{part}_model", tmp_path)
        return
    exported = export(ExportConfig(str(whole / name), tmp_path, model_type=f"{name}_{part}_model", exporter="torchscript"))
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "o.onnx", require=("all",)))
    model = transformers.AutoModel.from_pretrained(whole / name, attn_implementation="eager").eval()
    feeds = exported.model.inputs.feeds(3, 7, mask="right")
    given = {name: torch.from_numpy(array) for name, array in feeds.items()}
    with torch.inference_mode():
        wanted = (model.get_text_features if part == "text" else model.get_image_features)(**given)
    wanted = getattr(wanted, "pooler_output", wanted)  # transformers 4 gives it bare
    (got,) = open_runner(optimized.path)(feeds).values()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        (None, "whose towers are exported one by one: say --model-type clip_text_model or --model-type clip_vision_model"),
        ("siglip_text_model", "has model type 'clip' in config.json, --model-type says 'siglip_text_model'"),
    ],
)
def test_the_tower_must_be_chosen(whole, tmp_path, model_type, words):
    with pytest.raises(ModelError, match=re.escape(words)):
        export(ExportConfig(str(whole / "clip"), tmp_path, model_type=model_type))


def test_a_tower_without_an_object_in_config_is_named(whole, tmp_path):
    shutil.copytree(whole / "clip", tmp_path / "clip")
    config = json.loads((tmp_path / "clip" / "config.json").read_text())
    (tmp_path / "clip" / "config.json").write_text(json.dumps(config | {"text_config": [1]}))
    with pytest.raises(ModelError, match=r"config.json has \[1\] as text_config, wanted an object"):
        export(ExportConfig(str(tmp_path / "clip"), tmp_path / "out", model_type="clip_text_model"))


def test_a_family_that_transformers_has_not_yet_is_named(whole, tmp_path, monkeypatch):
    """As transformers 4.57 has no text tower of SigLIP by itself."""
    import transformers

    known = {name: kind for name, kind in transformers.CONFIG_MAPPING.items() if name != "clip_text_model"}
    monkeypatch.setattr(transformers, "CONFIG_MAPPING", known)
    with pytest.raises(ExportError, match=r"does not know model type 'clip_text_model' of .*clip; install another version"):
        export(ExportConfig(str(whole / "clip"), tmp_path / "out", model_type="clip_text_model"))


def test_random_weights_of_a_tower(tmp_path):
    plan = ExportConfig("google/siglip-base-patch16-224", tmp_path, random_weights=True, task="poetry")
    with pytest.raises(UsageError, match="siglip_text_model has no task 'poetry'"):
        export(plan)
    with pytest.raises(UsageError, match="siglip_vision_model has no task 'poetry'"):
        export(replace(plan, model_type="siglip_vision_model"))


# Of single families ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"])
def test_either_classifier_of_deit(tmp_path, head):
    """transformers has two classes for one task; the one that config.json names is taken."""
    model = tiny("deit", head=head)
    model.save_pretrained(tmp_path / "checkpoint")
    exported = export(ExportConfig(str(tmp_path / "checkpoint"), tmp_path / "out", exporter="torchscript"))
    assert exported.checkpoint.module.model.__class__.__name__ == head
    feeds = exported.model.inputs.feeds(2, 1)
    np.testing.assert_allclose(
        open_runner(exported.path)(feeds)["logits"],
        model(torch.from_numpy(feeds["pixel_values"])).logits.detach().numpy(),
        atol=1e-5,
    )


def test_layers_that_share_weights_share_the_merged_ones(exports, tmp_path):
    exported = exports("albert")
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "o.onnx", require=("qkv=2",)))
    shapes = [tuple(value.shape.numpy()) for value in optimized.model.model.graph.initializers.values()]
    assert shapes.count((32, 96)) == 1


def test_what_disentangles_is_explained(exports):
    exported = exports("deberta-v2")
    found = [finding for finding in explain_file(exported.path) if finding.fusion == "attention"]
    assert len(found) == 2
    assert not any(finding.done for finding in found)
    for finding in found:
        assert re.search(
            r"near \S+/attention/self/Softmax\S+: 1 node matched; at \S+/GatherElements\S+: GatherElements picks scores of positions "
            r".* before Softmax: Attention adds only what does not hang on Q and K, .*; nothing to do if that is meant",
            str(finding),
        )
    assert str(padding_of(exported.path)) == "removed"
