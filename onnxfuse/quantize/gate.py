"""The thresholds that an int8 model must meet, and what is given up where it does not: the layers that lose most stay float.

Each linear layer's sensitivity is measured by itself: one file holds every layer in both forms, with a switch for each, and runs
once for each with that one alone in int8. The worst k stay float: k is doubled until the model passes, then the fewest that do
are found by bisection. What is judged each time is a file as it would be saved.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.config import Thresholds
from onnxfuse.errors import RequirementError, UsageError
from onnxfuse.evaluate.dataset import Dataset
from onnxfuse.evaluate.quality import Predictions, Quality, judge, predict
from onnxfuse.io import onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.quantize.prepare import Prepared
from onnxfuse.quantize.write import SWITCHES, write
from onnxfuse.runtime import Runner, open_runner

RANKED = 64
"""Samples that a linear layer's sensitivity is measured on."""

ROUNDS = 10
"""Timed rounds of the candidates, beside each other."""


@dataclass(frozen=True)
class Candidate:
    """A model that was judged: which linear layers it kept float, its quality, and its speed in milliseconds for a batch."""

    kept: tuple[str, ...]
    quality: Quality
    p50: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"kept": self.kept, "quality": self.quality.to_json(), "p50": self.p50}


@dataclass(frozen=True)
class TradeOff:
    """The outcome: the linear layers that stay float, every candidate with fewer first, and each layer's loss alone."""

    kept: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    sensitivity: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "kept": self.kept,
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "sensitivity": self.sensitivity,
        }


Judge = Callable[[tuple[str, ...]], Quality]
"""The quality of the model that keeps these linear layers float."""

Rank = Callable[[], dict[str, float]]
"""Each linear layer's loss when it alone is int8."""


def misses(thresholds: Thresholds, quality: Quality, reference: Quality) -> list[str]:
    """What is not kept, in words.

    Raises:
        UsageError: a threshold for accuracy, and data without labels.
    """
    found = []
    if thresholds.max_drop is not None:
        if quality.accuracy is None or reference.accuracy is None:
            raise UsageError(
                "--max-drop is measured on the labels of --data and a classifier's logits, and one is missing; "
                "use --min-cosine or --min-agreement"
            )
        drop = reference.accuracy - quality.accuracy
        if not drop <= thresholds.max_drop:
            found.append(f"accuracy falls by {drop * 100:.2f} points, allowed {thresholds.max_drop * 100:g}")
    for name in ("cosine", "agreement"):
        seen, wanted = getattr(quality, name), getattr(thresholds, f"min_{name}")
        if wanted is not None and not seen >= wanted:
            found.append(f"{name} is {seen:.4f}, wanted {wanted:g}")
    return found


def search(
    linears: Sequence[str], judge: Judge, rank: Rank, thresholds: Thresholds, reference: Quality, progress: Progress = silent
) -> TradeOff:
    """Find the fewest linear layers that must stay float for the model to pass.

    Raises:
        RequirementError: it does not pass with every linear layer in float; the text tells the best found.
        UsageError: see ``misses``.
    """
    tried: dict[int, Quality] = {0: judge(())}
    if not misses(thresholds, tried[0], reference):
        return TradeOff((), (Candidate((), tried[0]),), {})
    losses = rank()
    order = sorted(linears, key=lambda name: -losses[name])

    def passes(count: int) -> bool:
        progress("finding how few linear layers must stay float", step=f"{count} of {len(order)}")
        tried[count] = judge(tuple(order[:count]))
        return not misses(thresholds, tried[count], reference)

    fails, enough = 0, 1
    while not passes(enough):
        if enough == len(order):
            best = max(tried.values(), key=lambda quality: (-len(misses(thresholds, quality, reference)), quality.cosine))
            raise RequirementError(
                f"int8 does not pass, with every linear layer in float either: {misses(thresholds, best, reference)[0]}; "
                f"the best found has a cosine of {best.cosine:.4f}; nothing was saved"
            )
        fails, enough = enough, min(2 * enough, len(order))
    while enough - fails > 1:
        middle = (fails + enough) // 2
        fails, enough = (fails, middle) if passes(middle) else (middle, enough)
    candidates = tuple(Candidate(tuple(order[:count]), tried[count]) for count in sorted(tried))
    return TradeOff(tuple(order[:enough]), candidates, {name: losses[name] for name in order})


def meet_thresholds(
    prepared: Prepared, source: Path, format: str, data: Dataset, batch: int, thresholds: Thresholds, progress: Progress = silent
) -> TradeOff:
    """Find which linear layers of a prepared model must stay float, judged by ``data`` against the float file ``source``.

    Raises:
        RequirementError, UsageError: see ``search``.
    """
    names = [linear.name for linear in prepared.linears]
    expected = predict(open_runner(source), data, batch)
    with tempfile.TemporaryDirectory() as folder:
        files: dict[tuple[str, ...], Path] = {}

        def judge_kept(kept: tuple[str, ...]) -> Quality:
            files[kept] = Path(folder) / f"{len(kept)}.onnx"
            onnx_file.save(write(prepared, kept, format), files[kept])
            return judge(predict(open_runner(files[kept]), data, batch), expected, data)

        def rank() -> dict[str, float]:
            path = Path(folder) / "switched.onnx"
            onnx_file.save(write(prepared, format=format, switched=True), path)
            return sensitivity(open_runner(path), names, data.first(RANKED), batch, progress)

        trade_off = search(names, judge_kept, rank, thresholds, judge(expected, expected, data), progress)
        if len(trade_off.candidates) == 1:
            return trade_off
        runners = {str(len(candidate.kept)): open_runner(files[candidate.kept]) for candidate in trade_off.candidates}
        timings = benchmark.measure(runners, [next(data.batches(batch))], rounds=ROUNDS, progress=progress)
    timed = tuple(replace(candidate, p50=timings[str(len(candidate.kept))].p50) for candidate in trade_off.candidates)
    return replace(trade_off, candidates=timed)


def sensitivity(run: Runner, names: Sequence[str], data: Dataset, batch: int, progress: Progress = silent) -> dict[str, float]:
    """What each linear layer costs alone: one less the mean cosine of the predictions, with it in int8 and the others in float.

    Args:
        run: a model written with ``switched``.
    """

    def switched(at: int) -> Predictions:
        switches = np.arange(len(names)) == at
        return predict(lambda feeds: run(feeds | {SWITCHES: switches}), data, batch)

    expected, losses = switched(-1), {}
    for at, name in enumerate(names):
        progress("measuring the sensitivity of linear layers", at / len(names), f"{at + 1} of {len(names)}")
        losses[name] = 1 - judge(switched(at), expected, data).cosine
    return losses
