"""The range of an activation that gets 256 codes, read off a histogram: wider clips less, narrower rounds finer.

    minmax       everything that calibration saw
    percentile   all but the outermost 0.01 %
    entropy      the range whose quantized distribution has the lowest Kullback-Leibler divergence from the real one

Source: Wu et al., Integer Quantization for Deep Learning Inference, 2020, for the three.
"""

from __future__ import annotations

import numpy as np

from onnxfuse.errors import UsageError

KEPT = 0.9999
LEVELS = 256
STEPS = 64
"""Limits on the absolute value that entropy tries."""


def scale_and_zero(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """The step and zero point of u8 codes for [low, high], zero included and exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = np.float32((high - low) / 255) or np.float32(1)
    return step, np.uint8(np.clip(np.rint(-low / step), 0, 255))


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
        limits = max(-low, high) * np.geomspace(1, 0.02, STEPS)
        ranges = [(max(low, -limit), min(high, limit)) for limit in limits.tolist()]
        return min(ranges, key=lambda each: _divergence(counts, edges, *each))
    raise UsageError(f"no way named {how!r} to find a range")


def _divergence(counts: np.ndarray, edges: np.ndarray, low: float, high: float) -> float:
    """Of the quantized distribution from the real one, both over the histogram's bins."""
    step, zero = scale_and_zero(low, high)
    codes = np.clip(np.rint((edges[:-1] + edges[1:]) / 2 / step) + int(zero), 0, LEVELS - 1).astype(int)
    clipped = np.clip((edges[:-1] + edges[1:]) / 2, low, high)
    place = np.clip(np.searchsorted(edges, clipped, side="right") - 1, 0, len(counts) - 1)
    real = np.bincount(place, counts, len(counts))  # what lies outside lands on the outermost bins
    inside = (edges[1:] > low) & (edges[:-1] < high) & (counts > 0)
    mass = np.bincount(codes, np.where(inside, counts, 0), LEVELS)
    width = np.bincount(codes, inside, LEVELS)
    quantized = np.where(inside, mass[codes] / np.maximum(width[codes], 1), 0)
    real, quantized = real / real.sum(), quantized / max(quantized.sum(), 1)
    both = real > 0
    return float((real[both] * np.log(real[both] / np.maximum(quantized[both], 1e-12))).sum())
