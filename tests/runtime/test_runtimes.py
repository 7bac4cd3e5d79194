"""Runtimes: the same file gives the same answer in each, options arrive where they should, bad input gets one line."""

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import onnxfuse
from onnxfuse import targets
from onnxfuse.config import OptimizeConfig, QuantizeConfig
from onnxfuse.errors import MissingExtraError, ModelError, UsageError
from onnxfuse.io import onnx_file
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.runtime import Settings, open_runner, ort_openvino, runtimes
from onnxfuse.runtime.sessions import open_session
from onnxfuse.verify import parity, verdict
from onnxfuse.verify.expected import expect
from tests.conftest import parse
from tests.marks import OPENVINO

IDS = np.arange(1, 9).reshape(1, 8)
FEEDS = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), "token_type_ids": np.zeros_like(IDS)}


@pytest.fixture(scope="module")
def folder(bert_export, tmp_path_factory):
    """A folder with the export, the optimized and the int8 model."""
    home = tmp_path_factory.mktemp("models")
    for name in ("model.onnx", "config.json"):
        (home / name).write_bytes((bert_export / "export" / name).read_bytes())
    optimize(OptimizeConfig(home / "model.onnx", home / "model_optimized.onnx"))
    quantize(QuantizeConfig(home / "model_optimized.onnx", home / "model_quantized.onnx"))
    return home


def add(tmp_path, scale=1.0):
    path = tmp_path / "add.onnx"
    onnx_file.save(parse(f"g (float[B] x) => (float[B] y) <float one = {{{scale}}}> {{ y = Mul(x, one) }}"), path)
    return path


@pytest.mark.parametrize(
    ("name", "kind"), [("model.onnx", "reassociate"), ("model_optimized.onnx", "reassociate"), ("model_quantized.onnx", "int8")]
)
@OPENVINO
def test_openvino_gives_what_onnx_runtime_gives(folder, name, kind):
    cases = verdict.grid_of(folder / "model.onnx", json.loads((folder / "config.json").read_text()))
    expected = expect(open_runner(folder / name), cases)
    parity.compare(expected, open_runner(folder / name, Settings("openvino", 1)), kind).require("OpenVINO differs")


def test_load_takes_the_best_file_and_the_targets_options(folder):
    model = onnxfuse.load(folder)
    assert model.path.name == "model_quantized.onnx"
    assert model.settings == targets.find("cpu").session
    assert model.settings.denormals_as_zero
    assert "denormals as zero" in str(model)
    assert model.inputs == ("input_ids", "attention_mask", "token_type_ids")
    np.testing.assert_array_equal(model(**FEEDS)["logits"], model.run(FEEDS)["logits"])


@OPENVINO
def test_load_obeys(folder):
    model = onnxfuse.load(folder / "model_optimized.onnx", threads=1, runtime="openvino")
    assert (model.path.name, model.settings.threads, model.settings.runtime) == ("model_optimized.onnx", 1, "openvino")
    plain = open_runner(folder / "model.onnx")(FEEDS)["logits"]
    np.testing.assert_allclose(model(**FEEDS)["logits"], plain, atol=1e-5 * np.abs(plain).max())


def test_options_of_the_target_travel_in_the_file(folder, tmp_path):
    content = targets.find("cpu").to_json() | {"name": "mine", "session": {"threads": 1, "spinning": False}}
    (tmp_path / "mine.json").write_text(json.dumps(content))
    optimize(OptimizeConfig(folder / "model.onnx", tmp_path / "o.onnx", target=str(tmp_path / "mine.json"), verify="off"))
    assert onnxfuse.load(tmp_path / "o.onnx").settings == Settings(threads=1, spinning=False)


@pytest.mark.parametrize(
    "text", ["{", '{"session": {"spin": 1}}', '{"session": 3}', "7", '{"libraries": 3}', '{"libraries": [1]}']
)
def test_metadata_of_others_is_refused(tmp_path, text):
    model = parse("g (float[B] x) => (float[B] y) { y = Neg(x) }")
    model.metadata_props["onnxfuse"] = text
    onnx_file.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx: its metadata 'onnxfuse' is not what onnxfuse writes"):
        onnxfuse.load(tmp_path / "m.onnx")


def test_openvino_has_none_of_our_own_operators(bert_export, tmp_path):
    source = bert_export / "export" / "model.onnx"
    step = optimize(OptimizeConfig(source, tmp_path / "o.onnx", target="native", verify="off"))
    with pytest.raises(ModelError, match=r"OpenVINO .* cannot open .*com\.onnxfuse.*fuse the export with --target openvino"):
        open_runner(step.path, Settings("openvino", 1))


@pytest.mark.parametrize("target", [name for name in targets.NAMES if not targets.find(name).is_own])
def test_openvino_runs_what_every_target_writes(bert_export, tmp_path, target):
    source = bert_export / "export" / "model.onnx"
    step = optimize(OptimizeConfig(source, tmp_path / "o.onnx", target=target, verify="off"))
    wanted, got = open_runner(source)(FEEDS)["logits"], open_runner(step.path, Settings("openvino", 1))(FEEDS)["logits"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_model_of_others_gets_the_defaults(tmp_path):
    assert onnxfuse.load(add(tmp_path)).settings == targets.find("cpu").session


def test_denormals_as_zero_reaches_the_session(tmp_path):
    tiny = np.full(4, 1e-38, np.float32)
    path = add(tmp_path, 0.01)
    for value in (False, True, False):
        got = open_runner(path, Settings(denormals_as_zero=value))({"x": tiny})["y"]
        assert (got == 0).all() == value
        assert (tiny * np.float32(0.01) > 0).all()  # the caller's own arithmetic is as before


def test_the_first_session_of_a_process_leaves_its_thread_as_it_was(tmp_path):
    code = (
        "import numpy as np, sys; from pathlib import Path; from onnxfuse.runtime import *; "
        "r = open_runner(Path(sys.argv[1]), Settings(denormals_as_zero=True)); x = np.full(4, 1e-38, np.float32); "
        "print((r({'x': x})['y'] == 0).all(), (x * np.float32(0.01) > 0).all())"
    )
    result = subprocess.run([sys.executable, "-c", code, str(add(tmp_path, 0.01))], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "True"]


def test_spinning_and_threads_reach_the_session(tmp_path):
    session = open_session(add(tmp_path), Settings(threads=1, spinning=False))
    options = session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize("runtime", ["ort", pytest.param("openvino", marks=OPENVINO)])
def test_a_missing_input_is_an_error(folder, runtime):
    model = onnxfuse.load(folder / "model_optimized.onnx", runtime=runtime)
    model(**FEEDS)
    with pytest.raises(UsageError, match="attention_mask"):
        model(input_ids=IDS)


def test_openvino_says_what_it_does_not_know(tmp_path):
    path = tmp_path / "odd.onnx"
    model = parse(
        "g (float[B,S,8] x) => (float[B,S,8] y) { y = com.microsoft.GatedRelativePositionBias<num_heads = 2>(x, x, x, x, x, x) }"
    )
    path.write_bytes(ir.to_proto(model).SerializeToString())
    with pytest.raises(ModelError, match=r"OpenVINO .* cannot open .*odd\.onnx: .*GatedRelativePositionBias"):
        open_runner(path, Settings("openvino"))


def test_no_such_runtime(tmp_path):
    with pytest.raises(
        UsageError, match="no runtime named 'tpu'; choose one of cuda, tensorrt, openvino, openvino-bf16, ort, ort-openvino, "
    ):
        open_runner(add(tmp_path), Settings("tpu"))


def test_a_runtime_of_other_files_is_refused(folder, tmp_path):
    """In whose place another one would run unseen."""
    refused = r"runtime litert takes \.tflite files, and .* is none; choose one of cuda, tensorrt, openvino, openvino-bf16, ort, ort-openvino, "
    with pytest.raises(UsageError, match=refused):
        open_runner(add(tmp_path), Settings("litert"))
    for source in (folder, folder / "model.onnx"):
        with pytest.raises(UsageError, match=refused):
            onnxfuse.load(source, runtime="litert")


def test_bfloat16_only_where_the_cpu_has_it(folder):
    import openvino

    path = folder / "model_optimized.onnx"
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        got, wanted = (open_runner(path, Settings(name))(FEEDS)["logits"] for name in ("openvino-bf16", "openvino"))
        assert 0 < np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()
    else:
        with pytest.raises(ModelError, match="no bfloat16 products"):
            open_runner(path, Settings("openvino-bf16"))


def test_openvino_not_installed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert importlib.util.find_spec("onnxfuse.runtime.openvino")
    with pytest.raises(MissingExtraError, match=r"onnxfuse\[openvino\]"):
        open_runner(add(tmp_path), Settings("openvino"))


@pytest.mark.parametrize("name", ["ort-openvino", "ort-openvino-bf16"])
def test_openvino_behind_onnx_runtimes_interface(folder, name):
    """The numbers are OpenVINO's own, also where that is open in the same process; other CPUs than Intel's are refused."""
    path = folder / "model_optimized.onnx"
    try:
        runtimes()[name].require()
    except ModelError as error:
        with pytest.raises(ModelError, match=str(error)):
            open_runner(path, Settings(name))
        intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
        assert ("no bfloat16 products" if intel else "takes CPUs of Intel alone") in str(error)
        return
    beside = open_runner(path, Settings(name.removeprefix("ort-"), 1))(FEEDS)["logits"]
    usual = open_runner(path, Settings(threads=1))(FEEDS)["logits"]
    got = open_runner(path, Settings(name, 1, denormals_as_zero=True))(FEEDS)["logits"]
    loss = 0.05 if "bf16" in name else 1e-5  # eight bits of each number; the order of a sum
    assert np.abs(got - beside).max() <= loss * np.abs(usual).max()
    assert ("bf16" in name) == (np.abs(got - usual).max() > 1e-4 * np.abs(usual).max()), "OpenVINO computes it, not ONNX Runtime"


def test_the_provider_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
    ort_openvino._devices.cache_clear()
    with pytest.raises(MissingExtraError, match=r"onnxfuse\[ort-openvino\]"):
        open_runner(add(tmp_path), Settings("ort-openvino"))


def test_a_provider_that_cannot_be_loaded_is_said_in_one_line(monkeypatch, tmp_path):
    odd = types.SimpleNamespace(get_library_path=lambda: str(tmp_path / "none.so"))
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", odd)
    monkeypatch.setattr(ort_openvino, "_listed", lambda: ())
    monkeypatch.setattr(ort_openvino, "PROVIDER", "another")
    ort_openvino._devices.cache_clear()
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot load OpenVINO's provider: .*none\.so"):
        open_runner(add(tmp_path), Settings("ort-openvino"))
    ort_openvino._devices.cache_clear()
