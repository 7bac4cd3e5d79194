"""Weights in int8: how close, and never clipped where they must not be."""

import numpy as np
import onnx.parser
import pytest

from onnxfuse.errors import ModelError
from onnxfuse.quantization import weights
from onnxfuse.quantization.weights import LARGEST, PAIR, gptq, nearest
from onnxfuse.runtime.sessions import open_session, run

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((64, 8)).astype(np.float32) * np.logspace(-3, 3, 8, dtype=np.float32)


def hessian_of(x):
    return (x.T @ x / len(x)).astype(np.float32)


def test_values_are_symmetric_per_channel_and_close():
    found = nearest(WEIGHT, "w")
    assert found.values.dtype == np.int8
    assert (np.abs(found.values).max(axis=0) == 127).all()
    assert (np.abs(found.values * found.scale - WEIGHT) <= found.scale / 2 * 1.0001).all()


def test_a_column_of_zeros_stays_zero():
    found = nearest(np.zeros((4, 2), np.float32), "w")
    assert not found.values.any()
    assert (found.scale == 1).all()


def pair_sums(values):
    """The largest sum of two neighbours of one sign."""
    both = values.astype(int).reshape(len(values) // 2, 2, -1)
    return max(np.maximum(both * sign, 0).sum(axis=1).max() for sign in (1, -1))


CORRELATED = (RNG.standard_normal((500, 64)) @ RNG.standard_normal((64, 64))).astype(np.float32)


@pytest.mark.parametrize(
    "rounded",
    [lambda w: nearest(w, "w", reduce_range=True), lambda w: gptq(w, hessian_of(CORRELATED), 0.0, "w", reduce_range=True)],
)
@pytest.mark.parametrize("kind", ["normal", "equal", "alternating"])
def test_neighbours_never_clip_and_run_exactly(rounded, kind):
    weight = {
        "normal": WEIGHT,
        "equal": np.ones((64, 8), np.float32),
        "alternating": np.tile([[1.0], [-1.0]], (32, 8)).astype(np.float32),
    }[kind]
    values = rounded(weight).values
    assert pair_sums(values) <= PAIR
    assert 255 * pair_sums(values) < 2**15  # what 16 bits hold
    text = """<ir_version: 8, opset_import: ["": 17]> g (uint8[1,64] x, int8[64,8] w) => (int32[1,8] y) { y = MatMulInteger(x, w) }"""
    got = run(
        open_session(onnx.parser.parse_model(text).SerializeToString()), {"x": np.full((1, 64), 255, np.uint8), "w": values}
    )["y"]
    np.testing.assert_array_equal(got[0], 255 * values.astype(np.int32).sum(axis=0))


@pytest.mark.parametrize(
    "rounded",
    [
        lambda w: nearest(w, "w", reduce_range=True),
        lambda w: gptq(w, np.eye(len(w), dtype=np.float32), 0.0, "w", reduce_range=True),
    ],
)
def test_a_last_channel_without_a_neighbour_uses_all_values(rounded):
    weight = np.ones((5, 2), np.float32)
    weight[:4] = 0.25
    values = rounded(weight).values
    assert (values[4] == LARGEST).all()
    assert pair_sums(values[:4]) <= PAIR


def test_only_neighbours_share_a_limit():
    """Channels 1 and 2 are none: both may use all values."""
    weight = np.zeros((4, 1), np.float32)
    weight[1:3] = 1
    assert nearest(weight, "w", reduce_range=True).values[:, 0].tolist() == [0, LARGEST, LARGEST, 0]
    assert gptq(weight, np.eye(4, dtype=np.float32), 0.0, "w", reduce_range=True).values[:, 0].tolist() == [
        0,
        LARGEST,
        LARGEST,
        0,
    ]


def test_neighbours_of_two_signs_share_no_limit():
    weight = np.array([[1], [-1]], np.float32)
    assert nearest(weight, "w", reduce_range=True).values[:, 0].tolist() == [LARGEST, -LARGEST]


def test_without_the_limit_neighbours_would_clip():
    assert pair_sums(nearest(np.ones((64, 8), np.float32), "w").values) == 2 * LARGEST


def test_gptq_keeps_the_product_closer_than_nearest():
    weight = RNG.standard_normal((64, 32)).astype(np.float32)
    errors = []
    for found in (nearest(weight, "w"), gptq(weight, hessian_of(CORRELATED), 0.0, "w")):
        errors.append(np.square(CORRELATED @ (found.values * found.scale - weight)).mean())
    assert errors[1] < errors[0] / 2


def test_gptq_does_not_depend_on_its_blocks(monkeypatch):
    weight = RNG.standard_normal((64, 32)).astype(np.float32)
    whole = gptq(weight, hessian_of(CORRELATED), 0.0, "w").values
    monkeypatch.setattr(weights, "BLOCK", 10)
    parts = gptq(weight, hessian_of(CORRELATED), 0.0, "w").values
    assert (whole == parts).mean() > 0.99  # sums in another order may round a weight the other way


def test_gptq_of_independent_channels_is_nearest():
    weight = RNG.standard_normal((16, 4)).astype(np.float32)
    np.testing.assert_array_equal(gptq(weight, np.eye(16, dtype=np.float32), 0.0, "w").values, nearest(weight, "w").values)


def test_gptq_of_a_channel_that_is_always_zero():
    hessian = np.eye(16, dtype=np.float32)
    hessian[3, 3] = 0
    weight = RNG.standard_normal((16, 4)).astype(np.float32)
    found = gptq(weight, hessian, 0.0, "w")
    assert np.abs(found.values * found.scale - weight).max() <= found.scale.max() / 2 * 1.0001


def test_rounding_of_x_counts_like_a_channel_that_varies_alone():
    """The noise is added to the Hessian's diagonal: much of it makes channels independent, and rounding nearest."""
    weight = RNG.standard_normal((64, 32)).astype(np.float32)
    hessian = hessian_of(CORRELATED)
    same = [
        (gptq(weight, hessian, noise, "w").values == nearest(weight, "w").values).mean() for noise in (0.0, hessian.max() * 1e4)
    ]
    assert same[0] < 0.9
    assert same[1] == 1


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(broken):
    weight = WEIGHT.copy()
    weight[3, 2] = broken
    for rounded in (lambda: nearest(weight, "w"), lambda: gptq(weight, np.eye(64, dtype=np.float32), 0.0, "w")):
        with pytest.raises(ModelError, match="weight w holds NaN or infinity; the checkpoint is broken"):
            rounded()
