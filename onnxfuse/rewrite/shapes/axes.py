"""Axes and sizes that several shape functions compute with."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxfuse.rewrite.analysis import ONE, Analysis, Dim, Index, Shape, ValueInfo
from onnxfuse.rewrite.attributes import attribute


def count(shape: Shape) -> Dim:
    """The number of elements."""
    return math.prod(shape, start=ONE)


def moved(source: ValueInfo, places: dict[int, int]) -> Index | None:
    """index of what has an axis of ``source`` at another place; axes without a place have size 1, or are gone."""
    if source.index is None:
        return None
    return tuple((places[axis], coef) for axis, coef in source.index if axis in places)


def broadcast_index(part: ValueInfo, rank: int) -> Index:
    """index of what is broadcast to this rank: new axes come first."""
    assert part.index is not None and part.shape is not None
    return tuple((axis + rank - len(part.shape), coef) for axis, coef in part.index)


def axes_of(analysis: Analysis, node: ir.Node) -> list[int] | None:
    """The axes of Unsqueeze, Squeeze and the reductions, or None: an input since opset 13 or 18, an attribute before."""
    if len(node.inputs) > 1:
        data = analysis[node.inputs[1]].data
        return [item.coef for item in data] if data is not None and all(i.number is not None for i in data) else None
    given: list[int] | None = attribute(node, "axes", analysis.opset)
    return given
