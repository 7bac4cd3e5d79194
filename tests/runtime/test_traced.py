"""What ONNX Runtime's profiler writes, read: calls, kernels, and what runs inside of operators with bodies."""

import shutil
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError, StorageError
from onnxfuse.io import onnx_file
from onnxfuse.runtime import Settings
from onnxfuse.runtime.traced import Traced, calls_of
from tests.conftest import fill, parse

LOOPED = """g (float[1] x, float[2,2] a) => (float[2,2] out) {
    limit = Constant<value = int64[1] {5}>()
    count = Squeeze(limit)
    go = Constant<value = bool[1] {1}>()
    yes = Squeeze(go)
    start = Relu(a)
    end = Loop(count, yes, start) <body = b (int64 i, bool c, float[2,2] v) => (bool d, float[2,2] w) {
        d = Identity(c)
        p = MatMul(v, a)
        w = Tanh(p)
    }>
    out = Add(end, x)
}"""


def event(name: str, operator: str, start: int, taken: int) -> dict:
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": taken, "args": {"op_name": operator}}


def call(taken: int) -> dict:
    return {"cat": "Session", "name": "model_run", "ts": 0, "dur": taken, "args": {}}


def test_calls_are_told_apart_and_bodies_are_inside():
    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 900, "args": {}},
        event("a", "Relu", 1, 2),
        event("in", "MatMul", 5, 3),
        event("in", "MatMul", 8, 1),
        event("l", "Loop", 4, 9),
        call(20),
        event("a", "Relu", 30, 4),
        event("l", "Loop", 34, 1),
        call(6),
    ]
    first, second = calls_of(events, frozenset({"Loop"}))
    assert [(kernel.name, kernel.taken, kernel.own) for kernel in first.kernels] == [("a", 2, 2), ("l", 9, 5)]
    assert [kernel.taken for kernel in first.kernels[1].inside] == [3, 1]
    assert (first.taken, second.taken, [kernel.taken for kernel in second.kernels]) == (20, 6, [4, 1])


@pytest.mark.parametrize("broken", [{"cat": "Node"}, "text", event("a", "Relu", 1, 2) | {"args": {}}])
def test_a_trace_of_another_form_is_refused(broken):
    with pytest.raises(ModelError, match="writes its trace in an unknown form"):
        calls_of([broken], frozenset())


def test_every_call_is_noted_within_the_time_that_it_took(tmp_path):
    onnx_file.save(parse(LOOPED), tmp_path / "m.onnx")
    (tmp_path / "t").mkdir()
    traced, walls = Traced(tmp_path / "m.onnx", Settings(threads=1), tmp_path / "t"), []
    feeds = {"x": np.ones(1, np.float32), "a": np.eye(2, dtype=np.float32)}
    for _ in range(3):
        start = time.perf_counter()
        out = traced(feeds)["out"]
        walls.append((time.perf_counter() - start) * 1e6)
    np.testing.assert_allclose(np.diag(out), 1 + np.tanh(np.tanh(np.tanh(np.tanh(np.tanh(1.0))))), rtol=1e-5)
    calls = traced.end()
    assert len(calls) == 3
    for each, wall in zip(calls, walls, strict=True):
        assert sum(kernel.taken for kernel in each.kernels) <= each.taken <= wall + 1
        assert [kernel.operator for kernel in each.kernels] == [node.op_type for node in traced.graph]
        (loop,) = [kernel for kernel in each.kernels if kernel.operator == "Loop"]
        assert sorted(kernel.operator for kernel in loop.inside if kernel.operator != "Identity") == ["MatMul"] * 5 + ["Tanh"] * 5
        assert sum(kernel.taken for kernel in loop.inside) + loop.own == loop.taken


def test_the_trace_is_gone_and_the_graph_is_the_one_that_runs(tmp_path):
    model = fill(
        parse("g (float[2,8] x, float[8,8] w, float[8] b) => (float[2,8] y) { p = MatMul(x, w) s = Add(p, b) y = Relu(s) }")
    )
    onnx_file.save(fill(model, w=(8, 8), b=(8,)), tmp_path / "m.onnx")
    (tmp_path / "t").mkdir()
    traced = Traced(tmp_path / "m.onnx", Settings(threads=1), tmp_path / "t")
    assert isinstance(traced.graph, ir.Graph)
    assert "MatMul" not in {node.op_type for node in traced.graph}  # ONNX Runtime fuses it
    traced({"x": np.ones((2, 8), np.float32)})
    (only,) = traced.end()
    assert [kernel.operator for kernel in only.kernels] == [node.op_type for node in traced.graph]
    assert not [path for path in (tmp_path / "t").iterdir() if path.name.startswith("trace")]


def test_no_room_is_told(tmp_path, monkeypatch):
    onnx_file.save(parse("g (float[2] x) => (float[2] y) { y = Relu(x) }"), tmp_path / "m.onnx")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(StorageError, match=r"has 0 MB free, and the graph .* free some space, or name another folder in TMPDIR"):
        Traced(tmp_path / "m.onnx", Settings(), tmp_path)


def test_a_trace_that_is_cut_short_is_told(tmp_path):
    onnx_file.save(parse("g (float[2] x) => (float[2] y) { y = Relu(x) }"), tmp_path / "m.onnx")
    (tmp_path / "t").mkdir()
    traced = Traced(tmp_path / "m.onnx", Settings(threads=1), tmp_path / "t")
    traced({"x": np.ones(2, np.float32)})
    whole = traced._session.end_profiling

    class Cut:
        def end_profiling(self):
            (tmp_path / "t" / "trace_cut").write_text(Path(whole()).read_text()[:-40])
            return str(tmp_path / "t" / "trace_cut")

    traced._session = Cut()
    with pytest.raises(StorageError, match="is not whole"):
        traced.end()
