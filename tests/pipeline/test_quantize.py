"""``onnxfuse quantize`` and ``evaluate`` on real files: calibration, thresholds, outliers, retyping, and what is refused."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig, Scheme, Thresholds
from onnxfuse.errors import ModelError, NothingToQuantizeError, RequirementError, UncalibratedError, UsageError
from onnxfuse.evaluation.sources import dataset_for, default_calibration
from onnxfuse.io import onnx_file
from onnxfuse.pipeline.check import check
from onnxfuse.pipeline.evaluate import evaluate
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.quantization.linears import find_linears
from onnxfuse.quantization.prepare import prepare
from onnxfuse.quantization.weights import Int8Weight
from onnxfuse.quantization.write import write
from onnxfuse.runtime.probes import matmul_saturates
from onnxfuse.runtime.sessions import open_session, run
from tests.cli.test_cli import expect_one_line
from tests.conftest import ops, parse
from tests.evaluation.conftest import tokenizer_files
from tests.marks import OTHERS

COUNT = 48


@pytest.fixture(scope="module")
def optimized(bert_export, tmp_path_factory):
    folder = tmp_path_factory.mktemp("optimized")
    return optimize(OptimizeConfig(bert_export / "export" / "model.onnx", folder / "model_optimized.onnx")).path


@pytest.fixture(scope="module")
def data(optimized, tmp_path_factory):
    """Inputs with padding, and the float model's own answers as labels: int8 can only lose accuracy."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 500, (COUNT, 12))
    mask = (np.arange(12) < rng.integers(4, 13, COUNT)[:, None]).astype(np.int64)
    columns = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    columns["labels"] = run(open_session(optimized), columns)["logits"].argmax(axis=1)
    for name, array in columns.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def outlier_ridden(source, path, factor=300.0):
    """The same function, with two channels of layer 0's values and context made ``factor`` times as large."""
    model = onnx_file.load(source)
    into, out = (node for node in list(find_linears(model.graph))[:2])
    assert (into.role, out.role) == ("layer 0 queries, keys, values", "layer 0 attention out")
    add = next(user for user, _ in into.node.outputs[0].uses())
    bias = next(value for value in add.inputs if value.const_value is not None)
    channels = np.array([5, 70])
    columns = 2 * out.matrix().shape[0] + channels  # values stand behind queries and keys
    for value, index, times in (
        (into.weight, (slice(None), columns), factor),
        (bias, columns, factor),
        (out.weight, channels, 1 / factor),
    ):
        content = value.const_value.numpy().copy()
        content[index] *= times
        value.const_value = ir.tensor(content)
    onnx_file.save(model, path)
    return path


@pytest.mark.parametrize(("old", "new"), [("--no-clip-safe", "--no-reduce-range"), ("--form=qdq", "--format")])
def test_an_option_of_an_earlier_version_is_refused_with_its_new_name(cli, old, new):
    expect_one_line(cli("quantize", "model.onnx", old), 2, f"onnxfuse: {old.partition('=')[0]} is called {new} now")


@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_static_models_pass_and_say_how_they_were_made(cli, optimized, data, tmp_path, format):
    result = cli("quantize", optimized, "-o", tmp_path / "q.onnx", "--static", "--calibration", data, "--format", format)
    assert result.returncode == 0, result.stderr
    assert f"static, {format}: 9 linear layers, 1 embedding tables in int8, calibrated on {data}" in result.stdout
    found = ops(onnx_file.load(tmp_path / "q.onnx"))
    assert found.count("MatMulIntegerToFloat" if format == "qoperator" else "QuantizeLinear") > 0
    assert not {"MatMulInteger", "DynamicQuantizeLinear"} & set(found)
    scheme = json.loads(onnx_file.load(tmp_path / "q.onnx").metadata_props["onnxfuse.int8"])
    assert (scheme["scheme"], scheme["format"]) == ("static", format)


def test_auto_measures_both_forms(optimized, data, tmp_path):
    step = quantize(QuantizeConfig(optimized, tmp_path / "q.onnx", Scheme(static=True), str(data)))
    assert set(step.description.formats) == {"qdq", "qoperator"}
    assert step.description.format in step.description.formats


@pytest.mark.parametrize("ranges", ["percentile", "entropy"])
def test_other_ranges_pass_too(optimized, data, tmp_path, ranges):
    step = quantize(QuantizeConfig(optimized, tmp_path / "q.onnx", Scheme(static=True, ranges=ranges, format="qdq"), str(data)))
    assert step.parity.passed


def test_calibrated_is_closer_than_plain(optimized, data, tmp_path):
    errors = {}
    for name in ("none", str(data)):
        quantize(QuantizeConfig(optimized, tmp_path / "q.onnx", calibration=name))
        quality = evaluate([optimized, tmp_path / "q.onnx"], data, BenchmarkConfig(8, rounds=1))
        errors[name] = 1 - quality.rows[str(tmp_path / "q.onnx")].cosine
    assert errors[str(data)] < errors["none"]


def test_evaluate_shows_accuracy_beside_latency(cli, optimized, data):
    copy = optimized.with_name("copy.onnx")
    shutil.copy(optimized, copy)
    result = cli("evaluate", optimized, copy, "--data", data, "--rounds", 1)
    assert result.returncode == 0, result.stderr
    assert "100.00 ± " in result.stdout
    assert "+0.00 points of accuracy, no more than chance (McNemar's test of what is right: p = 1)" in result.stdout
    found = json.loads(cli("evaluate", optimized, "--data", data, "--rounds", 1, "--json").stdout)["results"][0]
    assert (found["count"], found["metrics"]["accuracy"]["value"], found["cosine"]) == (COUNT, 1.0, pytest.approx(1))
    assert found["latency"]["p50"] > 0


# The gate ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outliers(optimized, tmp_path_factory):
    return outlier_ridden(optimized, tmp_path_factory.mktemp("outliers") / "model_optimized.onnx")


@OTHERS
def test_the_outlier_ridden_model_computes_the_same(optimized, outliers):
    assert check(optimized, outliers, "reassociate").passed


@OTHERS
def test_outliers_are_smoothed_away(outliers, data, tmp_path):
    step = quantize(
        QuantizeConfig(outliers, tmp_path / "q.onnx", calibration=str(data), thresholds=Thresholds(min_cosine=0.9998))
    )
    assert "layer 0 attention out" in step.description.smoothed
    assert not step.description.kept


@OTHERS
def test_without_smoothing_that_product_stays_float(cli, outliers, data, tmp_path):
    result = cli(
        "quantize",
        outliers,
        "-o",
        tmp_path / "q.onnx",
        "--smooth",
        "off",
        "--calibration",
        data,
        "--min-cosine",
        0.9998,
        "--max-drop",
        "5%",
        "--plot",
        tmp_path / "trade.svg",
    )
    assert result.returncode == 0, result.stderr
    assert "kept in float: layer 0 attention out" in result.stdout
    assert "linear layers kept in float, batches of 8" in result.stdout
    assert "p50 ms" in (tmp_path / "trade.svg").read_text()
    kept = json.loads((tmp_path / "onnxfuse.json").read_text())["quantize"]
    assert kept["float"][0] == "layer 0 attention out"
    assert kept["gate"]["candidates"][0]["quality"]["cosine"] < 0.9998 <= kept["gate"]["candidates"][-1]["quality"]["cosine"]
    assert all(candidate["p50"] > 0 for candidate in kept["gate"]["candidates"])


def test_thresholds_that_cannot_be_met_save_nothing(optimized, data, tmp_path):
    old = tmp_path / "q.onnx"
    old.write_bytes(optimized.read_bytes())  # of ours, so that it may be replaced
    words = r"wanted 1; the best found has a cosine of \d\.\d+; nothing was saved"  # embeddings stay int8
    with pytest.raises(RequirementError, match=words):
        quantize(QuantizeConfig(optimized, old, calibration=str(data), thresholds=Thresholds(min_cosine=1.0)))
    assert old.read_bytes() == optimized.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["q.onnx"]


# Data that is wrong -------------------------------------------------------------------------------------------------


def test_wrong_data_is_one_line(cli, optimized, data, tmp_path):
    expect_one_line(cli("quantize", optimized, "--static"), 2, "static int8 needs calibration data; give --calibration DATA")
    expect_one_line(cli("quantize", optimized, "--calibration", tmp_path / "none"), 2, "is not there")
    expect_one_line(cli("quantize", optimized, "--min-cosine", 0.9), 2, "give --data FILE")
    np.savez(tmp_path / "wrong.npz", ids=np.ones((3, 4), np.int64))
    expect_one_line(
        cli("quantize", optimized, "--calibration", tmp_path / "wrong.npz"),
        2,
        "has no column input_ids, attention_mask, which",
        "takes; it holds ids",
    )
    (tmp_path / "empty").mkdir()
    expect_one_line(cli("quantize", optimized, "--calibration", tmp_path / "empty"), 2, "holds no samples")
    expect_one_line(cli("quantize", optimized, "--max-drop", "much"), 2, "--max-drop much: wanted a share such as 0.5% or 0.005")
    expect_one_line(cli("quantize", optimized, "--smooth", "much"), 2, "--smooth much: wanted auto, off, or a number from 0 to 1")
    (data / "labels.npy").rename(tmp_path / "labels.npy")
    try:
        expect_one_line(
            cli("quantize", optimized, "--calibration", data, "--max-drop", "1%"), 2, "--max-drop is measured on the labels"
        )
    finally:
        (tmp_path / "labels.npy").rename(data / "labels.npy")
    (tmp_path / "texts.txt").write_text("one\n")
    expect_one_line(cli("evaluate", optimized, "--data", tmp_path / "texts.txt"), 2, "no tokenizer beside the model")
    assert not (optimized.parent / "model_quantized.onnx").exists()


def test_an_int8_model_is_one_line(cli, optimized, tmp_path):
    assert cli("quantize", optimized, "-o", tmp_path / "q.onnx").returncode == 0
    expect_one_line(cli("quantize", tmp_path / "q.onnx", "-o", tmp_path / "again.onnx"), 3, "int8 already", "--retype")
    expect_one_line(cli("quantize", "--retype", tmp_path / "q.onnx"), 3, "there is nothing to retype")


# Sentences, and models that are int8 already ------------------------------------------------------------------------


def test_a_model_with_a_tokenizer_is_calibrated_by_sentences(optimized, tmp_path):
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "return", "if", "file", "of", "is"]
    (tmp_path / "model_optimized.onnx").write_bytes(optimized.read_bytes())
    with pytest.raises(UncalibratedError, match="no tokenizer lies beside the model"):
        default_calibration(optimized, onnx_file.load(optimized))
    transformers.BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 64}))
    found = default_calibration(tmp_path / "model_optimized.onnx", onnx_file.load(optimized))
    assert len(found) == 512
    assert found.inputs["input_ids"].shape[1] <= 64
    assert set(next(found.batches(8))) == {"input_ids", "attention_mask", "token_type_ids"}
    (tmp_path / "texts.csv").write_text("text,label\nthe file is,1\n")
    own = dataset_for(tmp_path / "texts.csv", tmp_path / "model_optimized.onnx")
    assert own.inputs["input_ids"].tolist() == [[2, 5, 9, 11, 3]]
    assert own.labels.tolist() == [1]


# Models of other forms ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fixed(bert_export, tmp_path_factory):
    """A folder with a model that takes one row of 16 tokens only, and a tokenizer that makes no token types."""
    folder = tmp_path_factory.mktemp("fixed")
    optimize(OptimizeConfig(bert_export / "export" / "model.onnx", folder / "model_optimized.onnx", batch=1, length=16))
    tokenizer_files(folder, words=500, pad_token="w9")
    (folder / "data.csv").write_text("text,label\n" + "".join(f"w{at} w{3 * at} w{5 * at},{at % 2}\n" for at in range(1, 41)))
    return folder


@pytest.mark.parametrize(
    ("options", "gated"),
    [
        ({}, False),
        ({"scheme": Scheme(static=True, format="qdq"), "calibration": "data.csv"}, False),
        ({"calibration": "data.csv"}, False),
        ({"data": "data.csv", "calibration": "data.csv", "thresholds": Thresholds(max_drop=0.5, min_cosine=0.9)}, True),
    ],
)
def test_a_model_of_fixed_sizes_is_quantized(fixed, tmp_path, options, gated):
    options = {name: str(fixed / value) if value == "data.csv" else value for name, value in options.items()}
    if gated:
        options["data"] = fixed / "data.csv"
    step = quantize(QuantizeConfig(fixed / "model_optimized.onnx", tmp_path / "q.onnx", batch=8, **options))
    assert step.description.calibration
    assert (step.gate is not None) == gated
    assert json.loads(onnx_file.load(tmp_path / "q.onnx").metadata_props["onnxfuse.int8"])["batch"] == step.description.batch == 1


def test_models_of_fixed_and_of_any_size_are_evaluated_together(cli, fixed, optimized):
    result = cli("evaluate", optimized, fixed / "model_optimized.onnx", "--data", fixed / "data.csv", "--rounds", 1, "--json")
    assert result.returncode == 0, result.stderr
    for found in json.loads(result.stdout)["results"]:
        assert (found["count"], found["batch"], found["cosine"]) == (40, 1, pytest.approx(1))
    assert "batches of 1, " in cli("evaluate", fixed, "--data", fixed / "data.csv", "--rounds", 1).stdout


def test_why_a_model_is_not_calibrated(cli, optimized, tmp_path):
    out = tmp_path / "q.onnx"
    assert (
        quantize(QuantizeConfig(optimized, out)).uncalibrated
        == "no tokenizer lies beside the model; give --calibration DATA to onnxfuse quantize"
    )
    result = cli("quantize", optimized, "-o", out, "--calibration", "none")
    assert "not calibrated (as asked)" in result.stdout


def test_a_broken_tokenizer_is_why_a_model_is_not_calibrated(fixed, tmp_path):
    for name in ("model_optimized.onnx", "tokenizer_config.json", "data.csv"):
        (tmp_path / name).write_bytes((fixed / name).read_bytes())
    (tmp_path / "tokenizer.json").write_text("[1]")
    source, out, texts = tmp_path / "model_optimized.onnx", tmp_path / "q.onnx", tmp_path / "data.csv"
    assert quantize(QuantizeConfig(source, out)).uncalibrated.startswith("the tokenizer in")
    broken = "the tokenizer in .* cannot be used.* save it again"
    with pytest.raises(ModelError, match=broken):
        quantize(QuantizeConfig(source, out, calibration=str(texts)))
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        evaluate([source], texts, BenchmarkConfig(batch=8, rounds=1))
    with pytest.raises(UsageError, match=r"give --data FILE \(the tokenizer in"):
        quantize(QuantizeConfig(source, out, thresholds=Thresholds(min_cosine=0.9)))
    with pytest.raises(UsageError, match=r"give --calibration DATA.*\(the tokenizer in"):
        quantize(QuantizeConfig(source, out, Scheme(static=True)))


def test_notes_are_told(cli, fixed, tmp_path):
    for name in ("model_optimized.onnx", "data.csv"):
        (tmp_path / name).write_bytes((fixed / name).read_bytes())
    tokenizer_files(tmp_path, words=500)
    result = cli("quantize", tmp_path, "--calibration", "data.csv")
    assert result.returncode == 0, result.stderr
    assert "padded with 0 under the mask, since the tokenizer has no token for padding" in result.stdout


@pytest.fixture(scope="module")
def slow_int8(bert_export, tmp_path_factory):
    """The plain export in u8 x u8, as quantizers on the Hub write it; weights near their zero point, exact on every machine."""
    model = onnx_file.load(bert_export / "export" / "model.onnx")
    prepared = prepare(model, Scheme(reduce_range=True, embeddings=False))
    halves = {name: Int8Weight((w.values // 2).astype(np.int8), w.scale * 2) for name, w in prepared.weights_int8.items()}
    found = write(dataclasses.replace(prepared, weights_int8=halves))
    for node in [node for node in found.graph if node.op_type == "MatMulInteger"]:
        value = node.inputs[1] if node.inputs[1].const_value is not None else node.inputs[1].producer().inputs[0]
        value.const_value = ir.tensor((value.const_value.numpy().astype(np.int16) + 128).astype(np.uint8))
        value.type = ir.TensorType(ir.DataType.UINT8)
        zero = ir.Value(
            name=f"{node.outputs[0].name}/zero",
            const_value=ir.tensor(np.array(128, np.uint8)),
            type=ir.TensorType(ir.DataType.UINT8),
            shape=ir.Shape([]),
        )
        found.graph.register_initializer(zero)
        node.resize_inputs(4)
        node.replace_input_with(3, zero)
    path = tmp_path_factory.mktemp("slow") / "model.onnx"
    onnx_file.save(found, path)
    return path


def test_retype_is_equal_to_the_bit_and_says_how_fast(cli, slow_int8, tmp_path):
    result = cli("quantize", "--retype", slow_int8, "-o", tmp_path / "fast.onnx", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["weights"], found["parity"]["kind"], found["parity"]["error"]) == (12, "exact", 0.0)
    assert found["speed"]["value"] > 0


def test_retype_refuses_what_this_machine_would_clip(cli, slow_int8, tmp_path):
    """Weights of all eight bits: moved without loss, and right only where products are not clipped."""
    model = onnx_file.load(slow_int8)
    rng = np.random.default_rng(0)
    for value in model.graph.initializers.values():
        if value.dtype == ir.DataType.UINT8 and value.const_value.size > 1:
            shape = value.const_value.shape.numpy()
            value.const_value = ir.tensor(np.where(rng.random(shape) < 0.5, 0, 255).astype(np.uint8))
    onnx_file.save(model, tmp_path / "wide.onnx")
    result = cli("quantize", "--retype", tmp_path / "wide.onnx", "-o", tmp_path / "fast.onnx")
    if matmul_saturates():
        expect_one_line(result, 5, "this machine clips sums of u8 x s8 products", "--no-reduce-range")
        assert not (tmp_path / "fast.onnx").exists()
    else:
        assert result.returncode == 0, result.stderr
    result = cli("quantize", "--retype", tmp_path / "wide.onnx", "-o", tmp_path / "elsewhere.onnx", "--no-reduce-range", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["parity"]["error"] == 0.0


def test_optimize_takes_int8_models_and_warns_of_slow_types(cli, slow_int8, tmp_path):
    result = cli("optimize", slow_int8, "-o", tmp_path / "o.onnx", "--model-type", "bert")
    assert result.returncode == 0, result.stderr
    assert "attention 2, gelu 2, layer_norm 5, qkv 0" in result.stdout  # each projection has its own scale
    assert "12 matmuls have u8 weights, which take" in result.stdout
    assert "onnxfuse quantize --retype" in result.stdout


def test_optimize_fuses_around_quantize_and_dequantize(bert_export, data, tmp_path):
    quantize(
        QuantizeConfig(bert_export / "export" / "model.onnx", tmp_path / "q.onnx", Scheme(static=True, format="qdq"), str(data))
    )
    step = optimize(OptimizeConfig(tmp_path / "q.onnx", tmp_path / "o.onnx", model_type="bert"))
    assert {name: step.fused[name] for name in ("attention", "layer_norm", "gelu")} == {
        "attention": 2,
        "layer_norm": 5,
        "gelu": 2,
    }
    before, after = (onnx_file.load(tmp_path / name) for name in ("q.onnx", "o.onnx"))
    assert ops(after).count("DequantizeLinear") >= ops(before).count("DequantizeLinear") - 2  # equal inputs are quantized once
    assert step.size < 1.1 * (tmp_path / "q.onnx").stat().st_size


# Full size ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_above_two_gigabytes_go_through_the_whole_chain(tmp_path):
    """bert-large with twice its layers: 2.5 GB of weights, in a file beside the model."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(hidden_size=1024, num_attention_heads=16, intermediate_size=4096, num_hidden_layers=48)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    exported = export(ExportConfig("large", tmp_path), source=model)
    del model
    assert exported.size > 2**31
    optimized = optimize(OptimizeConfig(exported.path, tmp_path / "model_optimized.onnx", require=("all",)))
    assert (tmp_path / "model_optimized.onnx.data").stat().st_size > 2**31
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 30000, (8, 16))
    np.savez(tmp_path / "data.npz", input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids))
    quantized = quantize(
        QuantizeConfig(
            optimized.path,
            tmp_path / "model_quantized.onnx",
            Scheme(rounding="nearest"),
            str(tmp_path / "data.npz"),
            thresholds=Thresholds(min_cosine=0.95),
        )
    )  # 48 untrained layers
    assert quantized.size < 0.27 * exported.size
    assert len(quantized.description.kept) <= 4, "how near untrained layers come to the threshold is the CPU's rounding"
    assert check(optimized.path, quantized.path, "int8").cosine > 0.9


@pytest.mark.slow
def test_peak_memory_of_calibration_does_not_grow(bert_export, tmp_path):
    """The whole process, ONNX Runtime included, over 100 and over 1,000 samples."""
    script = """
import sys
from pathlib import Path
from onnxfuse.config import QuantizeConfig
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.pipeline.memory import peak_so_far
from onnxfuse.config import Scheme
quantize(QuantizeConfig(Path(sys.argv[1]), Path(sys.argv[2]), Scheme(static=True, format="qdq"), sys.argv[3]))
print(peak_so_far())
"""
    rng, peaks = np.random.default_rng(0), []
    for count in (100, 1000):
        ids = rng.integers(0, 500, (count, 64))
        (tmp_path / str(count)).mkdir()
        for name, array in (("input_ids", ids), ("attention_mask", np.ones_like(ids)), ("token_type_ids", np.zeros_like(ids))):
            np.save(tmp_path / str(count) / f"{name}.npy", array)
        command = [
            sys.executable,
            "-c",
            script,
            bert_export / "export" / "model.onnx",
            tmp_path / "q.onnx",
            tmp_path / str(count),
        ]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < 1.1 * peaks[0]


def test_a_model_with_nothing_to_quantize_is_refused_before_data_are_read(tmp_path):
    onnx_file.save(parse("g (int64[B,S] input_ids) => (float[B,S] y) { y = Cast<to = 1>(input_ids) }"), tmp_path / "model.onnx")
    plan = QuantizeConfig(tmp_path / "model.onnx", tmp_path / "q.onnx", calibration=str(tmp_path / "no-such-data"))
    with pytest.raises(NothingToQuantizeError, match="is worth quantizing"):
        quantize(plan)
