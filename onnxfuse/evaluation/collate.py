"""Samples collated into batches as a model takes them: the one place where real inputs are brought into its form.

Samples come from a tokenizer or a file, under Hugging Face's names or the model's own. A model may call its inputs otherwise,
may want int32 ids, a mask of floats, of rank 4, or one that is 1 where a token does not take part, may take one batch and length
only, no mask, or position_ids: what an input is comes from its ``Profile``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxfuse.architecture import IDS, MASK, PIXELS, POSITIONS, PROMPT, TYPES
from onnxfuse.errors import ModelError, OnnxfuseError
from onnxfuse.runtime import Feeds
from onnxfuse.verify.profile import BATCH, CHOICES, LENGTH, Input, Profile

NAMES = {"ids": IDS, "mask": MASK, "types": TYPES, "positions": POSITIONS, "values": PIXELS, "prompt": PROMPT}
"""What Hugging Face calls the input of each role."""

MADE = ("types", "positions", "prompt")
"""Roles that need no data: 0 for each token, as BertModel does, its place, and no prompt."""

UNKNOWN = 2
"""What a profile says of ids' range where nothing tells it."""


@dataclass(frozen=True)
class Sizes:
    """How samples are batched.

    Args:
        batch, length: the only ones that are taken; None takes any.
        even: rows of a batch have equally many tokens, since no mask could tell which are padding.
    """

    batch: int | None = None
    length: int | None = None
    even: bool = False

    @classmethod
    def common(cls, collators: Sequence[Collator]) -> Sizes:
        """Sizes that all models take. Raises ModelError when two take different ones only."""
        chosen: dict[str, int | None] = {}
        for field in ("batch", "length"):
            taken = {collator.name: size for collator in collators if (size := getattr(collator.sizes, field)) is not None}
            if len(set(taken.values())) > 1:
                raise ModelError(
                    f"the models take no common {field}, which they must to be compared: "
                    + ", ".join(f"{name} {size}" for name, size in taken.items())
                )
            chosen[field] = next(iter(taken.values()), None)
        return cls(chosen["batch"], chosen["length"], any(collator.sizes.even for collator in collators))


@dataclass(frozen=True)
class Rows:
    """Samples of one batch: columns by name, each [rows, ...], and which of their tokens are real [rows, S], where known."""

    columns: Mapping[str, np.ndarray]
    keep: np.ndarray | None

    def mapped(self, change: Callable[[np.ndarray], np.ndarray]) -> Rows:
        """All of it changed."""
        keep = None if self.keep is None else change(self.keep)
        return Rows({name: change(array) for name, array in self.columns.items()}, keep)

    def first(self, count: int) -> Rows:
        """The first ``count``."""
        return self.mapped(lambda array: array[:count])


@dataclass(frozen=True)
class Collator:
    """Collates samples for one model.

    Args:
        profile: its inputs.
        name: its own, for messages.
        pad: the id that stands where no token is.
        first: the position of a row's first token. Where it is not 0, positions count real tokens and padding stands before
            the first, as in RoBERTa.
    """

    profile: Profile
    name: str = "the model"
    pad: int = 0
    first: int = 0

    @classmethod
    def like(cls, columns: Mapping[str, np.ndarray]) -> Collator:
        """For a model that takes columns as they are."""

        def read(name: str, array: np.ndarray) -> Input:
            axes = (BATCH, LENGTH, *[""] * array.ndim)[: array.ndim]
            return Input(name, "values", array.dtype, axes, axes, UNKNOWN)

        return cls(Profile(tuple(read(name, array) for name, array in columns.items()), 0))

    @property
    def sizes(self) -> Sizes:
        tokens = any(role in ("ids", "types") for role in self.roles.values())
        return Sizes(self.profile.only(BATCH), self.profile.only(LENGTH), tokens and not self.profile.masked)

    @property
    def roles(self) -> dict[str, str]:
        """The role of each input, by name; ids that are positions are told apart."""
        return {
            value.name: "positions" if value.role == "ids" and "position" in value.name.lower() else value.role
            for value in self.profile.inputs
        }

    @property
    def longest(self) -> int:
        """The longest row that it has positions for."""
        tables = [
            value.high - self.first
            for value in self.profile.inputs
            if self.roles[value.name] == "positions" and value.high != UNKNOWN
        ]
        return min([self.profile.longest, *tables])

    def column(self, value: Input, names: Iterable[str]) -> str | None:
        """Which of the columns ``names`` an input takes: that of its name, or of what Hugging Face calls its role."""
        role = self.roles[value.name]
        alone = list(self.roles.values()).count(role) == 1 and (role != "values" or len(value.shape) == 4)
        wanted = (value.name, NAMES[role]) if alone else (value.name,)
        return next((name for name in wanted if name in set(names)), None)

    def missing(self, names: Iterable[str]) -> list[str]:
        """The inputs that neither the columns ``names`` nor anything else fills."""
        given = set(names)
        return [
            value.name
            for value in self.profile.inputs
            if self.column(value, given) is None and self.roles[value.name] not in MADE
        ]

    def kept(self, columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Which tokens of columns are real, bool [n, S]: as a mask says, else all of the ids; None where there are neither.

        Of several choices a row, those that are real in any.
        """
        for value in self.profile.inputs:
            column = columns.get(value.name)
            choices = value.axes == CHOICES
            if value.role == "mask" and column is not None and column.ndim == len(value.shape) == (3 if choices else 2):
                inside, outside = value.meaning
                kept = np.abs(column - inside) < np.abs(column - outside)
                return np.asarray(kept.any(axis=1)) if choices else kept
        if MASK in columns and columns[MASK].ndim == 2:
            return columns[MASK].astype(bool)
        for value in self.profile.inputs:
            name = self.column(value, columns) if self.roles[value.name] == "ids" else None
            if name is not None and columns[name].ndim > 1:
                return np.ones(columns[name].shape[:1] + columns[name].shape[1 + (value.axes == CHOICES) :][:1], bool)
        return None

    @property
    def choices(self) -> int:
        """The sequences of a row, of a model that takes several; else 0."""
        return next((int(value.shape[1]) for value in self.profile.inputs if value.role == "ids" and value.axes == CHOICES), 0)

    def require(self, columns: Mapping[str, np.ndarray], what: str, error: type[OnnxfuseError]) -> None:
        """Raises ``error`` when ids lie beyond the model's tables, or columns have other ranks than its inputs, or other lengths
        than each other or than the model has positions for."""
        for value in self.profile.inputs:
            name = self.column(value, columns)
            if name is None:
                continue
            array, role = columns[name], self.roles[value.name]
            if role in ("ids", "types", "positions") and value.high != UNKNOWN and array.size:
                low, high = int(array.min()), int(array.max())
                if low < 0 or high >= value.high:
                    raise error(
                        f"{what}: {name} holds {low if low < 0 else high}, and {self.name} knows 0 to {value.high - 1} "
                        f"as {value.name}; they do not belong together"
                    )
            if array.ndim != len(value.shape) and not (value.role == "mask" and array.ndim == 2):
                raise error(
                    f"{what}: {name} has rows of shape {list(array.shape[1:])}, {self.name} takes "
                    f"{', '.join(map(str, value.shape[1:])) or 'single numbers'} as {value.name}"
                )

        self._require_lengths(columns, what, error)

    def _require_lengths(self, columns: Mapping[str, np.ndarray], what: str, error: type[OnnxfuseError]) -> None:
        lengths = {
            name: columns[name].shape[value.axes.index(LENGTH)]
            for value in self.profile.inputs
            if (name := self.column(value, columns)) is not None
            and LENGTH in value.axes
            and columns[name].ndim == len(value.axes)
        }
        if MASK in columns and columns[MASK].ndim == 2:
            lengths.setdefault(MASK, columns[MASK].shape[1])
        for name, length in lengths.items():
            first = next(iter(lengths))
            if length != lengths[first]:
                raise error(f"{what}: {name} has {length} tokens in a row, {first} {lengths[first]}; they do not belong together")
        keep = self.kept(columns) if self.profile.longest_known and self.sizes.length is None else None
        if keep is not None and keep.shape[1] in lengths.values():
            most = int(keep.sum(axis=1).max()) if self.sizes.even else int(np.flatnonzero(keep.any(axis=0)).max(initial=-1)) + 1
            if most > self.longest:
                raise error(f"{what}: a row has {most} tokens, {self.name} takes {self.longest}; cut them")

    def fitted(self, rows: Rows, sizes: Sizes) -> Rows:
        """Rows of the sizes that are taken: without columns that are padding in all of them, cut or filled up to the one length,
        and the last row repeated up to the one batch.

        Rows that are too long keep what follows the first real token of all.
        """
        if rows.keep is not None:
            rows = _even(rows) if sizes.even and sizes.length is None else self._windowed(rows, rows.keep, sizes.length)
        if sizes.batch is None:
            return rows
        short = sizes.batch - len(next(iter(rows.columns.values())))
        return rows.mapped(lambda array: np.concatenate([array, np.repeat(array[-1:], short, axis=0)]))

    def _windowed(self, rows: Rows, keep: np.ndarray, length: int | None) -> Rows:
        """The columns of tokens that are taken, filled up on the right."""
        width, used = keep.shape[1], np.flatnonzero(keep.any(axis=0))
        first, stop = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
        start = first if length is not None and stop > length else 0
        window = slice(start, stop if length is None else start + length)
        columns = dict(rows.columns)
        for value in self.profile.inputs:
            name = self.column(value, columns)
            if name is None or columns[name].ndim != len(value.axes):  # a mask [n, S] of one of another rank is in ``keep``
                continue
            array = columns[name]
            axes = [at for at, axis in enumerate(value.axes) if axis == LENGTH and array.shape[at] == width]
            filler = {"ids": self.pad, "mask": value.meaning[1]}.get(self.roles[value.name], 0)
            columns[name] = _cut(array, axes, window, length, filler)
        return Rows(columns, _cut(keep, [1], window, length, False))

    def feeds(self, rows: Rows) -> Feeds:
        """A batch under the model's names, in its types and ranks."""
        return {
            value.name: np.ascontiguousarray(self._content(value, rows)).astype(value.dtype, copy=False)
            for value in self.profile.inputs
        }

    def _content(self, value: Input, rows: Rows) -> np.ndarray:
        role, name = self.roles[value.name], self.column(value, rows.columns)
        if name is not None and (role != "mask" or (name == value.name and rows.columns[name].ndim == len(value.shape))):
            return rows.columns[name]
        keep = rows.keep
        if keep is None:
            raise ModelError(f"{self.name} takes {value.name}, which follows from ids or a mask, and the data has neither")
        if value.axes == CHOICES:
            ids = next(value for value in self.profile.inputs if value.role == "ids" and value.axes == CHOICES)
            keep = np.broadcast_to(keep[:, None], rows.columns[self.column(ids, rows.columns) or ids.name].shape)
        if role == "mask":
            return np.where(keep if value.axes == CHOICES else value.spread(keep), *value.meaning)
        made = np.zeros(len(keep) if role == "prompt" else keep.shape, np.int64)
        if role == "positions":
            made = np.cumsum(keep, axis=1) * keep + self.first - 1 if self.first else made + np.arange(keep.shape[1])
        return made if BATCH in value.axes else made[0]


def _even(rows: Rows) -> Rows:
    """Rows of equally many real tokens, without what stands between them."""
    assert rows.keep is not None
    keep = rows.keep
    order = np.argsort(~keep, axis=1, kind="stable")[:, : max(1, int(keep[0].sum()))]

    def change(array: np.ndarray) -> np.ndarray:
        tokens = array.ndim > 1 and array.shape[1] == keep.shape[1]
        return array[np.arange(len(array))[:, None], order] if tokens else array

    return rows.mapped(change)


def _cut(array: np.ndarray, axes: list[int], window: slice, length: int | None, filler: float) -> np.ndarray:
    """The window of an array's token axes, filled up to ``length`` behind it."""
    for axis in axes:
        array = array[(slice(None),) * axis + (window,)]
        if length is not None:
            widths = [(0, length - array.shape[axis] if at == axis else 0) for at in range(array.ndim)]
            array = np.pad(array, widths, constant_values=filler)
    return array
