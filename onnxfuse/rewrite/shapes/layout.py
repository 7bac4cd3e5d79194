"""Shape functions of operators that arrange the same elements otherwise, or repeat them."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxfuse.rewrite.analysis import ONE, Analysis, Dim, Shape, ValueInfo
from onnxfuse.rewrite.attributes import attribute
from onnxfuse.rewrite.shapes import shape_function
from onnxfuse.rewrite.shapes.axes import axes_of, broadcast_index, count, moved


@shape_function("Unsqueeze")
def _unsqueeze(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source, axes = analysis[node.inputs[0]], axes_of(analysis, node)
    if source.shape is None or axes is None:
        return ValueInfo(source.dtype)
    rank = len(source.shape) + len(axes)
    new = {axis % rank for axis in axes}
    places = dict(enumerate(i for i in range(rank) if i not in new))
    sizes = iter(source.shape)
    return _placed(source, tuple(ONE if i in new else next(sizes) for i in range(rank)), places)


@shape_function("Squeeze")
def _squeeze(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source, axes = analysis[node.inputs[0]], axes_of(analysis, node)
    if source.shape is None:
        return ValueInfo(source.dtype)
    if axes is None and not node.inputs[1:] and all(dim.number is not None for dim in source.shape):
        axes = [i for i, dim in enumerate(source.shape) if dim == ONE]
    if axes is None:
        return ValueInfo(source.dtype)
    gone = {axis % len(source.shape) for axis in axes}
    kept = [i for i in range(len(source.shape)) if i not in gone]
    return _placed(source, tuple(source.shape[i] for i in kept), {i: at for at, i in enumerate(kept)})


def _placed(source: ValueInfo, shape: Shape, places: dict[int, int]) -> ValueInfo:
    """The same elements where only axes of size 1 came and went; ``places`` says where each of the others is now."""
    data = source.data if len(shape) <= 1 else None
    return replace(source, shape=shape, index=moved(source, places), coordinates=None, data=data)


@shape_function("Reshape")
def _reshape(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source, target = analysis[node.inputs[0]], analysis[node.inputs[1]]
    if target.data is None:
        return ValueInfo(source.dtype, _computed(analysis, source.shape, node.inputs[1]))
    dims = list(target.data)
    for i, dim in enumerate(dims):
        if dim.number == 0 and not attribute(node, "allowzero", analysis.opset):
            if source.shape is None or i >= len(source.shape):
                return ValueInfo(source.dtype)
            dims[i] = source.shape[i]
    if Dim(-1) in dims:
        at = dims.index(Dim(-1))
        rest = count((*dims[:at], *dims[at + 1 :]))
        whole = None if source.shape is None else count(source.shape).divide(rest)
        dims[at] = whole if whole is not None else analysis.size()
    shape = tuple(dims)
    data = source.data if len(shape) <= 1 else None
    kept = None if source.shape is None else _kept_axes(source.shape, shape)
    return ValueInfo(source.dtype, shape, data, source.uniform, None if kept is None else moved(source, kept))


def _computed(analysis: Analysis, shape: Shape | None, target: ir.Value | None) -> Shape | None:
    """The sizes behind a Reshape to a target that is computed: the same for all that have the same ones before."""
    rank = analysis.shape(target)
    if shape is None or target is None or rank is None or len(rank) != 1 or rank[0].number is None:
        return None
    return analysis.reshaped.setdefault((shape, target), tuple(analysis.size() for _ in range(rank[0].number)))


def _kept_axes(before: Shape, after: Shape) -> dict[int, int] | None:
    """The place behind a Reshape of each axis that is not of size 1; None where it does more than add and remove such."""
    old, new = ([at for at, dim in enumerate(shape) if dim != ONE] for shape in (before, after))
    same = [before[at] for at in old] == [after[at] for at in new]
    return dict(zip(old, new, strict=True)) if same else None


@shape_function("Flatten")
def _flatten(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source = analysis[node.inputs[0]]
    if source.shape is None:
        return ValueInfo(source.dtype, (analysis.size(), analysis.size()))
    axis = attribute(node, "axis", analysis.opset)
    return ValueInfo(source.dtype, (count(source.shape[:axis]), count(source.shape[axis:])))


@shape_function("Transpose")
def _transpose(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source = analysis[node.inputs[0]]
    if source.shape is None:
        return ValueInfo(source.dtype)
    perm = attribute(node, "perm", analysis.opset) or list(range(len(source.shape)))[::-1]
    index = moved(source, {old: new for new, old in enumerate(perm)})
    return ValueInfo(source.dtype, tuple(source.shape[i] for i in perm), None, source.uniform, index)


@shape_function("Tile")
def _tile(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source, repeats = analysis[node.inputs[0]], analysis[node.inputs[1]].data
    if source.shape is None or repeats is None:
        return ValueInfo(source.dtype)
    shape = tuple(dim * times for dim, times in zip(source.shape, repeats, strict=True))
    return ValueInfo(source.dtype, shape, uniform=source.uniform)


@shape_function("Expand")
def _expand(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source, target = analysis[node.inputs[0]], analysis[node.inputs[1]]
    if source.shape is None or target.data is None:
        return ValueInfo(source.dtype, uniform=source.uniform)
    shape = analysis.broadcast([source.shape, target.data])
    assert shape is not None
    index = None if source.index is None else broadcast_index(source, len(shape))
    return ValueInfo(source.dtype, shape, None, source.uniform, index)
