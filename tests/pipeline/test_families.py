"""Every family of ``models/``: a tiny checkpoint goes through the whole chain; what is fused, parity, padding."""

import json

import pytest

from onnxfuse import catalog
from onnxfuse.config import ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.pipeline.export import Exported, export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.runtime import open_runner
from onnxfuse.targets import NAMES
from onnxfuse.verify import parity
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from tests.families import TINY, tiny

TWICE = [family for family in ("roberta",) if family in TINY]
"""Families whose graphs torch.export makes in the fast tests too: it takes seconds for each."""


def saved(folder, family, exporter="torchscript", **fields) -> Exported:
    tiny(family, **fields).save_pretrained(folder / "checkpoint")
    return export(ExportConfig(str(folder / "checkpoint"), folder / "out", exporter=exporter))


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """Each family's export through TorchScript, made once."""
    made: dict[str, Exported] = {}

    def of(family):
        if family not in made:
            made[family] = saved(tmp_path_factory.mktemp(family), family)
        return made[family]

    return of


def require_right(path, exported: Exported) -> None:
    """The model computes what transformers does: on left, right and no padding, with holes, and at every length."""
    expected = expect(exported.original, grid(exported.model.inputs))
    assert parity.compare(expected, open_runner(path), "reassociate").require("it differs from transformers").cases > 1


def require_fused(step, family) -> None:
    assert {name: step.fused[name] for name in step.expected} == step.expected
    assert step.expected
    assert str(step.padding) == (
        "removed" if "attention_mask" in catalog.architecture(family).inputs else "kept: attention has no mask"
    )


def test_every_family_has_a_tiny_checkpoint():
    assert sorted(TINY) == sorted(catalog.families())


@pytest.mark.parametrize("family", sorted(TINY))
def test_the_whole_chain(exports, tmp_path, family):
    exported = exports(family)
    assert {value.name for value in exported.model.inputs.inputs} == set(exported.checkpoint.inputs)
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "o.onnx", require=("all",)))
    require_fused(optimized, family)
    require_right(optimized.path, exported)
    assert quantize(QuantizeConfig(optimized.path, tmp_path / "q.onnx")).parity.passed


@pytest.mark.parametrize("target", [name for name in NAMES if name != "cpu"])
@pytest.mark.parametrize("family", sorted(TINY))
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
    result = cli("run", "checkpoint", "-o", "out", "--exporter", "torchscript", "--rounds", "1", "--length", "8", "--json")
    assert result.returncode == 0, result.stderr
    made = json.loads(result.stdout)
    assert made["optimize"]["padding"] == "removed"
    assert cli("benchmark", "out", "--length", "33").returncode == 2, "one position too many"
