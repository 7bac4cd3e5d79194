"""A convolution over patches becomes a product, and no other does."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.quantize.patches import patches_to_products
from onnxfuse.quantize.prepare import prepare
from onnxfuse.quantize.scheme import Scheme
from onnxfuse.quantize.write import write
from tests.conftest import assert_same, ops, parse

TEXT = """g (float[B,3,{height},32] x, float[40,3,8,4] w, float[40] b) => (float[B,40,H,W] y)
    {{ y = Conv<strides = {strides}{more}>(x, w, b) }}"""


def model(height="16", strides="[8, 4]", more=""):
    found = parse(TEXT.format(height=height, strides=strides, more=more))
    rng = np.random.default_rng(0)
    for value in list(found.graph.inputs)[1:]:
        found.graph.inputs.remove(value)
        shape = (40, 3, 8, 4) if value.name == "w" else (40,)
        value.const_value = ir.tensor(rng.standard_normal(shape).astype(np.float32))
        found.graph.register_initializer(value)
    return found


def test_patches_are_a_product():
    after = model()
    assert patches_to_products(after) == 1
    assert ops(after) == ["Add", "MatMul", "Reshape", "Reshape", "Reshape", "Transpose", "Transpose"]
    assert_same(model(), after, {"B": 3})


@pytest.mark.parametrize("changed", [{"strides": "[4, 4]"}, {"height": "20"}, {"height": "H"}, {"more": ", pads = [0, 0, 0, 4]"},
                                     {"more": ', auto_pad = "SAME_UPPER"'}, {"more": ", dilations = [1, 2]"}])
def test_other_convolutions_stay(changed):
    after = model(**changed)
    assert patches_to_products(after) == 0
    assert "Conv" in ops(after)


def test_groups_stay():
    text = """g (float[B,4,16,16] x) => (float[B,8,2,2] y) <float[1] one = {1}, int64[4] s = {8, 2, 8, 8}>
        { w = Expand(one, s)  y = Conv<strides = [8, 8], group = 2>(x, w) }"""
    assert patches_to_products(parse(text)) == 0


def test_a_quantized_model_has_no_integer_convolution():
    found = model(height="16")
    found.graph.initializers["w"].const_value = ir.tensor(np.random.default_rng(0).standard_normal((400, 3, 8, 4)).astype(np.float32))
    found.graph.initializers["b"].const_value = ir.tensor(np.zeros(400, np.float32))
    found.graph.outputs[0].shape = None
    after = write(prepare(found, Scheme()))
    assert "MatMulInteger" in ops(after)
    assert not {"Conv", "ConvInteger"} & set(ops(after))
