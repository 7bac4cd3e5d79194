"""How long a sequence a graph has positions for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxfuse.verify.roles import constant, first_size, scalar

COUNTING = {"Add", "Sub", "Mul", "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Expand"}
"""Operators between a count of tokens and the position that is looked up."""


def positions(model: ir.Model) -> int:
    """The longest sequence that the graph has positions for; 0 where it does not tell."""
    found = [size for tensor in _constants(model) if (size := _counted(tensor))][:1]
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "Slice" and (table := constant(source)) is not None:
            found.append(_sliced(node, table))
        if node.op_type == "Gather" and (ahead := _ahead(node.inputs[1])) is not None:
            found.append(first_size(source) - ahead)
        if node.op_type == "EmbedLayerNormalization":
            found.append(first_size(node.inputs[3]))
    return min((size for size in found if size > 0), default=0)


def _sliced(node: ir.Node, table: ir.TensorProtocol) -> int:
    """The rows of a table [P,D] or [1,P,D] of positions whose first ones are taken, as many as there are tokens; else 0."""
    ends, axes = (constant(node.inputs[at]) if at < len(node.inputs) else None for at in (2, 3))
    rows = len(table.shape) - 2
    along = None if axes is None else axes.numpy().tolist()
    taken = ends is None and rows in (0, 1) and along in ([rows], [rows - len(table.shape)])
    return int(table.shape.numpy()[rows]) if taken else 0


def _counted(tensor: ir.TensorProtocol) -> int:
    """P of a stored range [1, P]: 0, 1, ... P - 1; else 0."""
    sizes = tensor.shape.numpy() if tensor.dtype == ir.DataType.INT64 else ()
    if len(sizes) != 2 or sizes[0] != 1 or sizes[1] < 2:
        return 0
    return sizes[1] if np.array_equal(tensor.numpy()[0], np.arange(sizes[1])) else 0


def _ahead(index: ir.Value | None) -> int | None:
    """How far positions are ahead of the tokens' places 0, 1, ...: 0 of a Range, 1 of a CumSum over tokens, and what is added.

    None where the index is not counted so.
    """
    node = None if index is None else index.producer()
    if node is None or node.op_type in ("CumSum", "Range"):
        return None if node is None else int(node.op_type == "CumSum")
    if node.op_type not in COUNTING:
        return None
    counted = [(ahead, at) for at, source in enumerate(node.inputs[:2]) if (ahead := _ahead(source)) is not None]
    if len(counted) != 1:
        return None
    ((ahead, at),) = counted
    if node.op_type not in ("Add", "Sub"):
        return ahead
    shift = scalar(node.inputs[1 - at])
    return None if shift is None else ahead + int(shift) * (1 if node.op_type == "Add" else -1)


def _constants(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Initializers, and what Constant nodes hold, in bodies too."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            assert value.const_value is not None
            yield value.const_value
    for node in model.graph.all_nodes():
        if node.op_type == "Constant" and "value" in node.attributes:
            yield node.attributes["value"].as_tensor()
