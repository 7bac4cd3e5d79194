"""Weights as codes: how close, and never clipped where they must not be."""

import numpy as np
import onnx.parser
import pytest

from onnxfuse.errors import ModelError
from onnxfuse.quantize import weights
from onnxfuse.quantize.weights import LARGEST, PAIR, gptq, nearest
from onnxfuse.runtime.sessions import open_session, run

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((64, 8)).astype(np.float32) * np.logspace(-3, 3, 8, dtype=np.float32)


def moments_of(x):
    return (x.T @ x / len(x)).astype(np.float32)


def test_codes_are_symmetric_per_channel_and_close():
    found = nearest(WEIGHT, "w")
    assert found.codes.dtype == np.int8
    assert (np.abs(found.codes).max(axis=0) == 127).all()
    assert (np.abs(found.codes * found.scale - WEIGHT) <= found.scale / 2 * 1.0001).all()


def test_a_column_of_zeros_stays_zero():
    found = nearest(np.zeros((4, 2), np.float32), "w")
    assert not found.codes.any()
    assert (found.scale == 1).all()


def pair_sums(codes):
    """The largest sum of two neighbours of one sign."""
    both = codes.astype(int).reshape(len(codes) // 2, 2, -1)
    return max(np.maximum(both * sign, 0).sum(axis=1).max() for sign in (1, -1))


CORRELATED = (RNG.standard_normal((500, 64)) @ RNG.standard_normal((64, 64))).astype(np.float32)


@pytest.mark.parametrize(
    "rounded", [lambda w: nearest(w, "w", pairs=True), lambda w: gptq(w, moments_of(CORRELATED), 0.0, "w", pairs=True)]
)
@pytest.mark.parametrize("kind", ["normal", "equal", "alternating"])
def test_neighbours_never_clip_and_run_exactly(rounded, kind):
    weight = {
        "normal": WEIGHT,
        "equal": np.ones((64, 8), np.float32),
        "alternating": np.tile([[1.0], [-1.0]], (32, 8)).astype(np.float32),
    }[kind]
    codes = rounded(weight).codes
    assert pair_sums(codes) <= PAIR
    assert 255 * pair_sums(codes) < 2**15  # what 16 bits hold
    text = """<ir_version: 8, opset_import: ["": 17]> g (uint8[1,64] x, int8[64,8] w) => (int32[1,8] y) { y = MatMulInteger(x, w) }"""
    got = run(
        open_session(onnx.parser.parse_model(text).SerializeToString()), {"x": np.full((1, 64), 255, np.uint8), "w": codes}
    )["y"]
    np.testing.assert_array_equal(got[0], 255 * codes.astype(np.int32).sum(axis=0))


@pytest.mark.parametrize(
    "rounded", [lambda w: nearest(w, "w", pairs=True), lambda w: gptq(w, np.eye(len(w), dtype=np.float32), 0.0, "w", pairs=True)]
)
def test_a_last_channel_without_a_neighbour_uses_all_codes(rounded):
    weight = np.ones((5, 2), np.float32)
    weight[:4] = 0.25
    codes = rounded(weight).codes
    assert (codes[4] == LARGEST).all()
    assert pair_sums(codes[:4]) <= PAIR


def test_only_neighbours_share_a_limit():
    """Channels 1 and 2 are none: both may use all codes."""
    weight = np.zeros((4, 1), np.float32)
    weight[1:3] = 1
    assert nearest(weight, "w", pairs=True).codes[:, 0].tolist() == [0, LARGEST, LARGEST, 0]
    assert gptq(weight, np.eye(4, dtype=np.float32), 0.0, "w", pairs=True).codes[:, 0].tolist() == [0, LARGEST, LARGEST, 0]


def test_neighbours_of_two_signs_share_no_limit():
    weight = np.array([[1], [-1]], np.float32)
    assert nearest(weight, "w", pairs=True).codes[:, 0].tolist() == [LARGEST, -LARGEST]


def test_without_the_limit_neighbours_would_clip():
    assert pair_sums(nearest(np.ones((64, 8), np.float32), "w").codes) == 2 * LARGEST


def test_gptq_keeps_the_product_closer_than_nearest():
    weight = RNG.standard_normal((64, 32)).astype(np.float32)
    errors = []
    for found in (nearest(weight, "w"), gptq(weight, moments_of(CORRELATED), 0.0, "w")):
        errors.append(np.square(CORRELATED @ (found.codes * found.scale - weight)).mean())
    assert errors[1] < errors[0] / 2


def test_gptq_does_not_depend_on_its_blocks(monkeypatch):
    weight = RNG.standard_normal((64, 32)).astype(np.float32)
    whole = gptq(weight, moments_of(CORRELATED), 0.0, "w").codes
    monkeypatch.setattr(weights, "BLOCK", 10)
    parts = gptq(weight, moments_of(CORRELATED), 0.0, "w").codes
    assert (whole == parts).mean() > 0.99  # sums in another order may round a code the other way


def test_gptq_of_independent_channels_is_nearest():
    weight = RNG.standard_normal((16, 4)).astype(np.float32)
    np.testing.assert_array_equal(gptq(weight, np.eye(16, dtype=np.float32), 0.0, "w").codes, nearest(weight, "w").codes)


def test_gptq_of_a_channel_that_is_always_zero():
    moments = np.eye(16, dtype=np.float32)
    moments[3, 3] = 0
    weight = RNG.standard_normal((16, 4)).astype(np.float32)
    found = gptq(weight, moments, 0.0, "w")
    assert np.abs(found.codes * found.scale - weight).max() <= found.scale.max() / 2 * 1.0001


def test_rounding_of_x_counts_like_a_channel_that_varies_alone():
    """The noise is added to each channel's moment: much of it makes channels independent, and rounding nearest."""
    weight = RNG.standard_normal((64, 32)).astype(np.float32)
    moments = moments_of(CORRELATED)
    same = [
        (gptq(weight, moments, noise, "w").codes == nearest(weight, "w").codes).mean() for noise in (0.0, moments.max() * 1e4)
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
