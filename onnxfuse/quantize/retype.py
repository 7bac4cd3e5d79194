"""Int8 models whose types x86 multiplies slowly, in the types that it multiplies fast: u8 activations, s8 weights.

A code and its zero point move together, q - z = (q - 128) - (z - 128), so that nothing is lost: outputs are equal to the bit,
where the machine does not clip sums of u8 x s8 products.

Source: ONNX operators MatMulInteger, QLinearMatMul, QuantizeLinear and DequantizeLinear; ONNX Runtime's contrib operators.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxfuse.errors import ModelError
from onnxfuse.rewrite.facts import is_constant

WEIGHTS = {"MatMulInteger": (1, 3), "ConvInteger": (1, 3), "QLinearMatMul": (3, 5), "QLinearConv": (3, 5), "QGemm": (3, 5),
           "DynamicQuantizeMatMul": (1, 3), "MatMulIntegerToFloat": (1, 5), "QAttention": (1, 7), "DequantizeLinear": (0, 2)}
"""Where an operator takes its weight, and that one's zero point."""

ACTIVATIONS = {"MatMulInteger": (0, 2), "ConvInteger": (0, 2), "QLinearMatMul": (0, 2), "QLinearConv": (0, 2), "QGemm": (0, 2),
               "MatMulIntegerToFloat": (0, 4), "DequantizeLinear": (0, 2)}
"""The same of its activation."""


@dataclass(frozen=True)
class Retyped:
    """How many weights went from u8 to s8, and how many activations from s8 to u8."""

    weights: int
    activations: int


def retype(model: ir.Model) -> Retyped:
    """Make the weights of an int8 model s8 and its activations u8, in place.

    Raises:
        ModelError: there is nothing to retype.
    """
    activations = sum(_retype_activation(model.graph, node) for node in list(model.graph) if node.op_type == "QuantizeLinear")
    weights = {node.inputs[WEIGHTS[node.op_type][0]] for node in model.graph if node.op_type in WEIGHTS and _is_u8_weight(node)}
    moved = sum(_retype_weight(model.graph, value) for value in weights if value is not None)
    if not moved and not activations:
        raise ModelError(f"the model {model.graph.name!r} has no u8 weight and no s8 activation in an int8 operator; "
                         "there is nothing to retype")
    common.RemoveUnusedNodesPass()(model)  # nothing else is touched: the loader's own fusions must stay what they were
    return Retyped(moved, activations)


def slow_products(model: ir.Model) -> int:
    """How many int8 operators take a u8 weight, which x86 multiplies slowly."""
    return sum(_is_u8_weight(node) for node in model.graph if node.op_type in WEIGHTS)


def _is_u8_weight(node: ir.Node) -> bool:
    at, _ = WEIGHTS[node.op_type]
    value = node.inputs[at] if at < len(node.inputs) else None
    return value is not None and is_constant(value) and value.dtype == ir.DataType.UINT8 and not value.is_graph_output()


def _retype_weight(graph: ir.Graph, value: ir.Value) -> bool:
    """Move a weight and the zero points beside it by 128; left alone where something reads it that is not known."""
    if any(user.op_type not in WEIGHTS or WEIGHTS[user.op_type][0] != at for user, at in value.uses()):
        return False
    slots = [(user, WEIGHTS[user.op_type][1]) for user, _ in value.uses()]
    if any(zero is not None and not is_constant(zero) for zero in (_input(user, at) for user, at in slots)):
        return False
    assert value.const_value is not None
    for user, at in slots:
        zero = _input(user, at)
        codes = np.zeros((), np.uint8) if zero is None or zero.const_value is None else zero.const_value.numpy()
        _set_input(graph, user, at, (codes.astype(np.int16) - 128).astype(np.int8))
    value.const_value = ir.tensor((value.const_value.numpy().astype(np.int16) - 128).astype(np.int8), name=value.name)
    value.type = ir.TensorType(ir.DataType.INT8)
    return True


def _retype_activation(graph: ir.Graph, node: ir.Node) -> bool:
    """Make a QuantizeLinear to s8 one to u8, with everything that reads it."""
    zero, output = _input(node, 2), node.outputs[0]
    if zero is None or not is_constant(zero) or zero.dtype != ir.DataType.INT8 or output.is_graph_output():
        return False
    uses = list(output.uses())
    if not uses or any(user.op_type not in ACTIVATIONS or ACTIVATIONS[user.op_type][0] != at for user, at in uses):
        return False
    readers = [(user, ACTIVATIONS[user.op_type][1]) for user, _ in uses]
    if any(seen is None or not is_constant(seen) for seen in (_input(user, at) for user, at in readers)):
        return False
    for user, at in [(node, 2), *readers]:
        seen = _input(user, at)
        assert seen is not None and seen.const_value is not None
        _set_input(graph, user, at, (seen.const_value.numpy().astype(np.int16) + 128).astype(np.uint8))
    output.type = ir.TensorType(ir.DataType.UINT8)
    return True


def _input(node: ir.Node, at: int) -> ir.Value | None:
    return node.inputs[at] if at < len(node.inputs) else None


def _set_input(graph: ir.Graph, node: ir.Node, at: int, content: np.ndarray) -> None:
    """Give a node a constant of its own as input ``at``."""
    name = f"{node.outputs[0].name}/zero.{at}"
    tensor = ir.tensor(content, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(content.shape))
    graph.initializers.pop(name, None)
    graph.register_initializer(value)
    if at >= len(node.inputs):
        node.resize_inputs(at + 1)
    node.replace_input_with(at, value)
