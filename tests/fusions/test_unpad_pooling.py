"""Padding removal before pooling: which heads forget what stands at padding, and which do not."""

import numpy as np
import pytest

from onnxfuse.fusions.unpad import Padding, unpad
from onnxfuse.verify.masks import MASKS, mask_of
from tests.conftest import analysis_of, ops
from tests.fusions.test_unpad import CONSTANTS, model, outputs

MORE = (
    CONSTANTS
    + ", int64[1] last = {-1}, int64 step = {1}, float lowest = {-3.0e38}, int64[3] turned = {0, 1, -1}, int64[3] turned3 = {1, -1, 1}"
)
MASK = "f = Unsqueeze(attention_mask, last)  "
WIDE = MASK + "given = Shape(e)  g = Expand(f, given)  "
POSITIONS = """n1 = Squeeze(n)  at = Range(first, n1, step)  at1 = Add(at, step)  at2 = Cast<to = 1>(at1)  at3 = Unsqueeze(at2, last)
    g = Cast<to = 1>(f)  """
FIRST = "i1 = Unsqueeze(i, last)  given = Shape<start = 2>(e)  size = Concat<axis = 0>(one, one, given)  i3 = Expand(i1, size)  "
PICK = "z = GatherElements<axis = 1>(e, i3)  y = Squeeze(z, one)"
MAX = "y = ReduceMax<keepdims = 0>(z, one)"
SUM = "y = ReduceSum<keepdims = 0>(z, one)"

FORGET = {
    "max": MASK + "g = Cast<to = 9>(f)  z = Where(g, e, lowest)  " + MAX,
    "max, the mask turned": MASK + "g0 = Cast<to = 9>(f)  g = Not(g0)  z = Where(g, lowest, e)  " + MAX,
    "max, as masked_fill writes it": WIDE + "h1 = Cast<to = 1>(g)  h2 = Equal(h1, zero)  z = Where(h2, lowest, e)  " + MAX,
    "a sum, the mask widened first": WIDE + "h1 = Cast<to = 1>(g)  z = Mul(h1, e)  " + SUM,
    "a sum, the mask widened last": MASK + "g = Cast<to = 1>(f)  given = Shape(e)  h1 = Expand(g, given)  z = Mul(h1, e)  " + SUM,
    "a weighted sum": MASK + POSITIONS + "weight = Mul(g, at3)  z = Mul(e, weight)  " + SUM,
    "a weighted sum, as optimum exports it": MASK
    + """given = Shape(e)  n1 = Squeeze(n)  n2 = Add(n1, step)  n3 = Cast<to = 7>(n2)  at = Range(step, n3, step)  at1 = Reshape(at, turned3)
    at2 = Expand(at1, given)  at3 = Cast<to = 1>(at2)  g0 = Expand(f, given)  g = Cast<to = 1>(g0)  weight = Mul(g, at3)  z = Mul(e, weight)  """
    + SUM,
    "booleans of positions": MASK
    + "n1 = Squeeze(n)  at = Range(first, n1, step)  late = Greater(at, step)  l3 = Unsqueeze(late, last)  g0 = Cast<to = 9>(f)  g = And(l3, g0)  z = Where(g, e, zero)  "
    + SUM,
    "the last token": MASK
    + "g = Cast<to = 1>(f)  z0 = Mul(e, g)  n1 = Squeeze(n)  at = Range(first, n1, step)  late = Mul(at, attention_mask)  i = ArgMax<axis = 1>(late)  "
    + FIRST
    + PICK.replace("(e,", "(z0,"),
    "the first real token": "i = ArgMax<axis = 1>(attention_mask)  " + FIRST + PICK,
    "the first real token by another type": "m1 = Cast<to = 6>(attention_mask)  i = ArgMax<axis = -1>(m1)  " + FIRST + PICK,
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("name", FORGET)
def test_padding_goes_where_pooling_forgets_it(name, kind):
    before, after = (model(constants=MORE, head=FORGET[name]) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    mask = mask_of(kind, 3, 7).astype(np.int64)
    wanted, got = outputs(before, mask)["y"], outputs(after, mask)["y"]
    some = mask.any(axis=1)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[some], wanted[some], rtol=0, atol=1e-5 * np.abs(wanted[some]).max())


KEEP = {
    "a maximum over all": (MAX.replace("(z,", "(e,"), "ReduceMax at y reads"),
    "a choice of what is at padding": (MASK + "g = Cast<to = 9>(f)  z = Where(g, lowest, e)  " + MAX, "ReduceMax at y reads"),
    "a choice by something else": (
        "g0 = Greater(e, zero)  g = Cast<to = 9>(g0)  z = Where(g, lowest, lowest)  " + MAX,
        "ReduceMax at y reads",
    ),
    "tokens as the condition": (MASK + "g = Cast<to = 9>(e)  z = Where(g, lowest, zero)  " + MAX, "ReduceMax at y reads"),
    "a product with 1 at padding": (
        MASK + POSITIONS + "h1 = Sub(at3, at3)  h2 = Sub(h1, g)  weight = Mul(h2, at3)  z = Mul(e, weight)  " + SUM,
        "ReduceSum at y reads",
    ),
    "either of two": (
        MASK
        + "n1 = Squeeze(n)  at = Range(first, n1, step)  late = Greater(at, step)  l3 = Unsqueeze(late, last)  g0 = Cast<to = 9>(f)  g = Or(l3, g0)  z = Where(g, e, zero)  "
        + SUM,
        "ReduceSum at y reads",
    ),
    "the first padding": (
        "i0 = Sub(step, attention_mask)  i = ArgMax<axis = 1>(i0)  " + FIRST + PICK,
        "GatherElements at z reads",
    ),
    "the last of equals": (
        "i = ArgMax<axis = 1, select_last_index = 1>(attention_mask)  " + FIRST + PICK,
        "GatherElements at z reads",
    ),
    "the least": ("i = ArgMin<axis = 1>(attention_mask)  " + FIRST + PICK, "GatherElements at z reads"),
    "a position that is not the mask's": (
        "n1 = Squeeze(n)  at = Range(first, n1, step)  m0 = Mul(at, attention_mask)  i = ArgMax<axis = 1>(m0)  " + FIRST + PICK,
        "GatherElements at z reads",
    ),
    "another axis": (
        "i = ArgMax<axis = 1>(attention_mask)  " + FIRST + "z = GatherElements<axis = 0>(e, i3)  y = Squeeze(z, one)",
        "GatherElements at z reads",
    ),
    "the first row": ("i = ArgMax<axis = 0>(attention_mask)  " + FIRST + PICK, "GatherElements at z reads"),
}


@pytest.mark.parametrize("name", KEEP)
def test_padding_stays_where_pooling_reads_it(name):
    head, reason = KEEP[name]
    kept = model(constants=MORE, head=head)
    before = ops(kept)
    assert reason in unpad(kept, analysis_of(kept)).kept
    assert ops(kept) == before


def square(head):
    """The layer where rows are as long as tokens are wide, 8: shapes alone do not tell positions from columns."""
    from tests.conftest import fill, parse
    from tests.fusions.test_unpad import NODES

    lines = "  ".join((NODES | {"head": head}).values())
    text = f"g (float[B,8,8] x, int64[B,8] attention_mask, float[8] gain, float[8] shift, float[8,24] w, float[8,8] o) => (float[B,8] y) <{MORE}> {{ {lines} }}"
    return fill(parse(text), gain=(8,), shift=(8,), w=(8, 24), o=(8, 8))


@pytest.mark.parametrize(
    "factor",
    [
        "f = Unsqueeze(attention_mask, one)  given = Shape(e)  g = Expand(f, given)  h1 = Cast<to = 1>(g)",
        "f = Unsqueeze(attention_mask, one)  g = Cast<to = 1>(f)  k0 = ReduceSum<keepdims = 1>(x, last)  h1 = Mul(g, k0)",
    ],
    ids=["widened", "broadcast"],
)
def test_a_mask_along_columns_is_not_one_along_positions(factor):
    kept = square(factor + "  z = Mul(e, h1)  " + SUM)
    assert unpad(kept, analysis_of(kept)).kept == "ReduceSum at y reads padded positions"
    gone = square(WIDE + "h1 = Cast<to = 1>(g)  z = Mul(e, h1)  " + SUM)
    assert unpad(gone, analysis_of(gone)) == Padding()
