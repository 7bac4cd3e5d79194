"""Smoothing what attention gives: the factor goes into the columns that make its values, or stays a multiplication."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.fusions.unpad import Padding, unpad
from onnxfuse.normalize.duplicates import merge_duplicates
from tests.conftest import analysis_of, assert_same, fill, ops, parse
from tests.quantization.test_smooth import activations, smoothed

ATTENTION = "a = Attention<q_num_heads = 4, kv_num_heads = 4>(q, k, v)"
PRODUCTS = """f = Reshape(q, heads)  q4 = Transpose<perm = [0, 2, 1, 3]>(f)  g = Reshape(k, heads)
    k4 = Transpose<perm = [0, 2, 3, 1]>(g)  h = Reshape(v, heads)  v4 = Transpose<perm = [0, 2, 1, 3]>(h)  s = MatMul(q4, k4)
    r = Softmax(s)  m = MatMul(r, v4)  n = Transpose<perm = [0, 2, 1, 3]>(m)  a = Reshape(n, joined)"""
HEADS = ", int64[4] heads = {0, 0, 4, 32}, int64[3] joined = {0, 0, -1}"
MERGED = "t = MatMul(x, w)  u = Add(t, c)  q, k, v = Split<axis = -1>(u, widths)"
SEPARATE = "q = MatMul(x, wq)  k = MatMul(x, wk)  t = MatMul(x, wv)  v = Add(t, d)"
OUT = "y = MatMul(a, o)"
WIDTH = 128
SHAPES = {"w": (128, 384), "c": (384,), "wq": (128, 128), "wk": (128, 128), "wv": (128, 128), "d": (128,), "o": (128, 128)}


def model(*lines, shown="float[B,S,128] y", constants=""):
    body = "  ".join(lines)
    read = [name for name in SHAPES if f" {name})" in body or f"{name}, " in body.replace("x, ", "")]
    given = ", ".join(f"float[{','.join(map(str, SHAPES[name]))}] {name}" for name in read)
    text = f"g (float[B,S,128] x, {given}) => ({shown}) <int64[3] widths = {{128, 128, 128}}{constants}> {{ {body} }}"
    return fill(parse(text), **{name: SHAPES[name] for name in read})


def loud(name):
    """What calibration would have seen of a value: its third channel is far louder than the others."""
    seen = activations(width=WIDTH)
    seen.batch_high[:, 2] *= 100
    seen.high[2] *= 100
    seen.square[2] *= 1e4
    return {name: seen}


@pytest.mark.parametrize("attention", [ATTENTION, PRODUCTS, PRODUCTS.replace("joined", "wide")], ids=["one", "products", "wide"])
@pytest.mark.parametrize("layers", [(MERGED,), (SEPARATE,)], ids=["merged", "separate"])
def test_the_factor_goes_into_the_columns_of_the_values(layers, attention):
    constants = HEADS.replace("joined = {0, 0, -1}", "wide = {0, -1, 128}") if "wide" in attention else HEADS
    before, after = (model(*layers, attention, OUT, constants=constants) for _ in range(2))
    assert len(smoothed(after, 0.5, seen=loud("a"))) == 1
    assert ops(after) == ops(before)
    changed = [name for name, value in before.graph.initializers.items() if name in SHAPES and differs(value, after)]
    assert sorted(changed) == (["o", "w"] if layers == (MERGED,) else ["o", "wv"])
    if layers == (MERGED,):
        np.testing.assert_array_equal(numbers(before, "w")[:, :256], numbers(after, "w")[:, :256])
    assert_same(before, after, {"B": 2, "S": 5})


@pytest.mark.parametrize("attention", [ATTENTION, PRODUCTS], ids=["one", "products"])
def test_tokens_that_are_cut_off_leave_it_free(attention):
    cut = SEPARATE.replace("v = Add(t, d)", "e = Add(t, d)  v = Slice(e, first, tokens, axis)")
    constants = HEADS + ", int64[1] first = {0}, int64[1] tokens = {4}, int64[1] axis = {1}"
    lines = (cut.replace("k = MatMul(x, wk)", "j = MatMul(x, wk)  k = Slice(j, first, tokens, axis)"), attention, OUT)
    before, after = (model(*lines, constants=constants) for _ in range(2))
    assert len(smoothed(after, 0.5, seen=loud("a"))) == 1
    assert ops(after) == ops(before) and differs(before.graph.initializers["wv"], after)
    assert_same(before, after, {"B": 2, "S": 5})


def numbers(model, name):
    return model.graph.initializers[name].const_value.numpy()


def differs(value, after):
    other = after.graph.initializers.get(value.name)
    return other is not None and not np.array_equal(value.const_value.numpy(), other.const_value.numpy())


MASK = """b = Cast<to = 9>(attention_mask)  r = Reshape(b, heads)  f = Where(r, zero, low)  m = Expand(f, square)
    n = Shape<start = 1, end = 2>(attention_mask)  square = Concat<axis = 0>(one, one, n, one)"""
UNPADDED = f"""g (float[B,S,128] x, int64[B,S] attention_mask, float[128,384] w, float[384] c, float[128,128] o) => (float[B,128] y)
    <int64[4] heads = {{0, 1, 1, -1}}, int64[1] one = {{1}}, int64[3] widths = {{128, 128, 128}}, int64 first = {{0}},
    float zero = {{0.0}}, float low = {{-3.4e38}}>
    {{ {MASK}  {MERGED}  a = Attention<q_num_heads = 4, kv_num_heads = 4>(q, k, v, m)  p = MatMul(a, o)
       y = Gather<axis = 1>(p, first) }}"""


def unpadded():
    """Rows are moved in front of attention, where parts of the product alternate, and behind it; and the product behind."""
    found = fill(parse(UNPADDED), w=SHAPES["w"], c=SHAPES["c"], o=SHAPES["o"])
    assert unpad(found, analysis_of(found)) == Padding()
    merge_duplicates(found)
    product = next(node for node in found.graph if node.op_type == "MatMul" and node.inputs[1].name == "o")
    assert product.inputs[0].producer().op_type == "Gather"
    return found, product


def test_padding_removal_between_leaves_it_free():
    (before, _), (after, product) = unpadded(), unpadded()
    assert len(smoothed(after, 0.5, seen=loud(product.inputs[0].name))) == 1
    assert ops(after) == ops(before)
    assert differs(before.graph.initializers["w"], after)
    assert_same(before, after, {"B": 3, "S": 5})


def of(node, *steps):
    """What stands so many operands before a node."""
    for step in steps:
        node = node.inputs[step].producer()
    return node.outputs[0]


@pytest.mark.parametrize(
    "steps",
    [(0, 0), (0, 0, 0), (0, 0, 0, 2), (0, 0, 0, 2, 0), (0, 0, 0, 2, 0, 0), (0, 0, 0, 2, 0, 0, 0)],
    ids=["rows behind attention", "attention", "values", "rows of all parts", "the product", "the product without bias"],
)
def test_what_moved_rows_are_read_by_besides(steps):
    after, product = unpadded()
    total = ir.node("ReduceSum", [of(product, *steps)])
    total.outputs[0].name = "total"
    total.outputs[0].type, total.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
    total.attributes.add(ir.AttrInt64("keepdims", 0))
    after.graph.append(total)
    after.graph.outputs.append(total.outputs[0])
    assert len(smoothed(after, 0.5, seen=loud(product.inputs[0].name))) == 1
    assert product.inputs[0].producer().op_type == "Mul"


@pytest.mark.parametrize("parts", [3, 2])
def test_other_rows_of_the_product_may_be_the_values_too(parts):
    """The same part again, or every second row."""
    after, product = unpadded()
    values = of(product, 0, 0, 0, 2).producer()
    index = ir.node("Mul", [values.inputs[1].producer().inputs[0].producer().inputs[0], constant(after, parts)])
    index = index if parts == 2 else ir.node("Add", [index.outputs[0], constant(after, 2)])
    read = ir.node("Gather", [values.inputs[0], index.outputs[0]])
    for node in (index.inputs[0].producer(), index, read):
        if node.graph is None:
            after.graph.append(node)
    assert len(smoothed(after, 0.5, seen=loud(product.inputs[0].name))) == 1
    assert product.inputs[0].producer().op_type == "Mul"


def constant(model, number):
    value = ir.Value(name=f"number{number}", const_value=ir.tensor(np.array(number)))
    model.graph.register_initializer(value)
    return value


STAYS = {
    "attention's result is read elsewhere": ([MERGED, ATTENTION, "p = MatMul(a, o)  y = Add(p, a)"], {}),
    "attention's result is shown": ([MERGED, ATTENTION, OUT], {"shown": "float[B,S,128] y, float[B,S,128] a"}),
    "values are read elsewhere": ([MERGED, ATTENTION, "p = MatMul(a, o)  y = Add(p, v)"], {}),
    "values are keys too": ([MERGED.replace("q, k, v", "q, z, v"), ATTENTION.replace("(q, k, v)", "(q, v, v)"), OUT], {}),
    "values are shown": ([MERGED, ATTENTION, OUT], {"shown": "float[B,S,128] y, float[B,S,128] v"}),
    "the whole product is read elsewhere": ([MERGED, ATTENTION, "p = MatMul(a, o)  z = ReduceSum(u)  y = Add(p, z)"], {}),
    "the product without bias is read elsewhere": ([MERGED, ATTENTION, "p = MatMul(a, o)  z = ReduceSum(t)  y = Add(p, z)"], {}),
    "the weight is read elsewhere": ([SEPARATE, ATTENTION, "p = MatMul(a, o)  z = ReduceSum(wv)  y = Add(p, z)"], {}),
    "values are bent": ([SEPARATE.replace("v = Add", "e = Add") + "  v = Tanh(e)", ATTENTION, OUT], {}),
    "the result is bent": ([MERGED, ATTENTION.replace("a =", "e =") + "  a = Tanh(e)", OUT], {}),
    "columns are reshaped": (
        [MERGED, ATTENTION.replace("a =", "e =") + "  f = Reshape(e, turned)  a = Reshape(f, back)", OUT],
        {"constants": ", int64[3] turned = {0, -1, 64}, int64[3] back = {0, -1, 128}"},
    ),
}


STAYS |= {
    f"of products, {why}": (
        [MERGED, PRODUCTS.replace(*change), "p = MatMul(a, o)  y = Add(p, z)" if "z =" in change[1] else OUT],
        {"constants": f"{HEADS}, int64[4] apart = {{0, 4, -1, 32}}, int64[3] wide = {{0, -1, 128}}"},
    )
    for why, change in {
        "rows of heads are read elsewhere": ("a = ", "z = ReduceSum(n)  a = "),
        "the product is read elsewhere": ("a = ", "z = ReduceSum(m)  a = "),
        "the values' heads are read elsewhere": ("a = ", "z = ReduceSum(v4)  a = "),
        "the values' rows are read elsewhere": ("a = ", "z = ReduceSum(h)  a = "),
        "heads are bent": ("n = Transpose<perm = [0, 2, 1, 3]>(m)", "e = Tanh(m)  n = Transpose<perm = [0, 2, 1, 3]>(e)"),
        "values stand on the left": (
            "m = MatMul(r, v4)",
            "w4 = Transpose<perm = [0, 1, 3, 2]>(v4)  l = MatMul(w4, r)  m = Transpose<perm = [0, 1, 3, 2]>(l)",
        ),
        "heads and rows stay swapped": (
            "n = Transpose<perm = [0, 2, 1, 3]>(m)  a = Reshape(n, joined)",
            "a = Reshape(m, wide)",
        ),
        "rows are parted into heads as they stand": (
            "h = Reshape(v, heads)  v4 = Transpose<perm = [0, 2, 1, 3]>(h)",
            "v4 = Reshape(v, apart)",
        ),
    }.items()
}


@pytest.mark.parametrize("why", STAYS)
def test_elsewhere_it_is_a_multiplication(why):
    lines, options = STAYS[why]
    before, after = (model(*lines, **options) for _ in range(2))
    assert len(smoothed(after, 0.5, seen=loud("a"))) == 1
    assert ops(after).count("Mul") == 1
    assert_same(before, after, {"B": 2, "S": 5})


def test_a_free_factor_is_taken_for_less():
    """As in a norm: of an error that becomes a little smaller, too."""
    seen = activations(width=WIDTH)
    seen.batch_high[:, 2] *= 3
    seen.high[2] *= 3
    free, paid = model(MERGED, ATTENTION, OUT), model(*STAYS["the result is bent"][0])
    assert len(smoothed(free, seen={"a": seen})) == 1
    assert not smoothed(paid, seen={"a": seen})


def test_a_bias_that_others_share_stays_theirs():
    lines = [SEPARATE, ATTENTION, "p = MatMul(a, o)  y = Add(p, d)"]
    before, after = model(*lines), model(*lines)
    assert len(smoothed(after, 0.5, seen=loud("a"))) == 1
    assert ops(after) == ops(before)
    assert_same(before, after, {"B": 2, "S": 5})
