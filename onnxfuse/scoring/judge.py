"""Models on labelled data beside each other, a few rows at a time: what each gets right, and how close it is to the first."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from onnxfuse.errors import ModelError, OnnxfuseError, first_line
from onnxfuse.inference.serving import Serving
from onnxfuse.io.progress import Progress
from onnxfuse.scoring.metrics import Metric, mcnemar
from onnxfuse.scoring.source import Source
from onnxfuse.scoring.task import Answer, Sample, Task

CHUNK = 256
"""Rows that are held at a time."""


@dataclass
class Tally:
    """What is kept of a model's answers so far.

    Args:
        kept: rows of numbers, a chunk each, that the task's figures are made of.
        close: the sum of the cosines with the first model's answers, and of how many; of answers of one number each instead their
            products with the first's, its squares, and their own.
        alike: how many decisions are the first's.
        seconds: that answering took.
    """

    kept: list[np.ndarray] = field(default_factory=list)
    close: np.ndarray = field(default_factory=lambda: np.zeros(5))
    alike: int = 0
    seconds: float = 0.0

    @property
    def count(self) -> int:
        return sum(map(len, self.kept))

    def add(self, answers: Sequence[Answer], first: Sequence[Answer]) -> None:
        self.kept.append(np.array([answer.kept for answer in answers], np.float64))
        self.alike += sum(seen.said == wanted.said for seen, wanted in zip(answers, first, strict=True))
        for seen, wanted in zip(answers, first, strict=True):
            self.close += _closeness(seen.numbers, wanted.numbers)

    def join(self, more: Tally) -> None:
        """The same of rows that follow."""
        self.kept += more.kept
        self.close = self.close + more.close
        self.alike += more.alike
        self.seconds += more.seconds

    @property
    def cosine(self) -> float | None:
        """None where there is nothing to compare."""
        total, count, product, theirs, own = self.close
        if count:
            return float(total / count)
        return float(product / (theirs * own) ** 0.5) if theirs and own else None


def _require_like(answers: Sequence[Answer], first: Sequence[Answer], name: str) -> None:
    """Raises ModelError: a model answers with another number of numbers than the first."""
    for seen, wanted in zip(answers, first, strict=True):
        if seen.numbers.shape != wanted.numbers.shape:
            sizes = f"an answer of {seen.numbers.size} numbers, the first model {wanted.numbers.size}"
            raise ModelError(f"{name} gives {sizes}; compare models of one kind")


def _closeness(seen: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """A row's part of ``Tally.close``."""
    product, theirs, own = float(seen @ wanted), float(wanted @ wanted), float(seen @ seen)
    if seen.size == 1:
        return np.array([0, 0, product, theirs, own])
    norm = (theirs * own) ** 0.5
    return np.array([product / norm if norm else float(theirs == own), 1, 0, 0, 0]) if seen.size else np.zeros(5)


@dataclass(frozen=True)
class Scored:
    """How well a model does.

    Args:
        metrics: the published figures of its task.
        cosine: mean cosine of what it decides by with the first model's; None where there is nothing to compare so.
        agreement: the share of samples for which it decides as the first model does.
        count: samples.
        p_value: how likely so different a number of right answers is of a model as good as the first: McNemar's test. None of the
            first, and where no answer is right or wrong.
        seconds: that it took to answer all, texts and images read into it and its answers read off included.
    """

    metrics: Mapping[str, Metric]
    cosine: float | None
    agreement: float | None
    count: int
    p_value: float | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """What is not a number is null."""
        figures = {name: {end: _told(value) for end, value in asdict(each).items()} for name, each in self.metrics.items()}
        return {
            "metrics": figures,
            "cosine": self.cosine,
            "agreement": self.agreement,
            "count": self.count,
            "p_value": self.p_value,
            "seconds": self.seconds,
        }


def _told(value: float) -> float | None:
    return value if np.isfinite(value) else None


def tallied(
    models: Mapping[str, Serving],
    task: Task,
    source: Source,
    batch: int,
    progress: Progress,
    tallies: Mapping[str, Tally],
    failed: dict[str, str],
    others: Collection[str] = (),
) -> None:
    """Add the answers of all models to what was tallied before; rows that were are not read into models again.

    Args:
        failed: receives why one of ``others``, which may fail, did; it is then left out.

    Raises:
        UsageError: a row is not as the task needs it, or a model cannot read it. ModelError: a model fails on it.
    """
    first = next(iter(models))
    read, done = task.reader(models[first], source), tallies[first].count
    begin, before = time.monotonic(), done
    for rows in source.chunks(CHUNK, done):
        samples = [read(row, f"{source.name}, row {number}") for number, row in enumerate(rows, source.first + done + 1)]
        said: dict[str, list[Answer]] = {}
        step = _step(done, source, time.monotonic() - begin, done - before)
        for at, (name, serving) in enumerate((name, each) for name, each in models.items() if name not in failed):
            share = (done + len(rows) * at / len(models)) / source.count if source.count else None
            progress(f"answering {source.name}", share, step)
            start = time.monotonic()
            try:
                said[name] = task.answers(serving, samples, batch)
                tallies[name].seconds += time.monotonic() - start
                _require_like(said[name], said[first], name)
            except OnnxfuseError as error:
                if name not in others:
                    raise
                failed[name] = first_line(error)
                said.pop(name, None)
        for name, answers in said.items():
            tallies[name].add(answers, said[first])
        done += len(samples)


def _step(done: int, source: Source, seconds: float, rows: int) -> str:
    """Where the work is, how fast it goes, and what is left of it."""
    of = f" of {source.count:,}" if source.count else ""
    if not rows or not seconds:
        return f"row {done + 1:,}{of}"
    left = f", {(source.count - done) * seconds / rows:,.0f} s left" if source.count else ""
    return f"row {done + 1:,}{of}, {rows / seconds:,.0f} a second{left}"


def scores(models: Mapping[str, Serving], task: Task, tallies: Mapping[str, Tally]) -> dict[str, Scored]:
    """The figures of what was tallied."""
    first = next(iter(models))
    kept = {name: np.concatenate(tallies[name].kept) for name in models}
    right = {name: task.right(rows) for name, rows in kept.items()} if task.right else {}
    found = {}
    for name, serving in models.items():
        tally = tallies[name]
        p_value = mcnemar(right[first], right[name]) if right and name != first else None
        agreement = tally.alike / tally.count if task.right else None
        found[name] = Scored(task.figures(serving, kept[name]), tally.cosine, agreement, tally.count, p_value, tally.seconds)
    return found


def samples_of(source: Source, task: Task, serving: Serving, count: int) -> list[Sample]:
    """The first samples: what latency is measured on."""
    read = task.reader(serving, source)
    rows = next(source.chunks(count))
    return [read(row, f"{source.name}, row {number}") for number, row in enumerate(rows, 1)]


def saved(tallies: Mapping[str, Tally]) -> dict[str, np.ndarray]:
    """Arrays that hold what was tallied, by names."""
    return {
        f"{what} {at}": array
        for at, tally in enumerate(tallies.values())
        for what, array in (("kept", np.concatenate(tally.kept)), ("close", np.append(tally.close, (tally.alike, tally.seconds))))
        if tally.kept
    }


def opened(names: Sequence[str], arrays: Mapping[str, Any]) -> dict[str, Tally]:
    """What ``saved`` gave; nothing for models that it does not hold."""
    found = {}
    for at, name in enumerate(names):
        kept, close = arrays.get(f"kept {at}"), arrays.get(f"close {at}")
        if kept is None or close is None or close.shape != (7,):
            found[name] = Tally()
        else:
            found[name] = Tally([kept], close[:5], int(close[5]), float(close[6]))
    return found
