"""The one place that opens ONNX Runtime sessions: what it gives, and what it says where it cannot."""

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import onnxfuse
from onnxfuse import native, plugins
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.runtime import Settings, sessions
from onnxfuse.runtime.sessions import compute, infer, open_session, run
from tests.conftest import parse

ADD = "g (float[B,2] x, float[B,2] z) => (float[B,2] y, float[B,2] w) { y = Add(x, z)  w = Sub(x, z) }"
X = np.array([[1, 2]], np.float32)


def proto(text: str):
    return ir.to_proto(parse(text))


def test_outputs_come_in_the_models_order():
    added, taken = compute(proto(ADD), {"z": X, "x": X})
    assert added.tolist() == [[2, 4]]
    assert taken.tolist() == [[0, 0]]


@pytest.mark.parametrize("body", ["y = com.microsoft.Nothing(x)", "y = Reshape(x, five)"], ids=["not opened", "not run"])
def test_a_model_that_cannot_be_computed_is_one_line_in_the_runtimes_words(body):
    with pytest.raises(ModelError) as caught:
        compute(proto(f"g (float[B,2] x) => (float[M] y) <int64[1] five = {{5}}> {{ {body} }}"), {"x": X})
    text = str(caught.value)
    assert "ONNXRuntimeError" in text
    assert "\n" not in text and "cannot open" not in text and "cannot run" not in text


@pytest.mark.parametrize("function", ["compute", "infer", "open_session", "run"])
def test_an_error_that_is_not_the_runtimes_is_not_hidden(function, monkeypatch):
    def broken(*arguments, **options):
        raise KeyError("a mistake of ours")

    session = open_session(proto(ADD).SerializeToString())
    if function == "run":
        monkeypatch.setattr(session, "run", broken)
    else:
        monkeypatch.setattr(sessions.ort, "InferenceSession", broken)
    calls = {
        "compute": lambda: compute(proto(ADD), {"x": X, "z": X}),
        "infer": lambda: infer(proto(ADD)),
        "open_session": lambda: open_session(proto(ADD).SerializeToString()),
        "run": lambda: run(session, {"x": X, "z": X}),
    }
    with pytest.raises(KeyError, match="a mistake of ours"):
        calls[function]()


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("y = com.microsoft.QuickGelu(x)", (ir.DataType.FLOAT, ("B", 2))),
        ("y = com.microsoft.QuickGelu(half)", (ir.DataType.FLOAT, None)),
        ("y = com.microsoft.Nothing(x)", (None, None)),
        ("y = IsNaN(x)", (ir.DataType.BOOL, ("B", 2))),
    ],
)
def test_types_and_sizes_are_those_that_the_runtime_infers(body, wanted):
    model = proto(f"g (float[B,2] x) => (y) <float half = {{0.5}}> {{ {body} }}".replace("(y)", "(float[M] y)", 1))
    model.graph.output[0].ClearField("type")
    assert infer(model) == [wanted]


REGISTER = "int called = 0; void *RegisterCustomOps(void *options, const void *api) { ++called; return 0; }"


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_every_function_that_opens_a_session_registers_libraries(tmp_path, monkeypatch):
    source, library = tmp_path / "own.c", tmp_path / f"own{plugins.SHARED}"
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path))
    source.write_text(REGISTER)
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
    called = ctypes.c_int.in_dll(ctypes.CDLL(str(library)), "called")
    model = proto(ADD)
    for count, use in enumerate(
        (
            lambda: compute(model, {"x": X, "z": X}),
            lambda: infer(model),
            lambda: open_session(model.SerializeToString()),
        ),
        start=1,
    ):
        use()
        assert called.value == count


def test_a_library_that_is_broken_is_named(tmp_path, monkeypatch):
    (tmp_path / f"broken{plugins.SHARED}").write_text("no library")
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path))
    with pytest.raises(UsageError, match=r"^the library .*broken\..* cannot be loaded: .*; build it for this machine$"):
        open_session(proto(ADD).SerializeToString())


def test_an_operator_that_nobody_brings(tmp_path):
    model = proto("g (float[B,2] x) => (float[B,2] y) { y = com.microsoft.Nothing(x) }")
    with pytest.raises(ModelError, match=r"Nothing.*; name the folder that brings it in ONNXFUSE_PLUGINS$"):
        open_session(model.SerializeToString())


def test_an_operator_of_ours_without_the_library(monkeypatch, tmp_path):
    """A file that has lost its functions."""
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "libonnxfuse.so")
    model = proto("g (float[B,2] x, float[2,2] w) => (float[B,2] y) { y = com.onnxfuse.Linear(x, w) }")
    with pytest.raises(
        ModelError, match=r"Linear.* is not a registered .*; the library of our own kernels is not built .*make native$"
    ):
        open_session(model.SerializeToString())


def test_what_runs_a_few_nodes_starts_no_threads(monkeypatch):
    opened = []
    session = sessions._open
    monkeypatch.setattr(
        sessions, "_open", lambda source, settings, **options: opened.append(settings) or session(source, settings, **options)
    )
    model = proto("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    np.testing.assert_array_equal(sessions.compute(model, {"x": np.ones(2, np.float32)})[0], [-1, -1])
    assert sessions.infer(model) == [(ir.DataType.FLOAT, (2,))]
    assert [settings.threads for settings in opened] == [1, 1]


def test_a_process_held_to_some_cores_starts_a_thread_for_each_of_these():
    held, machine = os.sched_getaffinity(0), os.cpu_count()
    model = proto(ADD).SerializeToString()

    def threads(**settings: int) -> int:
        return open_session(model, Settings(**settings)).get_session_options().intra_op_num_threads

    try:
        os.sched_setaffinity(0, range(machine))
        assert threads() == (
            0 if len(os.sched_getaffinity(0)) == machine else len(os.sched_getaffinity(0))
        )  # 0: ONNX Runtime's own
        os.sched_setaffinity(0, [min(held)])
        assert threads() == (1 if machine > 1 else 0)
        assert threads(threads=3) == 3
    finally:
        os.sched_setaffinity(0, held)


def test_sessions_are_opened_in_runtime_alone():
    """But for the trial's own program, the list of operators, what loads a provider or binds memory, and the baselines, which are other tools as they come."""
    root = Path(onnxfuse.__file__).parent
    modules = [path for folder in (root, root.parent / "fusions", root.parent / "models") for path in folder.rglob("*.py")]
    modules = [path for path in modules if path.parent.name != "baselines"]
    using = {path.name for path in modules if re.search(r"^\s*(import|from) onnxruntime", path.read_text(), re.MULTILINE)}
    assert using == {"sessions.py", "trial_child.py", "operators.py", "ort_openvino.py", "cuda.py", "bound.py"}


def test_long_words_of_onnx_runtime_are_cut_between_words():
    assert sessions._end("short") == "short"
    said = sessions._end("INVALID_ARGUMENT while running a node " + "onnxruntime " * 40 + "500 is out of bounds")
    assert said.startswith("... onnxruntime ") and said.endswith(" 500 is out of bounds") and len(said) <= 300


def test_the_advice_is_about_what_is_wrong(tmp_path):
    assert sessions._hint(tmp_path / "a.onnx", "axes differ").startswith("; put its config.json beside it")
    assert sessions._hint(tmp_path / "a.onnx", "Failed to allocate memory") == "; give it fewer rows or tokens, or more memory"
