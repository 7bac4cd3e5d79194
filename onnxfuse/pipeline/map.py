"""Run a model on any number of rows, each exactly once: in parts that are whole or not there, and that are made once."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from onnxfuse.bulk import engines, parts
from onnxfuse.bulk.data import Data, Part, Place, open_data
from onnxfuse.bulk.facts import job_of
from onnxfuse.bulk.job import Job, MapConfig
from onnxfuse.bulk.parts import KEPT, Done
from onnxfuse.bulk.rows import RECORD
from onnxfuse.bulk.unchanged import require_input
from onnxfuse.errors import BadRowsError, InterruptedWorkError, ModelError, StorageError, UsageError, first_line
from onnxfuse.io import files, locks
from onnxfuse.io.progress import Progress, silent


@dataclass(frozen=True)
class Mapped:
    """What came out; usable as the folder's path.

    Args:
        rows, bad: rows with an answer, and those in the side files; ``before``: of them those that an earlier run made.
        parts: how many.
        tokens: real ones, of this run.
        seconds: of this run, and ``tokenizing`` of reading and tokenizing in it, which goes on beside the model.
        bad_files: the side files.
    """

    path: Path
    rows: int
    bad: int
    before: int
    parts: int
    tokens: int
    seconds: float
    tokenizing: float
    bad_files: tuple[Path, ...] = ()

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def made(self) -> int:
        """Rows of this run."""
        return self.rows + self.bad - self.before

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "rows": self.rows,
            "bad": self.bad,
            "before": self.before,
            "parts": self.parts,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "tokenizing": self.tokenizing,
            "bad_files": [str(path) for path in self.bad_files],
        }

    def require(self, max_bad: int | float) -> Mapped:
        """Itself. Raises BadRowsError: more rows are bad than ``max_bad``, a number or a share of all."""
        share = Fraction(str(max_bad))  # 29 % of 100 are 29, which floating point has not
        if self.bad > (share * (self.rows + self.bad) if isinstance(max_bad, float) else share):
            first = parts.first_bad(self.bad_files[0])
            most = f"{100 * max_bad:g}%" if isinstance(max_bad, float) else max_bad
            raise BadRowsError(
                f"{self.bad} of {self.rows + self.bad} rows are bad, at most {most} may be (row {first.row} {first.reason}); "
                f"all others are in {self.path}: see {self.bad_files[0]}, or allow them with --max-bad"
            )
        return self


def map_rows(plan: MapConfig, progress: Progress = silent) -> Mapped:
    """Run a model on all rows of a data set and write the answers, in parts of ``plan.part_rows``, into ``plan.out``.

    Killed anywhere and called again, it goes on; the result is that of one run, byte for byte. What is there of a finished run is
    left as it is.

    Raises:
        UsageError: data, columns, engine or place are wrong, ``plan.out`` was begun with something else, or the data change.
        ModelError, MissingExtraError, StorageError: the parts that are done are kept.
        InterruptedWorkError: so are they.
    """
    plan = replace(plan, out=_followed(plan.out))
    engine, data = engines.engine(plan.engine), open_data(plan.data, plan.out)
    parts.library()
    progress(f"opening {plan.source}")
    job = job_of(plan, data)
    engine.require(job)
    with _place(job):
        known, told = parts.found(job), _Told(data, progress)
        before = list(known.values())
        for done in before:
            told(done.part, 0, 0, done.part.end)
        told.begin()
        try:
            made = []
            for done in engine.run(job, remaining(data, plan.part_rows, known), told, progress):
                made.append(done)
        except KeyboardInterrupt as error:
            kept = KEPT if next(plan.out.glob("part-*"), None) else "no part is done yet, and the same command begins again"
            raise InterruptedWorkError(f"interrupted; {kept}: {plan.out}") from error
        return _finished(job, before, made, time.monotonic() - told.start)


def remaining(data: Data, size: int, known: Mapping[int, Done]) -> Iterator[Part]:
    """The parts that are not there."""
    place = Place(0, 0, 0)
    for number in itertools.count():
        done = known.get(number)
        part = done.part if done else next(data.parts(size, place, number), None)
        if part is None:
            return
        if done is None:
            yield part
        place = part.end


def _finished(job: Job, before: list[Done], made: list[Done], seconds: float) -> Mapped:
    everything = sorted((*before, *made), key=lambda done: done.part.number)
    if odd := sorted(
        {path.name for path in job.plan.out.glob("part-*")} - {parts.NAME.format(at) for at in range(len(everything))}
    ):
        raise UsageError(
            f"{job.plan.out} holds {odd[0]}, which is no part of this; take it away, as the folder is read as one table"
        )
    rows, bad = sum(done.written for done in everything), sum(done.bad for done in everything)
    require_input(job, open_data(job.plan.data, job.plan.out))  # files that came meanwhile, too
    if not rows + bad:
        raise UsageError(f"{job.data.name} holds no rows")
    _write_record(job, {"rows": rows, "bad": bad, "parts": len(everything)})
    return Mapped(
        job.plan.out,
        rows,
        bad,
        sum(done.part.rows for done in before),
        len(everything),
        sum(done.tokens for done in made),
        seconds,
        sum(done.tokenizing for done in made),
        tuple(job.plan.out / parts.BAD.format(done.part.number) for done in everything if done.bad),
    )


# Where it goes ---------------------------------------------------------------------------------------------------


def _followed(out: Path) -> Path:
    """The folder that a link leads to. Raises UsageError: it leads to nothing."""
    if not out.is_symlink():
        return out
    if not out.is_dir():
        raise UsageError(f"{out} is a link, and {out.resolve()} is no folder; make it, or choose another with --output")
    return out.resolve()


@contextmanager
def _place(job: Job) -> Iterator[None]:
    """The folder of the parts, which nobody else writes into meanwhile. Raises UsageError, StorageError."""
    out = job.plan.out
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, and the parts go into a folder; choose another name with --output")
    if out.is_dir() and (out.samefile(job.data.root) or any(path.parent.samefile(out) for path in job.data.files)):
        raise UsageError(f"{out} is where the input lies; choose another folder with --output")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = locks.take(out)
    except OSError as error:
        raise StorageError(
            f"cannot write {out}: {error.strerror or first_line(error)}; make room or choose another folder with --output"
        ) from error
    if lock is None:
        raise UsageError(f"{out} is in use by another run of onnxfuse; wait until it has ended")
    try:
        begun = _is_begun(job)
        parts.remove_unfinished(out)
        if not begun:
            _write_record(job, None)
        yield
    finally:
        with suppress(OSError):  # the next run removes them, too
            parts.remove_unfinished(out)  # of actors that were killed meanwhile
        lock.release()


def _is_begun(job: Job) -> bool:
    """Whether the folder was begun with this job; not where it is new, or holds no part yet.

    Raises:
        UsageError: it holds something else, or parts of another job.
    """
    out = job.plan.out
    if not (out / RECORD).is_file():
        if other := next((path.name for path in sorted(out.iterdir()) if not path.name.startswith(parts.UNFINISHED)), None):
            raise UsageError(f"{out} holds {other}, and no {RECORD} of map; choose a new folder with --output")
        return False
    try:
        known = files.read_object(out / RECORD).get("facts")
    except ModelError as error:
        raise UsageError(f"{out / RECORD}, map's own record, cannot be read; choose a new folder with --output") from error
    known = known if isinstance(known, dict) else {}
    if known != job.facts and next(out.glob("part-*"), None) is None:
        return False  # what began there came to nothing
    for name, fact in job.facts.items():
        if known.get(name) != fact:
            raise UsageError(
                f"{out} was begun with {_told_apart(name, known.get(name), fact)}; choose a new folder with --output"
            )
    return True


def _told_apart(name: str, old: Any, new: Any) -> str:
    """What two facts differ in, for people."""
    if name == "input":
        return "other input: names, sizes or times of its files have changed"
    if isinstance(old, dict) and isinstance(new, dict):
        part = next(key for key in {**new, **old} if old.get(key) != new.get(key))
        if name == "model":
            return f"another model: {part} is not the same"
        return f"{part} {old.get(part)}, and this is {new.get(part)}"
    shown = name.replace("_", " ")
    return f"{shown} {_text(old)}, and this is {_text(new)}"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value or "none")


def _write_record(job: Job, done: Mapping[str, Any] | None) -> None:
    text = json.dumps({"facts": job.facts, "done": done}, indent=2, ensure_ascii=False)
    path = job.plan.out / RECORD
    try:
        if not path.is_file() or path.read_text(encoding="utf-8") != text + "\n":
            parts.save(text + "\n", path)
    except OSError as error:
        raise parts.unwritable(path, error) from error


# What is said meanwhile ------------------------------------------------------------------------------------------


@dataclass
class _Told:
    """Says how far a run is: of each part how many rows and tokens are done, and where the next row begins."""

    data: Data
    progress: Progress
    start: float = 0.0
    first: float = 0.0
    seen: dict[int, tuple[int, int, float]] = field(default_factory=dict)

    def begin(self) -> None:
        self.data.share(Place(0, 0, 0))  # how large the files are, while all are there
        self.start, self.first = time.monotonic(), sum(share for _, _, share in self.seen.values())

    def __call__(self, part: Part, rows: int, tokens: int, end: Place) -> None:
        self.seen[part.number] = rows, tokens, self.data.share(end) - self.data.share(part.begin)
        if not self.start:
            return
        rows, tokens, share = (sum(each) for each in zip(*self.seen.values(), strict=True))
        seconds = time.monotonic() - self.start
        left = seconds * (1 - share) / (share - self.first) if share > self.first else 0.0
        speed = f"{rows / seconds:,.0f} rows a second" + (f", {tokens / seconds:,.0f} tokens a second" if tokens else "")
        self.progress("mapping", min(share, 1.0), f"{rows:,} rows, {speed}, {left:,.0f} s left")
