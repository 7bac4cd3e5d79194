"""A convolution whose kernel is its stride sees each pixel once: it is a matrix product of patches.

    Conv [B, C, H, W] -> [B, D, H/p, W/q]   =   patches [B, H/p * W/q, C * p * q] @ W [C * p * q, D], moved back

Quantized, a Conv becomes ConvInteger, which is slow everywhere; the product is as fast as any other. Images of a known size only.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Op
from onnxfuse.rewrite.analysis import is_constant
from onnxfuse.rewrite.attributes import attribute
from onnxfuse.rewrite.driver import replace


def patches_to_products(model: ir.Model) -> int:
    """Replace every such Conv by a MatMul, in place; returns how many."""
    opset = model.opset_imports[""]
    found = [node for node in model.graph if node.op_type == "Conv" and not node.domain and _is_patches(node, opset)]
    for node in found:
        _rewrite(model.graph, node)
    return len(found)


def _is_patches(node: ir.Node, opset: int) -> bool:
    image, weight = node.inputs[0], node.inputs[1]
    if image is None or image.shape is None or not is_constant(weight):
        return False
    assert weight is not None and weight.const_value is not None
    if any(value is not None and not is_constant(value) for value in node.inputs[2:]):
        return False
    kernel = tuple(weight.const_value.shape.numpy())
    sizes = image.shape.dims[1:]
    return (
        len(kernel) == 4
        and all(isinstance(size, int) for size in sizes)
        and sizes[1] % kernel[2] == 0
        and sizes[2] % kernel[3] == 0
        and tuple(node.attributes.get_ints("strides", [1, 1])) == kernel[2:]
        and attribute(node, "group", opset) == 1
        and not any(node.attributes.get_ints("pads", [0]))
        and set(node.attributes.get_ints("dilations", [1])) == {1}
        and node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and weight.const_value.dtype == ir.DataType.FLOAT
    )


def _rewrite(graph: ir.Graph, node: ir.Node) -> None:
    image, weight = node.inputs[0], node.inputs[1]
    assert image is not None and image.shape is not None and weight is not None and weight.const_value is not None
    depth, channels, height, width = weight.const_value.shape.numpy()
    rows, columns = int(image.shape[2]) // height, int(image.shape[3]) // width  # type: ignore[arg-type]
    op = Op(graph, node.outputs[0].name or "patches")
    split = op.Reshape(image, op.constant([0, channels, rows, height, columns, width], "split"))
    shape = op.constant([0, rows * columns, channels * height * width], "rows")
    product = op.MatMul(
        op.Reshape(op.Transpose(split, perm=[0, 2, 4, 1, 3, 5]), shape),
        op.constant(np.ascontiguousarray(weight.const_value.numpy().reshape(depth, -1).T), "weight"),
    )
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        product = op.Add(product, node.inputs[2])
    grid = op.constant([0, depth, rows, columns], "grid")
    replace(graph, node, op, op.Reshape(op.Transpose(product, perm=[0, 2, 1]), grid))
