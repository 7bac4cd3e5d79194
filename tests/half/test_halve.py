"""Optimized models in half precision: every family, what overflows, what is refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxfuse
from onnxfuse import targets
from onnxfuse.cli.tables import near_text
from onnxfuse.config import OptimizeConfig, TuneConfig
from onnxfuse.errors import ModelError, ParityError, UsageError
from onnxfuse.half import search
from onnxfuse.io import folders, onnx_file
from onnxfuse.native.functions import is_ours, type_of
from onnxfuse.pipeline.alternatives import FORM, chosen_with
from onnxfuse.pipeline.check import check
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.tune_measure import Measuring
from onnxfuse.runtime import Settings, open_runner
from onnxfuse.targets import NAMES, find
from onnxfuse.verify import parity
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from tests.cli.test_cli import expect_one_line
from tests.conftest import fill, parse
from tests.families import TINY, tiny
from tests.marks import FLOAT16
from tests.pipeline.test_families import exports, saved  # noqa: F401 - a fixture

pytestmark = FLOAT16


def made(source: Path, folder: Path, precision: str, target: str = "cpu"):
    return optimize(OptimizeConfig(source, folder / f"{precision}.onnx", target, precision=precision))


@pytest.mark.parametrize("family", sorted(TINY))
def test_every_family_in_float16(family, exports, tmp_path):  # noqa: F811
    """The same nodes as in float32 but for casts, each of one type, on the whole grid."""
    exported = exports(family)
    float_, half = (made(exported.path, tmp_path, precision) for precision in ("fp32", "fp16"))
    assert half.parity.kind == "half" and half.parity.passed and half.parity.cases >= 2
    assert half.fused == float_.fused and not half.half.kept, half.half
    plain, halved = (sorted(node.op_type for node in step.model.model.graph) for step in (float_, half))
    assert [name for name in halved if name != "Cast"] == [name for name in plain if name != "Cast"]
    onnx.checker.check_model(half.path, full_check=True)
    weights = [value for value in half.model.model.graph.initializers.values() if value.const_value.size > 64]
    assert {value.dtype for value in weights} <= {ir.DataType.FLOAT16, ir.DataType.INT64}
    sides = [
        [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)]
        for model in (exported.model.model, half.model.model)
    ]
    assert sides[0] == sides[1]


@pytest.mark.parametrize("target", sorted(name for name in NAMES if not find(name).is_own))
@pytest.mark.parametrize("family", ["bert", "vit"])
def test_every_target(family, target, exports, tmp_path):  # noqa: F811
    half = made(exports(family).path, tmp_path, "fp16", target)
    assert half.parity.passed and not half.half.kept and half.half.count > 30


def test_our_own_operators_have_no_float16(exports, tmp_path):  # noqa: F811
    with pytest.raises(UsageError, match="target native computes in fp32, bf16 and int8; choose bf16, or another target"):
        made(exports("bert").path, tmp_path, "fp16", "native")
    assert not list(tmp_path.rglob("*.onnx"))


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_our_own_operators_in_bfloat16(family, exports, tmp_path):  # noqa: F811
    """They read weights without a cast; attention multiplies in bfloat16, too."""
    step = made(exports(family).path, tmp_path, "bf16", "native")
    own = [node for node in step.model.model.graph if is_ours(node)]
    assert {type_of(node) for node in own if node.op_type == "Encoder"} == {ir.DataType.BFLOAT16}
    assert {node.attributes.get_string("precision") for node in own if "precision" in node.attributes} == {"bfloat16"}
    assert step.parity.passed


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_runtimes_take_the_file(exports, tmp_path, precision, runtime):  # noqa: F811
    exported, step = exports("bert"), made(exports("bert").path, tmp_path, precision)
    expected = expect(exported.model.runner(), list(grid(exported.model.profile)))
    found = parity.compare(expected, open_runner(step.path, Settings(runtime)), "half" if precision == "fp16" else "bfloat16")
    assert found.passed, found.failures


def spread(model, factor=1e6):
    """The function is as before: values of the first layer's attention are larger, and what reads them divides."""
    attention = model.encoder.layer[0].attention
    attention.self.value.weight.data *= factor
    attention.self.value.bias.data *= factor
    attention.output.dense.weight.data /= factor


def test_what_overflows_stays_float32(tmp_path):
    model = tiny("bert", "BertModel")
    spread(model)
    model.save_pretrained(tmp_path / "checkpoint")
    onnxfuse.export(tmp_path / "checkpoint", tmp_path / "out", exporter="torchscript")
    result = subprocess.run(
        [sys.executable, "-m", "onnxfuse", "optimize", tmp_path / "out", "--precision", "fp16"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "of 49 nodes\n" in result.stdout and "float32 stay 5, as float16 ends at 65504:\n" in result.stdout
    assert result.stdout.count(" reaches ") == 5 and "    Attention /model/encoder/layer.0/" in result.stdout
    record = json.loads((tmp_path / "out" / folders.RECORD).read_text())["optimize-fp16"]["half"]
    assert sorted(each["operator"] for each in record["kept"]) == ["Add", "Attention", "MatMul", "MatMul", "Split"]
    assert all(each["peak"] > 32_752 for each in record["kept"])
    assert check(tmp_path / "out" / folders.MODEL, tmp_path / "out" / folders.FP16, "half").passed
    all_half = onnx_file.load(tmp_path / "out" / folders.FP16)
    casts = [node for node in all_half.graph if node.op_type == "Cast"]
    assert len(casts) < 10  # where float32 begins and ends, and no more


def test_rows_of_a_table_that_no_input_asks_for_count(tmp_path):
    """The norm behind the embeddings makes ordinary numbers of them, in float32."""
    model = tiny("bert", "BertModel")
    model.embeddings.word_embeddings.weight.data[77] *= 1e7
    model.save_pretrained(tmp_path / "checkpoint")
    onnxfuse.export(tmp_path / "checkpoint", tmp_path / "out")
    half = made(tmp_path / "out" / folders.MODEL, tmp_path, "fp16")
    assert {each.operator for each in half.half.kept} >= {"Gather", "LayerNormalization"}
    assert all(each.overflows for each in half.half.kept)
    ids = np.array([[5, 77, 9]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    wanted, found = (open_runner(path)(feeds)["last_hidden_state"] for path in (tmp_path / "out" / folders.MODEL, half.path))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-2)  # weights of 11 bits, as the row "half" has it


def test_what_the_outputs_need_stays_float32_and_is_told_so(cli, tmp_path):
    """Values of attention that are so small that float16 loses them, and are made large again: of these nothing overflows."""
    model = tiny("bert", "BertModel")
    spread(model, 1e-7)
    model.save_pretrained(tmp_path / "checkpoint")
    onnxfuse.export(tmp_path / "checkpoint", tmp_path / "out")
    result = cli("optimize", tmp_path / "out", "--precision", "fp16")
    assert result.returncode == 0, result.stderr
    assert "float32 stay 1, as float16 ends at 65504:\n    MatMul " in result.stdout
    few = re.search(r"float32 stay (\d+), without which the outputs are too far from the original:\n    MatMul ", result.stdout)
    assert few and int(few[1]) <= 6, result.stdout  # two here; what is near the tolerance hangs on the CPU's rounding


def test_a_model_of_which_nothing_can_be_float16(tmp_path):
    """Its weights have no digits in float16."""
    source = tmp_path / "model.onnx"
    model = fill(parse("g (float[N,4] x, float[4,4] w) => (float[N,4] y) { y = MatMul (x, w) }"), w=(4, 4))
    model.graph.initializers["w"].const_value = ir.tensor(np.arange(1, 17, dtype=np.float32).reshape(4, 4) * 1e-9, name="w")
    onnx_file.save(model, source)
    with pytest.raises(ParityError, match=r"no node can be float16 without the outputs being too far .* choose bf16"):
        made(source, tmp_path, "fp16")
    assert not (tmp_path / "fp16.onnx").exists()


def test_nothing_that_bfloat16_makes_smaller(tmp_path):
    source = tmp_path / "model.onnx"
    onnx_file.save(fill(parse("g (float[N,4] x, float[4,4] w) => (float[N,4] y) { y = MatMul (x, w) }"), w=(4, 4)), source)
    with pytest.raises(ModelError, match="has no float32 weight of 1024 numbers or more"):
        made(source, tmp_path, "bf16")


@pytest.mark.parametrize(
    ("family", "sizes"),
    [("bert", {"length": 16}), ("bert", {"batch": 2}), ("bert", {"batch": 1, "length": 8}), ("vit", {"batch": 1})],
)
def test_sizes_that_are_fixed(family, sizes, exports, tmp_path):  # noqa: F811
    """A CUDA graph asks for them."""
    plan = OptimizeConfig(exports(family).path, tmp_path / "fixed.onnx", "cuda", precision="fp16", **sizes)
    step = optimize(plan)
    assert step.parity.passed and step.half.count > 30
    assert all(isinstance(size, int) for size in step.model.model.graph.inputs[0].shape) == (len(sizes) == 2 or family == "vit")


def test_a_bfloat16_file_stays_one(exports, tmp_path):  # noqa: F811
    """Folding would make float32 of its weights."""
    folder = tmp_path / "made"
    shutil.copytree(exports("bert").path.parent, folder)
    first = made(folder / folders.MODEL, folder, "bf16")
    again = optimize(OptimizeConfig(first.path, folder / "again.onnx"))
    assert again.half.precision == "bf16" and again.size == first.size


def test_the_fewest_nodes_are_found():
    """Three of ten are needed, of which one is known to overflow."""
    peaks = {f"n{at}": float(10**at) for at in range(8)} | {"big": 1e5}
    tried = []

    def judge(kept):
        tried.append(list(kept))
        passed = {"n7", "n6", "n5", "big"} <= set(kept) and "n4" in kept
        return parity.Parity((), 1, "half", () if passed else ("too far",))

    found = search.fewest(peaks, judge)
    assert set(found.keys) == {"n7", "n6", "n5", "big", "n4"} and found.parity.passed
    assert tried[0] == ["n7", "n6", "n5", "big"]


def test_nodes_that_are_not_needed_are_let_go():
    """The smallest numbers are the ones that are lost, and stand last."""
    peaks = {f"n{at}": float(10**-at) for at in range(12)}
    needed = {"n3", "n10"}
    found = search.fewest(peaks, lambda kept: parity.Parity((), 1, "half", () if needed <= set(kept) else ("too far",)))
    assert set(found.keys) == needed and found.parity.passed


def test_a_model_that_cannot_pass_is_not_saved(exports, tmp_path, monkeypatch):  # noqa: F811
    failed = parity.Parity((), 1, "half", ("output 'y' is off",))
    monkeypatch.setattr("onnxfuse.pipeline.halve._judged", lambda *_: failed)
    with pytest.raises(
        ParityError, match=r"fp16 is too far from the original, with every node in float32, too: output 'y' is off"
    ):
        made(exports("bert").path, tmp_path, "fp16")
    assert not list(tmp_path.iterdir())


def test_what_is_refused(cli, exports, tmp_path):  # noqa: F811
    source = exports("bert").path
    expect_one_line(
        cli("optimize", source, "--precision", "fp8", "-o", tmp_path), 2, "--precision fp8: wanted one of fp32, fp16, bf16"
    )
    onnxfuse.optimize(source, tmp_path / "model_optimized.onnx")
    int8 = onnxfuse.quantize(tmp_path / "model_optimized.onnx", calibration="none")
    expect_one_line(
        cli("optimize", int8.path, "--precision", "fp16", "-o", tmp_path / "again.onnx"), ModelError.exit_code, "is an int8 model"
    )
    with pytest.raises(UsageError, match="precision"):
        onnxfuse.optimize(source, tmp_path / "x.onnx", precision=16)


def test_models_in_memory(exports):  # noqa: F811
    model = onnx.load(exports("bert").path)
    half = onnxfuse.optimize(model, precision="fp16")
    assert isinstance(half, onnx.ModelProto) and half.ByteSize() < 0.6 * model.ByteSize()
    assert {each.data_type for each in model.graph.initializer if len(each.raw_data) > 400} == {onnx.TensorProto.FLOAT}


def test_run_measures_it_beside_the_others(cli, tmp_path):
    tiny("bert", "BertModel").save_pretrained(tmp_path / "checkpoint")
    line = (
        "run",
        tmp_path / "checkpoint",
        "-o",
        tmp_path / "out",
        "--exporter",
        "torchscript",
        "--rounds",
        1,
        "--precision",
        "fp16",
    )
    planned = cli(*line, "--dry-run")
    assert folders.FP16 in planned.stdout and folders.BF16 not in planned.stdout
    told = json.loads(cli(*line, "--json").stdout)
    assert told["half"]["half"]["precision"] == "fp16" and (tmp_path / "out" / folders.FP16).is_file()
    rows = {each["name"]: each for each in told["results"]}
    assert rows["fp16"]["path"].endswith(folders.FP16) and rows["fp16"]["parity"]["kind"] == "half"
    assert rows["fp16 in OpenVINO"]["parity"]["passed"]
    assert not any("cuda" in why or "tensorrt" in why for why in told["refused"]), "nobody misses a GPU"
    expect_one_line(cli(*line[:-1], "fp8"), 2, "--precision fp8: wanted one of fp32, fp16, bf16")


def test_tune_measures_it_and_optimize_makes_what_it_chose(exports, tmp_path):  # noqa: F811
    source = exports("bert").path
    trying = Measuring(TuneConfig(source, tmp_path / "t.json", batch=1, length=8, rounds=1, threads=1))
    base = targets.find("cpu")
    variants = {each: chosen_with(base, FORM, f"{each} in ort") for each in ("fp16", "bf16")}
    found = {trial.option: trial for trial in trying.measure(FORM, base, variants)}
    assert found["fp16"].speed is not None and found["bf16"].speed is not None
    (tmp_path / "mine.json").write_text(json.dumps(variants["fp16"].to_json()))
    made = optimize(OptimizeConfig(source, tmp_path / "o.onnx", str(tmp_path / "mine.json")))
    assert made.half is not None and made.half.precision == "fp16"
    assert optimize(OptimizeConfig(source, tmp_path / "p.onnx", str(tmp_path / "mine.json"), precision="fp32")).half is None


def test_accelerate_in_float16(tmp_path):
    import torch

    model = tiny("bert", "BertForSequenceClassification").eval()
    ids = torch.arange(5, 15).reshape(2, 5)
    with torch.no_grad():
        wanted, got = model(ids).logits, onnxfuse.accelerate(model, precision="fp16", folder=tmp_path / "made")(ids).logits
    assert (tmp_path / "made" / folders.FP16).is_file()
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=0, atol=1e-2 * wanted.abs().max().item())  # the row "half"
    assert not torch.equal(got, wanted)


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_the_interface_in_float16(cli, exports, tmp_path, family):  # noqa: F811
    result = cli("optimize", exports(family).path, "--precision", "fp16", "--half-io", "-o", tmp_path / "half.onnx")
    assert result.returncode == 0, result.stderr
    model = onnx_file.load(tmp_path / "half.onnx")
    sides = {value.dtype for value in (*model.graph.inputs, *model.graph.outputs)}
    assert ir.DataType.FLOAT16 in sides and ir.DataType.FLOAT not in sides
    expect_one_line(
        cli("optimize", exports(family).path, "--half-io", "-o", tmp_path / "x.onnx"), 2, "--half-io is of --precision fp16"
    )


def test_an_interface_in_float16_is_another_type(exports, tmp_path):  # noqa: F811
    source = exports("bert").path
    step = optimize(OptimizeConfig(source, tmp_path / "half.onnx", precision="fp16", half_io=True))
    found = check(source, step.path, "half")
    assert not found.passed and "has type float16, wanted float32" in found.failures[0]
    assert near_text(found).endswith(", of another type")
