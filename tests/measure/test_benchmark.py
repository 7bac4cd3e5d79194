"""The stopwatch: what it counts, and that it can tell fast from slow."""

import numpy as np
import pytest

from onnxfuse.measure import benchmark
from onnxfuse.pipeline import memory


def test_percentiles_and_interval_of_known_numbers():
    timing = benchmark.summarize([value / 1e3 for value in range(1, 101)])
    assert (timing.p50, timing.samples) == (50.5, 100)
    assert timing.p90 == 90.1
    assert (timing.low, timing.high) == (41.0, 61.0)


class Clock:
    """A clock that only runners move."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def runner(self, seconds: float, calls: list[float] | None = None):
        def run(feeds):
            self.now += seconds
            (calls if calls is not None else []).append(seconds)

        return run


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(benchmark, "time", found := Clock())
    return found


def test_rounds_are_interleaved_and_warm_up_does_not_count(monkeypatch, clock):
    monkeypatch.setattr(benchmark, "SETTLE", 0.02)
    calls: list[float] = []
    timings = benchmark.measure({"a": clock.runner(0.015, calls), "b": clock.runner(0.025, calls)}, [{}], rounds=2)
    visits = {0.015: ["a"] * 3, 0.025: ["b"] * 2}  # untimed for 0.02 seconds, then one timed call
    order = "abba" * 2 + "ab"
    assert calls == [seconds for name in order for seconds, group in visits.items() if group[0] == name for _ in group]
    for name, wanted in (("a", 15.0), ("b", 25.0)):
        assert (timings[name].samples, timings[name].p50) == (2, wanted)


@pytest.mark.parametrize(
    ("seconds", "warm", "timed"),
    [(1.0, 3, 21), (0.1, 1, 3), (0.001, 1, 1)],  # a round takes 0.0975 s of the 2 * seconds that two runners have
)
def test_a_run_time_in_seconds_with_a_tenth_of_it_to_warm_up(monkeypatch, clock, seconds, warm, timed):
    monkeypatch.setattr(benchmark, "SETTLE", 0.02)
    calls: list[float] = []
    told = []
    timings = benchmark.measure(
        {"a": clock.runner(0.0125, calls), "b": clock.runner(0.03)},
        [{}],
        rounds=7,
        seconds=seconds,
        progress=lambda *said: told.append(said),
    )
    assert calls == [0.0125] * 3 * (warm + timed), "each round calls it for 0.02 s untimed, then once"
    assert [timing.samples for timing in timings.values()] == [timed, timed]
    assert len(told) == warm + timed and all(0 <= done <= 1 for _, done, _ in told)
    assert told[0][2] == f"second 0 of {2.2 * seconds:.0f}"


def test_a_slower_runner_is_slower(clock):
    timings = benchmark.measure({"fast": clock.runner(0.005), "slow": clock.runner(0.05)}, [{}], rounds=5)
    ratio = benchmark.ratio(timings["slow"], timings["fast"])
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((10, 10, 10))


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
