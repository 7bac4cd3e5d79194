"""Honest timings: all candidates in one run, interleaved, so that a machine that drifts drifts for all of them.

A round visits the candidates in order and the next one in reverse (ABBA), on the same input. A visit first calls the candidate
untimed, until the runtime before it has put its spinning threads to sleep, then times one call. Loading is excluded, the
first rounds warm up and do not count. Only ratios from one run mean anything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from onnxfuse.io.progress import Progress, silent
from onnxfuse.runtime import Feeds, Runner

WARM_UP = 3
"""Rounds that do not count: first calls allocate memory and wake threads."""

SETTLE = 0.02
"""Seconds of untimed calls before a timed one: runtimes keep idle threads spinning for some milliseconds after a call."""

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
    runners: Mapping[str, Runner], inputs: Sequence[Feeds], *, rounds: int, progress: Progress = silent
) -> dict[str, Timing]:
    """Time every runner on every input, interleaved.

    Args:
        runners: candidates by name.
        inputs: one timed call for each, in every round.
        rounds: timed rounds, after ``WARM_UP`` untimed ones.

    Returns:
        The timing of each runner, over all inputs and rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    order = list(runners)
    for number in range(WARM_UP + rounds):
        progress("measuring", number / (WARM_UP + rounds), f"round {number + 1} of {WARM_UP + rounds}")
        for feeds in inputs:
            for name in order:
                _settle(runners[name], feeds)
                start = time.perf_counter()
                runners[name](feeds)
                if number >= WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
            order.reverse()
    return {name: summarize(values) for name, values in seconds.items()}


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
