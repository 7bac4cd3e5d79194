"""Normal form of the batch: swaps of batch and sequence, and merges of batch and heads, sink; what they may not pass stays."""

import pytest

from onnxfuse.normalize import batch_merge, batch_swap, shapes, softmax
from onnxfuse.rewrite import Trace, rewrite
from tests.conftest import analysis_of, apply, assert_same, fill, ops, parse

CONSTANTS = """<int64[1] last = {-1}, int64[1] ax0 = {0}, int64[1] ax1 = {1}, int64[1] ax2 = {2}, int64[2] ax01 = {0, 1}, int64[4] four = {0, 0, 3, 4},
    int64[3] shb = {0, -1, 4}, int64[3] bns = {-1, 7, 4}, int64[3] rows = {0, 0, 12}, int64[3] rows_b = {0, -1, 12}, int64[2] flat = {-1, 7},
    int64[2] other = {7, -1}, int64[5] wide = {1, 0, 0, 3, 4}, int64[3] tail = {0, 3, -1}, int64[5] unsq = {0, 0, 1, 3, 4}, int64[3] thirds = {4, 4, 4},
    int64[4] undone = {-1, 3, 7, 4}, int64[3] kept = {0, 0, -1}, int64[3] in_s = {0, -1, 4}, int64[4] heads_s = {7, 3, -1, 4}, int64[4] heads_h = {7, 3, 4, -1}, float two = {2.0}, float one = {1.0}, float[1,1,12] row = {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0}, int64[2] sb = {7, -1}>"""
INPUTS = (
    "float[B,7,12] x, float[B,7,12] r, float[B,3,7,4] h, float[B,3,7,4] h2, float[B,3,4,7] k, float[C,2,4,7] k2, float[12] g, float[12] b, "
    "float[12,6] w, float[7,1] column, float[B,1,1,7] m4, float[7,7] m2, float[1,7,7] m3, float[3,7,7] m3b, float e, float[B,12,6] w3, "
    "float[12,5] odd, int64[B] ids, float[B,7,1] thin"
)
SIZES = {"B": 2, "C": 2}
WEIGHTS = {"g": (12,), "b": (12,), "w": (12, 6)}
T = "t = Transpose<perm = [1, 0, 2]>(x)  "


def build(body: str):
    return fill(parse(f"g ({INPUTS}) => (float[P] y) {CONSTANTS} {{ {body} }}"), **WEIGHTS)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        *((f"{T}y = {op}(t)", [op, "Transpose"]) for op in batch_swap.UNARY if op != "Sqrt"),
        (T + "a = Abs(t)  y = Sqrt(a)", ["Abs", "Sqrt", "Transpose"]),
        (T + 'y = Gelu<approximate = "tanh">(t)', ["Gelu", "Transpose"]),
        (T + "y = LayerNormalization(t, g, b)", ["LayerNormalization", "Transpose"]),
        (T + "y = LayerNormalization<axis = 2>(t, g)", ["LayerNormalization", "Transpose"]),
        (T + "y = MatMul(t, w)", ["MatMul", "Transpose"]),
        (T + "y = ReduceMean(t, last)", ["ReduceMean", "Transpose"]),
        (T + "y = ReduceMean<keepdims = 0>(t, ax0)", ["ReduceMean"]),
        (T + "y = ReduceMean<keepdims = 1>(t, ax1)", ["ReduceMean", "Transpose"]),
        (T + "u = Transpose<perm = [1, 0, 2]>(r)  y = Add(t, u)", ["Add", "Transpose"]),
        (T + "u = Transpose<perm = [1, 0, 2]>(r)  y = Sub(t, u)", ["Sub", "Transpose"]),
        (T + "u = Transpose<perm = [1, 0, 2]>(r)  y = Mul(t, u)", ["Mul", "Transpose"]),
        (T + "u = Transpose<perm = [1, 0, 2]>(r)  y = Div(t, u)", ["Div", "Transpose"]),
        (T + "y = Mul(t, t)", ["Mul", "Transpose"]),
        (T + "y = Add(t, t)", ["Add", "Transpose"]),
        (T + "y = Add(g, t)", ["Add", "Transpose"]),
        (T + "i = Identity(t)  y = Sub(i, g)", ["Sub", "Transpose"]),
        (T + "y = Mul(t, two)", ["Mul", "Transpose"]),
        (T + "y = Div(t, g)", ["Div", "Transpose"]),
        (T + "a = Abs(t)  y = Pow(a, e)", ["Abs", "Pow", "Transpose"]),
        (T + "y = Sub(one, t)", ["Sub", "Transpose"]),
        (T + "y = Sub(t, row)", ["Sub", "Transpose"]),
        (T + "y = Sub(row, t)", ["Sub", "Transpose"]),
        (T + "y = Div(g, t)", ["Div", "Transpose"]),
        (T + "p, q, s = Split<axis = -1, num_outputs = 3>(t)  y = Relu(q)", ["Relu", "Split", "Transpose"]),
        (T + "p, q, s = Split<axis = 2>(t, thirds)  y = Relu(s)", ["Relu", "Split", "Transpose"]),
        (T + "y = Reshape(t, four)", ["Reshape", "Transpose"]),
        ("t = Transpose<perm = [1, 0, 2]>(thin)  y = Reshape(t, sb)", ["Reshape", "Transpose"]),
        ("t = Transpose<perm = [2, 0, 1, 3]>(h)  y = Reshape(t, rows)", ["Reshape", "Transpose", "Transpose"]),
        (
            "a = Reshape(h, bns)  t = Transpose<perm = [1, 0, 2]>(a)  y = Reshape(t, rows_b)",
            ["Reshape", "Transpose", "Transpose"],
        ),
    ],
)
def test_what_works_row_by_row_lets_the_swap_pass(body, wanted):
    before, after = build(body), build(body)
    apply((), after)
    assert ops(after) == sorted(wanted)
    last = list(after.graph)[-1]
    assert "Transpose" not in wanted or list(last.attributes["perm"].value[:2]) == batch_swap.SWAP[:2]
    assert_same(before, after, SIZES)
    assert not apply((), after).applications


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (
            T + "m = Reshape(t, shb)  u = Transpose<perm = [1, 0, 2]>(m)  z = Reshape(u, undone)  y = Relu(z)",
            ["Relu", "Reshape", "Transpose"],
        ),
        (
            T + "m = Reshape(t, shb)  f = Mul(m, two)  u = Transpose<perm = [1, 0, 2]>(f)  z = Reshape(u, undone)  y = Relu(z)",
            ["Mul", "Relu", "Reshape", "Transpose"],
        ),
        (
            "m = Reshape(x, in_s)  u = Transpose<perm = [1, 0, 2]>(m)  z = Reshape(u, heads_s)  y = Relu(z)",
            ["Relu", "Reshape", "Transpose"],
        ),
        (
            "m = Reshape(x, in_s)  u = Transpose<perm = [1, 2, 0]>(m)  z = Reshape(u, heads_h)  y = Relu(z)",
            ["Relu", "Reshape", "Transpose"],
        ),
        (
            "a = Reshape(h, bns)  t = Transpose<perm = [0, 2, 1]>(a)  n = Shape(k)  z = Reshape(t, n)  y = Relu(z)",
            ["Relu", "Transpose"],
        ),
    ],
)
def test_heads_that_are_split_through_the_batch(body, wanted):
    before, after = build(body), build(body)
    apply((), after)
    assert ops(after) == wanted
    assert_same(before, after, SIZES)


MERGED = "a = Reshape(h, bns)  c = Reshape(k, kbns)  "


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("s = MatMul(a, c)  d = Mul(s, two)  p = Softmax<axis = -1>(d)", ["MatMul", "Mul", "Softmax"]),
        ("d = Mul(a, two)  s = MatMul(d, c)  p = Softmax<axis = 2>(s)", ["MatMul", "Mul", "Softmax"]),
        ("s = MatMul(a, c)  n = Add(m2, s)  p = Softmax(n)", ["Add", "MatMul", "Softmax"]),
        ("s = MatMul(a, c)  n = Add(s, m3)  p = Softmax(n)", ["Add", "MatMul", "Softmax"]),
        (
            "s = MatMul(a, c)  w4 = Expand(m4, hs)  w1 = Reshape(w4, ms)  n = Add(s, w1)  p = Softmax(n)",
            ["Add", "MatMul", "Softmax"],
        ),
    ],
)
def test_heads_merged_into_the_batch_come_out_again(body, wanted):
    text = MERGED + body + "  i = Identity(p)  y = Reshape(i, scores)"
    constants = CONSTANTS.replace(
        "float two =",
        "int64[3] kbns = {-1, 4, 7}, int64[4] scores = {-1, 3, 7, 7}, int64[4] hs = {1, 3, 1, 1}, "
        "int64[3] ms = {-1, 1, 7}, float two =",
    )
    before, after = (fill(parse(f"g ({INPUTS}) => (float[P] y) {constants} {{ {text} }}"), **WEIGHTS) for _ in range(2))
    apply((), after)
    assert [op for op in ops(after) if op not in ("Identity", "Expand")] == sorted(wanted)
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("t = Transpose<perm = [1, 0, 2]>(a)  y = Relu(t)", ["Relu", "Reshape", "Transpose"]),
        ("t = Transpose<perm = [2, 1, 0]>(a)  y = Relu(t)", ["Relu", "Reshape", "Transpose"]),
        ("y = Add(a, a2)", ["Add", "Reshape"]),
        ("y = Add(a, m)", ["Add", "Reshape"]),
        ("y = Mul(two, a)", ["Mul", "Reshape"]),
    ],
)
def test_heads_merged_with_the_rows(body, wanted):
    """[B,N*S,H]: the second dimension and the third are one."""
    text = (
        f"g ({INPUTS}, float[1,1,4] m) => (float[P] y) {CONSTANTS.replace('float two =', 'int64[3] middle = {0, 21, 4}, float two =')} "
        f"{{ a = Reshape(h, middle)  a2 = Reshape(h2, middle)  {body} }}"
    )
    before, after = (fill(parse(text), **WEIGHTS) for _ in range(2))
    trace = apply((), after)
    assert "merge-sinks" in {application.rule for application in trace.applications}
    assert ops(after) == wanted
    assert_same(before, after, SIZES)


@pytest.mark.parametrize("flat", ["f = Flatten<axis = 3>(s)", "f = Reshape(s, flat)", "f = Flatten<axis = -1>(s)"])
@pytest.mark.parametrize("axis", ["-1", "1"])
def test_softmax_of_flattened_rows_as_the_conversion_from_opset_12_writes_it(flat, axis):
    body = f"s = MatMul(h, k)  n = Shape(s)  {flat}  p = Softmax<axis = {axis}>(f)  q = Reshape(p, n)  y = Relu(q)"
    before, after = build(body), build(body)
    apply((), after)
    assert ops(after) == ["MatMul", "Relu", "Softmax"]
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    "body",
    [
        "n = Shape(r)  u = Unsqueeze(four4, ax0)  t = Transpose<perm = [3, 1, 2, 0, 4]>(u)  y = Squeeze(t, cut)",
        "u = Reshape(x, wide)  t = Transpose<perm = [3, 1, 2, 0, 4]>(u)  y = Squeeze(t, cut)",
        "u = Reshape(four4, unsq)  t = Transpose<perm = [3, 0, 1, 2, 4]>(u)  y = Squeeze(t, cut)",
    ],
)
@pytest.mark.parametrize("cut", ["3", "-2"])
def test_a_dimension_that_comes_and_goes_around_a_transpose(body, cut):
    text = (
        f"g ({INPUTS}) => (float[P] y) {CONSTANTS.replace('float two =', 'int64[1] cut = {' + cut + '}, float two =')} "
        f"{{ four4 = Reshape(x, four)  {body} }}".replace("wide = {1, 0, 0, 3, 4}", "wide = {1, -1, 7, 3, 4}")
    )
    before, after = (fill(parse(text), **WEIGHTS) for _ in range(2))
    apply((), after)
    assert ops(after) == ["Reshape", "Transpose"]
    assert_same(before, after, SIZES)


REFUSED = [
    (batch_swap.guard_norm, T + "y = LayerNormalization<axis = 1>(t, more)", "the norm is over more than the last dimension"),
    (batch_swap.guard_row, T + "y = Add(t, column)", "the other operand differs from row to row"),
    (batch_swap.guard_row, T + "y = Div(column, t)", "the other operand differs from row to row"),
    (batch_swap.guard_row, T + "y = Add(t, m4)", "the other operand differs from row to row"),
    (batch_swap.guard_row, T + "y = Add(t, one4)", "the other operand differs from row to row"),
    (batch_swap.guard_product, T + "y = MatMul(t, w3)", "w3 has rank 3, wanted 2"),
    (batch_swap.guard_mean, T + "y = ReduceMean(t, ax01)", "the mean is not over one dimension"),
    (batch_swap.guard_mean, T + "y = ReduceMean(t, open)", "the mean is not over one dimension"),
    (batch_swap.guard_mean, T + "y = ReduceMean<keepdims = 0>(t, last)", "the last dimension goes"),
    (batch_swap.guard_part(1), T + "p, y = Split<axis = 0>(t, sevens)", "another dimension than the last is split"),
    (batch_swap.guard_split, "t = Transpose<perm = [1, 0, 2]>(single)  y = Reshape(t, none)", "a scalar"),
    (batch_swap.guard_split, T + "y = Reshape(t, other)", "the Reshape does not split the last dimension"),
    (batch_swap.guard_split, T + "y = Reshape(t, tail)", "the Reshape does not split the last dimension"),
    (batch_swap.guard_split, T + "y = Reshape(t, kept)", "nothing is split"),
    (batch_swap.guard_split, T + "y = Reshape(t, rest)", "the Reshape does not split the last dimension"),
    (batch_merge.guard_into_batch, "a = Reshape(h, fours)  y = Transpose<perm = [1, 0, 2]>(a)", "h has rank 4, wanted 3"),
    (batch_merge.guard_into_batch, "a = Reshape(x, four)  y = Transpose<perm = [1, 0, 2, 3]>(a)", "has rank 4, wanted 3"),
    (
        batch_merge.guard_into_batch,
        "a = Reshape(x, in_s)  y = Transpose<perm = [2, 1, 0]>(a)",
        "the merged dimension does not come first",
    ),
    (
        batch_merge.guard_into_batch,
        "a = Reshape(x, same)  y = Transpose<perm = [1, 0, 2]>(a)",
        "the Reshape does not split the last dimension",
    ),
    (
        batch_merge.guard_into_batch,
        "a = Reshape(x, across)  y = Transpose<perm = [1, 0, 2]>(a)",
        "the Reshape does not split the last dimension",
    ),
    (
        batch_merge.guard_into_batch,
        "a = Reshape(odd3, in_s)  y = Transpose<perm = [1, 0, 2]>(a)",
        "the Reshape does not split the last dimension",
    ),
    (
        batch_swap.guard_context,
        "t = Transpose<perm = [2, 0, 1, 3]>(h)  y = Reshape(t, swapped)",
        "the heads are not merged to [S,B,D]",
    ),
    (
        batch_merge.guard_merged_transpose,
        "a = Reshape(h, bns)  y = Transpose<perm = [2, 1, 0]>(a)",
        "the merged dimension moves last",
    ),
    (batch_merge.guard_merged_transpose, "a = Reshape(h, bns)  y = Transpose(a)", "the merged dimension moves last"),
    (
        batch_merge.guard_merged_transpose,
        "a = Reshape(h, tail)  y = Transpose<perm = [1, 0, 2]>(a)",
        "the Reshape does not merge two of four",
    ),
    (
        batch_merge.guard_merged_transpose,
        "a = Reshape(x, bns)  y = Transpose<perm = [1, 0, 2]>(a)",
        "the Reshape does not merge two of four",
    ),
    (
        batch_merge.guard_merged_product,
        "a = Reshape(h, bns)  c = Reshape(k2, kbns)  y = MatMul(a, c)",
        "the operands have other batches",
    ),
    (batch_merge.guard_merged_product, "a = Reshape(h, middle)  c = Reshape(k, kmiddle)  y = MatMul(a, c)", "not their batch"),
    (
        batch_merge.guard_merged_sum,
        "a = Reshape(h, bns)  c = Reshape(h3, middle3)  y = Add(a, c)",
        "the operands are merged otherwise",
    ),
    (
        batch_merge.guard_merged_sum,
        "a = Reshape(h, bns)  c = Reshape(k2s, bns)  y = Add(a, c)",
        "the operands are merged otherwise",
    ),
    (
        batch_merge.guard_merged_sum,
        "a = Reshape(p4, sixes)  c = Reshape(q4, ones)  y = Add(a, c)",
        "the operands are merged otherwise",
    ),
    (batch_merge.guard_merged_mask, "a = Reshape(h, bns)  y = Add(a, each)", "the mask differs in the merged dimension"),
    (batch_merge.guard_merged_mask, "a = Reshape(h, bns)  y = Add(a, high)", "the mask differs in the merged dimension"),
    (batch_merge.guard_merged_mask, "a = Reshape(h, middle)  y = Add(a, by21)", "the mask differs in the merged dimension"),
    (batch_merge.guard_merged_factor, "a = Reshape(h, bns)  y = Mul(a, e)", "c is not a constant scalar"),
    (softmax.guard_rows, "f = Flatten<axis = 3>(h)  y = Softmax<axis = 0>(f)", "the softmax is not over the last dimension"),
    (softmax.guard_rows, "f = Flatten<axis = 1>(h)  y = Softmax<axis = -1>(f)", "the Reshape does not keep the last dimension"),
    (softmax.guard_rows, "f = Reshape(h, other)  y = Softmax<axis = -1>(f)", "the Reshape does not keep the last dimension"),
    (
        shapes.guard_squeezed,
        "u = Unsqueeze(x, ax01)  t = Transpose<perm = [1, 0, 2, 3, 4]>(u)  y = Squeeze(t, ax01)",
        "another number of dimensions",
    ),
    (shapes.guard_squeezed, "u = Unsqueeze(x, ax0)  t = Transpose(u)  y = Squeeze(t, last)", "another number of dimensions"),
    (
        shapes.guard_squeezed,
        "u = Unsqueeze(x, ax0)  t = Transpose<perm = [1, 0, 2, 3]>(u)  y = Squeeze(t, open)",
        "another number of dimensions",
    ),
    (
        shapes.guard_squeezed,
        "n = Shape(dc)  u = Reshape(v, n)  t = Transpose<perm = [1, 0, 2, 3]>(u)  y = Squeeze(t, ax1)",
        "cannot be inferred",
    ),
]
MORE = (
    ", float[B,12] more, int64[1] open, int64[3] swapped, int64[4] rest, int64[2] sevens, float[6,7,4] each, float[21,4] by21, float[C,2,7,4] h3, "
    "float[C,3,7,4] k2s, float[C,D,12] v, float[1,D,C,12] dc, float[B,6,14] odd3, float[1,1,1] single, "
    "float[1,1,1,12] one4, float[1,1,7,7] high, float[2,3,6,4] p4, float[1,2,3,4] q4"
)


@pytest.mark.parametrize(("guard", "body", "reason"), REFUSED)
def test_a_guard_line_refuses(guard, body, reason):
    constants = CONSTANTS.replace(
        "float two =",
        "int64[3] kbns = {-1, 4, 7}, int64[3] middle = {0, 21, 4}, int64[3] kmiddle = {0, 12, 7}, "
        "int64[3] middle3 = {0, 14, 4}, int64[3] fours = {0, 0, 4}, int64[3] same = {0, 7, 12}, "
        "int64[3] across = {7, -1, 4}, int64[0] none = {}, int64[3] sixes = {6, 6, 4}, int64[3] ones = {1, 6, 4}, "
        "float two =",
    )
    more = MORE.replace("int64[3] swapped, ", "").replace("int64[4] rest, ", "").replace("int64[2] sevens, ", "")
    constants = constants.replace(
        "float two =", "int64[3] swapped = {0, 12, -1}, int64[4] rest = {7, 3, -1, 4}, int64[2] sevens = {3, 4}, float two ="
    )
    model = fill(parse(f"g ({INPUTS}{more}) => (float[P] y) {constants} {{ {body} }}"), **WEIGHTS)
    rules = [
        rule
        for rule in (*batch_swap.RULES, *batch_merge.RULES, *softmax.RULES, *shapes.RULES)
        if rule.guard.__qualname__ == guard.__qualname__
    ]
    trace = Trace()
    assert rules
    assert not rewrite(model, rules, analysis_of(model), trace)
    assert any(reason in miss["seen"] for miss in trace.misses.values()), trace.misses
