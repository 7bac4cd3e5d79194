"""Honest timings: all candidates in one run, interleaved, so that a machine that drifts drifts for all of them.

A round visits the candidates in order and the next one in reverse (ABBA), on the same input. A visit first calls the candidate
untimed, until the runtime before it has put its spinning threads to sleep, then times one call. Loading is excluded, the
first rounds warm up and do not count. Only ratios from one run mean anything.
"""

from __future__ import annotations

import json
import math
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.errors import ModelError
from onnxfuse.progress import Progress, silent
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


def measure(runners: Mapping[str, Runner], inputs: Sequence[Feeds], *, rounds: int,
            progress: Progress = silent) -> dict[str, Timing]:
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


_CHILD = """
import json, sys
from pathlib import Path
from onnxfuse.benchmark import peak_so_far
from onnxfuse import samples, storage
from onnxfuse.runtime import Settings, open_runner
path, like, runtime = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
batch, length, threads = map(int, sys.argv[4:])
config = like.with_name("config.json")
profile = samples.profile_of(storage.load(like), json.loads(config.read_text()) if config.is_file() else {})
before = peak_so_far()
run = open_runner(path, Settings(runtime, threads))
for seed in range(3):
    run(profile.feeds(batch, length, seed=seed))
json.dump(peak_so_far() - before, sys.stdout)
"""


def peak_memory(path: Path, *, batch: int, length: int, threads: int, runtime: str = "ort", like: Path | None = None) -> int:
    """Peak resident bytes of a process of its own that loads a model and runs it three times, less what it held before.

    Args:
        like: an ONNX model that takes the same inputs, where the file itself is none.

    Raises:
        ModelError: the process failed.
    """
    command = [sys.executable, "-c", _CHILD, str(path), str(like or path), runtime, str(batch), str(length), str(threads)]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if result.returncode:
        said = (result.stderr.strip().splitlines() or [f"it left with code {result.returncode}"])[-1]
        raise ModelError(f"{path} failed while its memory was measured: {re.sub(r'^[a-z._]+[A-Za-z]*Error: ', '', said)}")
    return int(json.loads(result.stdout))


def peak_so_far() -> int:
    """Largest resident size in bytes that this process ever had.

    Linux tells it in /proc; ``getrusage`` there starts from the parent's, so it serves only where /proc is missing.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
