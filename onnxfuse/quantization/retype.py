"""Int8 models whose types x86 multiplies slowly, in the types that it multiplies fast: u8 activations, s8 weights.

A number and its zero point move together, q - z = (q - 128) - (z - 128), so that nothing is lost: outputs are equal to the bit,
where the machine does not clip sums of u8 x s8 products.

Source: ONNX operators MatMulInteger, QLinearMatMul, QuantizeLinear and DequantizeLinear; ONNX Runtime's contrib operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxfuse.errors import ModelError
from onnxfuse.quantization.operands import IntegerMatMul, integer_matmuls, operands
from onnxfuse.rewrite.analysis import is_constant


@dataclass(frozen=True)
class Retyped:
    """How many weights went from u8 to s8, and how many activations from s8 to u8."""

    weights: int
    activations: int


def retype(model: ir.Model) -> Retyped:
    """Make the weights of an int8 model s8 and its activations u8, in place.

    Only what matmuls multiply counts. Where an activation of theirs changes, all change that can, since operators between want
    theirs to be of one type.

    Raises:
        ModelError: there is nothing to retype.
    """
    matmuls = list(integer_matmuls(model.graph))
    read = {(node, operand.value) for node, operand in (matmul.activation for matmul in matmuls if matmul.activation)}
    quantizers = [node for node in model.graph if _is_s8_activation(node)]
    multiplied = [node for node in quantizers if read & set(_uses(node.outputs[0]))]
    weights = _u8_weights(matmuls)
    if not weights and not multiplied:
        raise ModelError(f"the model {model.graph.name!r} {_why_nothing(matmuls)}; there is nothing to retype")
    for node in quantizers if multiplied else ():
        _retype_activation(model.graph, node)
    for value, slots in weights.items():
        _retype_weight(model.graph, value, slots)
    common.RemoveUnusedNodesPass()(model)  # nothing else is touched: the loader's own fusions must stay what they were
    return Retyped(len(weights), len(multiplied))


def slow_matmuls(model: ir.Model) -> int:
    """How many integer matmuls take a u8 weight that could be s8: x86 multiplies it slowly."""
    matmuls = list(integer_matmuls(model.graph))
    weights = _u8_weights(matmuls)
    return sum(_weight(matmul) in weights for matmul in matmuls)


def _uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    return [(user, at) for user, at in value.uses()]


def _weight(matmul: IntegerMatMul) -> ir.Value | None:
    node, operand = matmul.weight
    return node.inputs[operand.value]


Slots = list[tuple[ir.Node, int]]
"""Inputs of nodes."""


def _u8_weights(matmuls: Sequence[IntegerMatMul]) -> dict[ir.Value, Slots]:
    """The u8 weights that can be s8, each with the zero points beside it: only matmuls read it, and all of it is constant."""
    known = {(node, operand.value): operand.zero for node, operand in (matmul.weight for matmul in matmuls)}
    found = {}
    for value in dict.fromkeys(map(_weight, matmuls)):
        if value is None or not is_constant(value) or value.dtype != ir.DataType.UINT8 or value.is_graph_output():
            continue
        uses = _uses(value)
        slots = [(user, known[user, at]) for user, at in uses if (user, at) in known]
        zeros = [zero for zero in (_input(user, at) for user, at in slots) if zero is not None]
        if len(slots) == len(uses) and all(map(is_constant, zeros)):
            found[value] = slots
    return found


def _why_nothing(matmuls: Sequence[IntegerMatMul]) -> str:
    """What the model's matmuls have, where none can be retyped."""
    zeros = [_input(node, operand.zero) for node, operand in (matmul.activation for matmul in matmuls if matmul.activation)]
    signed = sum(zero is not None and zero.dtype == ir.DataType.INT8 for zero in zeros)
    unsigned = sum(value is not None and value.dtype == ir.DataType.UINT8 for value in map(_weight, matmuls))
    if not matmuls:
        return "has no integer matmul"
    if not signed and not unsigned:
        return "multiplies u8 activations with s8 weights already"
    return f"has {signed} matmuls of s8 activations and {unsigned} of u8 weights, whose type other operators share"


def _retype_weight(graph: ir.Graph, value: ir.Value, slots: Slots) -> None:
    """Move a weight and the zero points beside it by 128."""
    assert value.const_value is not None
    for user, at in slots:
        zero = _input(user, at)
        values = np.zeros((), np.uint8) if zero is None or zero.const_value is None else zero.const_value.numpy()
        _set_input(graph, user, at, (values.astype(np.int16) - 128).astype(np.int8))
    value.const_value = ir.tensor((value.const_value.numpy().astype(np.int16) - 128).astype(np.int8), name=value.name)
    value.type = ir.TensorType(ir.DataType.INT8)


def _is_s8_activation(node: ir.Node) -> bool:
    """Whether a node is a QuantizeLinear to s8 whose type can change, with everything that reads it."""
    if node.op_type != "QuantizeLinear":
        return False
    zeros = [_input(node, 2), *(_input(user, _zero(user, at)) for user, at in _uses(node.outputs[0]))]
    return (
        zeros[0] is not None
        and zeros[0].dtype == ir.DataType.INT8
        and all(zero is not None and is_constant(zero) for zero in zeros)
        and not node.outputs[0].is_graph_output()
    )


def _zero(node: ir.Node, at: int) -> int:
    """The number of the zero point beside input ``at``; past all inputs where there is none."""
    return next((operand.zero for operand in operands(node) if operand.value == at), len(node.inputs))


def _retype_activation(graph: ir.Graph, node: ir.Node) -> None:
    """Make a QuantizeLinear to s8 one to u8, with everything that reads it."""
    output = node.outputs[0]
    for user, at in [(node, 2), *((user, _zero(user, at)) for user, at in _uses(output))]:
        seen = _input(user, at)
        assert seen is not None and seen.const_value is not None
        _set_input(graph, user, at, (seen.const_value.numpy().astype(np.int16) + 128).astype(np.uint8))
    output.type = ir.TensorType(ir.DataType.UINT8)


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
