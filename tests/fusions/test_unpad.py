"""Padding removal: what runs on real tokens, that outputs stay, and when it refuses."""

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError
from onnxfuse.fusions.unpad import Padding, RemovePadding, unpad
from onnxfuse.rewrite.passes import Context
from onnxfuse.runtime.sessions import compute, infer, open_session, run
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.masks import MASKS, mask_of
from tests.conftest import analysis_of, assert_same, fill, ops, parse

NODES = {
    "mask": "c = Cast<to = 9>(attention_mask)  r = Reshape(c, heads)",
    "bias": "bias = Where(r, zero, low)  m = Expand(bias, square)",
    "square": "n = Shape<start = 1, end = 2>(attention_mask)  square = Concat<axis = 0>(one, one, n, one)",
    "norm": "h = LayerNormalization<axis = -1>(x, gain, shift)",
    "qkv": "t = MatMul(h, w)  q, k, v = Split<axis = -1>(t, widths)",
    "attention": "a = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v, m)",
    "out": "p = MatMul(a, o)  s = Sum(p, h)",
    "last": "e = LayerNormalization<axis = -1>(s, gain, shift)",
    "head": "y = Gather<axis = 1>(e, first)",
}
CONSTANTS = """int64[4] heads = {0, 1, 1, -1}, int64[1] one = {1}, int64[3] widths = {8, 8, 8}, int64 first = {0},
    float zero = {0.0}, float low = {-3.4e38}"""


def model(outputs: str = "float[B,8] y", constants: str = CONSTANTS, inputs: str = "", **edits: str) -> ir.Model:
    """One layer whose head reads the first token, with some of its lines replaced."""
    text = f"""g (float[B,S,8] x, int64[B,S] attention_mask, float[8] gain, float[8] shift, float[8,24] w, float[8,8] o{inputs})
        => ({outputs}) <{constants}> {{ {"  ".join((NODES | edits).values())} }}"""
    return fill(parse(text), gain=(8,), shift=(8,), w=(8, 24), o=(8, 8))


def outputs(model: ir.Model, mask: np.ndarray) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((*mask.shape, 8)).astype(np.float32)
    return run(open_session(ir.to_proto(model).SerializeToString(), optimize=False), {"x": x, "attention_mask": mask})


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 7), (3, 7), (4, 12)])
def test_outputs_stay(kind, batch, length):
    before, after = model(), model()
    assert unpad(after, analysis_of(after)) == Padding()
    mask = mask_of(kind, batch, length).astype(np.int64)
    wanted, got = outputs(before, mask)["y"], outputs(after, mask)["y"]
    assert np.isfinite(got).all()
    some = mask.any(axis=1)  # a row without a token attends to all of its padding, or to none of it
    np.testing.assert_allclose(got[some], wanted[some], rtol=0, atol=1e-5 * np.abs(wanted).max())


LENGTHS = """ones = Cast<to = 7>(attention_mask)  count = ReduceSum<keepdims = 1>(ones, last)  n0 = Shape<start = 1, end = 2>(attention_mask)
    n1 = Squeeze(n0)  at = Range(first, n1, step)  c = Less(at, count)  r = Reshape(c, heads)"""
LENGTH_CONSTANTS = CONSTANTS + ", int64[1] last = {-1}, int64 step = {1}"


@pytest.mark.parametrize(
    ("mask", "constants", "inputs"),
    [
        (LENGTHS, LENGTH_CONSTANTS, ""),
        ("c = Cast<to = 9>(other)  r = Reshape(c, heads)", CONSTANTS, ", int64[B,S] other"),
        ("c = Greater(attention_mask, first)  r = Reshape(c, heads)", CONSTANTS, ""),
    ],
)
def test_booleans_that_are_no_function_of_each_element_stay(mask, constants, inputs):
    """Lengths, as ONNX Runtime's optimizer writes them: where padding stands left, they mean other tokens. Or another input."""
    before, after = (model(mask=mask, constants=constants, inputs=inputs) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    for kind in MASKS:
        given = mask_of(kind, 3, 7).astype(np.int64)
        x = np.random.default_rng(0).standard_normal((3, 7, 8)).astype(np.float32)
        feeds = {"x": x, "attention_mask": given} | ({"other": given[:, ::-1].copy()} if inputs else {})
        wanted, got = (run(open_session(ir.to_proto(m).SerializeToString(), optimize=False), feeds)["y"] for m in (before, after))
        some = given.any(axis=1)
        np.testing.assert_allclose(got[some], wanted[some], rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_mean_over_other_tokens_than_attention_sees_tells():
    """A head that reads the mask itself, where attention sees lengths."""
    head = "m2 = Cast<to = 1>(attention_mask)  m3 = Unsqueeze(m2, last)  e2 = Mul(e, m3)  y = ReduceSum<keepdims = 0>(e2, one)"
    kept = model(mask=LENGTHS, constants=LENGTH_CONSTANTS, head=head)
    assert "ReduceSum at y reads" in unpad(kept, analysis_of(kept)).kept
    gone = model(mask="c = Greater(attention_mask, first)  r = Reshape(c, heads)", constants=LENGTH_CONSTANTS, head=head)
    assert unpad(gone, analysis_of(gone)) == Padding()


def test_a_random_mask_of_any_integers_stays():
    before, after = model(), model()
    assert unpad(after, analysis_of(after)) == Padding()
    rng = np.random.default_rng(3)
    for _ in range(20):
        mask = rng.integers(0, 3, (5, 9)) * rng.integers(0, 2, (5, 9))
        mask[np.arange(5), rng.integers(0, 9, 5)] = 1
        np.testing.assert_allclose(outputs(after, mask)["y"], outputs(before, mask)["y"], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("exact")
def test_only_real_tokens_are_computed():
    """The linear layer behind attention sees one row of real tokens; attention the longest row and, in a second one, the others."""
    after = model()
    assert unpad(after, analysis_of(after)) == Padding()
    attention = next(node for node in after.graph if node.op_type == "Attention")
    inner = {
        "s": next(node for node in after.graph if node.op_type == "Sum").outputs[0],
        "a": attention.outputs[0],
        "h": next(node for node in after.graph if node.op_type == "LayerNormalization").outputs[0],
    }
    for value in inner.values():
        value.type = ir.TensorType(ir.DataType.FLOAT)
        after.graph.outputs.append(value)
    mask = mask_of("holes", 3, 11).astype(np.int64)
    mask[1, 0], mask[2] = 0, 0  # a first token that is padding, and a row without a token: both keep their first token
    kept = np.maximum(mask, np.arange(11) == 0)
    got = outputs(after, mask)
    assert got[inner["s"].name].shape == got[inner["h"].name].shape == (1, kept.sum(), 8)
    assert got[inner["a"].name].shape == (2, kept.sum(axis=1).max(), 8)
    assert ops(after).count("NonZero") == 1


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ((12,) * 4, (4, 12)),  # nothing padded: as it was
        ((12,), (1, 12)),
        ((12, 1, 1, 1, 1, 1, 1, 1), (2, 12)),  # the short ones one after the other
        ((12, 11, 1, 1, 1, 1, 1, 1), (2, 15)),  # as many behind each long one
        ((12, 8, 6, 5, 4, 3, 2, 1), (4, 12)),  # the longest alone, the others forth and back
        ((1, 2, 3, 4, 5, 6, 8, 12), (4, 12)),
        ((12, 11, 10), (3, 12)),  # two in a row would be longer than it is worth
        *(
            ((12,) * (24 // fold) + (1,) * (24 - 24 // fold), (24 // fold, 11 + fold)) for fold in (2, 3, 4, 6, 8)
        ),  # behind each long one
    ],
)
@pytest.mark.usefixtures("exact")
def test_short_rows_share_one_where_attention_has_fewer_scores_then(lengths, wanted):
    assert places(lengths) == wanted


def places(lengths):
    """How many places attention has for rows of these lengths, and of how many slots; what comes out is checked."""
    before, after = model(), model()
    assert unpad(after, analysis_of(after)) == Padding()
    attention = next(node for node in after.graph if node.op_type == "Attention").outputs[0]
    attention.type = ir.TensorType(ir.DataType.FLOAT)
    after.graph.outputs.append(attention)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    got = outputs(after, mask)
    np.testing.assert_allclose(got["y"], outputs(before, mask)["y"], rtol=0, atol=1e-5)
    return got[attention.name].shape[:2]


def test_slots_come_by_sixteen():
    assert places((40, 30, 20, 10)) == (2, 64)  # 40 and 10, 30 and 20: 50 slots
    assert places((5,)) == (1, 16)


@pytest.mark.parametrize(
    ("lengths", "wanted"), [((9, 5, 3), 27), ((12, 9, 5, 3), 32), ((16, 16), 32), ((9, 9, 9), 27), ((3, 20, 0), 32)]
)
def test_tokens_come_by_sixteen_where_there_is_so_much_padding(lengths, wanted):
    """What is taken besides nobody reads: the outputs are those of each row by itself."""
    after = model()
    assert unpad(after, analysis_of(after)) == Padding()
    total = next(node for node in after.graph if node.op_type == "Sum").outputs[0]
    total.type = ir.TensorType(ir.DataType.FLOAT)
    after.graph.outputs.append(total)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    got = outputs(after, mask)
    assert got[total.name].shape == (1, wanted, 8)
    x = np.random.default_rng(0).standard_normal((*mask.shape, 8)).astype(np.float32)
    session = open_session(ir.to_proto(model()).SerializeToString(), optimize=False)
    for row, length in enumerate(lengths):
        if length:
            alone = run(session, {"x": x[row : row + 1, :length], "attention_mask": mask[row : row + 1, :length]})["y"]
            np.testing.assert_allclose(got["y"][row : row + 1], alone, rtol=0, atol=1e-5)


def test_an_even_split_of_tokens_need_not_be_made():
    after = model()
    assert unpad(after, analysis_of(after)) == Padding()
    (split,) = (node for node in after.graph if node.op_type == "Split")
    assert not any(output.uses() for output in split.outputs)


def test_a_split_into_parts_of_other_widths_is_made():
    constants = CONSTANTS.replace("{8, 8, 8}", "{8, 8, 4}")
    text = ", float[8,20] u, float[4,8] o4"
    edits = {"qkv": "t = MatMul(h, u)  q, k, v = Split<axis = -1>(t, widths)", "out": "p = MatMul(a, o4)  s = Sum(p, h)"}
    before, after = (fill(model(inputs=text, constants=constants, **edits), u=(8, 20), o4=(4, 8)) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    mask = mask_of("holes", 3, 7).astype(np.int64)
    np.testing.assert_allclose(outputs(after, mask)["y"], outputs(before, mask)["y"], rtol=0, atol=1e-5)


def test_a_split_of_rows_is_not_taken_for_one_of_columns():
    """Two stacked batches, parted: rows of the parts do not alternate in the whole."""
    edits = {
        "norm": "x2 = Concat<axis = 0>(x, by)  x0, x1 = Split<axis = 0, num_outputs = 2>(x2)  h = LayerNormalization<axis = -1>(x1, gain, shift)"
    }
    before, after = (fill(model(inputs=", float[3,7,8] by", **edits), by=(3, 7, 8)) for _ in range(2))
    for graph in (before.graph, after.graph):
        for value in graph.inputs:
            value.shape = ir.Shape(
                [{"B": 3, "S": 7}.get(str(dim), dim) for dim in (d if isinstance(d, int) else d.value for d in value.shape.dims)]
            )
    assert unpad(after, analysis_of(after)) == Padding()
    mask = mask_of("right", 3, 7).astype(np.int64)
    np.testing.assert_allclose(outputs(after, mask)["y"], outputs(before, mask)["y"], rtol=0, atol=1e-5)


def test_the_query_of_the_first_token_alone():
    """As pooled-token leaves the last layer."""
    edits = {
        "attention": """q0 = Gather<axis = 1>(q, ids)  m0 = Gather<axis = -2>(m, ids)
        a0 = Attention<q_num_heads = 2, kv_num_heads = 2>(q0, k, v, m0)  a = Reshape(a0, flat)""",
        "out": "p = MatMul(a, o)  h0 = Gather<axis = 1>(h, first)  s = Sum(p, h0)",
        "head": "y = Identity(e)",
    }
    constants = CONSTANTS + ", int64[1] ids = {0}, int64[2] flat = {0, 8}"
    before, after = (model(constants=constants, **edits) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    for kind in MASKS[:-1]:
        mask = mask_of(kind, 3, 7).astype(np.int64)
        np.testing.assert_allclose(outputs(after, mask)["y"], outputs(before, mask)["y"], rtol=0, atol=1e-5)


SHOWN = "float[B,8] y, float[B,S,8] e"
SECOND = "a2 = Attention<q_num_heads = 2, kv_num_heads = 2>(s, s, s, m2)  e = LayerNormalization<axis = -1>(a2, gain, shift)"
REFUSED = {
    "an output shows all tokens": ({"outputs": SHOWN}, "output 'e' shows padded positions"),
    "an inner output": ({"outputs": "float[B,8] y, float[B,S,24] t"}, "output 't' shows padded positions"),
    "a runtime index": ({"inputs": ", int64 first", "constants": CONSTANTS.replace("int64 first = {0},", "")}, "Gather at y"),
    "mean pooling": ({"head": "axes = Constant<value_ints = [1]>()  y = ReduceMean<keepdims = 0>(e, axes)"}, "ReduceMean at y"),
    "a norm over positions": (
        {"last": "e = LayerNormalization<axis = 1>(s, more, more2)", "inputs": ", float[S,8] more, float[S,8] more2"},
        "LayerNormalization at e reads padded",
    ),
    "softmax over positions": ({"last": "e = Softmax<axis = 1>(s)"}, "the scores s do not shut out padding by 'attention_mask'"),
    "a weak mask": ({"constants": CONSTANTS.replace("-3.4e38", "-10.0")}, "does not shut out padding"),
    "two fills that let in": (
        {"bias": "bias = Where(r, zero, mild)  m = Expand(bias, square)", "constants": CONSTANTS + ", float mild = {-9999.0}"},
        "does not shut out padding",
    ),
    "a bias from outside": (
        {"inputs": ", float[B,1,1,S] other", "bias": "m = Expand(other, square)"},
        "not made from 'attention_mask' or booleans [B,S] alone",
    ),
    "booleans that only weaken": (
        {"inputs": ", bool[B,S] other", "mask": "r = Reshape(other, heads)", "constants": CONSTANTS.replace("-3.4e38", "-10.0")},
        "does not shut out padding",
    ),
    "a moved mask": (
        {
            "mask": "c0 = Cast<to = 9>(attention_mask)  c = Reshape(c0, turned)  d = Transpose<perm = [1, 0]>(c)  r = Reshape(d, heads)",
            "inputs": ", int64[2] turned",
        },
        "the mask bias is not made from",
    ),
    "a mask of rank 3": (
        {"inputs": ", float[B,1,S,S] wide", "bias": "m = Identity(wide)"},
        "the mask m is not made from 'attention_mask' or booleans [B,S] alone",
    ),
    "a mask of other positions": (
        {"inputs": ", int64[1] at, float[B,1,K,S] wide", "bias": "m0 = Gather<axis = -2>(wide, at)  m = Expand(m0, square)"},
        "the mask wide is not made from",
    ),
    "infinity as an integer": (
        {
            "bias": "b0 = Where(r, zero, inf)  b1 = Cast<to = 7>(b0)  bias = Cast<to = 1>(b1)  m = Expand(bias, square)",
            "constants": CONSTANTS + ", float inf = {-inf}",
        },
        "does not shut out padding",
    ),
    "a mask that is rows of others": (
        {"inputs": ", float[B,1,K,S] rest", "bias": "bias = Where(r, zero, low)  m = Concat<axis = -2>(bias, rest)"},
        "the mask m is not made from",
    ),
    "a mask of other rows": (
        {"inputs": ", int64[B] order", "bias": "bias = Where(r, zero, low)  m = Gather<axis = 0>(bias, order)"},
        "the mask m is not made from",
    ),
    "a computed number": (
        {
            "mask": "c0 = Sqrt(other)  c1 = Sub(one_f, c0)  r = Reshape(c1, heads)",
            "inputs": ", float[B,S] other",
            "bias": "bias = Mul(r, low)  m = Expand(bias, square)",
            "constants": CONSTANTS + ", float one_f = {1.0}",
        },
        "the mask bias is not made from",
    ),
    "an operand that is left out": (
        {"bias": "b0 = Where(r, zero, low)  bias = Clip(b0, , zero)  m = Expand(bias, square)"},
        "does not shut out padding",
    ),
    "a function of another domain": (
        {
            "mask": """c0 = Cast<to = 9>(attention_mask)  c1 = other.Not(c0)  given = Shape(attention_mask)
                                               c = Reshape(c1, given)  r0 = Reshape(c, heads)  r = Cast<to = 9>(r0)"""
        },
        "the mask bias is computed with c1, which Not gives: its shape is not known",
    ),
    "attention of another domain": (
        {"attention": "a = other.Attention(q, k, v, m)"},
        "there is no attention: neither the operator nor a Softmax",
    ),
    "a second attention of another domain": (
        {"last": "a2 = other.Attention(s, s, s, m)  e = LayerNormalization<axis = -1>(a2, gain, shift)"},
        "Attention at a2 reads padded positions",
    ),
    "a norm of another domain": (
        {"norm": "h = other.LayerNormalization<axis = -1>(x, gain, shift)"},
        "attention reads nothing that stands token by token",
    ),
    "a shape of another domain": (
        {"outputs": "float[B,8] y, int64[3] u", "head": NODES["head"] + "  u = other.Shape(e)"},
        "Shape at u reads",
    ),
    "a past instead of a mask": (
        {
            "inputs": ", float[B,2,P,4] pk, float[B,2,P,4] pv",
            "outputs": "float[B,8] y, float[B,2,Q,4] nk, float[B,2,Q,4] nv",
            "attention": "a, nk, nv = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v, , pk, pv)",
        },
        "attention has no mask",
    ),
    "an operator that nobody knows": (
        {"bias": "b0 = Where(r, zero, low)  bias = Sqrt(b0)  m = Expand(bias, square)"},
        "does not shut out padding",
    ),
    "no mask": ({"attention": "a = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v)"}, "attention has no mask"),
    "one attention without a mask": (
        {
            "last": "a2 = Attention<q_num_heads = 2, kv_num_heads = 2>(s, s, s)  e = LayerNormalization<axis = -1>(a2, gain, shift)"
        },
        "attention at a2 has no mask, or a past",
    ),
    "a product of tokens with tokens": (
        {"out": "p0 = MatMul(a, s0)  p = MatMul(p0, o)  s = Sum(p, h)", "qkv": NODES["qkv"] + "  s0 = Tanh(q)"},
        "takes tokens for its operand 1",
    ),
    "a second output": (
        {"attention": "a, past = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v, m)"},
        "attention at a has no mask, or a past",
    ),
    "a second mask that only weakens": (
        {
            "last": SECOND,
            "square": NODES["square"] + "  b2 = Where(r, zero, weak)  m2 = Expand(b2, square)",
            "constants": CONSTANTS + ", float weak = {-10.0}",
        },
        "the mask m2 is not made from 'attention_mask', or does not",
    ),
    "a second mask from elsewhere": (
        {"last": SECOND, "inputs": ", float[B,1,1,S] other", "square": NODES["square"] + "  m2 = Expand(other, square)"},
        "the mask m2 is not made from 'attention_mask', or does not",
    ),
    "a layer of unknown width": (
        {
            "inputs": ", float[B,S,K] wide",
            "constants": CONSTANTS + ", float[1,8] w8 = {1, 2, 3, 4, 5, 6, 7, 8}",
            "norm": "x1 = MatMul(wide, w8)  x2 = Add(x, x1)  " + NODES["norm"].replace("(x,", "(x2,"),
        },
        "the width of wide is not known",
    ),
    "parts of unknown width": (
        {"inputs": ", int64[3] widths", "constants": CONSTANTS.replace("int64[3] widths = {8, 8, 8}, ", "")},
        "the width of a is not known",
    ),
    "a mask over columns": (
        {"head": "f = Cast<to = 1>(attention_mask)  f1 = Unsqueeze(f, one)  z = Mul(e, f1)  y = ReduceSum<keepdims = 0>(z, one)"},
        "ReduceSum at y reads padded positions",
    ),
    "an operand of unknown shape": (
        {"out": "by = other.Operator(x)  p = MatMul(a, o)  s = Sum(p, h, by)"},
        "reads by, which is not one for all",
    ),
    "an operand with more axes": (
        {"out": "p = MatMul(a, o)  s = Sum(p, h, by)", "inputs": ", float[1,1,1,8] by"},
        "reads by, which is not one for all",
    ),
    "queries of an unknown shape": (
        {"attention": "q0 = other.Operator(x)  a = Attention<q_num_heads = 2, kv_num_heads = 2>(q0, k, v, m)"},
        "Attention at a reads padded positions",
    ),
    "no attention": ({"attention": "a = Identity(q)"}, "there is no attention: neither the operator nor a Softmax"),
}


def assert_same_but_zeros(before: ir.Model, after: ir.Model, zeros: tuple[str, ...]) -> None:
    for kind in MASKS[:-1]:
        mask = mask_of(kind, 3, 7).astype(np.int64)
        wanted, got = outputs(before, mask), outputs(after, mask)
        for name, array in wanted.items():
            real = mask.reshape(mask.shape + (1,) * (array.ndim - 2)) if name in zeros else 1
            assert name not in zeros or not got[name][mask == 0].any()
            np.testing.assert_allclose(got[name], array * real, rtol=0, atol=1e-5)


def test_zeros_where_outputs_show_padding():
    before, after = (model(SHOWN) for _ in range(2))
    padding = unpad(after, analysis_of(after), zeros=True)
    assert padding == Padding(zeros=("e",))
    assert str(padding) == "removed, e zero there"
    assert [value.name for value in after.graph.outputs] == ["y", "e"]
    assert_same_but_zeros(before, after, ("e",))


@pytest.mark.parametrize(
    "ends",
    [
        "start0, end0 = Split<axis = -1>(ends, halves)  start = Squeeze(start0, flat)  y = Squeeze(end0, flat)",
        "start = Gather<axis = -1>(ends, first)  y = Gather<axis = 2>(ends, second)",
    ],
)
def test_scores_of_a_question_answerer(ends):
    edits = {"head": f"ends = MatMul(e, two)  {ends}"}
    constants = (
        CONSTANTS
        + ", float[8,2] two = {0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}, int64[2] halves = {1, 1}, int64[1] flat = {-1}, int64 second = {1}"
    )
    before, after = (model("float[B,S] start, float[B,S] y", constants, **edits) for _ in range(2))
    assert unpad(after, analysis_of(after)).kept == "output 'start' shows padded positions"
    assert unpad(after, analysis_of(after), zeros=True) == Padding(zeros=("start", "y"))
    assert_same_but_zeros(before, after, ("start", "y"))


def test_a_masked_mean_cannot_tell():
    edits = {
        "head": """f = Cast<to = 1>(attention_mask)  f3 = Unsqueeze(f, last)  z = Mul(e, f3)  total = ReduceSum<keepdims = 0>(z, one)
        count = ReduceSum<keepdims = 0>(f3, one)  y = Div(total, count)"""
    }
    before, after = (model(constants=CONSTANTS + ", int64[1] last = {-1}", **edits) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    assert_same_but_zeros(before, after, ())


def test_a_masked_mean_may_widen_the_mask_first():
    edits = {
        "head": """f = Cast<to = 1>(attention_mask)  f3 = Unsqueeze(f, last)  wide = Shape(e)  f4 = Expand(f3, wide)
        z = Mul(f4, e)  y = ReduceSum<keepdims = 0>(z, one)""",
        "last": NODES["last"].replace("e =", "e0 =") + "  e = Mul(e0, gain)",
    }
    before, after = (model(constants=CONSTANTS + ", int64[1] last = {-1}", **edits) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    assert_same_but_zeros(before, after, ())


def test_a_mean_weighted_the_other_way_can():
    edits = {
        "head": "f = Cast<to = 9>(attention_mask)  g0 = Not(f)  f1 = Cast<to = 1>(g0)  f3 = Unsqueeze(f1, last)  z = Mul(e, f3)  y = ReduceSum<keepdims = 0>(z, one)"
    }
    kept = model(constants=CONSTANTS + ", int64[1] last = {-1}", **edits)
    assert "ReduceSum at y reads" in unpad(kept, analysis_of(kept)).kept


def test_zeros_are_not_handed_to_other_operators():
    edits = {"head": "ends = MatMul(e, two)  y = Squeeze(ends, flat)  n2 = Softmax<axis = 1>(y)"}
    constants = CONSTANTS + ", float[8,1] two = {0,1,2,3,4,5,6,7}, int64[1] flat = {-1}"
    kept = model("float[B,S] y, float[B,S] n2", constants, **edits)
    assert "shows padded positions to another operator" in unpad(kept, analysis_of(kept), zeros=True).kept


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    edits, reason = REFUSED[name]
    kept = model(**edits)
    before = [node.op_type for node in kept.graph]
    assert reason in unpad(kept, analysis_of(kept)).kept
    assert [node.op_type for node in kept.graph] == before


def test_a_model_without_attention_is_left_alone():
    kept = parse("g (float[B,4] x) => (float[B,4] y) { y = Relu(x) }")
    assert unpad(kept, analysis_of(kept)).kept == "there is no attention: neither the operator nor a Softmax"


def test_a_branch_that_reads_tokens_keeps_their_padding():
    """The branch names what it reads nowhere but inside itself."""
    head = """y = Gather<axis = 1>(e, first)  on = Constant<value = bool {1}>()  z = If (on) <then_branch = t () => (float[B,S,8] u) { u = Neg(TOKENS) },
        else_branch = f () => (float[B,S,8] v) { v = Identity(TOKENS) }>"""
    for tokens in ("e", "s", "p"):
        edits = {"outputs": "float[B,8] y, float[B,S,8] z", "head": head.replace("TOKENS", tokens)}
        before, after = model(**edits), model(**edits)
        assert unpad(after, analysis_of(after), zeros=True).kept == f"a branch or a body inside another operator reads {tokens}"
        assert ops(after) == ops(before)


def halved(edit: str = "") -> ir.Model:
    """The layer in float16; ``edit``: another head."""
    text = f"""g (int64[B,S] attention_mask, float16[B,S,8] x, float16[8] gain, float16[8] shift, float16[8,24] w, float16[8,8] o)
        => (float16[M] y) <{CONSTANTS.replace("-3.4e38", "-60000.0")}>
        {{ {"  ".join((NODES | ({"head": edit} if edit else {})).values())} }}"""
    found = fill(parse(text), gain=(8,), shift=(8,), w=(8, 24), o=(8, 8))
    for value in found.graph.initializers.values():
        if value.const_value.dtype == ir.DataType.FLOAT:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float16), name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT16)
    return found


@pytest.mark.parametrize(("head", "zeros"), [("", False), ("y = Identity(e)", True)], ids=["the first token", "zeros at padding"])
def test_padding_goes_in_the_type_of_the_model(head, zeros):
    before, after = halved(head), halved(head)
    assert not unpad(after, analysis_of(after), zeros=zeros).kept
    mask = mask_of("holes", 3, 9).astype(np.int64)
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 9, 8)).astype(np.float16), "attention_mask": mask}
    wanted, got = (run(open_session(ir.to_proto(m).SerializeToString(), optimize=False), feeds)["y"] for m in (before, after))
    assert got.dtype == np.float16
    if zeros:
        wanted = np.where(mask[..., None].astype(bool), wanted, 0)
    np.testing.assert_allclose(
        got.astype(np.float32), wanted.astype(np.float32), rtol=0, atol=1e-2 * np.abs(wanted).max()
    )  # the row "half"


def of_type(kind: ir.DataType, fill: float) -> ir.Model:
    """The layer in another float type, its mask in it too."""
    made = model("float[B,8] y, float[B,S,8] e", CONSTANTS.replace("-3.4e38", str(fill)))
    for value in (*made.graph.inputs, *made.graph.outputs, *made.graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT:
            value.dtype = kind
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().astype(kind.numpy()))
    return made


@pytest.mark.parametrize("fill", [-1e4, -65504.0])
@pytest.mark.parametrize("kind", MASKS)
def test_float16_stays_float16(kind, fill):
    before, after = of_type(ir.DataType.FLOAT16, fill), of_type(ir.DataType.FLOAT16, fill)
    assert unpad(after, analysis_of(after), zeros=True) == Padding(zeros=("e",))
    mask = mask_of(kind, 3, 7)
    x = np.random.default_rng(0).standard_normal((3, 7, 8)).astype(np.float16)
    feeds = {"x": x, "attention_mask": mask.astype(np.int64)}
    wanted, got = (run(open_session(ir.to_proto(m).SerializeToString()), feeds) for m in (before, after))
    some = mask.any(axis=1)
    assert got["e"].dtype == np.float16
    assert np.isfinite(got["e"]).all()
    assert not got["e"][~mask.astype(bool)].any()
    np.testing.assert_allclose(got["y"][some], wanted["y"][some], rtol=0, atol=1e-2)


@pytest.mark.parametrize("kind", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE])
def test_every_type_is_kept(kind):
    """ONNX Runtime has no products of bfloat16 on CPU: ONNX's own inference says whether the types fit."""
    after = of_type(kind, -1e4)
    assert unpad(after, analysis_of(after), zeros=True) == Padding(zeros=("e",))
    onnx.shape_inference.infer_shapes(ir.to_proto(after), check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(ir.to_proto(after), full_check=True)


def with_mask(kind: str, constants: str = CONSTANTS, name: str = "attention_mask", dims: str = "B,S", **edits: str) -> ir.Model:
    """The layer with a mask of another type, name or shape."""
    nodes = {part: text.replace("attention_mask", name) for part, text in (NODES | edits).items()}
    text = f"""g ({kind}[{dims}] {name}, float[B,S,8] x, float[8] gain, float[8] shift, float[8,24] w, float[8,8] o)
        => (float[B,8] y) <{constants}> {{ {"  ".join(nodes.values())} }}"""
    return fill(parse(text), gain=(8,), shift=(8,), w=(8, 24), o=(8, 8))


def assert_same_rows(before: ir.Model, after: ir.Model, name: str, mask: np.ndarray, keep: np.ndarray) -> None:
    """Equal where a row has a token, finite elsewhere."""
    x = np.random.default_rng(0).standard_normal((*mask.shape, 8)).astype(np.float32)
    wanted, got = (
        run(open_session(ir.to_proto(m).SerializeToString(), optimize=False), {"x": x, name: mask})["y"] for m in (before, after)
    )
    some = keep.any(axis=1)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[some], wanted[some], rtol=0, atol=1e-5 * np.abs(wanted).max())


INVERTED = [
    ("int64", {"bias": "bias = Where(r, low, zero)  m = Expand(bias, square)"}),
    ("bool", {"mask": "r = Reshape(attention_mask, heads)", "bias": "bias = Where(r, low, zero)  m = Expand(bias, square)"}),
    ("bool", {"mask": "c = Not(attention_mask)  r = Reshape(c, heads)"}),
    (
        "int32",
        {
            "mask": "c = Cast<to = 1>(attention_mask)  r = Unsqueeze(c, middle)",
            "bias": "bias = Mul(r, low)  m = Expand(bias, square)",
        },
    ),
    ("float", {"mask": "r = Unsqueeze(attention_mask, middle)", "bias": "bias = Mul(low, r)  m = Expand(bias, square)"}),
    ("int64", {"mask": "c = Equal(attention_mask, first)  r = Reshape(c, heads)"}),
    (
        "float",
        {
            "mask": "r0 = Unsqueeze(attention_mask, middle)  h0 = Mul(r0, half)  h1 = Cast<to = 1>(h0)  r = Greater(h1, zero)",
            "bias": "bias = Where(r, low, zero)  m = Expand(bias, square)",
        },
    ),
    (
        "float",
        {"mask": "r0 = Unsqueeze(attention_mask, middle)  h0 = Add(r0, half)  h1 = Cast<to = 7>(h0)  r = Equal(h1, first)"},
    ),
    (
        "int64",
        {
            "mask": "r0 = Unsqueeze(attention_mask, middle)  n0 = Neg(r0)  n1 = Cast<to = 9>(n0)  r = Cast<to = 1>(n1)",
            "bias": "b0 = Mul(r, low)  bias = Cast<to = 1>(b0)  m = Expand(bias, square)",
        },
    ),
]
MIDDLE = CONSTANTS + ", int64[2] middle = {1, 2}, float half = {0.5}"


@pytest.mark.parametrize(("kind", "edits"), INVERTED)
@pytest.mark.parametrize("padding", MASKS)
def test_a_mask_that_is_1_at_padding_is_understood(kind, edits, padding):
    """As torch.nn's key_padding_mask is meant, and TensorFlow's padding masks."""
    before, after = (with_mask(kind, MIDDLE, **edits) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    keep = mask_of(padding, 3, 7)
    mask = (1 - keep.astype(int)).astype(before.graph.inputs[0].dtype.numpy())
    assert_same_rows(before, after, "attention_mask", mask, keep)


def test_an_inverted_mask_of_other_numbers_keeps_what_it_lets_in():
    """-1 raises a score, 2 shuts out twice as much: only 1 is known to be padding."""
    edits = INVERTED[3][1]
    before, after = (with_mask("int32", MIDDLE, **edits) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    rng = np.random.default_rng(1)
    for _ in range(10):
        mask = rng.integers(-1, 3, (4, 9)).astype(np.int32)
        mask[:, 3] = 0
        assert_same_rows(before, after, "attention_mask", mask, np.ones((4, 9), dtype=bool))


@pytest.mark.usefixtures("exact")
def test_only_what_an_inverted_mask_lets_in_is_computed():
    after = with_mask("int64", MIDDLE, **INVERTED[0][1])
    assert unpad(after, analysis_of(after)) == Padding()
    total = next(node for node in after.graph if node.op_type == "Sum").outputs[0]
    total.type = ir.TensorType(ir.DataType.FLOAT)
    after.graph.outputs.append(total)
    mask = np.array([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1], [1, 0, 1, 1, 1]])  # the last row's first token is kept for the head
    assert outputs(after, mask)[total.name].shape == (1, 3 + 1 + 2, 8)


@pytest.mark.parametrize("name", ["mask", "src_key_padding_mask", "valid"])
def test_the_mask_may_have_another_name(name):
    before, after = (with_mask("int64", MIDDLE, name=name) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    for padding in MASKS:
        keep = mask_of(padding, 3, 7)
        assert_same_rows(before, after, name, keep.astype(np.int64), keep)


def test_a_mask_is_known_for_one_when_padding_is_gone():
    """By what reads it, where its name does not tell: who checks the optimized model feeds it as before."""
    before, after = (with_mask("int64", name="valid") for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    assert [given.role for given in profile_of(before).inputs if given.name == "valid"] == ["mask"]
    assert profile_of(before) == profile_of(after)


@pytest.mark.parametrize(("kind", "edits"), INVERTED)
def test_a_mask_of_another_name_is_found_behind_every_spelling(kind, edits):
    before, after = (with_mask(kind, MIDDLE, name="drop", **edits) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    keep = mask_of("holes", 3, 7)
    assert_same_rows(before, after, "drop", (1 - keep.astype(int)).astype(before.graph.inputs[0].dtype.numpy()), keep)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "int64", "bool", "float16", "float", "double"])
def test_the_mask_may_have_any_type(kind, inverted):
    bias = "bias = Where(r, low, zero)  m = Expand(bias, square)" if inverted else NODES["bias"]
    before, after = (with_mask(kind, MIDDLE, bias=bias) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    keep = mask_of("right", 3, 7)
    mask = (1 - keep.astype(int) if inverted else keep).astype(before.graph.inputs[0].dtype.numpy())
    assert_same_rows(before, after, "attention_mask", mask, keep)


@pytest.mark.parametrize(
    ("mask", "fill"),
    [
        ("f = Cast<to = 1>(r0)  r = Cast<to = 9>(r0)", "Sub(f, f)"),
        ("r1 = Cast<to = 9>(r0)  r2 = Greater(r0, first)  r = And(r1, r2)", "Identity(zero)"),
        ("r1 = Greater(r0, one)  r2 = Equal(r0, one)  r = Or(r1, r2)", "Identity(zero)"),
    ],
)
def test_a_mask_that_is_read_twice_is_understood_by_its_name(mask, fill):
    edits = {
        "mask": f"r0 = Unsqueeze(attention_mask, middle)  {mask}",
        "bias": f"b0 = {fill}  bias = Where(r, b0, low)  m = Expand(bias, square)",
    }
    before, after = (model(constants=MIDDLE, **edits) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    padding = mask_of("holes", 3, 7).astype(np.int64)
    np.testing.assert_allclose(outputs(after, padding)["y"], outputs(before, padding)["y"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("padding", MASKS[:-1])
def test_a_boolean_mask_of_the_operator(inverted, padding):
    """As torch.onnx writes scaled_dot_product_attention from opset 23 on; padding is False."""
    mask = "c0 = Cast<to = 9>(attention_mask)  c = Not(c0)  r = Reshape(c, heads)" if inverted else NODES["mask"]
    before, after = (with_mask("int64", MIDDLE, mask=mask, bias="m = Expand(r, square)") for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    keep = mask_of(padding, 3, 7)
    assert_same_rows(before, after, "attention_mask", (1 - keep.astype(int) if inverted else keep.astype(int)), keep)


def test_booleans_of_unknown_shape_stay():
    kept = with_mask("int64", name="valid", mask="c = other.Operator(valid)  r = Cast<to = 9>(c)")
    assert unpad(kept, analysis_of(kept)).kept == (
        "the mask bias is computed with c, which Operator gives: its shape is not known"
    )


def test_booleans_of_rank_4_stay():
    kept = with_mask(
        "bool", name="valid", dims="B,1,1,S", mask="", square="", bias="bias = Where(valid, zero, low)  m = Identity(bias)"
    )
    assert (
        unpad(kept, analysis_of(kept)).kept
        == "the mask m is not made from one input [B,S] or booleans [B,S] alone, or does not shut out padding"
    )


@pytest.mark.parametrize("dims", ["B,S,S", "B,1,1,S"])
def test_a_mask_of_rank_3_or_4_stays(dims):
    edits = {"mask": "", "square": "", "bias": "f = Cast<to = 9>(attention_mask)  m = Where(f, zero, low)"}
    kept = with_mask("int64", dims=dims, **edits)
    assert unpad(kept, analysis_of(kept)).kept == f"input 'attention_mask' has rank {dims.count(',') + 1}, wanted [B,S]"


@pytest.mark.parametrize(
    ("edits", "where"),
    [
        ({"constants": LENGTH_CONSTANTS, "mask": LENGTHS}, "c"),
        ({"mask": "c = Cast<to = 9>(other)  r = Reshape(c, heads)", "inputs": ", int64[B,S] other"}, "other"),
    ],
)
def test_zeros_ask_for_the_mask_that_is_given(edits, where):
    kept = model(**edits)
    assert f"outputs would show zeros where {where} says" in unpad(kept, analysis_of(kept), zeros=True).kept


def test_zeros_are_shown_where_a_mask_of_another_name_says():
    before, after = (with_mask("int64", name="valid", head="y = Identity(e)") for _ in range(2))
    for shown in (before.graph.outputs[0], after.graph.outputs[0]):
        shown.shape = ir.Shape(["B", "S", 8])
    assert unpad(after, analysis_of(after), zeros=True) == Padding(zeros=("y",))
    keep = mask_of("holes", 3, 7)
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 7, 8)).astype(np.float32), "valid": keep.astype(np.int64)}
    wanted, got = (run(open_session(ir.to_proto(m).SerializeToString(), optimize=False), feeds)["y"] for m in (before, after))
    np.testing.assert_allclose(got, wanted * keep[..., None], rtol=0, atol=1e-5)


def test_zeros_are_not_shown_in_attentions_own_output():
    kept = model("float[B,8] y, float[B,S,8] a")
    assert unpad(kept, analysis_of(kept), zeros=True).kept == "output 'a' is attention's own"


@pytest.mark.parametrize(
    "scores",
    [
        "other.Squeeze(e, flat)",
        "other.Gather<axis = 2>(e, first)",
        "Squeeze(e, one)",
        "ReduceMax<keepdims = 0>(e, flat)",
    ],
)
def test_other_scores_are_not_shown(scores):
    """By operators of another domain, over other axes."""
    kept = model("float[M] y", CONSTANTS + ", int64[1] flat = {-1}, int64 second = {1}", head=f"y = {scores}")
    assert "at y reads padded positions" in unpad(kept, analysis_of(kept), zeros=True).kept


def test_what_reads_no_token_stays():
    """Another branch: attention, a first row, scores, products and norms that are not those of the masked tokens."""
    head = (
        NODES["head"]
        + """  z1 = Attention<q_num_heads = 2, kv_num_heads = 2>(other, other, other)  z2 = Gather<axis = 1>(other, first)
        z3 = Squeeze(column, flat)  z4 = MatMul(x, by)  z5 = LayerNormalization<axis = -1>(four, w4, w4)  z6 = Shape(x)"""
    )
    shown = "float[B,8] y, float[B,K,8] z1, float[B,8] z2, float[B,S] z3, float[B,S,3] z4, float[B,S,2,4] z5, int64[3] z6"
    inputs = ", float[B,K,8] other, float[B,S,1] column, float[B,8,3] by, float[B,S,2,4] four, float[4] w4"
    for zeros in (False, True):
        before, after = (fill(model(shown, CONSTANTS + ", int64[1] flat = {-1}", inputs, head=head), w4=(4,)) for _ in range(2))
        assert unpad(after, analysis_of(after), zeros=zeros) == Padding()
        assert_same(before, after, {"B": 3, "S": 7, "K": 5}, attention_mask=mask_of("right", 3, 7).astype(np.int64))


def test_what_became_of_padding_is_said():
    assert [str(Padding()), str(Padding("why")), str(Padding(zeros=("a", "b")))] == [
        "removed",
        "kept: why",
        "removed, a, b zero there",
    ]


def test_shapes_of_tokens_are_those_before():
    """What reads a size alone may stay: the sizes come from the mask."""
    head = "u = Shape(e)  u1 = Shape<start = -1>(q)  u2 = Shape<end = 2>(s)  y = Gather<axis = 1>(e, first)"
    before, after = (model("float[B,8] y, int64[3] u, int64[1] u1, int64[2] u2", head=head) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    mask = mask_of("right", 3, 7).astype(np.int64)
    wanted, got = outputs(before, mask), outputs(after, mask)
    assert (
        [got[name].tolist() for name in ("u", "u1", "u2")]
        == [[3, 7, 8], [8], [3, 7]]
        == [wanted[name].tolist() for name in ("u", "u1", "u2")]
    )
    np.testing.assert_allclose(got["y"], wanted["y"], rtol=0, atol=1e-5)


def test_a_linear_layer_begins_it_too():
    """A layer that norms its result (torch.nn's default) has no norm before its first attention."""
    edits = {"norm": "h = Identity(x)", "out": "p = MatMul(a, o)  s = Sum(p, x)"}
    before, after = (model(**edits) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    for kind in MASKS[:-1]:
        mask = mask_of(kind, 3, 7).astype(np.int64)
        np.testing.assert_allclose(outputs(after, mask)["y"], outputs(before, mask)["y"], rtol=0, atol=1e-5)


def test_a_norm_may_leave_out_its_bias():
    edits = {"norm": "h = LayerNormalization<axis = -1>(x, gain, )"}
    before, after = (model(**edits) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    mask = mask_of("right", 3, 7).astype(np.int64)
    np.testing.assert_allclose(outputs(after, mask)["y"], outputs(before, mask)["y"], rtol=0, atol=1e-5)


def test_a_row_with_dimensions_of_one_is_the_same_for_all():
    edits = {"out": "p0 = MatMul(a, o)  p = Add(p0, row)  s = Sum(p, h)"}
    constants = CONSTANTS + ", float[1,1,8] row = {0, 1, 2, 3, 4, 5, 6, 7}"
    before, after = (model(constants=constants, **edits) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    mask = mask_of("left", 3, 7).astype(np.int64)
    np.testing.assert_allclose(outputs(after, mask)["y"], outputs(before, mask)["y"], rtol=0, atol=1e-5)


SHOWN = "float[B,8] y, float[B,S,8] e"


@pytest.mark.parametrize("outputs", ["float[B,8] y", SHOWN, "float[2,8] y"])
def test_it_is_proven_on_the_whole_graph(outputs):
    after, context = model(outputs), Context(compute, infer, prove=True)
    result = context.apply(RemovePadding(zeros=outputs == SHOWN), after)
    assert result.modified
    trace = context.trace.to_json()
    assert (trace["proven"], trace["unproven"], trace["rejected"]) == (1, {}, {})
    assert (trace["rules"], trace["passes"]) == ({"unpad": 1}, {"unpad": 1})
    assert {"Attention", "LayerNormalization"} <= {line.op for line in context.trace.applications[0].before}


@pytest.mark.parametrize("zeros", [False, True])
def test_what_is_proven_wrong_is_put_back(zeros, monkeypatch):
    from onnxfuse.fusions import unpad as module

    right = module._rewrite

    def wrong(graph, *others, **options):
        right(graph, *others, **options)
        norm = next(node for node in graph if node.op_type == "LayerNormalization")
        norm.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1.0)

    monkeypatch.setattr(module, "_rewrite", wrong)
    outputs = SHOWN if zeros else "float[B,8] y"
    after, context = model(outputs), Context(compute, infer, prove=True)
    result = context.apply(RemovePadding(zeros), after)
    assert not result.modified
    assert "computes something else: off by" in result.padding.kept
    assert "off by" in context.trace.rejected["unpad"]
    assert ops(after) == ops(model(outputs))
    assert_same(model(outputs), after, {"B": 2, "S": 5}, attention_mask=np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]))


def test_where_no_proof_can_be_made_the_reason_is_kept():
    lengths = {
        "mask": LENGTHS.replace("attention_mask)  n0", "other)  n0").replace(
            "ones = Cast<to = 7>(attention_mask)", "ones = Neg(other)"
        )
    }
    after, context = (
        model(constants=LENGTH_CONSTANTS, inputs=", int64[B,S] other", **lengths),
        Context(compute, infer, prove=True),
    )
    assert context.apply(RemovePadding(), after).modified
    assert "rows without a token" in context.trace.unproven["unpad"]


@pytest.mark.parametrize(
    ("tokens", "mask"), [((2, 7), (1, 7)), ((2, 7), (2, 1)), ((1, 7), (2, 7)), ((2, 7), (2, 6)), ((2, 7), (1, 14))]
)
def test_a_mask_of_other_sizes_than_the_tokens_does_not_run(tokens, mask):
    """Broadcast, it would answer for fewer rows than are asked, or for others."""
    after = model()
    assert unpad(after, analysis_of(after)) == Padding()
    session = open_session(ir.to_proto(after).SerializeToString(), optimize=False)
    feeds = {"x": np.zeros((*tokens, 8), np.float32), "attention_mask": np.ones(mask, np.int64)}
    with pytest.raises(ModelError):
        run(session, feeds)
