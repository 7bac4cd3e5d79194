"""The laws of int8 operators, so that what stands around them can be fused."""

from __future__ import annotations

import onnx_ir as ir

from onnxfuse.rewrite.facts import Fact, Facts
from onnxfuse.rewrite.laws import CONTRIB, law, product_shape


@law("DynamicQuantizeLinear", "QuantizeLinear")
def _quantize(facts: Facts, node: ir.Node, output: int) -> Fact:
    if output:  # the scale and zero point of a dynamic one
        return Fact(ir.DataType.FLOAT if output == 1 else ir.DataType.UINT8, ())
    zero = facts[node.inputs[2]].dtype if len(node.inputs) > 2 and node.inputs[2] is not None else ir.DataType.UINT8
    return Fact(zero, facts[node.inputs[0]].shape)


@law("DequantizeLinear")
def _dequantize(facts: Facts, node: ir.Node, output: int) -> Fact:
    return Fact(facts[node.inputs[1]].dtype, facts[node.inputs[0]].shape)


@law("MatMulIntegerToFloat", "DynamicQuantizeMatMul", domain=CONTRIB)
def _product(facts: Facts, node: ir.Node, output: int) -> Fact:
    return Fact(ir.DataType.FLOAT, product_shape(facts, node.inputs[0], node.inputs[1]))


@law("QLinearMatMul")
def _quantized_product(facts: Facts, node: ir.Node, output: int) -> Fact:
    return Fact(facts[node.inputs[7]].dtype, product_shape(facts, node.inputs[0], node.inputs[3]))
