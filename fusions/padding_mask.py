"""What attention's additive or boolean mask says of padding: which input it is made from, and what shuts a token out.

A mask is understood where it is an elementwise function of one input [B,S] (or of booleans [B,S] computed from the inputs): then
one element decides, and evaluating the function at 0 and at 1 tells which of them shuts out.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from onnxfuse.rewrite import Analysis
from onnxfuse.rewrite.analysis import ONE, Shape, lowest_fill

VIEWS = frozenset({"Reshape", "Unsqueeze", "Squeeze", "Identity"})
"""Operators that keep every element and their order."""

FUNCTIONS: dict[str, Callable[..., float]] = {
    "Not": operator.not_,
    "Neg": operator.neg,
    "Add": operator.add,
    "Sub": operator.sub,
    "Min": min,
    "Max": max,
    "Equal": operator.eq,
    "Less": operator.lt,
    "Greater": operator.gt,
    "LessOrEqual": operator.le,
    "GreaterOrEqual": operator.ge,
    "Mul": operator.mul,
    "And": min,
    "Or": max,
    "Where": lambda condition, yes, no: yes if condition else no,
}
"""What operators make of one element of each operand."""

ABSORBING = {"Mul": 0.0, "And": 0.0, "Or": 1.0}
"""Of these operators the operand that decides alone, as no other is NaN or infinite here."""


@dataclass(frozen=True)
class PaddingMask:
    """What tells padding: ``value`` [B,S] is ``token`` where there is some. ``shut``: what attention's bias then is."""

    value: ir.Value
    token: int
    shut: float

    def at_padding(self, value: ir.Value | None, analysis: Analysis) -> float | None:
        """What an elementwise function of the mask (and of others, where it decides) is at padding; None for anything else."""
        return _scalar(value, self.value, self.token, analysis, alone=False)

    def at(self, value: ir.Value | None, token: int, analysis: Analysis) -> float | None:
        """What an elementwise function of the mask alone is where that is ``token``; None for anything else."""
        return _scalar(value, self.value, token, analysis)


def understood(bias: ir.Value | None, named: ir.Value | None, analysis: Analysis) -> PaddingMask | None:
    """What tells padding, read off a bias [B,1,1,S] of attention; None where nothing does.

    Args:
        named: the input that is asked first; without one, the input that the bias is made from is.
    """
    sizes = sizes_of(bias, analysis)
    if sizes is None or (named is not None and analysis.shape(named) != sizes):
        return None
    sources = filter(None, (named, *_sources(bias, sizes, analysis)))
    return next(filter(None, (shutting(bias, source, analysis) for source in sources)), None)


def sizes_of(bias: ir.Value | None, analysis: Analysis) -> Shape | None:
    """[B,S] of a bias that is one row [B,1,1,S] for all queries; None of another."""
    match analysis.shape(bias):
        case (batch, heads, rows, length) if heads == rows == ONE:
            return (batch, length)
    return None


def shutting(bias: ir.Value | None, source: ir.Value, analysis: Analysis) -> PaddingMask | None:
    """The mask that ``source`` is for a bias which shuts out where it is 0, or where it is 1; None where it never does."""
    for token in (0, 1):
        shut = _scalar(bias, source, token, analysis)
        if shut is not None and shuts(shut, bias, analysis):
            return PaddingMask(source, token, shut)
    return None


def shuts(number: float, bias: ir.Value | None, analysis: Analysis) -> bool:
    """Whether a key with this bias gets no weight beside any other."""
    kind = analysis[bias].dtype
    return not number if kind == ir.DataType.BOOL else number <= lowest_fill(kind)


def bias_of(value: ir.Value | None) -> ir.Value | None:
    """A mask before it was widened to all queries, or cut to one."""
    while (
        value is not None
        and (node := value.producer()) is not None
        and (node.op_type == "Expand" or (node.op_type == "Gather" and node.attributes.get_int("axis", 0) == -2))
    ):
        value = node.inputs[0]
    return value


def _sources(value: ir.Value | None, sizes: Shape, analysis: Analysis) -> list[ir.Value]:
    """What a bias may be made from alone: an input [B,S], or booleans [B,S] that are made from something else (lengths, say)."""
    found: list[ir.Value] = []
    while value is not None:
        node = value.producer()
        if analysis.shape(value) == sizes and (node is None or analysis[value].dtype == ir.DataType.BOOL):
            found.insert(0, value)
        operands = [] if node is None else node.inputs[:1] if node.op_type in VIEWS else node.inputs
        varying = dict.fromkeys(operand for operand in operands if analysis[operand].uniform is None)
        value = next(iter(varying)) if len(varying) == 1 else None
    return found


def _scalar(value: ir.Value | None, mask: ir.Value, token: float, analysis: Analysis, *, alone: bool = True) -> float | None:
    """What ``value`` is at each element whose mask is ``token``; None where that is not one number.

    Args:
        alone: whether it must be a function of the mask alone, also where others could not change the number.
    """
    if value is mask:
        return token
    uniform = analysis[value].uniform
    if uniform is not None:
        return float(uniform)
    node = None if value is None else value.producer()
    if node is None or node.domain:
        return None
    if node.op_type in VIEWS or node.op_type == "Expand":
        aligned = _widens(node, mask, analysis) if node.op_type == "Expand" else not _wide(node.inputs[0], mask, analysis)
        return _scalar(node.inputs[0], mask, token, analysis, alone=alone) if aligned else None
    if _wide(value, mask, analysis) and not all(_in_place(operand, value, analysis) for operand in node.inputs):
        return None
    operands = [_scalar(operand, mask, token, analysis, alone=alone) for operand in node.inputs]
    known = [operand for operand in operands if operand is not None]
    if len(known) != len(operands):
        return None if alone else absorbed(node.op_type, operands)
    if node.op_type == "Cast":
        return cast(known[0], ir.DataType(node.attributes.get_int("to", 1)))
    function = FUNCTIONS.get(node.op_type)
    return None if function is None else float(function(*known))


def absorbed(kind: str, operands: list[float | None]) -> float | None:
    """What an operator makes of operands of which some are not known, where the others decide alone: zero times a position."""
    if kind in ABSORBING and ABSORBING[kind] in operands:
        return ABSORBING[kind]
    if kind == "Where" and operands[0] is None:
        return operands[1] if operands[1] == operands[2] else None
    if kind == "Where":
        return operands[1 if operands[0] else 2]
    return None


def _wide(value: ir.Value | None, mask: ir.Value, analysis: Analysis) -> bool:
    """Whether a value has several elements for each of the mask's: [B,S,D]."""
    shape, sizes = analysis.shape(value), analysis.shape(mask)
    return shape is not None and sizes is not None and len(shape) == 3 and shape[:2] == sizes and shape[2] != ONE


def _widens(node: ir.Node, mask: ir.Value, analysis: Analysis) -> bool:
    """Whether an Expand makes [B,S,D] of [B,S,1]."""
    sizes = analysis.shape(mask)
    return sizes is not None and analysis.shape(node.inputs[0]) == (*sizes, ONE) and _wide(node.outputs[0], mask, analysis)


def _in_place(operand: ir.Value | None, value: ir.Value | None, analysis: Analysis) -> bool:
    """Whether an operand has each element where the result [B,S,D] has it, or the same element everywhere."""
    shape, whole = analysis.shape(operand), analysis.shape(value)
    return analysis[operand].uniform is not None or (whole is not None and shape in (whole, (*whole[:2], ONE)))


def cast(number: float, kind: ir.DataType) -> float | None:
    if kind == ir.DataType.BOOL:
        return float(bool(number))
    if kind.is_integer():
        return float(int(number)) if math.isfinite(number) else None
    return number
