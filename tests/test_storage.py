"""Reading and writing: nothing lost, nothing half-written, broken files named as such."""

import os
import resource
import signal
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse import files, storage
from onnxfuse.errors import ModelError, StorageError, UsageError
from onnxfuse.runtime import open_session
from tests.conftest import HANGS, fill, parse


def small(path: Path, width: int = 64) -> ir.Model:
    """A linear layer with ``width**2`` weights, saved by onnx itself."""
    text = f"g (float[B,{width}] x, float[{width},{width}] w) => (float[B,{width}] y) {{ y = MatMul(x, w) }}"
    model = fill(parse(text), w=(width, width))
    onnx.save(ir.to_proto(model), path)
    return model


def test_weights_come_back_bit_for_bit_and_stay_in_the_file(tmp_path):
    wanted = small(tmp_path / "a.onnx").graph.initializers["w"].const_value.numpy()
    model = storage.load(tmp_path / "a.onnx")
    weight = model.graph.initializers["w"].const_value
    assert isinstance(weight, ir.ExternalTensor)
    np.testing.assert_array_equal(weight.numpy(), wanted)
    storage.save(model, tmp_path / "b.onnx")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(onnx.load(tmp_path / "b.onnx").graph.initializer[0]), wanted)
    open_session(tmp_path / "b.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_external_data_is_followed_beside_the_model(tmp_path):
    model = small(tmp_path / "a.onnx")
    onnx.save(ir.to_proto(model), tmp_path / "ext.onnx", save_as_external_data=True, location="ext.data", size_threshold=0)
    wanted = model.graph.initializers["w"].const_value.numpy()
    np.testing.assert_array_equal(storage.load(tmp_path / "ext.onnx").graph.initializers["w"].const_value.numpy(), wanted)
    (tmp_path / "ext.data").write_bytes(b"short")
    with pytest.raises(ModelError, match="ends before weight w"):
        storage.load(tmp_path / "ext.onnx")
    (tmp_path / "ext.data").unlink()
    with pytest.raises(ModelError, match="missing"):
        storage.load(tmp_path / "ext.onnx")


def test_above_the_limit_weights_go_beside_the_model(tmp_path, monkeypatch):
    small(tmp_path / "a.onnx")
    monkeypatch.setattr(storage, "PROTOBUF_LIMIT", (1 << 20) + 5000)
    model = storage.load(tmp_path / "a.onnx")
    storage.save(model, tmp_path / "b.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "b.onnx.data"]
    np.testing.assert_array_equal(storage.load(tmp_path / "b.onnx").graph.initializers["w"].const_value.numpy(),
                                  model.graph.initializers["w"].const_value.numpy())
    assert files.model_bytes(tmp_path / "b.onnx") > 64 * 64 * 4


@pytest.mark.parametrize("location", ["/etc/passwd", "../outside.data"])
def test_external_data_outside_the_folder_is_refused(tmp_path, location):
    proto = ir.to_proto(small(tmp_path / "a.onnx"))
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        storage.load(tmp_path / "bad.onnx")


def test_every_truncation_is_a_model_error(tmp_path):
    small(tmp_path / "a.onnx", width=32)
    whole = (tmp_path / "a.onnx").read_bytes()
    for length in range(1, len(whole), max(1, len(whole) // 60)):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        with pytest.raises(ModelError):
            storage.load(tmp_path / "cut.onnx")


def test_bad_paths_and_files(tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        storage.load(tmp_path / "none.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ModelError, match="is empty"):
        storage.load(tmp_path / "empty.onnx")
    (tmp_path / "text.onnx").write_text("This is a text file, not a model.\n" * 20)
    with pytest.raises(ModelError, match=r"text\.onnx"):
        storage.load(tmp_path / "text.onnx")


def test_a_weight_whose_bytes_do_not_fit_its_shape_is_refused(tmp_path):
    proto = ir.to_proto(small(tmp_path / "a.onnx"))
    proto.graph.initializer[0].dims[0] = 63
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="its shape wants"):
        storage.load(tmp_path / "bad.onnx")


def test_a_failing_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.replacing(path) as staged:
        staged.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_unwritable_folder_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        files.save_text("x", tmp_path / "file" / "a.txt")


def limit_file_size() -> None:
    """A disk that is full after 100 kB, as the kernel reports it to a write."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_full_disk_is_one_line_and_the_old_file_is_whole(tmp_path, process):
    small(tmp_path / "model.onnx", width=256)
    (tmp_path / "model_optimized.onnx").write_text("old")
    result = process("optimize", "model.onnx", "--model-type", "bert", preexec_fn=limit_file_size)
    assert result.returncode == 8, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "cannot write" in result.stderr
    assert (tmp_path / "model_optimized.onnx").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model_optimized.onnx"]


INTERRUPTED = """
import os, signal, sys
from onnxfuse import cli

moment = sys.argv.pop(1)

def interrupt(event, arguments):
    what = f"open {arguments[1]}" if event == "open" else event
    if what == moment and ".onnxfuse-" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(interrupt)
cli.main()
"""
"""The command line, which gets Ctrl-C at the moment when it is about to do a thing with a staged file."""


@pytest.mark.parametrize("moment", ["open w", "open r", "os.rename"])
def test_ctrl_c_in_the_middle_of_a_save_leaves_the_old_file(start, tmp_path, moment):
    """Before the first byte, when it is written and read back, and when it is about to take the old one's place."""
    small(tmp_path / "model.onnx")
    (tmp_path / "model_optimized.onnx").write_text("old")
    process = start("-c", INTERRUPTED, moment, "optimize", "model.onnx", "--model-type", "bert")
    _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == 130, stderr
    assert stderr.strip() == "onnxfuse: interrupted; nothing was saved"
    assert (tmp_path / "model_optimized.onnx").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "model_optimized.onnx"]
