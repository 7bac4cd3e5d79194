"""Equal things are computed once."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from onnxfuse.normalize.structure import replace_node
from onnxfuse.rewrite.analysis import stored
from onnxfuse.rewrite.attributes import attribute_proto
from onnxfuse.rewrite.passes import Context, Result

SMALL_INITIALIZER = 64
"""Elements up to which two equal initializers count as one when duplicates are merged; larger ones where they hold one tensor."""


@dataclass(frozen=True)
class MergeDuplicates:
    """Compute equal things once (``merge_duplicates``)."""

    name: str = "merge-duplicates"

    def apply(self, model: ir.Model, context: Context) -> Result:
        return Result(merge_duplicates(model))


def merge_duplicates(model: ir.Model) -> bool:
    """Compute equal things once: equal initializers become one, then equal nodes. Returns whether any were.

    Graphs inside nodes stay as they are.
    """
    merged = _merge_initializers(model.graph) + _merge_nodes(model.graph, model.opset_imports[""])
    common.RemoveUnusedNodesPass()(model)
    return merged > 0


def _merge_initializers(graph: ir.Graph) -> int:
    before = len(graph.initializers)
    seen: dict[tuple[Hashable, ...], ir.Value] = {}
    for value in tuple(graph.initializers.values()):
        tensor = stored(value)
        if tensor is None or value.is_graph_output():
            continue
        content: Hashable = id(tensor)
        if tensor.size <= SMALL_INITIALIZER:
            content = tuple(tensor.string_data()) if tensor.dtype == ir.DataType.STRING else tensor.tobytes()  # type: ignore[attr-defined]
        kept = seen.setdefault((tensor.dtype, tuple(tensor.shape.numpy()), content), value)
        if kept is not value:
            ir.convenience.replace_all_uses_with(value, kept)
            del graph.initializers[value.name or ""]
    return before - len(graph.initializers)


def _merge_nodes(graph: ir.Graph, opset: int) -> int:
    count = 0
    seen: dict[tuple[Hashable, ...], ir.Node] = {}
    for node in graph:
        kept = seen.setdefault(_content(node), node) if is_deterministic(node, opset) else node
        if kept is not node:
            replace_node(graph, node, zip(node.outputs, kept.outputs, strict=True))
            count += 1
    return count


def is_deterministic(node: ir.Node, opset: int) -> bool:
    """Whether equal inputs give equal outputs. What holds a graph may hold anything, and of other domains nothing is known."""
    return not node.domain and _deterministic(node.op_type, opset)


@functools.cache
def _deterministic(operator: str, opset: int) -> bool:
    if not onnx.defs.has(operator, opset):
        return False
    schema: Any = onnx.defs.get_schema(operator, opset)  # onnx's stubs lack half of it
    return bool(schema.node_determinism == onnx.defs.OpSchema.NodeDeterminism.Deterministic)


def _content(node: ir.Node) -> tuple[Hashable, ...]:
    """What equal nodes have alike: operator, inputs, attributes, and which of the outputs they give."""
    protos = {name: attribute_proto(attribute) for name, attribute in node.attributes.items()}
    attributes = tuple(sorted((name, proto.SerializeToString(deterministic=True)) for name, proto in protos.items()))
    return (node.op_identifier(), tuple(node.inputs), attributes, tuple(bool(value.name) for value in node.outputs))
