"""Each step of the chain on graphs of one or two operators: what it decides, refuses and says of its result."""

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse import catalog, exporters, targets
from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig, Scheme, Thresholds
from onnxfuse.errors import ExportError, NothingToQuantizeError, ParityError, RequirementError, StorageError, UsageError
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.exporters import tflite
from onnxfuse.fusions.unpad import Padding
from onnxfuse.io import folders, onnx_file
from onnxfuse.io.progress import silent
from onnxfuse.measure import benchmark
from onnxfuse.pipeline import forms
from onnxfuse.pipeline.check import check, compare_all
from onnxfuse.pipeline.explain import Finding
from onnxfuse.pipeline.export import Exported, export
from onnxfuse.pipeline.export_tflite import export_tflite
from onnxfuse.pipeline.optimize import VERIFY, Optimized, _expected, _require, optimize
from onnxfuse.pipeline.quantize import Quantized, quantize
from onnxfuse.pipeline.retype import retype
from onnxfuse.pipeline.run import run_all
from onnxfuse.quantization.description import Description
from onnxfuse.quantization.gate import TradeOff
from onnxfuse.rewrite import Trace
from onnxfuse.runtime import open_runner, runtimes
from onnxfuse.verify import parity
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import Case
from onnxfuse.verify.opened import Opened
from tests.conftest import fill, ops, parse
from tests.fusions.test_unpad import model as attention
from tests.verify.test_verdict import FLOAT, nudge, nudged

WIDTH = 128
PRODUCT = f"g (float[B,{WIDTH}] x, float[{WIDTH},{WIDTH}] w) => (float[B,{WIDTH}] y) {{ y = MatMul(x, w) }}"
TOKENS = "g (int64[B,S] input_ids, float[12,4] words) => (float[B,S,4] y) { h = Gather(words, input_ids)  y = Tanh(h) }"
OLD_INT8 = """g (float[B,4] x) => (float[B,4] y) <uint8[4,4] w = {9,3,4,1,0,2,7,5,3,3,1,8,6,2,0,1}, float scale = {0.01}>
    { q, s, z = DynamicQuantizeLinear(x)  p = MatMulInteger(q, w, z)  f = Cast<to=1>(p)  u = Mul(s, scale)  y = Mul(f, u) }"""


def save(path, text, **shapes):
    onnx_file.save(fill(parse(text), **shapes), path)
    return path


@pytest.fixture
def product(tmp_path):
    """The path of a model that is worth quantizing."""
    return save(tmp_path / "model.onnx", PRODUCT, w=(WIDTH, WIDTH))


@pytest.fixture
def rows(tmp_path):
    """Inputs for it."""
    np.savez(tmp_path / "rows.npz", x=np.random.default_rng(0).standard_normal((64, WIDTH)).astype(np.float32))
    return tmp_path / "rows.npz"


# optimize --------------------------------------------------------------------------------------------------------


def optimized(tmp_path, text=FLOAT, shapes=(), **options):
    source = save(tmp_path / "model.onnx", text, **dict(shapes))
    return optimize(OptimizeConfig(source, tmp_path / "o.onnx", **options))


@pytest.mark.parametrize("verify", VERIFY)
def test_what_verify_asks_for_is_done_and_no_more(tmp_path, monkeypatch, verify):
    nudge(monkeypatch, 2.0)
    if verify == "final":
        with pytest.raises(ParityError, match=r"optimizing changed the outputs: .*o\.onnx was not written"):
            optimized(tmp_path, verify=verify)
        assert not (tmp_path / "o.onnx").exists()
        return
    step = optimized(tmp_path, verify=verify)
    found = step.to_json()
    assert list(found["trace"]["rejected"]) == (["nudge"] if verify == "each" else [])
    if verify == "off":
        assert found["parity"] is None
    else:
        assert found["parity"]["passed"]


def test_another_word_for_verify_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--verify nonsense: wanted one of off, final, each"):
        optimized(tmp_path, verify="nonsense")


def test_a_dump_is_written_where_asked(tmp_path, monkeypatch):
    nudge(monkeypatch, 1.0)
    optimized(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "o.onnx", "onnxfuse.json"}
    optimized(tmp_path, dump=tmp_path / "dump")
    assert list((tmp_path / "dump").iterdir())


def test_a_length_beyond_the_positions_is_refused_and_none_is_any(tmp_path):
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 12}')
    for length in (None, 12):
        assert optimized(tmp_path, TOKENS, {"words": (12, 4)}, model_type="bert", length=length).parity.passed
    with pytest.raises(UsageError, match="--length 13: the model has positions for 12 tokens"):
        optimized(tmp_path, TOKENS, {"words": (12, 4)}, model_type="bert", length=13)


@pytest.mark.parametrize(
    ("unpad", "padding"), [(None, "kept: there is no attention: neither the operator nor a Softmax"), (False, "kept: left out")]
)
def test_padding_that_stays_says_why(tmp_path, unpad, padding):
    assert str(optimized(tmp_path, unpad=unpad).padding).startswith(padding)


def test_padding_that_must_go_and_stays_is_refused(tmp_path):
    with pytest.raises(RequirementError, match=r"--unpad: padding stays, there is no attention: neither .* leave --unpad out"):
        optimized(tmp_path, unpad=True)


def test_padding_that_must_go_goes(tmp_path):
    onnx_file.save(attention(), tmp_path / "model.onnx")
    step = optimize(OptimizeConfig(tmp_path / "model.onnx", tmp_path / "o.onnx", unpad=True))
    assert str(step.padding) == "removed"
    assert step.parity.passed


@pytest.mark.parametrize(("text", "slow"), [(FLOAT, None), (OLD_INT8, 1)])
def test_int8_is_held_to_a_code_and_products_of_slow_types_are_told(tmp_path, text, slow):
    step = optimized(tmp_path, text)
    details = step.details()
    assert step.parity.kind == ("int8" if slow else "reassociate")
    assert ("slow_types" in details) == (slow is not None)
    if slow:
        assert details["slow_types"]["matmuls"] == slow


def test_what_is_required_and_missing_is_not_written(tmp_path):
    with pytest.raises(
        RequirementError, match=r"^gelu fused 0 times, required 3; see what is there with: onnxfuse explain MODEL$"
    ):
        optimized(tmp_path, require=("gelu=3",))
    assert not (tmp_path / "o.onnx").exists()
    assert optimized(tmp_path, require=("gelu=0",)).fused["gelu"] == 0


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("all", "--require all needs the number of layers, n_layers in config.json beside the model's file; without it, ask for"),
        ("nonsense=1", "--require nonsense=1: wanted all, or NAME=NUMBER with NAME one of"),
        ("gelu=some", "--require gelu=some: wanted all"),
        ("gelu", "--require gelu: wanted all"),
    ],
)
def test_requirements_are_counts_of_what_is_fused(tmp_path, item, words):
    with pytest.raises(UsageError, match=words):
        optimized(tmp_path, require=(item,))


def test_what_is_missing_of_a_requirement_is_explained(tmp_path, monkeypatch):
    plan = OptimizeConfig(tmp_path / "model.onnx", tmp_path / "o.onnx", require=("all",))
    for more in (2, 3):  # a head may add to what a family counts
        _require(plan, {"gelu": more, "attention": 1}, {"gelu": 2}, "n_layers")
    monkeypatch.setattr("onnxfuse.pipeline.optimize.explain_file", lambda *given: [])
    with pytest.raises(RequirementError, match="gelu fused 3 times, required 2"):
        _require(replace(plan, require=("gelu=2",)), {"gelu": 3, "attention": 1}, {"gelu": 2}, "n_layers")
    with pytest.raises(UsageError, match="the model's family counts frob, which no fusion makes; correct its file"):
        _require(plan, {"gelu": 2}, {"frob": 2}, "n_layers")
    found = [
        Finding("layer 0", "attention", False, "a"),
        Finding("layer 0", "gelu", True, "b"),
        Finding("layer 1", "gelu", False, "c"),
        Finding("layer 2", "gelu", False, "d"),
    ]
    monkeypatch.setattr("onnxfuse.pipeline.optimize.explain_file", lambda *given: found)
    with pytest.raises(RequirementError) as raised:
        _require(plan, {"gelu": 1, "attention": 1}, {"gelu": 2}, "n_layers")
    assert str(raised.value) == f"gelu fused 1 times, required 2; {found[2]}"


@pytest.mark.parametrize(
    ("inputs", "config", "told", "family"),
    [
        ("float[B,3,8,8] pixel_values", {}, None, "vit"),
        ("int64[B,S] token_type_ids", {}, None, "bert"),
        ("int64[B,S] input_ids", {}, None, "distilbert"),
        ("int64[B,S] input_ids", {"model_type": "bert"}, None, "bert"),
        ("int64[B,S] input_ids", {"model_type": "bert"}, "vit", "vit"),
    ],
)
def test_the_family_is_as_told_as_configured_or_as_the_inputs_show(inputs, config, told, family):
    model = parse(f"g ({inputs}) => (float[P] y) {{ y = Cast<to = 1>({inputs.split()[-1]}) }}")
    assert catalog.model_type(model, config, told) == family


def test_what_a_family_must_hold_is_known_by_its_layers():
    assert _expected("bert", {}, targets.find("cpu")) == {}
    merged, apart = (
        _expected("bert", {"num_hidden_layers": 3}, targets.find("cpu").choosing(qkv=qkv)) for qkv in ("merged", "separate")
    )
    assert merged == {**catalog.architecture("bert").expected({"num_hidden_layers": 3}, None)}
    assert merged["qkv"] == merged["attention"] == 3
    assert apart == {name: count for name, count in merged.items() if name != "qkv"}


# quantize --------------------------------------------------------------------------------------------------------


def quantized(source, **options):
    return quantize(QuantizeConfig(source, source.with_name("q.onnx"), **options))


def test_an_int8_model_says_how_it_was_made(product, rows):
    details = quantized(product, calibration=str(rows), batch=4).details()
    assert (details["scheme"], details["calibration"], details["batch"], details["notes"], details["uncalibrated"]) == (
        "dynamic",
        str(rows),
        4,
        [],
        "",
    )
    assert "gate" not in details
    details = quantized(product, calibration="none", batch=4).details()
    assert (details["scheme"], details["calibration"], details["batch"], details["notes"], details["uncalibrated"]) == (
        "dynamic",
        None,
        4,
        [],
        "as asked",
    )
    details = quantized(product, scheme=Scheme(static=True, format="qdq"), calibration=str(rows)).details()
    assert (details["scheme"], details["format"]) == ("static", "qdq")


def test_what_it_was_calibrated_with_is_what_it_is_judged_on(product, rows):
    assert quantized(product, calibration=str(rows)).parity.real == str(rows)
    assert quantized(product, calibration="none").parity.real == ""


def test_without_data_and_tokenizer_it_is_not_calibrated_and_says_why(product):
    details = quantized(product).details()
    assert details["calibration"] is None
    assert details["uncalibrated"] == "sentences do not give its x; give --calibration DATA to onnxfuse quantize"


def test_what_was_done_to_the_data_is_told(product, monkeypatch):
    data = Dataset("mine", {"x": np.ones((8, WIDTH), np.float32) * np.arange(WIDTH, dtype=np.float32)}, notes=("cut",))
    monkeypatch.setattr("onnxfuse.pipeline.quantize.dataset_for", lambda *given: data)
    assert quantized(product, calibration="mine").description.notes == ("cut",)


def test_products_that_the_bars_keep_float_are_told_and_stay(tmp_path, rows, monkeypatch):
    source = save(
        tmp_path / "model.onnx",
        f"g (float[B,{WIDTH}] x, float[{WIDTH},{WIDTH}] w, float[{WIDTH},{WIDTH}] v) => (float[B,{WIDTH}] y) "
        "{ h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }",
        w=(WIDTH, WIDTH),
        v=(WIDTH, WIDTH),
    )
    monkeypatch.setattr(
        "onnxfuse.pipeline.quantize.meet_thresholds", lambda prepared, *given: TradeOff((prepared.linears[1].name,), (), {})
    )
    details = quantized(source, calibration=str(rows), thresholds=Thresholds(min_cosine=0.9)).details()
    assert (details["matmuls"], len(details["float"])) == (1, 1)
    assert len(details["gate"]["kept"]) == 1
    found = ops(onnx_file.load(tmp_path / "q.onnx"))
    assert [found.count(name) for name in ("MatMul", "MatMulInteger")] == [1, 1]


def test_a_model_of_two_rows_takes_two_at_a_time_whatever_is_asked(tmp_path, rows):
    source = save(tmp_path / "fixed.onnx", PRODUCT.replace("B,", "2,"), w=(WIDTH, WIDTH))
    assert quantized(source, calibration=str(rows), batch=8).description.batch == 2


@pytest.mark.parametrize("embeddings", [True, False])
def test_tables_are_counted_where_they_are_quantized(tmp_path, embeddings):
    source = save(
        tmp_path / "model.onnx",
        f"""g (int64[B,S] ids, float[400,{WIDTH}] words, float[{WIDTH},{WIDTH}] w) => (float[B,S,{WIDTH}] y)
        {{ x = Gather(words, ids)  y = MatMul(x, w) }}""",
        words=(400, WIDTH),
        w=(WIDTH, WIDTH),
    )
    details = quantized(source, calibration="none", scheme=Scheme(embeddings=embeddings)).details()
    assert (details["embeddings"], details["matmuls"]) == (int(embeddings), 1)


def test_bars_are_measured_on_data_or_on_the_calibration(product, rows):
    thresholds = Thresholds(min_cosine=0.9)
    for given in ({"data": rows, "calibration": "none"}, {"calibration": str(rows)}):
        step = quantized(product, thresholds=thresholds, **given)
        assert step.parity.kind == "finite"
        assert step.gate
    step = quantized(product, data=rows, calibration="none")  # nothing asks for a measurement
    assert step.parity.kind == "int8"
    assert step.gate is None


def test_a_classifier_is_held_to_its_labels_unasked(tmp_path, rows):
    """On the calibration data, whose own labels do not count; it must also be as close as int8 is."""
    product = save(tmp_path / "model.onnx", PRODUCT.replace("y", "logits"), w=(WIDTH, WIDTH))
    (tmp_path / "config.json").write_text('{"onnxfuse_task": "text-classification"}')
    numbers = np.random.default_rng(0).standard_normal((64, WIDTH)).astype(np.float32)
    np.savez(tmp_path / "labelled.npz", x=numbers, labels=np.full(64, WIDTH + 5))
    step = quantized(product, calibration=str(tmp_path / "labelled.npz"))
    assert (step.gate.kept, step.parity.kind) == ((), "int8")
    assert step.gate.candidates[0].quality.accuracy is None
    assert bool(step.gate.missed) == (step.gate.candidates[0].quality.agreement < 0.99)
    assert quantized(product, calibration="none").gate is None
    asked = quantized(product, calibration=str(rows), thresholds=Thresholds(min_cosine=0.5))
    assert (bool(asked.gate), asked.parity.kind) == (True, "finite")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"thresholds": Thresholds(min_cosine=0.9), "calibration": "none"},
            r"the thresholds need inputs to be measured on; give --data FILE \(as asked\)",
        ),
        (
            {"scheme": Scheme(static=True), "calibration": "none"},
            r"static int8 needs calibration data; .* or --dynamic for int8 that needs none \(as asked\)",
        ),
    ],
)
def test_what_needs_data_is_refused_without_any(product, options, words):
    with pytest.raises(UsageError, match=words):
        quantized(product, **options)


def unlike(monkeypatch):
    """Let two files always differ; returns what they were compared by."""
    asked = {}

    def compare(first, second, kind, **options):
        asked.update(options, kind=kind)
        case = Case("one", {"x": np.arange(8, dtype=np.float32)})
        return parity.compare(expect(lambda feeds: feeds, [case]), lambda feeds: {"x": feeds["x"][::-1]}, kind)

    monkeypatch.setattr("onnxfuse.pipeline.retype.compare_files", compare)
    monkeypatch.setattr("onnxfuse.pipeline.optimize.compare_files", compare)
    monkeypatch.setattr("onnxfuse.pipeline.quantize.compare_files", compare)
    return asked


def test_int8_that_is_not_close_is_not_written(product, monkeypatch):
    unlike(monkeypatch)
    with pytest.raises(ParityError, match=r"the int8 model is not close enough to float: .*q\.onnx was not written"):
        quantized(product, calibration="none")
    assert not product.with_name("q.onnx").exists()


@pytest.mark.parametrize("clips", [True, False])
@pytest.mark.parametrize("elsewhere", [True, False])
def test_retyping_that_changes_something_is_not_written(tmp_path, monkeypatch, clips, elsewhere):
    asked = unlike(monkeypatch)
    monkeypatch.setattr("onnxfuse.pipeline.retype.matmul_saturates", lambda: clips)
    source = save(tmp_path / "model.onnx", OLD_INT8)
    words = "this machine clips sums of u8 x s8 products" if clips else "retyping changed the outputs"
    with pytest.raises(ParityError, match=rf"^{words}.*: output 'x' .*fast\.onnx was not written"):
        retype(source, tmp_path / "fast.onnx", **({"elsewhere": True} if elsewhere else {}))
    assert (asked["kind"], asked["settings"].unclipped) == ("exact", elsewhere)
    assert not (tmp_path / "fast.onnx").exists()


# check and run ---------------------------------------------------------------------------------------------------


def test_check_compares_on_given_data_else_on_what_int8_was_calibrated_with(product, rows):
    other = product.with_name("q.onnx")
    quantized(product, calibration=str(rows))
    assert check(product, other, "int8").real == str(rows)
    assert check(product, other, "finite").real == ""
    np.savez(product.with_name("others.npz"), x=np.ones((4, WIDTH), np.float32) * np.arange(WIDTH, dtype=np.float32))
    rows.unlink()
    for kind in ("int8", "finite"):
        assert check(product, other, kind, product.with_name("others.npz")).real == str(product.with_name("others.npz"))
    with pytest.raises(UsageError, match="no tolerance named 'nonsense'; choose one of exact, "):
        check(product, other, "nonsense")


def test_int8_is_held_to_its_own_row_on_its_own_inputs(product, rows):
    step = quantized(product, calibration=str(rows))
    models = {"ONNX": Opened(product), "int8": step.model}
    results = compare_all(open_runner(product), "PyTorch", models, step.real, silent)
    assert {name: (result.kind, result.real) for name, result in results.items()} == {
        "ONNX": ("reassociate", ""),
        "int8": ("int8", str(rows)),
    }


DESCRIPTION = Description("dynamic", "dynamic", {}, False, 1, 0, None, 8, 8, (), {}, ())


@pytest.fixture
def stubbed(monkeypatch, product):
    """``run_all`` without a framework, and with the runtimes that any CPU has: the model is there, and is what it was exported
    from. Returns what it asks for."""
    asked = SimpleNamespace(threads=[], quantize=True)
    checkpoint = SimpleNamespace(framework="pt", config={}, saved_config={})

    def made(path):
        path.write_bytes(product.read_bytes())
        return path, 1, {}, None, Opened(path, keep=True)

    def export(plan, progress, source, keep, accept):
        return Exported(*made(plan.out / "model.onnx"), "any", "pt", "PyTorch", "dynamo", checkpoint, open_runner(product))

    def quantize(plan, progress, source):
        if not asked.quantize:
            raise NothingToQuantizeError("nothing")
        return Quantized(*made(plan.out), DESCRIPTION, "", 1.0)

    known = runtimes(".onnx")
    monkeypatch.setattr(forms, "runtimes", lambda suffix: {name: known[name] for name in ("ort", "openvino")})
    monkeypatch.setattr("onnxfuse.pipeline.run_steps.export", export)
    monkeypatch.setattr(
        "onnxfuse.pipeline.run_steps.optimize",
        lambda plan, progress, source: Optimized(*made(plan.out), "bert", "cpu", {}, {}, Padding(), 1, Trace()),
    )
    monkeypatch.setattr("onnxfuse.pipeline.run_steps.quantize", quantize)
    monkeypatch.setattr(exporters, "checkpoint_runner", lambda checkpoint, threads: open_runner(product))
    monkeypatch.setattr(exporters, "limit_threads", asked.threads.append)
    return asked


def run(tmp_path, **options):
    feeds = options.pop("feeds", None)
    return run_all(
        ExportConfig("test", tmp_path / "out", overwrite=True), "cpu", BenchmarkConfig(rounds=1, **options), feeds=feeds
    )


def test_run_limits_threads_where_asked(stubbed, tmp_path):
    run(tmp_path)
    assert stubbed.threads == []
    run(tmp_path, threads=1)
    assert stubbed.threads == [1]


def test_run_measures_on_given_inputs_or_on_random_ones(stubbed, tmp_path, monkeypatch):
    seen = []
    measure = benchmark.measure
    monkeypatch.setattr(
        benchmark, "measure", lambda runners, inputs, **options: seen.append(inputs) or measure(runners, inputs, **options)
    )
    run(tmp_path, batch=3)
    assert [feeds["x"].shape for feeds in seen.pop()] == [(3, WIDTH)]
    given = [{"x": np.ones((5, WIDTH), np.float32)}]
    run(tmp_path, feeds=lambda checkpoint: given)
    assert seen == [given]


@pytest.mark.parametrize("earlier", [False, True])
def test_run_says_why_there_is_no_int8(stubbed, tmp_path, earlier):
    stubbed.quantize = False
    stale = tmp_path / "out" / "model_quantized.onnx"
    if earlier:
        stale.parent.mkdir()
        stale.write_bytes(b"old")
    outcome = run(tmp_path)
    why = "nothing" + (f"; {stale} is of an earlier run" if earlier else "")
    answer = outcome.to_json()
    assert answer["quantize"] == {"skipped": why}
    assert answer["static"] == {"skipped": "nothing is int8"}
    assert list(outcome.paths) == ["ONNX", "optimized", "optimized in OpenVINO"]
    assert outcome.fastest.file == "model_optimized.onnx"


def test_run_keeps_what_was_made_before_a_step_failed_and_nothing_when_interrupted(stubbed, tmp_path, monkeypatch):
    def fail(plan, progress, source):
        raise raised

    monkeypatch.setattr("onnxfuse.pipeline.run_steps.quantize", fail)
    raised = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert not (tmp_path / "out").exists()
    raised = ParityError("too far")
    with pytest.raises(ParityError, match="too far"):
        run(tmp_path)
    assert sorted(os.listdir(tmp_path / "out")) == ["model.onnx", "model_optimized.onnx"]
    assert not list(tmp_path.glob(".onnxfuse-*"))


def test_run_says_what_is_saved_when_only_its_measurement_cannot_be(stubbed, tmp_path, monkeypatch):
    measure = benchmark.measure

    def full(runners, inputs, **options):
        monkeypatch.setattr("onnxfuse.io.locks.tempfile.mkdtemp", fail)
        return measure(runners, inputs, **options)

    def fail(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(benchmark, "measure", full)
    said = "onnxfuse.json: No space left .*; model.onnx, model_optimized.onnx, model_quantized.onnx are saved there, what was measured is not$"
    with pytest.raises(StorageError, match=said):
        run(tmp_path)
    assert len(list((tmp_path / "out").glob("*.onnx"))) == 3


def test_run_tells_of_every_step(stubbed, tmp_path):
    outcome = run(tmp_path)
    answer = outcome.to_json()
    assert answer["quantize"] == outcome.quantize.to_json()
    assert answer["static"] == {"skipped": "it needs inputs to be calibrated with"}
    assert answer["refused"] == []
    names = ("model.onnx", "model_optimized.onnx", "model_quantized.onnx", "model_optimized_other.onnx")
    rows = ("ONNX", "optimized", "int8", "optimized in OpenVINO")
    assert outcome.paths == dict(zip(rows, (tmp_path / "out" / name for name in names), strict=True))
    assert [path.is_file() for path in outcome.paths.values()] == [True, True, True, outcome.fastest.file == folders.FUSED]
    measured = json.loads((tmp_path / "out" / "onnxfuse.json").read_text())["benchmark"]
    assert set(measured["timings"]) == {"PyTorch", *rows}
    assert measured["fastest"] == json.loads(json.dumps(outcome.fastest.to_json()))
    assert measured["fastest"]["file"] in names[1:]


# LiteRT ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def converter(monkeypatch, tmp_path):
    """A TensorFlow whose models are ONNX files, and a converter that multiplies outputs by ``factor``."""
    made = SimpleNamespace(factor=1.0)
    source = save(
        tmp_path / "source.onnx",
        "g (int64[B,S] input_ids, int64[B,S] attention_mask, float[500,8] words) => (float[B,S,8] y) "
        "{ y = Gather(words, input_ids)  n = Neg(attention_mask) }",
        words=(500, 8),
    )
    checkpoint = SimpleNamespace(
        family=catalog.architecture("distilbert"),
        config={"vocab_size": 500, "max_position_embeddings": 16},
        saved_config={},
        task="any",
        save_beside=lambda folder: [(folder / "config.json").write_text("{}") and "config.json"],
    )
    monkeypatch.setattr(exporters, "framework_of", lambda source, framework: framework or "tf")
    monkeypatch.setattr(exporters, "open_checkpoint", lambda *given, **options: checkpoint)
    monkeypatch.setattr(exporters, "checkpoint_runner", lambda checkpoint: open_runner(source))
    monkeypatch.setattr(tflite, "convert", lambda checkpoint, path, precision, scratch: nudged(source, path, made.factor))
    monkeypatch.setattr(
        "onnxfuse.verify.opened.open_runner",
        lambda path, settings: open_runner(shutil.copy(path, tmp_path / "converted.onnx"), settings),
    )
    return made


def test_litert_models_are_held_to_their_precision(converter, tmp_path):
    plan = ExportConfig("bert-tf", tmp_path / "out", format="tflite")
    converter.factor = 1 + 4e-6
    assert export_tflite(plan).parity.kind == "reassociate"
    converter.factor = 1 + 2e-5
    with pytest.raises(ParityError, match=r"LiteRT differs from .*model\.tflite was not written"):
        export_tflite(replace(plan, out=tmp_path / "other"))
    assert export_tflite(replace(plan, precision="fp16")).parity.kind == "half"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "fp64"}, "--precision fp64: wanted one of fp32, fp16, int8"),
        ({"framework": "pt"}, "--format tflite converts TensorFlow models; bert-tf is PyTorch's"),
    ],
)
def test_litert_models_are_made_of_tensorflow_alone(converter, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        export_tflite(ExportConfig("bert-tf", tmp_path / "out", format="tflite", **options))


# export ----------------------------------------------------------------------------------------------------------


def test_the_source_is_the_plans_unless_another_is_given(monkeypatch, tmp_path):
    def opened(source, **options):
        raise ExportError(source)

    monkeypatch.setattr(exporters, "framework_of", lambda source, framework: "pt")
    monkeypatch.setattr(exporters, "open_checkpoint", opened)
    for given, wanted in ((None, "plan's"), ("given", "given")):
        with pytest.raises(ExportError, match=wanted):
            export(ExportConfig("plan's", tmp_path), source=given)


@pytest.mark.parametrize(
    ("weight", "error", "words"),
    [
        (np.nan, ExportError, "weight w holds NaN"),
        (2.0, ParityError, r"the export differs from PyTorch: .*model\.onnx was not written"),
    ],
)
def test_what_does_not_compute_the_same_is_not_exported(monkeypatch, tmp_path, weight, error, words):
    def of(value):
        model = fill(parse("g (float[B,4] x, float[4] w) => (float[B,4] y) { y = Mul(x, w) }"), w=(4,))
        model.graph.initializers["w"].const_value = ir.tensor(np.full(4, value, np.float32))
        return model

    onnx_file.save(of(weight + 1), tmp_path / "known.onnx")
    checkpoint = SimpleNamespace(saved_config={}, task="any", save_beside=lambda folder: [])
    monkeypatch.setattr(exporters, "framework_of", lambda source, framework: "pt")
    monkeypatch.setattr(exporters, "open_checkpoint", lambda *given, **options: checkpoint)
    monkeypatch.setattr(exporters, "checkpoint_runner", lambda checkpoint: open_runner(tmp_path / "known.onnx"))
    monkeypatch.setattr(exporters, "export", lambda checkpoint, path, **options: onnx_file.save(of(weight), path))
    with pytest.raises(error, match=words):
        export(ExportConfig("test", tmp_path / "out"))
    assert not (tmp_path / "out" / "model.onnx").exists()
