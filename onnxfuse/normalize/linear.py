"""Normal form of linear layers: MatMul, then Add of the bias, on [B,S,D] as it comes."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxfuse.normalize.shapes import constant_target, need_target
from onnxfuse.rewrite import Dim, Match, NoMatch, Op, Rule
from onnxfuse.rewrite.analysis import ONE, is_constant

# Gemm(x, w, b) = MatMul(x, w) + b


def gemm(op, x, weight, swapped, bias=None):
    return op.Gemm(x, weight, bias, transB=swapped)


def guard_gemm(match: Match) -> None:
    """alpha, beta and transA at their defaults follow from the pattern."""
    weight = match.need_constant("weight")
    match.need(not match["swapped"] or len(weight.uses()) == 1, "the weight is read elsewhere as it is", weight)


def linear(op: Op, x, weight, swapped, bias):
    weight = op.Transpose(weight, perm=[1, 0]) if swapped else weight
    product = op.MatMul(x, weight)
    return product if bias is None else op.Add(product, bias)


# Reshape(Reshape(x, [-1, D]) @ w + b, [B, S, ...]) = Reshape(Reshape(x, [B, S, D]) @ w + b, [B, S, ...])


def flat_with_bias(op, x, flat, weight, bias, back, zero, inner_zero):
    return op.Reshape(op.Add(op.MatMul(op.Reshape(x, flat, allowzero=inner_zero), weight), bias), back, allowzero=zero)


def flat(op, x, flat, weight, back, zero, inner_zero):
    return op.Reshape(op.MatMul(op.Reshape(x, flat, allowzero=inner_zero), weight), back, allowzero=zero)


def guard_flat(match: Match) -> dict:
    """The leading dimensions that stay are those which both Reshapes leave whole: all but what makes up D, and the result."""
    match.need_constant("weight")
    depth, width = match.need_shape("weight", rank=2)
    source, wanted = match.need_shape("x"), match.need_shape(match.output)
    inner = next(node for node in match.nodes if node.inputs[0] is match["x"])
    match.need_shape(inner.outputs[0], rank=2)
    kept = next((at for at in range(len(source)) if math.prod(source[at:], start=ONE) == depth), None)
    if kept is None or kept < 2:
        raise NoMatch("the first Reshape does not keep the last dimension", match["x"])
    match.need(math.prod((*source, *wanted), start=ONE) != Dim(0), "it is empty", match["x"])
    lead, rest = source[:kept], math.prod(wanted[kept:], start=ONE)
    match.need(wanted[:kept] == lead and rest == width, "the last Reshape does not restore the first ones", match.output)
    if "bias" in match.bindings:
        match.need_constant("bias")
        match.need(match.need_shape("bias") == (width,), f"the bias is not [{width}]", match["bias"])
    for node in match.nodes:
        value = node.outputs[0]
        single = len(value.uses()) == 1 and not value.is_graph_output()
        match.need(single or node is match.root or node is inner, "the flat product is read elsewhere", value)
    behind = None if wanted == (*lead, width) else constant_target((*lead, width), wanted)
    return {"before": constant_target(source, (*lead, depth)), "behind": behind}


def whole(op: Op, x, weight, before, behind, bias=None, **_):
    product = op.MatMul(op.Reshape(x, op.constant(before, "before")), weight)
    result = product if bias is None else op.Add(product, bias)
    return result if behind is None else op.Reshape(result, op.constant(behind, "behind"))


# Reshape(x, [B, S, N, H]) + b[N, H] = Reshape(x + Reshape(b, [N*H]), [B, S, N, H])


def biased_heads(op, x, shape, bias, zero):
    return op.Add(op.Reshape(x, shape, allowzero=zero), bias)


def guard_heads(match: Match) -> dict:
    match.need_constant("bias")
    source, wanted = match.need_shape("x"), match.need_shape(match.output)
    bias = match.need_shape("bias", rank=2)
    match.need(wanted == (*source[:-1], *bias), "the Reshape does not split the last dimension as the bias is", match.output)
    width = match.need_number(source[-1], "the width")
    return {"width": width, "target": need_target(match, match["x"])}


def heads_of_biased(op: Op, x, bias, width, target, **_):
    return op.Reshape(op.Add(x, op.Reshape(bias, op.constant([width], "width"))), op.constant(target, "heads"))


# Gather(Transpose(x, perm), i, axis) = Transpose(Gather(x, i, perm[axis]), what is left of perm)


def picked_transpose(op, x, index, perm, axis):
    return op.Gather(op.Transpose(x, perm=perm), index, axis=axis)


def guard_picked(match: Match) -> dict:
    match.need_constant("index")
    match.need_shape("index", rank=0)
    perm = match["perm"] or list(range(len(match.need_shape("x"))))[::-1]
    source = perm[match["axis"] % len(perm)]
    left = [i for i in perm if i != source]
    return {"source": source, "left": [sorted(left).index(i) for i in left]}


def transpose_picked(op: Op, x, index, source, left, **_):
    return op.Transpose(op.Gather(x, index, axis=source), perm=left)


# Reshape(x, [B, S, 3, N, H])[:, :, i] = Reshape(Split(x)[i], [B, S, N, H]), and without N


def packed(op, x, shape, index, axis, zero):
    return op.Gather(op.Reshape(x, shape, allowzero=zero), index, axis=axis)


def guard_packed(match: Match) -> dict:
    match.need_shape("index", rank=0)
    source = match.need_shape("x", rank=3)
    parts = match.need_shape(next(node.outputs[0] for node in match.nodes if node.op_type == "Reshape"))
    match.need(len(parts) > 3, "the Reshape splits nothing", match["x"])
    match.need(parts[:2] == source[:2], "the Reshape does not keep the first two dimensions", match["x"])
    match.need(match["axis"] % len(parts) == 2, "the parts are not the first of the split dimension", match["x"])
    count = match.need_number(parts[2], "the number of parts")
    width = match.need_number(math.prod(parts[3:], start=ONE), "the width of a part")
    return {"at": int(match.scalar("index")) % count, "widths": [width] * count, "target": need_target(match, match["x"])}


def split(op: Op, x, at, widths, target, **_):
    parts = op.many("Split", len(widths), x, op.constant(widths, "widths"), axis=-1)
    return op.Reshape(parts[at], op.constant(target, "shape"))


# Reshape(x @ w + b, [B, S, N, 3, H]) = Transpose(Reshape(x @ w' + b', [B, S, 3, N, H])), the columns of w' in the other order


def by_heads_with_bias(op, x, weight, bias, shape, zero):
    return op.Reshape(op.Add(op.MatMul(x, weight), bias), shape, allowzero=zero)


def by_heads(op, x, weight, shape, zero):
    return op.Reshape(op.MatMul(x, weight), shape, allowzero=zero)


def guard_by_heads(match: Match) -> dict:
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
    match.need_shape(match.need_constant("weight"), rank=2)
    if "bias" in match.bindings:
        bias = match.need_shape(match.need_constant("bias"))
        match.need(bias == (Dim(math.prod(sizes)),), "the bias is not one row", match["bias"])
    for name in {"weight", "bias"} & set(match.bindings):
        match.need(len(match[name].uses()) == 1, f"the {name} is read elsewhere as it is", match[name])
    return {"sizes": sizes}


def by_parts(op: Op, x, weight, sizes, bias=None, **_):
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


# Transpose(a @ b) = Transpose(b) @ Transpose(a), the last two dimensions swapped, for products of activations


def transposed_product(op, a, b, perm):
    return op.Transpose(op.MatMul(a, b), perm=perm)


def guard_transposed_product(match: Match) -> dict:
    rank = len(match.need_shape("a"))
    swap = [*range(rank - 2), rank - 1, rank - 2]
    match.need(match["perm"] == swap and rank >= 3, "other dimensions than the last two are swapped", match.output)
    match.need_shape("b", rank=rank)
    for name in ("a", "b"):
        match.need(not is_constant(match[name]), f"{name} is a weight", match[name])
    return {"swap": swap}


def product_transposed(op: Op, a, b, swap, **_):
    return op.MatMul(op.Transpose(b, perm=swap), op.Transpose(a, perm=swap))


# Squeeze(Split(x)[i]) = x[i]


def part(at: int):
    def squeezed(op, x, axes, axis, num_outputs, sizes=None):
        return op.Squeeze(op.Split(x, sizes, axis=axis, num_outputs=num_outputs, _output=at), axes)

    return squeezed


def guard_part(at: int):
    def guard(match: Match) -> dict:
        shape, axes = match.need_shape("x"), match.info("axes").data or ()
        _, split = match.nodes
        same = [axis.number for axis in axes] in ([match["axis"]], [match["axis"] % len(shape)])
        match.need(same, "another dimension is squeezed", match["axes"])
        match.need(shape[match["axis"]].number == len(split.outputs), "a part is wider than 1", match["x"])
        return {"at": at}

    return guard


def pick(op: Op, x, axis, at, **_):
    return op.Gather(x, op.constant(np.array(at), "part"), axis=axis)


# Split(Reshape(x, [B, S, N, 3*H]))[i] = Reshape(x, [B, S, N, 3, H])[:, :, :, i], also behind the Transpose to [B, N, S, 3*H]


def part_of_heads(at: int):
    def before(op, x, shape, zero, axis, num_outputs, sizes=None):
        return op.Split(op.Reshape(x, shape, allowzero=zero), sizes, axis=axis, num_outputs=num_outputs, _output=at)

    return before


def part_of_moved_heads(at: int):
    def before(op, x, shape, zero, axis, num_outputs, sizes=None):
        moved = op.Transpose(op.Reshape(x, shape, allowzero=zero), perm=[0, 2, 1, 3])
        return op.Split(moved, sizes, axis=axis, num_outputs=num_outputs, _output=at)

    return before


def guard_part_of_heads(at: int):
    def guard(match: Match) -> dict:
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


def pick_of_heads(op: Op, x, at, target, **_):
    return op.Gather(op.Reshape(x, op.constant(target, "parts")), op.constant(np.array(at), "part"), axis=3)


def moved_pick_of_heads(op: Op, **learned):
    return op.Transpose(pick_of_heads(op, **learned), perm=[0, 2, 1, 3])


# Slice(x, i*w : (i+1)*w) = Split(x)[i] for three parts of the last dimension


def third(op, x, starts, ends, axes, steps=None):
    return op.Slice(x, starts, ends, axes, steps)


def guard_third(match: Match) -> dict:
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


def part_of_split(op: Op, x, at, widths, **_):
    return op.many("Split", len(widths), x, op.constant(widths, "widths"), axis=-1)[at]


PARTS = 3
"""Query, key and value."""

RULES = (
    Rule("gemm-linear", gemm, guard_gemm, linear),
    Rule("flat-linear", flat_with_bias, guard_flat, whole, shared=True),
    Rule("flat-linear", flat, guard_flat, whole, shared=True),
    Rule("bias-of-heads", biased_heads, guard_heads, heads_of_biased, exact=True),
    *(Rule("split-squeeze", part(at), guard_part(at), pick, shared=True, exact=True) for at in range(PARTS)),
    Rule("gather-transpose", picked_transpose, guard_picked, transpose_picked, shared=True, exact=True),
    Rule("product-transposed", transposed_product, guard_transposed_product, product_transposed),
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
