"""Which operators are of int8 models, and what of their inputs is int8: read off ONNX Runtime's schemas, for all verbs alike.

An operand is an input that may be int8 or uint8, may not be a float or int64, and has a zero point beside it, as ``b`` with
``b_zero_point``, whose type nothing else of the operator shares: it can change without the rest.

A matmul multiplies an activation with a weight: by itself, as MatMulInteger does, or as a float one that reads both through
DequantizeLinear, which a runtime makes one of integers.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnxfuse.operators import newest_schema
from onnxfuse.rewrite.shapes.native import DOMAIN

NARROW = {"tensor(int8)", "tensor(uint8)"}
WIDE = {"tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)", "tensor(int64)"}

FLOAT_MATMULS = {"MatMul", "Gemm", "Conv"}
"""The standard's matmuls of an activation, input 0, and a weight, input 1, that runtimes make integer matmuls."""


@dataclass(frozen=True)
class Operand:
    """The numbers of the inputs that hold an operand's numbers and their zero point."""

    value: int
    zero: int


@dataclass(frozen=True)
class _Types:
    """What an operator's schema says: whether it is of int8 models alone, and its operands."""

    integer: bool
    operands: tuple[Operand, ...]


@functools.cache
def _types(domain: str, operator: str) -> _Types:
    schema = newest_schema(domain, operator)
    if schema is None:
        return _Types(False, ())
    allowed = {one.type_param_str: set(one.allowed_type_strs) for one in schema.type_constraints}
    inputs = [(value.name.lower(), value.typeStr, allowed.get(value.typeStr, {value.typeStr})) for value in schema.inputs]
    outputs = [(value.name.lower(), value.typeStr, allowed.get(value.typeStr, {value.typeStr})) for value in schema.outputs]
    narrow = [types for _, _, types in (*inputs, *outputs) if types & NARROW and not types & WIDE]
    scaled = any("tensor(float)" in types for _, _, types in inputs)
    readers = Counter(kind for _, kind, _ in (*inputs, *outputs))
    numbers = {name: at for at, (name, _, _) in enumerate(inputs)}
    operands = tuple(
        Operand(at, numbers[f"{name}_zero_point"])
        for at, (name, kind, types) in enumerate(inputs)
        if types & NARROW and f"{name}_zero_point" in numbers and readers[kind] == 2
    )
    image = not scaled and not any("tensor(int8)" in types for types in narrow)  # bytes with no scale beside them
    return _Types(bool(narrow) and not image, operands)


def is_integer(node: ir.Node) -> bool:
    """Whether only int8 models have such an operator, or an operator of ours with such a weight."""
    own = node.domain == DOMAIN and any(value is not None and value.dtype == ir.DataType.INT8 for value in node.inputs)
    return own or _types(node.domain, node.op_type).integer


def operands(node: ir.Node) -> tuple[Operand, ...]:
    """A node's operands, the activation before the weight."""
    return _types(node.domain, node.op_type).operands


@dataclass(frozen=True, eq=False)
class IntegerMatMul:
    """A node that multiplies, and where its weight's and its activation's numbers are read: by itself or by DequantizeLinear.

    ``activation`` is None where it is quantized inside the operator.
    """

    node: ir.Node
    weight: tuple[ir.Node, Operand]
    activation: tuple[ir.Node, Operand] | None


def integer_matmuls(graph: ir.Graph) -> Iterator[IntegerMatMul]:
    """The integer matmuls in a graph, in its order."""
    for node in graph:
        found = operands(node)
        if found and found[-1].value > 0:
            yield IntegerMatMul(node, (node, found[-1]), (node, found[0]) if len(found) > 1 else None)
        elif node.op_type in FLOAT_MATMULS and not node.domain:
            activation, weight = (_dequantized(value) for value in node.inputs[:2])
            if activation is not None and weight is not None:
                yield IntegerMatMul(node, weight, activation)


def _dequantized(value: ir.Value | None) -> tuple[ir.Node, Operand] | None:
    """The DequantizeLinear that a value comes from, also through a Transpose, and what that reads."""
    node = None if value is None else value.producer()
    if node is not None and node.op_type == "Transpose" and not node.domain and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    found = () if node is None else operands(node)
    return None if node is None or len(found) != 1 or found[0].value > 0 else (node, found[0])
