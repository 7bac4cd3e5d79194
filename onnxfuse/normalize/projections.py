"""Normal form of query, key and value where one projection makes all three: parts of one Split, or picked by one Gather."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.normalize.shapes import need_target
from onnxfuse.rewrite import Dim, Learned, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE, is_constant

PARTS = 3
"""Query, key and value."""

# Gather(Transpose(x, perm), i, axis) = Transpose(Gather(x, i, perm[axis]), what is left of perm)


def picked_transpose(op: Pattern, x: Var, index: Var, perm: Var, axis: Var) -> Term:
    return op.Gather(op.Transpose(x, perm=perm), index, axis=axis)


def guard_picked(match: Match) -> Learned:
    match.need_constant("index")
    match.need_shape("index", rank=0)
    perm = match["perm"] or list(range(len(match.need_shape("x"))))[::-1]
    source = perm[match["axis"] % len(perm)]
    left = [i for i in perm if i != source]
    return {"source": source, "left": [sorted(left).index(i) for i in left]}


def transpose_picked(op: Op, x: ir.Value, index: ir.Value, source: int, left: list[int], **_: Any) -> ir.Value:
    return op.Transpose(op.Gather(x, index, axis=source), perm=left)


# Reshape(x, [B, S, 3, N, H])[:, :, i] = Reshape(Split(x)[i], [B, S, N, H]), and without N


def packed(op: Pattern, x: Var, shape: Var, index: Var, axis: Var, zero: Var) -> Term:
    return op.Gather(op.Reshape(x, shape, allowzero=zero), index, axis=axis)


def guard_packed(match: Match) -> Learned:
    match.need_shape("index", rank=0)
    source = match.need_shape("x", rank=3)
    parts = match.need_shape(next(node.outputs[0] for node in match.nodes if node.op_type == "Reshape"))
    match.need(len(parts) > 3, "the Reshape splits nothing", match["x"])
    match.need(parts[:2] == source[:2], "the Reshape does not keep the first two dimensions", match["x"])
    match.need(match["axis"] % len(parts) == 2, "the parts are not the first of the split dimension", match["x"])
    count = match.need_number(parts[2], "the number of parts")
    width = match.need_number(math.prod(parts[3:], start=ONE), "the width of a part")
    return {"at": int(match.scalar("index")) % count, "widths": [width] * count, "target": need_target(match, match["x"])}


def split(op: Op, x: ir.Value, at: int, widths: list[int], target: list[int], **_: Any) -> ir.Value:
    parts = op.many("Split", len(widths), x, op.constant(widths, "widths"), axis=-1)
    return op.Reshape(parts[at], op.constant(target, "shape"))


# Reshape(x @ w + b, [B, S, N, 3, H]) = Transpose(Reshape(x @ w' + b', [B, S, 3, N, H])), the columns of w' in the other order


def by_heads_with_bias(op: Pattern, x: Var, weight: Var, bias: Var, shape: Var, zero: Var) -> Term:
    return op.Reshape(op.Add(op.MatMul(x, weight), bias), shape, allowzero=zero)


def by_heads(op: Pattern, x: Var, weight: Var, shape: Var, zero: Var) -> Term:
    return op.Reshape(op.MatMul(x, weight), shape, allowzero=zero)


def guard_by_heads(match: Match) -> Learned:
    """The parts of each head stand together; a reader picks one of them."""
    lead = match.need_shape("x", rank=3)[:2]
    wanted = match.need_shape(match.output, rank=5)
    match.need(
        wanted[:2] == lead and wanted[3] == Dim(PARTS), "the Reshape does not split into the three parts of heads", match.output
    )
    readers = [node for node, _ in match.output.uses()]
    picked = all(node.op_type == "Gather" and node.attributes.get_int("axis", 0) in (3, -2) for node in readers)
    match.need(picked and not match.output.is_graph_output(), "the readers do not pick one of the parts", match.output)
    sizes = [match.need_number(size, "a size") for size in wanted[2:]]
    columns = match.need_shape(match.need_constant("weight"), rank=2)[1]
    match.need(columns == Dim(math.prod(sizes)), "the weight has other columns than the parts of heads", match["weight"])
    if "bias" in match.bindings:
        bias = match.need_shape(match.need_constant("bias"))
        match.need(bias == (Dim(math.prod(sizes)),), "the bias is not one row", match["bias"])
    for name in {"weight", "bias"} & set(match.bindings):
        match.need(len(match[name].uses()) == 1, f"the {name} is read elsewhere as it is", match[name])
    return {"sizes": sizes}


def by_parts(op: Op, x: ir.Value, weight: ir.Value, sizes: list[int], bias: ir.Value | None = None, **_: Any) -> ir.Value:
    heads, parts, size = sizes
    product = op.MatMul(x, op.constant(_by_parts(weight, sizes), "weight"))
    result = product if bias is None else op.Add(product, op.constant(_by_parts(bias, sizes), "bias"))
    split = op.Reshape(result, op.constant([0, 0, parts, heads, size], "parts"))
    return op.Transpose(split, perm=[0, 1, 3, 2, 4])


def _by_parts(value: ir.Value, sizes: list[int]) -> ir.LazyTensor:
    """The columns of a constant, [N, 3, H] of them, in the order [3, N, H]; read from the file when needed."""
    source = value.const_value
    assert source is not None
    lead = [int(size) for size in source.shape.numpy()[:-1]]

    def reordered() -> ir.TensorProtocol:
        array = source.numpy().reshape(*lead, *sizes)
        return ir.tensor(np.ascontiguousarray(np.swapaxes(array, -3, -2)).reshape(source.shape.numpy()))

    return ir.LazyTensor(reordered, source.dtype, ir.Shape(source.shape.numpy()))


# Squeeze(Split(x)[i]) = x[i]


def part(at: int) -> Callable[..., Term]:
    def squeezed(op: Pattern, x: Var, axes: Var, axis: Var, num_outputs: Var, sizes: Var | None = None) -> Term:
        return op.Squeeze(op.Split(x, sizes, axis=axis, num_outputs=num_outputs, _output=at), axes)

    return squeezed


def guard_part(at: int) -> Callable[[Match], Learned]:
    def guard(match: Match) -> Learned:
        shape, axes = match.need_shape("x"), match.info("axes").data or ()
        _, split = match.nodes
        same = [axis.number for axis in axes] in ([match["axis"]], [match["axis"] % len(shape)])
        match.need(same, "another dimension is squeezed", match["axes"])
        match.need(shape[match["axis"]].number == len(split.outputs), "a part is wider than 1", match["x"])
        return {"at": at}

    return guard


def pick(op: Op, x: ir.Value, axis: int, at: int, **_: Any) -> ir.Value:
    return op.Gather(x, op.constant(np.array(at), "part"), axis=axis)


# Split(Reshape(x, [B, S, N, 3*H]))[i] = Reshape(x, [B, S, N, 3, H])[:, :, :, i], also behind the Transpose to [B, N, S, 3*H]


def part_of_heads(at: int) -> Callable[..., Term]:
    def before(op: Pattern, x: Var, shape: Var, zero: Var, axis: Var, num_outputs: Var, sizes: Var | None = None) -> Term:
        return op.Split(op.Reshape(x, shape, allowzero=zero), sizes, axis=axis, num_outputs=num_outputs, _output=at)

    return before


def part_of_moved_heads(at: int) -> Callable[..., Term]:
    def before(op: Pattern, x: Var, shape: Var, zero: Var, axis: Var, num_outputs: Var, sizes: Var | None = None) -> Term:
        moved = op.Transpose(op.Reshape(x, shape, allowzero=zero), perm=[0, 2, 1, 3])
        return op.Split(moved, sizes, axis=axis, num_outputs=num_outputs, _output=at)

    return before


def guard_part_of_heads(at: int) -> Callable[[Match], Learned]:
    def guard(match: Match) -> Learned:
        source = match.need_shape("x", rank=3)
        heads = match.need_shape(next(node.outputs[0] for node in match.nodes if node.op_type == "Reshape"), rank=4)
        match.need(heads[:2] == source[:2], "the Reshape does not keep the first two dimensions", match["x"])
        match.need(match["axis"] in (-1, 3), "another dimension is split", match.output)
        widths = {match.need_shape(value)[-1] for value in match.root.outputs}
        even = len(widths) == 1 and len(match.root.outputs) == PARTS
        match.need(even, "the parts are not three of the same width", match.output)
        sizes = [match.need_number(size, "a size") for size in (heads[2], widths.pop())]
        return {"at": at, "target": [0, 0, sizes[0], PARTS, sizes[1]]}

    return guard


def pick_of_heads(op: Op, x: ir.Value, at: int, target: list[int], **_: Any) -> ir.Value:
    return op.Gather(op.Reshape(x, op.constant(target, "parts")), op.constant(np.array(at), "part"), axis=3)


def moved_pick_of_heads(op: Op, **learned: Any) -> ir.Value:
    return op.Transpose(pick_of_heads(op, **learned), perm=[0, 2, 1, 3])


# Slice(x, i*w : (i+1)*w) = Split(x)[i] for three parts of the last dimension


def third(op: Pattern, x: Var, starts: Var, ends: Var, axes: Var, steps: Var | None = None) -> Term:
    return op.Slice(x, starts, ends, axes, steps)


def guard_third(match: Match) -> Learned:
    """A third of the last dimension: query, key or value. The others are cut off too, or the copies were for nothing."""
    shape = match.need_shape("x")
    match.need(not is_constant(match["x"]) and len(shape) > 1, "shape arithmetic, or a constant expression", match["x"])
    width = match.need_number(shape[-1], "the last dimension")
    start, end, axis = (_need_one(match, name) for name in ("starts", "ends", "axes"))
    match.need(match["steps"] is None or _need_one(match, "steps") == 1, "it steps or reverses", match["steps"])
    match.need(axis in (-1, len(shape) - 1), "another dimension than the last is cut", match["axes"])
    columns = range(width)[start:end]
    match.need(
        len(columns) * PARTS == width and columns.start % len(columns) == 0,
        f"{columns.start} to {columns.stop} is not one of three parts of {width}",
        match.output,
    )
    return {"at": columns.start // len(columns), "widths": [len(columns)] * PARTS}


def _need_one(match: Match, name: str) -> int:
    data = match.info(name).data or ()
    match.need(len(data) == 1, f"{name} is not one known number", match[name])
    return match.need_number(data[0], name)


def part_of_split(op: Op, x: ir.Value, at: int, widths: list[int], **_: Any) -> ir.Value:
    return op.many("Split", len(widths), x, op.constant(widths, "widths"), axis=-1)[at]


RULES = (
    *(Rule("split-squeeze", part(at), guard_part(at), pick, shared=True, exact=True) for at in range(PARTS)),
    Rule("gather-transpose", picked_transpose, guard_picked, transpose_picked, shared=True, exact=True),
    Rule("packed-projections", packed, guard_packed, split, shared=True, exact=True),
    Rule("slice-split", third, guard_third, part_of_split, shared=True, exact=True),
    *(
        Rule("split-heads", part_of_heads(at), guard_part_of_heads(at), pick_of_heads, shared=True, exact=True)
        for at in range(PARTS)
    ),
    *(
        Rule("split-heads", part_of_moved_heads(at), guard_part_of_heads(at), moved_pick_of_heads, shared=True, exact=True)
        for at in range(PARTS)
    ),
    Rule("heads-by-parts", by_heads_with_bias, guard_by_heads, by_parts),
    Rule("heads-by-parts", by_heads, guard_by_heads, by_parts),
)
