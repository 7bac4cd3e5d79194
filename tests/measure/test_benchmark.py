"""The stopwatch: what it counts, and that it can tell fast from slow."""

import time

import numpy as np

from onnxfuse.measure import benchmark
from onnxfuse.pipeline import memory


def test_percentiles_and_interval_of_known_numbers():
    timing = benchmark.summarize([value / 1e3 for value in range(1, 101)])
    assert (timing.p50, timing.samples) == (50.5, 100)
    assert timing.p90 == 90.1
    assert (timing.low, timing.high) == (41.0, 61.0)


def test_rounds_are_interleaved_and_warm_up_does_not_count():
    calls = []
    runners = {name: lambda feeds, name=name: calls.append(name) or time.sleep(0.025) for name in ("a", "b")}
    timings = benchmark.measure(runners, [{}], rounds=2)
    visits = calls[::2]  # each visit is one untimed call of at least SETTLE seconds, and one timed
    assert visits == ["a", "b", "b", "a"] * 2 + ["a", "b"]
    assert timings["a"].samples == timings["b"].samples == 2


def test_a_slower_runner_is_slower():
    runners = {"fast": lambda feeds: time.sleep(0.005), "slow": lambda feeds: time.sleep(0.05)}
    timings = benchmark.measure(runners, [{}], rounds=5)
    assert benchmark.ratio(timings["slow"], timings["fast"]).low > 2


def test_peak_memory_grows_with_the_model(tmp_path):
    import onnx
    import onnx_ir as ir

    from tests.conftest import fill, parse

    peaks = []
    for width in (64, 4096):
        text = f"g (float[B,{width}] x, float[{width},{width}] w) => (float[B,{width}] y) {{ y = MatMul(x, w) }}"
        onnx.save(ir.to_proto(fill(parse(text), w=(width, width))), tmp_path / f"{width}.onnx")
        peaks.append(memory.peak_memory(tmp_path / f"{width}.onnx", batch=1, length=1, threads=1))
    assert peaks[1] - peaks[0] > 0.8 * 4096 * 4096 * np.dtype(np.float32).itemsize
