"""Attention's scale in the layer that makes the query: for each form of the projections, and where it must stay."""

import numpy as np
import pytest

from onnxfuse.fusions import lowering, query_scale
from tests.conftest import apply, assert_same, fill, ops, parse

SIZES = {"B": 2, "S": 5}
INPUTS = "float[B,S,16] x, float[B,1,S,S] mask, float[16,16] w, float[16] b, float[16,16] wk, float[16,48] wide, float[48] row"
SEPARATE = "p = MatMul(x, w)  q = Add(p, b)  k = MatMul(x, wk)  v = Identity(x)"
MERGED = "p = MatMul(x, wide)  h = Add(p, row)  q, k, v = Split<axis = -1>(h, sizes)"
ATTENTION = "y = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v, mask)"


def model(projections, attention=ATTENTION, more="", sizes="16, 16, 16"):
    text = f"g ({INPUTS}{more}) => (float[B,S,16] y) <int64[3] sizes = {{{sizes}}}> {{ {projections}  {attention} }}"
    return fill(parse(text), w=(16, 16), b=(16,), wk=(16, 16), wide=(16, 48), row=(48,))


def both(*arguments, **options):
    return tuple(model(*arguments, **options) for _ in range(2))


@pytest.mark.parametrize("projections", [SEPARATE, MERGED])
@pytest.mark.parametrize("scale", ["", ", scale = 0.3"])
@pytest.mark.parametrize("mask", ["(q, k, v, mask)", "(q, k, v)"])
def test_scores_are_scaled_where_the_query_is_made(projections, scale, mask):
    attention = ATTENTION.replace("= 2>", f"= 2{scale}>").replace("(q, k, v, mask)", mask)
    before, after = both(projections, attention)
    assert apply(query_scale.SCALE_IN_QUERY, after).to_json()["rules"]["scale-in-query"] == 1, (
        "once: what is scaled with 1 is left"
    )
    (node,) = (node for node in after.graph if node.op_type == "Attention")
    assert node.attributes.get_float("scale", 0.0) == 1
    assert_same(before, after, SIZES)
    apply(lowering.DECOMPOSED, after)
    assert "Mul" not in ops(after) and "Softmax" in ops(after)
    assert_same(before, after, SIZES)


def test_a_power_of_two_changes_no_bit():
    """Heads of 4 have one half: the weights that come out are halves of what they were."""
    text = ATTENTION.replace("= 2, kv_num_heads = 2", "= 4, kv_num_heads = 4")
    before, after = both(SEPARATE, text)
    apply(query_scale.SCALE_IN_QUERY, after)
    held = {value.const_value.numpy().tobytes() for value in after.graph.initializers.values()}
    for name in ("w", "b"):
        assert (before.graph.initializers[name].const_value.numpy() / np.float32(2)).tobytes() in held


def test_layers_that_share_a_weight_share_the_scaled_one():
    again = "p2 = MatMul(y0, w)  q2 = Add(p2, b)  y = Attention<q_num_heads = 2, kv_num_heads = 2>(q2, k, v, mask)"
    before, after = both(f"{SEPARATE}  {ATTENTION.replace('y =', 'y0 =')}", again)
    assert apply(query_scale.SCALE_IN_QUERY, after).to_json()["rules"]["scale-in-query"] == 2
    read = [node.inputs[1] for node in after.graph if node.op_type == "MatMul" and node.inputs[1].const_value.shape == (16, 16)]
    assert len(read) == 3 and len(set(read)) == 2, "two queries' and the keys'"
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("projections", "attention", "more", "reason"),
    [
        (SEPARATE.replace("MatMul(x, w)", "MatMul(x, u)"), ATTENTION, ", float[16,16] u", "w is not a constant"),
        (SEPARATE.replace("Add(p, b)", "Add(p, u)"), ATTENTION, ", float[16] u", "b is not a constant"),
        (f"e = Gather(w, at)  {SEPARATE.replace('Identity(x)', 'Add(x, e)')}", ATTENTION, ", int64[1] at", "is read elsewhere"),
        (SEPARATE, ATTENTION.replace("= 2>", "= 2, scale = 1.0>"), "", "scores are not scaled"),
    ],
)
def test_where_it_must_stay(projections, attention, more, reason):
    after = model(projections, attention, more)
    trace = apply(query_scale.SCALE_IN_QUERY, after)
    assert "scale-in-query" not in trace.to_json()["rules"]
    assert reason in trace.misses["scale-in-query"]["seen"]
