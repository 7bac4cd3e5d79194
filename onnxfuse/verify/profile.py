"""Random inputs of a model: what each input holds, by its role and by what its axes are."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from onnxfuse.errors import ModelError, UsageError
from onnxfuse.runtime import Feeds, Outputs, Runner

BATCH, LENGTH = "batch", "length"

SHORT = 7
"""A sequence that is long enough for every kind of mask."""

MASKS = ("none", "right", "left", "holes", "empty row")

MEANINGS = ((1.0, 0.0), (0.0, 1.0))
"""What a mask may say of a token that takes part and of one that does not, the usual first."""

ADDED = (0.0, -1e4)
"""The same of a mask that is added to the scores of attention; only floats can be meant so."""

SLIGHT = 1e-4
"""A movement that does not count, as a part of an output's largest number: what a filler of -10 lets through."""

CLEAR = 2
"""How many times as far outputs must move for another meaning than the usual one."""

USUAL = 128
"""The tokens in a row that models are measured on where nobody says."""

LIMIT = 1 << 30
"""Bytes of random inputs at a time."""


@dataclass(frozen=True)
class Input:
    """One graph input.

    Args:
        role: ids, types, mask or values.
        shape: of each axis its size, or "batch" or "length" where that is dynamic.
        axes: of each axis "batch", "length" or "", of a fixed size too.
        high: ids and types are smaller.
        pad: the id that the graph takes for padding; None where it asks a mask, or nothing.
        meaning: what a mask holds for a token that takes part, and for one that does not.
    """

    name: str
    role: str
    dtype: np.dtype
    shape: tuple[int | str, ...]
    axes: tuple[str, ...]
    high: int
    pad: int | None = None
    meaning: tuple[float, float] = MEANINGS[0]

    def sizes(self, rows: int, columns: int) -> tuple[int, ...]:
        """Its shape for a batch of ``rows`` sequences of ``columns`` tokens."""
        numbers = {BATCH: rows, LENGTH: columns}
        return tuple(numbers[dim] if isinstance(dim, str) else dim for dim in self.shape)

    def require_room(self, rows: int, columns: int) -> None:
        """Raises ModelError when its random numbers would take more than ``LIMIT`` bytes."""
        shape = self.sizes(rows, columns)
        if (size := math.prod(shape) * 8) > LIMIT:  # they are made in 64 bits
            raise ModelError(
                f"input {self.name!r} of shape {list(shape)} takes {size / 1e9:.1f} GB of random numbers, allowed "
                f"{LIMIT / 1e9:.1f}; give the model dynamic or smaller sizes"
            )

    def spread(self, keep: np.ndarray) -> np.ndarray:
        """Which tokens take part [rows, columns], brought to this input's shape: the last length is the key's.

        An input without rows takes the last row of ``keep``; one without a length, whether a row has a token.
        """
        shape = self.sizes(*keep.shape)
        batch = self.axes.index(BATCH) if BATCH in self.axes else None
        key = len(self.axes) - 1 - self.axes[::-1].index(LENGTH) if LENGTH in self.axes else None
        full, shown = [1] * len(shape), keep
        if key is None or shape[key] != keep.shape[1]:
            shown = np.asarray(shown.any(axis=1, keepdims=True))
        else:
            full[key] = keep.shape[1]
        if batch is None or shape[batch] != len(keep):
            shown = shown[-1:]
        else:
            full[batch] = len(keep)
        keys_first = key is not None and batch is not None and key < batch
        return np.broadcast_to((shown.T if keys_first else shown).reshape(tuple(full)), shape)

    def content(self, keep: np.ndarray, rng: np.random.Generator, *, scattered: bool = False) -> np.ndarray:
        """A random array for these tokens [rows, columns]; ``scattered`` also hides single keys from single queries."""
        shape = self.sizes(*keep.shape)
        if self.role == "mask":
            shown = self.spread(keep)
            if scattered and self.axes.count(LENGTH) > 1:
                first = np.arange(shape[-1]) == shown.argmax(axis=-1)[..., None]
                shown = shown & ((rng.random(shape) < 0.7) | first)
            return np.where(shown, *self.meaning).astype(self.dtype)
        if self.role == "values":
            return rng.standard_normal(shape).astype(self.dtype)
        ids = rng.integers(0, self.high, shape)
        if self.pad is not None:
            ids = np.where(self.spread(keep), np.where(ids == self.pad, (ids + 1) % self.high, ids), self.pad)
        return ids.astype(self.dtype)

    def changed(self, array: np.ndarray, axis: str, at: slice) -> np.ndarray:
        """``array`` with other content where its axis "batch" or "length" is at ``at``; masks, and arrays without it, stay."""
        if self.role == "mask" or axis not in self.axes:
            return array
        where = (slice(None),) * self.axes.index(axis) + (at,)
        other = array.copy()
        if self.role == "values":
            other[where] = -1 - other[where]
            return other
        moved = (other[where] + 1) % self.high
        other[where] = moved if self.pad is None else np.where(moved == self.pad, (moved + 1) % self.high, moved)
        return other


@dataclass(frozen=True)
class Profile:
    """What a model takes: its inputs, and the longest sequence it has positions for.

    ``told``: whether the model or its config.json says that; else it is a guess.
    """

    inputs: tuple[Input, ...]
    longest: int
    told: bool = True

    @property
    def sequences(self) -> bool:
        """Whether any input has a length."""
        return any(LENGTH in value.axes for value in self.inputs)

    @property
    def masked(self) -> bool:
        """Whether the model can be told that tokens do not take part."""
        return any(value.role == "mask" or value.pad is not None for value in self.inputs)

    def fixed(self, batch: int | None, length: int | None) -> Profile:
        """The same inputs with these sizes only."""
        sizes = {BATCH: batch, LENGTH: length}
        inputs = [
            replace(value, shape=tuple(sizes.get(dim) or dim if isinstance(dim, str) else dim for dim in value.shape))
            for value in self.inputs
        ]
        return replace(self, inputs=tuple(inputs))

    def only(self, dim: str) -> int | None:
        """The one size of "batch" or "length" that the model takes; None when it takes any.

        A float input of a fixed size may be a weight: it counts only where no input is dynamic. One of size 1 is broadcast, if it
        is a mask or another input than a mask is dynamic.
        """
        dynamic = any(dim in value.shape for value in self.inputs)
        broadcast = any(dim in value.shape for value in self.inputs if value.role != "mask")
        for value in sorted(self.inputs, key=lambda value: ("ids", "types", "mask", "values").index(value.role)):
            if value.role == "values" and dynamic:
                continue
            for axis, size in zip(value.axes, value.shape, strict=True):
                if axis == dim and isinstance(size, int) and (size > 1 or not (broadcast or value.role == "mask")):
                    return size
        return None

    def measured(self, batch: int, length: int) -> tuple[int, int]:
        """The rows and tokens to measure on: as many as are asked for, or for 0 as the model takes, near 1 and ``USUAL``.

        Tokens are 0 where the model takes no sequences. Raises UsageError: the model does not take so many.
        """
        rows, columns = self.only(BATCH), self.only(LENGTH)
        if rows and batch not in (0, rows):
            raise UsageError(f"--batch {batch}: the model takes {rows} alone; leave --batch out")
        if columns and length not in (0, columns):
            raise UsageError(f"--length {length}: the model takes {columns} alone; leave --length out")
        self.require_length(length)
        return rows or batch or 1, (columns or length or min(USUAL, self.longest)) if self.sequences else 0

    def require_length(self, length: int) -> None:
        """Raises UsageError when the model has no positions for so many tokens."""
        if self.told and self.sequences and length > self.longest:
            raise UsageError(f"--length {length}: the model has positions for {self.longest} tokens; give at most that")

    def sized(self, batch: int, length: int) -> tuple[int, int]:
        """The rows and tokens that are fed where so many are asked for. Raises ModelError: see ``Input.require_room``."""
        rows, columns = self.only(BATCH) or batch, self.only(LENGTH) or length
        for value in self.inputs:
            value.require_room(rows, columns)
        return rows, columns

    def feeds(self, batch: int, length: int, *, mask: str = "none", seed: int = 0, real: float = 1.0) -> Feeds:
        """Random inputs, in the sizes that the model takes.

        Args:
            mask: one of ``MASKS``.
            real: under 1 pads rows on the right instead: see ``row_lengths``.

        Raises:
            ModelError: they would take more than ``LIMIT`` bytes.
        """
        rows, columns = self.sized(batch, length)
        keep = mask_of(mask, rows, columns)
        if real < 1:
            keep = np.arange(columns) < np.array(row_lengths(rows, columns, real))[:, None]
        return self.filled(keep, np.random.default_rng(seed), scattered=mask == "holes")

    def filled(self, keep: np.ndarray, rng: np.random.Generator, *, scattered: bool = False) -> Feeds:
        """Random inputs where the tokens ``keep`` [rows, columns] take part."""
        return {value.name: value.content(keep, rng, scattered=scattered) for value in self.inputs}

    def changed(self, feeds: Feeds, axis: str, at: slice) -> Feeds:
        """``feeds`` with other ids and values where "batch" or "length" is at ``at``."""
        return {value.name: value.changed(feeds[value.name], axis, at) for value in self.inputs}

    def twins(self, batch: int, length: int, seed: int = 0) -> tuple[Feeds, Feeds]:
        """Two feeds without padding that differ in the row that "empty row" empties; where a mask holds for all rows, in all."""
        feeds, (rows, length) = self.feeds(batch, length, seed=seed), self.sized(batch, length)
        masks = [value for value in self.inputs if value.role == "mask"]
        shared = any(BATCH not in value.axes or value.sizes(rows, length)[value.axes.index(BATCH)] < rows for value in masks)
        return feeds, self.changed(feeds, BATCH, slice(None) if shared else slice(rows - 1, rows))

    def sides(self, batch: int, length: int, mask: str, seed: int = 0) -> tuple[Feeds, Feeds, Feeds]:
        """Three feeds without padding: one, another where ``mask`` lets tokens in, and another where it shuts them out."""
        feeds, keep = self.feeds(batch, length, seed=seed), mask_of(mask, *self.sized(batch, length))
        other = self.changed(feeds, LENGTH, slice(None))
        mixed = [
            {value.name: np.where(value.spread(where), other[value.name], feeds[value.name]) for value in self.inputs}
            for where in (keep, ~keep)
        ]
        return feeds, mixed[0], mixed[1]


def row_lengths(batch: int, length: int, real: float) -> tuple[int, ...]:
    """Rows of falling length, the first of ``length`` tokens, of which the share ``real`` is kept altogether.

    Row i keeps (1 - i/batch)**k of its tokens; k is found by bisection. A single row keeps its share.
    """
    if batch == 1:
        return (max(1, round(length * real)),)
    part = 1 - np.arange(batch) / batch
    low, high = 0.0, 64.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if (part**middle).mean() > real else (low, middle)
    return tuple(max(1, round(length * share)) for share in part**low)


def mask_of(kind: str, batch: int, length: int) -> np.ndarray:
    """Which tokens take part, bool [batch, length]. Every row keeps one, except the last of "empty row"."""
    keep = np.ones((batch, length), dtype=bool)
    for row in range(batch):
        dropped = min(length - 1, (length * (row + 1)) // (batch + 1))
        if kind == "right" and dropped:
            keep[row, length - dropped :] = False
        if kind == "left":
            keep[row, :dropped] = False
        if kind == "holes":
            keep[row, 1 + row % 2 : length - 1 : 2] = False
    if kind == "empty row":
        keep[-1] = False
    return keep


def understood(profile: Profile, run: Runner) -> Profile:
    """The profile with every mask meant as the model means it: 1 may let a token in or shut it out, or be added to scores.

    Found by changing a token: the last of those let in, it moves outputs that it does not reach as the first of those shut out.
    Where nothing tells, 1 lets in.
    """
    masks = [value for value in profile.inputs if value.role == "mask"]
    choices = itertools.product(*(MEANINGS if value.dtype.kind in "iub" else (*MEANINGS, ADDED) for value in masks))
    meant = [_meaning(profile, dict(zip((value.name for value in masks), choice, strict=True))) for choice in choices]
    if len(meant) == 1:
        return profile
    found = [_let_in(candidate, run) for candidate in meant]
    return next(candidate for candidate, moved in zip(meant, found, strict=True) if moved >= max(found) / CLEAR)


def _meaning(profile: Profile, meanings: dict[str, tuple[float, float]]) -> Profile:
    inputs = (replace(value, meaning=meanings.get(value.name, value.meaning)) for value in profile.inputs)
    return replace(profile, inputs=tuple(inputs))


def _let_in(profile: Profile, run: Runner) -> float:
    """How far the last token that is let in moves outputs that it does not reach as the first that is shut out.

    So a mask that the model counts (lengths, as ONNX Runtime's optimizer writes them) tells as well as one that it reads.
    """
    rows, columns = profile.sized(1, SHORT)
    token = columns // 2
    ends = (np.tile(np.arange(columns) < end, (rows, 1)) for end in (token + 1, token))
    try:
        (before, after), (out_before, out_after) = (_changed(profile, run, keep, token) for keep in ends)
    except ModelError:
        return 0.0
    moved = 0.0
    for name in before:
        if not isinstance(before[name], np.ndarray):  # a sequence, which cannot be judged
            continue
        if len({outputs[name].shape for outputs in (before, after, out_before, out_after)}) == 1:
            moved += float((_moved(before[name], after[name]) * (_moved(out_before[name], out_after[name]) <= SLIGHT)).sum())
    return moved


def _changed(profile: Profile, run: Runner, keep: np.ndarray, token: int) -> tuple[Outputs, Outputs]:
    """The outputs with these tokens let in, before and after a token changes."""
    masks = {value.name: value.content(keep, np.random.default_rng(0)) for value in profile.inputs if value.role == "mask"}
    feeds = profile.filled(np.ones_like(keep), np.random.default_rng(0)) | masks
    return run(feeds), run(profile.changed(feeds, LENGTH, slice(token, token + 1)))


def _moved(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far each number of an output moved, as a part of its largest; of texts, whether it did."""
    if before.dtype.kind in "OSU":
        return differs(before, after).astype(np.float64)
    a, b = (np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0) for array in (before, after))
    return np.asarray(np.abs(a - b) / (np.abs(a).max(initial=0.0) or 1.0))


def differs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays of one shape differ, bool; all of ``a`` where the shapes do. NaN equals NaN."""
    if a.shape != b.shape:
        return np.ones(a.shape, dtype=bool)
    return np.asarray((a != b) & ~((a != a) & (b != b)))  # NaN is not itself
