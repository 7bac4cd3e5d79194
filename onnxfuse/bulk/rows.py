"""Rows as files hold them, from any place in these on: what cannot be read is a row that says why, and the next is read.

Read are .csv and .tsv, .jsonl, .txt (a text a line), .parquet, and images, a row each.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxfuse.bulk.flaws import DEEP, is_torn
from onnxfuse.bulk.lines import CARRIAGE, TOO_LONG, begun, lines, records
from onnxfuse.errors import MissingExtraError, UsageError, first_line
from onnxfuse.io import door
from onnxfuse.io.files import PICTURES

TEXT = "text"
"""The column of files that have no names of columns."""

RECORD = "_onnxfuse.json"
"""What a folder of parts says of its job."""

PATH = "path"
"""The column of images: where they lie."""

Values = Mapping[str, Any]

Read = tuple[int, Values, str]
"""Where the next row begins, this one's values by column, and why it cannot be read ("" where it can)."""


@dataclass(frozen=True)
class Format:
    """How files of one kind are read.

    Args:
        columns: of a file, by name. Raises UsageError for a file that is not of this kind.
        rows: those of a file from a place on, which is 0 for its begin; of the columns that are named, or more.
        extent: what the last place of a file is.
        types: of columns as pyarrow knows them, where the file tells; others are texts.
        counted: whether places are the numbers of rows.
        free: whether each row has columns of its own, so that others than ``columns`` may come.
    """

    columns: Callable[[Path], tuple[str, ...]]
    rows: Callable[[Path, int, Sequence[str]], Iterator[Read]]
    extent: Callable[[Path], int] = lambda path: path.stat().st_size
    types: Callable[[Path], Mapping[str, Any]] = lambda path: {}
    counted: bool = False
    free: bool = False


# Lines -----------------------------------------------------------------------------------------------------------


def _text(line: bytes) -> tuple[str, str]:
    """A line's text, and why it is none."""
    try:
        return line.decode().rstrip("\r\n"), ""
    except UnicodeDecodeError as error:
        return "", f"is not UTF-8 (byte {error.start + 1} of its line)"


def _texts(path: Path, at: int, wanted: Sequence[str]) -> Iterator[Read]:
    with begun(path, at) as file:
        for after, line in lines(file):
            text, wrong = _text(line) if line is not None else ("", TOO_LONG)
            yield after, {TEXT: text}, wrong


def _objects(path: Path, at: int, wanted: Sequence[str]) -> Iterator[Read]:
    with begun(path, at) as file:
        for after, line in lines(file):
            if line is not None and not line.strip():
                continue
            yield after, *_object(line)


def _object(line: bytes | None) -> tuple[Values, str]:
    if line is None:
        return {}, TOO_LONG
    text, wrong = _text(line)
    if wrong:
        return {}, wrong
    try:
        value = json.loads(text)
    except RecursionError:
        return {}, DEEP
    except json.JSONDecodeError:
        return {}, "is not JSON"
    except ValueError:  # Python's own limit
        return {}, f"holds a number of more than {sys.get_int_max_str_digits()} digits"
    return (value, "") if isinstance(value, dict) else ({}, f"is a JSON {type(value).__name__}, wanted an object")


def _keys(path: Path) -> tuple[str, ...]:
    """Those of the first ``BATCH`` rows, in the order in which they come."""
    found = (values for _, values, wrong in itertools.islice(_objects(path, 0, ()), BATCH) if not wrong)
    return tuple(dict.fromkeys(key for values in found for key in values if not is_torn(key)))


# Tables ----------------------------------------------------------------------------------------------------------


def _table(delimiter: str, quoting: Any) -> Format:
    def columns(path: Path) -> tuple[str, ...]:
        found = records(path, 0, delimiter, quoting)
        names, wrong = next(((tuple(fields), wrong) for _, fields, wrong in found if fields or wrong), ((), ""))
        if wrong:
            raise UsageError(f"{path}: its first line {wrong}; {next(way for sign, way in WAYS.items() if sign in wrong)}")
        if any(map(is_torn, names)):
            raise UsageError(f"{path}: its first line is not UTF-8; save the file as UTF-8")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"{path} has two columns of one name ({twice or 'an empty one'}); correct its first line")
        return names

    def rows(path: Path, at: int, wanted: Sequence[str]) -> Iterator[Read]:
        names, headed = columns(path), at > 0
        for after, fields, wrong in records(path, at, delimiter, quoting):
            if not wrong and not fields:
                continue
            if not headed:  # the line of names
                headed = True
                continue
            if not wrong and len(fields) != len(names):
                wrong = f"has {len(fields)} columns, the first line {len(names)}"
            elif any(map(is_torn, fields)):
                wrong = "is not UTF-8"
            yield after, dict(zip(names, fields, strict=False)), wrong

    return Format(columns, rows)


WAYS = {
    CARRIAGE: "end its lines with line feeds",
    TOO_LONG: "it is to hold the names of the columns",
    "": "close the quote, or save the file as .tsv, where quotes are letters",
}
"""What helps where the first line cannot be split, by a part of the reason."""


# Parquet ---------------------------------------------------------------------------------------------------------

BATCH = 1024
"""Rows that are read at a time."""


def _parquet(path: Path) -> Any:
    """Raises MissingExtraError, UsageError."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError(f"reading {path}", "map") from error
    with path.open("rb"), door.reading(path, "a .parquet file", UsageError, "write it again"):  # not there: OSError
        return parquet.ParquetFile(path)


def _named(path: Path) -> tuple[str, ...]:
    with _parquet(path) as file:
        names = tuple(file.schema_arrow.names)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{path} has two columns of one name ({twice or 'an empty one'}); call one of them otherwise")
    return names


def _kinds(path: Path) -> Mapping[str, Any]:
    with _parquet(path) as file:
        return {field.name: field.type for field in file.schema_arrow}


def _count(path: Path) -> int:
    with _parquet(path) as file:
        return int(file.metadata.num_rows)


def _records(path: Path, at: int, wanted: Sequence[str]) -> Iterator[Read]:
    with _parquet(path) as file:
        start, groups = 0, list[int]()
        for number in range(file.metadata.num_row_groups):
            size = file.metadata.row_group(number).num_rows
            if start + size <= at:
                start += size
            else:
                groups.append(number)
        place = start
        with door.reading(path, "a .parquet file", UsageError, "write it again"):
            for batch in file.iter_batches(BATCH, row_groups=groups, columns=list(dict.fromkeys(wanted)), use_threads=False):
                skipped = min(max(0, at - place), batch.num_rows)
                place += skipped
                for row in range(skipped, batch.num_rows):
                    place += 1
                    yield place, *_values(batch, row)


def _values(batch: Any, row: int) -> tuple[Values, str]:
    try:
        return {name: batch.column(at)[row].as_py() for at, name in enumerate(batch.schema.names)}, ""
    except UnicodeDecodeError:
        return {}, "is not UTF-8"
    except (ValueError, OverflowError) as error:  # a nanosecond, a year 10,000
        return {}, f"holds a value that Python has not ({first_line(error)})"


# Images ----------------------------------------------------------------------------------------------------------


def _picture(path: Path, at: int, wanted: Sequence[str]) -> Iterator[Read]:
    if at == 0:
        yield 1, {PATH: str(path)}, ""


IMAGE = Format(lambda path: (PATH,), _picture, lambda path: 1, counted=True)

FORMATS: Mapping[str, Format] = {
    ".csv": _table(",", csv.QUOTE_MINIMAL),
    ".tsv": _table("\t", csv.QUOTE_NONE),
    ".jsonl": Format(_keys, _objects, free=True),
    ".txt": Format(lambda path: (TEXT,), _texts),
    ".parquet": Format(_named, _records, _count, _kinds, counted=True),
    **dict.fromkeys(PICTURES, IMAGE),
}
"""By the ending of a file's name, in small letters."""
