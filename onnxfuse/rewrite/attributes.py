"""Attributes of nodes, with the defaults that the operators' schemas give them."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir

_LISTS = {ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS}


def attribute(node: ir.Node, name: str, opset: int) -> Any:
    """An attribute's value, or the default that the operator's schema gives it (None when it has none)."""
    given = node.attributes.get(name)
    if given is not None:
        return list(given.value) if given.type in _LISTS else given.value
    return schema_default(node, name, opset)


def schema_default(node: ir.Node, name: str, opset: int) -> Any:
    """What the operator's schema says of an attribute that is absent; None when it says nothing."""
    try:
        default = onnx.defs.get_schema(node.op_type, opset, node.domain).attributes[name].default_value
    except (onnx.defs.SchemaError, KeyError):
        return None
    return onnx.helper.get_attribute_value(default)


def plain(value: Any) -> Any:
    """An attribute value with lists for sequences and str for bytes, for comparing."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
