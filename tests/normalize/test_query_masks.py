"""Masks that are another for each query or head: rows without a key stay zero, and a bias joins the mask."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.fusions import attention, attention_on_heads
from onnxfuse.normalize import query_masks, softmax
from onnxfuse.rewrite import Trace, rewrite
from tests.conftest import analysis_of, apply, assert_same, ops, parse

SIZES = {"B": 2, "S": 5}
CONSTANTS = (
    "<int64[4] split = {0, 0, 2, 4}, int64[3] merge = {0, 0, 8}, int64[3] odd = {0, -1, 4}, int64[4] apart = {0, 0, 8, 1}, float zero = {0.0}, float one = {1.0}, "
    "float inf = {-1.0}, float low = {-1e9}, float lowest = {-3.4028234663852886e38}, float[1] zeros = {0.0}, float scale = {0.3}>"
)
HEADS = (
    "q4 = Reshape(x, split)  q = Transpose<perm = [0, 2, 1, 3]>(q4)  k4 = Reshape(key, split)  k = Transpose<perm = [0, 2, 3, 1]>(k4)  "
    "v4 = Reshape(value, split)  v = Transpose<perm = [0, 2, 1, 3]>(v4)  product = MatMul(q, k)  s = Mul(product, scale)  "
)
REPAIRED = "m = Where(keep, zero, inf)  a = Add(s, m)  p = Softmax<axis = -1>(a)  nan = IsNaN(p)  r = Where(nan, zero, p)  c = MatMul(r, v)  "
MERGED = "t = Transpose<perm = [0, 2, 1, 3]>(c)  y = Reshape(t, merge)"
BIASED = "a = Add(s, bias)  b = Add(a, mask)  p = Softmax<axis = -1>(b)  c = MatMul(p, v)  "


def build(body, mask="bool[B,1,S,S] keep", out="float[B,S,8] y"):
    """onnx's text has no infinity: it is set on the constant."""
    model = parse(f"g (float[B,S,8] x, float[B,S,8] key, float[B,S,8] value, {mask}) => ({out}) {CONSTANTS} {{ {body} }}")
    for value in (model.graph.initializers.get("inf"),):
        if value is not None:
            value.const_value = ir.tensor(np.array(-np.inf, dtype=np.float32))
    return model


def windows() -> np.ndarray:
    """Near keys, of which the first row has the last two alone: its first queries have none."""
    near = np.abs(np.arange(5)[:, None] - np.arange(5)) <= 1
    return np.stack([near & (np.arange(5) > 2), near])[:, None]


@pytest.mark.parametrize(
    "body", [REPAIRED, REPAIRED.replace("m = Where(keep, zero, inf)  a = Add(s, m)", "a = Where(keep, s, inf)")]
)
def test_queries_without_a_key_stay_zero(body):
    before, after = build(HEADS + body + MERGED), build(HEADS + body + MERGED)
    apply(attention.RULES, after)
    assert "Attention" in ops(after)
    assert "IsNaN" not in ops(after)
    assert not windows()[0].any(axis=-1).all()
    assert_same(before, after, SIZES, keep=windows())


HIDDEN = "m = Where(keep, zero, lowest)  a = Add(s, m)  p = Softmax<axis = -1>(a)  c = MatMul(p, v)  "
TURNED = (  # as behind rotary positions
    "q0 = Reshape(x, split)  q1 = Transpose<perm = [0, 2, 1, 3]>(q0)  q = Neg(q1)  k0 = Reshape(key, split)  "
    "k1 = Transpose<perm = [0, 2, 1, 3]>(k0)  k2 = Neg(k1)  k = Transpose<perm = [0, 1, 3, 2]>(k2)  "
    "v4 = Reshape(value, split)  v = Transpose<perm = [0, 2, 1, 3]>(v4)  product = MatMul(q, k)  s = Mul(product, scale)  "
)


@pytest.mark.parametrize("heads", [HEADS, TURNED])
def test_queries_whose_keys_all_have_the_lowest_number_take_them_alike(heads):
    """As Softmax does; ONNX Runtime's operator gives zeros there."""
    before, after = build(heads + HIDDEN + MERGED), build(heads + HIDDEN + MERGED)
    apply((*attention.RULES, *attention_on_heads.RULES), after)
    assert ops(after).count("Attention") == ops(after).count("Max") == 1
    assert_same(before, after, SIZES, keep=windows())


def test_a_mask_of_keys_alone_has_no_floor():
    model = build(HEADS + HIDDEN + MERGED, "bool[B,1,1,S] keep")
    apply(attention.RULES, model)
    assert ("Attention" in ops(model), "Max" in ops(model)) == (True, False)


def test_an_operator_keeps_its_mask():
    body = HEADS.replace("[0, 2, 3, 1]", "[0, 2, 1, 3]").replace("product = MatMul(q, k)  s = Mul(product, scale)  ", "")
    before, after = (build(body + "c = Attention(q, k, v, mask)  " + MERGED, "float[B,1,S,S] mask") for _ in range(2))
    apply(attention.RULES, after)
    assert "Max" not in ops(after)
    assert_same(before, after, SIZES, mask=np.where(windows(), 0, np.finfo(np.float32).min).astype(np.float32))


def test_a_mask_of_keys_alone_needs_no_repair():
    model = build(HEADS + REPAIRED + MERGED, "bool[B,1,1,S] keep")
    apply(attention.RULES, model)
    assert ops(model).count("Where") == 1


@pytest.mark.parametrize(
    ("body", "mask", "finite"),
    [
        (REPAIRED, "bool[B,1,S,S] keep", False),
        (REPAIRED, "bool[S] keep", False),  # for the batch: nothing tells whose queries
        (REPAIRED, "bool[] keep", False),
        (REPAIRED, "bool[1,S] keep", True),
        (
            REPAIRED.replace("nan = IsNaN(p)  r = Where(nan, zero, p)  c = MatMul(r, v)", "c = MatMul(p, v)"),
            "bool[B,1,S,S] keep",
            True,
        ),
    ],
)
def test_a_mask_is_made_finite_where_no_single_query_keeps_zeros(body, mask, finite):
    model = build(HEADS + body + MERGED, mask)
    assert rewrite(model, [rule for rule in softmax.RULES if rule.name == "mask-finite"], analysis_of(model), Trace()) == finite


SCORES = (
    "k = Transpose<perm = [0, 2, 1]>(key)  s = MatMul(x, k)  a = Add(s, bias)  b = Add(a, mask)  p = Softmax<axis = -1>(b)  "
    "y = MatMul(p, value)"
)


def test_a_bias_of_scores_without_heads_stays():
    model, trace = build(SCORES, "float[B,S,S] bias, float[B,1,S] mask"), Trace()
    assert not rewrite(model, [rule for rule in query_masks.RULES if rule.name == "bias-mask"], analysis_of(model), trace)
    assert "the bias is another in each row of the batch" in trace.misses["bias-mask"]["seen"]


@pytest.mark.parametrize("bias", ["float[1,2,S,S] bias", "float[2,S,S] bias", "float[S,S] bias"])
@pytest.mark.parametrize("body", [BIASED, BIASED.replace("Add(s, bias)", "Add(bias, product)").replace("(a, mask)", "(mask, a)")])
def test_a_bias_of_all_rows_joins_the_mask(body, bias):
    text = HEADS + body + MERGED
    before, after = (build(text, f"{bias}, float[B,1,1,S] mask") for _ in range(2))
    apply(attention.RULES, after)
    assert "Attention" in ops(after)
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("name", "body", "mask", "reason"),
    [
        ("mask-finite", REPAIRED, "bool[B,1,S,S] keep", "rows without a key give zeros"),
        ("context-cleared", REPAIRED.replace("(keep, zero", "(keep, one"), "bool[B,1,S,S] keep", "none is 1.0, wanted 0.0"),
        ("context-cleared", REPAIRED.replace("(nan, zero", "(nan, one"), "bool[B,1,S,S] keep", "zero is 1.0, wanted 0.0"),
        ("context-cleared", REPAIRED.replace("inf)", "low)"), "bool[B,1,S,S] keep", "the fill value is finite"),
        ("context-cleared", REPAIRED.replace("axis = -1", "axis = 1"), "bool[B,1,S,S] keep", "the softmax is not over the keys"),
        ("context-cleared", REPAIRED, "bool[S,S] keep", "the mask has other dimensions than the scores"),
        ("bias-mask", BIASED, "float[B,2,S,S] bias, float[B,1,1,S] mask", "the bias is another in each row of the batch"),
        ("bias-mask", BIASED, "float[1,2,S,1] bias, float[B,1,1,S] mask", "the bias or the mask is not over the keys"),
        ("bias-mask", BIASED, "float[1,2,S,S] bias, float[B,1,1,1] mask", "the bias or the mask is not over the keys"),
    ],
)
def test_a_guard_line_refuses(name, body, mask, reason):
    model = build(HEADS + body + MERGED, mask)
    trace = Trace()
    assert not rewrite(model, [rule for rule in softmax.RULES if rule.name == name], analysis_of(model), trace)
    assert reason in trace.misses[name]["seen"]


@pytest.mark.parametrize(
    ("some", "edit", "reason"),
    [
        ("bool[B,1,S,1] some", ("t, merge", "t, odd"), "the heads are not merged"),
        ("bool[B,1,S,1] some", ("t, merge", "t, apart"), "the heads are not merged"),
        ("bool[B,1,1,1] some", ("", ""), "not one condition for each query"),
        ("bool[2,1,S,1] some", ("", ""), "not one condition for each query"),
        ("bool[B,1,S,1] some", ("v, zero", "v, zeros"), "the other branch has a shape of its own"),
    ],
)
def test_zeros_stay_before_heads_that_merge_otherwise(some, edit, reason):
    model = build((HEADS + "c = Where(some, v, zero)  " + MERGED).replace(*edit), some, "float[P] y")
    trace = Trace()
    assert not rewrite(model, [rule for rule in query_masks.RULES if rule.name == "heads-cleared"], analysis_of(model), trace)
    assert reason in trace.misses["heads-cleared"]["seen"]


@pytest.mark.parametrize("some", ["bool[B,1,S,1] some", "bool[1,1,S,1] some"])
def test_zeros_go_behind_heads_that_merge(some):
    body = HEADS + "c = Where(some, v, zero)  " + MERGED
    before, after = build(body, some), build(body, some)
    assert rewrite(after, [rule for rule in query_masks.RULES if rule.name == "heads-cleared"], analysis_of(after), Trace())
    assert_same(before, after, SIZES, some=np.arange(5)[None, None, :, None].repeat(2 if "B,1" in some else 1, axis=0) > 2)
