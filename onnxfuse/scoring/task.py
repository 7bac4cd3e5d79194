"""What a task is to an evaluation: how it reads rows, what is kept of each answer, and which figures are made of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxfuse.errors import UsageError
from onnxfuse.inference.serving import LOGITS, Serving
from onnxfuse.scoring.metrics import Metric
from onnxfuse.scoring.source import Row, Source


@dataclass(frozen=True)
class Sample:
    """What is asked, and what is right, in whatever form its task has these; ``where``: in the data, for messages."""

    where: str
    asked: Any
    right: Any


@dataclass(frozen=True)
class Answer:
    """What a model says of a sample.

    Args:
        kept: the numbers that figures are made of.
        said: what it decides for, equal where two models decide alike.
        numbers: what it decides by, for the cosine with another model's; empty where there is nothing to compare so.
    """

    kept: tuple[float, ...]
    said: Any
    numbers: np.ndarray


Reader = Callable[[Row, str], Sample]
"""A row as a sample, given where it is, for messages. Raises UsageError."""


@dataclass(frozen=True)
class Task:
    """A task of models.

    Args:
        name: as ``export --task`` takes it.
        reader: of a source's rows, for a model; asked once. Raises UsageError: the source has no columns for it.
        answers: what a model says of samples, in their order, so many rows at a time.
        figures: of what was kept of all answers [n, ...].
        right: which samples were answered rightly, bool [n]; None where that is no yes or no.
    """

    name: str
    reader: Callable[[Serving, Source], Reader]
    answers: Callable[[Serving, Sequence[Sample], int], list[Answer]]
    figures: Callable[[Serving, np.ndarray], Mapping[str, Metric]]
    right: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class Labels:
    """The classes of a model, as config.json names them.

    Args:
        names: of each, by its number.
        stand_for: by whole number, the names that the data's own numbers stand for; empty where they are the model's, or nobody
            named its classes.
    """

    names: tuple[str, ...]
    stand_for: tuple[str, ...] = ()

    @classmethod
    def of(cls, serving: Serving, theirs: Sequence[str] = ()) -> Labels:
        """Of a model; ``theirs``: the names that the data's own numbers stand for."""
        said, count = _named(serving), classes_of(serving)
        unnamed = tuple(f"LABEL_{number}" for number in range(count))  # what transformers calls classes that nobody named
        names = tuple(said.get(str(number), unnamed[number]) for number in range(count))
        return cls(names, () if names == unnamed else tuple(theirs))

    def number(self, label: Any, where: str) -> int:
        """The class that a label means: by its name, else by its number. Raises UsageError: the model has none such."""
        whole = isinstance(label, int | np.integer) and not isinstance(label, bool)
        if whole and 0 <= label < len(self.stand_for):
            label, whole = self.stand_for[label], False
        text = str(label).strip()
        if not whole and text in self.names:
            return self.names.index(text)
        alike = [number for number, name in enumerate(self.names) if name.casefold() == text.casefold()]
        if not whole and len(alike) == 1:
            return alike[0]
        if label is None or text in ("", "-", "-1"):  # kept secret, or no two agreed on one
            raise UsageError(f"{where} has no label ({text if label is not None else None}); leave such rows out")
        if text.isascii() and text.isdigit() and len(text) < 10 and int(text) < len(self.names):
            return int(text)
        shown = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
        raise UsageError(f"{where} has the label {text!r:.60}, and the model has {shown}; name them so in config.json (id2label)")


def classes_of(serving: Serving) -> int:
    """How many classes a model tells apart. Raises UsageError: neither its graph nor config.json says it."""
    if count := serving.width(LOGITS) or len(_named(serving)):
        return count
    raise UsageError(f"{serving.path} does not say how many classes it has; put its config.json, with id2label, beside it")


def _named(serving: Serving) -> dict[str, str]:
    named = serving.config.get("id2label")
    return {str(key): str(name) for key, name in named.items()} if isinstance(named, dict) else {}


def column_of(source: Source, what: str, names: Sequence[str]) -> str:
    """The column of one of these names. Raises UsageError where there is none."""
    found = next((name for name in names if name in source.columns), None)
    if found is None:
        shown = ", ".join(source.columns[:12]) or "nothing"
        raise UsageError(f"{source.name} holds {shown}, and no column of {what}; call it {' or '.join(names)}")
    return found


def text_of(row: Row, column: str, where: str) -> str:
    """A text. Raises UsageError."""
    text = row.get(column)
    if not isinstance(text, str):
        raise UsageError(f"{where} has {type(text).__name__} in {column}, wanted a text")
    return text
