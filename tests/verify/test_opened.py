"""A model file is read, opened and asked once."""

import shutil

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError, ParityError
from onnxfuse.io import onnx_file
from onnxfuse.runtime import Settings
from onnxfuse.verify import opened
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import Case
from onnxfuse.verify.opened import Opened, Remembered, afresh
from tests.conftest import fill, parse

TEXT = "g (float[B,64] x, float[64,64] w) => (float[B,64] y) { y = MatMul(x, w) }"
X = {"x": np.ones((2, 64), np.float32)}


@pytest.fixture
def path(tmp_path):
    onnx_file.save(fill(parse(TEXT), w=(64, 64)), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


class Counting:
    """A runner that counts its calls, and adds ``drift`` at each."""

    def __init__(self, drift=0.0):
        self.calls, self.drift = 0, drift

    def __call__(self, feeds):
        self.calls += 1
        return {"y": feeds["x"] + np.float32(self.drift * self.calls)}


def test_the_same_feeds_are_run_once_and_others_again():
    run = Counting()
    remembered = Remembered(run)
    first, again = remembered(dict(X)), remembered({"x": X["x"].copy()})
    assert run.calls == 1
    np.testing.assert_array_equal(first["y"], again["y"])
    for other in (X["x"] + 1, X["x"].reshape(1, 128), X["x"].astype(np.float64)):
        remembered({"x": other})
    remembered({"z": X["x"], "x": X["x"]})
    assert run.calls == 5


def test_what_a_caller_does_to_the_outputs_is_not_remembered():
    remembered = Remembered(Counting())
    remembered(X)["y"] = None
    assert remembered(X)["y"] is not None


def test_texts_and_what_takes_too_much_are_run_each_time(monkeypatch):
    run = Counting()
    texts = Remembered(lambda feeds: run(X))
    for _ in range(2):
        texts({"x": np.array(["one"], dtype=object)})
    assert run.calls == 2
    monkeypatch.setattr(opened, "REMEMBERED", 8)
    small = Remembered(run)
    for _ in range(2):
        small(X)
    assert run.calls == 4


def test_a_model_that_computes_something_else_each_time_is_found_out():
    with pytest.raises(ModelError, match="is another each time"):
        expect(Remembered(Counting(drift=1.0)), [Case("one", X)])


def test_a_file_is_read_once_and_its_runners_stay_where_they_are_kept(path, monkeypatch):
    sessions, loads = [], []
    open_runner, load = opened.open_runner, onnx_file.load
    monkeypatch.setattr(opened, "open_runner", lambda *given: sessions.append(given) or open_runner(*given))
    monkeypatch.setattr(onnx_file, "load", lambda *given: loads.append(given) or load(*given))
    kept = Opened(path, keep=True)
    assert kept.profile.inputs[0].name == "x"
    assert kept.runner() is kept.runner()
    assert kept.runner() is not kept.runner(Settings(threads=1))
    assert (len(loads), len(sessions)) == (1, 2)
    loose = Opened(path, kept.model)
    first = loose.runner()
    assert loose.runner(Settings(threads=1)) is not loose.runner()
    assert afresh(first) is first
    assert afresh(kept.runner()) is kept.runner().run
    assert (len(loads), len(sessions)) == (1, 5)


@pytest.mark.parametrize("beside", [False, True])
def test_a_model_follows_its_file(path, tmp_path, beside):
    model = onnx_file.load(path)
    if beside:
        ir.save(model, path, external_data="model.onnx.data")
        model = onnx_file.load(path)
    before, here = model.graph.initializers["w"].const_value.numpy().copy(), Opened(path, model)
    (tmp_path / "elsewhere").mkdir()
    for file in (path, path.with_name("model.onnx.data")):
        if file.exists():
            shutil.move(file, tmp_path / "elsewhere" / file.name)
    here.move(tmp_path / "elsewhere" / "model.onnx")
    np.testing.assert_array_equal(here.model.graph.initializers["w"].const_value.numpy(), before)
    assert here.runner()(X)["y"].shape == (2, 64)
    assert here.size == sum(file.stat().st_size for file in (tmp_path / "elsewhere").iterdir())


def test_what_save_gives_is_what_load_reads(path, tmp_path):
    saved = onnx_file.save(onnx_file.load(path), tmp_path / "copy.onnx")
    weight = saved.graph.initializers["w"].const_value
    assert isinstance(weight, ir.ExternalTensor)
    assert weight.location == str((tmp_path / "copy.onnx").resolve())
    np.testing.assert_array_equal(
        weight.numpy(), onnx_file.load(tmp_path / "copy.onnx").graph.initializers["w"].const_value.numpy()
    )


def test_where_we_fail_on_a_model_that_onnx_runtime_cannot_open_either_its_words_are_the_error(path, tmp_path):
    model = ir.to_proto(onnx_file.load(path))
    model.graph.node[0].op_type = "Nobody"
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="Nobody"), opened.blaming(tmp_path / "bad.onnx"):
        raise IndexError("ours")
    with pytest.raises(IndexError, match="ours"), opened.blaming(path):
        raise IndexError("ours")
    with pytest.raises(ParityError), opened.blaming(tmp_path / "bad.onnx"):
        raise ParityError("a result")
