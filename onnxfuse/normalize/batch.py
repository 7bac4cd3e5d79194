"""Normal form of the batch: [S,B,D] becomes [B,S,D], and [B*N,S,H] becomes [B,N,S,H].

Encoders built from torch.nn's modules swap batch and sequence around attention (or stand that way throughout), and multiply
heads as one batch. What works row by row does not mind: the swap and the merge move behind it, until they meet their opposite.
"""

from __future__ import annotations

from onnxfuse.normalize.scale import need_float, scalar_like
from onnxfuse.normalize.shapes import constant_target, joins
from onnxfuse.rewrite import Match, NoMatch, Op, Rule
from onnxfuse.rewrite.analysis import ONE, Shape

SWAP = [1, 0, 2]
"""The permutation between [B,S,D] and [S,B,D]."""


def swap(op: Op, x):
    return op.Transpose(x, perm=SWAP)


def agree(match: Match) -> None:
    """Nothing to ask: the equation always holds."""


# f(swap(x)) = swap(f(x)) for what works on each element, or on each row


def elementwise(name: str) -> Rule:
    def before(op, x):
        return getattr(op, name)(op.Transpose(x, perm=SWAP))

    def after(op, x):
        return swap(op, getattr(op, name)(x))

    return Rule("swap-sinks", before, agree, after, shared=True, exact=True)


def gelu(op, x, approximate):
    return op.Gelu(op.Transpose(x, perm=SWAP), approximate=approximate)


def gelu_swapped(op: Op, x, approximate):
    return swap(op, op.Gelu(x, approximate=approximate))


def norm(op, x, gain, axis, epsilon, bias=None):
    return op.LayerNormalization(op.Transpose(x, perm=SWAP), gain, bias, axis=axis, epsilon=epsilon)


def guard_norm(match: Match) -> None:
    match.need(match["axis"] in (-1, 2), "the norm is over more than the last dimension", match.output)


def norm_swapped(op: Op, x, gain, bias, axis, epsilon):
    return swap(op, op.LayerNormalization(x, gain, bias, axis=axis, epsilon=epsilon))


def both(name: str) -> Rule:
    def before(op, x, y):
        return getattr(op, name)(op.Transpose(x, perm=SWAP), op.Transpose(y, perm=SWAP))

    def after(op, x, y):
        return swap(op, getattr(op, name)(x, y))

    return Rule("swap-sinks", before, agree, after, shared=True, exact=True)


def same(name: str) -> Rule:
    def before(op, x):
        swapped = op.Transpose(x, perm=SWAP)
        return getattr(op, name)(swapped, swapped)

    def after(op, x):
        return swap(op, getattr(op, name)(x, x))

    return Rule("swap-sinks", before, agree, after, shared=True, exact=True)


def guard_row(match: Match) -> None:
    """The other operand is the same for each row, so that it does not matter in which order they come."""
    shape = match.need_shape("c")
    match.need(len(shape) <= len(SWAP) and set(shape[:-1]) <= {ONE}, "the other operand differs from row to row", match["c"])


def with_row(name: str) -> Rule:
    def before(op, x, c):
        return getattr(op, name)(op.Transpose(x, perm=SWAP), c)

    def after(op, x, c):
        return swap(op, getattr(op, name)(x, c))

    return Rule("swap-sinks", before, guard_row, after, shared=True, exact=True)


def row_with(name: str) -> Rule:
    def before(op, x, c):
        return getattr(op, name)(c, op.Transpose(x, perm=SWAP))

    def after(op, x, c):
        return swap(op, getattr(op, name)(c, x))

    return Rule("swap-sinks", before, guard_row, after, shared=True, exact=True)


def product(op, x, weight):
    return op.MatMul(op.Transpose(x, perm=SWAP), weight)


def guard_product(match: Match) -> None:
    match.need_shape("weight", rank=2)


def product_swapped(op: Op, x, weight):
    return swap(op, op.MatMul(x, weight))


def mean(op, x, axes, keepdims):
    return op.ReduceMean(op.Transpose(x, perm=SWAP), axes, keepdims=keepdims)


def guard_mean(match: Match) -> dict:
    axes = match.info("axes").data or ()
    match.need(len(axes) == 1, "the mean is not over one dimension", match["axes"])
    axis = match.need_number(axes[0], "its dimension") % len(SWAP)
    match.need(match["keepdims"] or axis < 2, "the last dimension goes", match.output)
    return {"axis": SWAP[axis]}


def mean_swapped(op: Op, x, axis, keepdims, **_):
    result = op.ReduceMean(x, op.constant([axis], "axis"), keepdims=keepdims)
    return swap(op, result) if keepdims else result


# Split(swap(x))[i] = swap(Split(x)[i]) along the last dimension


def part(at: int):
    def before(op, x, axis, num_outputs, sizes=None):
        return op.Split(op.Transpose(x, perm=SWAP), sizes, axis=axis, num_outputs=num_outputs, _output=at)

    return before


def guard_part(at: int):
    def guard(match: Match) -> dict:
        match.need(match["axis"] in (-1, 2), "another dimension than the last is split", match.output)
        return {"at": at, "count": len(match.root.outputs)}

    return guard


def part_swapped(op: Op, x, num_outputs, sizes, at, count, **_):
    return swap(op, op.many("Split", count, x, sizes, axis=-1, num_outputs=num_outputs)[at])


# Reshape(swap(x), [S, B, N, H]) = Transpose(Reshape(x, [B, S, N, H])), and likewise through it where B and N are then merged


def split_swapped(op, x, shape, zero):
    return op.Reshape(op.Transpose(x, perm=SWAP), shape, allowzero=zero)


def guard_split(match: Match) -> dict:
    b, s, d = match.need_shape("x", rank=3)
    wanted = match.need_shape(match.output)
    match.need(wanted, "a scalar", match.output)
    match.need(wanted != (s, b, d), "nothing is split", match.output)
    heads = d.divide(wanted[-1]) or ONE
    merged = wanted == (s, b * heads, wanted[-1])
    match.need(merged or wanted[:2] == (s, b), "the Reshape does not split the last dimension", match.output)
    sizes = (heads, wanted[-1]) if merged else wanted[2:]
    return {"sizes": [match.need_number(size, "a size") for size in sizes], "merged": merged}


def swapped_split(op: Op, x, sizes, merged, **_):
    split = op.Reshape(x, op.constant([0, 0, *sizes], "split"))
    swapped = op.Transpose(split, perm=[1, 0, *range(2, 2 + len(sizes))])
    return op.Reshape(swapped, op.constant([0, -1, sizes[-1]], "merged")) if merged else swapped


# Transpose(Reshape(x, [S, B*N, H]), 1 0 2) = merge(Transpose(Reshape(x, [S, B, N, H]), 1 2 0 3))


def split_into_batch(op, x, shape, perm, zero):
    return op.Transpose(op.Reshape(x, shape, allowzero=zero), perm=perm)


def guard_into_batch(match: Match) -> dict:
    s, b, d = match.need_shape("x", rank=3)
    split = match.need_shape(next(node.outputs[0] for node in match.nodes if node.op_type == "Reshape"), rank=3)
    match.need(match["perm"] in ([1, 0, 2], [1, 2, 0]), "the merged dimension does not come first", match.output)
    heads = d.divide(split[2]) or ONE
    match.need(heads != ONE and split[:2] == (s, b * heads), "the Reshape does not split the last dimension", match.output)
    return {"sizes": [match.need_number(size, "a size") for size in (heads, split[2])]}


def heads_into_batch(op: Op, x, perm, sizes, **_):
    heads = op.Reshape(x, op.constant([0, 0, *sizes], "split"))
    return merge(op, op.Transpose(heads, perm=[1, 2, 0, 3] if perm == SWAP else [1, 2, 3, 0]))


# Reshape(Transpose(x[B, N, S, H], 2 0 1 3), [S, B, N*H]) = swap(Reshape(Transpose(x, 0 2 1 3), [B, S, N*H]))


def swapped_context(op, x, shape, zero):
    return op.Reshape(op.Transpose(x, perm=[2, 0, 1, 3]), shape, allowzero=zero)


def guard_context(match: Match) -> dict:
    b, n, s, h = match.need_shape("x", rank=4)
    match.need(match.need_shape(match.output) == (s, b, n * h), "the heads are not merged to [S,B,D]", match.output)
    return {"width": match.need_number(n * h, "the width")}


def context_swapped(op: Op, x, width, **_):
    return swap(op, op.Reshape(op.Transpose(x, perm=[0, 2, 1, 3]), op.constant([0, 0, width], "merge")))


# Transpose(merge(x)) = merge(Transpose(x)), where merge makes one dimension of two


def merged_transpose(op, x, shape, perm, zero):
    return op.Transpose(op.Reshape(x, shape, allowzero=zero), perm=perm)


def _merged(match: Match, name: str) -> tuple[int, Shape]:
    """Which dimension of four became one with the next, and the four; refuses another Reshape."""
    source = match.need_shape(name)
    reshape = next(node for node in match.nodes if node.inputs[0] is match[name])
    at = joins(source, match.need_shape(reshape.outputs[0]))
    if at is None:
        raise NoMatch("the Reshape does not merge two of four dimensions", reshape.outputs[0])
    return at, source


def guard_merged_transpose(match: Match) -> dict:
    at, _ = _merged(match, "x")
    perm = match["perm"] or [2, 1, 0]
    match.need(perm.index(at) < 2, "the merged dimension moves last", match.output)
    parts = [[0, 1], [2], [3]] if at == 0 else [[0], [1, 2], [3]]
    return {"wide": [part for i in perm for part in parts[i]], "to": perm.index(at)}


def transpose_merged(op: Op, x, wide, to, **_):
    return merge(op, op.Transpose(x, perm=wide), to)


def merge(op: Op, x, at: int = 0):
    """Four dimensions with number ``at`` and the next as one."""
    return op.Reshape(x, op.Concat(op.Shape(x, end=at), op.constant([-1], "merged"), op.Shape(x, start=at + 2), axis=0))


# merge(x) @ merge(y) = merge(x @ y)


def merged_product(op, x, y, to_x, to_y, zero_x, zero_y):
    return op.MatMul(op.Reshape(x, to_x, allowzero=zero_x), op.Reshape(y, to_y, allowzero=zero_y))


def guard_merged_product(match: Match) -> None:
    (at_x, x), (at_y, y) = _merged(match, "x"), _merged(match, "y")
    match.need(at_x == at_y == 0, "the products' dimensions are merged, not their batch", match.output)
    match.need(x[:2] == y[:2], "the operands have other batches", match.output)


def product_merged(op: Op, x, y, **_):
    return merge(op, op.MatMul(x, y))


# merge(x) + merge(y) = merge(x + y); merge(x) + y = merge(x + y) for a y that is the same for the whole batch; likewise a factor


def merged_sum(op, x, y, to_x, to_y, zero_x, zero_y):
    return op.Add(op.Reshape(x, to_x, allowzero=zero_x), op.Reshape(y, to_y, allowzero=zero_y))


def guard_merged_sum(match: Match) -> dict:
    (at_x, x), (at_y, y) = _merged(match, "x"), _merged(match, "y")
    match.need(at_x == at_y and x[at_x : at_x + 2] == y[at_y : at_y + 2], "the operands are merged otherwise", match.output)
    return {"at": at_x}


def sum_merged(op: Op, x, y, at, **_):
    return merge(op, op.Add(x, y), at)


def merged_mask(op, x, y, shape, zero):
    return op.Add(op.Reshape(x, shape, allowzero=zero), y)


def guard_merged_mask(match: Match) -> dict:
    at, _ = _merged(match, "x")
    y = match.need_shape("y")
    match.need(
        len(y) <= 2 - at or (len(y) == 3 and y[: at + 1] == (ONE,) * (at + 1)),
        "the mask differs in the merged dimension",
        match["y"],
    )
    return {"at": at}


def merged_factor(op, x, c, shape, zero):
    return op.Mul(op.Reshape(x, shape, allowzero=zero), c)


def guard_merged_factor(match: Match) -> dict:
    at, _ = _merged(match, "x")
    return {"at": at, "factor": match.scalar("c"), "dtype": need_float(match, match["c"])}


def factor_merged(op: Op, x, factor, dtype, at, **_):
    return merge(op, op.Mul(x, scalar_like(op, factor, dtype)), at)


# Softmax(Reshape(x)) = Reshape(Softmax(x)) over a last dimension that stays


def reshaped_softmax(op, x, shape, zero, axis):
    return op.Softmax(op.Reshape(x, shape, allowzero=zero), axis=axis)


def flattened_softmax(op, x, at, axis):
    return op.Softmax(op.Flatten(x, axis=at), axis=axis)


def guard_rows(match: Match) -> None:
    source, wanted = match.need_shape("x"), match.need_shape(match.output)
    match.need(match["axis"] in (-1, len(wanted) - 1), "the softmax is not over the last dimension", match.output)
    match.need(source[-1:] == wanted[-1:], "the Reshape does not keep the last dimension", match.output)


def softmax_reshaped(op: Op, x, shape, **_):
    return op.Reshape(op.Softmax(x, axis=-1), shape)


def softmax_flattened(op: Op, x, at, **_):
    return op.Flatten(op.Softmax(x, axis=-1), axis=at)


# Squeeze(Transpose(Reshape(x, [.., 1, ..]))) = Transpose(Reshape(x, [.., ..])), where the 1 that comes goes again


def unsqueezed_transpose(op, x, new, axes, perm):
    return op.Squeeze(op.Transpose(op.Unsqueeze(x, new), perm=perm), axes)


def reshaped_transpose(op, x, shape, axes, perm, zero):
    return op.Squeeze(op.Transpose(op.Reshape(x, shape, allowzero=zero), perm=perm), axes)


def guard_squeezed(match: Match) -> dict:
    source, perm = match.need_shape("x"), match["perm"]
    wide = match.need_shape(next(node.outputs[0] for node in match.nodes if node.op_type in ("Unsqueeze", "Reshape")))
    axes = match.info("axes").data or ()
    match.need(perm and len(axes) == 1, "it squeezes another number of dimensions than one", match["axes"])
    came = perm[match.need_number(axes[0], "the squeezed dimension") % len(perm)]
    kept = [*range(came), *range(came + 1, len(perm))]
    target = constant_target(source, tuple(wide[i] for i in kept))
    match.need(target, "a size to reshape to cannot be inferred", match.output)
    return {"left": [kept.index(i) for i in perm if i != came], "target": target}


def transpose_alone(op: Op, x, left, target, **_):
    return op.Transpose(op.Reshape(x, op.constant(target, "shape")), perm=left)


UNARY = ("Relu", "Erf", "Tanh", "Sigmoid", "Sqrt", "Reciprocal", "Neg", "Exp", "Abs", "Softplus")
BINARY = ("Add", "Sub", "Mul", "Div")
PARTS = 3
"""Query, key and value."""

RULES = (
    *(elementwise(name) for name in UNARY),
    Rule("swap-sinks", gelu, agree, gelu_swapped, shared=True, exact=True),
    Rule("swap-sinks", norm, guard_norm, norm_swapped, shared=True, exact=True),
    Rule("swap-sinks", product, guard_product, product_swapped, shared=True),
    Rule("swap-sinks", mean, guard_mean, mean_swapped, shared=True),
    *(both(name) for name in BINARY),
    *(same(name) for name in ("Add", "Mul")),
    *(with_row(name) for name in (*BINARY, "Pow")),
    *(row_with(name) for name in ("Sub", "Div")),
    *(Rule("swap-sinks", part(at), guard_part(at), part_swapped, shared=True, exact=True) for at in range(PARTS)),
    Rule("swap-sinks", split_swapped, guard_split, swapped_split, shared=True, exact=True),
    Rule("merge-sinks", split_into_batch, guard_into_batch, heads_into_batch, shared=True, exact=True),
    Rule("swap-sinks", swapped_context, guard_context, context_swapped, shared=True, exact=True),
    Rule("merge-sinks", merged_transpose, guard_merged_transpose, transpose_merged, shared=True, exact=True),
    Rule("merge-sinks", merged_product, guard_merged_product, product_merged, shared=True),
    Rule("merge-sinks", merged_sum, guard_merged_sum, sum_merged, shared=True, exact=True),
    Rule("merge-sinks", merged_mask, guard_merged_mask, sum_merged, shared=True, exact=True),
    Rule("merge-sinks", merged_factor, guard_merged_factor, factor_merged, shared=True, exact=True),
    Rule("softmax-rows", reshaped_softmax, guard_rows, softmax_reshaped, shared=True, exact=True),
    Rule("softmax-rows", flattened_softmax, guard_rows, softmax_flattened, shared=True, exact=True),
    Rule("squeeze-transpose", unsqueezed_transpose, guard_squeezed, transpose_alone, shared=True, exact=True),
    Rule("squeeze-transpose", reshaped_transpose, guard_squeezed, transpose_alone, shared=True, exact=True),
)
