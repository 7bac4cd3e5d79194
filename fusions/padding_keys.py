"""What a mask of any shape says of padded keys: the number that it is wherever the token along one of its axes is padding.

``padding_mask`` reads masks that are one row [B,1,1,S] for all queries. Here the rest of a mask may be anything: a bias of
relative position is added, a window or the future is shut out as well. What counts is that padding is shut out from every query.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxfuse.fusions.padding_mask import FUNCTIONS, VIEWS, PaddingMask, absorbed, cast
from onnxfuse.rewrite import Analysis
from onnxfuse.rewrite.analysis import ONE, Dim, Shape, lowest_fill
from onnxfuse.rewrite.attributes import attribute


def shut_keys(value: ir.Value | None, mask: ir.Value, analysis: Analysis) -> PaddingMask | None:
    """The mask that ``mask`` is for scores, or a bias of them, which give padding no weight; None where they do not."""
    for token in (0, 1):
        number = at_keys(value, mask, token, analysis)
        if number is not None and is_shut(number, value, analysis):
            return PaddingMask(mask, token, number)
    return None


def is_shut(number: float, value: ir.Value | None, analysis: Analysis) -> bool:
    """Whether a key with this number gets no weight beside any other."""
    kind = analysis[value].dtype
    return not number if kind == ir.DataType.BOOL else number <= lowest_fill(kind)


def at_keys(value: ir.Value | None, mask: ir.Value, token: float, analysis: Analysis, axis: int = -1) -> float | None:
    """What ``value`` is wherever the mask is ``token`` for the position along ``axis``, whatever its other axes say; None where
    that is not one number. The batch is its first axis.

    A sum with a number that shuts out counts as that number: scores and biases are far from it.
    """
    shape = analysis.shape(value)
    if value is mask:
        return token if axis == -1 else None
    uniform = analysis[value].uniform
    if uniform is not None:
        return float(uniform)
    node = None if value is None else value.producer()
    if node is None or node.domain or shape is None or len(shape) < -axis:
        return None
    moved = _behind(node, axis, analysis)
    if moved is not None:
        return at_keys(node.inputs[0], mask, token, analysis, moved)
    if node.op_type not in FUNCTIONS and node.op_type != "Cast":
        return None
    numbers = [
        at_keys(each, mask, token, analysis, axis) if _beside(each, shape, axis, analysis) else None for each in node.inputs
    ]
    return _made(node, numbers, analysis)


def _made(node: ir.Node, numbers: list[float | None], analysis: Analysis) -> float | None:
    """What an operator makes of numbers of which some are not known."""
    known = [number for number in numbers if number is not None]
    if len(known) == len(numbers):
        if node.op_type == "Cast":
            stored: float | None = cast(known[0], ir.DataType(node.attributes.get_int("to", 1)))
            return stored
        return float(FUNCTIONS[node.op_type](*known))
    shutting = [number for number in known if number <= lowest_fill(analysis[node.outputs[0]].dtype)]
    return shutting[0] if node.op_type == "Add" and shutting else absorbed(node.op_type, numbers)


def _beside(operand: ir.Value | None, shape: Shape, axis: int, analysis: Analysis) -> bool:
    """Whether an operand's axes lie beside those of the result, and it has the one that is asked for; numbers fit anywhere."""
    seen = analysis.shape(operand)
    return analysis[operand].uniform is not None or (
        seen is not None and len(seen) == len(shape) and seen[axis] == shape[axis] and seen[0] in (ONE, shape[0])
    )


def _behind(node: ir.Node, axis: int, analysis: Analysis) -> int | None:
    """Where ``axis`` of what a node makes is in its first operand, for a node that only moves elements; None for others."""
    after, before = analysis.shape(node.outputs[0]), analysis.shape(node.inputs[0] if node.inputs else None)
    if after is None or before is None:
        return None
    if node.op_type in VIEWS:
        found = same_axis(after, len(after) + axis, before)
        return None if found is None else found - len(before)
    if node.op_type == "Transpose":
        perm = attribute(node, "perm", analysis.opset)
        return perm[axis] - len(perm) if perm and perm[0] == 0 else None
    if node.op_type == "Expand":
        return axis if len(before) == len(after) and before[axis] == after[axis] and before[0] in (ONE, after[0]) else None
    if node.op_type == "Gather":  # a query's row
        at = attribute(node, "axis", analysis.opset) % len(before)
        return axis if len(before) == len(after) and at not in (0, len(before) + axis) else None
    return None


def same_axis(shape: Shape, axis: int, other: Shape) -> int | None:
    """The axis of a reshaped value along which the index is the same: as long, behind as many elements; None without one."""
    ahead = product(shape[:axis])
    return next((at for at, size in enumerate(other) if size == shape[axis] and product(other[:at]) == ahead), None)


def product(sizes: Shape) -> Dim:
    found = ONE
    for size in sizes:
        found = found * size
    return found
