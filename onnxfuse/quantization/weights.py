"""Float weights as int8, with a scale for each output channel.

``nearest`` rounds each weight by itself. ``gptq`` rounds one input channel after another and lets the channels still to come make
up for what is lost, as far as calibration shows that they vary together: the output stays closer, the file the same size.

Two kinds of machine: where u8 x s8 products are summed in 32 bits (VNNI, AMX, NEON), weights run to 127. Before VNNI, x86 sums
two neighbouring products in 16 bits and clips: 255 * (a + b) must stay under 2**15. With ``reduce_range`` weights are held such
that it does: the positive ones of channels 2i and 2i+1 sum to at most 128, the negative ones to at least -128. Such a file is
exact on every machine.

Source: Frantar et al., GPTQ, 2023; Intel's instruction VPMADDUBSW.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxfuse.errors import ModelError

LARGEST = 127
"""Weights run from -127 to 127, so that their sign costs nothing."""

PAIR = 128
"""What two neighbouring weights of one sign may sum to where products are clipped: 255 * 128 < 2**15."""

DAMPING = 0.01
"""Added to the Hessian's diagonal, as a part of its mean: GPTQ's own choice."""

EVENED = 0.7
"""The power of a row's root mean square that its own scale is. On all-MiniLM-L6-v2, 800 sentences, rounded to nearest, mean
cosine with float32: 0 0.99949, 0.3 0.99962, 0.5 0.99967, 0.7 0.99968, 1 0.99959: weights that are
even make activations uneven."""

PANEL, BLOCK = 256, 32
"""Channels rounded between two updates of all the rest, and of the rest of the panel: what is lost within a block is taken over
one channel at a time, which is slow, and each update of all the rest reads the whole matrix."""


@dataclass(frozen=True, eq=False)
class Int8Weight:
    """``values`` [K, N] int8 and ``scale`` [N] float32: W is about values * scale, times ``rows`` [K, 1] where there are."""

    values: np.ndarray
    scale: np.ndarray
    rows: np.ndarray | None = None


def row_scale(weight: np.ndarray) -> np.ndarray:
    """A scale for each row of a matrix [K, N], 1 in the mean, where x is multiplied with it before it is rounded: [K]."""
    size = np.sqrt(np.square(weight, dtype=np.float64).mean(axis=1)) ** EVENED
    return np.where(size > 0, size / max(float(size.mean()), np.finfo(np.float32).tiny), 1).astype(np.float32)


def nearest(weight: np.ndarray, name: str, *, reduce_range: bool = False, rows: np.ndarray | None = None) -> Int8Weight:
    """Round a matrix [K, N], each weight by itself.

    Args:
        reduce_range: keep neighbouring weights from clipping.
        rows: of each row the scale [K] that it has beside those of the columns.

    Raises:
        ModelError: the weight ``name`` holds NaN or infinity.
    """
    weight = weight if rows is None else weight / rows[:, None]
    scale = _scale(weight, name, reduce_range)
    return Int8Weight(np.rint(weight / scale).astype(np.int8), scale, rows)


def gptq(
    weight: np.ndarray,
    hessian: np.ndarray,
    noise: float,
    name: str,
    *,
    reduce_range: bool = False,
    rows: np.ndarray | None = None,
) -> Int8Weight:
    """Round a matrix [K, N] so that x @ W changes least.

    Args:
        hessian: of the output's squared error, up to a factor: the mean of x_i * x_j over real inputs [K, K].
        noise: the mean square of what rounding x adds to each channel.
        reduce_range: keep neighbouring weights from clipping.
        rows: as of ``nearest``.

    Raises:
        ModelError: see ``nearest``.
    """
    if rows is not None:  # the same product of another x
        weight, hessian = weight / rows[:, None], hessian * rows[:, None] * rows
        noise *= float(np.square(rows).mean())
    scale = _scale(weight, name, reduce_range)
    order = np.argsort(-np.diag(hessian), kind="stable")  # the loudest first, while many are left that make up for it
    place = np.argsort(order)
    factor = _inverse_factor(hessian[np.ix_(order, order)], noise)
    left = weight[order].astype(np.float64) / scale  # in steps of the scale; what is lost is taken over by the rows below
    values = np.empty_like(left)
    errors = np.empty_like(left)
    for panel in range(0, len(left), PANEL):
        end = min(len(left), panel + PANEL)
        for start in range(panel, end, BLOCK):
            stop = min(end, start + BLOCK)
            for row in range(start, stop):
                neighbour = _rounded_neighbour(values, place, order[row]) if reduce_range else None
                values[row] = np.clip(np.rint(left[row]), *_limits(neighbour))
                errors[row] = (left[row] - values[row]) / factor[row, row]
                left[row + 1 : stop] -= factor[row, row + 1 : stop, None] * errors[row]
            left[stop:end] -= factor[start:stop, stop:end].T @ errors[start:stop]
        left[end:] -= factor[panel:end, end:].T @ errors[panel:end]
    return Int8Weight(values[place].astype(np.int8), scale, rows)


def _inverse_factor(hessian: np.ndarray, noise: float) -> np.ndarray:
    """The upper triangular U [K, K] with U.T @ U the inverse of the Hessian, damped and with the noise of rounded inputs."""
    spread = hessian.astype(np.float64)
    spread[np.diag_indices(len(spread))] += noise + DAMPING * np.diag(spread).mean() + np.finfo(np.float32).tiny
    factor = np.linalg.cholesky(spread[::-1, ::-1])  # of the channels backwards: turned round again it is an upper one
    return _inverse(factor)[::-1, ::-1]


def _inverse(lower: np.ndarray) -> np.ndarray:
    """The inverse of a lower triangular matrix [K, K]: by halves a sixth of the work that inverting any matrix is."""
    size = len(lower)
    if size <= BLOCK:
        return np.asarray(np.linalg.inv(lower))
    half = size // 2
    result = np.zeros_like(lower)
    result[:half, :half], result[half:, half:] = _inverse(lower[:half, :half]), _inverse(lower[half:, half:])
    result[half:, :half] = -result[half:, half:] @ (lower[half:, :half] @ result[:half, :half])
    return result


def _scale(weight: np.ndarray, name: str, reduce_range: bool) -> np.ndarray:
    """The scale of each column [N]. Neighbours sum to PAIR - 1 before rounding, which lifts each by at most a half."""
    scale = np.abs(weight).max(axis=0) / LARGEST
    if not np.isfinite(scale).all():
        raise ModelError(f"weight {name} holds NaN or infinity; the checkpoint is broken, export it again")
    if reduce_range:
        for sign in (1, -1):
            part = np.maximum(weight * sign, 0)
            sums = part[0::2].copy()
            sums[: len(part[1::2])] += part[1::2]
            scale = np.maximum(scale, sums.max(axis=0) / (PAIR - 1))
    return np.where(scale == 0, 1.0, scale).astype(np.float32)


def _rounded_neighbour(values: np.ndarray, place: np.ndarray, channel: int) -> np.ndarray | None:
    """The weights [N] of the channel that ``channel`` is summed with, 2i with 2i+1; None where there is none or it comes later.

    Args:
        values: the weights [K, N] rounded so far, in the order of rounding.
        place: of each channel its row in that order.
    """
    neighbour = channel ^ 1
    if neighbour >= len(place) or place[neighbour] > place[channel]:
        return None
    return np.asarray(values[place[neighbour]])


def _limits(neighbour: np.ndarray | None) -> tuple[np.ndarray | int, np.ndarray | int]:
    """The lowest and highest that weights may be: beside a neighbour's [N], what it leaves of PAIR on its own side of zero."""
    if neighbour is None:
        return -LARGEST, LARGEST
    lowest = -PAIR - np.minimum(neighbour, 0)
    highest = PAIR - np.maximum(neighbour, 0)
    return np.maximum(-LARGEST, lowest), np.minimum(LARGEST, highest)
