"""Shape functions of what shape arithmetic begins with: sizes as content, counted and filled tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite.analysis import ONE, SMALL, Analysis, Dim, ValueInfo
from onnxfuse.rewrite.attributes import attribute
from onnxfuse.rewrite.shapes import shape_function
from onnxfuse.rewrite.shapes.axes import count


@shape_function("Shape")
def _shape(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    shape = analysis[node.inputs[0]].shape
    if shape is None:
        return ValueInfo(ir.DataType.INT64, (analysis.size(),))
    part = shape[slice(attribute(node, "start", analysis.opset), attribute(node, "end", analysis.opset))]
    return ValueInfo(ir.DataType.INT64, (Dim(len(part)),), part)


@shape_function("Size")
def _size(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    shape = analysis[node.inputs[0]].shape
    return ValueInfo(ir.DataType.INT64, (), None if shape is None else (count(shape),))


@shape_function("Range")
def _range(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    start, limit, step = (analysis[value] for value in node.inputs)
    counts = start.data == (Dim(0),) and step.data == (ONE,) and limit.data is not None
    if not counts:
        return ValueInfo(start.dtype, (_length(analysis, node) or analysis.size(),))
    return ValueInfo(start.dtype, (limit.data[0],), index=((0, ONE),))  # type: ignore[index]


def _length(analysis: Analysis, node: ir.Node) -> Dim | None:
    """The length of Range(a, n + a, 1): n. (As weighted means count their tokens, from 1.)"""
    start, _, step = (analysis[value].data for value in node.inputs)
    limit = node.inputs[1].producer() if node.inputs[1] is not None else None
    if limit is not None and limit.op_type == "Cast" and limit.attributes.get_int("to", 0) == ir.DataType.INT64:
        limit = limit.inputs[0].producer() if limit.inputs[0] is not None else None
    if step != (ONE,) or start is None or limit is None or limit.op_type != "Add" or limit.domain:
        return None
    terms = [analysis[value].data for value in limit.inputs]
    other = terms[1 - terms.index(start)] if start in terms else None
    return other[0] if other is not None and len(other) == 1 and other[0].nonnegative else None


@shape_function("ConstantOfShape")
def _constant_of_shape(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    target = analysis[node.inputs[0]]
    tensor = attribute(node, "value", analysis.opset)
    item = np.float32(0) if tensor is None else tensor.numpy().reshape(-1)[0]
    shape = target.data
    info = ValueInfo(ir.DataType.FLOAT if tensor is None else tensor.dtype, shape, uniform=item.item())
    size = None if shape is None or len(shape) > 1 else count(shape).number
    if size is not None and size <= SMALL and item.dtype.kind in "iu":
        info = replace(info, data=(Dim(int(item)),) * size)
    return info
