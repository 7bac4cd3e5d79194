"""The columns of a data set as its files hold them, whoever wrote these: read through the door, bounded, without running code.

What a folder, or a file in it, names must lie inside that folder; files that the user names himself may lie anywhere.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.errors import MissingExtraError, UsageError
from onnxfuse.io import door
from onnxfuse.io.quiet import quiet

Columns = dict[str, Any]

TEXT_BYTES = 256 << 20
"""Of one .txt, .csv or .jsonl file: Python's objects take several times as much; .npy files are mapped, whatever their size."""

CSV_COLUMNS = 1024
"""More than any model has inputs; each is a list of its own."""

INFO, STATE, SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"
"""Files of a folder that the ``datasets`` library saved; the last where it holds folders of such."""

AGAIN = "save it again"
KINDS = "a folder of .npy files, or an .npz, .txt, .csv or .jsonl file"


def read_columns(path: Path) -> Columns:
    """Every column of a source, as an array or a list.

    Raises:
        UsageError: nothing is there, it cannot be read as data, it is too large, or it leads out of its folder.
        MissingExtraError: it needs the ``datasets`` library, which is not installed.
    """
    if path.is_dir():
        return _folder(path)
    if wrong := door.oddity(path):
        raise UsageError(f"{path} {wrong}; give {KINDS}")
    if path.suffix == ".npz":
        return _archive(path)
    readers = {".txt": _texts, ".csv": _table, ".jsonl": _objects}
    if path.suffix not in readers:
        raise UsageError(f"{path}: wanted {KINDS}")
    if (size := path.stat().st_size) > TEXT_BYTES:
        raise UsageError(f"{path} has {size >> 20} MiB of text, at most {TEXT_BYTES >> 20} are read; give .npy files")
    with door.reading(path, "data", UsageError, AGAIN):
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin with a mark of their own
    return readers[path.suffix](path, text)


def is_arrays(path: Path) -> bool:
    """Whether a source is a model's own inputs, as arrays."""
    return path.suffix == ".npz" or (path.is_dir() and any(path.glob("*.npy")))


def _folder(path: Path) -> Columns:
    if (path / INFO).exists():
        return _saved(path)
    if (path / SPLITS).exists():
        raise UsageError(f"{path} holds splits; give the folder of one")
    columns: Columns = {}
    for file in sorted(path.glob("*.npy")):
        real = door.within(file, path, UsageError)
        with door.reading(file, "an array", UsageError, AGAIN), quiet():  # numpy warns of sizes before it refuses them
            columns[file.stem] = np.load(real, mmap_mode="r", allow_pickle=False)
    return _arrays(path, columns)


def _archive(path: Path) -> Columns:
    door.require_unpackable(path, UsageError)
    with door.reading(path, "data", UsageError, AGAIN), quiet(), np.load(path, allow_pickle=False) as archive:
        return _arrays(path, {name: archive[name] for name in archive.files})


def _arrays(path: Path, columns: Columns) -> Columns:
    """Raises UsageError where one is none: an archive inside, say."""
    for name, column in columns.items():
        if not isinstance(column, np.ndarray):
            raise UsageError(f"{path}: {name} is no array; {AGAIN}")
    return columns


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]  # not splitlines, which also splits at U+2028 and the like


TAG = re.compile(r"O|[BIES]-\S+")


def is_tagged(lines: Iterable[str]) -> bool:
    """Whether lines of text are words with tags, as CoNLL writes them: a word on a line, its tag last."""
    fields = [line.split() for line in lines if line.strip() and not line.startswith("-DOCSTART-")]
    return bool(fields) and all(len(each) >= 2 and TAG.fullmatch(each[-1]) for each in fields)


def _texts(path: Path, text: str) -> Columns:
    lines = _lines(text)
    if is_tagged(lines[:100]):
        raise UsageError(f"{path} holds words with tags (CoNLL), wanted a text on each line; write each sentence on one")
    return {"text": lines}


def _table(path: Path, text: str) -> Columns:
    with door.reading(path, "data", UsageError, AGAIN), _long_fields():
        reader = csv.reader(io.StringIO(text), strict=True)
        names = next(reader, [])
        if len(names) > CSV_COLUMNS:
            raise UsageError(f"{path} has {len(names)} columns, at most {CSV_COLUMNS} are read; {AGAIN}")
        if len(set(names)) < len(names):
            raise UsageError(f"{path} has two columns of one name; {AGAIN}")
        rows = [row for row in reader if row]
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise UsageError(f"{path}: row {number + 1} has {len(row)} fields, the first line names {len(names)}; {AGAIN}")
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Inside, a field may be as long as a file: documents are. The limit of Python's own is for the whole process."""
    before = csv.field_size_limit(TEXT_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _objects(path: Path, text: str) -> Columns:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_lines(text)):
        row = door.parse_json(line, f"{path}, line {number + 1}", UsageError)
        if not isinstance(row, dict):
            raise UsageError(f"{path}, line {number + 1}: a JSON {type(row).__name__}, wanted an object: {{...}}")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row[name] for row in rows if name in row] for name in names}


def _saved(path: Path) -> Columns:
    """A folder that the ``datasets`` library saved: its state may name files anywhere, and that library would open them."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("reading a folder of the datasets library", "eval") from error
    for name in (INFO, STATE):
        door.read_json(door.within(path / name, path, UsageError), UsageError)
    for named in _parts(path):
        door.within(path / named, path, UsageError)
    with door.reading(path, "a folder of the datasets library", UsageError, AGAIN):
        return dict(datasets.Dataset.load_from_disk(str(path)).to_dict())


def _parts(path: Path) -> Sequence[str]:
    """The names of the files that a saved state says its rows are in. Raises UsageError."""
    state = door.read_json(path / STATE, UsageError)
    parts = state.get("_data_files") if isinstance(state, dict) else None
    names = [part.get("filename") if isinstance(part, dict) else None for part in parts] if isinstance(parts, list) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{path}: {STATE} names no files of data; {AGAIN}")
    return [str(name) for name in names]
