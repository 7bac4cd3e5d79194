"""Normal form of Einsum: a product of two operands is Transpose, Reshape and MatMul.

Letters fall into four groups: in both operands and the output (batch), in both but not the output (summed), in one operand
and the output (rows, columns). Source: ONNX operator Einsum, opset 12.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxfuse.normalize.shapes import constant_target
from onnxfuse.rewrite import Dim, Learned, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE


def einsum(op: Pattern, a: Var, b: Var, equation: Var) -> Term:
    return op.Einsum(a, b, equation=equation)


def guard(match: Match) -> Learned:
    equation = match["equation"].replace(" ", "")
    match.need("->" in equation and "." not in equation, f"the equation {equation!r} has no plain output", match.output)
    operands, output = equation.split("->")
    left, right = operands.split(",")
    for letters in (left, right, output):
        match.need(len(set(letters)) == len(letters), f"a letter of {letters!r} is repeated", match.output)
    both = set(left) & set(right)
    match.need(set(left + right) - both <= set(output), "a letter of one operand is summed by itself", match.output)
    flip = next((letter in right for letter in output if letter not in both), False)  # rows come first: fewer Transposes
    if flip:
        left, right = right, left
    x, y = ("b", "a") if flip else ("a", "b")
    sizes = dict(zip(left, match.need_shape(x, rank=len(left)), strict=True))
    for letter, size in zip(right, match.need_shape(y, rank=len(right)), strict=True):
        match.need(sizes.setdefault(letter, size) == size, f"the operands differ in {letter!r}: {sizes[letter]} and {size}")
    batch = [letter for letter in output if letter in both]
    rows = [letter for letter in output if letter in left and letter not in both]
    columns = [letter for letter in output if letter in right and letter not in both]
    summed = [letter for letter in left if letter not in output]
    lead, flat = (batch, [rows]) if batch else (rows, [])  # without a batch, rows stay separate: MatMul takes them as its batch
    x_order, y_order, made = [*batch, *rows, *summed], [*batch, *summed, *columns], [*batch, *rows, *columns]
    targets = {
        "x": constant_target(_shape(sizes, x_order), _shape(sizes, lead, *flat, summed)),
        "y": constant_target(_shape(sizes, y_order), _shape(sizes, batch, summed, columns)),
        "back": constant_target(_shape(sizes, lead, *flat, columns), _shape(sizes, made)),
    }
    match.need(None not in targets.values(), "a size to reshape to cannot be inferred", match.output)
    perms = {"x": _perm(left, x_order), "y": _perm(right, y_order), "back": _perm(made, output)}
    return {"flip": flip, "perms": perms, "targets": targets, "whole": _shape(sizes, lead, *flat, columns) == _shape(sizes, made)}


def _perm(letters: Sequence[str], order: Sequence[str]) -> list[int]:
    return [letters.index(letter) for letter in order]


def _shape(sizes: dict[str, Dim], lead: Sequence[str], *groups: Sequence[str]) -> tuple[Dim, ...]:
    """The lead's sizes, then one size for each group."""
    return (*(sizes[n] for n in lead), *(math.prod((sizes[n] for n in group), start=ONE) for group in groups))


def product(
    op: Op,
    a: ir.Value,
    b: ir.Value,
    flip: bool,
    perms: dict[str, list[int]],
    targets: dict[str, list[int]],
    whole: bool,
    **_: Any,
) -> ir.Value:
    x, y = (b, a) if flip else (a, b)
    x = op.Reshape(op.Transpose(x, perm=perms["x"]), op.constant(targets["x"], "x"))
    y = op.Reshape(op.Transpose(y, perm=perms["y"]), op.constant(targets["y"], "y"))
    made = op.MatMul(x, y)
    made = made if whole else op.Reshape(made, op.constant(targets["back"], "back"))
    return made if perms["back"] == sorted(perms["back"]) else op.Transpose(made, perm=perms["back"])


RULES = (Rule("einsum-matmul", einsum, guard, product),)
