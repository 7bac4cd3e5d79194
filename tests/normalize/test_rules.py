"""Normal-form rules: each equation is applied where it holds, keeps the outputs, and refuses where it does not."""

import pytest

from tests.conftest import apply, assert_same, fill, normalized, ops, parse

CONSTANTS = """<int64[4] t4 = {0, 0, 3, 4}, int64[3] t3 = {0, 0, 12}, int64[2] t6 = {-1, 6}, int64[1] first = {0}, int64[1] second = {1},
    int64[1] last = {-1}, int64[1] step = {2}, int64[1] end = {9223372036854775807}, int64[1] back = {-1}, int64 zero = {0}, int64 one = {1},
    float z = {0.0}, float f1 = {1.0}, float f2 = {2.0}, float f4 = {4.0}, float low = {-10000.0}>"""


def build(body: str, inputs: str = "float[B,S,12] x", out: str = "float[P] y", **weights):
    return fill(parse(f"g ({inputs}) => ({out}) {CONSTANTS} {{ {body} }}"), **weights)


def check(body: str, wanted: list[str], **parts):
    """The normal form of ``body`` holds the operators ``wanted``, computes the same, and is its own normal form."""
    before, after = build(body, **parts), build(body, **parts)
    apply((), after)
    assert ops(after) == sorted(wanted)
    assert_same(before, after, {"B": 2, "S": 5, "C": 3})
    assert not apply((), after).applications


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (
            "s = Shape(x)  b = Gather(s, zero)  n = Gather(s, one)  b1 = Unsqueeze(b, first)  n1 = Unsqueeze(n, first)  "
            "m = Concat<axis = 0>(b1, n1, step, last)  t = Relu(x)  y = Reshape(t, m)",
            ["Relu", "Reshape"],
        ),
        ("r = Reshape(x, t4)  q = Reshape(r, t3)  y = Relu(q)", ["Relu"]),
        ("f = Flatten<axis = 2>(x)  r = Reshape(f, t6)  y = Relu(r)", ["Relu", "Reshape"]),
        ("a = Transpose<perm = [1, 0, 2]>(x)  b = Transpose<perm = [1, 0, 2]>(a)  y = Relu(b)", ["Relu"]),
        ("a = Transpose<perm = [1, 0, 2]>(x)  y = Transpose<perm = [0, 2, 1]>(a)", ["Transpose"]),
        ("d = Dropout(x)  i = Identity(d)  y = Relu(i)", ["Relu"]),
        ("c = Cast<to = 1>(x)  y = Relu(c)", ["Relu"]),
        ("c = Slice(x, first, end, second)  y = Relu(c)", ["Relu"]),
        ("a = Add(x, z)  m = Mul(f1, a)  y = Relu(m)", ["Relu"]),
        ("y = Div(x, f4)", ["Mul"]),
        ("a = Mul(x, f2)  y = Mul(f4, a)", ["Mul"]),
    ],
)
def test_what_does_nothing_goes_and_what_is_twice_is_once(body, wanted):
    check(body, wanted)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("c = Slice(x, back, first, second, back)  y = Relu(c)", ["Relu", "Slice"]),
        ("c = Cast<to = 11>(x)  d = Relu(c)  y = Cast<to = 1>(d)", ["Cast", "Cast", "Relu"]),
        ("y = Div(x, w)", ["Div"]),
    ],
)
def test_what_does_something_stays(body, wanted):
    check(body, wanted, inputs="float[B,S,12] x, float[12] w", out="float[P] y")


@pytest.mark.parametrize(
    ("node", "target"),
    [
        ("y = Reshape(x, t)", [0, 0, 3, 4]),
        ("y = Reshape<allowzero = 1>(x, u)", [-1, 3, 4]),
        ("y = Reshape<allowzero = 1>(v, u)", [20, 3, 4]),
    ],
)
def test_a_target_is_written_in_one_way(node, target):
    text = f"g (float[B,S,12] x, float[4,5,12] v) => (float[P] y) <int64[4] t = {{0, -1, 3, 4}}, int64[3] u = {{-1, 3, 4}}, int64[3] w = {{20, 3, 4}}> {{ {node} }}"
    for spelling in (node, node.replace("v, u", "v, w")):
        before, after = parse(text.replace(node, spelling)), parse(text.replace(node, spelling))
        apply((), after)
        [reshape] = after.graph
        assert reshape.inputs[1].const_value.numpy().tolist() == target
        assert not reshape.attributes.get_int("allowzero", 0)
        assert_same(before, after, {"B": 2, "S": 5})


@pytest.mark.parametrize("lead", ["B,3", "B,2,3"])
def test_batched_transpose_through_reshape(lead):
    body = """s = Shape(x)  k = Slice(s, last, end)  m = Slice(s, pen, last)  lead = Slice(s, first, pen)
        flat = Concat<axis = 0>(last, m, k)  r = Reshape(x, flat)  t = Transpose<perm = [0, 2, 1]>(r)
        shape = Concat<axis = 0>(lead, k, m)  u = Reshape(t, shape)  y = Relu(u)""".replace("pen", "penult")
    text = CONSTANTS.replace("float z =", "int64[1] penult = {-2}, float z =")
    before, after = (parse(f"g (float[{lead},S,4] x) => (float[P] y) {text} {{ {body} }}") for _ in range(2))
    apply((), after)
    perm = [0, 1, 3, 2] if lead == "B,3" else [0, 1, 2, 4, 3]
    assert [(n.op_type, [list(a.value) for a in n.attributes.values()]) for n in after.graph] == [
        ("Transpose", [perm]),
        ("Relu", []),
    ]
    assert_same(before, after, {"B": 2, "S": 5})


def test_gemm_becomes_matmul_and_bias():
    for swapped in (0, 1):
        check(
            f"y = Gemm<transB = {swapped}>(x, w, b)",
            ["Add", "MatMul"],
            inputs="float[B,6] x, float[6,6] w, float[6] b",
            w=(6, 6),
            b=(6,),
        )
    check("y = Gemm(x, w)", ["MatMul"], inputs="float[B,6] x, float[6,6] w", w=(6, 6))
    check("g = Gemm(x, w)  y = Gemm(g, w)", ["MatMul", "MatMul"], inputs="float[B,6] x, float[6,6] w", w=(6, 6))


def test_flat_rows_that_several_layers_read_stay_in_batches():
    before, after = (
        fill(
            parse("""g (float[2,5,12] x, float[12,6] w, float[12,6] v) => (float[2,5,6] y) <int64[2] flat = {-1, 12}, int64[3] back = {2, 5, 6}>
        { f = Reshape(x, flat)  m = MatMul(f, w)  a = Reshape(m, back)  n = MatMul(f, v)  b = Reshape(n, back)  y = Mul(a, b) }"""),
            w=(12, 6),
            v=(12, 6),
        )
        for _ in range(2)
    )
    apply((), after)
    assert ops(after) == ["MatMul", "MatMul", "Mul"]
    assert_same(before, after, {})


def test_parts_of_width_one_are_picked():
    check(
        "a, b, c = Split<axis = 1, num_outputs = 3>(x)  p = Squeeze(a, second)  q = Squeeze(c, second)  y = Mul(p, q)",
        ["Gather", "Gather", "Mul"],
        inputs="float[B,3,S] x",
    )


def test_linear_layers_that_share_a_weight():
    check(
        "a = Gemm(x, w, b)  y = Gemm(a, w, b)",
        ["Add", "Add", "MatMul", "MatMul"],
        inputs="float[B,6] x, float[6,6] w, float[6] b",
        w=(6, 6),
        b=(6,),
    )


def test_flat_rows_with_another_reader():
    check(
        "s = Shape(x)  f = Reshape(x, t6)  m = MatMul(f, w)  n = Reshape(m, s)  a = ReduceSum(f, first)  y = Add(n, a)",
        ["Add", "MatMul", "ReduceSum", "Reshape"],
        inputs="float[B,S,6] x, float[6,6] w",
        w=(6, 6),
    )


def test_a_part_of_size_one_without_its_dimension():
    check(
        "p, q, u = Split<axis = 1, num_outputs = 3>(x)  a = Squeeze(p, second)  b = Squeeze(u, second)  y = Mul(a, b)",
        ["Gather", "Gather", "Mul"],
        inputs="float[B,3,6] x",
    )


def test_one_row_of_what_is_transposed():
    check("t = Transpose(x)  g = Gather<axis = 1>(t, one)  y = Relu(g)", ["Gather", "Relu", "Transpose"])


@pytest.mark.parametrize("attribute", ["alpha = 0.5", "beta = 2.0", "transA = 1"])
def test_gemm_with_a_factor_stays(attribute):
    check(f"y = Gemm<{attribute}>(x, w, b)", ["Gemm"], inputs="float[6,6] x, float[6,6] w, float[6] b", w=(6, 6), b=(6,))


@pytest.mark.parametrize(("perm", "axis"), [("", 0), ("", -3), ("<perm = [1, 0, 2]>", 0), ("<perm = [2, 0, 1]>", 1)])
def test_a_row_is_picked_before_it_is_transposed(perm, axis):
    body = f"t = Transpose{perm}(x)  y = Gather<axis = {axis}>(t, one)"
    before, after = build(body), build(body)
    apply((), after)
    assert [node.op_type for node in after.graph][:1] == ["Gather"]
    assert_same(before, after, {"B": 2, "S": 5})


def test_scores_are_scaled_once_after_the_product():
    inputs = "float[B,3,S,4] q, float[B,3,4,S] k"
    check("a = Mul(q, f2)  b = Mul(k, f2)  y = MatMul(a, b)", ["MatMul", "Mul"], inputs=inputs)
    check(
        "a = Mul(q, f2)  t = Transpose<perm = [0, 1, 3, 2]>(a)  y = MatMul(t, t)",
        ["MatMul", "Mul", "Transpose"],
        inputs="float[B,3,4,4] q",
    )


def test_a_scaled_input_of_a_linear_layer_stays():
    check("a = Mul(x, f2)  y = MatMul(a, w)", ["MatMul", "Mul"], inputs="float[B,S,12] x, float[12,6] w", w=(12, 6))


IDS = "bool[B,S] m, float[B,1,S,S] x"
TORCHSCRIPT_MASK = """s = Shape(m)  b = Gather(s, zero)  n = Gather(s, one)  rb = Range(zero, b, one)  rs = Range(zero, n, one)
    ub = Unsqueeze(rb, tail)  us = Unsqueeze(rs, head)  rows = Mul(ub, n)  at = Add(us, rows)
    flat = Flatten<axis = 2>(m)  g = Gather(flat, at)  c = Reshape(g, shape)  w = Where(c, z, low)  y = Add(x, w)"""
DYNAMO_MASK = """s = Shape(m)  b = Gather(s, zero)  n = Gather(s, one)  rb = Range(zero, b, one)  rs = Range(zero, n, one)
    ub = Unsqueeze(rb, tail)  us = Unsqueeze(rs, head)  big = Max(ub, us)  full = Shape(big)  eb = Expand(ub, full)  es = Expand(us, full)
    fb = Unsqueeze(eb, last)  fs = Unsqueeze(es, last)  at = Concat<axis = -1>(fb, fs)  c = GatherND(m, at)  w = Where(c, z, low)  y = Add(x, w)"""


@pytest.mark.parametrize("size", ["B", "1"])
@pytest.mark.parametrize("body", [TORCHSCRIPT_MASK, DYNAMO_MASK])
def test_masks_built_from_indices_become_a_reshape(body, size):
    constants = CONSTANTS.replace(
        "float z =", "int64[3] tail = {1, 2, 3}, int64[3] head = {0, 1, 2}, int64[4] shape = {-1, 1, 1, 0}, float z ="
    )
    constants = constants.replace("{-1, 1, 1, 0}", "{0, 1, 1, -1}")
    text = f"g ({IDS.replace('B', size)}) => (float[P] y) {constants} {{ {body} }}"
    before, after = parse(text), parse(text)
    apply((), after)
    assert ops(after) == ["Add", "Reshape", "Where"]
    assert_same(before, after, {"B": 2, "S": 5})


@pytest.mark.parametrize("body", ["c = GatherND(m, pairs)", "f = Flatten<axis = 2>(m)  c = Gather(f, rows)"])
def test_masks_of_a_fixed_size_become_a_reshape(body):
    constants = "<int64[1,1,1,4,2] pairs = {0, 0, 0, 1, 0, 2, 0, 3}, int64[1,1,1,4] rows = {0, 1, 2, 3}, float z = {0.0}, float low = {-inf}>"
    text = f"g (bool[1,4] m, float[1,1,4,4] x) => (float[P] y) {constants} {{ {body}  w = Where(c, z, low)  y = Add(x, w) }}"
    before, after = parse(text), parse(text)
    apply((), after)
    assert ops(after) == ["Add", "Reshape", "Where"]
    assert_same(before, after, {})


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("at = Concat<axis = -1>(fb, fs)", "at = Concat<axis = -1>(fs, fb)", "the axes are permuted or repeated"),
        ("rs = Range(zero, n, one)", "rs = Range(zero, b, one)", "the indices do not cover the source"),
    ],
)
def test_other_indices_stay(old, new, reason):
    constants = CONSTANTS.replace("float z =", "int64[3] tail = {1, 2, 3}, int64[3] head = {0, 1, 2}, float z =")
    model = parse(f"g ({IDS}) => (float[P] y) {constants} {{ {DYNAMO_MASK.replace(old, new)} }}")
    trace = apply((), model)
    assert "GatherND" in ops(model)
    assert trace.misses["gather-coordinates"]["seen"] == reason


def test_a_comparison_that_is_always_true_leaves_the_mask():
    check(
        "s = Shape(x)  n = Gather(s, one)  r = Range(zero, n, one)  c = GreaterOrEqual(r, zero)  a = And(m, c)  "
        "w = Where(a, z, low)  y = Add(x, w)",
        ["Add", "Where"],
        inputs="float[B,S] x, bool[B,S] m",
    )


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("a = And(k, all)  y = Cast<to = 1>(a)", ["Cast", "Expand"]),
        ("a = And(all, wide)  y = Cast<to = 1>(a)", ["Cast"]),
        ("w = Where(all, x, r)  y = Relu(w)", ["Relu"]),
        ("w = Where(all, v, f2)  y = Relu(w)", ["Expand", "Relu"]),
    ],
)
def test_what_is_always_true_leaves_the_other_side_in_the_shape_of_both(body, wanted):
    text = f"g (bool[S] k, bool[B,2,S] wide, float[B,2,S] x, float[B,2,S] r, float[S] v) => (float[P] y) <bool[2,1] all = {{1, 1}}, float f2 = {{2}}> {{ {body} }}"
    before, after = parse(text), parse(text)
    apply((), after)
    assert ops(after) == wanted
    assert_same(before, after, {"B": 2, "S": 5})


def test_an_expansion_that_addition_makes_anyway_goes():
    check("s = Shape(x)  e = Expand(r, s)  y = Add(x, e)", ["Add"], inputs="float[B,S,12] x, float[B,1,12] r")


@pytest.mark.parametrize(
    "body",
    [
        "e = Expand(r, s)  y = Add(f2, e)",
        "e = Expand(r, s)  y = Sub(e, f2)",
        "e = Expand(r, s)  y = Sub(f2, e)",
        "e = Expand(r, s)  q = Equal(e, f1)  y = Cast<to = 1>(q)",
        "e = Expand(r, s)  c = Cast<to = 9>(e)  y = Where(c, t, f2)",
        "e = Expand(r, s)  c = Cast<to = 9>(e)  y = Where(c, f2, e)",
        "e = Expand(r, s)  c = Cast<to = 9>(e)  y = Where(c, e, f2)",
    ],
)
def test_an_expansion_moves_behind_what_numbers_do(body):
    """As transformers 4.57 builds the mask of SDPA: one row for all queries, then 1 - mask and the fill."""
    before, after = (build("s = Shape(x)  " + body, inputs="float[B,S,12] x, float[B,1,12] r, float[1,1,1] t") for _ in range(2))
    apply((), after)
    assert list(after.graph)[-1].op_type == "Expand"
    assert ops(after).count("Expand") == 1
    assert_same(before, after, {"B": 2, "S": 5})


def test_an_expansion_that_decides_the_shape_stays():
    model = build("s = Shape(v)  e = Expand(r, s)  y = Add(x, e)", inputs="float[B,1,12] x, float[B,S,12] v, float[B,1,12] r")
    apply((), model)
    assert "Expand" in ops(model)


def nan_repair(mask: str, out: str = "float[P] y"):
    return f"""g (float[B,3,S,4] q, bool[B,1,1,S] m, float[B,1,1,S] free) => ({out}) {CONSTANTS.replace("float z =", "float inf = {-inf}, float z =")}
        {{ k = Transpose<perm = [0, 1, 3, 2]>(q)  x = MatMul(q, k)  w = {mask}  a = Add(x, w)  p = Softmax<axis = -1>(a)  n = IsNaN(p)  y = Where(n, z, p) }}"""


def infinite(model):
    """onnx's text has no infinity: set it on the constant."""
    import numpy as np
    import onnx_ir as ir

    if "inf" in model.graph.initializers:
        model.graph.initializers["inf"].const_value = ir.tensor(np.array(-np.inf, dtype=np.float32))
    return model


def test_nan_repair_goes_where_no_row_can_be_empty():
    text = nan_repair("Where(m, z, low)").replace("{-inf}", "{-1.0}")
    before, after = parse(text), parse(text)
    apply((), after)
    assert ops(after) == ["Add", "MatMul", "Softmax", "Transpose", "Where"]
    assert_same(before, after, {"B": 2, "S": 5})


def test_an_infinite_mask_becomes_the_lowest_number():
    text = nan_repair("Where(m, z, inf)").replace("{-inf}", "{-1.0}")
    before, after = infinite(parse(text)), infinite(parse(text))
    apply((), after)
    assert ops(after) == ["Add", "MatMul", "Softmax", "Transpose", "Where"]
    assert_same(before, after, {"B": 2, "S": 5})


def test_nan_repair_stays_with_a_mask_from_outside():
    model = parse(nan_repair("Relu(free)").replace("{-inf}", "{-1.0}"))
    trace = apply((), model)
    assert "IsNaN" in ops(model)
    assert "the mask may be -inf" in trace.misses["nan-repair"]["seen"]


@pytest.mark.parametrize("options", [{}, {"prove": False}, {"prove": True}])
def test_rewrites_are_proven_on_demand(options):
    trace = normalized(build("y = Div(x, f4)"), **options).trace
    assert len(trace.applications) == 1
    assert trace.proven == bool(options.get("prove"))


def test_dropout_that_trains_stays():
    model = build("d = Dropout(x, ratio, flag)  y = Relu(d)", inputs="float[B,S,12] x, float ratio, bool flag")
    apply((), model)
    assert "Dropout" in ops(model)


THIRDS = (
    "int64[1] four = {4}, int64[1] eight = {8}, int64[1] far = {100}, int64[1] minus4 = {-4}, int64[4] heads = {0, 0, 2, 6}, "
    "int64[5] by_heads = {0, 0, 2, 3, 2}, int64[5] by_parts = {0, 0, 3, 2, 2}, int64[4] parts = {0, 0, 3, 4}, int64 two = {2}, float z ="
)


def with_parts(body: str, inputs: str = "float[B,S,12] x", **weights):
    return fill(parse(f"g ({inputs}) => (float[P] y) {CONSTANTS.replace('float z =', THIRDS)} {{ {body} }}"), **weights)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (
            "a = Slice(x, first, four, last)  b = Slice(x, four, eight, step)  c = Slice(x, eight, far, step, second)  d = Mul(a, b)  y = Mul(c, d)",
            ["Mul", "Mul", "Split"],
        ),
        ("i = Relu(x)  b = Slice(i, four, minus4, last)  y = Relu(b)", ["Relu", "Relu", "Split"]),
        ("p = Reshape(x, parts)  a = Gather<axis = 2>(p, zero)  b = Gather<axis = -2>(p, two)  y = Mul(a, b)", ["Mul", "Split"]),
        (
            "h = Reshape(x, heads)  a, b, c = Split<axis = -1, num_outputs = 3>(h)  d = Mul(a, b)  y = Mul(c, d)",
            ["Gather"] * 3 + ["Mul"] * 2 + ["Reshape"],
        ),
        (
            "h = Reshape(x, heads)  t = Transpose<perm = [0, 2, 1, 3]>(h)  a, b, c = Split<axis = 3, num_outputs = 3>(t)  d = Mul(a, b)  y = Mul(c, d)",
            ["Gather"] * 3 + ["Mul"] * 2 + ["Reshape"] + ["Transpose"] * 3,
        ),
    ],
)
def test_thirds_become_one_split(body, wanted):
    before, after = with_parts(body), with_parts(body)
    apply((), after)
    assert ops(after) == wanted
    assert_same(before, after, {"B": 2, "S": 5})
    assert not apply((), after).applications


@pytest.mark.parametrize("biased", [True, False])
def test_columns_of_a_projection_are_sorted_by_part(biased):
    """[B,S,N,3,H]: query, key and value of each head stand together."""
    body = (
        "m = MatMul(x, w)  " + ("a = Add(m, v)  " if biased else "a = Identity(m)  ") + "h = Reshape(a, by_heads)  "
        "q = Gather<axis = 3>(h, zero)  k = Gather<axis = -2>(h, one)  u = Gather<axis = 3>(h, two)  d = Mul(q, k)  y = Mul(u, d)"
    )
    before, after = (with_parts(body, "float[B,S,12] x, float[12,12] w, float[12] v", w=(12, 12), v=(12,)) for _ in range(2))
    trace = apply((), after)
    assert "heads-by-parts" in {application.rule for application in trace.applications}
    assert ops(after) == ["Add"] * biased + ["MatMul", "Mul", "Mul", "Reshape", "Reshape", "Reshape", "Split"]
    assert_same(before, after, {"B": 2, "S": 5})


@pytest.mark.parametrize("zeros", ["e = ConstantOfShape(n)", "e = Expand(z, n)"])
def test_a_mask_of_minus_infinity_where_it_is_dropped(zeros):
    """As torch.nn.MultiheadAttention makes of key_padding_mask: the zeros have the mask's shape, and heads come after."""
    text = f"""g (float[B,3,S,4] q, int64[B,S] ids) => (float[P] y) {CONSTANTS.replace("float z =", "int64[4] four4 = {0, 1, 1, -1}, float inf = {-1.0}, float z =")}
        {{ drop = Equal(ids, one)  n = Shape(drop)  {zeros}  w = Where(drop, inf, e)  m = Reshape(w, four4)  k = Transpose<perm = [0, 1, 3, 2]>(q)
           x = MatMul(q, k)  a = Add(x, m)  y = Softmax<axis = -1>(a) }}"""
    import numpy as np

    before, after = infinite(parse(text)), infinite(parse(text))
    trace = apply((), after)
    assert {"where-number", "where-reshaped", "mask-finite"} <= {application.rule for application in trace.applications}
    assert ops(after) == ["Add", "Equal", "MatMul", "Reshape", "Softmax", "Transpose", "Where"]
    where = next(node for node in after.graph if node.op_type == "Where")
    assert [value.const_value.numpy().shape for value in where.inputs[1:]] == [(), ()]
    assert_same(before, after, {"B": 2, "S": 5}, ids=np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1]]))


def test_overridable_weights_are_not_constants():
    model = fill(parse("g (float[B,6] x, float[6,6] w) => (float[B,6] y) { t = Transpose(w)  y = MatMul(x, t) }"), w=(6, 6))
    model.graph.inputs.append(model.graph.initializers["w"])
    apply((), model)
    assert "Transpose" in ops(model)


def test_model_local_functions_are_inlined():
    import onnx.parser
    import onnx_ir as ir

    text = """<ir_version: 10, opset_import: ["" : 23, "f" : 1]> g (float[B,4] x) => (float[B,4] y) { y = f.twice(x) }
        <opset_import: ["" : 23], domain: "f"> twice (a) => (b) { b = Add(a, a) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    normalized(model)
    assert ops(model) == ["Add"]
    assert not model.functions
