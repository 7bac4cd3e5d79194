"""Shape functions of operators that sum over an axis: products, reductions, attention."""

from __future__ import annotations

import onnx_ir as ir

from onnxfuse.rewrite.analysis import ONE, Analysis, Dim, ValueInfo
from onnxfuse.rewrite.attributes import attribute, plain
from onnxfuse.rewrite.shapes import shape_function
from onnxfuse.rewrite.shapes.axes import axes_of, count


@shape_function("MatMul")
def _matmul(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    left, right = analysis[node.inputs[0]], analysis[node.inputs[1]]
    if left.shape is None or right.shape is None or 1 in (len(left.shape), len(right.shape)):
        return ValueInfo(left.dtype)
    lead = analysis.broadcast([left.shape[:-2], right.shape[:-2]])
    assert lead is not None
    return ValueInfo(left.dtype, (*lead, left.shape[-2], right.shape[-1]))


@shape_function("Einsum")
def _einsum(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    operands = [analysis[value] for value in node.inputs]
    equation = plain(attribute(node, "equation", analysis.opset)).replace(" ", "")
    letters, arrow, result = equation.partition("->")
    sizes: dict[str, Dim] = {}
    for term, operand in zip(letters.split(","), operands, strict=True):
        if not arrow or "." in equation or operand.shape is None or len(term) != len(operand.shape):
            return ValueInfo(operands[0].dtype)
        sizes |= {letter: size for letter, size in zip(term, operand.shape, strict=True) if sizes.get(letter, ONE) == ONE}
    return ValueInfo(operands[0].dtype, tuple(sizes[letter] for letter in result))


@shape_function("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd")
def _reduce(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source, axes = analysis[node.inputs[0]], axes_of(analysis, node)
    if source.shape is None or axes is None:
        return ValueInfo(source.dtype)
    every = not axes and not attribute(node, "noop_with_empty_axes", analysis.opset)
    gone = set(range(len(source.shape))) if every else {axis % len(source.shape) for axis in axes}
    keep = attribute(node, "keepdims", analysis.opset)
    shape = tuple(ONE if i in gone else dim for i, dim in enumerate(source.shape) if keep or i not in gone)
    size = count(tuple(source.shape[i] for i in gone)).number
    known = node.op_type == "ReduceSum" and size is not None and source.uniform is not None
    return ValueInfo(source.dtype, shape, uniform=source.uniform * size if known else None)  # type: ignore[operator]


@shape_function("Attention")
def _attention(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo | None:
    query, value = analysis[node.inputs[0]], analysis[node.inputs[2]]
    if output != 0 or query.shape is None or value.shape is None:
        return None
    if {len(query.shape), len(value.shape)} not in ({3}, {4}):
        return None
    if len(query.shape) == 4:
        return ValueInfo(query.dtype, (*query.shape[:3], value.shape[3]))
    heads, kv_heads = (attribute(node, name, analysis.opset) for name in ("q_num_heads", "kv_num_heads"))
    size = value.shape[2].divide(Dim(kv_heads))
    return ValueInfo(query.dtype, (*query.shape[:2], analysis.size() if size is None else size * Dim(heads)))
