"""Normal form of shapes: constant Reshape targets, merged Reshapes and Transposes, nothing that does nothing."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxfuse.rewrite import Dim, Learned, Match, NoMatch, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE, Shape


def constant_target(source: Shape, wanted: Shape) -> list[int] | None:
    """A Reshape target with 0 (as in the source) and at most one -1 that turns ``source`` into ``wanted``; None if none."""
    target = []
    for i, dim in enumerate(wanted):
        if dim.number is not None:
            target.append(dim.number)
        else:
            target.append(0 if i < len(source) and source[i] == dim else -1)
    return target if target.count(-1) <= 1 and all(dim.number != 0 for dim in wanted) else None


def need_target(match: Match, source: ir.Value) -> list[int]:
    """The constant target from ``source`` to the match's output, or a refusal."""
    wanted = match.need_shape(match.output)
    target = constant_target(match.need_shape(source), wanted)
    if target is None:
        raise NoMatch(f"the target ({', '.join(map(str, wanted))}) has more than one size to infer, or one of 0", match.output)
    return target


def joins(source: Shape, wanted: Shape) -> int | None:
    """Which of the first two of four dimensions becomes one with the next in ``wanted``; None for another Reshape."""
    if len(source) != 4:
        return None
    return next((at for at in (0, 1) if wanted == (*source[:at], source[at] * source[at + 1], *source[at + 2 :])), None)


# Reshape(x, computed) = Reshape(x, constant)


def computed_reshape(op: Pattern, x: Var, shape: Var, allowzero: Var) -> Term:
    return op.Reshape(x, shape, allowzero=allowzero)


def guard_computed(match: Match) -> Learned:
    target = need_target(match, match["x"])
    seen = match.info("shape").data
    match.need(seen != tuple(map(Dim, target)) or match["allowzero"], "the target is already constant")
    return {"target": target}


def reshape(op: Op, x: ir.Value, target: list[int], **_: Any) -> ir.Value:
    return op.Reshape(x, op.constant(target, "shape"))


# Reshape(Reshape(x, a), b) = Reshape(x, b)


def nested_reshape(op: Pattern, x: Var, a: Var, b: Var, inner_zero: Var, zero: Var) -> Term:
    return op.Reshape(op.Reshape(x, a, allowzero=inner_zero), b, allowzero=zero)


def flat_reshape(op: Pattern, x: Var, b: Var, axis: Var, zero: Var) -> Term:
    return op.Reshape(op.Flatten(x, axis=axis), b, allowzero=zero)


def guard_nested(match: Match) -> Learned:
    return {"target": need_target(match, match["x"])}


# Transpose(Transpose(x, a), b) = Transpose(x, a[b])


def nested_transpose(op: Pattern, x: Var, inner: Var, outer: Var) -> Term:
    return op.Transpose(op.Transpose(x, perm=inner), perm=outer)


def guard_nested_transpose(match: Match) -> Learned:
    inner, outer = match["inner"], match["outer"]
    match.need(inner is not None and outer is not None, "a Transpose without perm")
    return {"perm": [inner[i] for i in outer]}


def transpose(op: Op, x: ir.Value, perm: list[int], **_: Any) -> ir.Value:
    return op.Transpose(x, perm=perm)


# Reshape(Transpose(Reshape(x[..., M, K], [-1, M, K]), 0 2 1), [..., K, M]) = Transpose(x, last two swapped)


def batched_transpose(op: Pattern, x: Var, flat: Var, back: Var, zero: Var, inner_zero: Var) -> Term:
    return op.Reshape(op.Transpose(op.Reshape(x, flat, allowzero=inner_zero), perm=[0, 2, 1]), back, allowzero=zero)


def guard_batched(match: Match) -> Learned:
    source, wanted = match.need_shape("x"), match.need_shape(match.output)
    flat = match.need_shape(next(node.outputs[0] for node in match.nodes if node.inputs[0] is match["x"]), rank=3)
    match.need(flat[1:] == source[-2:], "the first Reshape does not keep the last two dimensions")
    match.need(wanted == (*source[:-2], source[-1], source[-2]), "the last Reshape does not restore the batch")
    rank = len(source)
    return {"perm": [*range(rank - 2), rank - 1, rank - 2]}


# Reshape(Transpose(x[B,C,...], channels last), [B, -1, C]) = Transpose(Reshape(x, [B, C, -1]), 0 2 1)


def channels_last(op: Pattern, x: Var, perm: Var, shape: Var, zero: Var) -> Term:
    return op.Reshape(op.Transpose(x, perm=perm), shape, allowzero=zero)


def guard_channels(match: Match) -> Learned:
    source, wanted = match.need_shape("x"), match.need_shape(match.output, rank=3)
    rank = len(source)
    match.need(match["perm"] == [0, *range(2, rank), 1], "the channels do not move last", match.output)
    match.need((wanted[0], wanted[2]) == source[:2], "the Reshape does not keep batch and channels", match.output)
    return {"target": constant_target(source, (source[0], source[1], wanted[1]))}


def channels_first(op: Op, x: ir.Value, target: list[int], **_: Any) -> ir.Value:
    return op.Transpose(op.Reshape(x, op.constant(target, "shape")), perm=[0, 2, 1])


# Unsqueeze(Unsqueeze(x)) and Unsqueeze of known rank = Reshape when its target is constant


def unsqueeze(op: Pattern, x: Var, axes: Var) -> Term:
    return op.Unsqueeze(x, axes)


def guard_unsqueeze(match: Match) -> Learned:
    match.need(match.info("x").rank, "a scalar: shape arithmetic")
    return {"target": need_target(match, match["x"])}


# Squeeze(Transpose(Reshape(x, [.., 1, ..]))) = Transpose(Reshape(x, [.., ..])), where the 1 that comes goes again


def unsqueezed_transpose(op: Pattern, x: Var, new: Var, axes: Var, perm: Var) -> Term:
    return op.Squeeze(op.Transpose(op.Unsqueeze(x, new), perm=perm), axes)


def reshaped_transpose(op: Pattern, x: Var, shape: Var, axes: Var, perm: Var, zero: Var) -> Term:
    return op.Squeeze(op.Transpose(op.Reshape(x, shape, allowzero=zero), perm=perm), axes)


def guard_squeezed(match: Match) -> Learned:
    source, perm = match.need_shape("x"), match["perm"]
    wide = match.need_shape(next(node.outputs[0] for node in match.nodes if node.op_type in ("Unsqueeze", "Reshape")))
    axes = match.info("axes").data or ()
    match.need(perm and len(axes) == 1, "it squeezes another number of dimensions than one", match["axes"])
    came = perm[match.need_number(axes[0], "the squeezed dimension") % len(perm)]
    kept = [*range(came), *range(came + 1, len(perm))]
    target = constant_target(source, tuple(wide[i] for i in kept))
    match.need(target, "a size to reshape to cannot be inferred", match.output)
    return {"left": [kept.index(i) for i in perm if i != came], "target": target}


def transpose_alone(op: Op, x: ir.Value, left: list[int], target: list[int], **_: Any) -> ir.Value:
    return op.Transpose(op.Reshape(x, op.constant(target, "shape")), perm=left)


# What does nothing


def same_shape(match: Match, name: str = "x") -> None:
    match.need(match.need_shape(name) == match.need_shape(match.output), "it changes the shape", match.output)


def itself(op: Op, x: ir.Value, **_: Any) -> ir.Value:
    return x


def any_reshape(op: Pattern, x: Var, shape: Var, zero: Var) -> Term:
    return op.Reshape(x, shape, allowzero=zero)


def any_expand(op: Pattern, x: Var, shape: Var) -> Term:
    return op.Expand(x, shape)


def any_transpose(op: Pattern, x: Var, perm: Var) -> Term:
    return op.Transpose(x, perm=perm)


def guard_identity_perm(match: Match) -> None:
    match.need(match["perm"] == list(range(len(match.need_shape("x")))), "it permutes", match.output)


def any_cast(op: Pattern, x: Var, to: Var, saturate: Var, round_mode: Var) -> Term:
    return op.Cast(x, to=to, saturate=saturate, round_mode=round_mode)


def guard_same_type(match: Match) -> None:
    match.need(match.info("x").dtype == match["to"], "it changes the type", match.output)


def any_slice(op: Pattern, x: Var, starts: Var, ends: Var, axes: Var | None = None, steps: Var | None = None) -> Term:
    return op.Slice(x, starts, ends, axes, steps)


def guard_whole_slice(match: Match) -> None:
    steps = match.info("steps").data if match["steps"] is not None else (ONE,)
    match.need(steps is not None and set(steps) == {ONE}, "it steps or reverses")
    same_shape(match)


def add_zero(op: Pattern, x: Var, zero: Var) -> Term:
    return op.Add(x, zero)


def guard_zero(match: Match) -> None:
    match.need(match.info("zero").uniform == 0, "it is not known to be zero", match["zero"])
    same_shape(match)


def times_one(op: Pattern, x: Var, one: Var) -> Term:
    return op.Mul(x, one)


def guard_one(match: Match) -> None:
    match.need_scalar("one", 1.0)
    same_shape(match)


RULES = (
    Rule("reshape-noop", any_reshape, same_shape, itself, exact=True),
    Rule("expand-noop", any_expand, same_shape, itself, exact=True),
    Rule("transpose-noop", any_transpose, guard_identity_perm, itself, exact=True),
    Rule("cast-noop", any_cast, guard_same_type, itself, exact=True),
    Rule("slice-noop", any_slice, guard_whole_slice, itself, exact=True),
    Rule("add-zero", add_zero, guard_zero, itself, exact=True),
    Rule("mul-one", times_one, guard_one, itself, exact=True),
    Rule("transpose-batched", batched_transpose, guard_batched, transpose, shared=True, exact=True),
    Rule("reshape-nested", nested_reshape, guard_nested, reshape, shared=True, exact=True),
    Rule("reshape-flatten", flat_reshape, guard_nested, reshape, shared=True, exact=True),
    Rule("channels-last", channels_last, guard_channels, channels_first, exact=True),
    Rule("unsqueeze-reshape", unsqueeze, guard_unsqueeze, reshape, exact=True),
    Rule("transpose-nested", nested_transpose, guard_nested_transpose, transpose, shared=True, exact=True),
    Rule("reshape-constant", computed_reshape, guard_computed, reshape, exact=True),
    Rule("squeeze-transpose", unsqueezed_transpose, guard_squeezed, transpose_alone, shared=True, exact=True),
    Rule("squeeze-transpose", reshaped_transpose, guard_squeezed, transpose_alone, shared=True, exact=True),
)
