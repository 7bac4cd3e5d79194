"""Shape functions of operators that take parts of values, or put values together."""

from __future__ import annotations

import itertools
from dataclasses import replace

import onnx_ir as ir

from onnxfuse.rewrite.analysis import ONE, Analysis, Dim, ValueInfo
from onnxfuse.rewrite.attributes import attribute
from onnxfuse.rewrite.shapes import shape_function


@shape_function("Gather")
def _gather(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo | None:
    source, where = (analysis[value] for value in node.inputs)
    axis = attribute(node, "axis", analysis.opset)
    if source.shape is None or where.shape is None:
        return ValueInfo(source.dtype)
    axis %= len(source.shape)
    info = ValueInfo(source.dtype, source.shape[:axis] + where.shape + source.shape[axis + 1 :])
    if source.data is not None and where.data is not None and all(item.number is not None for item in where.data):
        info = replace(info, data=tuple(source.data[item.coef] for item in where.data))
    return info


@shape_function("Slice")
def _slice(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source = analysis[node.inputs[0]]
    parts = [analysis[value].data for value in node.inputs[1:]]
    parts += [None] * (4 - len(parts))
    starts, ends, axes, steps = parts
    if source.shape is None:
        return ValueInfo(source.dtype)
    shape = list(source.shape)
    if any(value is not None and data is None for value, data in zip(node.inputs[1:], parts, strict=False)):
        return ValueInfo(source.dtype, tuple(analysis.size() for _ in shape))
    assert starts is not None and ends is not None
    axes = axes or tuple(Dim(i) for i in range(len(starts)))
    steps = steps or (ONE,) * len(starts)
    data = source.data
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = axis.coef % len(shape)
        size, first, last = shape[at].number, start.number, end.number
        if size is not None and None not in (first, last, step.number):
            span = range(size)[slice(first, last, step.coef)]
            shape[at] = Dim(len(span))
            data = None if data is None else data[slice(first, last, step.coef)]
        else:
            prefix = step == ONE and first == 0
            whole = prefix and (end == shape[at] or (last is not None and last >= 2**31 - 1))
            if not whole:
                shape[at] = (
                    analysis.capped(end, shape[at]) if prefix and end.nonnegative and size is not None else analysis.size()
                )
            data = None
    return ValueInfo(source.dtype, tuple(shape), data)


@shape_function("Concat")
def _concat(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    parts = [analysis[value] for value in node.inputs]
    shapes = [part.shape for part in parts if part.shape is not None]
    if len(shapes) != len(parts):
        return ValueInfo(parts[0].dtype)
    axis = attribute(node, "axis", analysis.opset) % len(shapes[0])
    sizes = [shape[axis] for shape in shapes]
    like = {size.symbols for size in sizes}
    total = Dim(sum(size.coef for size in sizes), like.pop()) if len(like) == 1 else analysis.size()
    others = [next((s[i] for s in shapes if s[i].number is not None), shapes[0][i]) for i in range(len(shapes[0]))]
    info = ValueInfo(parts[0].dtype, (*others[:axis], total, *others[axis + 1 :]))
    contents = [part.data for part in parts if part.data is not None]
    if len(contents) == len(parts):
        info = replace(info, data=tuple(itertools.chain(*contents)))
    indices = [part.index for part in parts if part.index is not None]
    if len(indices) == len(parts) and axis == len(shapes[0]) - 1 and all(shape[-1] == ONE for shape in shapes):
        info = replace(info, coordinates=tuple(indices))
    return info


@shape_function("Split")
def _split(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source = analysis[node.inputs[0]]
    if source.shape is None:
        return ValueInfo(source.dtype)
    axis = attribute(node, "axis", analysis.opset) % len(source.shape)
    if node.inputs[1:] and node.inputs[1] is not None:
        sizes = analysis[node.inputs[1]].data
        size = None if sizes is None else sizes[output]
    else:
        size = source.shape[axis].divide(Dim(len(node.outputs)))
    size = analysis.size() if size is None else size
    return ValueInfo(source.dtype, (*source.shape[:axis], size, *source.shape[axis + 1 :]))
