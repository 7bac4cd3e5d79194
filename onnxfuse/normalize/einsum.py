"""Normal form of Einsum: a product of two operands is Transpose, Reshape and MatMul.

Letters fall into four groups: in both operands and the output (batch), in both but not the output (summed), in one operand
and the output (rows, columns). Source: ONNX operator Einsum, opset 12.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from onnxfuse.normalize.shapes import constant_target
from onnxfuse.rewrite import Dim, Match, Op, Rule
from onnxfuse.rewrite.facts import ONE


def einsum(op, a, b, equation):
    return op.Einsum(a, b, equation=equation)


def guard(match: Match) -> dict:
    equation = match["equation"].replace(" ", "")
    match.need("->" in equation and "." not in equation, f"the equation {equation!r} has no plain output", match.output)
    operands, output = equation.split("->")
    left, right = operands.split(",")
    for letters in (left, right, output):
        match.need(len(set(letters)) == len(letters), f"a letter of {letters!r} is repeated", match.output)
    both = set(left) & set(right)
    match.need(set(left + right) - both <= set(output), "a letter of one operand is summed by itself", match.output)
    free = [letter for letter in output if letter not in both]
    flip = bool(free) and free[0] in right
    if flip:
        left, right = right, left
    x, y = ("b", "a") if flip else ("a", "b")
    sizes = dict(zip(left, match.need_shape(x, rank=len(left)), strict=True))
    for letter, size in zip(right, match.need_shape(y, rank=len(right)), strict=True):
        match.need(sizes.setdefault(letter, size) == size, f"the operands differ in {letter!r}: {sizes[letter]} and {size}")
    batch = [letter for letter in output if letter in both]
    rows = [letter for letter in output if letter in left and letter not in both]
    columns = [letter for letter in output if letter in right and letter not in both]
    summed = [letter for letter in left if letter in both and letter not in output]
    groups = (rows if batch else [], summed, columns)  # without a batch, rows stay separate: MatMul takes them as its batch
    lead = batch if batch else rows
    steps = {
        "x": _Step(left, [*lead, *groups[0], *summed], _shape(sizes, lead, *(groups[:2] if batch else (summed,)))),
        "y": _Step(right, [*batch, *summed, *columns], _shape(sizes, batch, summed, columns)),
        "back": _Step("".join([*batch, *rows, *columns]), list(output), tuple(sizes[n] for n in [*batch, *rows, *columns])),
    }
    result = _shape(sizes, batch, rows, columns) if batch else _shape(sizes, rows, columns)
    targets = {"x": constant_target(steps["x"].moved(sizes), steps["x"].shape),
               "y": constant_target(steps["y"].moved(sizes), steps["y"].shape),
               "back": constant_target(result, steps["back"].shape)}
    match.need(None not in targets.values(), "a size to reshape to cannot be inferred", match.output)
    return {"flip": flip, "perms": {name: step.perm for name, step in steps.items()}, "targets": targets,
            "reshaped": {"x": steps["x"].moved(sizes) != steps["x"].shape, "y": steps["y"].moved(sizes) != steps["y"].shape,
                         "back": result != steps["back"].shape}}


class _Step:
    """An operand's way: from ``letters`` to ``order``, then to ``shape``."""

    def __init__(self, letters: str, order: Sequence[str], shape: tuple[Dim, ...]) -> None:
        self.perm = [letters.index(letter) for letter in order]
        self.order = order
        self.shape = shape

    def moved(self, sizes: dict[str, Dim]) -> tuple[Dim, ...]:
        return tuple(sizes[letter] for letter in self.order)


def _shape(sizes: dict[str, Dim], lead: Sequence[str], *groups: Sequence[str]) -> tuple[Dim, ...]:
    """The lead's sizes, then one size for each group."""
    return (*(sizes[n] for n in lead), *(math.prod((sizes[n] for n in group), start=ONE) for group in groups))


def product(op: Op, a, b, flip, perms, targets, reshaped, **_) -> ir.Value:
    def arrange(value: ir.Value, name: str, *, first: bool) -> ir.Value:
        for step in ("perm", "shape") if first else ("shape", "perm"):
            if step == "perm" and perms[name] != sorted(perms[name]):
                value = op.Transpose(value, perm=perms[name])
            if step == "shape" and reshaped[name]:
                value = op.Reshape(value, op.constant(targets[name], name))
        return value

    x, y = (b, a) if flip else (a, b)
    return arrange(op.MatMul(arrange(x, "x", first=True), arrange(y, "y", first=True)), "back", first=False)


RULES = (Rule("einsum-product", einsum, guard, product),)
