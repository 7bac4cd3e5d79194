"""Real inputs from files: what accuracy is measured on, and activations are calibrated with.

A data set is columns of equal length: the model's inputs, under its own names or Hugging Face's, and perhaps ``labels``
(``label``). Where ``text`` (``sentence``) stands in place of inputs, the tokenizer beside the model makes them. Read are

    a folder of .npy files, one a column (memory-mapped)     an .npz archive         a .txt file, a text on each line
    a .csv or .jsonl file with named columns                 a folder that the ``datasets`` library saved
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.architecture import IDS, MASK
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.evaluation.collate import Collator, Rows, Sizes
from onnxfuse.evaluation.columns import Columns, read_columns
from onnxfuse.evaluation.embeddings import Tokenize
from onnxfuse.runtime import Feeds

TEXT, LABELS = ("text", "sentence"), ("labels", "label")

MOST = 1 << 31
"""Classes have smaller numbers."""


@dataclass(frozen=True)
class Batch:
    """Feeds of one batch; which of their tokens are real, bool [rows, S], None where there are no tokens; and how many of their
    rows are samples, those behind filling a batch of a fixed size."""

    feeds: Feeds
    keep: np.ndarray | None
    rows: int


@dataclass(frozen=True)
class Dataset:
    """Samples: columns by name, each [n, ...], and the class of each sample [n], where they are known.

    Args:
        name: for messages.
        keep: which tokens are real, bool [n, S]; None reads it off the columns.
        collator: brings them into what the model takes; None gives the columns as they are.
        sizes: how they are batched; None as ``collator`` has it.
        notes: what was done to them that a user must know.
    """

    name: str
    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None
    keep: np.ndarray | None = None
    collator: Collator | None = None
    sizes: Sizes | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def first(self, count: int) -> Dataset:
        """The first ``count`` samples."""
        return replace(
            self,
            inputs={name: array[:count] for name, array in self.inputs.items()},
            labels=None if self.labels is None else self.labels[:count],
            keep=None if self.keep is None else self.keep[:count],
        )

    def rows(self, size: int) -> int:
        """The rows in a batch where ``size`` are asked for."""
        return self._sizes.batch or size

    def batches(self, size: int) -> Iterator[Feeds]:
        """Feeds of up to ``size`` samples, in order, in the form that the model takes."""
        return (batch.feeds for batch in self.judged(size))

    def judged(self, size: int) -> Iterator[Batch]:
        """Batches of up to ``size`` samples, with what tells their real tokens and rows.

        Columns that are padding in the whole batch are cut off. Where the model takes one batch or length only, rows are cut or
        filled up to it.
        """
        collator, sizes, start = self._collator, self._sizes, 0
        while start < len(self):
            rows = self._rows(start, start + self.rows(size))
            if sizes.even and rows.keep is not None:
                counts = rows.keep.sum(axis=1)
                rows = rows.first(int(np.argmin(np.append(counts == counts[0], False))))
            count = len(next(iter(rows.columns.values())))
            fitted = collator.fitted(rows, sizes)
            yield Batch(collator.feeds(fitted), fitted.keep, count)
            start += count

    def _rows(self, start: int, stop: int) -> Rows:
        columns = {name: np.array(array[start:stop]) for name, array in self.inputs.items()}
        return Rows(columns, self._collator.kept(columns) if self.keep is None else self.keep[start:stop])

    @property
    def _collator(self) -> Collator:
        return self.collator or Collator.like(self.inputs)

    @property
    def _sizes(self) -> Sizes:
        return self.sizes or self._collator.sizes


def read(path: Path, collators: Sequence[Collator], tokenize: Callable[[], Tokenize] | None = None) -> list[Dataset]:
    """The data set in a file or folder, for each of the models that these collators are for.

    Args:
        tokenize: gives the tokenizer that turns texts into inputs, when there are texts; None where there is none.

    Raises:
        UsageError: there is none, it is empty, a column is missing or of another kind, or columns differ in length.
        MissingExtraError: reading it needs a library that is not installed.
        ModelError: the tokenizer cannot be used, or makes ids that a model has not.
    """
    columns = read_columns(path)
    counts = {name: _count(path, name, column) for name, column in columns.items()}
    if not counts or not any(counts.values()):
        raise UsageError(f"{path} holds no samples")
    if len(set(counts.values())) > 1:
        raise UsageError(f"{path} holds different numbers of samples: {', '.join(f'{n} {c}' for n, c in counts.items())}")
    texts = next((columns[name] for name in TEXT if name in columns), None)
    missing, taker = next(((names, collator.name) for collator in collators if (names := collator.missing(columns))), ([], ""))
    if missing and texts is None:
        raise UsageError(f"{path} has no column {', '.join(missing)}, which {taker} takes; it holds {', '.join(columns)}")
    if missing and tokenize is None:
        raise UsageError(f"{path} holds texts, and there is no tokenizer beside the model; give {', '.join(missing)}")
    if missing and (several := next((collator.name for collator in collators if collator.choices), None)):
        raise UsageError(f"{path} holds texts, one a sample, and {several} takes several a sample; give {', '.join(missing)}")
    if missing and tokenize is not None and texts is not None:
        found = tokenized(str(path), _texts(path, texts), collators, tokenize())
    else:
        mask = next(
            (
                columns[name]
                for collator in collators
                for value in collator.profile.inputs
                if value.role == "mask" and (name := collator.column(value, columns)) is not None
            ),
            columns.get(MASK),
        )
        found = [_taken(path, columns if mask is None else {MASK: mask} | columns, collator) for collator in collators]
    labels = next((_labels(path, columns[name]) for name in LABELS if name in columns), None)
    return [replace(data, labels=labels) for data in found]


def tokenized(name: str, texts: Sequence[str], collators: Sequence[Collator], tokenize: Tokenize) -> list[Dataset]:
    """Texts as a data set for each of the models that these collators are for; of several choices a row, texts in their order.

    Raises:
        ModelError: one takes what texts do not give, or the tokenizer makes ids that it has not.
    """
    tokens = tokenize(texts)
    found = []
    for collator in collators:
        if missing := collator.missing(tokens):
            raise ModelError(f"texts do not give the {', '.join(missing)} that {collator.name} takes; give data that holds them")
        columns = _by_row(tokens, collator.choices)
        collator.require(columns, f"the tokenizer beside the model, on {name}", ModelError)
        ids = np.where(columns[MASK], columns[IDS], collator.pad)
        keep = None if collator.choices else columns.pop(MASK).astype(bool)  # of choices, their masks stay as they are
        found.append(Dataset(name, columns | {IDS: ids}, keep=keep, collator=collator, notes=getattr(tokenize, "notes", ())))
    return found


def _by_row(tokens: Feeds, choices: int) -> Feeds:
    """Texts [n, S] as rows of so many choices [n / choices, choices, S], without what is left over; for 0 as they are."""
    if not choices:
        return dict(tokens)
    rows = len(tokens[IDS]) // choices
    return {name: array[: rows * choices].reshape(rows, choices, -1) for name, array in tokens.items()}


def _taken(path: Path, columns: Columns, collator: Collator) -> Dataset:
    """The columns that a model takes."""
    taken = {
        name: _numbers(path, name, columns[name], value.dtype)
        for value in collator.profile.inputs
        if (name := collator.column(value, columns)) is not None
    }
    if MASK in columns and MASK not in taken:  # it tells which tokens are real, of a model without a mask too
        taken[MASK] = _numbers(path, MASK, columns[MASK], np.dtype(np.float64))
    collator.require(taken, str(path), UsageError)
    return Dataset(str(path), taken, collator=collator)


def _texts(path: Path, texts: Sequence[Any]) -> list[str]:
    """Raises UsageError where one is none."""
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"{path}: the text of sample {number + 1} is {text!r}; wanted words")
    return list(texts)


def _count(path: Path, name: str, column: Any) -> int:
    """The samples of a column. Raises UsageError when it is no column."""
    if isinstance(column, np.ndarray) and column.ndim == 0:
        raise UsageError(f"{path}: {name} is a single number, wanted one for each sample")
    return len(column)


def _numbers(path: Path, name: str, column: Any, dtype: np.dtype) -> np.ndarray:
    try:
        array = column if isinstance(column, np.ndarray) else np.asarray(column)
    except ValueError as error:
        raise UsageError(f"{path}: the rows of {name} differ in length; pad them, and give an attention_mask") from error
    if array.dtype.kind not in ("iub" if dtype.kind in "iub" else "iubf"):
        raise UsageError(f"{path}: {name} is {array.dtype}, wanted {dtype}")
    return array  # a batch at a time, the collator casts them


def _labels(path: Path, column: Any) -> np.ndarray:
    """The class of each sample. Raises UsageError."""
    if not isinstance(column, np.ndarray):
        return np.array([_label(path, number, label) for number, label in enumerate(column, 1)], np.int64)
    if column.ndim != 1:
        raise UsageError(f"{path}: labels has shape {list(column.shape)}, wanted one whole number for each sample")
    if column.dtype.kind not in "iub":
        raise UsageError(f"{path}: labels is {column.dtype}, wanted whole numbers: the class of each sample")
    if (wrong := np.flatnonzero((column < 0) | (column > MOST))).size:
        _label(path, int(wrong[0]) + 1, int(column[wrong[0]]))
    return column


def _label(path: Path, number: int, label: Any) -> int:
    """A class, as .jsonl or .csv files have it. Raises UsageError."""
    text = str(int(label)) if isinstance(label, bool) else str(label)
    if not isinstance(label, int | str) or not (
        text.strip().isascii() and text.strip().isdigit() and len(text) < 20 and int(text) <= MOST
    ):
        raise UsageError(f"{path}: the label of sample {number} is {text!r:.40}, wanted a class: a whole number from 0")
    return int(text)
