"""Which of a node's inputs and outputs may be float16, by the schema of its operator.

Source: ONNX's operator schemas; those that ONNX Runtime has of its own operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
import onnx_ir as ir

from onnxfuse.operators import newest_schema

HALF = "tensor(float16)"

NAMED = {
    "tensor(float)": ir.DataType.FLOAT,
    "tensor(int64)": ir.DataType.INT64,
    "tensor(int32)": ir.DataType.INT32,
    "tensor(bool)": ir.DataType.BOOL,
}
"""Types that schemas say outright."""

GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(frozen=True)
class Schema:
    """The type variables of an operator's inputs and outputs, the last for all that follow; and those that may be float16."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    half: frozenset[str]


@dataclass(frozen=True)
class Places:
    """The float32 inputs and outputs of a node that may be float16 instead, all together, by their numbers."""

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.inputs or self.outputs)


def places(node: ir.Node, opset: int) -> Places:
    """None where no schema is known, or the type of a value, the node has graphs of its own, or says its type itself.

    Args:
        opset: of the node's domain.
    """
    own = (
        any(each.type in GRAPHS for each in node.attributes.values()) or "dtype" in node.attributes or node.op_type == "Constant"
    )
    schema = None if own else _schema(node.domain, node.op_type, opset)
    if schema is None or _unknown(node.inputs, schema.inputs, schema.half) or _unknown(node.outputs, schema.outputs, schema.half):
        return Places()
    return Places(_half(node.inputs, schema.inputs, schema.half), _half(node.outputs, schema.outputs, schema.half))


def infer_types(model: ir.Model) -> None:
    """Say of the values of a sorted graph which type they have, where its file does not: what follows from the schemas."""
    for node in model.graph:
        schema = _schema(node.domain, node.op_type, model.opset_imports.get(node.domain, 1))
        bound = (
            {} if schema is None else dict(zip(_formals(schema.inputs, len(node.inputs)), map(_dtype, node.inputs), strict=True))
        )
        for value, formal in zip(
            node.outputs, _formals(() if schema is None else schema.outputs, len(node.outputs)), strict=True
        ):
            dtype = _said(node) or bound.get(formal) or NAMED.get(formal)
            if value.dtype is None and dtype is not None:
                value.type = ir.TensorType(dtype)


def _formals(formals: Sequence[str], count: int) -> list[str]:
    """The type variable of each of so many; the last stands for all that follow."""
    return [formals[min(at, len(formals) - 1)] if formals else "" for at in range(count)]


def _dtype(value: ir.Value | None) -> ir.DataType | None:
    return None if value is None else value.dtype


def _said(node: ir.Node) -> ir.DataType | None:
    """The type of outputs that a node's attributes say."""
    if node.op_type == "Cast" and not node.domain:
        return ir.DataType(node.attributes["to"].as_int())
    if node.op_type == "Constant" and not node.domain:
        held = {"value_float": ir.DataType.FLOAT, "value_floats": ir.DataType.FLOAT, "value_int": ir.DataType.INT64}
        name = next(iter(node.attributes), "")
        return node.attributes[name].as_tensor().dtype if name == "value" else held.get(name)
    if node.op_type == "ConstantOfShape" and not node.domain:
        return node.attributes["value"].as_tensor().dtype if "value" in node.attributes else ir.DataType.FLOAT
    return None


def _unknown(values: Sequence[ir.Value | None], formals: Sequence[str], half: frozenset[str]) -> bool:
    """Whether something that may have to be float16 has no known type."""
    pairs = zip(values, _formals(formals, len(values)), strict=True)
    return any(value is not None and value.dtype is None and kind in half for value, kind in pairs)


def _half(values: Sequence[ir.Value | None], formals: Sequence[str], half: frozenset[str]) -> frozenset[int]:
    kinds = _formals(formals, len(values))
    return frozenset(at for at, value in enumerate(values) if _dtype(value) == ir.DataType.FLOAT and kinds[at] in half)


@cache
def _schema(domain: str, operator: str, opset: int) -> Schema | None:
    own = None if onnx.defs.has(operator, domain) else newest_schema(domain, operator)
    if own is None and not onnx.defs.has(operator, domain):
        return None
    known: Any = own or onnx.defs.get_schema(operator, opset, domain)
    half = frozenset(each.type_param_str for each in known.type_constraints if HALF in each.allowed_type_strs)
    name = "type_str" if own is None else "typeStr"
    inputs, outputs = (tuple(getattr(each, name) for each in part) for part in (known.inputs, known.outputs))
    return Schema(inputs, outputs, half)
