"""Where a graph says what is padding: its input ``attention_mask``, or what else its attention shuts keys out by."""

from __future__ import annotations

import onnx_ir as ir

from onnxfuse.architecture import MASK
from onnxfuse.fusions.padding_keys import shut_keys
from onnxfuse.fusions.padding_mask import PaddingMask, bias_of, understood
from onnxfuse.rewrite import Analysis, pattern


class Refused(Exception):  # noqa: N818 - not an error: it is how this step says no
    """Why padding stays."""


def find_mask(graph: ir.Graph, analysis: Analysis, *, zeros: bool) -> PaddingMask:
    """What tells padding in a graph, [B,S].

    Args:
        zeros: whether outputs would show zeros there, and so must go by what is given.

    Raises:
        Refused: nothing does.
    """
    attentions = [node for node in graph if node.op_type == "Attention" and not node.domain]
    scores = [node.inputs[0] for node in graph if node.op_type == "Softmax" and not node.domain]
    if not attentions and not scores:
        raise Refused("there is no attention: neither the operator nor a Softmax")
    named = _by_sequences(next((value for value in graph.inputs if value.name == MASK), None), analysis)
    rank = analysis[named].rank
    if named is not None and rank != 2:
        raise Refused(f"input {MASK!r} has {'an unknown rank' if rank is None else f'rank {rank}'}, wanted [B,S]")
    masks = [node.inputs[3] for node in attentions if len(node.inputs) > 3 and node.inputs[3] is not None]
    biases = [bias_of(value) for value in masks]
    mask = next((found for bias in biases if (found := understood(bias, named, analysis)) is not None), None)
    given = [value for value in graph.inputs if analysis[value].rank == 2] if named is None else [named]
    mask = mask or next(filter(None, (shut_keys(each, by, analysis) for each in (*masks, *scores) for by in given)), None)
    if mask is None:
        raise Refused(_why_not(named, [*biases, *([] if attentions else scores)], analysis))
    if zeros and mask.value not in (graph.inputs if named is None else [named]):
        raise Refused(f"outputs would show zeros where {mask.value.name} says, which is not the mask that is given")
    return mask


def _by_sequences(mask: ir.Value | None, analysis: Analysis) -> ir.Value | None:
    """A mask [B,S]; of one for several choices a row, [B,C,S], what it is reshaped to, [B*C,S], where it is."""
    shape = analysis.shape(mask)
    if mask is None or shape is None or len(shape) != 3:
        return mask
    casts = [node.outputs[0] for node, _ in mask.uses() if node.op_type == "Cast"]
    views = [node.outputs[0] for value in (mask, *casts) for node, _ in value.uses() if node.op_type == "Reshape"]
    return next((view for view in views if (seen := analysis.shape(view)) and len(seen) == 2 and seen[-1] == shape[-1]), mask)


def _why_not(named: ir.Value | None, masks: list[ir.Value | None], analysis: Analysis) -> str:
    """Why no mask tells padding."""
    if not masks:
        return "attention has no mask"
    lost = _unknown(masks[0], analysis)
    if lost is not None:
        maker = lost.producer()
        made = "" if maker is None else f", which {maker.op_type} gives"
        return f"the mask {pattern.name_of(masks[0])} is computed with {pattern.name_of(lost)}{made}: its shape is not known"
    source = "one input [B,S]" if named is None else repr(MASK)
    return f"the mask {pattern.name_of(masks[0])} is not made from {source} or booleans [B,S] alone, or does not shut out padding"


def _unknown(value: ir.Value | None, analysis: Analysis) -> ir.Value | None:
    """The first value of unknown shape that another is computed with; None where all are known."""
    waiting, seen = [value], set[ir.Value]()
    while waiting:
        each = waiting.pop()
        if each is None or each in seen:
            continue
        seen.add(each)
        if analysis.shape(each) is None:
            return analysis.unknown_since(each)
        node = each.producer()
        waiting += [] if node is None or node.op_type == "Shape" else node.inputs
    return None
