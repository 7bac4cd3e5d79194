"""The chain on every family, exporter, task and target: counts, parity with PyTorch, files."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.errors import ExportError, ParityError, RequirementError, UsageError
from onnxfuse.exporters.run_pytorch import torch_runner
from onnxfuse.io import onnx_file
from onnxfuse.io.folders import plain
from onnxfuse.optimizer import fuse
from onnxfuse.pipeline import card
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.pipeline.run import run_all
from onnxfuse.runtime import open_runner, sessions
from onnxfuse.targets import NAMES, find
from onnxfuse.verify import parity
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from onnxfuse.verify.inputs import profile_of
from tests.conftest import small_model

HEADS = {
    "bert": "AutoModelForSequenceClassification",
    "distilbert": "AutoModelForSequenceClassification",
    "vit": "AutoModelForImageClassification",
}
ATTENTIONS = {"bert": 12, "distilbert": 6, "vit": 12}


def chain(tmp_path: Path, model, exporter: str, target: str = "cpu"):
    exported = export(ExportConfig("test", tmp_path, exporter=exporter), source=model)
    checkpoint = exported.checkpoint
    plan = OptimizeConfig(exported.path, tmp_path / "model_optimized.onnx", target, require=("all",))
    return exported, optimize(plan), checkpoint


def agrees_with_torch(path: Path, checkpoint) -> parity.Parity:
    cases = list(grid(profile_of(onnx_file.load(path), checkpoint.config)))
    return parity.compare(expect(torch_runner(checkpoint), cases), open_runner(path), "reassociate")


@pytest.mark.parametrize(("exporter", "layers"), [("dynamo", 2), ("torchscript", None)])
@pytest.mark.parametrize("family", HEADS)
def test_every_family_fuses_completely_from_both_exporters(tmp_path, family, exporter, layers):
    """At full depth through TorchScript; torch.export takes seconds a layer, so at full depth only in the slow tests."""
    _, optimized, checkpoint = chain(tmp_path, small_model(family, HEADS[family], layers), exporter)
    fused = optimized.fused
    assert fused["attention"] == fused["qkv"] == (layers or ATTENTIONS[family])
    assert fused["unfused"] == 0
    assert str(optimized.padding) == ("removed" if family != "vit" else "kept: attention has no mask")
    assert {name: fused[name] for name in optimized.expected} == optimized.expected
    assert agrees_with_torch(optimized.path, checkpoint).require("torch").error <= 1e-5
    graph = onnx.load(optimized.path).graph
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    assert all(set(node.output) & read for node in graph.node), "a dead node"
    assert not {node.op_type for node in graph.node} & {"IsNaN", "Softmax", "Erf", "Dropout", "Identity", "ReduceMean"}
    assert {tensor.name for tensor in graph.initializer} <= read, "an unread weight"


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("family", HEADS)
def test_every_target_runs_and_agrees(tmp_path, family, target):
    _, optimized, checkpoint = chain(tmp_path, small_model(family, HEADS[family], layers=2), "torchscript", target)
    assert agrees_with_torch(optimized.path, checkpoint).require("torch").passed
    trace = optimized.trace.to_json()
    assert (trace["proven"], trace["unproven"], trace["rejected"]) == (sum(trace["rules"].values()), {}, {})
    model = onnx.load(optimized.path)
    opset = {entry.domain: entry.version for entry in model.opset_import}
    assert opset[""] <= find(target).highest
    assert ("com.microsoft" in opset) == (target in ("cuda", "ort-contrib"))
    if target == "standard":
        assert not {node.op_type for node in model.graph.node} & {"Attention", "Gelu"}


@pytest.mark.parametrize(
    ("family", "head", "task", "outputs"),
    [
        ("bert", "AutoModel", "feature-extraction", ["last_hidden_state"]),
        ("bert", "AutoModel", "sentence-similarity", ["sentence_embedding"]),
        ("distilbert", "AutoModelForMaskedLM", "fill-mask", ["logits"]),
        ("bert", "AutoModelForMaskedLM", "fill-mask", ["logits"]),
        ("distilbert", "AutoModelForTokenClassification", "token-classification", ["logits"]),
        ("bert", "AutoModelForQuestionAnswering", "question-answering", ["start_logits", "end_logits"]),
        ("vit", "AutoModel", "feature-extraction", ["last_hidden_state"]),
    ],
)
def test_every_task_has_optimums_names_and_agrees(tmp_path, family, head, task, outputs):
    model = small_model(family, head, layers=2)
    exported = export(ExportConfig("test", tmp_path, task=task, exporter="torchscript"), source=model)
    checkpoint = exported.checkpoint
    graph = onnx.load(exported.path).graph
    assert [value.name for value in graph.output] == outputs
    assert [value.name for value in graph.input] == list(checkpoint.family.inputs)
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch_size"
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "o.onnx", require=("all",)))
    assert agrees_with_torch(optimized.path, checkpoint).passed
    quantized = quantize(QuantizeConfig(optimized.path, tmp_path / "q.onnx"))
    assert quantized.parity.passed
    if family != "vit":
        shown = [name for name in outputs if name != "sentence_embedding"]
        unpadded = optimize(OptimizeConfig(exported.path, tmp_path / "u.onnx", unpad=True))
        assert str(unpadded.padding) == ("removed" + (f", {', '.join(shown)} zero there" if shown else ""))
        assert shown or optimized.padding == unpadded.padding
        assert unpadded.parity.passed
        assert unpadded.parity.cases == optimized.parity.cases


def test_padding_stays_when_told_to_or_when_it_must(bert_export, tmp_path):
    source = bert_export / "export" / "model.onnx"
    kept = optimize(OptimizeConfig(source, tmp_path / "kept.onnx", unpad=False))
    assert str(kept.padding) == "kept: left out"
    assert b"NonZero" not in (tmp_path / "kept.onnx").read_bytes()
    (tmp_path / "kept.json").write_text(json.dumps(find("cpu").choosing(padding="kept").to_json()))
    removed = optimize(OptimizeConfig(source, tmp_path / "no.onnx", str(tmp_path / "kept.json"), unpad=True))
    assert str(removed.padding) == "removed" and removed.parity.passed, "what is asked for goes before what the target chose"
    with pytest.raises(RequirementError, match=r"--unpad: padding stays, .*; leave --unpad out to optimize with padding"):
        optimize(OptimizeConfig(removed.path, tmp_path / "again.onnx", only=frozenset({"gelu"}), unpad=True))
    assert not (tmp_path / "again.onnx").exists()


def test_tied_embeddings_are_not_doubled(tmp_path):
    exported, optimized, _ = chain(tmp_path, small_model("bert", "AutoModelForMaskedLM", layers=2), "dynamo")
    assert optimized.size < exported.size * 1.02  # a second table would be 15 % of it
    assert b"site-packages" not in exported.path.read_bytes(), "stack traces with paths of this machine"


def test_a_model_optimized_twice_is_the_same(bert_export, tmp_path):
    once = onnx_file.load(bert_export / "export" / "model.onnx")
    fuse(once, find("cpu"))
    onnx_file.save(once, tmp_path / "once.onnx")
    twice = onnx_file.load(tmp_path / "once.onnx")
    counts = fuse(twice, find("cpu")).counts
    assert counts["attention"] == counts["qkv"] == 2
    assert sorted(n.op_type for n in twice.graph) == sorted(n.op_type for n in onnx_file.load(tmp_path / "once.onnx").graph)


def test_inputs_and_outputs_keep_name_type_and_shape(bert_export, tmp_path):
    source = bert_export / "export" / "model.onnx"
    optimized = optimize(OptimizeConfig(source, tmp_path / "o.onnx"))
    before, after = onnx.load(source).graph, onnx.load(optimized.path).graph
    assert list(before.input) == list(after.input)
    assert list(before.output) == list(after.output)


def test_the_record_says_how_the_file_was_made(bert_export, tmp_path):
    source = bert_export / "export" / "model.onnx"
    optimize(OptimizeConfig(source, tmp_path / "o.onnx"))
    record = json.loads((tmp_path / "onnxfuse.json").read_text())["optimize"]
    assert record["plan"]["target"] == "cpu"
    assert record["parity"]["passed"]
    assert record["trace"]["rules"]["attention"] == 2
    assert "onnxruntime" in record["versions"]
    assert json.loads(onnx.load(tmp_path / "o.onnx").metadata_props[0].value)["target"] == "cpu"


def test_rules_can_be_left_out_or_used_alone(bert_export):
    source = bert_export / "export" / "model.onnx"
    model = onnx_file.load(source)
    assert fuse(model, find("cpu"), without=frozenset({"merged-qkv"})).counts == {
        "attention": 2,
        "qkv": 0,
        "layer_norm": 5,
        "gelu": 2,
        "unfused": 0,
    }
    model = onnx_file.load(source)
    assert fuse(model, find("cpu"), only=frozenset({"gelu"})).counts["attention"] == 0
    with pytest.raises(UsageError, match="no rule named nonsense"):
        fuse(onnx_file.load(source), find("cpu"), without=frozenset({"nonsense"}))


def test_a_requirement_that_is_not_met_names_the_nearest_miss(bert_export, tmp_path):
    source = bert_export / "export" / "model.onnx"
    with pytest.raises(RequirementError, match=r"attention fused 2 times, required 12"):
        optimize(OptimizeConfig(source, tmp_path / "o.onnx", require=("attention=12",)))
    assert not (tmp_path / "o.onnx").exists()


def test_a_rewrite_that_changes_outputs_is_never_saved(bert_export, tmp_path, monkeypatch):
    from onnxfuse import optimizer
    from onnxfuse.rewrite import Rule

    def before(op, x):
        return op.Tanh(x)

    def after(op, x):
        return op.Sigmoid(x)

    wrong = Rule("wrong", before, lambda match: None, after)
    select = optimizer.select
    monkeypatch.setattr(optimizer, "select", lambda *arguments: _with(select(*arguments), wrong))
    source = bert_export / "export" / "model.onnx"
    with pytest.raises(ParityError, match="optimizing changed the outputs"):
        optimize(OptimizeConfig(source, tmp_path / "o.onnx", verify="final"))
    assert not list(tmp_path.iterdir())
    step = optimize(OptimizeConfig(source, tmp_path / "o.onnx"))  # proven one by one, the wrong rule alone is left out
    assert "off by" in step.trace.to_json()["rejected"]["wrong"]
    assert step.fused["attention"] == 2
    assert step.parity.passed


def _with(selection, rule):
    from dataclasses import replace

    return replace(selection, fusions=(*selection.fusions, rule))


def test_int8_under_the_bar_is_never_saved(bert_export, tmp_path, monkeypatch):
    from onnxfuse.quantization import weights

    monkeypatch.setattr(weights, "LARGEST", 1)
    monkeypatch.setattr(weights, "PAIR", 2)
    with pytest.raises(ParityError, match="the int8 model is not close enough"):
        quantize(QuantizeConfig(bert_export / "export" / "model.onnx", tmp_path / "q.onnx"))
    assert not list(tmp_path.iterdir())


def test_the_whole_chain_from_a_folder(bert_export, tmp_path):
    from rich.console import Console

    from onnxfuse.cli import tables
    from onnxfuse.config import BenchmarkConfig

    outcome = run_all(
        ExportConfig(str(bert_export / "checkpoint"), tmp_path, exporter="torchscript"),
        "cpu",
        BenchmarkConfig(batch=2, length=8, rounds=2),
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json",
        "model.onnx",
        "model_optimized.onnx",
        "model_quantized.onnx",
        "onnxfuse.json",
    ]
    assert {timing.samples for timing in outcome.timings.values()} == {2}
    assert list(outcome.timings)[:4] == ["PyTorch", "ONNX", "optimized", "int8"]
    assert "optimized in OpenVINO" in outcome.timings  # in bfloat16 too, where the CPU has it
    known = card.measured({"float": tmp_path / "model_optimized.onnx", "int8": tmp_path / "model_quantized.onnx"})
    assert list(known["p50"]) == ["PyTorch", "float", "int8"] and known["parity"]["float"].startswith("max diff ")
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - rich closes nothing
    tables.run_table(outcome, "chain").print(console)
    console.file.close()
    text = console.export_text()
    for word in ("PyTorch", "ONNX", "optimized", "int8", "attention 2/2", "reference", "speed-up"):
        assert word in text
    answer = json.loads(json.dumps(plain(outcome.to_json())))  # what --json prints
    assert answer["optimize"]["fused"]["attention"] == 2
    results = {row["name"]: row for row in answer["results"]}
    assert list(results) == list(outcome.timings)
    assert results["optimized"]["parity"]["passed"]
    assert results["int8"]["path"] == str(tmp_path / "model_quantized.onnx")


@pytest.mark.parametrize(("exporter", "opset"), [("torchscript", 14), ("dynamo", 23)])
def test_old_and_new_opsets_fuse(tmp_path, exporter, opset):
    """Norms from their parts below opset 17, the Attention operator from 23 on. All cells: scripts/coverage.py."""
    small_model("distilbert", "AutoModelForSequenceClassification", layers=1).save_pretrained(tmp_path / "checkpoint")
    exported = export(ExportConfig(str(tmp_path / "checkpoint"), tmp_path, exporter=exporter, opset=opset))
    checkpoint = exported.checkpoint
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "model_optimized.onnx", require=("all",)))
    assert optimized.fused["unfused"] == 0
    assert agrees_with_torch(optimized.path, checkpoint).passed


def test_an_opset_that_the_exporters_converter_does_not_reach(tmp_path):
    """torch.export writes opset 18 and converts it down; what it leaves at another opset than asked is not passed off as it."""
    model = small_model("bert", "AutoModelForSequenceClassification", layers=1)
    with pytest.raises(ExportError, match=r"wrote opset 18 for BertForSequenceClassification, wanted 14: .* use --opset 18"):
        export(ExportConfig("test", tmp_path, opset=14), source=model)
    assert not list(tmp_path.iterdir())


def test_a_graph_of_orts_optimizer_fuses(bert_export, tmp_path):
    from onnxruntime.transformers.optimizer import optimize_model

    source = bert_export / "export" / "model.onnx"
    optimize_model(str(source), model_type="bert", num_heads=4, hidden_size=128).save_model_to_file(str(tmp_path / "model.onnx"))
    (tmp_path / "config.json").write_bytes((bert_export / "export" / "config.json").read_bytes())
    optimized = optimize(OptimizeConfig(tmp_path / "model.onnx", tmp_path / "model_optimized.onnx", require=("all",)))
    assert optimized.fused["attention"] == 2
    assert "SkipLayerNormalization" in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", ["bert-base-uncased", "distilbert-base-uncased", "google/vit-base-patch16-224"])
def test_full_size_models(tmp_path, name, exporter):
    exported = export(ExportConfig(name, tmp_path, random_weights=True, exporter=exporter))
    checkpoint = exported.checkpoint
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "o.onnx", require=("all",)))
    assert optimized.fused["attention"] == ATTENTIONS[checkpoint.family.model_type]
    assert agrees_with_torch(optimized.path, checkpoint).require("torch").error <= 1e-5
    quantized = quantize(QuantizeConfig(optimized.path, tmp_path / "q.onnx"))
    assert quantized.size <= 0.27 * exported.size
    assert optimized.seconds["fuse"] <= 3
    assert np.isfinite(quantized.parity.cosine)


def test_run_reads_each_model_once_and_opens_it_once_for_each_use(bert_export, tmp_path, monkeypatch):
    """The exporter's own file is read before the check of what is written; what ``load`` opens is measured as it is opened there."""
    read, opened = Counter(), Counter()
    parse, session = onnx_file._parse, sessions._open

    def open_counted(source, *given, **options):
        opened.update([Path(source).name] if isinstance(source, str) else [])
        return session(source, *given, **options)

    monkeypatch.setattr(onnx_file, "_parse", lambda path: read.update([path.name]) or parse(path))
    monkeypatch.setattr(sessions, "_open", open_counted)
    run_all(ExportConfig(str(bert_export / "checkpoint"), tmp_path, exporter="torchscript"), "cpu", BenchmarkConfig(rounds=1))
    once = {"model_optimized.onnx": 1, "model_optimized_other.onnx": 1, "model_quantized.onnx": 1}
    assert read == {"model.onnx": 2, **once}
    assert opened == {"model.onnx": 1, "model_optimized.onnx": 2, "model_quantized.onnx": 2}
