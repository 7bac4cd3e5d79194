"""What the schemas say of int8 operators: one source for every verb."""

import onnx_ir as ir
import pytest

from onnxfuse.quantization.linears import integer_node
from onnxfuse.quantization.operands import Operand, integer_matmuls, is_integer, operands
from tests.conftest import parse

ACTIVATION_WEIGHT = {
    "MatMulInteger": ((0, 2), (1, 3)),
    "ConvInteger": ((0, 2), (1, 3)),
    "QLinearMatMul": ((0, 2), (3, 5)),
    "QLinearConv": ((0, 2), (3, 5)),
}
CONTRIB = {
    "QGemm": ((0, 2), (3, 5)),
    "MatMulIntegerToFloat": ((0, 4), (1, 5)),
    "QAttention": ((0, 6), (1, 7)),
    "DynamicQuantizeMatMul": ((1, 3),),
    "DequantizeLinear": ((0, 2),),
    "QLinearAdd": (),
    "QLinearSoftmax": (),
    "DynamicQuantizeLSTM": (),
    "QEmbedLayerNormalization": (),
    "MatMulNBits": (),
}


def node(operator: str, domain: str = "") -> ir.Node:
    return ir.node(operator, [], domain=domain)


@pytest.mark.parametrize(("domain", "table"), [("", ACTIVATION_WEIGHT), ("com.microsoft", CONTRIB)])
def test_operands_are_those_of_the_documentation(domain, table):
    """Where two such inputs share a type, or an output has it too, neither can change alone: no operand."""
    for operator, wanted in table.items():
        assert operands(node(operator, domain)) == tuple(Operand(*numbers) for numbers in wanted), operator
        assert is_integer(node(operator, domain)), operator


@pytest.mark.parametrize(
    ("operator", "domain"),
    [
        ("QuantizeLinear", ""),
        ("DynamicQuantizeLinear", ""),
        ("MatMulBnb4", "com.microsoft"),
        ("QMoE", "com.microsoft"),
        ("QOrderedMatMul", "com.microsoft"),
    ],
)
def test_what_quantizes_or_multiplies_codes_is_of_int8_models(operator, domain):
    assert is_integer(node(operator, domain))


@pytest.mark.parametrize(
    ("operator", "domain"),
    [
        ("MatMul", ""),
        ("Cast", ""),
        ("Gather", ""),
        ("BitShift", ""),
        ("ImageDecoder", ""),
        ("Attention", ""),
        ("Nothing", ""),
        ("Gelu", "com.microsoft"),
        ("MatMulInteger", "com.microsoft"),
        ("PagedAttention", "com.microsoft"),
    ],
)
def test_what_also_float_models_have_is_not(operator, domain):
    assert not is_integer(node(operator, domain))


def test_an_int8_model_is_one_wherever_its_operator_stands():
    text = """g (float[2,2] x, bool c) => (float[2,2] y) { y = If (c) <then_branch = t () => (float[2,2] u) {
        q, s, z = DynamicQuantizeLinear(x)  u = DequantizeLinear(q, s, z) }, else_branch = e () => (float[2,2] v) { v = Neg(x) }> }"""
    found = integer_node(parse(text))
    assert found is not None
    assert found.op_type == "DynamicQuantizeLinear"
    assert integer_node(parse("g (float[2,2] x) => (float[2,2] y) { y = MatMul(x, x) }")) is None


def test_products_are_integer_operators_and_float_ones_between_dequantized_values():
    text = """g (uint8[2,2] a, int8[2,2] b, float s, uint8 z, int8 t, float[2,2] x) => (float[2,2] y) {
        d = DequantizeLinear(a, s, z)  w = DequantizeLinear(b, s, t)  v = Transpose(w)  p = MatMul(d, w)  q = Gemm(p, v)  r = Gemm(d, v)
        i = MatMulInteger(a, b)  f = com.microsoft.DynamicQuantizeMatMul(x, b, s)  l = MatMul(x, w)
        m = MatMul(f, w)  n = com.microsoft.MatMulIntegerToFloat(a, b, s, s)  o = MatMul(n, w)  y = Sum(q, r, l, m, o) }"""
    found = list(integer_matmuls(parse(text).graph))
    assert [matmul.node.outputs[0].name for matmul in found] == [
        "p",
        "r",
        "i",
        "f",
        "n",
    ]  # what reads a float is a float product
    assert [matmul.weight[0].outputs[0].name for matmul in found] == ["w", "w", "i", "f", "n"]
    assert [None if matmul.activation is None else matmul.activation[0].outputs[0].name for matmul in found] == [
        "d",
        "d",
        "i",
        None,
        "n",
    ]
