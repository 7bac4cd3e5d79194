"""Which tokens take part, as arrays; and what a mask may say of them."""

from __future__ import annotations

import numpy as np

MASKS = ("none", "right", "left", "holes", "empty row")

MEANINGS = ((1.0, 0.0), (0.0, 1.0))
"""What a mask may say of a token that takes part and of one that does not, the usual first."""

ADDED = (0.0, -1e4)
"""The same of a mask that is added to the scores of attention; only floats can be meant so."""


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


def by_choice(keep: np.ndarray, choices: int) -> np.ndarray:
    """Which tokens of each choice take part, bool [batch, choices, length], from those of each row.

    The choices of a row take the tokens of this and of the following rows, so that they differ; those of the last row, which
    may be empty, all take its own.
    """
    rows, turning = np.arange(len(keep))[:, None], max(len(keep) - 1, 1)
    return np.asarray(keep[np.where(rows < turning, (rows + np.arange(choices)) % turning, rows)])


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
