"""A node as text: what traces, dumps and drawings show of it after the graph has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from onnxfuse.rewrite.analysis import stored
from onnxfuse.rewrite.attributes import plain, schema_default
from onnxfuse.rewrite.pattern import name_of

SHOWN = 4
"""Elements of a constant that are shown; of a larger one its type and sizes are."""

USUAL = (ir.DataType.FLOAT, ir.DataType.INT64)
"""The types that go without saying: of weights, and of what shapes are computed with."""


@dataclass(frozen=True)
class Line:
    """A node: its operator, and the names of what it reads and writes.

    Args:
        constants: by name, the constants among its inputs as text; of a Constant node, what it gives.
        attributes: by name, as text, where they are not what they are when nobody gives them; of a graph only that it is one.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: tuple[tuple[str, str], ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, node: ir.Node) -> Line:
        read = [(name_of(value), stored(value)) for value in dict.fromkeys(node.inputs) if value is not None]
        constants = [(name, content(tensor)) for name, tensor in read if tensor is not None]
        if node.op_type == "Constant" and not node.domain:
            constants = [(name_of(value), _given(node.attributes)) for value in node.outputs]
        return cls(
            node.op_type,
            tuple(name_of(value) for value in node.inputs if value is not None),
            tuple(name_of(value) for value in node.outputs),
            tuple(constants),
            tuple((name, _text(given)) for name, given in node.attributes.items() if not _usual(node, name, given)),
        )


def content(tensor: ir.TensorProtocol) -> str:
    """A constant as text: its elements where they are few, else its type and sizes."""
    shape = tensor.shape.numpy()
    if tensor.size > SHOWN or tensor.dtype == ir.DataType.STRING or not tensor.size:
        kind = "" if tensor.dtype in USUAL else f"{tensor.dtype.name.lower()} "
        return f"{kind}{sizes(shape)}"
    items = [_number(item) for item in np.asarray(tensor.numpy()).reshape(-1)]
    return items[0] if not shape else f"[{', '.join(items)}]"


def sizes(shape: Sequence[int | str]) -> str:
    """A shape as text; of a single number "scalar"."""
    return "×".join(map(str, shape)) or "scalar"


LIMITS = {np.iinfo(np.int64).max: "max", np.iinfo(np.int64).min: "min"}
"""What stands for an end that is not meant to be a number."""


def _number(item: np.generic) -> str:
    number = item.item()
    return str(LIMITS.get(number, number)) if np.asarray(item).dtype.kind in "iub" else f"{float(item):.6g}"


def _usual(node: ir.Node, name: str, given: ir.Attr) -> bool:
    """Whether an attribute is as the newest schema has it where it is absent."""
    default = schema_default(node, name, onnx.defs.onnx_opset_version())
    return default is not None and not given.is_ref() and plain(given.value) == plain(default)


def _given(attributes: Mapping[str, ir.Attr]) -> str:
    return next((_text(attribute) for attribute in attributes.values()), "")


def _text(attribute: ir.Attr) -> str:
    """An attribute's value, short."""
    if attribute.is_ref() or attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return str(attribute.type.name).lower()
    if attribute.type == ir.AttributeType.TENSOR:
        return content(attribute.as_tensor())
    value = attribute.value
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(f'{each:.6g}' if isinstance(each, float) else str(each) for each in value)}]"
    return str(value)
