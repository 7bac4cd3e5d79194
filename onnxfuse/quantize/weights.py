"""Float weights as s8 codes with a scale for each output channel.

``nearest`` rounds each weight by itself. ``gptq`` rounds one input channel after another and lets the channels still to come make
up for what is lost, as far as calibration shows that they vary together: the output stays closer, the file the same size.

Two kinds of machine: where u8 x s8 products are summed in 32 bits (VNNI, AMX, NEON), codes run to 127. Before VNNI, x86 sums
two neighbouring products in 16 bits and clips: 255 * (a + b) must stay under 2**15. There, codes are held such that it does:
the positive ones of channels 2i and 2i+1 sum to at most 128, the negative ones to at least -128. Such a file is exact on every
machine.

Source: Frantar et al., GPTQ, 2023; Intel's instruction VPMADDUBSW.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxfuse.errors import ModelError

LARGEST = 127
"""Codes run from -127 to 127, so that a weight's sign costs nothing."""

PAIR = 128
"""What two neighbouring codes of one sign may sum to where products are clipped: 255 * 128 < 2**15."""

DAMPING = 0.01
"""Added to the moments' diagonal, as a part of its mean: GPTQ's own choice."""

BLOCK = 128
"""Channels rounded between two updates of the rest."""


@dataclass(frozen=True, eq=False)
class Codes:
    """``codes`` [K, N] s8 and ``scale`` [N] float32: W is about codes * scale."""

    codes: np.ndarray
    scale: np.ndarray


def nearest(weight: np.ndarray, name: str, *, pairs: bool = False) -> Codes:
    """Round a matrix [K, N]. ``pairs``: keep neighbouring codes from clipping. Raises ModelError on NaN and infinity."""
    scale = _scale(weight, name, pairs)
    return Codes(np.rint(weight / scale).astype(np.int8), scale)


def gptq(weight: np.ndarray, moments: np.ndarray, noise: float, name: str, *, pairs: bool = False) -> Codes:
    """Round a matrix [K, N] so that x @ W changes least.

    Args:
        moments: the mean of x_i * x_j over real inputs [K, K].
        noise: the mean square of what rounding x adds to each channel.
    """
    scale = _scale(weight, name, pairs)
    depth = len(weight)
    order = np.argsort(-np.diag(moments), kind="stable")
    place = np.argsort(order)
    spread = moments[np.ix_(order, order)].astype(np.float64)
    spread[np.diag_indices(depth)] += noise + DAMPING * np.diag(spread).mean() + np.finfo(np.float32).tiny
    upper = np.linalg.cholesky(np.linalg.inv(spread)).T  # the inverse is upper.T @ upper
    left = weight[order].astype(np.float64) / scale
    codes = np.empty_like(left)
    for start in range(0, depth, BLOCK):
        stop = min(depth, start + BLOCK)
        errors = np.empty((stop - start, left.shape[1]))
        for at in range(start, stop):
            low, high = _room(codes, place, order[at], at) if pairs else (-LARGEST, LARGEST)
            codes[at] = np.clip(np.rint(left[at]), low, high)
            errors[at - start] = (left[at] - codes[at]) / upper[at, at]
            left[at + 1 : stop] -= upper[at, at + 1 : stop, None] * errors[at - start]
        left[stop:] -= upper[start:stop, stop:].T @ errors
    return Codes(codes[place].astype(np.int8), scale)


def _scale(weight: np.ndarray, name: str, pairs: bool) -> np.ndarray:
    """The step of each column [N]. Pairs sum to PAIR - 1 before rounding, which lifts each by at most a half."""
    largest = np.abs(weight).max(axis=0) / LARGEST
    if not np.isfinite(largest).all():
        raise ModelError(f"weight {name} holds NaN or infinity; the checkpoint is broken, export it again")
    if pairs:
        for sign in (1, -1):
            part = np.maximum(weight * sign, 0)
            sums = part[0::2].copy()
            sums[: len(part[1::2])] += part[1::2]
            largest = np.maximum(largest, sums.max(axis=0) / (PAIR - 1))
    return np.where(largest == 0, 1.0, largest).astype(np.float32)


def _room(codes: np.ndarray, place: np.ndarray, channel: int, at: int) -> tuple[np.ndarray | int, np.ndarray | int]:
    """What a channel's codes may be, given those of its neighbour if it was rounded before."""
    neighbour = channel ^ 1
    if neighbour >= len(place) or place[neighbour] >= at:
        return -LARGEST, LARGEST
    other = codes[place[neighbour]]
    return np.maximum(-LARGEST, -PAIR - np.minimum(other, 0)), np.minimum(LARGEST, PAIR - np.maximum(other, 0))
