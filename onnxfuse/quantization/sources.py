"""Where a static model's values are rounded to 8 bits: right behind what computes them, for runtimes that do both in one step.

    LayerNormalization -> QuantizeLinear               where others read the norm too, a norm for the rounding alone
    MatMul -> QuantizeLinear -> Transpose, Gather ..   rows are moved as 8 bits

OpenVINO joins a rounding to the operator before it where nothing else reads that one's result; in front of the linear layer it is
an operator of its own, between two changes of type. What is computed is the same. Where a norm is there twice, OpenVINO computes
the mean and deviation once. ONNX Runtime joins what it can in front of the linear layer, and is slower this way.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Op
from onnxfuse.rewrite.analysis import constant, is_constant

SOURCE = "qdq-source"
"""What the format is called."""

NORM = "LayerNormalization"

MOVERS = frozenset({"Reshape", "Transpose", "Gather"})
"""Operators that put elements elsewhere and leave them as they are."""


def part_norms(graph: ir.Graph, readers: Collection[ir.Node]) -> None:
    """Give ``readers`` a norm of their own, in place, where others read the result of theirs too."""
    for node in list(graph):
        if not _is_norm(node):
            continue
        value = node.outputs[0]
        own = [(user, at) for user, at in value.uses() if user in readers]
        if own and (len(own) < len(value.uses()) or value.is_graph_output()):
            op = Op(graph, value.name or NORM)
            made = op.LayerNormalization(*node.inputs, **{name: each.value for name, each in node.attributes.items()})
            for user, at in own:
                user.replace_input_with(at, made)
            graph.insert_after(node, op.nodes)


def round_at_sources(graph: ir.Graph) -> None:
    """Put each rounding of an activation right behind what computes it, in place."""
    roundings = [node for node in graph if node.op_type == "QuantizeLinear"]
    part_norms(graph, roundings)
    for node in roundings:
        _raise(node)
        _scale_norm(graph, node)
    graph.sort()


def _raise(node: ir.Node) -> None:
    """Put a rounding, and what takes it back, above operators that move elements, where a product stands above these."""
    readers, value = list(node.outputs[0].uses()), node.inputs[0]
    movers: list[ir.Node] = []
    while value is not None and (mover := value.producer()) is not None and mover.op_type in MOVERS and _read_once(value):
        movers.append(mover)
        value = mover.inputs[0]
    if not movers or len(readers) != 1 or not _is_product(value):
        return
    first, lowest, restored = movers[-1], movers[0].outputs[0], readers[0][0]
    ir.convenience.replace_all_uses_with(restored.outputs[0], lowest)
    first.replace_input_with(0, restored.outputs[0])
    node.replace_input_with(0, value)


def _scale_norm(graph: ir.Graph, node: ir.Node) -> None:
    """Let a norm that is there for a rounding alone give steps of it: what is left is to round."""
    value, step = node.inputs[0], constant(node.inputs[1])
    norm = None if value is None else value.producer()
    if norm is None or not _is_norm(norm) or not _read_once(norm.outputs[0]) or step is None or step.ndim:
        return
    for at in range(1, len(norm.inputs)):
        stored = constant(norm.inputs[at])
        assert stored is not None
        norm.replace_input_with(at, _initializer(graph, norm.inputs[at], stored / step, "steps"))
    node.replace_input_with(1, _initializer(graph, node.inputs[1], np.ones_like(step), "one"))


def _is_norm(node: ir.Node) -> bool:
    return node.op_type == NORM and not node.domain and len(node.outputs) == 1 and all(map(is_constant, node.inputs[1:]))


def _is_product(value: ir.Value | None) -> bool:
    """Whether a product makes a value that nothing else reads."""
    node = None if value is None else value.producer()
    return node is not None and node.op_type == "MatMul" and not node.domain and _read_once(node.outputs[0])


def _read_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _initializer(graph: ir.Graph, of: ir.Value | None, content: np.ndarray, name: str) -> ir.Value:
    value = Op(graph, (of.name if of is not None else None) or name).constant(content, name)
    graph.register_initializer(value)
    return value
