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


def erfc_term(op, x, inner, one):
    return op.Sub(one, op.Erf(op.Mul(x, inner)))


def tanh_term(op, x, inner, one, cubic):
    cube = op.Mul(op.Mul(x, x), x)
    return op.Add(op.Tanh(op.Mul(op.Add(x, op.Mul(cube, cubic)), inner)), one)


def half_last(op, x, term, half):
    return op.Mul(op.Mul(x, term), half)


def half_first(op, x, term, half):
    return op.Mul(op.Mul(x, half), term)


def half_inside(op, x, term, half):
    return op.Mul(x, op.Mul(term, half))


def by_erf(halved):
    return lambda op, x, inner, one, half: halved(op, x, erf_term(op, x, inner, one), half)


def by_erfc(halved):
    return lambda op, x, inner, one, half: halved(op, x, erfc_term(op, x, inner, one), half)


def by_tanh(halved):
    return lambda op, x, inner, one, cubic, half: halved(op, x, tanh_term(op, x, inner, one, cubic), half)


def guard_erf(match: Match) -> None:
    match.need_scalar("inner", INVERSE_SQRT2)
    _guard_halves(match)


def guard_erfc(match: Match) -> None:
    match.need_scalar("inner", -INVERSE_SQRT2)
    _guard_halves(match)


def guard_tanh(match: Match) -> None:
    match.need_scalar("inner", SQRT_2_OVER_PI)
    match.need_scalar("cubic", CUBIC)
    _guard_halves(match)


def _guard_halves(match: Match) -> None:
    match.need_scalar("one", 1.0)
    match.need_scalar("half", 0.5)


def gelu(op: Op, x, **_):
    return op.Gelu(x)


def gelu_tanh(op: Op, x, **_):
    return op.Gelu(x, approximate="tanh")


HALVED = (half_last, half_first, half_inside)
RULES = (
    *(Rule("gelu", by_erf(halved), guard_erf, gelu) for halved in HALVED),
    *(Rule("gelu", by_erfc(halved), guard_erfc, gelu) for halved in HALVED),  # 1 + erf(z) = 1 - erf(-z)
    *(Rule("gelu-tanh", by_tanh(halved), guard_tanh, gelu_tanh) for halved in HALVED),
)
