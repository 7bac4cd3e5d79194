"""Gelu: the elementwise nodes of either definition become one operator.

Seen in:   torch.onnx.export below opset 20 (erf), transformers' "gelu_new" and "gelu_fast" (tanh).
Computes:  y = x/2 * (1 + erf(x / sqrt(2))), or y = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x**3))), whose argument has
           other forms: x * sqrt(2/pi) * (1 + 0.044715 * x * x) and so on. They become this one first.
Shapes:    x [...], y as x.
Numerics:  rounding only (tolerance row "reassociate").
Refuses:   a constant off by more than one rounding step, or of more dimensions than x; an inner value read elsewhere.
Source:    ONNX operator Gelu, opset 20.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Alone, Fusion, Learned, Match, Op, Pattern, Rule, Term, Var

INVERSE_SQRT2 = 1 / math.sqrt(2)
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715

Power = Callable[[Pattern, Var, Var], Term]
"""A power of x, times a number."""

Product = Callable[[Pattern, Var, Term, Var], Term]
"""The product of x, a term and a number, in some order."""


def erf_term(op: Pattern, x: Var, inner: Var, one: Var) -> Term:
    return op.Add(op.Erf(op.Mul(x, inner)), one)


def erfc_term(op: Pattern, x: Var, inner: Var, one: Var) -> Term:
    return op.Sub(one, op.Erf(op.Mul(x, inner)))


def bend(op: Pattern | Op, x: Var | ir.Value, inner: Var | ir.Value, cubic: Var | ir.Value) -> Term | ir.Value:
    """sqrt(2/pi) * (x + 0.044715 * x**3) in normal form."""
    return op.Mul(op.Add(x, op.Mul(op.Mul(op.Mul(x, x), x), cubic)), inner)


def tanh_term(op: Pattern, x: Var, inner: Var, one: Var, cubic: Var) -> Term:
    return op.Add(op.Tanh(bend(op, x, inner, cubic)), one)


def half_last(op: Pattern, x: Var, term: Term, half: Var) -> Term:
    return op.Mul(op.Mul(x, term), half)


def half_first(op: Pattern, x: Var, term: Term, half: Var) -> Term:
    return op.Mul(op.Mul(x, half), term)


def half_inside(op: Pattern, x: Var, term: Term, half: Var) -> Term:
    return op.Mul(x, op.Mul(term, half))


def by_erf(halved: Product) -> Callable[..., Term]:
    return lambda op, x, inner, one, half: halved(op, x, erf_term(op, x, inner, one), half)


def by_erfc(halved: Product) -> Callable[..., Term]:
    return lambda op, x, inner, one, half: halved(op, x, erfc_term(op, x, inner, one), half)


def by_tanh(halved: Product) -> Callable[..., Term]:
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
    _need_narrow(match, "inner", "one", "half", "cubic")


def _need_narrow(match: Match, *constants: str) -> None:
    """Constants of the shapes [], [1], [1,1], ... give the result more dimensions than x has where they have more themselves."""
    ranks = {name: len(match.need_shape(name)) for name in constants if name in match.bindings}
    widest = max(ranks, key=lambda name: ranks[name])
    fits = ranks[widest] == 0 or ranks[widest] <= len(match.need_shape("x"))
    match.need(fits, f"{widest} has more dimensions than x", match[widest])


def gelu(op: Op, x: ir.Value, **_: Any) -> ir.Value:
    return op.Gelu(x)


def gelu_tanh(op: Op, x: ir.Value, **_: Any) -> ir.Value:
    return op.Gelu(x, approximate="tanh")


# The argument of tanh: 0.044715 * x**3 and 0.044715 * x**2 as they are written besides the normal form, and what they stand in


def cube_scaled_first(op: Pattern, x: Var, cubic: Var) -> Term:
    return op.Mul(op.Mul(op.Mul(x, cubic), x), x)


def cube_scaled_second(op: Pattern, x: Var, cubic: Var) -> Term:
    return op.Mul(op.Mul(op.Mul(x, x), cubic), x)


def cube_of_square(op: Pattern, x: Var, cubic: Var) -> Term:
    return op.Mul(op.Mul(x, cubic), op.Mul(x, x))


def square_scaled_last(op: Pattern, x: Var, cubic: Var) -> Term:
    return op.Mul(op.Mul(x, x), cubic)


def square_scaled_first(op: Pattern, x: Var, cubic: Var) -> Term:
    return op.Mul(op.Mul(x, cubic), x)


def inner_first(op: Pattern, x: Var, factor: Term, inner: Var) -> Term:
    return op.Mul(op.Mul(x, inner), factor)


def inner_last(op: Pattern, x: Var, factor: Term, inner: Var) -> Term:
    return op.Mul(op.Mul(x, factor), inner)


def inner_inside(op: Pattern, x: Var, factor: Term, inner: Var) -> Term:
    return op.Mul(x, op.Mul(factor, inner))


def by_cube(cube: Power) -> Callable[..., Term]:
    return lambda op, x, inner, cubic: op.Tanh(op.Mul(op.Add(x, cube(op, x, cubic)), inner))


def by_power(op: Pattern, x: Var, inner: Var, cubic: Var, three: Var) -> Term:
    """As it stays where the type of x is not known."""
    return op.Tanh(op.Mul(op.Add(x, op.Mul(op.Pow(x, three), cubic)), inner))


def by_square(square: Power, product: Product) -> Callable[..., Term]:
    return lambda op, x, inner, cubic, one: op.Tanh(product(op, x, op.Add(square(op, x, cubic), one), inner))


def guard_bend(match: Match) -> Learned:
    match.need_scalar("inner", SQRT_2_OVER_PI)
    match.need_scalar("cubic", CUBIC)
    for name, wanted in (("one", 1.0), ("three", 3.0)):
        if name in match.bindings:
            match.need_scalar(name, wanted)
    _need_narrow(match, "inner", "cubic", "one", "three")
    return {"dtype": match.info("inner").dtype}


def normal_bend(op: Op, x: ir.Value, dtype: ir.DataType, **_: Any) -> ir.Value:
    inner, cubic = (
        op.constant(np.array(number, dtype=dtype.numpy()), name) for number, name in ((SQRT_2_OVER_PI, "inner"), (CUBIC, "cubic"))
    )
    return op.Tanh(bend(op, x, inner, cubic))


HALVED = (half_last, half_first, half_inside)
CUBES = (cube_scaled_first, cube_scaled_second, cube_of_square)
SQUARES = (square_scaled_last, square_scaled_first)
PRODUCTS = (inner_first, inner_last, inner_inside)
RULES = (
    *(Rule("gelu", by_erf(halved), guard_erf, gelu) for halved in HALVED),
    *(Rule("gelu", by_erfc(halved), guard_erfc, gelu) for halved in HALVED),  # 1 + erf(z) = 1 - erf(-z)
    *(Rule("gelu-tanh", by_cube(cube), guard_bend, normal_bend) for cube in CUBES),
    Rule("gelu-tanh", by_power, guard_bend, normal_bend),
    *(Rule("gelu-tanh", by_square(square, product), guard_bend, normal_bend) for square in SQUARES for product in PRODUCTS),
    *(Rule("gelu-tanh", by_tanh(halved), guard_tanh, gelu_tanh) for halved in HALVED),
)
FUSION = Fusion(
    "gelu",
    RULES,
    operator="Gelu",
    anchors=("Erf", "Tanh"),
    leftovers=("Erf",),  # a pooler has a Tanh of its own
    alone=Alone("gelu"),
)
