"""The answers of models to parts of a data set, each by an actor of a cluster that opens the models itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from onnxfuse import cluster
from onnxfuse.cluster import Cluster
from onnxfuse.config import BenchmarkConfig
from onnxfuse.errors import UsageError
from onnxfuse.inference.serving import Serving
from onnxfuse.io.progress import Progress, silent
from onnxfuse.pipeline import evaluate
from onnxfuse.scoring.judge import CHUNK, Tally, opened, tallied
from onnxfuse.scoring.source import Source
from onnxfuse.scoring.task import Task
from onnxfuse.scoring.tasks import task_of

SHARD = 8 * CHUNK
"""Rows of a part: whole chunks, so that batches are those of one process, and answers to the last bit."""

Shard = tuple[int, int]
"""The number of the first row, and how many."""


@dataclass(frozen=True)
class Spread:
    """What actors need: as ``evaluate`` is given it. Called as ``tallied``."""

    paths: Sequence[Path]
    data: Path
    split: str
    runtimes: Sequence[str]
    where: Cluster

    def __call__(
        self,
        models: Mapping[str, Serving],
        task: Task,
        source: Source,
        batch: int,
        progress: Progress,
        tallies: Mapping[str, Tally],
        failed: dict[str, str],
        others: Collection[str] = (),
    ) -> None:
        """Raises OnnxfuseError: as ``tallied`` and ``cluster.spread``."""
        start = tallies[next(iter(models))].count
        total = source.count if source.count is not None else sum(1 for _ in source.read())
        shards = [(first, min(SHARD, total - first)) for first in range(start, total, SHARD)]
        if not shards:
            return
        progress(f"answering {source.name}", start / total, f"row {start + 1:,} of {total:,}")
        done = dict[int, list[Tally]]()
        try:
            for first, found in cluster.spread(partial(maker, self._anywhere(), batch), shards, self.where, progress):
                done[first] = found
                rows = start + sum(each[0].count for each in done.values())
                progress(f"answering {source.name}", rows / total, f"{rows:,} rows of {total:,}")
        finally:  # what an interrupted run keeps has no gaps
            for first, _ in shards:
                if first not in done:
                    break
                for tally, more in zip(tallies.values(), done[first], strict=True):
                    tally.join(more)

    def _anywhere(self) -> Spread:
        """By paths that do not depend on where a process began; a data set of the hub has none."""
        data = self.data.absolute() if self.data.exists() else self.data
        return replace(self, paths=[path.absolute() for path in self.paths], data=data)


def maker(asked: Spread, batch: int, threads: int) -> Callable[[Shard], tuple[int, list[Tally]]]:
    """In an actor: what answers a part of the rows."""
    plan = BenchmarkConfig(batch, threads=threads)
    models = evaluate.models_of(evaluate.ways_of(asked.paths, asked.runtimes, plan), asked.paths)
    source = evaluate.rows_of(asked.data, asked.split)
    assert source is not None
    task, reading = task_of(next(iter(models.values()))), Reading(source)

    def answer(shard: Shard) -> tuple[int, list[Tally]]:
        tallies = opened(list(models), {})
        tallied(models, task, reading.part(*shard), batch, silent, tallies, {})
        return shard[0], list(tallies.values())

    return answer


class Reading:
    """The parts of a data set one after another: where they come in order, what lies before is not read again for each."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.rows, self.at = source.read(), 0

    def part(self, first: int, count: int) -> Source:
        """``count`` rows from number ``first`` on; they are read once."""
        if first < self.at:
            self.rows, self.at = self.source.read(), 0
        rows = itertools.islice(self.rows, first - self.at, first - self.at + count)
        self.at = first + count
        return replace(self.source, read=lambda: rows, count=count, first=first)


def tally_of(
    where: Cluster | None,
    paths: Sequence[Path],
    data: Path,
    split: str,
    *,
    runtimes: Sequence[str],
    alone: Mapping[str, object],
) -> Callable[..., None]:
    """What has models answer: in this process without a cluster.

    Args:
        alone: what is asked for that this process alone does, by its option.

    Raises:
        UsageError: this cannot be spread.
    """
    if where is None:
        return tallied
    if given := [option for option, value in alone.items() if value]:
        raise UsageError(f"--engine ray answers with files alone, and {' and '.join(given)} is done here; leave one of them out")
    if evaluate.rows_of(data, split) is None:
        raise UsageError("--engine ray is for labelled rows; leave it out for arrays and for texts without labels")
    return Spread(paths, data, split, runtimes, where)
