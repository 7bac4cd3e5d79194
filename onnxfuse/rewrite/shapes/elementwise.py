"""Shape functions of operators that compute element by element: numpy's broadcasting, and content where both sides have it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir

from onnxfuse.rewrite.analysis import Analysis, Dim, Index, ValueInfo
from onnxfuse.rewrite.attributes import attribute
from onnxfuse.rewrite.shapes import shape_function
from onnxfuse.rewrite.shapes.axes import broadcast_index


@shape_function("Identity", "Dropout")
def _same(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo | None:
    return analysis[node.inputs[0]] if output == 0 else None


@shape_function("Gelu")
def _gelu(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo | None:
    """Of the normal form, so that models below its opset hold it meanwhile, where ONNX's inference does not know it."""
    info = analysis[node.inputs[0]]
    return ValueInfo(info.dtype, info.shape)


@shape_function("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Mod", "PRelu")
def _arithmetic(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    parts = [analysis[value] for value in node.inputs]
    shape = analysis.broadcast([part.shape for part in parts])
    info = ValueInfo(parts[0].dtype, shape)
    if len(parts) != 2:
        return info
    left, right = parts
    if node.op_type == "Mul" and 0 in (left.uniform, right.uniform) and not any(_unbounded(part) for part in parts):
        info = replace(info, uniform=0.0)
    if left.data and right.data:
        info = replace(info, data=_elementwise(analysis, node.op_type, left.data, right.data))
    if shape is not None:
        info = replace(info, index=_affine(node.op_type, left, right, len(shape)))
    return info


def _unbounded(part: ValueInfo) -> bool:
    """Whether zero times this may be other than zero: of numbers with NaN and infinity among them."""
    whole = part.dtype is not None and part.dtype.is_integer()
    return not whole and (part.uniform is None or not math.isfinite(part.uniform))


def _elementwise(analysis: Analysis, op: str, left: tuple[Dim, ...], right: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    pairs = _pairs(left, right)
    return None if pairs is None else tuple(_scalar(analysis, op, a, b) for a, b in pairs)


def _pairs(left: tuple[Dim, ...], right: tuple[Dim, ...]) -> list[tuple[Dim, Dim]] | None:
    """The elements that meet when one is broadcast to the other; None when they do not fit."""
    count = max(len(left), len(right))
    if {len(left), len(right)} - {1, count}:
        return None
    return list(zip(left * (count // len(left)), right * (count // len(right)), strict=True))


def _scalar(analysis: Analysis, op: str, a: Dim, b: Dim) -> Dim:
    if op == "Mul":
        return a * b
    if op in ("Add", "Sub") and a.symbols == b.symbols:
        coef = a.coef + b.coef if op == "Add" else a.coef - b.coef
        return Dim(coef, a.symbols if coef else ())
    if op in ("Add", "Sub") and b.number == 0:
        return a
    if op == "Add" and a.number == 0:
        return b
    if op == "Div" and (quotient := a.divide(b)) is not None:
        return quotient
    if op == "Div" and a.number is not None and b.number:
        return Dim(int(a.number / b.number))
    if op in ("Max", "Min") and a.number is not None and b.number is not None:
        return Dim(max(a.coef, b.coef) if op == "Max" else min(a.coef, b.coef))
    return a if op in ("Max", "Min") and a == b else analysis.size("~")


def _affine(op: str, left: ValueInfo, right: ValueInfo, rank: int) -> Index | None:
    """index of a sum of two, or of one times a scalar. (Nothing more where one is zero: the only row's number, say.)"""
    if op == "Mul":
        for part, other in ((left, right), (right, left)):
            if part.index is not None and other.data is not None and len(other.data) == 1:
                return tuple((axis, coef * other.data[0]) for axis, coef in part.index)
    parts = [part for part in (left, right) if part.index is not None]
    if op == "Add" and len(parts) + (0 in (left.uniform, right.uniform)) == 2:
        terms = [term for part in parts for term in broadcast_index(part, rank)]
        if len({axis for axis, _ in terms}) == len(terms):
            return tuple(sorted(terms, key=lambda term: term[0]))
    return None


@shape_function("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor")
def _comparison(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    left, right = (analysis[value] for value in node.inputs)
    shape = analysis.broadcast([left.shape, right.shape])
    info = ValueInfo(ir.DataType.BOOL, shape)
    if node.op_type == "Equal" and left.data and right.data and (pairs := _pairs(left.data, right.data)) is not None:
        bits = [_equal(a, b) for a, b in pairs]
        if None not in bits:
            info = replace(info, data=tuple(Dim(int(bool(bit))) for bit in bits))
    nonnegative = left.index is not None and all(coef.nonnegative for _, coef in left.index)
    if node.op_type in ("GreaterOrEqual", "Less") and nonnegative and right.uniform is not None and right.uniform <= 0:
        info = replace(info, uniform=node.op_type == "GreaterOrEqual")
    if node.op_type in _COMPARE and left.uniform is not None and right.uniform is not None:
        info = replace(info, uniform=_COMPARE[node.op_type](left.uniform, right.uniform))
    if node.op_type == "And" and left.uniform is True and right.uniform is True:
        info = replace(info, uniform=True)
    return info


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Equal": operator.eq,
}


def _equal(a: Dim, b: Dim) -> bool | None:
    if a == b:
        return True
    if a.number is not None and b.number is not None:
        return False
    for sign, size in ((a, b), (b, a)):
        if sign.number is not None and sign.number < 0 and size.nonnegative:
            return False
    return None


@shape_function("Not")
def _not(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source = analysis[node.inputs[0]]
    data = None if source.data is None else tuple(Dim(1 - item.coef) for item in source.data)
    return ValueInfo(ir.DataType.BOOL, source.shape, data, None if source.uniform is None else not source.uniform)


@shape_function("Where")
def _where(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    condition, yes, no = (analysis[value] for value in node.inputs)
    info = ValueInfo(yes.dtype, analysis.broadcast([condition.shape, yes.shape, no.shape]))
    contents = [part.data for part in (condition, yes, no) if part.data is not None]
    if len(contents) == 3 and len(set(map(len, contents))) == 1:
        info = replace(info, data=tuple(a if bit.coef else b for bit, a, b in zip(*contents, strict=True)))
    return info


@shape_function("Cast")
def _cast(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    info, dtype = analysis[node.inputs[0]], ir.DataType(attribute(node, "to", analysis.opset))
    integer = dtype in (ir.DataType.INT64, ir.DataType.INT32)
    kinds = {ir.DataType.BOOL: bool, ir.DataType.FLOAT: float}
    uniform = kinds[dtype](info.uniform) if dtype in kinds and info.uniform is not None else None
    return ValueInfo(dtype, info.shape, info.data if integer else None, uniform, info.index if integer else None)
