"""Attention: the split into heads, scores, optional mask, softmax, context and the way back become one operator.

Seen in:   every encoder's eager and SDPA attention, in normal form.
Computes:  y = merge(softmax(scale * split(q) @ split(k)^T + mask) @ split(v)), for N heads of size H.
Shapes:    q [B,S,N*H] (or [S,B,N*H], which is swapped for it), k and v [B,T,N*H], mask broadcastable to [B,N,S,T], y [B,S,N*H].
Numerics:  rounding only (tolerance row "reassociate").
Refuses:   softmax over another axis, heads of q, k and v that differ, a transpose other than to [B,N,S,H], a mask of
           unknown shape, scores or probabilities read elsewhere, a scale that is not a constant or not above zero.
Source:    ONNX operator Attention, opset 23. ONNX Runtime wants the mask's second-last dimension to be S.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Fusion, Learned, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE, Shape

SCALE_ROUNDING = 1e-6
"""Relative: 1/sqrt(H) as exporters write it (a product of two float32 square roots) counts as the operator's default."""


ADDED = {"Add", "Sum", "Mul", "Div", "Reshape", "Transpose", "Where"}
"""Operators that may stand between a part of the scores and Softmax."""


APART = (
    "GatherElements picks scores of positions out of a product of their own, which are added to Q K^T before Softmax: Attention "
    "adds only what does not hang on Q and K, so that this stays as it is"
)


def swapped_heads(perm: list[int]) -> Rule:
    def before(op: Pattern, x: Var, target: Var) -> Term:
        return op.Transpose(op.Reshape(x, target), perm=perm)

    def after(op: Op, x: ir.Value, sizes: list[int], **_: Any) -> ir.Value:
        split = op.Reshape(op.Transpose(x, perm=[1, 0, 2]), op.constant([0, 0, *sizes], "split"))
        return op.Transpose(split, perm=[{0: 1, 1: 0}.get(i, i) for i in perm])

    return Rule("heads-swapped", before, guard_swapped, after, shared=True, exact=True)


def guard_swapped(match: Match) -> Learned:
    """Heads of a model that stands [S,B,D] throughout; behind attention it is swapped back already."""
    s, b, _ = match.need_shape("x", rank=3)
    split = match.need_shape(_reader_of(match, "x", "target"), rank=4)
    match.need(split[:2] == (s, b), "x is not split into [S,B,N,H]", match.output)
    return {"sizes": [match.need_number(size, "a size of heads") for size in split[2:]]}


def heads(op: Pattern, x: Var, target: Var) -> Term:
    return op.Transpose(op.Reshape(x, target), perm=[0, 2, 1, 3])


def product(op: Pattern, q: Var, k: Var, to_q: Var, to_k: Var) -> Term:
    return op.MatMul(heads(op, q, to_q), op.Transpose(op.Reshape(k, to_k), perm=[0, 2, 3, 1]))


def merged(op: Pattern, scores: Term, v: Var, to_v: Var, to_out: Var, axis: Var) -> Term:
    context = op.MatMul(op.Softmax(scores, axis=axis), heads(op, v, to_v))
    return op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), to_out)


def scaled_masked(
    op: Pattern, q: Var, k: Var, v: Var, scale: Var, mask: Var, to_q: Var, to_k: Var, to_v: Var, to_out: Var, axis: Var
) -> Term:
    scores = op.Add(op.Mul(product(op, q, k, to_q, to_k), scale), mask)
    return merged(op, scores, v, to_v, to_out, axis)


def scaled(op: Pattern, q: Var, k: Var, v: Var, scale: Var, to_q: Var, to_k: Var, to_v: Var, to_out: Var, axis: Var) -> Term:
    return merged(op, op.Mul(product(op, q, k, to_q, to_k), scale), v, to_v, to_out, axis)


def masked(op: Pattern, q: Var, k: Var, v: Var, mask: Var, to_q: Var, to_k: Var, to_v: Var, to_out: Var, axis: Var) -> Term:
    return merged(op, op.Add(product(op, q, k, to_q, to_k), mask), v, to_v, to_out, axis)


def bare(op: Pattern, q: Var, k: Var, v: Var, to_q: Var, to_k: Var, to_v: Var, to_out: Var, axis: Var) -> Term:
    return merged(op, product(op, q, k, to_q, to_k), v, to_v, to_out, axis)


def operator(
    op: Pattern, q: Var, k: Var, v: Var, to_q: Var, to_k: Var, to_v: Var, to_out: Var, scale: Var, mask: Var | None = None
) -> Term:
    context = op.Attention(heads(op, q, to_q), heads(op, k, to_k), heads(op, v, to_v), mask, scale=scale)
    return op.Reshape(op.Transpose(context, perm=[0, 2, 1, 3]), to_out)


def guard_operator(match: Match) -> Learned:
    """The operator on [B,N,S,H], as torch.onnx.export writes SDPA from opset 23 on; its mask may be boolean."""
    learned = guard(match)
    scale = match["scale"]
    return learned | {"factor": None if scale is None else factor_of(scale, learned["h"]), "floor": None}


def factor_of(scale: float, h: int) -> float | None:
    """The operator's attribute; None where it is the default."""
    return None if abs(scale * math.sqrt(h) - 1) < SCALE_ROUNDING else scale


def guard(match: Match) -> Learned:
    axis = match.bindings.get("axis", -1)
    match.need(axis in (-1, 3), f"softmax runs over axis {axis}, wanted the last", match.output)
    (b, s, d), (_, t, _) = match.need_shape("q", rank=3), match.need_shape("k", rank=3)
    split = {name: match.need_shape(_reader(match, name), rank=4) for name in ("q", "k", "v")}
    n, h = match.need_number(split["q"][2], "the number of heads"), match.need_number(split["q"][3], "the head size")
    match.need(split["q"] == (b, s, *split["q"][2:]), "q is not split into [B,S,N,H]", match["q"])
    for name in ("k", "v"):
        match.need(split[name] == (b, t, *split["q"][2:]), f"{name} is not split into [B,T,{n},{h}] as q", match[name])
    widen = widens(match, (b, s, t), n) if match.bindings.get("mask") is not None else None
    for name in ("q", "mask"):  # what a target without the operator takes apart again
        if match.bindings.get(name) is not None:
            match.need_type(name)
    match.need_number(d, "the hidden size")
    match.need(match.need_shape(match.output) == (b, s, d), "the heads are not merged back to [B,S,D]", match.output)
    given = match.bindings.get("scale")
    scale = match.scalar("scale") if isinstance(given, ir.Value) else 1.0
    match.need(scale > 0, f"the scale is {scale}, wanted above zero (ONNX Runtime refuses others)", match.output)
    return {"n": n, "h": h, "widen": widen, "floor": floor_of(match, widen), "factor": factor_of(scale, h)}


def floor_of(match: Match, widen: str | None) -> float | None:
    """What a mask that has a row for each query is held above; None where nothing needs it.

    Softmax takes all keys alike for a query whose keys are all masked by the lowest number (a window in front of padding);
    ONNX Runtime's operator gives zeros there. Of a mask of keys alone whole rows are so, which have no right answer.
    """
    masked = match.bindings.get("mask") is not None and widen is None
    return float(np.finfo(np.float32).min) / 2 if masked and match.info("mask").dtype == ir.DataType.FLOAT else None


def _reader(match: Match, name: str) -> ir.Value:
    """The output of the Reshape that reads a projection."""
    return _reader_of(match, name, f"to_{name}")


def _reader_of(match: Match, name: str, target: str) -> ir.Value:
    return next(node.outputs[0] for node in match.nodes if tuple(node.inputs) == (match[name], match[target]))


def widens(match: Match, sizes: Shape, n: int) -> str | None:
    """What tells S where the mask has one row for all queries and must be widened to [.., S, T]: "keys" where they are as many,
    else "queries". None where it has a row for each; refuses what does not broadcast."""
    b, s, t = sizes
    mask = match.need_shape("mask")
    match.need(len(mask) in (2, 4), f"the mask has rank {len(mask)}, wanted 2 or 4", match["mask"])
    match.need(mask[-1] == t, f"the mask's last dimension is {mask[-1]}, wanted {t}", match["mask"])
    match.need(mask[-2] in (ONE, s), f"the mask's second-last dimension is {mask[-2]}, wanted 1 or {s}", match["mask"])
    if len(mask) == 4:
        match.need(mask[0] in (ONE, b), f"the mask's batch is {mask[0]}, wanted 1 or {b}", match["mask"])
        match.need(mask[1].number in (1, n), f"the mask's heads are {mask[1]}, wanted 1 or {n}", match["mask"])
    if mask[-2] == s:
        return None
    return "keys" if s == t else "queries"


def widened(op: Op, mask: ir.Value | None, widen: str | None, floor: float | None, q: ir.Value, axis: int) -> ir.Value | None:
    """The mask with a row for each query where ``widens`` said so, built from it alone where it can be, so that layers share it.

    ``floor``: what it is held above (``floor_of``). ``axis``: the one of q that S is.
    """
    if floor is not None:
        return op.Max(mask, op.constant(np.array(floor, dtype=np.float32), "floor"))
    if widen is None:
        return mask
    rows = op.Shape(mask, start=-1) if widen == "keys" else op.Shape(q, start=axis, end=axis + 1)
    return op.Expand(mask, op.Concat(op.constant([1, 1], "lead"), rows, op.constant([1], "last"), axis=0))


def attention(
    op: Op,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    n: int,
    factor: float | None,
    mask: ir.Value | None = None,
    widen: str | None = None,
    floor: float | None = None,
    **_: Any,
) -> ir.Value:
    mask = widened(op, mask, widen, floor, q, 1)
    return op.Attention(q, k, v, mask, q_num_heads=n, kv_num_heads=n, scale=factor)


def positions_scored(softmax: ir.Node) -> tuple[str, str] | None:
    """Scores of positions beside those of Q and K: products of their own, of which an index picks one for each pair of tokens."""
    waiting = [*softmax.predecessors()]
    while waiting:
        node = waiting.pop(0)
        if node.op_type == "GatherElements" and "MatMul" in {each.op_type for each in node.predecessors()}:
            return node.outputs[0].name or "", APART
        if node.op_type in ADDED:
            waiting += node.predecessors()
    return None


SWAPPED = (swapped_heads([1, 2, 0, 3]), swapped_heads([1, 2, 3, 0]))
RULES = (
    Rule("attention", scaled_masked, guard, attention),
    Rule("attention", scaled, guard, attention),
    Rule("attention", masked, guard, attention),
    Rule("attention", bare, guard, attention),
    Rule("attention", operator, guard_operator, attention),
)
HEADS_SWAPPED = Fusion("heads-swapped", SWAPPED)
FUSION = Fusion(
    "attention",
    RULES,
    after=("heads-swapped",),  # attention reads [B,S,D]
    operator="Attention",
    anchors=("Softmax",),
    otherwise=positions_scored,
    leftovers=("Softmax", "IsNaN"),  # IsNaN: PyTorch's guard against rows without any key
)
