"""Slow int8 types become fast ones, with the same outputs to the bit; what cannot be moved stays."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError
from onnxfuse.quantize.retype import retype, slow_products
from tests.conftest import ops, parse
from tests.quantize.test_write import outputs

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
    content = {"w": rng.integers(low, high, (64, 8)).astype(np.uint8), "z": np.array(128, np.uint8), "zs": np.full(8, 128, np.uint8),
               "s": rng.random(8).astype(np.float32) + 0.1, "step": np.array(0.05, np.float32), "zero": np.array(-3, np.int8),
               "one": np.array(0.01, np.float32)}
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
    assert slow_products(model(text)) == 1
    assert slow_products(after) == 0
    types = {v.const_value.dtype for v in after.graph.initializers.values()}
    assert ir.DataType.INT8 in types
    assert not any(v.const_value.dtype == ir.DataType.UINT8 and v.const_value.size == 512 for v in after.graph.initializers.values())
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
    product = next(node for node in after.graph if node.op_type == "MatMulInteger")
    moved = product.inputs[1].const_value.numpy().astype(int) - int(product.inputs[3].const_value.numpy())
    np.testing.assert_array_equal(moved, before.graph.initializers["w"].const_value.numpy().astype(int) - 128)


def test_what_something_else_reads_stays():
    text = MAIN.replace("(float[B,8] y)", "(float[B,8] y, uint8[64,8] shown)").replace("y = Mul(f, t)", "y = Mul(f, t)  shown = Identity(w)")
    with pytest.raises(ModelError, match="nothing to retype"):
        retype(model(text))


def test_a_model_without_slow_types_is_refused():
    after = model(MAIN)
    retype(after)
    with pytest.raises(ModelError, match="nothing to retype"):
        retype(after)


def test_a_zero_point_that_only_a_run_knows_stays():
    text = MAIN.replace("uint8 z,", "").replace("p = MatMulInteger(q, w, zero, z)", "p = MatMulInteger(q, w, zero, zero)")
    found = model(text)
    with pytest.raises(ModelError, match="nothing to retype"):
        retype(found)
    assert ops(found) == ops(model(text))
