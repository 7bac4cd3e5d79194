"""What is asked of single arrays: what kind of things they hold, and where two differ."""

from __future__ import annotations

import numpy as np


def is_discrete(array: np.ndarray) -> bool:
    """Whether an output holds whole numbers, truth values or texts."""
    return array.dtype.kind in "biuOSU"


def differs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays of one shape differ, bool; all of ``a`` where the shapes do. NaN equals NaN."""
    if a.shape != b.shape:
        return np.ones(a.shape, dtype=bool)
    return np.asarray((a != b) & ~((a != a) & (b != b)))  # NaN is not itself
