"""The operators' laws: what is known of an operator's output, given the facts of its inputs.

Only where symbolic arithmetic, content or a shape of several sizes multiplied is followed; ONNX's shape inference tells the rest.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite.analysis import LAWS, ONE, SMALL, Analysis, Dim, Law, Shape, ValueInfo, attribute, plain


def law(*names: str) -> Callable[[Law], Law]:
    """Register the law of these operators of the default domain."""

    def register(rule: Law) -> Law:
        LAWS.update({("", name): rule for name in names})
        return rule

    return register


@law("Identity", "Dropout")
def _same(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo | None:
    return analysis[node.inputs[0]] if output == 0 else None


@law("Gelu")
def _gelu(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo | None:
    """Of the normal form, so that models below its opset hold it meanwhile, where ONNX's inference does not know it."""
    info = analysis[node.inputs[0]]
    return ValueInfo(info.dtype, info.shape)


@law("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Mod", "PRelu")
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


def _affine(op: str, left: ValueInfo, right: ValueInfo, rank: int) -> tuple[tuple[int, Dim], ...] | None:
    """index of a sum of two, or of one times a scalar. (Nothing more where one is zero: the only row's number, say.)"""
    if op == "Mul":
        for part, other in ((left, right), (right, left)):
            if part.index is not None and other.data is not None and len(other.data) == 1:
                return tuple((axis, coef * other.data[0]) for axis, coef in part.index)
    parts = [part for part in (left, right) if part.index is not None]
    if op == "Add" and len(parts) + (0 in (left.uniform, right.uniform)) == 2:
        terms = [term for part in parts for term in _broadcast_index(part, rank)]
        if len({axis for axis, _ in terms}) == len(terms):
            return tuple(sorted(terms, key=lambda term: term[0]))
    return None


def _broadcast_index(part: ValueInfo, rank: int) -> tuple[tuple[int, Dim], ...]:
    """index of what is broadcast to this rank: new axes come first."""
    assert part.index is not None and part.shape is not None
    return tuple((axis + rank - len(part.shape), coef) for axis, coef in part.index)


@law("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor")
def _comparison(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    left, right = (analysis[value] for value in node.inputs)
    shape = analysis.broadcast([left.shape, right.shape])
    info = ValueInfo(ir.DataType.BOOL, shape)
    if node.op_type == "Equal" and left.data and right.data and (pairs := _pairs(left.data, right.data)) is not None:
        answers = [_equal(a, b) for a, b in pairs]
        if None not in answers:
            info = replace(info, data=tuple(Dim(int(bool(answer))) for answer in answers))
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


@law("Not")
def _not(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source = analysis[node.inputs[0]]
    data = None if source.data is None else tuple(Dim(1 - item.coef) for item in source.data)
    return ValueInfo(ir.DataType.BOOL, source.shape, data, None if source.uniform is None else not source.uniform)


@law("Where")
def _where(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    condition, yes, no = (analysis[value] for value in node.inputs)
    info = ValueInfo(yes.dtype, analysis.broadcast([condition.shape, yes.shape, no.shape]))
    contents = [part.data for part in (condition, yes, no) if part.data is not None]
    if len(contents) == 3 and len(set(map(len, contents))) == 1:
        info = replace(info, data=tuple(a if bit.coef else b for bit, a, b in zip(*contents, strict=True)))
    return info


@law("Cast")
def _cast(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    info, dtype = analysis[node.inputs[0]], ir.DataType(attribute(node, "to", analysis.opset))
    integer = dtype in (ir.DataType.INT64, ir.DataType.INT32)
    kinds = {ir.DataType.BOOL: bool, ir.DataType.FLOAT: float}
    uniform = kinds[dtype](info.uniform) if dtype in kinds and info.uniform is not None else None
    return ValueInfo(dtype, info.shape, info.data if integer else None, uniform, info.index if integer else None)


@law("Shape")
def _shape(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    shape = analysis[node.inputs[0]].shape
    if shape is None:
        return ValueInfo(ir.DataType.INT64, (analysis.size(),))
    part = shape[slice(attribute(node, "start", analysis.opset), attribute(node, "end", analysis.opset))]
    return ValueInfo(ir.DataType.INT64, (Dim(len(part)),), part)


@law("Size")
def _size(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    shape = analysis[node.inputs[0]].shape
    return ValueInfo(ir.DataType.INT64, (), None if shape is None else (_count(shape),))


@law("Gather")
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


@law("Slice")
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


@law("Concat")
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


@law("Unsqueeze", "Squeeze")
def _squeeze(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source = analysis[node.inputs[0]]
    axes = axes_of(analysis, node)
    if source.shape is None:
        return ValueInfo(source.dtype)
    if node.op_type == "Unsqueeze":
        if axes is None:
            return ValueInfo(source.dtype)
        rank = len(source.shape) + len(axes)
        new = {axis % rank for axis in axes}
        old = [i for i in range(rank) if i not in new]
        left = iter(source.shape)
        shape = tuple(ONE if i in new else next(left) for i in range(rank))
        moved = dict(enumerate(old))
    else:
        rank = len(source.shape)
        if axes is None and not node.inputs[1:] and all(dim.number is not None for dim in source.shape):
            axes = [i for i, dim in enumerate(source.shape) if dim == ONE]
        if axes is None:
            return ValueInfo(source.dtype)
        gone = {axis % rank for axis in axes}
        kept = [i for i in range(rank) if i not in gone]
        shape = tuple(source.shape[i] for i in kept)
        moved = {i: at for at, i in enumerate(kept)}
    return replace(
        source, shape=shape, index=_moved(source, moved), coordinates=None, data=source.data if len(shape) <= 1 else None
    )


def axes_of(analysis: Analysis, node: ir.Node) -> list[int] | None:
    """The axes of Unsqueeze, Squeeze and the reductions, or None: an input since opset 13 or 18, an attribute before."""
    if len(node.inputs) > 1:
        data = analysis[node.inputs[1]].data
        return [item.coef for item in data] if data is not None and all(i.number is not None for i in data) else None
    return attribute(node, "axes", analysis.opset)


def _moved(source: ValueInfo, moved: dict[int, int]) -> tuple[tuple[int, Dim], ...] | None:
    if source.index is None:
        return None
    return tuple((moved[axis], coef) for axis, coef in source.index if axis in moved)


@law("Reshape")
def _reshape(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source, target = analysis[node.inputs[0]], analysis[node.inputs[1]]
    if target.data is None:
        return ValueInfo(source.dtype)
    dims = list(target.data)
    for i, dim in enumerate(dims):
        if dim.number == 0 and not attribute(node, "allowzero", analysis.opset):
            if source.shape is None or i >= len(source.shape):
                return ValueInfo(source.dtype)
            dims[i] = source.shape[i]
    if Dim(-1) in dims:
        at = dims.index(Dim(-1))
        rest = _count((*dims[:at], *dims[at + 1 :]))
        whole = None if source.shape is None else _count(source.shape).divide(rest)
        dims[at] = whole if whole is not None else analysis.size()
    shape = tuple(dims)
    data = source.data if len(shape) <= 1 else None
    kept = None if source.shape is None else _kept_axes(source.shape, shape)
    return ValueInfo(source.dtype, shape, data, source.uniform, None if kept is None else _moved(source, kept))


def _kept_axes(before: Shape, after: Shape) -> dict[int, int] | None:
    """The place behind a Reshape of each axis that is not of size 1; None where it does more than add and remove such."""
    old, new = ([at for at, dim in enumerate(shape) if dim != ONE] for shape in (before, after))
    same = [before[at] for at in old] == [after[at] for at in new]
    return dict(zip(old, new, strict=True)) if same else None


@law("Flatten")
def _flatten(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source = analysis[node.inputs[0]]
    if source.shape is None:
        return ValueInfo(source.dtype, (analysis.size(), analysis.size()))
    axis = attribute(node, "axis", analysis.opset)
    return ValueInfo(source.dtype, (_count(source.shape[:axis]), _count(source.shape[axis:])))


def _count(shape: Shape) -> Dim:
    return math.prod(shape, start=ONE)


@law("Tile")
def _tile(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source, repeats = analysis[node.inputs[0]], analysis[node.inputs[1]].data
    if source.shape is None or repeats is None:
        return ValueInfo(source.dtype)
    shape = tuple(dim * times for dim, times in zip(source.shape, repeats, strict=True))
    return ValueInfo(source.dtype, shape, uniform=source.uniform)


@law("Expand")
def _expand(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source, target = analysis[node.inputs[0]], analysis[node.inputs[1]]
    if source.shape is None or target.data is None:
        return ValueInfo(source.dtype, uniform=source.uniform)
    shape = analysis.broadcast([source.shape, target.data])
    assert shape is not None
    index = None if source.index is None else _broadcast_index(source, len(shape))
    return ValueInfo(source.dtype, shape, None, source.uniform, index)


@law("Range")
def _range(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    start, limit, step = (analysis[value] for value in node.inputs)
    counts = start.data == (Dim(0),) and step.data == (ONE,) and limit.data is not None
    if not counts:
        return ValueInfo(start.dtype, (analysis.size(),))
    return ValueInfo(start.dtype, (limit.data[0],), index=((0, ONE),))  # type: ignore[index]


@law("ConstantOfShape")
def _constant_of_shape(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    target = analysis[node.inputs[0]]
    tensor = attribute(node, "value", analysis.opset)
    item = np.float32(0) if tensor is None else tensor.numpy().reshape(-1)[0]
    shape = target.data
    info = ValueInfo(ir.DataType.FLOAT if tensor is None else tensor.dtype, shape, uniform=item.item())
    count = None if shape is None or len(shape) > 1 else _count(shape).number
    if count is not None and count <= SMALL and item.dtype.kind in "iu":
        info = replace(info, data=(Dim(int(item)),) * count)
    return info


@law("Transpose")
def _transpose(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source = analysis[node.inputs[0]]
    if source.shape is None:
        return ValueInfo(source.dtype)
    perm = attribute(node, "perm", analysis.opset) or list(range(len(source.shape)))[::-1]
    index = _moved(source, {old: new for new, old in enumerate(perm)})
    return ValueInfo(source.dtype, tuple(source.shape[i] for i in perm), None, source.uniform, index)


@law("MatMul")
def _matmul(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    left, right = analysis[node.inputs[0]], analysis[node.inputs[1]]
    if left.shape is None or right.shape is None or 1 in (len(left.shape), len(right.shape)):
        return ValueInfo(left.dtype)
    lead = analysis.broadcast([left.shape[:-2], right.shape[:-2]])
    assert lead is not None
    return ValueInfo(left.dtype, (*lead, left.shape[-2], right.shape[-1]))


@law("Einsum")
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


@law("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd")
def _reduce(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    source, axes = analysis[node.inputs[0]], axes_of(analysis, node)
    if source.shape is None or axes is None:
        return ValueInfo(source.dtype)
    every = not axes and not attribute(node, "noop_with_empty_axes", analysis.opset)
    gone = set(range(len(source.shape))) if every else {axis % len(source.shape) for axis in axes}
    keep = attribute(node, "keepdims", analysis.opset)
    shape = tuple(ONE if i in gone else dim for i, dim in enumerate(source.shape) if keep or i not in gone)
    count = _count(tuple(source.shape[i] for i in gone)).number
    known = node.op_type == "ReduceSum" and count is not None and source.uniform is not None
    return ValueInfo(source.dtype, shape, uniform=source.uniform * count if known else None)  # type: ignore[operator]


@law("Split")
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


@law("Attention")
def _attention(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo | None:
    query, value = analysis[node.inputs[0]], analysis[node.inputs[2]]
    if output != 0 or query.shape is None or value.shape is None:
        return None
    if len(query.shape) == 4:
        return ValueInfo(query.dtype, (*query.shape[:3], value.shape[3]))
    heads, kv_heads = (attribute(node, name, analysis.opset) for name in ("q_num_heads", "kv_num_heads"))
    size = value.shape[2].divide(Dim(kv_heads))
    return ValueInfo(query.dtype, (*query.shape[:2], analysis.size() if size is None else size * Dim(heads)))
