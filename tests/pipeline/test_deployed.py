"""The folders that people deploy: what ``onnxfuse.load`` opens after ``run`` gives what transformers and encode give.

Each as a bare encoder and, where people deploy it so, as a folder of sentence-transformers; on real sentences without padding,
padded on the right and on the left; the export and the optimized model within float32's tolerance, int8 within its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import onnxfuse
from onnxfuse.config import BenchmarkConfig, ExportConfig
from onnxfuse.errors import ExportError, ModelError
from onnxfuse.evaluation.sentences import docstring_sentences
from onnxfuse.exporters import open_checkpoint
from onnxfuse.exporters.pytorch import _disturb
from onnxfuse.pipeline import forms
from onnxfuse.pipeline.check import INT8
from onnxfuse.pipeline.run import Run, run_all
from onnxfuse.runtime import Feeds, Runner, runtimes
from onnxfuse.verify import parity
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import Case
from tests.conftest import BERT_SPECIALS, save_tokenizer
from tests.families import IMAGE, PROMPTS, tiny

sentence_transformers = pytest.importorskip("sentence_transformers")

TEXTS = [text for text in docstring_sentences(80) if len(text.split()) < 40][:16]
SIDES = ("none", "right", "left")
WORDS = 120
SENTENCEPIECE = ("cls", "pad", "sep", "unk")
"""The order of special tokens in XLM-R's and MPNet's vocabularies."""

ROOM = {"max_position_embeddings": 66, "initializer_range": 0.2}


@dataclass(frozen=True)
class Deployed:
    """A tiny model as people deploy its kind.

    Args:
        family, head: its class.
        specials: of its tokenizer.
        pooling: the mode of its sentence embedding.
        prompts: of config_sentence_transformers.json.
        normalized: whether the sentence embedding has length 1.
        within: whether it is of prompts too.
        fields: of its config.json.
    """

    family: str
    head: str
    specials: tuple[str, ...]
    pooling: str
    prompts: dict[str, str] = field(default_factory=dict)
    normalized: bool = True
    within: bool = True
    fields: dict[str, Any] = field(default_factory=lambda: ROOM)


KINDS = {
    "e5": Deployed("xlm-roberta", "XLMRobertaModel", SENTENCEPIECE, "mean_tokens", {"query": "query: ", "passage": "passage: "}),
    "instructor": Deployed(
        "distilbert", "DistilBertModel", BERT_SPECIALS, "mean_tokens", {"query": "the title is that "}, within=False
    ),
    "mpnet": Deployed("mpnet", "MPNetModel", SENTENCEPIECE, "mean_tokens"),
    "modernbert": Deployed("modernbert", "ModernBertModel", BERT_SPECIALS, "cls_token", normalized=False),
}


def save(kind: Deployed, folder: Path, side: str, *, whole: bool) -> None:
    """The folder of a kind: a bare encoder, or (``whole``) one of sentence-transformers as version 2 laid it out on the hub."""
    tiny(kind.family, kind.head, **kind.fields).save_pretrained(folder)
    save_tokenizer(folder, WORDS, specials=kind.specials, side=side)
    if not whole:
        return
    modules = ["Transformer", "Pooling", *(["Normalize"] if kind.normalized else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    named = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{module}"}
        for at, (module, path) in enumerate(zip(modules, paths, strict=False))
    ]
    (folder / "1_Pooling").mkdir()
    pooling = {f"pooling_mode_{mode}": mode == kind.pooling for mode in ("cls_token", "mean_tokens", "max_tokens")}
    for name, content in {
        "modules.json": named,
        "1_Pooling/config.json": {"word_embedding_dimension": 32, "include_prompt": kind.within, **pooling},
        "sentence_bert_config.json": {"max_seq_length": 64, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": kind.prompts, "default_prompt_name": None},
    }.items():
        (folder / name).write_text(json.dumps(content))


def run(source: Path, out: Path, **options: Any) -> Run:
    """The whole chain, measured no longer than it must be."""
    plan = ExportConfig(str(source), out, exporter="torchscript", **options)
    with pytest.MonkeyPatch.context() as patch:  # what load opens must not rest on which form is the fastest on this machine
        known = runtimes()
        patch.setattr(forms, "runtimes", lambda suffix: {"ort": known["ort"]})
        return run_all(plan, "cpu", BenchmarkConfig(rounds=1, length=8), require=("all",))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[..., tuple[Path, Run]]:
    """A kind's folder and what ``run`` made of it, once for each."""
    known: dict[Any, tuple[Path, Run]] = {}

    def of(name: str, *, whole: bool, side: str = "right") -> tuple[Path, Run]:
        if (name, whole, side) not in known:
            folder = tmp_path_factory.mktemp(name)
            save(KINDS[name], folder / "source", side, whole=whole)
            known[name, whole, side] = folder / "source", run(folder / "source", folder / "out")
        return known[name, whole, side]

    return of


def batches(folder: Path, texts: list[str], padding: str) -> list[Feeds]:
    """Texts as the tokenizer in a folder gives them: each by itself, or eight in a row and padded on a side."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = 1 if padding == "none" else 8
    options = {} if padding == "none" else {"padding": True, "padding_side": padding}
    found = [
        dict(tokenizer(texts[at : at + rows], truncation=True, max_length=64, return_tensors="np", **options))
        for at in range(0, len(texts), rows)
    ]
    for feeds in found:
        assert padding == "none" or 0 < feeds["attention_mask"][:, 0 if padding == "left" else -1].sum() < rows
    return found


def as_runner(call: Callable[..., Any], output: str) -> Runner:
    def runner(feeds: Feeds) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return {output: call(**{name: torch.from_numpy(array) for name, array in feeds.items()}).numpy()}

    return runner


def require_same(step: Run, reference: Runner, feeds: list[Feeds]) -> None:
    """All that ``run`` made, and what ``load`` opens of the folder, by the table of tolerances."""
    expected = expect(reference, [Case(f"batch {at}", each) for at, each in enumerate(feeds)])
    assert step.quantize is not None, step.unquantized
    folder = step.paths[INT8].parent
    assert onnxfuse.load(folder).path == step.paths[INT8]
    for name, path in {**step.paths, "folder": folder}.items():
        kind = "int8" if name in (INT8, "folder") else "reassociate"
        compared = parity.compare(expected, onnxfuse.load(path).run, kind).require(f"{name} differs from the original")
        assert compared.cases == len(feeds)


@pytest.mark.parametrize("padding", SIDES)
@pytest.mark.parametrize("name", ["e5", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mpnet", "modernbert"))])
def test_a_bare_encoder(made, name, padding):
    source, step = made(name, whole=False)
    model = transformers.AutoModel.from_pretrained(source).eval()
    reference = as_runner(lambda **feeds: model(**feeds).last_hidden_state, "last_hidden_state")
    require_same(step, reference, batches(step.paths[INT8].parent, TEXTS, padding))


def as_sentence_transformer(folder: Path, copy: Path) -> Any:
    """The optimized model in a folder, inside sentence-transformers."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("model_quantized.onnx"))
    return onnxfuse.sentence_transformer(copy)


@pytest.mark.parametrize("padding", SIDES)
@pytest.mark.parametrize("name", KINDS)
def test_a_folder_of_sentence_transformers(made, tmp_path, name, padding):
    """Its pooling counts from each row's first token where its tokenizer pads on the left."""
    matters = KINDS[name].pooling == "cls_token"
    source, step = made(name, whole=True, side="left" if matters and padding == "left" else "right")
    model = sentence_transformers.SentenceTransformer(str(source), device="cpu").eval()

    def encode(**feeds: torch.Tensor) -> torch.Tensor:
        return model(dict(feeds))["sentence_embedding"]

    assert str(step.optimize.padding) == "removed"
    model.tokenizer.padding_side = "left" if padding == "left" else "right"
    folder = step.paths[INT8].parent
    require_same(step, as_runner(encode, "sentence_embedding"), batches(folder, TEXTS, padding))
    prompts = json.loads((folder / "config_sentence_transformers.json").read_text())["prompts"]
    assert prompts == KINDS[name].prompts
    for prompt_name, prompt in prompts.items():
        length = len(transformers.AutoTokenizer.from_pretrained(folder)(prompt)["input_ids"]) - 1
        feeds = batches(folder, [prompt + text for text in TEXTS[:8]], padding)
        feeds = [each | {"prompt_length": np.full(len(each["input_ids"]), length)} for each in feeds]
        require_same(step, as_runner(encode, "sentence_embedding"), feeds)
        got = np.concatenate([onnxfuse.load(step.paths["optimized"])(**each)["sentence_embedding"] for each in feeds])
        wanted = model.encode(TEXTS[:8], prompt_name=prompt_name, batch_size=1 if padding == "none" else 8)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)
        within = model.encode([prompt + text for text in TEXTS[:8]], batch_size=1 if padding == "none" else 8)
        assert np.allclose(within, wanted, rtol=0, atol=1e-5) == KINDS[name].within
        if padding == "right":
            inside = as_sentence_transformer(folder, tmp_path / prompt_name)
            np.testing.assert_allclose(inside.encode(TEXTS[:8], prompt_name=prompt_name), wanted, rtol=0, atol=1e-5)


# Two towers ------------------------------------------------------------------------------------------------------

PIXELS = [np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8) for seed in range(8)]
TOWER = {"text": "clip_text_model", "image": "clip_vision_model"}


def save_clip(folder: Path) -> None:
    """A tiny CLIP with what reads texts and images for it; the id of its end is the highest, which is where it looks."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    towers = {"text_config": PROMPTS | ROOM, "vision_config": IMAGE | {"initializer_range": 0.2}}
    towers = {part: fields | {"projection_dim": 24} for part, fields in towers.items()}
    model = transformers.CLIPModel(transformers.CLIPConfig(**towers, projection_dim=24)).eval()
    _disturb(model)
    model.save_pretrained(folder)
    save_tokenizer(folder, WORDS, last="sep")
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.CLIPProcessor(images, transformers.AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)


def features(source: Path, kind: str, output: str) -> Runner:
    """What transformers' whole model compares with the other tower's."""
    model = transformers.CLIPModel.from_pretrained(source).eval()
    method = getattr(model, f"get_{kind}_features")
    return as_runner(lambda **feeds: method(**feeds).pooler_output, output)


def images(folder: Path) -> list[Feeds]:
    """Images as the processor in a folder gives them, one and several a batch."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil.from_pretrained(folder)
    return [dict(processor(PIXELS[at:stop], return_tensors="np")) for at, stop in ((0, 1), (1, 8))]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Callable[..., tuple[Path, Run]]:
    """CLIP's folder, bare (none) or as sentence-transformers 5.3 or 6 lays it out, and what ``run`` made of a tower, if any."""
    top = tmp_path_factory.mktemp("clip")
    save_clip(top / "none" / "0_CLIPModel")
    old = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (top / "none" / "modules.json").write_text(json.dumps([old]))
    (top / "none" / "config_sentence_transformers.json").write_text(json.dumps({"similarity_fn_name": "cosine"}))
    known: dict[Any, tuple[Path, Run]] = {}

    def of(layout: str, kind: str | None) -> Any:
        if layout == "6" and not (top / "6").exists():
            sentence_transformers.SentenceTransformer(str(top / "none"), device="cpu").save(str(top / "6"))
        source = {"none": top / "none" / "0_CLIPModel", "5.3": top / "none", "6": top / "6"}[layout]
        if kind is None:
            return source
        if (layout, kind) not in known:
            known[layout, kind] = source, run(source, top / f"out-{layout}-{kind}", model_type=TOWER[kind])
        return known[layout, kind]

    return of


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in TOWER])
def test_a_tower_of_a_bare_clip(clip, kind):
    source, step = clip("none", kind)
    reference, folder = features(source, kind, f"{kind}_embeds"), step.paths[INT8].parent
    for feeds in (batches(folder, TEXTS, padding) for padding in SIDES) if kind == "text" else [images(folder)]:
        require_same(step, reference, feeds)


@pytest.mark.parametrize("kind", TOWER)
@pytest.mark.parametrize("layout", [pytest.param("5.3", marks=pytest.mark.slow), "6"])
def test_a_tower_of_sentence_transformers(clip, tmp_path, layout, kind):
    """Texts and images, as encode gives them, in one space."""
    from PIL import Image

    source, step = clip(layout, kind)
    folder, model = step.paths[INT8].parent, sentence_transformers.SentenceTransformer(str(source), device="cpu").eval()
    given = TEXTS if kind == "text" else [Image.fromarray(array) for array in PIXELS]
    wanted = model.encode(given, batch_size=8)
    made = [batches(folder, TEXTS, "right")] if kind == "text" else [images(folder)]
    opened = onnxfuse.load(step.paths["optimized"])
    got = np.concatenate([opened(**each)["sentence_embedding"] for each in made[0]])
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(opened.encode(given, batch=3), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    inside = as_sentence_transformer(folder, tmp_path / "inside")
    np.testing.assert_allclose(inside.encode(given), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert inside.get_embedding_dimension() == 24
    reference = features(source / ("0_CLIPModel" if layout == "5.3" else ""), kind, "sentence_embedding")
    for feeds in made + [batches(folder, TEXTS, padding) for padding in ("none", "left") if kind == "text"]:
        require_same(step, reference, feeds)
    assert not (folder / "modules.json").exists(), "it tells of two towers"
    assert json.loads((folder / "config_sentence_transformers.json").read_text())["similarity_fn_name"] == "cosine"


@pytest.mark.slow
def test_the_towers_of_siglip(tmp_path):
    """As CLIP's, from how sentence-transformers 6 saves them; each inside sentence-transformers again."""
    from PIL import Image
    from sentence_transformers.base.modules import Transformer
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    torch.manual_seed(0)
    config = transformers.SiglipConfig(text_config=PROMPTS | ROOM | {"projection_size": 32}, vision_config=IMAGE)
    transformers.SiglipModel(config).save_pretrained(tmp_path / "bare")
    save_tokenizer(tmp_path / "bare", WORDS)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "bare")
    transformers.SiglipProcessor(processor, tokenizer).save_pretrained(tmp_path / "bare")
    modules = [Transformer(str(tmp_path / "bare"))]
    model = sentence_transformers.SentenceTransformer(modules=modules, device="cpu").eval()
    model.save(str(tmp_path / "source"))
    for kind, part, given in (("text", "text", TEXTS), ("image", "vision", [Image.fromarray(array) for array in PIXELS])):
        options = {"model_type": f"siglip_{part}_model", "exporter": "torchscript"}
        onnxfuse.export(tmp_path / "source", tmp_path / kind, **options)
        onnxfuse.optimize(tmp_path / kind, require=["all"])
        got, wanted = onnxfuse.sentence_transformer(tmp_path / kind).encode(given), model.encode(given)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
        alone, wanted = (encoder.encode(given[2:3]) for encoder in (onnxfuse.load(tmp_path / kind), model))  # padding shows in it
        np.testing.assert_allclose(alone, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("part", "named", "words"),
    [
        (
            "text",
            {"text": {"method": "forward", "method_output_name": "pooler_output"}},
            r"by \{'method': 'forward'.* wanted get_text_",
        ),
        (
            "text",
            {"text": {"method": "get_text_features", "method_output_name": "last_hidden_state"}},
            "wanted get_text_features",
        ),
        (
            "image",
            {"text": {"method": "get_text_features", "method_output_name": None}},
            "asks for image by None, wanted get_image_",
        ),
        ("text", ["text"], "asks for text by None"),
    ],
)
def test_what_a_tower_is_not_asked_for_by_is_refused(clip, tmp_path, part, named, words):
    shutil.copytree(clip("none", None), tmp_path / "clip")
    module = {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    (tmp_path / "clip" / "modules.json").write_text(json.dumps([module]))
    asked = {"modality_config": named, "module_output_name": "sentence_embedding"}
    (tmp_path / "clip" / "sentence_bert_config.json").write_text(json.dumps(asked))
    with pytest.raises(ExportError, match=words):
        open_checkpoint(tmp_path / "clip", model_type=TOWER[part])


def test_what_follows_a_tower_and_what_is_none(clip, tmp_path):
    source = tmp_path / "clip"
    shutil.copytree(clip("5.3", None), source)
    with pytest.raises(ModelError, match="say --model-type clip_text_model or --model-type clip_vision_model"):
        open_checkpoint(source)
    named = json.loads((source / "modules.json").read_text())
    normalize, pooling = ({"path": "1", "type": f"sentence_transformers.models.{kind}"} for kind in ("Normalize", "Pooling"))
    (source / "modules.json").write_text(json.dumps([*named, normalize]))
    checkpoint = open_checkpoint(source, model_type=TOWER["image"])
    with torch.no_grad():
        (embedding,) = checkpoint.module(torch.ones(1, 3, 32, 32))
    assert (checkpoint.outputs, float(embedding.norm())) == (("sentence_embedding",), pytest.approx(1, abs=1e-6))
    (source / "1").mkdir()
    (source / "1" / "config.json").write_text('{"word_embedding_dimension": 24, "pooling_mode": "mean"}')
    (source / "modules.json").write_text(json.dumps([*named, pooling]))
    with pytest.raises(ExportError, match=r"modules\.json has Pooling behind another pooling"):
        open_checkpoint(source, model_type=TOWER["image"])
    tiny("bert", "BertModel").save_pretrained(source / "0_CLIPModel")
    with pytest.raises(ExportError, match=r"modules\.json asks for CLIPModel -> Pooling, wanted Transformer and behind it"):
        open_checkpoint(source)
