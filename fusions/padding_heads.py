"""What heads read of tokens without showing padding: picks of one token a row, masked sums, means and maxima."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxfuse.fusions.padding_mask import VIEWS, PaddingMask
from onnxfuse.rewrite import Analysis, Dim
from onnxfuse.rewrite.analysis import Shape, constant
from onnxfuse.rewrite.attributes import attribute


@dataclass(frozen=True)
class Pick:
    """A Gather of one token of each row, real or not.

    Args:
        tokens: what it picks from, [B,S,D].
        token: which one, counted from the front or (negative) the back.
        rows: where that is computed, its numbers among all B*S tokens; ``token`` then says nothing.
        pairs: whether ``rows`` holds a row and a position for each instead, along its last axis.
        stays: whether it picks from tokens that stand in their places, padding among them.
    """

    node: ir.Node
    tokens: ir.Value
    token: int = 0
    rows: ir.Value | None = None
    pairs: bool = False
    stays: bool = False


def picks_of(node: ir.Node, sizes: Shape, analysis: Analysis) -> list[Pick]:
    """Gather(x, i, axis=1) of one token; ``x[range(B), i]`` as GatherND, or as a Gather from [B*S,D]; none of others.

    Args:
        sizes: B and S.
    """
    tokens = node.inputs[0]
    if tokens is None:
        return []
    if node.op_type == "Gather":
        data = analysis[node.inputs[1]].data
        number = data[0].number if data is not None and len(data) == 1 else None
        picks_one = number is not None and node.attributes.get_int("axis", 0) == 1
        return [Pick(node, tokens, token=number)] if picks_one and number is not None else []
    if node.op_type == "GatherND":
        pairs = (analysis.shape(node.inputs[1]) or ())[-1:] == (Dim(2),) and not attribute(node, "batch_dims", analysis.opset)
        return [Pick(node, tokens, rows=node.inputs[1], pairs=True)] if pairs else []
    flat = analysis.shape(node.outputs[0]) or ()
    users = [user for user, _ in node.outputs[0].uses()]
    if node.op_type not in ("Flatten", "Reshape") or len(flat) != 2 or flat[0] != sizes[0] * sizes[1]:
        return []
    if any(user.op_type != "Gather" or user.attributes.get_int("axis", 0) != 0 for user in users):
        return []
    return [Pick(user, tokens, rows=user.inputs[1]) for user in users]


def forgets(node: ir.Node, at: int, mask: PaddingMask, sizes: Shape, analysis: Analysis) -> bool:
    """Whether a node's result does not depend on what the operand ``at`` is at padding: masked sums, means and maxima.

    Mul(x, m), m zero for padding; Where(c, x, y), which takes y there; both m and c [B,S,1] or [B,S,D].
    """
    if node.op_type not in ("Mul", "Where"):
        return False
    decides = node.inputs[1 - at] if node.op_type == "Mul" else node.inputs[0]
    shape, there = analysis.shape(decides), mask.at_padding(decides, analysis)
    if there is None or shape is None or len(shape) != 3 or shape[:2] != sizes:
        return False
    return there == 0 if node.op_type == "Mul" else bool(there) == (at == 2)


def picks_real(node: ir.Node, at: int, mask: PaddingMask, sizes: Shape, analysis: Analysis) -> bool:
    """GatherElements(x, i) of each row's first token that is real, i an ArgMax of the mask [B,1] widened to [B,1,D].

    Of a row without any it is the first position, where padding shows zeros.
    """
    if node.op_type != "GatherElements" or at != 0 or attribute(node, "axis", analysis.opset) not in (1, -2):
        return False
    index = node.inputs[1]
    while index is not None and (maker := index.producer()) is not None and maker.op_type in (*VIEWS, "Expand", "Cast"):
        index = maker.inputs[0]
    if index is None or maker is None or maker.op_type != "ArgMax" or attribute(maker, "axis", analysis.opset) not in (1, -1):
        return False
    last = attribute(maker, "select_last_index", analysis.opset)
    tokens = maker.inputs[0]
    if last or analysis.shape(tokens) != sizes:
        return False
    padding, real = (mask.at(tokens, token, analysis) for token in (mask.token, 1 - mask.token))
    return padding is not None and real is not None and real > padding


def drops_width(node: ir.Node, analysis: Analysis) -> bool:
    """[B,S,1] squeezed to [B,S], or one column of [B,S,D]: a question answerer's scores."""
    second = node.inputs[1] if len(node.inputs) == 2 else None
    if node.op_type == "Gather":
        return node.attributes.get_int("axis", 0) in (-1, 2) and analysis.shape(second) == ()
    axes = constant(second) if node.op_type == "Squeeze" else None
    return axes is not None and axes.tolist() in ([-1], [2])
