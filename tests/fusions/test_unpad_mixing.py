"""Padding removal around attention that stays in its padded form: what positions turn, bias or hide, fused or not; what heads pick."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse.fusions.unpad import Padding, unpad
from onnxfuse.runtime.sessions import open_session, run
from onnxfuse.verify.masks import MASKS, mask_of
from tests.conftest import analysis_of, ops
from tests.fusions.test_unpad import CONSTANTS, NODES, model

MORE = (
    CONSTANTS
    + """, int64[4] apart = {0, 0, 2, 4}, int64[4] columns = {0, 1, -1, 1}, int64[3] merged = {0, 0, 8}, float half = {0.5},
    int64[1] any = {-1}, int64[1] four = {4}, int64 seven = {7}, int64[1] two = {2}, int64[1] start = {0}, int64[1] middle = {2}, int64[1] last = {-1}, int64 step = {1}, int64 late = {-1}"""
)
SPLIT = """q3 = Reshape(q, apart)  q4 = Transpose<perm = [0, 2, 1, 3]>(q3)  k3 = Reshape(k, apart)  k4 = Transpose<perm = [0, 2, 1, 3]>(k3)
    v3 = Reshape(v, apart)  v4 = Transpose<perm = [0, 2, 1, 3]>(v3)  """
MERGE = "  c2 = Transpose<perm = [0, 2, 1, 3]>(c4)  a = Reshape(c2, merged)"
WEIGHTS = "k5 = Transpose<perm = [0, 1, 3, 2]>(k4)  s4 = MatMul(q4, k5)  s5 = Mul(s4, half)  "
SOFTMAX = "w4 = Softmax<axis = -1>(s6)  c4 = MatMul(w4, v4)"
UNFUSED = SPLIT + WEIGHTS + "s6 = Add(s5, bias)  " + SOFTMAX + MERGE
ON_HEADS = SPLIT + "c4 = Attention(q4, k4, v4, m)" + MERGE
TURNED = """Y0 = Slice(X4, start, middle, last)  Y1 = Slice(X4, middle, four, last)  Y2 = Neg(Y1)  Y3 = Concat<axis = -1>(Y2, Y0)
    Y4 = Mul(Y3, sin)  X5 = Mul(X4, cos)  X6 = Add(X5, Y4)  """
ROTARY = (
    SPLIT
    + TURNED.replace("X", "q").replace("Y", "p")
    + TURNED.replace("X", "k").replace("Y", "t")
    + "c4 = Attention(q6, k6, v4, m)"
    + MERGE
)
SECOND = "  a2 = Attention<q_num_heads = 2, kv_num_heads = 2>(s, s, s, m2)  e = LayerNormalization<axis = -1>(a2, gain, shift)"
DISENTANGLED = (
    SPLIT
    + """k5 = Transpose<perm = [0, 1, 3, 2]>(k4)  s4 = MatMul(q4, k5)  n = Shape<start = 1, end = 2>(attention_mask)  rows = Concat<axis = 0>(any, n, four)
    by_row = Concat<axis = 0>(any, n, n)  back = Concat<axis = 0>(any, two, n, n)  s3 = Reshape(s4, by_row)  q1 = Reshape(q4, rows)  p0 = MatMul(q1, table)
    n2 = Shape(s3)  distance2 = Expand(distance, n2)  p1 = GatherElements<axis = -1>(p0, distance2)  s1 = Add(s3, p1)  s2 = Reshape(s1, back)  d = Reshape(attention_mask, columns)
    d1 = Reshape(attention_mask, heads)  d2 = Mul(d1, d)  d3 = Cast<to = 9>(d2)  s6 = Where(d3, s2, low)  """
    + SOFTMAX
    + MERGE
)

BIASED = "bias = Where(r, zero, low)  m = Add(relative, bias)"
MEAN = "f = Cast<to = 1>(attention_mask)  f3 = Unsqueeze(f, last)  z = Mul(e, f3)  y = ReduceSum<keepdims = 0>(z, one)"
AT = """n1 = Shape(e)  n2 = Gather(n1, first)  n3 = Gather(n1, one)  n4 = Range(first, n2, step)  n5 = Mul(n4, n3)  n6 = Add(n5, chosen)
    n7 = Flatten<axis = 2>(e)  y = Gather(n7, n6)"""
PAIRS = """n1 = Shape<end = 1>(e)  n2 = Squeeze(n1)  n4 = Range(first, n2, step)  n5 = Unsqueeze(n4, last)  n6 = Unsqueeze(chosen, last)
    n7 = Concat<axis = 1>(n5, n6)  y = GatherND(e, n7)"""

GONE = {
    "a bias of relative position": {"inputs": ", float[1,2,S,S] relative", "bias": BIASED, "square": ""},
    "the future hidden": {"inputs": ", float[B,1,S,S] causal", "bias": BIASED.replace("(relative,", "(causal,"), "square": ""},
    "the future hidden by the operator": {
        "attention": NODES["attention"].replace("kv_num_heads = 2", "kv_num_heads = 2, is_causal = 1")
    },
    "a window": {"inputs": ", bool[1,1,S,S] near", "bias": "b0 = And(near, r)  m = Where(b0, zero, low)", "square": ""},
    "a window first": {"inputs": ", bool[1,1,S,S] near", "bias": "b0 = And(r, near)  m = Where(b0, zero, low)", "square": ""},
    "a window that fills as padding is filled": {
        "inputs": ", bool[1,1,S,S] far",
        "bias": "b0 = Where(r, zero, low)  b1 = Expand(b0, square)  m = Where(far, low, b1)",
        "mask": NODES["mask"] + "  " + NODES["square"],
        "square": "",
    },
    "another mask too": {
        "inputs": ", bool[B,1,1,S] other",
        "bias": NODES["bias"].replace("(r,", "(b0,").replace("bias =", "b0 = And(r, other)  bias ="),
    },
    "keys from elsewhere": {"attention": NODES["attention"].replace("(q, k,", "(q, x,")},
    "queries from elsewhere": {"attention": NODES["attention"].replace("(q,", "(x,")},
    "a second mask": {"square": NODES["square"] + "  b2 = Where(r, half, low)  m2 = Expand(b2, square)", "last": SECOND},
    "a second mask of pairs": {
        "square": NODES["square"] + "  d = Reshape(c, columns)  r2 = And(r, d)  m2 = Where(r2, zero, low)",
        "last": SECOND,
    },
    "heads": {"attention": ON_HEADS},
    "rotary positions": {"attention": ROTARY, "inputs": ", float[1,1,S,4] sin, float[1,1,S,4] cos"},
    "attention not fused": {"attention": UNFUSED, "bias": NODES["bias"].split("  ")[0], "square": ""},
    "weights cleared": {
        "attention": UNFUSED.replace("MatMul(w4", "MatMul(w6").replace(
            "  c4 =", "  shut = Not(r)  w5 = Where(shut, zero, w4)  w6 = Mul(w5, half)  c4 ="
        ),
        "bias": NODES["bias"].split("  ")[0],
        "square": "",
    },
    "scores filled": {"attention": UNFUSED.replace("Add(s5, bias)", "Where(r, s5, low)"), "bias": "", "square": ""},
    "disentangled scores": {
        "attention": DISENTANGLED,
        "inputs": ", float[1,4,6] table, int64[1,S,S] distance",
        "mask": "",
        "bias": "",
        "square": "",
    },
    "an operand by position": {"out": "p = MatMul(a, o)  s = Sum(p, h, by)", "inputs": ", float[1,S,8] by"},
    "an operand by row": {"out": "p = MatMul(a, o)  s = Sum(p, h, by)", "inputs": ", float[B,1,8] by"},
    "a product with another batch": {"out": "p = MatMul(a, w2)  s = Sum(p, h)", "inputs": ", float[B,8,8] w2"},
    "a power": {"out": "p0 = MatMul(a, o)  p = Pow(p0, three)  s = Sum(p, h)", "constants": MORE + ", float three = {3.0}"},
    "the last token": {"head": "y = Gather<axis = 1>(e, late)"},
    "the second token": {"head": "y0 = Gather<axis = 1>(e, one)  y = Squeeze(y0, one)"},
    "two tokens": {"head": "y0 = Gather<axis = 1>(e, late)  y1 = Gather<axis = 1>(e, first)  y = Sub(y0, y1)"},
    "a token that is computed": {"head": AT, "inputs": ", int64[B] chosen"},
    "a token by its row and position": {"head": PAIRS, "inputs": ", int64[B] chosen"},
    "a token counted from the back": {
        "head": PAIRS.replace("chosen,", "back,").replace("n6 =", "back = Sub(chosen, seven)  n6 ="),
        "inputs": ", int64[B] chosen",
    },
    "a token behind a bias": {
        "head": AT,
        "inputs": ", int64[B] chosen, float[1,2,S,S] relative",
        "bias": BIASED,
        "square": "",
    },
    "a token that stands in its place": {
        "head": "t0 = Mul(e, by)  y = Gather<axis = 1>(t0, first)",
        "inputs": ", float[1,S,8] by",
    },
    "a mean behind a bias": {"inputs": ", float[1,2,S,S] relative", "bias": BIASED, "square": "", "head": MEAN},
}


def feeds_of(made: ir.Model, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Random content for every input."""
    rng, (batch, length) = np.random.default_rng(0), mask.shape
    numbers = {"B": batch, "S": length}
    fixed = {
        "attention_mask": mask,
        "chosen": rng.integers(0, length, batch),
    }
    found = {}
    for value in made.graph.inputs:
        shape = [dim if isinstance(dim, int) else numbers[dim.value] for dim in value.shape.dims]
        drawn = rng.integers(0, 6, shape) if value.dtype == ir.DataType.INT64 else rng.standard_normal(shape).astype(np.float32)
        found[value.name] = fixed.get(value.name, drawn > 0 if value.dtype == ir.DataType.BOOL else drawn)
    if "near" in found:
        found["near"] = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))[None, None] < 3
    if "causal" in found:
        found["causal"] = np.broadcast_to(
            np.triu(np.full((length, length), -np.inf, np.float32), 1), found["causal"].shape
        ).copy()
    if "other" in found:
        found["other"][:] = True
        found["other"][0, 0, 0, -1] = False
    return found


def computed(made: ir.Model, mask: np.ndarray) -> dict[str, np.ndarray]:
    session = open_session(ir.to_proto(made).SerializeToString(), optimize=False)
    wanted = {value.name for value in made.graph.inputs}
    return run(session, {name: array for name, array in feeds_of(made, mask).items() if name in wanted})


@pytest.mark.parametrize("name", GONE)
def test_padding_goes(name):
    before, after = (model(**{"constants": MORE} | GONE[name]) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    for kind in MASKS[:-1]:
        mask = mask_of(kind, 3, 7).astype(np.int64)
        wanted, got = computed(before, mask)["y"], computed(after, mask)["y"]
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    empty = mask_of("empty row", 3, 7).astype(np.int64)
    assert np.isfinite(computed(after, empty)["y"]).all()


SHOWN = "float[B,8] y, float[B,S,8] a"
KEPT = {
    "scores that let padding in": (
        {"attention": UNFUSED.replace("Add(s5, bias)", "Add(s5, s5)"), "square": ""},
        "the mask s6 is not",
    ),
    "a choice of another number where padding is": (
        {
            "inputs": ", bool[1,1,S,S] near",
            "bias": "b0 = Where(r, zero, low)  m = Where(near, half, b0)",
            "square": "",
        },
        "the mask m is not made from",
    ),
    "one softmax without a mask": (
        {
            "attention": UNFUSED.replace(
                "c4 = MatMul(w4, v4)", "u4 = Softmax<axis = -1>(s5)  c3 = MatMul(w4, v4)  c4 = MatMul(u4, c3)"
            )
        },
        "the scores s5 do not shut out padding by 'attention_mask'",
    ),
    "a softmax over queries": ({"attention": UNFUSED.replace("Softmax<axis = -1>", "Softmax<axis = 2>")}, "the scores s6 do not"),
    "weights that are changed": (
        {"attention": UNFUSED.replace("MatMul(w4, v4)", "MatMul(w5, v4)").replace("  c4 =", "  w5 = Add(w4, half)  c4 =")},
        "MatMul at c4 reads padded positions",
    ),
    "weights chosen besides others": (
        {
            "attention": UNFUSED.replace("MatMul(w4", "MatMul(w5").replace(
                "  c4 =", "  shut = Not(r)  w5 = Where(shut, half, w4)  c4 ="
            ),
        },
        "MatMul at c4 reads padded positions",
    ),
    "a mask of unknown shape": (
        {"bias": "b0 = other.Operator(r)  bias = Where(r, zero, b0)  m = Expand(bias, square)"},
        "the mask bias is computed with b0, which Operator gives: its shape is not known",
    ),
    "values without weights": (
        {"attention": UNFUSED.replace("MatMul(w4, v4)", "MatMul(other, v4)"), "inputs": ", float[B,2,S,S] other"},
        "MatMul at c4 reads padded positions",
    ),
    "a product over queries": (
        {
            "attention": UNFUSED.replace("MatMul(w4, v4)", "MatMul(w5, v4)").replace(
                "  c4 =", "  w5 = Transpose<perm = [0, 1, 3, 2]>(w4)  c4 ="
            )
        },
        "MatMul at c4 reads padded positions",
    ),
    "the batch turned": (
        {
            "attention": UNFUSED.replace(
                "c2 = Transpose<perm = [0, 2, 1, 3]>", "c1 = Transpose<perm = [2, 0, 1, 3]>(c4)  c2 = Identity"
            ).replace("(c4)  a", "(c1)  a")
        },
        "Transpose at c1 reads padded positions",
    ),
    "other tokens' values": (
        {"attention": ON_HEADS.replace("v4, m", "v5, m").replace("c4 =", "v5 = Slice(v4, start, middle, middle)  c4 =")},
        "Slice at v5 reads padded positions",
    ),
    "tokens behind each other": (
        {
            "attention": ON_HEADS.replace("k4, v4, m", "k5, v5, m").replace(
                "c4 =", "k5 = Concat<axis = 2>(k4, k4)  v5 = Concat<axis = 2>(v4, v4)  c4 ="
            )
        },
        "Concat at k5 reads padded positions",
    ),
    "tokens by number": (
        {
            "attention": ON_HEADS.replace("q4, k4", "q5, k4").replace("c4 =", "q5 = GatherElements<axis = 2>(q4, by)  c4 ="),
            "inputs": ", int64[B,2,S,4] by",
        },
        "GatherElements at q5 reads padded positions",
    ),
    "columns by what tokens hold": (
        {
            "attention": ON_HEADS.replace("q4, k4", "q5, k4").replace(
                "c4 =", "q6 = Cast<to = 7>(q4)  q5 = GatherElements<axis = 3>(q4, q6)  c4 ="
            )
        },
        "GatherElements at q5 reads padded positions",
    ),
    "rows of the batch": (
        {
            "attention": ON_HEADS.replace("q4, k4", "q5, k4").replace("c4 =", "q5 = Gather<axis = 0>(q4, by)  c4 ="),
            "inputs": ", int64[B] by",
        },
        "Gather at q5 reads padded positions",
    ),
    "heads of another domain": ({"attention": ON_HEADS.replace("Attention(", "other.Attention(")}, "there is no attention"),
    "a mask made of tokens": (
        {
            "attention": ON_HEADS.replace("v4, m)", "v4, m5)").replace(
                "c4 =", "k5 = Transpose<perm = [0, 1, 3, 2]>(k4)  m5 = MatMul(q4, k5)  c4 ="
            ),
            "last": NODES["last"] + "  a2 = Attention<q_num_heads = 2, kv_num_heads = 2>(x, x, x, m)",
        },
        "the mask of attention at c4 is made from tokens",
    ),
    "the middle of a sequence behind a bias": (
        {"bias": BIASED, "inputs": ", float[1,2,S,S] relative", "square": "", "head": "y = ReduceMean<keepdims = 0>(e, one)"},
        "ReduceMean at y reads padded positions",
    ),
    "attention that is shown": (
        {"outputs": "float[B,8] y, float[B,S,8] a", "bias": BIASED, "inputs": ", float[1,2,S,S] relative", "square": ""},
        "output 'a' shows padded positions",
    ),
    "either of two masks": (
        {"bias": "b0 = Or(r, near)  m = Where(b0, zero, low)", "inputs": ", bool[1,1,S,S] near", "square": ""},
        "the mask m is not made from",
    ),
    "a bias that is subtracted": (
        {"bias": "bias = Where(r, zero, low)  m = Sub(relative, bias)", "inputs": ", float[1,2,S,S] relative", "square": ""},
        "the mask m is not made from",
    ),
    "a mask that only weakens behind a bias": (
        {
            "bias": BIASED,
            "inputs": ", float[1,2,S,S] relative",
            "square": "",
            "constants": MORE.replace("low = {-3.4e38}", "low = {-10.0}"),
        },
        "the mask m is not made from",
    ),
    "a token picked by what others hold": (
        {
            "head": """q0 = Gather<axis = 1>(q, ids)  m0 = Gather<axis = -2>(m, ids)  a0 = Attention<q_num_heads = 2, kv_num_heads = 2>(q0, k, v, m0)
            a1 = Reshape(a0, flat)  chosen = ArgMax<axis = 1, keepdims = 0>(a1)  """
            + AT,
            "constants": MORE + ", int64[1] ids = {0}, int64[2] flat = {0, 8}",
        },
        "n6 picks tokens by what they hold",
    ),
    "every token but in rows": (
        {"outputs": "float[M,8] y", "head": "y = Flatten<axis = 2>(e)"},
        "Flatten at y reads padded positions",
    ),
    "rows that are read twice": (
        {"outputs": "float[B,8] y, float[M,8] z", "inputs": ", int64[B] chosen", "head": AT + "  z = Tanh(n7)"},
        "Flatten at n7 reads padded positions",
    ),
    "columns of rows": (
        {"outputs": "float[M,B] y", "inputs": ", int64[B] chosen", "head": AT.replace("Gather(n7", "Gather<axis = 1>(n7")},
        "Flatten at n7 reads",
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_padding_stays(name):
    edits, reason = KEPT[name]
    kept = model(**{"constants": MORE} | edits)
    before = ops(kept)
    assert reason in unpad(kept, analysis_of(kept)).kept
    assert ops(kept) == before


@pytest.mark.parametrize(("perm", "gone"), [([0, 1, 2, 3], True), ([2, 1, 0, 3], False)])
def test_a_mask_whose_batch_moved_is_another(perm, gone):
    """As many rows as positions: sizes do not tell them apart."""
    made = model(
        constants=MORE,
        bias=f"turned = Transpose<perm = {perm}>(r)  b0 = And(turned, near)  m = Where(b0, zero, low)",
        inputs=", bool[1,1,S,S] near",
        square="",
    )
    for value in made.graph.inputs:
        value.shape = ir.Shape([dim if isinstance(dim, int) else 7 for dim in value.shape.dims])
    assert bool(unpad(made, analysis_of(made)).kept) != gone


def shapes_of(made: ir.Model, mask: np.ndarray, *names: str) -> list[tuple[int, ...]]:
    """The shapes of inner values, while running."""
    for value in (value for node in made.graph for value in node.outputs if value.name in names):
        value.type = ir.TensorType(ir.DataType.FLOAT)
        made.graph.outputs.append(value)
    got = computed(made, mask)
    return [got[name].shape for name in names]


@pytest.mark.parametrize("name", ["attention not fused", "disentangled scores"])
def test_a_model_of_a_low_opset_stays_one(name):
    """As target ``standard`` writes it: ReduceMax has no axes to read there."""
    made = model(constants=MORE, **GONE[name])
    made.graph.opset_imports[""] = 17
    assert unpad(made, analysis_of(made)) == Padding()
    onnx.checker.check_model(ir.to_proto(made), full_check=True)


@pytest.mark.usefixtures("exact")
def test_attention_alone_stands_padded():
    made = model(constants=MORE, **GONE["a mean behind a bias"])
    assert unpad(made, analysis_of(made)) == Padding()
    mask = mask_of("right", 3, 7).astype(np.int64)
    assert shapes_of(made, mask, "h", "a", "s") == [(1, mask.sum(), 8), (3, 7, 8), (1, mask.sum(), 8)]


@pytest.mark.parametrize("name", ["a bias of relative position", "a window", "disentangled scores", "a second mask of pairs"])
@pytest.mark.usefixtures("exact")
def test_a_picked_token_that_is_padding_keeps_all(name):
    """As a query it may find no key; padding's values count then."""
    made = model(constants=MORE, **GONE[name])
    assert unpad(made, analysis_of(made)) == Padding()
    right, left = (mask_of(kind, 3, 7).astype(np.int64) for kind in ("right", "left"))
    assert shapes_of(made, left, "h")[0] == (1, 21, 8)
    assert shapes_of(made.clone(), right, "h")[0] == (1, right.sum(), 8)


@pytest.mark.usefixtures("exact")
def test_a_picked_token_is_kept():
    """Behind attention without positions it alone: its keys are the real ones whatever it is."""
    made = model(constants=MORE, **GONE["a token that is computed"])
    assert unpad(made, analysis_of(made)) == Padding()
    mask = np.array([[1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
    chosen = feeds_of(made, mask)["chosen"]
    kept = mask.astype(bool)
    kept[np.arange(3), chosen] = True
    assert kept.sum() > mask.sum()
    assert shapes_of(made, mask, "h") == [(1, kept.sum(), 8)]
