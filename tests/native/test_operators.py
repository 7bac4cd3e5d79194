"""Linear and Attention in ONNX Runtime against numpy in float64."""

import numpy as np
import pytest

from tests.native.models import TOLERANCE, TYPES, activated, attention, close, linear, normed, softmax_attention, weight_of


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("activation", ["", "Gelu", "GeluTanh"])
@pytest.mark.parametrize("parts", ["", "bias", "bias residual", "bias residual gamma beta", "gamma"])
def test_linear_is_its_equation(library, kind, activation, parts):
    rng = np.random.default_rng(1)
    tensors, matrix = weight_of(rng, kind, 96, 136)
    x = rng.normal(size=(3, 7, 96)).astype(np.float32)
    extra = {
        "bias": rng.normal(size=136).astype(np.float32),
        "residual": rng.normal(size=(3, 7, 136)).astype(np.float32),
        "gamma": rng.uniform(0.5, 2, size=136).astype(np.float32),
        "beta": rng.normal(size=136).astype(np.float32),
    }
    chosen = {name: extra[name] for name in parts.split()}
    wanted = activated(x.astype(np.float64) @ matrix + chosen.get("bias", 0), activation) + chosen.get("residual", 0)
    if "gamma" in chosen:
        wanted = normed(wanted, chosen["gamma"].astype(np.float64), chosen.get("beta", 0))
    got = linear(library, {"x": x, **tensors, **chosen}, activation=activation)
    close(got, wanted, TOLERANCE[kind] * (3 if "gamma" in chosen else 1))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("count", [1, 2, 5, 13, 64, 133, 300])
@pytest.mark.parametrize("threads", [1, 3])
def test_linear_of_any_count_of_rows(library, kind, count, threads):
    rng = np.random.default_rng(count)
    tensors, matrix = weight_of(rng, kind, 67, 259, with_rows=True)
    x = rng.normal(size=(count, 67)).astype(np.float32)
    gamma = np.ones(259, np.float32)
    got = linear(library, {"x": x, "gamma": gamma, **tensors}, threads=threads)
    close(got, normed(x.astype(np.float64) @ matrix, 1, 0), 3 * TOLERANCE[kind])
    alone = linear(library, {"x": x[-1:], "gamma": gamma, **tensors}, threads=threads)
    np.testing.assert_array_equal(alone[0], got[-1])


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(0, 8), (2, 0, 8), (0, 3, 8)])
def test_linear_of_nothing_is_nothing(library, kind, shape):
    tensors, _ = weight_of(np.random.default_rng(0), kind, 8, 5)
    assert linear(library, {"x": np.zeros(shape, np.float32), **tensors}).shape == (*shape[:-1], 5)


def test_one_far_element_of_a_row_costs_the_others_nothing(library):
    rng = np.random.default_rng(5)
    tensors, matrix = weight_of(rng, "int8", 256, 64)
    x = rng.normal(size=(4, 256)).astype(np.float32)
    x[1, 17] = 4000
    close(linear(library, {"x": x, **tensors})[1:2], x[1:2].astype(np.float64) @ matrix, 1e-4)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(library, kind, value):
    rng = np.random.default_rng(2)
    tensors, _ = weight_of(rng, kind, 64, 48)
    x = rng.normal(size=(6, 64)).astype(np.float32)
    clean = linear(library, {"x": x, **tensors})
    x[2, 5] = value
    got = linear(library, {"x": x, **tensors})
    assert not np.isfinite(got[2]).any()
    np.testing.assert_array_equal(np.delete(got, 2, 0), np.delete(clean, 2, 0))


@pytest.mark.parametrize("size", [1, 8, 32, 40, 64, 80, 128])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_attention_of_heads_of_any_size(library, size, precision):
    rng = np.random.default_rng(size)
    bounds, width = [0, 5, 5, 70, 71, 200], 3 * size
    q, k, v = (rng.normal(size=(200, width)).astype(np.float32) for _ in range(3))
    got = attention(library, q, k, v, bounds, num_heads=3, precision=precision)
    close(got, softmax_attention(q, k, v, 3, bounds, bounds), 3e-6 if precision == "float32" else 2e-2)
    merged = attention(library, np.concatenate([q, k, v], 1), bounds=bounds, num_heads=3, precision=precision)
    np.testing.assert_array_equal(merged, got)


@pytest.mark.parametrize("length", [1, 3, 16, 17, 47, 49, 96, 255, 257, 530, 1100])
@pytest.mark.parametrize("threads", [1, 3])
def test_attention_of_any_length(library, length, threads):
    rng = np.random.default_rng(length)
    x = 2 * rng.normal(size=(2, length, 3 * 64)).astype(np.float32)
    bias = np.where(rng.random(2 * length) < 0.3, -10000.0, 0.0).astype(np.float32)
    flat, bounds = x.reshape(-1, 192), [0, length, 2 * length]
    wanted = softmax_attention(flat[:, :64], flat[:, 64:128], flat[:, 128:], 2, bounds, bounds, bias)
    got = attention(library, x, bias=bias.reshape(2, 1, 1, length), threads=threads, num_heads=2)
    close(got.reshape(-1, 64), wanted, 3e-6)


@pytest.mark.parametrize("value", [-np.inf, float(np.finfo(np.float32).min), -1e4, -100.0])
def test_attention_leaves_masked_keys_out(library, value):
    rng = np.random.default_rng(3)
    q, k, v = (rng.normal(size=(2, 300, 32)).astype(np.float32) for _ in range(3))
    bias = np.zeros(600, np.float32)
    bias[40:600:2] = value
    bias[:280] = value
    flat = [a.reshape(600, 32) for a in (q, k, v)]
    wanted = softmax_attention(*flat, 1, [0, 300, 600], [0, 300, 600], bias)
    close(attention(library, q, k, v, bias=bias, num_heads=1).reshape(600, 32), wanted, 3e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_attention_to_nothing_but_minus_infinity_is_nan(library, precision):
    x = np.ones((2, 300, 96), np.float32)
    bias = np.zeros((2, 300), np.float32)
    bias[1] = -np.inf
    got = attention(library, x, bias=bias, num_heads=1, precision=precision)
    assert np.isfinite(got[0]).all() and np.isnan(got[1]).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nan_stays_in_its_sequence(library, precision):
    x = np.random.default_rng(0).normal(size=(40, 192)).astype(np.float32)
    clean = attention(library, x, bounds=[0, 17, 40], num_heads=2, precision=precision)
    x[20] = np.nan
    got = attention(library, x, bounds=[0, 17, 40], num_heads=2, precision=precision)
    np.testing.assert_array_equal(got[:17], clean[:17])
    assert np.isnan(got[17:]).all()


def test_attention_with_one_query_a_sequence_and_wider_values(library):
    rng = np.random.default_rng(8)
    bounds = [0, 4, 4, 60, 257]
    q, k = rng.normal(size=(4, 64)).astype(np.float32), rng.normal(size=(257, 64)).astype(np.float32)
    v = rng.normal(size=(257, 96)).astype(np.float32)
    got = attention(library, q, k, v, bounds, num_heads=2, scale=0.3)
    close(got, softmax_attention(q, k, v, 2, bounds, range(5), scale=0.3), 3e-6)
    assert (got[1] == 0).all()


def test_tokens_of_no_sequence_are_zeros(library):
    x = np.random.default_rng(0).normal(size=(9, 24)).astype(np.float32)
    got = attention(library, x, bounds=[0, 2, 7], num_heads=1)
    assert (got[7:] == 0).all() and (got[:7] != 0).any(1).all()


@pytest.mark.parametrize("shape", [(0, 5, 24), (2, 0, 24), (2, 1, 24)])
def test_attention_of_little(library, shape):
    x = np.ones(shape, np.float32)
    assert attention(library, x, num_heads=2).shape == (*shape[:2], 8)


def test_attention_without_sequences(library):
    assert attention(library, np.zeros((0, 24), np.float32), bounds=np.zeros(1, np.int64), num_heads=2).shape == (0, 8)
    got = attention(library, np.ones((3, 24), np.float32), bounds=np.zeros(1, np.int64), num_heads=2)
    assert got.shape == (3, 8) and (got == 0).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_sequence_alone_is_as_with_neighbours(library, precision):
    rng = np.random.default_rng(4)
    lengths = [3, 130, 48, 1, 97, 512, 20]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    x = rng.normal(size=(bounds[-1], 3 * 64)).astype(np.float32)
    got = attention(library, x, bounds=bounds, num_heads=2, precision=precision)
    for b, length in enumerate(lengths):
        rows = slice(bounds[b], bounds[b + 1])
        alone = attention(library, x[rows], bounds=[0, length], num_heads=2, threads=1, precision=precision)
        np.testing.assert_array_equal(alone, got[rows])
