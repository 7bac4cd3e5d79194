"""Real inputs from files: what accuracy is measured on, and activations are calibrated with.

A data set is columns of equal length: the model's inputs, and perhaps ``labels`` (``label``). Where ``text`` (``sentence``)
stands in place of inputs, the tokenizer beside the model makes them. Read are

    a folder of .npy files, one a column (memory-mapped)     an .npz archive         a .txt file, a text on each line
    a .csv or .jsonl file with named columns                 a folder that the ``datasets`` library saved
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.architecture import MASK
from onnxfuse.errors import MissingExtraError, UsageError
from onnxfuse.evaluate.embeddings import Tokenize
from onnxfuse.runtime import Feeds

TEXT, LABELS = ("text", "sentence"), ("labels", "label")
Columns = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """Inputs by name, each [n, ...], and the class of each sample [n], where they are known. ``name`` is for messages."""

    name: str
    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def first(self, count: int) -> Dataset:
        """The first ``count`` samples."""
        return Dataset(self.name, {name: array[:count] for name, array in self.inputs.items()},
                       None if self.labels is None else self.labels[:count])

    def batches(self, size: int) -> Iterator[Feeds]:
        """Feeds of up to ``size`` samples, in order. Columns that are padding in the whole batch are cut off."""
        for at in range(0, len(self), size):
            feeds = {name: np.array(array[at:at + size]) for name, array in self.inputs.items()}
            if MASK in feeds:
                longest = int(np.max(np.nonzero(feeds[MASK].any(axis=0))[0], initial=0)) + 1
                feeds = {name: array[:, :longest] for name, array in feeds.items()}
            yield feeds


def read(path: Path, inputs: Mapping[str, np.dtype], tokenize: Callable[[], Tokenize] | None = None) -> Dataset:
    """The data set in a file or folder, for a model with these inputs.

    Args:
        tokenize: gives the tokenizer that turns texts into inputs, when there are texts; None where the model has none.

    Raises:
        UsageError: there is none, it is empty, a column is missing or of another kind, or columns differ in length.
        MissingExtraError: reading it needs a library that is not installed.
    """
    columns = _columns(path)
    labels = next((columns[name] for name in LABELS if name in columns), None)
    texts = next((columns[name] for name in TEXT if name in columns), None)
    kept = {name: columns[name] for name in inputs if name in columns}
    counts = {name: len(column) for name, column in columns.items()}
    if not counts or not any(counts.values()):
        raise UsageError(f"{path} holds no samples")
    if len(set(counts.values())) > 1:
        raise UsageError(f"{path} holds different numbers of samples: {', '.join(f'{n} {c}' for n, c in counts.items())}")
    if len(kept) < len(inputs) and texts is not None:
        if tokenize is None:
            raise UsageError(f"{path} holds texts, and there is no tokenizer beside the model; give {', '.join(inputs)}")
        kept = tokenize()([str(text) for text in texts])
    if missing := sorted(set(inputs) - set(kept)):
        raise UsageError(f"{path} has no column {', '.join(missing)}; it holds {', '.join(columns)}")
    arrays = {name: _numbers(path, name, kept[name], dtype) for name, dtype in inputs.items()}
    return Dataset(str(path), arrays, None if labels is None else _numbers(path, "labels", labels, np.dtype(np.int64)))


def _columns(path: Path) -> Columns:
    """Every column of a source, as an array or a list."""
    if not path.exists():
        raise UsageError(f"{path} is not there; give a folder of .npy files, or an .npz, .txt, .csv or .jsonl file")
    try:
        if path.is_dir():
            saved = (path / "dataset_info.json").is_file()
            return _saved(path) if saved else {file.stem: np.load(file, mmap_mode="r", allow_pickle=False)
                                               for file in sorted(path.glob("*.npy"))}
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        lines = path.read_text(encoding="utf-8").splitlines()
        if path.suffix == ".txt":
            return {"text": [line for line in lines if line.strip()]}
        if path.suffix == ".csv":
            return _transposed(list(csv.DictReader(lines)))
        if path.suffix == ".jsonl":
            return _transposed([dict(json.loads(line)) for line in lines if line.strip()])
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read as data ({error})") from error
    raise UsageError(f"{path}: wanted a folder of .npy files, or an .npz, .txt, .csv or .jsonl file")


def _transposed(rows: list[dict[str, Any]]) -> Columns:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row[name] for row in rows if name in row] for name in names}


def _saved(path: Path) -> Columns:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("reading a folder of the datasets library", "eval") from error
    table = datasets.load_from_disk(str(path))
    if isinstance(table, datasets.DatasetDict):
        raise UsageError(f"{path} holds the splits {', '.join(table)}; give the folder of one")
    return dict(table.to_dict())


def _numbers(path: Path, name: str, column: Any, dtype: np.dtype) -> np.ndarray:
    try:
        array = column if isinstance(column, np.ndarray) else np.asarray(column)
    except ValueError as error:
        raise UsageError(f"{path}: the rows of {name} differ in length; pad them, and give an attention_mask") from error
    if array.dtype.kind not in ("iub" if dtype.kind in "iub" else "iubf") and not (name == "labels" and _whole(array)):
        raise UsageError(f"{path}: {name} is {array.dtype}, wanted {dtype}")
    return array if array.dtype == dtype else array.astype(dtype)


def _whole(array: np.ndarray) -> bool:
    """Whether texts are whole numbers, as labels in a .csv file are."""
    return array.dtype.kind == "U" and all(text.isdigit() for text in array.tolist())
