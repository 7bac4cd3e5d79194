"""Slow int8 types become fast ones, with the same outputs to the bit; what cannot be moved stays."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError
from onnxfuse.quantization.retype import retype, slow_matmuls
from tests.conftest import ops, parse
from tests.quantization.test_write import outputs

MAIN = """g (float[B,64] x, uint8[64,8] w, uint8 z, float[8] s) => (float[B,8] y)
    { q, step, zero = DynamicQuantizeLinear(x)  p = MatMulInteger(q, w, zero, z)  f = Cast<to = 1>(p)  t = Mul(step, s)  y = Mul(f, t) }"""
PLAIN = """g (float[B,64] x, uint8[64,8] w) => (int32[B,8] y)
    { q, step, zero = DynamicQuantizeLinear(x)  y = MatMulInteger(q, w, zero) }"""
CONTRIB = """g (float[B,64] x, uint8[64,8] w, float[8] s, uint8[8] zs) => (float[B,8] y)
    { y = com.microsoft.DynamicQuantizeMatMul(x, w, s, zs) }"""
QDQ = """g (float[B,64] x, uint8[64,8] w, float step, int8 zero, float[8] s, uint8[8] zs) => (float[B,8] y)
    { q = QuantizeLinear(x, step, zero)  d = DequantizeLinear(q, step, zero)  v = DequantizeLinear<axis = 1>(w, s, zs)  y = MatMul(d, v) }"""
QLINEAR = """g (float[B,64] x, uint8[64,8] w, float step, int8 zero, float one, uint8 z) => (float[B,8] y)
    { q = QuantizeLinear(x, step, zero)  r = QLinearMatMul(q, step, zero, w, one, z, step, zero)  y = DequantizeLinear(r, step, zero) }"""


def model(text, low=96, high=160):
    """Weights close enough to their zero point for every machine to multiply exactly."""
    rng = np.random.default_rng(0)
    content = {
        "w": rng.integers(low, high, (64, 8)).astype(np.uint8),
        "z": np.array(128, np.uint8),
        "zs": np.full(8, 128, np.uint8),
        "s": rng.random(8).astype(np.float32) + 0.1,
        "step": np.array(0.05, np.float32),
        "zero": np.array(-3, np.int8),
        "one": np.array(0.01, np.float32),
    }
    found = parse(text)
    for value in list(found.graph.inputs)[1:]:
        found.graph.inputs.remove(value)
        value.const_value = ir.tensor(content[value.name])
        found.graph.register_initializer(value)
    return found


FEEDS = {"x": np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)}


@pytest.mark.parametrize(("text", "activations"), [(MAIN, 0), (PLAIN, 0), (CONTRIB, 0), (QDQ, 1)])
def test_outputs_are_equal_to_the_bit(text, activations):
    after = model(text)
    counts = retype(after)
    assert (counts.weights, counts.activations) == (1, activations)
    assert slow_matmuls(model(text)) == 1
    assert slow_matmuls(after) == 0
    types = {v.const_value.dtype for v in after.graph.initializers.values()}
    assert ir.DataType.INT8 in types
    assert not any(
        v.const_value.dtype == ir.DataType.UINT8 and v.const_value.size == 512 for v in after.graph.initializers.values()
    )
    np.testing.assert_array_equal(outputs(after, FEEDS)["y"], outputs(model(text), FEEDS)["y"])


def test_activations_become_u8_where_all_readers_are_known():
    after = model(QDQ)
    retype(after)
    quantize = next(node for node in after.graph if node.op_type == "QuantizeLinear")
    assert quantize.inputs[2].const_value.numpy() == 125
    assert quantize.inputs[2].const_value.dtype == ir.DataType.UINT8


def test_codes_that_use_all_eight_bits_only_move():
    after = model(MAIN, 0, 256)
    before = model(MAIN, 0, 256)
    retype(after)
    matmul = next(node for node in after.graph if node.op_type == "MatMulInteger")
    moved = matmul.inputs[1].const_value.numpy().astype(int) - int(matmul.inputs[3].const_value.numpy())
    np.testing.assert_array_equal(moved, before.graph.initializers["w"].const_value.numpy().astype(int) - 128)


def test_what_something_else_reads_stays():
    text = MAIN.replace("(float[B,8] y)", "(float[B,8] y, uint8[64,8] shown)").replace(
        "y = Mul(f, t)", "y = Mul(f, t)  shown = Identity(w)"
    )
    with pytest.raises(ModelError, match="nothing to retype"):
        retype(model(text))


def test_a_model_without_slow_types_is_refused():
    after = model(MAIN)
    retype(after)
    with pytest.raises(ModelError, match="multiplies u8 activations with s8 weights already; there is nothing to retype"):
        retype(after)


def test_a_zero_point_that_only_a_run_knows_stays():
    text = MAIN.replace("uint8 z,", "").replace("p = MatMulInteger(q, w, zero, z)", "p = MatMulInteger(q, w, zero, zero)")
    found = model(text)
    with pytest.raises(ModelError, match="nothing to retype"):
        retype(found)
    assert ops(found) == ops(model(text))


def qdq(weight: str, reader: str, activation: str = "uint8") -> str:
    """u8 w for ``reader`` to use, others k of type ``weight``, and an activation of type ``activation``."""
    return f"""g (float[B,64] x, uint8[64,8] w, float step, {activation} zero, float one, uint8 z, {weight}[8,8] k, {weight} t) => (float[C,8] y)
        {{ q = QuantizeLinear(x, step, zero)  d = DequantizeLinear(q, step, zero)  v = DequantizeLinear(w, one, z)  {reader} }}"""


TABLE = (
    "i = Constant<value = int64[2] {3, 5}>()  e = Gather(v, i)  r = QuantizeLinear(e, one, z)  s = DequantizeLinear(r, one, z)"
)


def stocked(text: str) -> ir.Model:
    rng = np.random.default_rng(0)
    signed, values = "int8[8,8] k" in text, rng.integers(100, 156, (8, 8))
    content = {
        "w": rng.integers(96, 160, (64, 8)).astype(np.uint8),
        "z": np.array(128, np.uint8),
        "step": np.array(0.05, np.float32),
        "one": np.array(0.01, np.float32),
        "zero": np.array(-3, np.int8) if " int8 zero" in text else np.array(125, np.uint8),
        "k": (values - 128).astype(np.int8) if signed and "uint8[8,8] k" not in text else values.astype(np.uint8),
        "t": np.array(0, np.int8) if "uint8[8,8] k" not in text else np.array(128, np.uint8),
    }
    found = parse(text)
    for value in list(found.graph.inputs)[1:]:
        found.graph.inputs.remove(value)
        value.const_value = ir.tensor(content[value.name])
        found.graph.register_initializer(value)
    return found


@pytest.mark.parametrize(
    "reader",
    [
        TABLE + "  f = DequantizeLinear(k, one, t)  y = MatMul(s, f)",  # a table of embeddings, before a product with s8 weights
        "y = MatMul(x, v)",  # the activations are float: so is the product
        "p = Add(v, v)  y = MatMul(d, p)",  # something stands between: what is multiplied is a float
    ],
)
def test_codes_that_no_product_multiplies_are_no_slow_weights(reader):
    found = stocked(qdq("int8", reader))
    assert slow_matmuls(found) == 0
    with pytest.raises(ModelError, match="nothing to retype"):
        retype(found)
    assert found.graph.initializers["w"].dtype == ir.DataType.UINT8


def test_a_weight_that_a_table_shares_is_neither_moved_nor_called_slow():
    found = stocked(
        qdq(
            "int8",
            "a = MatMul(d, v)  u = DequantizeLinear(w, one, z)  i = Constant<value = int64[1] {3}>()"
            "  b = Gather(u, i)  y = Add(a, b)",
        )
    )
    assert slow_matmuls(found) == 0
    with pytest.raises(ModelError, match="0 matmuls of s8 activations and 1 of u8 weights, whose type other operators share"):
        retype(found)


def test_of_two_u8_operands_the_products_weight_alone_moves():
    text = qdq("uint8", TABLE + "  f = DequantizeLinear(k, one, t)  y = MatMul(s, f)")
    before, after = stocked(text), stocked(text)
    assert slow_matmuls(before) == 1
    assert retype(after).weights == 1
    assert {name: after.graph.initializers[name].dtype for name in ("w", "k")} == {"w": ir.DataType.UINT8, "k": ir.DataType.INT8}
    np.testing.assert_array_equal(outputs(after, FEEDS)["y"], outputs(before, FEEDS)["y"])


def test_a_weight_behind_a_transpose_moves():
    text = qdq(
        "uint8",
        "e = MatMul(d, v)  r = QuantizeLinear(e, one, z)  s = DequantizeLinear(r, one, z)"
        "  f = DequantizeLinear(k, one, t)  g = Transpose(f)  y = MatMul(s, g)",
    )
    before, after = stocked(text), stocked(text)
    assert retype(after).weights == 2
    np.testing.assert_array_equal(outputs(after, FEEDS)["y"], outputs(before, FEEDS)["y"])


def test_s8_activations_that_no_product_reads_stay():
    found = stocked(qdq("int8", "y = MatMul(x, v)  a = Relu(d)", activation="int8"))
    with pytest.raises(ModelError, match="has no integer matmul"):
        retype(found)


def test_s8_activations_move_together_where_a_product_reads_one():
    keys = "e = QuantizeLinear(x, one, zero)  f = DequantizeLinear(e, one, zero)  g = Relu(f)  h = Transpose(g)  y = MatMul(d, h)"
    text = qdq(
        "int8", "u = MatMul(d, v)  " + keys.replace("y = MatMul(d, h)", "y = Add(u, m)  m = ReduceSum(h)"), activation="int8"
    )
    before, after = stocked(text), stocked(text)
    assert retype(after).activations == 1
    assert [node.inputs[2].dtype for node in after.graph if node.op_type == "QuantizeLinear"] == [ir.DataType.UINT8] * 2
    np.testing.assert_array_equal(outputs(after, FEEDS)["y"], outputs(before, FEEDS)["y"])


def test_an_activation_that_no_product_reads_stays_beside_a_weight_that_moves():
    text = qdq(
        "int8", "a = com.microsoft.DynamicQuantizeMatMul(x, w, one, z)  b = ReduceSum(d)  y = Add(a, b)", activation="int8"
    )
    found = stocked(text.replace("v = DequantizeLinear(w, one, z)", ""))
    counts = retype(found)
    assert (counts.weights, counts.activations) == (1, 0)
    assert [node.inputs[2].dtype for node in found.graph if node.op_type == "QuantizeLinear"] == [ir.DataType.INT8]


@pytest.mark.parametrize("shown", ["q", "w"])
def test_codes_that_an_output_shows_stay(shown):
    kind = "int8" if shown == "q" else "uint8"
    found = stocked(qdq("int8", "y = MatMul(d, v)", activation=kind))
    value = next(value for node in found.graph for value in (*node.inputs, *node.outputs) if value.name == shown)
    found.graph.outputs.append(value)
    if shown == "q":
        found.graph.outputs.append(found.graph.initializers["w"])
    with pytest.raises(ModelError, match="nothing to retype"):
        retype(found)


def test_an_activation_whose_zero_point_is_computed_stays():
    text = qdq("int8", "f = DequantizeLinear(k, one, t)  y = MatMul(d, f)", activation="int8")
    found = stocked(text.replace("d = DequantizeLinear(q, step, zero)", "n = Identity(zero)  d = DequantizeLinear(q, step, n)"))
    with pytest.raises(ModelError, match="nothing to retype"):
        retype(found)
    assert found.graph[0].inputs[2].dtype == ir.DataType.INT8
