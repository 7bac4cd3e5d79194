"""Dynamic int8: what is stored, what stays float, and how close it stays."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError, UsageError
from onnxfuse.quantize import quantize_dynamic
from onnxfuse.quantize.dynamic import quantize_weight
from onnxfuse.runtime import open_session, product_saturates, run
from tests.conftest import fill, ops, parse

LINEAR = "g (float[B,256] x, float[256,128] w, float[128] b) => (float[B,128] y) { p = MatMul(x, w)  y = Add(p, b) }"
TIED = """g (int64[B,S] ids, float[300,64] table) => (float[B,S,300] y, float[B,S,64] e)
    { e = Gather(table, ids)  t = Transpose<perm = [1, 0]>(table)  y = MatMul(e, t) }"""


def outputs(model, feeds):
    return run(open_session(ir.to_proto(model).SerializeToString()), feeds)


@pytest.mark.parametrize("levels", [127, 64])
def test_codes_are_symmetric_per_channel_and_close(levels):
    weight = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32) * np.logspace(-3, 3, 8, dtype=np.float32)
    codes, scale = quantize_weight(weight, 1, "w", levels)
    assert codes.dtype == np.int8
    assert (np.abs(codes).max(axis=0) == levels).all()
    assert (np.abs(codes * scale - weight) <= scale / 2 * 1.0001).all()


def test_a_column_of_zeros_stays_zero():
    codes, scale = quantize_weight(np.zeros((4, 2), np.float32), 1, "w", 127)
    assert not codes.any()
    assert (scale == 1).all()


def test_a_product_becomes_u8_times_s8_and_stays_close():
    before, after = (fill(parse(LINEAR), w=(256, 128), b=(128,)) for _ in range(2))
    assert quantize_dynamic(after).matmuls == 1
    assert ops(after) == ["Add", "Cast", "DynamicQuantizeLinear", "MatMulInteger", "Mul", "Mul"]
    types = {v.name: v.const_value.dtype for v in after.graph.initializers.values()}
    assert ir.DataType.INT8 in types.values()
    assert not any(v.const_value.dtype == ir.DataType.FLOAT and v.const_value.size > 128 for v in after.graph.initializers.values())
    x = {"x": np.random.default_rng(1).standard_normal((5, 256)).astype(np.float32)}
    wanted, got = outputs(before, x)["y"], outputs(after, x)["y"]
    # steps of 1/255 of the largest activation and 1/127 or 1/64 of the largest weight, 256 products deep
    assert np.abs(got - wanted).max() / np.abs(wanted).max() < 0.03
    assert not np.array_equal(got, wanted)


def test_tied_embeddings_are_stored_once():
    before, after = (fill(parse(TIED), table=(300, 64)) for _ in range(2))
    counts = quantize_dynamic(after)
    assert (counts.matmuls, counts.embeddings) == (1, 1)
    tables = [v for v in after.graph.initializers.values() if v.const_value.size == 300 * 64]
    assert [t.const_value.dtype for t in tables] == [ir.DataType.INT8]
    ids = {"ids": np.arange(12).reshape(3, 4)}
    wanted, got = outputs(before, ids), outputs(after, ids)
    assert np.abs(got["e"] - wanted["e"]).max() <= np.abs(wanted["e"]).max() / 127  # half a step of 7 bits
    assert np.abs(got["y"] - wanted["y"]).max() / np.abs(wanted["y"]).max() < 0.03


def test_seven_bits_never_clip():
    """Every activation at its largest and every weight at its largest: the sum is exact on any machine."""
    text = "g (float[B,256] x, float[256,128] w) => (float[B,128] y) { y = MatMul(x, w) }"
    model = fill(parse(text), w=(256, 128))
    model.graph.initializers["w"].const_value = ir.tensor(np.ones((256, 128), np.float32))
    assert quantize_dynamic(model, bits=7).bits == 7
    got = outputs(model, {"x": np.ones((1, 256), np.float32)})["y"]
    assert np.allclose(got, 256, rtol=1e-5)  # a few float32 roundings of the scales


def test_the_bits_are_those_this_machine_multiplies_exactly():
    model = fill(parse(LINEAR), w=(256, 128), b=(128,))
    bits = quantize_dynamic(model).bits
    assert bits == (7 if product_saturates() else 8)
    largest = max(np.abs(v.const_value.numpy().astype(int)).max() for v in model.graph.initializers.values()
                  if v.const_value.dtype == ir.DataType.INT8)
    assert largest == {7: 64, 8: 127}[bits]
    with pytest.raises(UsageError, match="weights of 4 bits"):
        quantize_dynamic(fill(parse(LINEAR), w=(256, 128), b=(128,)), bits=4)


def test_embeddings_can_stay_float():
    model = fill(parse(TIED), table=(300, 64))
    assert quantize_dynamic(model, embeddings=False).embeddings == 0
    assert any(v.const_value.dtype == ir.DataType.FLOAT and v.const_value.size == 300 * 64 for v in model.graph.initializers.values())


def test_equal_inputs_are_quantized_once():
    text = """g (float[B,256] x, float[256,128] w, float[256,128] u) => (float[B,128] y, float[B,128] z)
        { y = MatMul(x, w)  z = MatMul(x, u) }"""
    model = fill(parse(text), w=(256, 128), u=(256, 128))
    quantize_dynamic(model)
    assert ops(model).count("DynamicQuantizeLinear") == 1
    assert ops(model).count("MatMulInteger") == 2


def test_small_and_runtime_weights_stay_float():
    text = """g (float[B,256] x, float[256,128] w, float[128,4] head, float[4,4] free) => (float[B,4] y)
        { a = MatMul(x, w)  b = MatMul(a, head)  y = MatMul(b, free) }"""
    model = fill(parse(text), w=(256, 128), head=(128, 4))
    assert quantize_dynamic(model).matmuls == 1
    assert ops(model).count("MatMul") == 2


def test_a_weight_with_nan_is_refused():
    model = fill(parse(LINEAR), w=(256, 128), b=(128,))
    broken = model.graph.initializers["w"].const_value.numpy().copy()
    broken[3, 3] = np.nan
    model.graph.initializers["w"].const_value = ir.tensor(broken)
    with pytest.raises(ModelError, match="weight w holds NaN"):
        quantize_dynamic(model)


def test_an_int8_model_is_refused():
    model = fill(parse(LINEAR), w=(256, 128), b=(128,))
    quantize_dynamic(model)
    with pytest.raises(ModelError, match="int8 already"):
        quantize_dynamic(model)


def test_an_fp16_model_is_refused():
    model = fill(parse(LINEAR), w=(256, 128), b=(128,))
    for value in model.graph.initializers.values():
        value.const_value = ir.tensor(value.const_value.numpy().astype(np.float16))
        value.dtype = ir.DataType.FLOAT16
    with pytest.raises(ModelError, match="FLOAT16, wanted FLOAT"):
        quantize_dynamic(model)


def test_nothing_to_quantize_is_refused():
    with pytest.raises(ModelError, match="no matrix product"):
        quantize_dynamic(parse("g (float[B,4] x) => (float[B,4] y) { y = Relu(x) }"))
