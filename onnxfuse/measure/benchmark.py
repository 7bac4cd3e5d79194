"""Honest timings: all candidates in one run, interleaved, so that a machine that drifts drifts for all of them.

A round visits the candidates in order and the next one in reverse (ABBA), on the same input. A visit first calls the candidate
untimed, until the runtime before it has put its spinning threads to sleep, then times one call. Loading is excluded, the
first rounds warm up and do not count. Rounds are so many, or what there is time for. Only ratios from one run mean anything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from onnxfuse.io.progress import Progress, silent
from onnxfuse.runtime import Feeds, Runner

WARM_UP = 3
"""Rounds that do not count: first calls allocate memory and wake threads."""

WARM_SHARE = 0.1
"""Of a run time in seconds, what rounds before it take that do not count."""

SETTLE = 0.1
"""Seconds of untimed calls before a timed one: runtimes keep idle threads spinning after a call. On two cores, five models by
turns, the same int8 model in ONNX Runtime took 9.8 ms without such calls, 6.1 after 0.02 s of them, 3.0 after 0.1 and 0.3 s."""

CONFIDENCE = 1.96
"""Standard deviations of the normal distribution that hold 95 % of it."""


@dataclass(frozen=True)
class Timing:
    """Latency of one candidate in milliseconds: percentiles, a 95 % confidence interval of the median, and every call's
    latency in the order of the calls."""

    p50: float
    p90: float
    p99: float
    low: float
    high: float
    samples: int
    calls: tuple[float, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "calls"}


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one candidate is as another, with a 95 % confidence interval."""

    value: float
    low: float
    high: float


def measure(
    runners: Mapping[str, Runner],
    inputs: Sequence[Feeds],
    *,
    rounds: int,
    seconds: float = 0.0,
    progress: Progress = silent,
) -> dict[str, Timing]:
    """Time every runner on every input, interleaved.

    Args:
        runners: candidates by name.
        inputs: one timed call for each, in every round.
        rounds: timed rounds, after ``WARM_UP`` untimed ones.
        seconds: instead of rounds, unless 0: for each runner, so that all rounds take this times their number. Rounds of
            ``WARM_SHARE`` of it go before and do not count; there is one of either kind at least, and the last is finished.

    Returns:
        The timing of each runner, over all inputs and rounds.
    """
    taken: dict[str, list[float]] = {name: [] for name in runners}
    order = list(runners)
    for counts in _for_seconds(seconds * len(runners), progress) if seconds else _for_rounds(rounds, progress):
        for feeds in inputs:
            for name in order:
                _settle(runners[name], feeds)
                start = time.perf_counter()
                runners[name](feeds)
                if counts:
                    taken[name].append(time.perf_counter() - start)
            order.reverse()
    return {name: summarize(values) for name, values in taken.items()}


def _for_rounds(rounds: int, progress: Progress) -> Iterator[bool]:
    """For each round, whether it counts."""
    for number in range(WARM_UP + rounds):
        progress("measuring", number / (WARM_UP + rounds), f"round {number + 1} of {WARM_UP + rounds}")
        yield number >= WARM_UP


def _for_seconds(seconds: float, progress: Progress) -> Iterator[bool]:
    """The same, of as many rounds as begin within a time."""
    begin, warm = time.perf_counter(), seconds * WARM_SHARE
    for counts, span in ((False, warm), (True, seconds)):
        start = now = time.perf_counter()
        while True:
            done = now - begin
            progress("measuring", min(done / (seconds + warm), 1.0), f"second {done:.0f} of {seconds + warm:.0f}")
            yield counts
            now = time.perf_counter()
            if now - start >= span:
                break


def _settle(run: Runner, feeds: Feeds) -> None:
    end = time.perf_counter() + SETTLE
    run(feeds)
    while time.perf_counter() < end:
        run(feeds)


def summarize(seconds: Sequence[float]) -> Timing:
    """Percentiles in milliseconds, and the interval of the median."""
    values = np.asarray(seconds) * 1e3
    p90, p99 = np.percentile(values, (90, 99))
    p50, low, high, p90, p99 = (round(float(value), 3) for value in (*_median(values), p90, p99))
    return Timing(p50, p90, p99, low, high, len(values), tuple(values.tolist()))


def ratio(slower: Timing, faster: Timing) -> Ratio:
    """How many times as fast the second is: the median over rounds of what both took in the same round.

    A machine that others slow down for seconds slows both calls of a round, so that this drifts less than the medians do.
    """
    return Ratio(*_median(np.asarray(slower.calls) / np.asarray(faster.calls)))


def _median(values: np.ndarray) -> tuple[float, float, float]:
    """The median and its 95 % interval by order statistics, which assumes no distribution: ranks n/2 -+ 1.96 * sqrt(n)/2
    (the normal approximation of the binomial)."""
    ordered = np.sort(values)
    half = CONFIDENCE * math.sqrt(len(ordered)) / 2
    low = ordered[max(0, math.floor(len(ordered) / 2 - half))]
    high = ordered[min(len(ordered) - 1, math.ceil(len(ordered) / 2 + half))]
    return float(np.median(ordered)), float(low), float(high)
