"""Random inputs of a model: what each input holds, by its role and by what its axes are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from onnxfuse.errors import ModelError, UsageError
from onnxfuse.runtime import Feeds
from onnxfuse.verify.masks import MEANINGS, by_choice, mask_of, row_lengths

BATCH, LENGTH = "batch", "length"

ROLES = ("ids", "types", "prompt", "mask", "values")
"""What an input may be; those that tell most of the sizes that a model takes stand first."""

CHOICES = (BATCH, "", LENGTH)
"""The axes of ids, and of a mask of their rank, in a model that takes several sequences a row."""

SHORT = 7
"""A sequence that is long enough for every kind of mask."""

USUAL = 128
"""The tokens in a row that models are measured on where nobody says."""

LIMIT = 1 << 30
"""Bytes of random inputs at a time."""


@dataclass(frozen=True)
class Input:
    """One graph input.

    Args:
        role: ids, types, mask, values or prompt (the tokens at each row's begin that are its prompt).
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

    def drawn(self, keep: np.ndarray) -> np.ndarray:
        """The same for random inputs: the choices of a row differ as ``masks.by_choice`` has it."""
        shape = self.sizes(*keep.shape)
        choices = self.axes == CHOICES and (shape[0], shape[2]) == keep.shape
        return by_choice(keep, shape[1]) if choices else self.spread(keep)

    def content(self, keep: np.ndarray, rng: np.random.Generator, *, scattered: bool = False) -> np.ndarray:
        """A random array for these tokens [rows, columns]; ``scattered`` also hides single keys from single queries."""
        shape = self.sizes(*keep.shape)
        if self.role == "mask":
            shown = self.drawn(keep)
            if scattered and self.axes.count(LENGTH) > 1:
                first = np.arange(shape[-1]) == shown.argmax(axis=-1)[..., None]
                shown = shown & ((rng.random(shape) < 0.7) | first)
            return np.where(shown, *self.meaning).astype(self.dtype)
        if self.role == "values":
            return rng.standard_normal(shape).astype(self.dtype)
        if self.role == "prompt":  # a token of each row is left
            return rng.integers(0, np.maximum(np.resize(keep.sum(axis=1), shape), 1)).astype(self.dtype)
        ids = rng.integers(0, self.high, shape)
        if self.pad is not None:
            ids = np.where(self.drawn(keep), np.where(ids == self.pad, (ids + 1) % self.high, ids), self.pad)
        return ids.astype(self.dtype)

    def changed(self, array: np.ndarray, axis: str, at: slice) -> np.ndarray:
        """``array`` with other content where its axis "batch" or "length" is at ``at``.

        Masks, prompts, and arrays without that axis stay.
        """
        if self.role in ("mask", "prompt") or axis not in self.axes:
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

    ``longest_known``: whether the model or its config.json says that; else it is a guess.
    """

    inputs: tuple[Input, ...]
    longest: int
    longest_known: bool = True

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
        for value in sorted(self.inputs, key=lambda value: ROLES.index(value.role)):
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
        self.require_asked(batch, length)
        return rows or batch or 1, (columns or length or min(USUAL, self.longest)) if self.sequences else 0

    def require_asked(self, batch: int, length: int) -> None:
        """Raises UsageError when the model cannot be fed so many rows, or tokens; 0 is what it takes by itself."""
        if self.longest_known and self.sequences and length > self.longest:
            raise UsageError(f"--length {length}: the model has positions for {self.longest} tokens; give at most that")
        asked = " ".join(f"--{name} {size}" for name, size in (("batch", batch), ("length", length)) if size)
        if asked:
            try:
                self.sized(batch or 1, length or min(USUAL, self.longest))
            except ModelError as error:
                raise UsageError(f"{asked}: {str(error).partition(';')[0]}; give fewer") from error

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
            {value.name: np.where(value.drawn(where), other[value.name], feeds[value.name]) for value in self.inputs}
            for where in (keep, ~keep)
        ]
        return feeds, mixed[0], mixed[1]
