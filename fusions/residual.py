"""Residual additions before a norm, as the target runs them fastest.

Seen in:   every encoder layer, twice.
Computes:  z = x + r, y = LayerNormalization(z)
Shapes:    x, r, y [B,S,D].
Numerics:  exact for Sum; rounding only for SkipLayerNormalization.
Refuses:   a residual that broadcasts or is a constant; for SkipLayerNormalization also a sum read elsewhere, other ranks than 2
           and 3, a gain or bias of more than one row, types that it has no kernel for.
Source:    ONNX operator Sum; com.microsoft.SkipLayerNormalization. ONNX Runtime's loader turns Add + LayerNormalization into
           its SkipLayerNormalization, which on CPU is several times slower than the two; it leaves Sum alone.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxfuse.fusions.lowering import KERNELS, need_kernel
from onnxfuse.rewrite import Learned, Lowering, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE, is_constant

SKIP_KERNELS = KERNELS | {ir.DataType.BFLOAT16}
"""The types that ONNX Runtime's SkipLayerNormalization takes; its schema leaves out float64."""


def addition(op: Pattern, x: Var, r: Var) -> Term:
    return op.Add(x, r)


def guard_sum(match: Match) -> None:
    readers = {node.op_type for node, _ in match.output.uses()}
    match.need("LayerNormalization" in readers, "no norm reads it", match.output)
    _need_full(match)


def _need_full(match: Match) -> None:
    for name in ("x", "r"):
        match.need(not is_constant(match[name]), f"{name} is a constant", match[name])
        match.need(match.need_shape(name) == match.need_shape(match.output), f"{name} broadcasts", match[name])


def as_sum(op: Op, x: ir.Value, r: ir.Value) -> ir.Value:
    return op.Sum(x, r)


def norm_of_addition(op: Pattern, x: Var, r: Var, gain: Var, epsilon: Var, axis: Var, bias: Var | None = None) -> Term:
    return op.LayerNormalization(op.Add(x, r), gain, bias, epsilon=epsilon, axis=axis)


def guard_skip(match: Match) -> Learned:
    """The operator takes two or three dimensions, and gain and bias of one, each as wide as x."""
    match.need_single_output()
    need_kernel(match, "x", SKIP_KERNELS)
    shape = match.need_shape(match.output)
    match.need(len(shape) in (2, 3), f"the norm has rank {len(shape)}, wanted 2 or 3", match.output)
    match.need(match["axis"] in (-1, len(shape) - 1), "the norm is not over the last dimension")
    _need_full(match)
    width = match.need_number(shape[-1], "the width")
    vectors = {name: match.need_shape(name) for name in ("gain", "bias") if match[name] is not None}
    for name, given in vectors.items():
        match.need(set(given[:-1]) <= {ONE} and given[-1:] in ((), (ONE,), shape[-1:]), f"{name} is not [{width}]", match[name])
    return {"width": width, "others": {name for name, given in vectors.items() if given != shape[-1:]}}


def skip_norm(op: Op, x: ir.Value, r: ir.Value, epsilon: float, width: int, others: set[str], **vectors: Any) -> ir.Value:
    row = op.constant([width], "row")
    gain, bias = (
        op.Expand(op.Reshape(vectors[name], op.constant([-1], "flat")), row) if name in others else vectors[name]
        for name in ("gain", "bias")
    )
    return op.SkipLayerNormalization(x, r, gain, bias, epsilon=epsilon, _domain="com.microsoft")


SUM = (Rule("residual-sum", addition, guard_sum, as_sum, exact=True),)
SKIP = (Rule("residual-skip-norm", norm_of_addition, guard_skip, skip_norm),)
LOWERINGS = (
    Lowering("residual", "Sum", SUM),
    Lowering("residual", "Add"),
    Lowering("residual", "SkipLayerNormalization", SKIP),
)
