"""A convolution over patches becomes a product, and no other does."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.config import Scheme
from onnxfuse.quantization.patches import PATCH_EMBEDDING
from onnxfuse.quantization.prepare import prepare
from onnxfuse.quantization.write import write
from onnxfuse.rewrite.passes import Context
from onnxfuse.runtime.sessions import compute, infer
from tests.conftest import assert_same, ops, parse

TEXT = """g (float[B,3,16,32] x, float[40,3,8,4] w, float[40] b) => (float[B,40,H,W] y)
    { y = Conv<strides = [8, 4]>(x, w, b) }"""


def model(text=TEXT, constants="wb", dtype=np.float32):
    found = parse(text)
    rng = np.random.default_rng(0)
    for value in list(found.graph.inputs):
        if value.name in constants:
            found.graph.inputs.remove(value)
            value.const_value = ir.tensor(rng.standard_normal(value.shape.numpy()).astype(dtype))
            found.graph.register_initializer(value)
    return found


def patches_to_products(model):
    """How many convolutions became products, each proven."""
    context = Context(compute, infer, prove=True)
    context.apply(PATCH_EMBEDDING, model)
    made = context.trace.to_json()["rules"].get("patch-embedding", 0)
    assert context.trace.proven == made
    return made


def with_text(*changes):
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def test_patches_are_a_product():
    after = model()
    assert patches_to_products(after) == 1
    assert ops(after) == ["Add", "MatMul", "Reshape", "Reshape", "Reshape", "Transpose", "Transpose"]
    assert_same(model(), after, {"B": 3})


@pytest.mark.parametrize(
    "change",
    [
        (", b) }", ") }"),
        ("[8, 4]>", '[8, 4], auto_pad = "VALID">'),
        ("[8, 4]>", "[8, 4], group = 1, pads = [0, 0, 0, 0], dilations = [1, 1]>"),
        ("[8, 4]>", '[8, 4], auto_pad = "NOTSET">'),
    ],
)
def test_patches_in_other_words_are_one_too(change):
    text = with_text(change)
    after = model(text)
    assert patches_to_products(after) == 1
    assert "Conv" not in ops(after)
    assert_same(model(text), after, {"B": 2})


def test_a_bias_that_is_left_out_by_name_is_none():
    after = model(with_text((", b) }", ") }")))
    node = next(node for node in after.graph if node.op_type == "Conv")
    node.resize_inputs(3)
    assert patches_to_products(after) == 1
    assert_same(model(with_text((", b) }", ") }"))), after, {"B": 2})


STAY = {
    "patches overlap": [("strides = [8, 4]", "strides = [4, 4]")],
    "patches overlap across": [("strides = [8, 4]", "strides = [8, 2]")],
    "no strides": [("<strides = [8, 4]>", "")],
    "height does not divide": [("16,32", "20,32")],
    "width does not divide": [("16,32", "16,30")],
    "height of any size": [("16,32", "H,32")],
    "width of any size": [("16,32", "16,W")],
    "padding": [("[8, 4]>", "[8, 4], pads = [0, 0, 0, 4]>")],
    "padding by name": [("[8, 4]>", '[8, 4], auto_pad = "SAME_UPPER">')],
    "dilated": [("[8, 4]>", "[8, 4], dilations = [1, 2]>")],
    "dilated downwards": [("[8, 4]>", "[8, 4], dilations = [2, 1]>")],
    "groups": [("[B,3,16,32]", "[B,4,16,32]"), ("[40,3,8,4]", "[40,2,8,4]"), ("[8, 4]>", "[8, 4], group = 2>")],
    "channels of any number": [("[B,3,16,32]", "[B,C,16,32]")],
    "volumes": [("[B,3,16,32]", "[B,3,16,32,2]"), ("[40,3,8,4]", "[40,3,8,4,2]"), ("[8, 4]", "[8, 4, 2]"), ("H,W", "H,W,D")],
    "lines": [("[B,3,16,32]", "[B,3,16]"), ("[40,3,8,4]", "[40,3,8]"), ("[8, 4]", "[8]"), ("H,W", "H")],
    "an image of no known shape": [
        ("{ y = Conv<strides = [8, 4]>(x,", "{ z = Reshape(x, n)  y = Conv<strides = [8, 4]>(z,"),
        ("float[40] b)", "float[40] b, int64[4] n)"),
    ],
}


@pytest.mark.parametrize("why", STAY)
def test_other_convolutions_stay(why):
    after = model(with_text(*STAY[why]))
    assert patches_to_products(after) == 0
    assert "Conv" in ops(after)


def test_other_operators_of_that_name_stay():
    found = model(with_text(("Conv<", "com.microsoft.Conv<group = 1, ")))
    assert patches_to_products(found) == 0


@pytest.mark.parametrize("constants", ["w", "b", ""])
def test_what_only_a_run_knows_stays(constants):
    assert patches_to_products(model(constants=constants)) == 0


@pytest.mark.parametrize("constants", ["w", "b"])
def test_what_a_caller_may_replace_stays(constants):
    found = model()
    found.graph.inputs.append(found.graph.initializers[constants])
    assert patches_to_products(found) == 0


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_types_stay(dtype):
    name = {"float64": "double", "float16": "float16"}[np.dtype(dtype).name]
    after = model(TEXT.replace("float[", f"{name}["), dtype=dtype)
    assert patches_to_products(after) == 0


def test_a_quantized_model_has_no_integer_convolution():
    found = model()
    found.graph.initializers["w"].const_value = ir.tensor(
        np.random.default_rng(0).standard_normal((400, 3, 8, 4)).astype(np.float32)
    )
    found.graph.initializers["b"].const_value = ir.tensor(np.zeros(400, np.float32))
    found.graph.outputs[0].shape = None
    after = write(prepare(found, Scheme()))
    assert "MatMulInteger" in ops(after)
    assert not {"Conv", "ConvInteger"} & set(ops(after))
