"""What is mapped: files of one kind, and their rows cut into numbered parts that anybody can read by themselves."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from onnxfuse.bulk.rows import FORMATS, PATH, RECORD, Format, Read, Values
from onnxfuse.errors import StorageError, UsageError, first_line
from onnxfuse.io import door
from onnxfuse.io.files import PICTURES

KINDS = ".parquet, .jsonl, .csv, .tsv or .txt"

SIGNS = "*?["
"""What makes a path a pattern."""


@dataclass(frozen=True)
class Place:
    """Where a row begins.

    Args:
        file: the number of its file.
        at: where in it: see ``rows.Read``.
        row: its number among the rows of all files.
    """

    file: int
    at: int
    row: int


@dataclass(frozen=True)
class Part:
    """Rows that follow each other.

    Args:
        number: from 0, in their order.
        begin: its first row.
        rows: how many.
        end: the first row of the next.
    """

    number: int
    begin: Place
    rows: int
    end: Place


@dataclass(frozen=True)
class Row:
    """One row, by its number among all; ``wrong``: why it cannot be read."""

    number: int
    values: Values
    wrong: str


@dataclass(frozen=True)
class Data:
    """Files of one kind in the order of their names.

    Args:
        name: as they were asked for.
        root: the folder that their names are relative to.
        files: at least one.
    """

    name: str
    root: Path
    files: tuple[Path, ...]

    @property
    def format(self) -> Format:
        return FORMATS[self.files[0].suffix.lower()]

    @property
    def pictures(self) -> bool:
        return self.files[0].suffix.lower() in PICTURES

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Those of the first file that has any. Raises UsageError."""
        return next((columns for path in self.files if (columns := self.format.columns(path))), ())

    def holds(self, column: str) -> bool:
        """Whether any row has a column, where each has its own; all are read."""
        return self.format.free and any(column in row.values for row, _ in self.rows(Place(0, 0, 0), (column,)))

    @cached_property
    def types(self) -> dict[str, Any]:
        """Of the columns whose type the first file tells."""
        return dict(self.format.types(self.files[0]))

    @cached_property
    def extents(self) -> list[int]:
        return [_extent(self.format, path) for path in self.files]

    @cached_property
    def _before(self) -> list[int]:
        """What lies before each file, and all."""
        return [0, *itertools.accumulate(self.extents)]

    def share(self, place: Place) -> float:
        """How much of all lies before a place, 0 to 1."""
        return (self._before[place.file] + place.at) / (self._before[-1] or 1)

    def stamp(self) -> dict[str, Any]:
        """What tells whether these are still the files that they were: names, sizes and times. Raises StorageError."""
        digest = hashlib.sha256()
        for path in self.files:
            try:
                known = path.stat()
            except OSError as error:
                raise unreadable(path, error) from error
            digest.update(
                f"{path.relative_to(self.root)}\0{known.st_size}\0{known.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
        return {"files": len(self.files), "digest": digest.hexdigest()}

    def rows(self, begin: Place, wanted: Sequence[str]) -> Iterator[tuple[Row, Place]]:
        """Rows from a place on, each with the place of the next. Raises UsageError, StorageError: a file is broken, or gone."""
        number = begin.row
        for file in range(begin.file, len(self.files)):
            path = self.files[file]
            found = self.format.rows(path, begin.at if file == begin.file else 0, wanted)
            for after, values, wrong in _readable(path, found):
                if PATH in values and self.pictures:
                    values = {PATH: path.relative_to(self.root).as_posix()}
                number += 1
                yield Row(number - 1, values, wrong), Place(file, after, number)

    def parts(self, size: int, begin: Place = Place(0, 0, 0), number: int = 0) -> Iterator[Part]:
        """All rows from a place on, ``size`` in a part and fewer in the last, which is never empty. ``number``: the first's."""
        count = 0
        for end in self._ends(begin):
            count += 1
            if count == size:
                yield Part(number, begin, count, end)
                begin, count, number = end, 0, number + 1
        if count:
            yield Part(number, begin, count, end)

    def _ends(self, begin: Place) -> Iterator[Place]:
        """Where each row from a place on ends."""
        if not self.format.counted:
            yield from (end for _, end in self.rows(begin, ()))
            return
        number = begin.row
        for file in range(begin.file, len(self.files)):
            for at in range(begin.at if file == begin.file else 0, self.extents[file]):
                number += 1
                yield Place(file, at + 1, number)


def _readable(path: Path, rows: Iterator[Read]) -> Iterator[Read]:
    """The rows of a file. Raises StorageError: the system cannot read it."""
    try:
        yield from rows
    except OSError as error:
        raise unreadable(path, error) from error


def _extent(kind: Format, path: Path) -> int:
    """What the last place of a file is. Raises StorageError, and as the format does."""
    try:
        return kind.extent(path)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> StorageError:
    """What is said of a file of the input that the system cannot read, or that is gone."""
    why = os.strerror(error.errno) if error.errno else first_line(error)
    return StorageError(f"cannot read {path}: {why}; see that it is there and can be read, and run the same command again")


def open_data(given: str, out: Path | None = None) -> Data:
    """The files that a path or a pattern stands for; of a folder those in it and below, of one kind.

    Args:
        out: a folder of parts, none of which a pattern stands for.

    Raises:
        UsageError: there are none, they are of several kinds, or of one that is not read.
    """
    path = Path(given)
    if path.is_dir():
        root, found = path, _in(path)
    elif any(sign in given for sign in SIGNS) and not path.exists():
        ours = out.resolve() if out is not None and (out / RECORD).is_file() else None
        named = (Path(name) for name in glob.glob(given, recursive=True))
        found = sorted(each for each in named if each.is_file() and ours not in each.resolve().parents)
        root = Path(*path.parts[: next(at for at, part in enumerate(path.parts) if any(sign in part for sign in SIGNS))])
    else:
        root, found = path.parent, [door.require_regular(path)]
    if not found:
        raise UsageError(f"{given} holds no file; give {KINDS} files, a folder of images, or a pattern of such names")
    for each in found:
        if wrong := door.oddity(each):
            raise UsageError(f"{each} {wrong}; give {KINDS} files, or images")
    endings = sorted({each.suffix.lower() for each in found})
    if unknown := [ending for ending in endings if ending not in FORMATS]:
        raise UsageError(
            f"{given}: {unknown[0] or 'a file without an ending'} is no kind that is read; give {KINDS} files, or images"
        )
    if len({"images" if ending in PICTURES else ending for ending in endings}) > 1:
        raise UsageError(
            f"{given} holds files of several kinds ({', '.join(endings)}); take the others away, or give those of one, by a "
            f"pattern as '*{next(each for each in endings if each not in PICTURES)}'"
        )
    return Data(given, root, tuple(found))


def _in(folder: Path) -> list[Path]:
    """The files of a kind that is read, of a folder and those below, in the order of their names.

    Hidden ones and those that begin with _ are left out, folders that map itself writes into, and notes in folders of images.
    """
    found = [path for path in sorted(folder.rglob("*")) if not any(part[0] in "._" for part in path.relative_to(folder).parts)]
    kept = [path for path in found if path.suffix.lower() in FORMATS and not path.is_dir() and not _is_ours(path.parent, folder)]
    pictures = any(path.suffix.lower() in PICTURES for path in kept)
    return [path for path in kept if path.parent == folder or not pictures or path.suffix.lower() in PICTURES]


def _is_ours(place: Path, root: Path) -> bool:
    """Whether a folder, or one between it and the root, is one of parts."""
    between = (place, *(each for each in place.parents if each.is_relative_to(root)))
    return any((each / RECORD).is_file() for each in between if each != root)
