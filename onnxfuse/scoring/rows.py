"""Rows of a data set as its files hold them, a few at a time, so that memory does not grow with their number.

Read are .csv and .tsv files, .jsonl and .json (records, or questions as SQuAD writes them), .parquet and .arrow files and folders
that the ``datasets`` library saved, words with tags in CoNLL's form (.conll, .txt), folders of images by class, and data sets of
the hub.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxfuse.errors import UsageError, one_line
from onnxfuse.evaluation.columns import INFO, SPLITS, TAG, is_tagged
from onnxfuse.io import door
from onnxfuse.io.files import PICTURES
from onnxfuse.scoring import library
from onnxfuse.scoring.source import SAVE, Row, Source

FIELD = 16 << 20
"""Characters of one field of a table: documents are long. The limit of Python's own is 128 KiB."""

JSON_BYTES = 1 << 30
"""Of one .json file, which is read whole: those of SQuAD have 40 MB."""

WORDS, TAGS = "tokens", "tags"
"""The columns of words with tags, as ``datasets`` calls them."""

IMAGE, LABEL = "image", "label"

COLA = ("source", "label", "mark", "sentence")
"""The columns of CoLA's files, which have no line of names."""


def open_source(data: str, split: str = "") -> Source:
    """The data set in a file or folder, or on the hub (``glue:mrpc``: a name, and what it calls a configuration).

    Args:
        split: which one, of a data set of the hub, or of a folder of several; of the hub validation where it is not told.

    Raises:
        UsageError: nothing is there, it is empty, or in no form that is read.
        MissingExtraError: reading it needs the ``datasets`` library.
    """
    path = Path(data)
    if split and path.exists():
        path = _split(path, split)
    if path.is_dir():
        found = library.saved(path) if (path / INFO).exists() else _pictures(path)
    elif path.exists() or path.suffix in READERS:
        if wrong := door.oddity(path):
            raise UsageError(f"{data} {wrong}; {SAVE}")
        if path.suffix not in READERS:
            raise UsageError(f"{data} is in no form that is read; {SAVE}")
        found = READERS[path.suffix](path)
    else:
        found = library.of_hub(data, split)
    if found.count == 0 or next(iter(found.read()), None) is None:
        raise UsageError(f"{data} holds no samples")
    return found


def _split(path: Path, split: str) -> Path:
    """A folder in one that holds splits. Raises UsageError: there is none of that name, or the data have no splits."""
    there = sorted(each.parent.name for each in path.glob(f"*/{INFO}")) if (path / SPLITS).exists() else []
    if split not in there:
        raise UsageError(
            f"{path} has no split {split!r}; " + (f"choose one of {', '.join(there)}" if there else "leave --split out")
        )
    return path / split


# Tables ----------------------------------------------------------------------------------------------------------


def _csv(path: Path) -> Source:
    return _table(path, delimiter=",", strict=True)


def _tsv(path: Path) -> Source:
    """As GLUE publishes them: quotes are letters there."""
    return _table(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _table(path: Path, **form: Any) -> Source:
    with _read(path), path.open(encoding="utf-8-sig", newline="") as file:
        first = next(csv.reader(file, **form), [])
    headless = len(first) == len(COLA) and first[1] in ("0", "1") and first[2] in ("", "*")
    names = COLA if headless else tuple(first)
    if len(set(names)) < len(names):
        raise UsageError(f"{path} has two columns of one name; {SAVE}")

    def rows() -> Iterator[Row]:
        with _read(path), path.open(encoding="utf-8-sig", newline="") as file:
            for number, fields in enumerate(csv.reader(file, **form), 1):
                if not fields or (number == 1 and not headless):
                    continue
                if len(fields) != len(names):
                    raise UsageError(f"{path}, line {number}: {len(fields)} fields, the first has {len(names)}; correct it")
                yield dict(zip(names, fields, strict=True))

    return Source(str(path), names, rows, sum(1 for _ in rows()))


@contextmanager
def _read(path: Path) -> Iterator[None]:
    before = csv.field_size_limit(FIELD)
    try:
        with door.reading(path, "a table", UsageError, SAVE):
            yield
    finally:
        csv.field_size_limit(before)


# JSON ------------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Source:
    def rows() -> Iterator[Row]:
        with door.reading(path, "JSON lines", UsageError, SAVE), path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _object(door.parse_json(line, f"{path}, line {number}", UsageError), f"{path}, line {number}")

    return Source(str(path), tuple(next(rows(), {})), rows, sum(1 for _ in rows()))


def _json(path: Path) -> Source:
    """Records, as a list or under ``data``; or questions about paragraphs, as SQuAD writes them."""
    if (size := path.stat().st_size) > JSON_BYTES:
        raise UsageError(f"{path} has {size >> 20} MiB, at most {JSON_BYTES >> 20} of one .json file are read; {SAVE}")
    content = door.parse_json(path.read_bytes(), path, UsageError)
    content = content.get("data", content) if isinstance(content, dict) else content
    if not isinstance(content, list):
        raise UsageError(f"{path} holds a JSON {type(content).__name__}, wanted a list of objects, or one under data; {SAVE}")
    squad = any(isinstance(each, dict) and "paragraphs" in each for each in content)
    found = list(_questions(path, content)) if squad else [_object(each, f"{path}, {at}") for at, each in enumerate(content, 1)]
    return Source(str(path), tuple(found[0]) if found else (), lambda: iter(found), len(found))


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: a JSON {type(value).__name__}, wanted an object: {{...}}")
    return value


def _questions(path: Path, articles: Sequence[Any]) -> Iterator[Row]:
    """Source: the SQuAD 1.1 and 2.0 files (data, paragraphs, qas; is_impossible)."""
    try:
        for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
            for asked in paragraph["qas"]:
                answers = [] if asked.get("is_impossible") else asked["answers"]
                texts = {"text": [each["text"] for each in answers], "answer_start": [each["answer_start"] for each in answers]}
                yield {"id": asked["id"], "question": asked["question"], "context": paragraph["context"], "answers": texts}
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not as SQuAD writes it: {one_line(error)} is missing or odd; correct it") from error


# Words with tags -------------------------------------------------------------------------------------------------


def _words(path: Path) -> Source:
    with door.reading(path, "text", UsageError, SAVE), path.open(encoding="utf-8-sig") as file:
        begin = list(itertools.islice(file, 100))
    if path.suffix == ".txt" and begin and not is_tagged(begin):
        raise UsageError(f"{path} holds texts without labels, wanted words with tags, one a line (CoNLL); {SAVE}")

    def rows() -> Iterator[Row]:
        words, tags = list[str](), list[str]()
        with door.reading(path, "words with tags", UsageError, SAVE), path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(itertools.chain(file, ["\n"]), 1):
                fields = line.split()
                if fields and fields[0] != "-DOCSTART-":
                    if len(fields) < 2 or not TAG.fullmatch(fields[-1]):
                        raise UsageError(
                            f"{path}, line {number}: {line.strip()!r:.60} does not end with a tag (O, B-KIND, I-KIND)"
                        )
                    words.append(fields[0])
                    tags.append(fields[-1])
                elif words:
                    yield {WORDS: words, TAGS: tags}
                    words, tags = [], []

    return Source(str(path), (WORDS, TAGS), rows, sum(1 for _ in rows()))


# Images ----------------------------------------------------------------------------------------------------------


def _pictures(path: Path) -> Source:
    """A folder of images for each class."""
    if (path / SPLITS).exists():
        raise UsageError(f"{path} holds splits; give the folder of one, or --split")
    files = sorted(file for file in path.glob("*/*") if file.suffix.lower() in PICTURES)
    if not files:
        raise UsageError(f"{path} holds no images in folders of classes (CLASS/NAME.png), and no data set that is known; {SAVE}")

    def rows() -> Iterator[Row]:
        for file in files:
            yield {IMAGE: door.within(file, path, UsageError), LABEL: file.parent.name}

    return Source(str(path), (IMAGE, LABEL), rows, len(files))


READERS: Mapping[str, Callable[[Path], Source]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _lines,
    ".json": _json,
    ".conll": _words,
    ".txt": _words,
    ".parquet": library.packed,
    ".arrow": library.packed,
}
