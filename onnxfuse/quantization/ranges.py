"""The range of an activation that 256 numbers are spread over, read off a histogram: wider clips less, narrower rounds finer.

    minmax       everything that calibration saw
    percentile   all but the outermost 0.01 %
    entropy      the range whose quantized distribution has the lowest Kullback-Leibler divergence from the real one

Source: Wu et al., Integer Quantization for Deep Learning Inference, 2020, for the three.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onnxfuse.errors import UsageError

KEPT = 0.9999
LEVELS = 256
LIMITS = 64
"""Limits on the absolute value that entropy tries."""


class ActivationScale(NamedTuple):
    """How an activation becomes u8: x is about scale * (u8 - zero_point)."""

    scale: np.float32
    zero_point: np.uint8


def scale_and_zero(low: float, high: float) -> ActivationScale:
    """The scale and zero point of u8 for [low, high], zero included and exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255) or np.float32(1)
    return ActivationScale(scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255)))


def narrowed(counts: np.ndarray, low: float, high: float, how: str) -> tuple[float, float]:
    """The part of [low, high] to quantize, given counts of equal bins over it.

    Raises:
        UsageError: no such way.
    """
    edges = np.linspace(low, high, len(counts) + 1)
    if how == "minmax":
        return low, high
    if how == "percentile":
        below = np.cumsum(counts) / counts.sum()
        first, last = np.searchsorted(below, 1 - KEPT), np.searchsorted(below, KEPT)
        return float(edges[first]), float(edges[last + 1])
    if how == "entropy":
        limits = max(-low, high) * np.geomspace(1, 0.02, LIMITS)
        ranges = [(max(low, -limit), min(high, limit)) for limit in limits.tolist()]
        return min(ranges, key=lambda each: _divergence(counts, edges, *each))
    raise UsageError(f"no way named {how!r} to find a range")


def _divergence(counts: np.ndarray, edges: np.ndarray, low: float, high: float) -> float:
    """Of the quantized distribution from the real one, both over the histogram's bins."""
    scale, zero = scale_and_zero(low, high)
    values = np.clip(np.rint((edges[:-1] + edges[1:]) / 2 / scale) + int(zero), 0, LEVELS - 1).astype(int)
    clipped = np.clip((edges[:-1] + edges[1:]) / 2, low, high)
    place = np.clip(np.searchsorted(edges, clipped, side="right") - 1, 0, len(counts) - 1)
    real = np.bincount(place, counts, len(counts))  # what lies outside lands on the outermost bins
    inside = (edges[1:] > low) & (edges[:-1] < high) & (counts > 0)
    mass = np.bincount(values, np.where(inside, counts, 0), LEVELS)
    width = np.bincount(values, inside, LEVELS)
    quantized = np.where(inside, mass[values] / np.maximum(width[values], 1), 0)
    real, quantized = real / real.sum(), quantized / max(quantized.sum(), 1)
    both = real > 0
    return float((real[both] * np.log(real[both] / np.maximum(quantized[both], 1e-12))).sum())
