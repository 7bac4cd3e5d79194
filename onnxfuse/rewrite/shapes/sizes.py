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
        return ValueInfo(start.dtype, (analysis.size(),))
    return ValueInfo(start.dtype, (limit.data[0],), index=((0, ONE),))  # type: ignore[index]


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
