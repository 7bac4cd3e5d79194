"""Padding removal: everything that works token by token runs on the real tokens of the batch, in one row.

Seen in:   encoders with an attention mask whose outputs show only the first token (classifiers, [CLS] pooling), or a
           mean, weighted mean, maximum or last token by the mask.
Computes:  f(x)[b, s] = f(x[b, s]) for norms, linear layers, Gelu and residuals, so they run on [1,T,D], T real tokens.
           Attention sees [P,C,D]: short rows behind each other in one, each token still among its own row's alone. Where only
           the first token asks it sees [B,L,D]: each row's real tokens moved to its front, L the longest row's number of them.
           Attention that needs positions (a bias of relative position, rotary positions, a window, the future), fused or not,
           sees [B,S,D] as before, and what is picked behind it again runs on T.
Shapes:    x [B,S,D], mask [B,S] of integers (0: padding) or booleans computed from the inputs, its bias [B,1,1,S] or wider.
Numerics:  rounding only (tolerance row "reassociate") where the outputs do not show padding. A row without any token, and a query
           that finds no key, give finite numbers, others than before: see README.
Refuses:   a mask that is not made from ``attention_mask`` or such booleans, one that only weakens scores, an operator that mixes
           padded positions with others, an output that shows them (unless asked to write zeros there).
Source:    positions are added before the first norm, so attention does not know them: it may see keys in any order, and keys
           without weight may be left out. The first token of each row is always kept, and what heads pick by its number.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from onnxfuse.fusions.packing import Packing
from onnxfuse.fusions.padding_region import Region, find_region
from onnxfuse.fusions.padding_source import Refused, Rows
from onnxfuse.rewrite import Analysis, Op, Prover
from onnxfuse.rewrite.graph_proof import compare, observe
from onnxfuse.rewrite.lines import Line
from onnxfuse.rewrite.passes import Context, Result
from onnxfuse.rewrite.proof import Verdict
from onnxfuse.rewrite.rule import MARK

NAME = "unpad"


@dataclass(frozen=True)
class Padding:
    """What became of padding: why it is ``kept`` ("" when it is gone), and the outputs that now show ``zeros`` for it.

    ``earlier``: it was removed from the model before, so that nothing is left to do.
    """

    kept: str = ""
    zeros: tuple[str, ...] = ()
    earlier: bool = False

    def __str__(self) -> str:
        if self.earlier:
            return "removed already"
        shown = f", {', '.join(self.zeros)} zero there" if self.zeros else ""
        return f"kept: {self.kept}" if self.kept else f"removed{shown}"


@dataclass(frozen=True)
class PaddingResult(Result):
    """What the pass did, and what became of padding."""

    padding: Padding


@dataclass(frozen=True)
class RemovePadding:
    """Run on real tokens only (``unpad``).

    ``zeros``: whether outputs may show zeros at padded positions instead of what the model computes there.
    ``bounds``: whether attention becomes our own operator, which is told where rows begin.
    """

    zeros: bool = False
    bounds: bool = False
    name: str = NAME

    def apply(self, model: ir.Model, context: Context) -> PaddingResult:
        graph = model.graph
        padding = unpad(model, context.analysis(model), zeros=self.zeros, bounds=self.bounds, context=context)
        if not padding.kept or model.graph is not graph:
            context.forget()  # what was known of values that moved is no longer so
        return PaddingResult(not padding.kept, padding)


def _is_packed(graph: ir.Graph) -> bool:
    """Whether rows of real tokens are taken out of a graph by what this pass writes."""
    return any(node.op_type == "NonZero" and (node.outputs[0].name or "").startswith(f"{NAME}{MARK}") for node in graph)


def unpad(
    model: ir.Model, analysis: Analysis, *, zeros: bool = False, bounds: bool = False, context: Context | None = None
) -> Padding:
    """Remove padding in place, or leave the model untouched and say why.

    Args:
        zeros: whether outputs may show zeros at padded positions instead of what the model computes there.
        bounds: whether attention becomes our own operator where it can.
        context: with proofs, the graph is run before and after, and put back as it was where that differs.
    """
    before = [Line.of(node) for node in model.graph]
    rows = Rows(model.graph, analysis)
    try:
        region = find_region(model.graph, analysis, zeros=zeros)
    except Refused as reason:
        rows.undo(model.graph)
        return Padding(str(reason), earlier=_is_packed(model.graph))
    shown = {at: value.name or "" for at, value in enumerate(model.graph.outputs) if value in region.shown}
    prover = None if context is None else context.prover(model)
    if context is None or prover is None:
        _rewrite(model.graph, region, analysis, bounds=bounds)
    else:
        with context.trace.proving():
            verdict = _proven(model, region, analysis, prover, shown, bounds=bounds)
        context.trace.judge(NAME, "the whole graph", verdict)
        if verdict.proven is False:
            rows.undo(model.graph)
            return Padding(f"without it the model computes something else: {verdict.reason}")
    if context is not None:
        after = {Line.of(node): node for node in model.graph}
        gone = [line for line in before if line not in after]
        context.trace.record(NAME, "the whole graph", gone, [node for line, node in after.items() if line not in set(before)])
    return Padding(zeros=tuple(shown.values()))


def _proven(
    model: ir.Model, region: Region, analysis: Analysis, prover: Prover, shown: Collection[int], *, bounds: bool
) -> Verdict:
    """Remove padding, and put the graph back where it is proven wrong."""
    observed = observe(model.graph, prover, region.mask.value, region.mask.token)
    model.graph.sort()  # cloning asks for it
    kept = model.graph.clone()
    _rewrite(model.graph, region, analysis, bounds=bounds)
    if isinstance(observed, Verdict):
        return observed
    verdict = compare(model.graph, prover, observed, shown)
    if verdict.proven is False:
        model.graph = kept
    return verdict


def _rewrite(graph: ir.Graph, region: Region, analysis: Analysis, *, bounds: bool) -> None:
    node, at = region.entries[0]
    tokens = node.inputs[at]
    assert tokens is not None
    packing = Packing(analysis, region, tokens, Op(graph, NAME), bounded=bounds)
    readers = {value: [(use.node, use.idx) for use in value.uses()] for value in region.values}
    for node, at in region.entries:
        node.replace_input_with(at, packing.rows(node.inputs[at], packing.kept))
    for node in region.attentions:
        if bounds and packing.attend(node):
            continue
        every = node.inputs[0] in region.values
        layout = packing.packed if every else packing.rows_only
        if layout.index is not None:
            for at in (0, 1, 2) if every else (1, 2):
                node.replace_input_with(at, packing.rows(node.inputs[at], layout.index))
        node.replace_input_with(3, layout.bias)
        if layout.back is not None:
            for reader, at in readers[node.outputs[0]]:
                reader.replace_input_with(at, packing.rows(node.outputs[0], layout.back))
    for node, at in region.exits:
        node.replace_input_with(at, packing.whole(node.inputs[at]))
    for node, at in region.padded:
        node.replace_input_with(at, packing.padded(node.inputs[at]))
    for node in region.sizes:
        sizes = packing.sizes_of(node.inputs[0], node.attributes.get_int("start", 0), node.attributes.get_int("end", 3))
        ir.convenience.replace_all_uses_with(node.outputs[0], _renamed(sizes, node.outputs[0]), replace_graph_outputs=True)
    for at, value in enumerate(graph.outputs):
        if value in region.values:
            graph.outputs[at] = _renamed(packing.whole(value), value)
    for pick in region.picks:
        if not pick.stays:
            picked, old = packing.pick(pick), pick.node.outputs[0]
            ir.convenience.replace_all_uses_with(old, _renamed(picked, old), replace_graph_outputs=True)
            graph.remove(pick.node, safe=True)  # the token may be behind the last one now
    for initializer in packing.op.initializers:
        graph.register_initializer(initializer)
    graph.extend(packing.op.nodes)
    graph.sort()


def _renamed(value: ir.Value, old: ir.Value) -> ir.Value:
    """``value`` under the name and type of the one whose place it takes."""
    value.name, old.name = old.name, f"{old.name}/padded"
    value.type, value.shape = old.type, old.shape
    return value
