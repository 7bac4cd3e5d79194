"""NVIDIA's GPUs: what is said where there is none, and a session that is bound to a device's memory (here the CPU's)."""

import numpy as np
import onnxruntime as ort
import pytest

from onnxfuse.errors import MissingExtraError, ModelError
from onnxfuse.io import onnx_file
from onnxfuse.runtime import Settings, open_runner, open_session, runtimes
from onnxfuse.runtime.bound import bound
from onnxfuse.runtime.cuda import CUDA, TENSORRT
from tests.cli.test_cli import expect_one_line
from tests.conftest import fill, parse

TEXT = "g (float[N,4] x, int64[N] ids, float[4,4] w, float[9,4] table) => (float[N,4] y, float[N,4] rows) { rows = Gather (table, ids)  p = MatMul (x, w)  y = Add (p, rows) }"


@pytest.fixture
def path(tmp_path):
    onnx_file.save(fill(parse(TEXT), w=(4, 4), table=(9, 4)), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def feeds(rows, seed=0):
    random = np.random.default_rng(seed)
    return {"x": random.standard_normal((rows, 4)).astype(np.float32), "ids": random.integers(0, 9, rows)}


@pytest.mark.parametrize("again", [False, True])
def test_a_bound_session_gives_what_a_plain_one_gives(path, again):
    """Also when the same memory takes other numbers, other shapes come between, and arrays are not contiguous."""
    session = open_session(path)
    run, plain = bound(session, "cpu", path, again=again), open_runner(path)
    for seed, rows in enumerate((3, 3, 5, 3, 5)):
        given = feeds(rows, seed)
        given["x"] = np.asfortranarray(given["x"])
        kept, wanted = run(given), plain(given)
        for name, array in wanted.items():
            np.testing.assert_array_equal(kept[name], array)
    first = run(feeds(3, 8))
    before = {name: array.copy() for name, array in first.items()}
    run(feeds(3, 9))
    for name, array in before.items():
        np.testing.assert_array_equal(first[name], array)  # answers are the caller's own


def test_a_bound_session_says_what_is_wrong(path):
    run = bound(open_session(path), "cpu", path, again=True)
    with pytest.raises(ModelError, match="the model needs ids; got x"):
        run({"x": feeds(3)["x"]})
    with pytest.raises(ModelError, match=r"cannot run .*model.onnx on ids \[3\], x \[3, 5\]: "):
        run(feeds(3) | {"x": np.zeros((3, 5), np.float32)})


@pytest.mark.parametrize(("name", "provider"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
def test_without_a_gpu_one_line_says_what_is_missing(path, name, provider, cli):
    """With one, it computes what the CPU does."""
    try:
        runtimes()[name].require()
    except MissingExtraError:
        assert provider not in ort.get_available_providers()
        with pytest.raises(MissingExtraError, match=rf"the runtime {name} .* needs packages .* 'onnxfuse\[gpu\]'"):
            open_runner(path, Settings(name))
        for line in (("benchmark", path, "--runtime", name), ("tune", path, "--runtime", name)):
            expect_one_line(
                cli(*line),
                MissingExtraError.exit_code,
                f"the runtime {name} (the runtime ort runs its files on the CPU) needs packages",
            )
    except ModelError as error:
        assert "no GPU" in str(error)
        with pytest.raises(ModelError, match="no GPU"):
            open_runner(path, Settings(name))
    else:
        got, wanted = open_runner(path, Settings(name))(feeds(3)), open_runner(path)(feeds(3))
        for key, array in wanted.items():
            np.testing.assert_allclose(got[key], array, rtol=0, atol=1e-5 * np.abs(array).max())


def test_a_machine_without_a_gpu_is_told_so(path, monkeypatch):
    """The package for GPUs on a machine that has none."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "get_ep_devices", list)
    with pytest.raises(ModelError, match="this machine has no GPU that ONNX Runtime can use; choose the runtime ort"):
        open_runner(path, Settings("cuda"))
