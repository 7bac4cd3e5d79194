"""Which of a model's weights is which of a checkpoint's: by name where the numbers are equal too, else by the numbers alone."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxfuse.exporters.loaded import Arrays, Loaded


@dataclass(frozen=True)
class Fit:
    """How a model's weights and a checkpoint's pair: ``read`` by the checkpoint's names; ``left`` are its other ones, ``missing``
    what the model has from nowhere."""

    read: Mapping[str, str]
    left: tuple[str, ...]
    missing: tuple[str, ...]


def aliases(name: str, prefix: str) -> tuple[str, ...]:
    """The names in a model that a checkpoint's name may mean: with the encoder's prefix or without, and norms as TensorFlow's."""
    old = {"gamma": "weight", "beta": "bias"}
    stem, _, leaf = name.rpartition(".")
    names = (name,) if leaf not in old else (name, f"{stem}.{old[leaf]}")
    return tuple(alias for name in names for alias in (name, prefix + name, name.removeprefix(prefix)))


def fit(loaded: Loaded, stored: Arrays) -> Fit:
    """Pair the weights: by name where the numbers are equal too, else by the numbers alone (libraries rename weights)."""
    own = loaded.own()
    read = {}
    for name, array in stored.items():
        known = next((alias for alias in aliases(name, loaded.prefix) if alias in own), None)
        if known is not None and _equal(own[known], array):
            read[name] = known
    left = [name for name in stored if name not in read]
    taken = set(read.values())
    free = _by_content({known: array for known, array in own.items() if left and known not in taken})
    tables = _by_content({known: array for known, array in own.items() if left and array.shape[:1] == (loaded.vocabulary,)})
    for name in left:
        content = _content(stored[name])
        if free.get(content):
            read[name] = free[content].pop(0)
        elif tables.get(content):  # what a class ties to the table of words may be stored twice
            read[name] = tables[content][0]
    parts = _joined({name: stored[name] for name in left if name not in read}, own, set(read.values()), loaded.prefix)
    read |= {name: names[0] for name, names in parts.items()}
    held = {_place(own[name]) for name in (*read.values(), *(name for names in parts.values() for name in names))}
    missing = [name for name in own if name in loaded.required and _place(own[name]) not in held]
    return Fit(read, tuple(name for name in stored if name not in read), tuple(missing))


def _joined(left: Arrays, own: Arrays, taken: set[str], prefix: str) -> dict[str, tuple[str, str]]:
    """Stored arrays that are two of the model's, one behind the other along the first axis: libraries split some when they load
    (transformers 5: the two halves of a gated feed-forward). Both lie beside the stored one, under names of their own."""
    found = {}
    for name, array in left.items():
        place, leaf = name.split(".")[:-2], name.split(".")[-1]
        beside = [
            known
            for alias in dict.fromkeys(aliases(".".join([*place, leaf]), prefix))
            for known in own
            if known not in taken and known.split(".")[:-2] == alias.split(".")[:-1] and known.split(".")[-1] == leaf
        ]
        for first, second in itertools.pairwise(beside):
            pair = (own[first], own[second])
            fits = array.ndim and all(part.shape[1:] == array.shape[1:] for part in pair) and len(array) == sum(map(len, pair))
            if fits and _equal(np.concatenate(pair), array):
                found[name] = (first, second)
                break
    return found


def _by_content(arrays: Arrays) -> dict[tuple[Any, ...], list[str]]:
    """The names of equal arrays together, by what they hold."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, array in arrays.items():
        found.setdefault(_content(array), []).append(name)
    return found


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    kind = first.dtype.kind == "f"
    if kind != (second.dtype.kind == "f") or first.shape != second.shape:
        return False
    if _place(first) == _place(second) or np.array_equal(first, second):
        return True
    return kind and np.array_equal(first, second, equal_nan=True)


def _content(array: np.ndarray) -> tuple[Any, ...]:
    return array.dtype.kind == "f", array.shape, hashlib.sha256(np.ascontiguousarray(array).data).digest()


def _place(array: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """Where an array's numbers lie: tied weights lie in one place."""
    return array.__array_interface__["data"][0], array.shape
