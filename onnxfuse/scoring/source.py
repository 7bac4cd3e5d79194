"""A data set: rows by columns, read a few at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]

SAVE = "save it as .csv, .tsv, .jsonl, .json, .parquet or .arrow, or give a folder of images by class"
"""The next step where data are in no form that is read."""


@dataclass(frozen=True)
class Source:
    """A data set.

    Args:
        name: for messages.
        columns: their names.
        read: its rows from the first one on, each time anew.
        count: how many; None where only reading them all tells.
        first: the number of its first row among those of the data set that it is a part of.
        classes: by column, the names of the classes that its whole numbers stand for, where the file tells.
    """

    name: str
    columns: tuple[str, ...]
    read: Callable[[], Iterator[Row]]
    count: int | None = None
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    first: int = 0

    def chunks(self, size: int, start: int = 0) -> Iterator[list[Row]]:
        """Rows from number ``start`` on, ``size`` at a time."""
        rows = itertools.islice(self.read(), start, None)
        while chunk := list(itertools.islice(rows, size)):
            yield chunk
