"""Target native as users meet it: every family, int8 and bfloat16, with and without the library, in plain sessions."""

import _ctypes
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxfuse
from onnxfuse import native, targets
from onnxfuse.config import BenchmarkConfig, OptimizeConfig, QuantizeConfig, Scheme, TuneConfig
from onnxfuse.errors import ModelError, NotBuiltError, UsageError
from onnxfuse.native import bodies, functions
from onnxfuse.pipeline import alternatives, diff, layers, profiling
from onnxfuse.pipeline.explain import explain_file
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.runtime import open_runner
from tests import marks
from tests.families import TINY
from tests.pipeline.test_families import exports  # noqa: F401 - a fixture

OTHERS = {"clip_text_model", "clip_vision_model", "deberta-v2", "dinov2", "modernbert", "mpnet"}
"""Families of whose layers no one is an Encoder: QuickGELU, attention with positions in it, a scale for each channel, a gate."""


def own(model):
    return [node for node in model.graph if functions.is_ours(node)]


@pytest.mark.parametrize("family", sorted(TINY))
def test_every_family(exports, tmp_path, family):  # noqa: F811
    """Each rewrite proven; linear layers are operators of ours, and so are whole layers where they have the usual parts."""
    step = optimize(OptimizeConfig(exports(family).path, tmp_path / "n.onnx", "native", require=("all",), verify="each"))
    assert step.parity.passed
    assert not step.trace.rejected
    assert not {name: why for name, why in step.trace.unproven.items() if name.startswith("native")}
    found = [node.op_type for node in own(step.model.model)]
    assert "Linear" in found or "Encoder" in found
    assert ("Encoder" in found) == (family not in OTHERS)
    assert not any(node.op_type == "MatMul" and node.inputs[1].const_value is not None for node in step.model.model.graph)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bert_export):
    """A BERT for target native in float32, int8, and int8 with attention in bfloat16."""
    made = tmp_path_factory.mktemp("native")
    source = bert_export / "export" / "model.onnx"
    optimize(OptimizeConfig(source, made / "model_optimized.onnx", "native"))
    for name, attention in (("model_quantized.onnx", "fp32"), ("mixed.onnx", "bf16")):
        scheme = Scheme(attention=attention)
        quantize(QuantizeConfig(made / "model_optimized.onnx", made / name, scheme, calibration="none"))
    return made


FEEDS = {
    "input_ids": np.array([[2, 5, 9, 7, 3, 0, 0], [2, 8, 3, 0, 0, 0, 0], [2, 11, 12, 13, 14, 15, 3]]),
    "attention_mask": np.array([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0], [1] * 7]),
    "token_type_ids": np.zeros((3, 7), np.int64),
}

FILES = ["model_optimized.onnx", "model_quantized.onnx", "mixed.onnx"]


def alone(path):
    """Each row by itself, without its padding."""
    run = open_runner(path)
    rows = []
    for row, length in enumerate(FEEDS["attention_mask"].sum(1)):
        rows.append(run({name: array[row : row + 1, :length] for name, array in FEEDS.items()})["logits"])
    return np.concatenate(rows)


@pytest.mark.parametrize("name", FILES)
def test_an_answer_does_not_depend_on_its_neighbours(folder, name):
    """To the last bits of a float: the loader's own operators before and behind ours sum in another order."""
    together = open_runner(folder / name)(FEEDS)["logits"]
    np.testing.assert_allclose(together, alone(folder / name), rtol=0, atol=1e-6 * np.abs(together).max())


@pytest.mark.parametrize("name", FILES)
def test_without_the_library_the_file_runs(folder, name, monkeypatch, tmp_path):
    with_it = onnxfuse.load(folder / name).run(FEEDS)["logits"]
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    without = onnxfuse.load(folder / name).run(FEEDS)["logits"]
    # in int8 a byte may fall to the other side of a half, attention's bfloat16 is float32 there
    tolerance = {"model_optimized.onnx": 1e-5, "model_quantized.onnx": 2e-2, "mixed.onnx": 5e-2}[name]
    np.testing.assert_allclose(without, with_it, rtol=0, atol=tolerance * np.abs(with_it).max())


def test_a_plain_session_needs_one_line(folder):
    options = ort.SessionOptions()
    options.register_custom_ops_library(native.path())
    session = ort.InferenceSession(folder / "model_quantized.onnx", options, providers=["CPUExecutionProvider"])
    got = session.run(None, {value.name: FEEDS[value.name] for value in session.get_inputs()})[0]
    np.testing.assert_allclose(got, open_runner(folder / "model_quantized.onnx")(FEEDS)["logits"], atol=1e-5)


def test_what_is_missing_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "libonnxfuse.so")
    assert not native.is_built()
    with pytest.raises(
        NotBuiltError, match=r"libonnxfuse\.so\); in a clone of onnxfuse, with a C\+\+17 compiler, run: make native$"
    ):
        native.path()


OPENED = """
import sys
from collections import Counter
from pathlib import Path
from onnxfuse import native
from onnxfuse.errors import UsageError
from onnxfuse.runtime import open_runner

if sys.argv[2:]:
    native.LIBRARY = Path(sys.argv[2])
folder = Path(sys.argv[1])
open_runner(folder / "model.onnx")  # has none of our operators
try:
    open_runner(folder / "model_optimized.onnx")
except UsageError as error:
    sys.exit(f"{error}")
"""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda whole: whole[:100_000], "is cut off: it has 100000 bytes, wanted "),
        (lambda whole: whole[: len(whole) // 2], "is cut off"),
        (lambda whole: whole[:-1], "is cut off"),
        (lambda whole: whole[:60], "is cut off: it has 60 bytes, wanted "),
        (lambda whole: b"hello", "is cut off"),
        (lambda whole: b"", "is cut off"),
        (lambda whole: Path(_ctypes.__file__).read_bytes(), "cannot be loaded: "),  # of another kind
    ],
)
def test_a_library_that_cannot_be_loaded_stops_nothing_else(folder, bert_export, tmp_path, content, said):
    """What is cut off would end the process by SIGBUS."""
    broken = tmp_path / "libonnxfuse.so"
    broken.write_bytes(content(Path(native.LIBRARY).read_bytes()))
    shutil.copy(bert_export / "export" / "model.onnx", tmp_path / "model.onnx")
    shutil.copy(folder / "model_optimized.onnx", tmp_path)
    given = [sys.executable, "-c", OPENED, str(tmp_path), str(broken)]
    ended = subprocess.run(given, check=False, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{broken} ") and said in line and line.endswith("make native")


def test_the_library_knows_its_instruction_sets():
    assert native.kernels() in native.instruction_sets()
    assert "portable" in native.instruction_sets()
    assert native.fault() == ""


@pytest.mark.parametrize("kernels", native.instruction_sets() if native.is_built() else ["portable"])
def test_every_instruction_set_gives_the_same_int8(folder, kernels, tmp_path):
    """Bytes and sums are equal; what is finished in float32 differs in the last bits, which may turn a byte in the next layer."""
    np.savez(tmp_path / "feeds.npz", **FEEDS)
    code = (
        "import sys, numpy as np; from pathlib import Path; from onnxfuse import native; from onnxfuse.runtime import open_runner;"
        "feeds = dict(np.load(sys.argv[2])); assert native.kernels() == sys.argv[4];"
        "np.save(sys.argv[3], open_runner(Path(sys.argv[1]))(feeds)['logits'])"
    )
    files = (folder / "model_quantized.onnx", tmp_path / "feeds.npz", tmp_path / "out.npy")
    subprocess.run(
        [sys.executable, "-c", code, *map(str, files), kernels], check=True, env=os.environ | {"ONNXFUSE_NATIVE": kernels}
    )
    wanted = open_runner(folder / "model_quantized.onnx")(FEEDS)["logits"]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), wanted, rtol=0, atol=5e-3 * np.abs(wanted).max())


def test_an_instruction_set_that_is_not_there_is_said(folder, bert_export, tmp_path):
    shutil.copy(bert_export / "export" / "model.onnx", tmp_path / "model.onnx")
    shutil.copy(folder / "model_optimized.onnx", tmp_path)
    given = [sys.executable, "-c", OPENED, str(tmp_path)]
    ended = subprocess.run(given, check=False, capture_output=True, text=True, env=os.environ | {"ONNXFUSE_NATIVE": "sse2"})
    assert ended.returncode == 1, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith('our own kernels cannot be used: ONNXFUSE_NATIVE is "sse2"; this CPU and this build have portable')
    assert line.endswith("; unset it, or take one of these")


def test_int8_is_of_our_operators(folder):
    model = onnxfuse.load(folder / "model_quantized.onnx")
    held = ir.load(model.path)
    assert {functions.type_of(node) for node in own(held) if node.op_type == "Encoder"} == {ir.DataType.INT8}
    precisions = {
        name: {node.attributes.get_string("precision") for node in own(ir.load(folder / name)) if "precision" in node.attributes}
        for name in FILES
    }
    assert precisions == {"model_optimized.onnx": {"float32"}, "model_quantized.onnx": {"float32"}, "mixed.onnx": {"bfloat16"}}


def operators(side):
    """How often each stands in a drawing."""
    return Counter(row.op for box in side.boxes for row in box.rows)


def test_layers_that_are_one_operator_stand_together(exports, tmp_path):  # noqa: F811
    """In profile beside the export's own, and in diff, where any of their numbers names them."""
    source, made = exports("bert").path, tmp_path / "n.onnx"
    optimize(OptimizeConfig(source, made, "native", without=frozenset({"pooled-token"})))
    theirs, ours = profiling.profile(source, made, BenchmarkConfig(batch=1, length=8, rounds=1)).models
    assert [part.name for part in theirs.layers] == ["embeddings", "layer 0", "layer 1", "head"]
    assert [part.name for part in ours.layers] == ["embeddings", "layers 0 to 1", "head"]
    for layer in ("", "0", "1"):
        found = diff.compare(source, made, layer)
        assert (found.layer, found.layers) == ("layers 0 to 1", ["embeddings", "layers 0 to 1", "head"])
        assert (operators(found.before)["Softmax"], operators(found.after)["Encoder"]) == (2, 1)
        back = diff.compare(made, source, layer)
        assert (back.layer, back.layers) == (found.layer, found.layers)
        assert (operators(back.before)["Encoder"], operators(back.after)["Softmax"]) == (1, 2)
    with pytest.raises(UsageError, match=r"choose one of embeddings, layers 0 to 1, head$"):
        diff.compare(source, made, "2")


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_a_last_layer_of_several_operators_ends_before_the_head(exports, tmp_path, family):  # noqa: F811
    """Only one token of it is asked for; its norms are behind its linear layers, or before them."""
    made = optimize(OptimizeConfig(exports(family).path, tmp_path / "n.onnx", "native")).model.model
    found = layers.homes(made.graph)
    assert {"layer 0", "layer 1", "head"} <= {*found.values()}
    last = [node.op_type for node, home in found.items() if home == "layer 1" and functions.is_ours(node)]
    assert last[-4:] == ["Attention", "Linear", "Linear", "Linear"]
    assert [node.op_type for node, home in found.items() if home == "head" and functions.is_ours(node)][-1] == "Linear"


def test_attention_in_bfloat16_is_of_target_native(bert_export, tmp_path):
    plan = QuantizeConfig(
        bert_export / "export" / "model.onnx", tmp_path / "q.onnx", Scheme(attention="bf16"), calibration="none"
    )
    with pytest.raises(UsageError, match="--attention bf16 is a choice of dynamic int8 of our own operators"):
        quantize(plan)
    with pytest.raises(UsageError, match="no attention named 'int8'; choose one of fp32, bf16"):
        Scheme(attention="int8")


def test_optimized_again_it_is_the_same(folder, tmp_path):
    again = optimize(
        OptimizeConfig(folder / "model_optimized.onnx", tmp_path / "again.onnx", "native", require=("attention=2", "qkv=2"))
    )
    assert [node.op_type for node in own(again.model.model)] == [
        node.op_type for node in own(ir.load(folder / "model_optimized.onnx"))
    ]
    int8 = optimize(OptimizeConfig(folder / "model_quantized.onnx", tmp_path / "int8.onnx", "native"))
    assert [functions.type_of(node) for node in own(int8.model.model)] == [
        functions.type_of(node) for node in own(ir.load(folder / "model_quantized.onnx"))
    ]


def test_padding_that_was_kept_is_removed_later(bert_export, tmp_path):
    """Attention with a mask is taken apart again, unlike that which is told where rows begin."""
    optimize(OptimizeConfig(bert_export / "export" / "model.onnx", tmp_path / "kept.onnx", "native", unpad=False))
    again = optimize(OptimizeConfig(tmp_path / "kept.onnx", tmp_path / "again.onnx", "native", unpad=True))
    assert str(again.padding) == "removed" and again.parity.passed
    (encoder,) = (node for node in own(again.model.model) if node.op_type == "Encoder")
    assert bodies.inputs_of("Encoder", encoder.inputs)["bounds"] is not None


@pytest.mark.parametrize("name", ["model_optimized.onnx", "model_quantized.onnx"])
def test_explain_finds_the_layers_of_an_encoder(folder, name):
    findings = explain_file(folder / name, "native")
    assert all(finding.done for finding in findings), findings
    assert Counter(finding.fusion for finding in findings if finding.layer == "layer 1") == Counter(
        attention=1, qkv=1, gelu=1, layer_norm=2
    )


@marks.OTHERS
def test_for_another_target_it_is_taken_apart(folder, tmp_path):
    step = optimize(OptimizeConfig(folder / "model_optimized.onnx", tmp_path / "cpu.onnx"))
    assert not own(step.model.model)
    assert not step.model.model.functions
    with pytest.raises(
        ModelError, match="holds int8 weights, which target native alone takes; choose that target, or start from"
    ):
        optimize(OptimizeConfig(folder / "model_quantized.onnx", tmp_path / "q.onnx"))
    assert not (tmp_path / "q.onnx").exists()


def test_tune_tries_our_own_operators(tmp_path, bert_export):
    plan = TuneConfig(bert_export / "export" / "model.onnx", tmp_path / "t.json", runtimes=("ort",), precisions=("fp32", "int8"))
    assert "int8 in ort, native" in alternatives.forms_of(plan)
    cpu = targets.find("cpu")
    chosen = alternatives.chosen_with(cpu, alternatives.FORM, "int8 in ort, native")
    assert (chosen["linear"], chosen["layers"], chosen["attention"], chosen["precision"]) == (
        "native",
        "native",
        "native",
        "int8",
    )
    assert alternatives.value_of(chosen, alternatives.FORM) == "int8 in ort, native"
    back = alternatives.chosen_with(chosen, alternatives.FORM, "fp32 in ort")
    assert not back.is_own
    assert alternatives.value_of(back, alternatives.FORM) == "fp32 in ort"


def test_without_the_library_tune_does_not(tmp_path, bert_export, monkeypatch):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    plan = TuneConfig(bert_export / "export" / "model.onnx", tmp_path / "t.json", runtimes=("ort",), precisions=("fp32", "int8"))
    assert not [form for form in alternatives.forms_of(plan) if "native" in form]
