"""Every head that people train: a tiny checkpoint of its class gives the class's own outputs, exported, optimized and in int8."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import onnxfuse
from onnxfuse import catalog
from onnxfuse.config import ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.evaluation.sources import DEFAULT_DATA
from onnxfuse.exporters.tasks import auto_classes
from onnxfuse.pipeline.export import Exported, export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.verify.masks import by_choice, mask_of
from onnxfuse.verify.profile import LENGTH
from tests.conftest import save_tokenizer
from tests.families import TINY, tiny

SEVERAL, ONE = {"num_labels": 3, "problem_type": "multi_label_classification"}, {"num_labels": 1, "problem_type": "regression"}

HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "AlbertForPreTraining": ("pre-training", {}),
    "BertForMaskedLM": ("fill-mask", {}),
    "BertForMaskedLM untied": ("fill-mask", {"tie_word_embeddings": False}),
    "BertForMultipleChoice": ("multiple-choice", {}),
    "BertForNextSentencePrediction": ("next-sentence-prediction", {}),
    "BertForPreTraining": ("pre-training", {}),
    "BertForQuestionAnswering": ("question-answering", {}),
    "BertForSequenceClassification multi-label": ("text-classification", SEVERAL),
    "BertForSequenceClassification regression": ("text-classification", ONE),
    "BertForTokenClassification": ("token-classification", {"num_labels": 5}),
    "DistilBertForMultipleChoice": ("multiple-choice", {}),
    "DistilBertForTokenClassification": ("token-classification", {"num_labels": 5}),
    "ElectraForPreTraining": ("pre-training", {}),
    "RobertaForMaskedLM": ("fill-mask", {}),
    "RobertaForMultipleChoice": ("multiple-choice", {}),
    "ViTForImageClassification": ("image-classification", {"num_labels": 5}),
    "ViTModel": ("image-feature-extraction", {}),
}
"""By class, and what is special of it: the task that it is exported for, and fields of config.json."""

FAST = [name for name in HEADS if name.startswith(("Bert", "ViTModel", "ElectraForPreTraining"))]

GONE = {"multiple-choice", "next-sentence-prediction", "text-classification"}
"""Tasks whose outputs show no token, so that padding goes."""


def made_for(head: str) -> str:
    return next(name for name in sorted(catalog.families()) if head.lower().startswith(name))


def saved(folder, name: str, exporter: str = "torchscript", **options) -> tuple[Any, Exported]:
    """The model of a head, and its export."""
    head, (task, fields) = name.split()[0], HEADS[name]
    family = made_for(head)
    model = tiny(family, head, **{catalog.architecture(family).layers: 1}, **fields)
    model.save_pretrained(folder / "checkpoint")
    asked = {"task": task} if head == "ViTModel" else {}
    return model, export(ExportConfig(str(folder / "checkpoint"), folder / "out", exporter=exporter, **asked, **options))


def feeds_of(step: Exported, mask: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Three rows, and which of their tokens are real, as ``attention_mask`` is shaped."""
    feeds = step.model.inputs.feeds(3, 7, mask=mask, seed=1)
    keep = mask_of(mask, 3, 7)
    return feeds, by_choice(keep, feeds["input_ids"].shape[1]) if step.task == "multiple-choice" else keep


def require_same(path, step: Exported, model: Any, tolerance: float = 1e-4) -> None:
    """``onnxfuse.load`` gives what the class gives: on left, right and no padding, at real tokens."""
    loaded = onnxfuse.load(path)
    images = not any(LENGTH in value.axes for value in step.model.inputs.inputs)
    for mask in ("none",) if images else ("none", "right", "left"):
        feeds, keep = feeds_of(step, mask) if not images else (step.model.inputs.feeds(3, 1), np.zeros((), bool))
        if not images:
            assert np.array_equal(feeds["attention_mask"].astype(bool), keep)
        with torch.no_grad():
            wanted = model(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        got = loaded.run(feeds)
        assert list(got) == list(step.checkpoint.outputs)
        for output, array in got.items():
            theirs = wanted[output].numpy()
            assert array.shape == theirs.shape
            shown = keep if array.shape[:2] == keep.shape and step.task != "multiple-choice" else np.ones(len(array), bool)
            np.testing.assert_allclose(array[shown], theirs[shown], rtol=0, atol=tolerance * np.abs(theirs).max(), err_msg=mask)


def through(folder, name: str, exporter: str = "torchscript") -> None:
    task, fields = HEADS[name]
    model, step = saved(folder, name, exporter)
    assert step.task == task
    config = json.loads((step.path.parent / "config.json").read_text())
    assert config["architectures"] == [name.split()[0]]
    assert config.get("problem_type") == fields.get("problem_type")
    assert len(config["id2label"]) == fields.get("num_labels", len(model.config.id2label))
    require_same(step.path, step, model)
    optimized = optimize(OptimizeConfig(step.path, step.path.parent / "o.onnx", require=("all",)))
    assert {name: optimized.fused[name] for name in optimized.expected} == optimized.expected
    assert (str(optimized.padding) == "removed") == (task in GONE), optimized.padding
    require_same(optimized.path, step, model)
    small = quantize(QuantizeConfig(optimized.path, step.path.parent / "q.onnx"))
    assert small.parity.passed
    require_same(small.path, step, model, tolerance=0.1)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in HEADS])
def test_a_head_gives_its_own_outputs(tmp_path, name):
    through(tmp_path, name)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "BertForMultipleChoice" else pytest.mark.slow) for name in HEADS]
)
def test_through_torch_export(tmp_path, name):
    through(tmp_path, name, "dynamo")


EVERY = [
    (family, task)
    for family, known in sorted(catalog.families().items())
    for task in known.tasks
    if task != "sentence-similarity"
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), EVERY)
def test_every_task_of_every_family(tmp_path, family, task):
    """A class tells its task, where it has one alone; its counts stand in ``models/``."""
    known = catalog.architecture(family)
    config = transformers.CONFIG_MAPPING[family](**TINY[family][1])
    head = auto_classes(config, "AutoModel", known)[known.tasks[task]].__name__
    model = tiny(family, head)
    model.save_pretrained(tmp_path / "checkpoint")
    others = {"sentence-similarity", task}
    shared = any(name == known.tasks[task] for other, name in known.tasks.items() if other not in others)
    asked = {"task": task} if shared else {}
    step = export(ExportConfig(str(tmp_path / "checkpoint"), tmp_path / "out", exporter="torchscript", **asked))
    assert step.task == task
    require_same(step.path, step, model)
    optimized = optimize(OptimizeConfig(step.path, tmp_path / "o.onnx", require=("all",)))
    assert {name: optimized.fused[name] for name in optimized.expected} == optimized.expected
    require_same(optimized.path, step, model)


def test_the_decoder_of_masked_words_is_tied_or_not(tmp_path):
    """Untied, its weights are its own, and those of the checkpoint."""
    tied, apart = (saved(tmp_path / kind, name)[1] for kind, name in (("t", "BertForMaskedLM"), ("u", "BertForMaskedLM untied")))
    for step, same in ((tied, True), (apart, False)):
        module = step.checkpoint.module.model
        assert torch.equal(module.cls.predictions.decoder.weight, module.bert.embeddings.word_embeddings.weight) == same


def test_real_choices(cli, tmp_path):
    """Sentences calibrate a model of several choices; samples [n, choices, length] are evaluated, texts are refused."""
    model = tiny("bert", "BertForMultipleChoice", num_hidden_layers=1)
    model.save_pretrained(tmp_path / "checkpoint")
    save_tokenizer(tmp_path / "checkpoint", 120)
    result = cli("run", "checkpoint", "-o", "out", "--exporter", "torchscript", "--rounds", "1", "--length", "8", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["quantize"]["calibration"] == DEFAULT_DATA
    rng = np.random.default_rng(0)
    mask = by_choice(mask_of("right", 6, 9), 4).astype(np.int64)
    feeds = {"input_ids": rng.integers(4, 120, mask.shape), "attention_mask": mask}
    with torch.no_grad():
        wanted = model(**{name: torch.from_numpy(array) for name, array in feeds.items()}).logits.numpy()
    labels = np.append(wanted.argmax(axis=1)[:-1], (wanted[-1].argmax() + 1) % 4)
    np.savez(tmp_path / "data.npz", labels=labels, **feeds)
    result = cli("evaluate", "--data", "data.npz", "out/model.onnx", "out/model_optimized.onnx", "--rounds", "1", "--json")
    assert result.returncode == 0, result.stderr
    for found in json.loads(result.stdout)["results"]:
        assert found["metrics"]["accuracy"]["value"] == pytest.approx(5 / 6)
    (tmp_path / "texts.txt").write_text("one text\nand another\n")
    result = cli("evaluate", "--data", "texts.txt", "out/model.onnx")
    assert result.returncode == 2
    assert "holds texts, one a sample, and out/model.onnx takes several a sample; give input_ids" in result.stderr


def test_a_regression_has_no_classes(cli, tmp_path):
    _, step = saved(tmp_path, "BertForSequenceClassification regression")
    ids = np.ones((4, 5), np.int64)
    np.savez(tmp_path / "data.npz", input_ids=ids, attention_mask=ids, labels=np.zeros(4, np.int64))
    result = cli("evaluate", "--data", "data.npz", step.path)
    assert result.returncode == 2
    assert "data.npz has labels, and the model gives one number for each sample (regression); leave them out" in result.stderr
