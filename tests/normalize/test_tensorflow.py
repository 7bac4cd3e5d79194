"""How TensorFlow and Keras spell things, as text: normal form makes them what PyTorch's exports become."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse.rewrite import Analysis
from tests.conftest import apply, assert_same, fill, ops, parse

SIZES = {"B": 2, "S": 5}


def check(text: str, wanted: list[str], **weights):
    before, after = fill(parse(text), **weights), fill(parse(text), **weights)
    apply((), after)
    assert ops(after) == sorted(wanted)
    assert_same(before, after, SIZES)
    assert not apply((), after).applications
    return after


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("n = Neg(x)  m = Mul(n, r)  y = Add(m, x)", ["Mul", "Sub"]),
        ("m = Mul(r, two)  y = Sub(x, m)", ["Add", "Mul"]),
        ("y = ReduceMean<noop_with_empty_axes = 1>(x, last)", ["ReduceMean"]),
        ("y = GlobalAveragePool(x)", ["ReduceMean"]),
        ("a = Add(x, two)  y = Softmax(a)", ["Softmax"]),
        ("b = Add(two, r)  a = Add(x, b)  y = Softmax(a)", ["Add", "Softmax"]),
    ],
)
def test_arithmetic(body, wanted):
    check(f"g (float[B,S,6] x, float[B,S,6] r) => (float[P] y) <float two = {{2.0}}, int64[1] last = {{2}}> {{ {body} }}", wanted)


@pytest.mark.parametrize("opset", [17, 18])
def test_a_pool_is_a_mean_in_the_opset_of_the_model(opset):
    before, after = (parse("g (float[B,S,6] x) => (float[B,S,1] y) { y = GlobalAveragePool(x) }", opset) for _ in range(2))
    apply((), after)
    assert ops(after) == ["ReduceMean"]
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    assert_same(before, after, SIZES)


def test_a_mean_over_no_axes_stays_what_it_is():
    text = """g (float[B,S,6] x) => (float[P] y) <int64[0] none = {}> { m = ReduceMean<noop_with_empty_axes = 1>(x, none)  y = Relu(m) }"""
    before, after = parse(text), parse(text)
    apply((), after)
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("flat", "back", "x", "bias", "wanted"),
    [
        ("-1, 12", "0, 0, 6", "B,S,12", False, ["MatMul"]),
        ("-1, 12", "0, 0, 6", "B,S,3,4", False, ["MatMul", "Reshape"]),
        ("-1, 12", "0, 0, 6", "B,S,3,4", True, ["Add", "MatMul", "Reshape"]),
        ("-1, 12", "-1, 5, 2, 3", "B,5,12", True, ["Add", "MatMul", "Reshape"]),
        ("-1, 12", "-1, 5, 2, 3", "B,5,3,4", True, ["Add", "MatMul", "Reshape", "Reshape"]),
    ],
)
def test_a_product_of_flat_rows_is_one_of_batches(flat, back, x, bias, wanted):
    """Tensordot: rows of all batches under each other, and the heads split or merged on the way."""
    shape = f"int64[{len(back.split(','))}] back = {{{back}}}"
    computed = "sx = Shape(x)  lead = Slice(sx, zero, two)  back = Concat<axis = 0>(lead, six)  " if back.startswith("0") else ""
    constants = f"<int64[2] flat = {{{flat}}}, int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] six = {{6}}"
    constants += ">" if computed else f", {shape}>"
    body = (
        computed
        + "f = Reshape(x, flat)  m = MatMul(f, w)  "
        + ("a = Add(m, b)  y = Reshape(a, back)" if bias else "y = Reshape(m, back)")
    )
    model = check(
        f"g (float[{x}] x, float[12,6] w, float[6] b) => (float[P] y) {constants} {{ {body} }}", wanted, w=(12, 6), b=(6,)
    )
    product = next(node for node in model.graph if node.op_type == "MatMul")
    assert Analysis({"": 23}).shape(product.outputs[0])[-1].number == 6
    assert len(Analysis({"": 23}).shape(product.outputs[0])) == 3


def test_a_bias_of_heads_is_added_before_they_are_split():
    text = """g (float[B,S,12] x, float[3,4] b) => (float[P] y) <int64[4] heads = {0, 0, 3, 4}> { q = Reshape(x, heads)  y = Add(q, b) }"""
    model = check(text, ["Add", "Reshape"], b=(3, 4))
    assert [node.op_type for node in model.graph] == ["Add", "Reshape"]


def test_scores_that_are_computed_the_other_way_round():
    text = """g (float[B,3,S,4] q, float[B,3,S,4] k) => (float[P] y) {
        t = Transpose<perm = [0, 1, 3, 2]>(q)  m = MatMul(k, t)  y = Transpose<perm = [0, 1, 3, 2]>(m) }"""
    model = check(text, ["MatMul", "Transpose"])
    assert next(node for node in model.graph if node.op_type == "MatMul").inputs[0].name == "q"


def test_weights_cleared_behind_the_softmax():
    text = """g (float[B,3,S,S] x, bool[B,1,1,S] keep) => (float[P] y) <float low = {-1e9}, float zero = {0.0}> {
        m = Where(keep, x, low)  p = Softmax(m)  y = Where(keep, p, zero) }"""
    before, after = parse(text), parse(text)
    apply((), after)
    assert ops(after) == ["Add", "Softmax", "Where"]
    keep = np.ones((2, 1, 1, 5), dtype=bool)
    keep[1, ..., 3:] = False
    assert_same(before, after, SIZES, keep=keep)


def test_ids_that_are_wrapped_and_cast():
    text = """g (int64[B,S] ids, float[9,4] table) => (float[P] y) <float zero = {0.0}, int32 rows = {9}> {
        i = Cast<to = 6>(ids)  c = Cast<to = 1>(i)  negative = Less(c, zero)  up = Add(i, rows)  at = Where(negative, up, i)
        y = Gather(table, at) }"""
    before, after = (fill(parse(text), table=(9, 4)) for _ in range(2))
    apply((), after)
    assert ops(after) == ["Gather"]
    assert_same(before, after, SIZES, ids=np.array([[0, 8, -1, -9, 4]]))


@pytest.mark.parametrize(
    "axes", [("0, 0", "2147483647, 1", "0, 1"), ("0", "1", "-2"), ("0, 0, 0", "2147483647, 1, 2147483647", "0, 1, 2")]
)
def test_the_first_token_is_sliced_and_squeezed(axes):
    starts, ends, along = (
        f"int64[{part.count(',') + 1}] {name} = {{{part}}}" for name, part in zip(("from", "to", "along"), axes, strict=True)
    )
    text = f"""g (float[B,S,4] x) => (float[P] y) <{starts}, {ends}, {along}, int64[1] one = {{1}}> {{
        c = Slice(x, from, to, along)  y = Squeeze(c, one) }}"""
    model = check(text, ["Gather"])
    assert next(iter(model.graph)).attributes["axis"].value == 1


def test_the_class_token_is_tiled():
    text = """g (float[B,S,4] x, float[1,1,4] token) => (float[P] y) <int64[1] zero = {0}, int64[1] one = {1}> {
        s = Shape(x)  b = Slice(s, zero, one)  r = Concat<axis = 0>(b, one, one)  t = Tile(token, r)  y = Concat<axis = 1>(t, x) }"""
    model = check(text, ["Concat", "Concat", "Expand", "Shape", "Slice"], token=(1, 1, 4))
    tokens = next(node for node in model.graph if node.op_type == "Expand").outputs[0]
    assert [str(dim) for dim in Analysis({"": 23}).shape(tokens)] == ["B", "1", "4"]


def test_patches_with_channels_last():
    text = """g (float[B,6,2,2] x) => (float[P] y) <int64[3] to = {0, 4, 6}> {
        t = Transpose<perm = [0, 2, 3, 1]>(x)  y = Reshape(t, to) }"""
    model = check(text, ["Reshape", "Transpose"])
    assert [node.op_type for node in model.graph] == ["Reshape", "Transpose"]


def test_a_size_is_never_minus_one():
    """tf2onnx writes a slice to the end as a size of -1, and asks of every size whether it is that."""
    text = """g (float[B,S,4] x, float[64,4] table) => (float[P] y) <int64[1] one = {1}, int64[1] two = {2}, int64[1] four = {4},
            int64[1] minus = {-1}, int64[1] most = {2147483647}, int64[2] start = {0, 0}> {
        s = Shape(x)  n = Slice(s, one, two)  size = Concat<axis = 0>(n, four)  open = Equal(minus, size)  many = Cast<to = 7>(open)
        more = Mul(most, many)  end = Add(size, more)  rows = Slice(table, start, end)  y = Add(x, rows) }"""
    model = fill(parse(text), table=(64, 4))
    apply((), model)
    result = next(node for node in model.graph if node.op_type == "Add").outputs[0]
    assert [str(dim) for dim in Analysis({"": 23}).shape(result)] == ["B", "S", "4"]
    assert "Equal" not in ops(model)
    assert isinstance(result, ir.Value)


def test_the_shape_of_what_is_tiled():
    model = parse("g (float[B,2,4] x) => (float[P] y) <int64[3] r = {1, 3, 1}> { y = Tile(x, r) }")
    assert [str(dim) for dim in Analysis({"": 23}).shape(model.graph.outputs[0])] == ["B", "6", "4"]
