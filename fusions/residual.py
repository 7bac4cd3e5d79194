"""Residual additions before a norm, in the form that the target runs fastest.

Seen in:   every encoder layer, twice.
Computes:  z = x + r, y = LayerNormalization(z)
Shapes:    x, r, y [B,S,D].
Numerics:  exact for Sum; rounding only for SkipLayerNormalization.
Refuses:   a residual that broadcasts or is a constant; for SkipLayerNormalization also a sum read elsewhere.
Source:    ONNX operator Sum; com.microsoft.SkipLayerNormalization. ONNX Runtime's loader turns Add + LayerNormalization into
           its SkipLayerNormalization, which on CPU is several times slower than the two; it leaves Sum alone.
"""

from __future__ import annotations

from onnxfuse.rewrite import Match, Op, Rule
from onnxfuse.rewrite.facts import is_constant


def addition(op, x, r):
    return op.Add(x, r)


def guard_sum(match: Match) -> None:
    readers = {node.op_type for node, _ in match.output.uses()}
    match.need("LayerNormalization" in readers, "no norm reads it", match.output)
    _need_full(match)


def _need_full(match: Match) -> None:
    for name in ("x", "r"):
        match.need(not is_constant(match[name]), f"{name} is a constant", match[name])
        match.need(match.need_shape(name) == match.need_shape(match.output), f"{name} broadcasts", match[name])


def as_sum(op: Op, x, r):
    return op.Sum(x, r)


def norm_of_addition(op, x, r, gain, bias, epsilon, axis):
    return op.LayerNormalization(op.Add(x, r), gain, bias, epsilon=epsilon, axis=axis)


def guard_skip(match: Match) -> None:
    match.need(match["axis"] in (-1, len(match.need_shape(match.output)) - 1), "the norm is not over the last dimension")
    _need_full(match)


def skip_norm(op: Op, x, r, gain, bias, epsilon, axis):
    return op.SkipLayerNormalization(x, r, gain, bias, epsilon=epsilon, _domain="com.microsoft")


SUM = (Rule("residual-sum", addition, guard_sum, as_sum, exact=True),)
SKIP = (Rule("residual-skip-norm", norm_of_addition, guard_skip, skip_norm),)
