"""A loaded model in other processes: pickled, copied, and used in a forked child."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxfuse
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.runtime import open_runner
from tests.conftest import fill, parse

TEXT = "g (float[B,4] x) => (float[B,4] y) <float[4] w = {1.0, 2.0, 3.0, 4.0}> { a = Mul(x, w)  y = Tanh(a) }"
FEEDS = {"x": np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)}


@pytest.fixture
def model(tmp_path, monkeypatch):
    onnx.save(ir.to_proto(parse(TEXT)), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return onnxfuse.load("model.onnx", threads=1)


def test_a_pickled_model_answers_the_same_in_another_process_and_folder(model, tmp_path):
    content = pickle.dumps((model, FEEDS))
    code = (
        "import pickle, sys; model, feeds = pickle.load(sys.stdin.buffer); "
        "print(model.settings.threads, model(**feeds)['y'].tobytes().hex())"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(onnxfuse.__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True, cwd="/", env=environment)
    assert ended.stdout.decode().split() == ["1", model(**FEEDS)["y"].tobytes().hex()]


def test_a_pickle_holds_no_weights(tmp_path):
    text = "g (float[B,4] x, float[4,4000] w) => (float[B,4000] y) { y = MatMul(x, w) }"
    onnx.save(ir.to_proto(fill(parse(text), w=(4, 4000))), tmp_path / "model.onnx")
    assert len(pickle.dumps(onnxfuse.load(tmp_path / "model.onnx"))) < 1000


def test_a_pickle_whose_file_is_gone_says_so(model, tmp_path):
    content = pickle.dumps(model)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(UsageError, match=r"model\.onnx is not there"):
        pickle.loads(content)


def test_a_copy_answers_the_same(model):
    assert np.array_equal(copy.deepcopy(model)(**FEEDS)["y"], model(**FEEDS)["y"])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_opens_the_file_again_once(model, monkeypatch):
    """A session's threads are not there in a child, which waited for them (scripts/endurance.py)."""
    wanted = model(**FEEDS)["y"]
    opened = []
    monkeypatch.setattr("onnxfuse.model.open_runner", lambda *given: opened.append(given) or open_runner(*given))
    child = os.fork()
    if not child:
        same = [np.array_equal(model(**FEEDS)["y"], wanted) for _ in range(3)]
        os._exit(0 if all(same) and len(opened) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(model(**FEEDS)["y"], wanted)
    assert not opened


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ('{"session": {"runtime": "evil"}}', "has 'evil' as runtime, and there is none of that name; choose one with"),
        ("{", "is not what onnxfuse writes .is not JSON .*; optimize it again$"),
    ],
)
def test_metadata_that_is_wrong_is_the_files_fault(model, tmp_path, metadata, words):
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.helper.set_model_props(proto, {"onnxfuse": metadata})
    onnx.save(proto, tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match=f"^{tmp_path / 'odd.onnx'}: its metadata 'onnxfuse' {words}") as error:
        onnxfuse.load(tmp_path / "odd.onnx")
    assert str(error.value).count("; ") == 1 and str(error.value).count("its metadata") == 1
    if "session" in metadata:
        assert onnxfuse.load(tmp_path / "odd.onnx", runtime="ort").run(FEEDS)
