"""What an input is, read off what the graph does with it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx_ir as ir

from onnxfuse.architecture import PROMPT

KEEPS = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Expand"}
"""Operators behind which an input is still the same input."""

TABLES = {("Gather", 1): 0, ("EmbedLayerNormalization", 0): 2, ("EmbedLayerNormalization", 1): 4}
"""(operator, place of the ids): the place of the table that they look up."""

MASKING = {
    ("Not", 0),
    ("Where", 0),
    ("And", 0),
    ("And", 1),
    ("Or", 0),
    ("Or", 1),
    ("Sub", 1),
    ("Attention", 3),
    ("MultiHeadAttention", 4),
    ("MultiHeadAttention", 5),
    ("EmbedLayerNormalization", 7),
}
"""(operator, place) of what only masks are for; ``Sub``: 1 - mask."""


def role_of(value: ir.Value) -> str:
    """What an input is: by what the graph does with it, and by its name where that does not tell."""
    assert value.dtype is not None and value.shape is not None
    if value.name == PROMPT and len(value.shape) == 1:
        return "prompt"
    name, rows = name_of(value), table_rows(value)
    if "mask" in name and rows <= 2:
        return "mask"
    uses = {(node.op_type, at) for node, at in _uses(value)}
    if value.dtype.is_floating_point():
        return "mask" if uses & (MASKING - {("Sub", 1), ("Where", 0)}) else "values"
    if not rows and len(value.shape) > 1 and (value.dtype == ir.DataType.BOOL or uses & MASKING):
        return "mask"
    return "types" if re.search("type|segment", name) else "ids"


def _uses(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """What reads a value, also through operators that keep it."""
    for node, at in value.uses():
        if node.op_type in KEEPS and at == 0:
            yield from _uses(node.outputs[0])
        else:
            yield node, at


def table_rows(value: ir.Value) -> int:
    """Rows of the table that ids look up; 0 when there is none."""
    tables = (node.inputs[TABLES[node.op_type, at]] for node, at in _uses(value) if (node.op_type, at) in TABLES)
    return min((rows for table in tables if (rows := first_size(table))), default=0)


def first_size(table: ir.Value | None) -> int:
    """The first size of a constant, in another type too; 0 where it is none."""
    if (tensor := constant(table)) is not None:
        return tensor.shape.numpy()[0] if len(tensor.shape) else 0
    node = None if table is None else table.producer()
    return first_size(node.inputs[0]) if node is not None and node.op_type in ("Cast", "DequantizeLinear", "Identity") else 0


def padding_id(ids: ir.Value) -> int | None:
    """The id that the graph compares ids with: padding, in models that ask no mask for it."""
    for node, at in _uses(ids):
        if node.op_type == "Equal" and (number := scalar(node.inputs[1 - at])) is not None:
            return int(number)
    return None


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """What an initializer or a Constant node holds."""
    return None if value is None else ir.convenience.get_const_tensor(value)


def scalar(value: ir.Value | None) -> float | None:
    """The number that a constant of one element holds."""
    tensor = constant(value)
    return float(tensor.numpy().reshape(-1)[0]) if tensor is not None and tensor.size == 1 else None


def features(value: ir.Value) -> int:
    """The last size that a float input must have, for the constant that it is multiplied with, or by; 0 where nothing tells."""
    for node, _ in value.uses():
        other = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if other is None or not len(other.shape):
            continue
        shape = other.shape.numpy()
        if node.op_type == "MatMul":
            return shape[-2:][0]
        if node.op_type in ("LayerNormalization", "Add", "Mul", "Sub", "Div") and shape[-1] > 1:
            return shape[-1]
    return 0


def name_of(value: ir.Value) -> str:
    """Its name, in small letters."""
    return (value.name or "").lower()
