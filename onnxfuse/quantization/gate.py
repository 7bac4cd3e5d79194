"""The thresholds that an int8 model must meet, and what is given up where it does not: the layers that lose most stay float.

Each linear layer's sensitivity is measured by itself: one file holds every layer in both forms, with a switch for each, and runs
once for each with that one alone in int8. The worst k stay float: k is doubled until the model passes, then the fewest that do
are found by bisection. What is judged each time is a file as it would be saved: in batches, and, where a scale is measured in
each run and so depends on a row's neighbours, one sample at a time too.

A classifier whose thresholds nobody set must keep ``USUAL``, for which at most one in ``USUAL_PART`` of its linear layers stays
float: where that is not enough, all are int8 and the outcome says what is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.config import Thresholds
from onnxfuse.errors import RequirementError, UsageError
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.evaluation.quality import Predictions, Quality, judge, predict
from onnxfuse.io import onnx_file
from onnxfuse.io.atomic import scratch
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.quantization.prepare import Prepared
from onnxfuse.quantization.write import DYNAMIC, SWITCHES, write
from onnxfuse.runtime import Feeds, Outputs, Runner, open_runner

RANKED = 64
"""Samples that a linear layer's sensitivity is measured on."""

ROUNDS = 10
"""Timed rounds of the candidates, beside each other."""

USUAL = Thresholds(min_agreement=0.99)
"""Of the labels of the data it is measured on, one by one and in batches."""

USUAL_PART = 4

CLASSIFIERS = ("text-classification", "token-classification", "image-classification")


def usual(config: Mapping[str, Any]) -> Thresholds:
    """What a model keeps where nothing is asked, by its config.json: USUAL where its label is the largest of several."""
    named = config.get("id2label")
    several = not isinstance(named, Mapping) or len(named) > 1
    one_of = config.get("problem_type") in (None, "single_label_classification")
    return USUAL if config.get("onnxfuse_task") in CLASSIFIERS and several and one_of else Thresholds()


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
    """The outcome: the linear layers that stay float, every candidate with fewer first, each layer's loss alone, and in words
    what thresholds that nobody set are missed."""

    kept: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    sensitivity: dict[str, float]
    missed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "kept": self.kept,
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "sensitivity": self.sensitivity,
            "missed": self.missed,
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
    linears: Sequence[str],
    judge: Judge,
    rank: Rank,
    thresholds: Thresholds,
    reference: Quality,
    progress: Progress = silent,
    most: int | None = None,
) -> TradeOff:
    """Find the fewest linear layers that must stay float for the model to pass.

    Args:
        most: how many may; where these are not enough, none does. None lets all, and then wants the model to pass.

    Raises:
        RequirementError: it does not pass with every linear layer in float; the text tells the best found.
        UsageError: see ``misses``.
    """
    judged = {0: judge(())}  # by how many layers stay float
    if not misses(thresholds, judged[0], reference):
        return TradeOff((), (Candidate((), judged[0]),), {})
    if most == 0:
        return TradeOff((), (Candidate((), judged[0]),), {}, tuple(misses(thresholds, judged[0], reference)))
    losses = rank()
    worst_first = sorted(linears, key=lambda name: -losses[name])

    def passes(count: int) -> bool:
        progress("finding how few linear layers must stay float", step=f"{count} of {len(worst_first)}")
        judged[count] = judge(tuple(worst_first[:count]))
        return not misses(thresholds, judged[count], reference)

    count = _fewest(passes, len(worst_first) if most is None else most)
    if count is None and most is None:
        raise _failure(thresholds, judged.values(), reference)
    count = count or 0
    candidates = tuple(Candidate(tuple(worst_first[:kept]), judged[kept]) for kept in sorted(judged))
    missed = tuple(misses(thresholds, judged[count], reference))
    return TradeOff(tuple(worst_first[:count]), candidates, {name: losses[name] for name in worst_first}, missed)


def _fewest(passes: Callable[[int], bool], most: int) -> int | None:
    """The smallest count from 1 to ``most`` that passes, where more pass if fewer do; None where not even ``most`` does.

    0 is known to fail. Counts are doubled until one passes; then the smallest is found by bisection.
    """
    fails, enough = 0, 1
    while not passes(enough):
        if enough == most:
            return None
        fails, enough = enough, min(2 * enough, most)
    while enough - fails > 1:
        middle = (fails + enough) // 2
        if passes(middle):
            enough = middle
        else:
            fails = middle
    return enough


def _failure(thresholds: Thresholds, judged: Iterable[Quality], reference: Quality) -> RequirementError:
    """What to say where nothing passes: how near the best came, which misses the fewest thresholds at the highest cosine."""
    best = min(judged, key=lambda quality: (len(misses(thresholds, quality, reference)), -quality.cosine))
    return RequirementError(
        f"int8 does not pass, with every linear layer in float either: {misses(thresholds, best, reference)[0]}; "
        f"the best found has a cosine of {best.cosine:.4f}; nothing was saved"
    )


def meet_thresholds(
    prepared: Prepared,
    source: Path,
    format: str,
    data: Dataset,
    batch: int,
    thresholds: Thresholds,
    progress: Progress = silent,
    most: int | None = None,
    answers: Sequence[Outputs] = (),
) -> TradeOff:
    """Find which linear layers of a prepared model must stay float, judged by ``data`` against the float file ``source``.

    Args:
        answers: what that gives for ``data``, batch by batch, where it is known.

    Raises:
        RequirementError, UsageError: see ``search``.
    """
    names = [linear.name for linear in prepared.linears]
    alone = {1} if format == DYNAMIC else set()
    sizes = sorted({data.rows(size) for size in {batch} | alone}, reverse=True)
    expected = _expected(source, data, sizes, answers)
    reference = judge(expected[sizes[0]], expected[sizes[0]], data)
    with scratch() as folder:

        def file_of(kept: tuple[str, ...]) -> Path:
            return folder / f"{len(kept)}.onnx"

        def judge_kept(kept: tuple[str, ...]) -> Quality:
            onnx_file.save(write(prepared, kept, format), file_of(kept))
            run, found = open_runner(file_of(kept)), None
            for size in sizes:
                quality = judge(predict(run, data, size), expected[size], data)
                found = quality if found is None else found.worse_of(quality)
                if misses(thresholds, found, reference):
                    break
            assert found is not None
            return found

        def rank() -> dict[str, float]:
            path = folder / "switched.onnx"
            onnx_file.save(write(prepared, format=format, switched=True), path)
            return sensitivity(open_runner(path), names, data.first(RANKED), batch, progress)

        trade_off = search(names, judge_kept, rank, thresholds, reference, progress, most)
        if len(trade_off.candidates) == 1:
            return trade_off
        files = {candidate.kept: file_of(candidate.kept) for candidate in trade_off.candidates}
        return _timed(trade_off, files, next(data.batches(batch)), progress)


def _expected(source: Path, data: Dataset, sizes: Sequence[int], answers: Sequence[Outputs]) -> dict[int, Predictions]:
    """What the float model gives in batches of each size, the largest first; what is known already is not asked again."""
    original, known = open_runner(source), iter(answers)
    expected = {sizes[0]: predict((lambda feeds: next(known)) if answers else original, data, sizes[0])}
    for size in sizes[1:]:
        expected[size] = expected[sizes[0]].alone() or predict(original, data, size)
    return expected


def _timed(trade_off: TradeOff, files: Mapping[tuple[str, ...], Path], feeds: Feeds, progress: Progress) -> TradeOff:
    """The same with the speed of every candidate, measured beside each other."""
    runners = {str(len(kept)): open_runner(path) for kept, path in files.items()}
    timings = benchmark.measure(runners, [feeds], rounds=ROUNDS, progress=progress)
    timed = (replace(candidate, p50=timings[str(len(candidate.kept))].p50) for candidate in trade_off.candidates)
    return replace(trade_off, candidates=tuple(timed))


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
