"""What calibration keeps of activations, and that it keeps no more of many samples than of few."""

import tracemalloc

import numpy as np
import pytest

from onnxfuse.errors import UsageError
from onnxfuse.quantize import calibration
from onnxfuse.quantize.calibration import BINS, histograms, observe
from onnxfuse.quantize.ranges import narrowed, scale_and_zero
from tests.conftest import fill, parse

TEXT = "g (float[B,S,8] x, float[8,2048] w) => (float[B,S,2048] y) { h = Relu(x)  y = MatMul(h, w) }"


def model():
    return fill(parse(TEXT), w=(8, 2048))


def batches(count):
    return lambda: ({"x": np.random.default_rng(seed).standard_normal((4, 16, 8)).astype(np.float32)} for seed in range(count))


def everything(count):
    return np.concatenate([np.maximum(feeds["x"], 0).reshape(-1, 8) for feeds in batches(count)()])


def test_the_summary_is_that_of_all_rows():
    seen, rows = observe(model(), {"h": 8}, batches(5), moments=True)["h"], everything(5)
    np.testing.assert_array_equal(seen.low, rows.min(axis=0))
    np.testing.assert_array_equal(seen.high, rows.max(axis=0))
    np.testing.assert_allclose(seen.moments, rows.T @ rows / len(rows), rtol=1e-5)
    np.testing.assert_allclose(seen.square, np.square(rows).mean(axis=0), rtol=1e-5)
    assert seen.batch_high.shape == (5, 8)
    scale = np.arange(1, 9, dtype=np.float32)
    np.testing.assert_allclose(seen.divided(scale).moments, (rows / scale).T @ (rows / scale) / len(rows), rtol=1e-5)


def test_values_are_watched_in_parts_when_their_moments_are_large(monkeypatch):
    whole = observe(model(), {"h": 8, "x": 8}, batches(3), moments=True)
    monkeypatch.setattr(calibration, "MOMENT_BYTES", 300)
    parts = observe(model(), {"h": 8, "x": 8}, batches(3), moments=True)
    assert list(parts) == list(whole)
    np.testing.assert_array_equal(parts["h"].moments, whole["h"].moments)


def test_memory_does_not_grow_with_the_samples():
    def peak(count):
        tracemalloc.start()
        observe(model(), {"h": 8}, batches(count), moments=True)
        histograms(model(), {"h": 8}, {"h": (0.0, 5.0)}, batches(count))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found
    peak(80)  # what is imported and cached on the way
    assert peak(800) < 1.1 * peak(80)


def test_a_histogram_counts_every_number():
    counts = histograms(model(), {"h": 8}, {"h": (0.0, 5.0)}, batches(3))["h"]
    assert counts.shape == (BINS,)
    assert counts.sum() == everything(3).size
    np.testing.assert_array_equal(counts, np.histogram(everything(3), BINS, (0.0, 5.0))[0])


def test_zero_is_exact():
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)):
        step, zero = scale_and_zero(low, high)
        codes = [(code - int(zero)) * float(step) for code in (0, 255)]  # the values that the outermost codes stand for
        assert step > 0
        assert codes[0] <= min(low, 0) + step / 2
        assert codes[1] >= max(high, 0) - step / 2
    assert scale_and_zero(-1.0, 1.55)[1] == 100


@pytest.mark.parametrize("how", ["minmax", "percentile", "entropy"])
def test_a_lone_outlier_widens_only_minmax(how):
    values = np.append(np.random.default_rng(0).standard_normal(100_000), 100.0)
    counts, _ = np.histogram(values, BINS, (-5.0, 100.0))
    low, high = narrowed(counts, -5.0, 100.0, how)
    assert high == 100 if how == "minmax" else high < 15
    assert low < -3 if how != "entropy" else low < 0


def test_an_even_spread_keeps_its_range():
    counts = np.full(BINS, 100)
    for how in ("percentile", "entropy"):
        low, high = narrowed(counts, -1.0, 1.0, how)
        assert low < -0.98
        assert high > 0.98


def test_an_unknown_way_is_refused():
    with pytest.raises(UsageError, match="no way named"):
        narrowed(np.ones(BINS), 0.0, 1.0, "other")
