"""Attributes of nodes, with the defaults that the operators' schemas give them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
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
        default = _defaults(node.op_type, opset, node.domain)[name]
    except (onnx.defs.SchemaError, KeyError):
        return None
    return list(default) if isinstance(default, list) else default


@functools.cache
def _defaults(operator: str, opset: int, domain: str) -> Mapping[str, Any]:
    """The default of each attribute. Raises SchemaError, which is not remembered: a library may bring the operator later."""
    attributes = onnx.defs.get_schema(operator, opset, domain).attributes
    return {name: onnx.helper.get_attribute_value(attribute.default_value) for name, attribute in attributes.items()}


def attribute_proto(attribute: ir.Attr) -> onnx.AttributeProto:
    """An attribute as ONNX writes it. (``ir.to_proto`` first holds it against the members of six protocols.)"""
    if attribute.is_ref():
        return ir.serde.serialize_reference_attribute(attribute)
    return ir.serde.serialize_attribute(attribute)


def plain(value: Any) -> Any:
    """An attribute value with lists for sequences and str for bytes, for comparing."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
