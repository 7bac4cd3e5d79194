"""Where a graph says what is padding: its input ``attention_mask``, or what else its attention shuts keys out by."""

from __future__ import annotations

import onnx_ir as ir

from onnxfuse.architecture import MASK
from onnxfuse.fusions.padding_keys import shut_keys
from onnxfuse.fusions.padding_mask import PaddingMask, bias_of, understood
from onnxfuse.rewrite import Analysis, Op, pattern
from onnxfuse.rewrite.analysis import ONE


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
    views = _views(mask, analysis)
    rows = (node.outputs[0] for view in views for node, _ in view.uses() if node.op_type == "Squeeze")
    return next((view for view in (*views, *rows) if analysis[view].rank == 2), mask)


def _views(mask: ir.Value | None, analysis: Analysis) -> list[ir.Value]:
    """What a mask of several choices a row, [B,C,S], is reshaped to: one row for each sequence, [B*C,S] or with sizes of one
    between, [B*C,1,1,S]."""
    shape = analysis.shape(mask)
    if mask is None or shape is None or len(shape) != 3:
        return []
    casts = [node.outputs[0] for node, _ in mask.uses() if node.op_type == "Cast"]
    views = [node.outputs[0] for value in (mask, *casts) for node, _ in value.uses() if node.op_type == "Reshape"]
    return [view for view in views if (seen := analysis.shape(view)) and {*seen[1:-1]} <= {ONE} and seen[1:][-1:] == shape[-1:]]


class Rows:
    """What a mask of several choices a row, [B,C,S], says of each sequence, [B*C,S], put into the graph where it was only
    reshaped to [B*C,1,1,S]. A graph of any other mask stays as it is."""

    def __init__(self, graph: ir.Graph, analysis: Analysis) -> None:
        view = _rowless(graph, analysis)
        maker = None if view is None else view.producer()
        self._op = None if maker is None else Op(graph, "rows")
        if self._op is None or maker is None or view is None:
            return
        axes = self._op.constant([*range(1, (analysis[view].rank or 0) - 1)], "axes")
        readers = tuple(view.uses())
        back = self._op.Unsqueeze(self._op.Squeeze(view, axes), axes)
        for reader, at in readers:
            reader.replace_input_with(at, back)
        graph.register_initializer(axes)
        graph.insert_after(maker, self._op.nodes)

    def undo(self, graph: ir.Graph) -> None:
        """Leave the graph, or a clone of it, as it was."""
        made = {value.name for value in self._op.nodes[-1].outputs} if self._op else set()
        for back in [node for node in graph if node.outputs[0].name in made]:
            rows, axes = back.inputs
            squeeze = rows.producer() if rows else None
            assert squeeze is not None and axes is not None and squeeze.inputs[0] is not None
            ir.convenience.replace_all_uses_with(back.outputs[0], squeeze.inputs[0])
            graph.remove((back, squeeze), safe=True)
            del graph.initializers[axes.name or ""]


def _rowless(graph: ir.Graph, analysis: Analysis) -> ir.Value | None:
    """What a mask [B,C,S] is reshaped to, [B*C,1,1,S], where it is [B*C,S] nowhere; None for every other mask."""
    mask = next((value for value in graph.inputs if value.name == MASK), None)
    views = _views(mask, analysis) if _by_sequences(mask, analysis) is mask else []
    return views[0] if views else None


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
