"""Parts as files: whole or not there, and each says of which job it is and which rows it holds.

A part is ``part-000012.parquet``. Its bad rows are in ``_bad-000012.jsonl`` (readers of folders pass over names that begin so),
which takes its place first: once the part is there, both are. What is being written has a name of its own, so that several that
write the same part, after a lost connection say, cannot disturb each other; they write the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.bulk.data import Part, Place
from onnxfuse.bulk.flaws import DEEP
from onnxfuse.bulk.job import ID, Job
from onnxfuse.bulk.use import Columns
from onnxfuse.errors import MissingExtraError, StorageError, UsageError, first_line

NAME, BAD = "part-{:06d}.parquet", "_bad-{:06d}.jsonl"

UNFINISHED = ".onnxfuse-part-"
"""How names of files begin that are being written."""

KEY = b"onnxfuse"
"""Of a part's metadata."""

KEPT = "the parts that are done are kept, and the same command goes on"


@dataclass(frozen=True)
class Bad:
    """A row without an answer: its number among all rows, its id, and why."""

    row: int
    id: Any
    reason: str


@dataclass(frozen=True)
class Done:
    """A part that is written.

    Args:
        written, bad: rows with an answer and without; together all of the part.
        tokens: real ones; 0 where there are no texts.
        tokenizing: seconds that reading and tokenizing took, beside the model.
        seconds: that the whole took; both 0 of a part that was there.
    """

    part: Part
    written: int
    bad: int
    tokens: int
    tokenizing: float = 0.0
    seconds: float = 0.0


def library() -> Any:
    """Raises MissingExtraError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("writing .parquet files", "map") from error
    return pyarrow


def found(job: Job) -> dict[int, Done]:
    """The parts of a job that are there, by number; another job's are none."""
    numbers = (path.stem.removeprefix("part-") for path in job.plan.out.glob("part-*.parquet"))
    known = (found_one(job, int(number)) for number in numbers if number.isascii() and number.isdigit())
    return {done.part.number: done for done in known if done is not None}


def found_one(job: Job, number: int) -> Done | None:
    """A part of a job that is there with its bad rows; else None."""
    path = job.plan.out / NAME.format(number)
    said = _read(path) if path.is_file() else {}
    if said.get("job") != job.key or said["number"] != number:
        return None
    if said["bad"] and not _holds(job.plan.out / BAD.format(number), said["bad"]):
        return None
    part = Part(number, Place(**said["begin"]), said["rows"], Place(**said["end"]))
    return Done(part, said["written"], said["bad"], said["tokens"])


def _holds(path: Path, count: int) -> bool:
    """Whether a side file is there with so many rows."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return sum(1 for _ in file) == count


def _read(path: Path) -> dict[str, Any]:
    """What a part says of itself; empty where it is none."""
    arrow = library()
    try:
        return dict(json.loads((arrow.parquet.read_metadata(path).metadata or {})[KEY]))
    except (OSError, ValueError, KeyError, arrow.ArrowException):
        return {}


def remove_unfinished(out: Path) -> None:
    """What killed runs left."""
    for path in out.glob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


def first_bad(path: Path) -> Bad:
    """The first row of a side file."""
    with path.open(encoding="utf-8") as file:
        return Bad(**json.loads(file.readline()))


# Writing ---------------------------------------------------------------------------------------------------------


class Writer:
    """Writes one part, some rows at a time."""

    def __init__(self, job: Job, part: Part, schema: Any, folder: Path, names: Sequence[str]) -> None:
        self.job, self.part, self.schema = job, part, schema
        self.written = self.bad = self.tokens = 0
        self._places = [folder / f"{UNFINISHED}{uuid.uuid4().hex}-{name}" for name in names]
        self._files = contextlib.ExitStack()
        self._table: Any = None

    def open(self) -> None:
        """Raises OSError."""
        texts = [field.name for field in self.schema if str(field.type) in ("string", "large_string")]
        stream = self._files.enter_context(self._places[0].open("wb"))
        self._table = library().parquet.ParquetWriter(stream, self.schema, compression="zstd", use_dictionary=texts)
        self._bad = self._files.enter_context(self._places[1].open("w", encoding="utf-8"))

    def add(self, columns: Columns, rows: Mapping[str, Sequence[Any]], tokens: int) -> None:
        """Rows with their answers. ``rows``: their ids and what is kept of them, by column.

        Raises:
            UsageError: a value is none of its column's type.
        """
        arrow = library()
        given = {**rows, **columns}
        arrays = []
        for field in self.schema:
            try:
                arrays.append(_array(arrow, given[field.name], field.type))
            except (arrow.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise self._refused(field, error) from error
        self._table.write_table(arrow.Table.from_arrays(arrays, schema=self.schema), row_group_size=1 << 20)
        self.written, self.tokens = self.written + len(arrays[0]), self.tokens + tokens

    def _refused(self, field: Any, error: Exception) -> UsageError:
        """What is said of a value that a column's type has not."""
        plan = self.job.plan
        column = plan.id if field.name == ID and plan.id else field.name
        return UsageError(
            f"{self.job.data.name}: column {column} holds what {field.type} has not ({first_line(error)}); "
            "write all of it with one type"
        )

    def add_bad(self, rows: Sequence[Bad]) -> None:
        for row in rows:
            said = {"row": row.row, "id": row.id, "reason": row.reason}
            try:
                line = json.dumps(said, ensure_ascii=True, default=str)
            except RecursionError:
                line = json.dumps(said | {"id": f"its id {DEEP}"})
            self._bad.write(f"{line}\n")
        self.bad += len(rows)

    def finish(self) -> None:
        """Both files take their places, the part last. Raises OSError."""
        said = {
            "job": self.job.key,
            "number": self.part.number,
            "begin": asdict(self.part.begin),
            "rows": self.part.rows,
            "end": asdict(self.part.end),
            "written": self.written,
            "bad": self.bad,
            "tokens": self.tokens,
        }
        self._table.add_key_value_metadata({KEY.decode(): json.dumps(said)})
        self._table.close()
        self._files.close()
        out, number = self.job.plan.out, self.part.number
        if self.bad:
            _place(self._places[1], out / BAD.format(number))
        else:
            (out / BAD.format(number)).unlink(missing_ok=True)  # of another job, whose part was taken away
        _place(self._places[0], out / NAME.format(number))

    def close(self) -> None:
        """Removes what has not taken its place."""
        with contextlib.suppress(OSError, ValueError, library().ArrowException):
            if self._table is not None:
                self._table.close()
        with contextlib.suppress(OSError):
            self._files.close()
        for path in self._places:
            path.unlink(missing_ok=True)


def _array(arrow: Any, values: Any, kind: Any) -> Any:
    """A column as pyarrow has it: rows of an array [rows,D] as lists of one length."""
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = arrow.array(np.ascontiguousarray(values, np.float32).reshape(-1))
        return arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return arrow.array(values, kind)


def _place(staged: Path, path: Path) -> None:
    """A file that is whole takes its place, on the disk itself."""
    _sync(staged)
    os.replace(staged, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing(job: Job, part: Part, schema: Any) -> Iterator[Writer]:
    """A writer, whose files take their places when the block ends well, and vanish when it does not. Raises StorageError."""
    names = (NAME.format(part.number), BAD.format(part.number))
    writer = Writer(job, part, schema, job.plan.out, names)
    try:
        writer.open()
        yield writer
        writer.finish()
    except OSError as error:
        raise unwritable(job.plan.out / names[0], error) from error
    finally:
        writer.close()


def save(text: str, path: Path) -> None:
    """A text file as a whole, or not at all. Raises StorageError."""
    staged = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}-{path.name}")
    try:
        staged.write_text(text, encoding="utf-8")
        _place(staged, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        staged.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> StorageError:
    """What is said of a file that cannot be written."""
    why = os.strerror(error.errno) if error.errno else first_line(error)
    return StorageError(f"cannot write {path}: {why}; make room or choose another folder; {KEPT}")
