"""One part: read, tokenized and packed by length, run, written. The same in every engine."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from onnxfuse.architecture import PIXELS
from onnxfuse.bulk import parts
from onnxfuse.bulk.data import Part, Place, Row
from onnxfuse.bulk.flaws import flaw, written
from onnxfuse.bulk.job import ID, Job
from onnxfuse.bulk.kinds import require_types
from onnxfuse.bulk.parts import Bad, Done
from onnxfuse.bulk.unchanged import require_input, require_model
from onnxfuse.bulk.use import Use
from onnxfuse.bulk.uses import use_of
from onnxfuse.choice import Choice, choose
from onnxfuse.errors import OnnxfuseError, UsageError, reason
from onnxfuse.inference.serving import Serving
from onnxfuse.runtime import Runner, asked, open_runner
from onnxfuse.runtime.cores import cores

WINDOW, LETTERS, IMAGES = 4096, 8 << 20, 128
"""Rows and characters, or images, that are held at a time, and packed by length."""

Tell = Callable[[Part, int, int, Place], None]
"""Told of a part how many of its rows and tokens are done, and where the next row begins."""


def untold(part: Part, rows: int, tokens: int, end: Place) -> None:
    """A Tell that says nothing."""


def choice_of(source: Path, threads: int, runtime: str | None) -> tuple[Choice, int]:
    """The model, and how many calls of it are made at a time.

    Where its runtime can, each core computes a batch of its own: none waits for others, and no answer depends on their number.
    """
    chosen = choose(source, threads, runtime)
    if asked(chosen.settings.runtime).many is None:
        return chosen, 1
    return replace(chosen, settings=replace(chosen.settings, threads=1)), threads or cores()


def serving_of(chosen: Choice, run: Runner) -> Serving:
    graph = chosen.graph.graph
    inputs, outputs = (tuple(value.name or "" for value in values) for values in (graph.inputs, graph.outputs))
    return Serving(chosen.path, run, inputs, outputs)


@dataclass
class Window:
    """Rows that are packed together: those that can be run, prepared, and those that are bad. ``end``: where the next begins."""

    rows: list[Row] = field(default_factory=list)
    given: list[Any] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    made: Any = ()
    end: Place = Place(0, 0, 0)  # noqa: RUF009 - frozen
    seconds: float = 0.0


class Worker:
    """A model that makes parts of a job, one after another."""

    def __init__(self, job: Job) -> None:
        self.job = job
        chosen, self.calls = choice_of(job.plan.source, job.plan.threads, job.plan.runtime)
        self._pool, self._ahead = ThreadPoolExecutor(self.calls), ThreadPoolExecutor(1)
        plain = serving_of(chosen, open_runner(chosen.path, chosen.settings, self.calls))
        require_model(job, plain.path, plain.home)
        self.use: Use = use_of(plain)
        self.serving = replace(plain, budget=job.plan.batch_tokens, calls=self._calls, front=job.front)
        self.schema = self._schema()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pool in (self._ahead, self._pool):
            pool.shutdown(cancel_futures=True)

    def part(self, part: Part, tell: Tell = untold) -> Done:
        """Make one part. Raises OnnxfuseError: the model fails, rows are read of files that changed, or the part cannot be
        written; nothing of it is left."""
        start, tokenizing = time.monotonic(), 0.0
        require_types(self.job, part)
        with parts.writing(self.job, part, self.schema) as writer:
            for window in self._read_ahead(self._windows(part)):
                if window.rows:
                    tokens = self.use.tokens(window.made)
                    writer.add(self.use.run(self.serving, window.made), self._beside(window.rows), tokens)
                writer.add_bad(window.bad)
                tokenizing += window.seconds
                tell(part, writer.written + writer.bad, writer.tokens, window.end)
            require_input(self.job, self.job.data)
        return Done(part, writer.written, writer.bad, writer.tokens, tokenizing, time.monotonic() - start)

    # Reading

    def _read_ahead(self, windows: Iterator[Window]) -> Iterator[Window]:
        """Windows, of which the next is read and tokenized while one is run."""
        coming: Future[Window | None] = self._ahead.submit(next, windows, None)
        while (window := coming.result()) is not None:
            coming = self._ahead.submit(next, windows, None)
            yield window

    def _windows(self, part: Part) -> Iterator[Window]:
        """A part's rows, as many at a time as are held."""
        most, letters, start, window = IMAGES if self.job.data.pictures else WINDOW, 0, time.monotonic(), Window()
        for row, end in itertools.islice(self.job.data.rows(part.begin, self.job.wanted), part.rows):
            wrong = row.wrong or flaw(row.values, self.job.columns) or self._unwritable(row)
            if wrong:
                window.bad.append(Bad(row.number, self._id(row), wrong))
            else:
                given = tuple(row.values[column] for column in self.job.columns)
                letters += sum(map(len, given))
                window.rows.append(row)
                window.given.append(given if len(given) > 1 else given[0])
            window.end = end
            if len(window.rows) + len(window.bad) == most or letters > LETTERS:
                yield self._prepared(window, start)
                letters, start, window = 0, time.monotonic(), Window()
        if window.rows or window.bad:
            yield self._prepared(window, start)

    def _prepared(self, window: Window, start: float) -> Window:
        if self.job.data.pictures:
            self._open_images(window)
        window.made = self.use.prepare(self.serving, window.given) if window.rows else ()
        window.seconds = time.monotonic() - start
        return window

    def _open_images(self, window: Window) -> None:
        """Images as arrays, some at a time; those that are broken are bad."""
        root = self.job.data.root

        def pixels(name: str) -> Any:
            try:
                return self.serving.images.pixels(root / name)
            except UsageError as error:
                return error

        found = list(self._calls(pixels, window.given))
        whole = [not isinstance(each, OnnxfuseError) for each in found]
        for row, each in zip(window.rows, found, strict=True):
            if isinstance(each, OnnxfuseError):
                window.bad.append(Bad(row.number, self._id(row), reason(each, root / row.values[self.job.columns[0]])))
        window.bad.sort(key=lambda bad: bad.row)
        window.rows = [row for row, ok in zip(window.rows, whole, strict=True) if ok]
        window.given = [each for each, ok in zip(found, whole, strict=True) if ok]

    # Writing

    def _id(self, row: Row) -> Any:
        return row.values.get(self.job.plan.id) if self.job.plan.id else row.number

    def _unwritable(self, row: Row) -> str:
        """Why a row cannot stand in a part with its answer: an id, or what is kept of it, that is no text; empty where it can."""
        plan = self.job.plan
        for name in (plan.id, *plan.keep):
            try:
                if name and name not in self.job.data.types:
                    written(row.values.get(name))
            except ValueError as error:
                return f"{name} {error}"
        return ""

    def _beside(self, rows: list[Row]) -> dict[str, list[Any]]:
        """The ids of rows, and what is kept of them, by the names of their columns."""
        plan, types = self.job.plan, self.job.data.types
        kept = {name: [_kept(row.values.get(name), name in types) for row in rows] for name in plan.keep}
        return {ID: [_kept(self._id(row), not plan.id or plan.id in types) for row in rows], **kept}

    def _schema(self) -> Any:
        """The columns of a part: the answers' types are seen from a try."""
        arrow, types, one = parts.library(), self.job.data.types, ("a",) * len(self.job.columns)
        example: Any = one if len(one) > 1 else one[0]
        if self.serving.sees:
            taken = next(value for value in self.serving.collator.profile.inputs if value.name == PIXELS)
            example = np.zeros(taken.sizes(1, 1)[1:], np.float32)
        tried = self.use.run(replace(self.serving, calls=map), self.use.prepare(self.serving, [example]))
        kinds = {name: _kind(arrow, values) for name, values in tried.items()}
        own = {ID: types.get(self.job.plan.id, arrow.string()) if self.job.plan.id else arrow.int64()}
        kept = {name: types.get(name, arrow.string()) for name in self.job.plan.keep}
        return arrow.schema([arrow.field(name, kind) for name, kind in {**own, **kept, **kinds}.items()])

    def _calls(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterator[Any]:
        """As ``map``, with as many calls at a time as are made, and as many waiting."""
        waiting = deque[Future[Any]]()
        for argument in arguments:
            waiting.append(self._pool.submit(function, argument))
            if len(waiting) == 2 * self.calls:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _kept(value: Any, typed: bool) -> Any:
    """A value of the data as it is written: as it is where its column has a type, else as a text."""
    return value if typed or value is None else written(value)


def _kind(arrow: Any, values: Any) -> Any:
    """The type of a column of answers."""
    if isinstance(values, np.ndarray):
        return arrow.list_(arrow.float32(), values.shape[1]) if values.ndim == 2 else arrow.float32()
    return arrow.string() if isinstance(values[0], str) else arrow.int64()
