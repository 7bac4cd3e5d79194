"""Gelu: the elementwise nodes of either definition become one operator.

Seen in:   torch.onnx.export below opset 20 (erf), transformers' "gelu_new" (tanh).
Computes:  y = x/2 * (1 + erf(x / sqrt(2))), or y = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x**3)))
Shapes:    x [...], y as x.
Numerics:  rounding only (tolerance row "reassociate").
Refuses:   a constant off by more than one rounding step; an inner value read elsewhere.
Source:    ONNX operator Gelu, opset 20.
"""

from __future__ import annotations

import math

from onnxfuse.rewrite import Match, Op, Rule

INVERSE_SQRT2 = 1 / math.sqrt(2)
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715


def erf_term(op, x, inner, one):
    return op.Add(op.Erf(op.Mul(x, inner)), one)


def tanh_term(op, x, inner, one, cubic, three):
    bent = op.Add(x, op.Mul(op.Pow(x, three), cubic))
    return op.Add(op.Tanh(op.Mul(bent, inner)), one)


def erf_half_last(op, x, inner, one, half):
    return op.Mul(op.Mul(x, erf_term(op, x, inner, one)), half)


def erf_half_first(op, x, inner, one, half):
    return op.Mul(op.Mul(x, half), erf_term(op, x, inner, one))


def erf_half_inside(op, x, inner, one, half):
    return op.Mul(x, op.Mul(erf_term(op, x, inner, one), half))


def tanh_half_last(op, x, inner, one, cubic, three, half):
    return op.Mul(op.Mul(x, tanh_term(op, x, inner, one, cubic, three)), half)


def tanh_half_first(op, x, inner, one, cubic, three, half):
    return op.Mul(op.Mul(x, half), tanh_term(op, x, inner, one, cubic, three))


def tanh_half_inside(op, x, inner, one, cubic, three, half):
    return op.Mul(x, op.Mul(tanh_term(op, x, inner, one, cubic, three), half))


def guard_erf(match: Match) -> None:
    match.need_scalar("inner", INVERSE_SQRT2)
    match.need_scalar("one", 1.0)
    match.need_scalar("half", 0.5)


def guard_tanh(match: Match) -> None:
    match.need_scalar("inner", SQRT_2_OVER_PI)
    match.need_scalar("cubic", CUBIC)
    match.need_scalar("three", 3.0)
    match.need_scalar("one", 1.0)
    match.need_scalar("half", 0.5)


def gelu(op: Op, x, **_):
    return op.Gelu(x)


def gelu_tanh(op: Op, x, **_):
    return op.Gelu(x, approximate="tanh")


RULES = (
    Rule("gelu", erf_half_last, guard_erf, gelu),
    Rule("gelu", erf_half_first, guard_erf, gelu),
    Rule("gelu", erf_half_inside, guard_erf, gelu),
    Rule("gelu-tanh", tanh_half_last, guard_tanh, gelu_tanh),
    Rule("gelu-tanh", tanh_half_first, guard_tanh, gelu_tanh),
    Rule("gelu-tanh", tanh_half_inside, guard_tanh, gelu_tanh),
)
