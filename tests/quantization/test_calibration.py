"""What calibration keeps of activations, and that it keeps no more of many samples than of few."""

import tracemalloc

import numpy as np
import pytest

from onnxfuse.errors import ModelError, UsageError
from onnxfuse.quantization import calibration
from onnxfuse.quantization.calibration import BATCHES, BINS, Activations, histograms, observe
from onnxfuse.quantization.ranges import narrowed, scale_and_zero
from tests.conftest import fill, parse

TEXT = "g (float[B,S,8] x, float[8,2048] w) => (float[B,S,2048] y) { h = Relu(x)  y = MatMul(h, w) }"


def model():
    return fill(parse(TEXT), w=(8, 2048))


def batches(count):
    return lambda: ({"x": np.random.default_rng(seed).standard_normal((4, 16, 8)).astype(np.float32)} for seed in range(count))


def everything(count):
    return np.concatenate([np.maximum(feeds["x"], 0).reshape(-1, 8) for feeds in batches(count)()])


def test_the_summary_is_that_of_all_rows():
    both = observe(model(), {"h": 8, "x": 8}, batches(5), hessian=True)
    given = np.concatenate([feeds["x"].reshape(-1, 8) for feeds in batches(5)()])
    np.testing.assert_array_equal(both["x"].low, given.min(axis=0))
    seen, rows = both["h"], everything(5)
    np.testing.assert_array_equal(seen.low, rows.min(axis=0))
    np.testing.assert_array_equal(seen.high, rows.max(axis=0))
    np.testing.assert_allclose(seen.hessian, rows.T @ rows / len(rows), rtol=1e-5)
    np.testing.assert_allclose(seen.square, np.square(rows).mean(axis=0), rtol=1e-5)
    assert seen.batch_high.shape == (5, 8)
    scale = np.arange(1, 9, dtype=np.float32)
    np.testing.assert_allclose(seen.divided(scale).hessian, (rows / scale).T @ (rows / scale) / len(rows), rtol=1e-5)


def test_ranges_hold_zero_and_the_largest_is_absolute():
    def of(low, high):
        low, high = np.array(low, np.float32), np.array(high, np.float32)
        return Activations(low, high, low[None], high[None], high, None)

    seen = of([-3, 1, -5], [2, 4, -1])
    assert seen.range == (-5, 4)
    assert seen.largest.tolist() == [3, 4, 5]
    assert of([2], [3]).range == (0, 3)
    assert of([-3], [-2]).range == (-3, 0)
    halves = seen.divided(np.array([1, 2, 4], np.float32))
    assert halves.hessian is None
    assert (halves.low.tolist(), halves.high.tolist(), halves.batch_low.tolist(), halves.batch_high.tolist()) == (
        [-3, 0.5, -1.25],
        [2, 2, -0.25],
        [[-3, 0.5, -1.25]],
        [[2, 2, -0.25]],
    )
    assert halves.square.tolist() == [2, 1, -1 / 16]


@pytest.mark.parametrize("hessian", [True, False])
def test_ranges_of_single_batches_are_kept_up_to_a_number(hessian):
    seen, rows = observe(model(), {"h": 8}, batches(BATCHES + 9), hessian=hessian)["h"], everything(BATCHES + 9)
    assert seen.batch_low.shape == seen.batch_high.shape == (BATCHES, 8)
    np.testing.assert_array_equal(seen.batch_high[3], rows.reshape(-1, 64, 8)[3].max(axis=0))
    np.testing.assert_array_equal(seen.high, rows.max(axis=0))
    np.testing.assert_allclose(seen.square, np.square(rows).mean(axis=0), rtol=1e-5)
    assert (seen.hessian is not None) == hessian


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_enough(broken):
    def feeds():
        for each in batches(3)():
            each["x"][1, 2, 5] = broken
            yield each

    with pytest.raises(ModelError, match="activation x is not finite on the calibration data"):
        observe(model(), {"x": 8}, feeds, hessian=False)


@pytest.mark.parametrize(("limit", "hessian", "passes"), [(512, True, 1), (511, True, 2), (1, True, 2), (1, False, 1)])
def test_a_value_whose_hessian_does_not_fit_takes_a_pass_of_its_own(monkeypatch, limit, hessian, passes):
    monkeypatch.setattr(calibration, "HESSIAN_BYTES", limit)
    given = []
    found = observe(model(), {"h": 8, "x": 8}, lambda: given.append(1) or batches(2)(), hessian=hessian)
    assert (len(given), list(found)) == (passes, ["h", "x"])
    assert observe(model(), {}, batches(2), hessian=hessian) == {}


def test_values_are_watched_in_parts_when_their_moments_are_large(monkeypatch):
    whole = observe(model(), {"h": 8, "x": 8}, batches(3), hessian=True)
    monkeypatch.setattr(calibration, "HESSIAN_BYTES", 300)
    parts = observe(model(), {"h": 8, "x": 8}, batches(3), hessian=True)
    assert list(parts) == list(whole)
    np.testing.assert_array_equal(parts["h"].hessian, whole["h"].hessian)


@pytest.mark.parametrize("limit", [1 << 30, 300])
def test_what_the_model_gives_is_kept_once_where_it_is_asked_for(monkeypatch, limit):
    monkeypatch.setattr(calibration, "HESSIAN_BYTES", limit)
    given, weight = [], model().graph.initializers["w"].const_value.numpy()
    observe(model(), {"h": 8, "x": 8}, batches(3), hessian=True, answers=given)
    assert [list(outputs) for outputs in given] == [["y"]] * 3
    for outputs, feeds in zip(given, batches(3)(), strict=True):
        np.testing.assert_allclose(outputs["y"], np.maximum(feeds["x"], 0) @ weight, rtol=1e-4, atol=1e-5)


def test_memory_does_not_grow_with_the_samples():
    def peak(count):
        tracemalloc.start()
        observe(model(), {"h": 8}, batches(count), hessian=True)
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
        ends = [(value - int(zero)) * float(step) for value in (0, 255)]  # what the outermost u8 stand for
        assert step > 0
        assert ends[0] <= min(low, 0) + step / 2
        assert ends[1] >= max(high, 0) - step / 2
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
