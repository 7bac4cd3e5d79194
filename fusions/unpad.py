"""Padding removal: everything that works token by token runs on the real tokens of the batch, in one row.

Seen in:   encoders with an attention mask whose outputs show only the first token (classifiers, [CLS] pooling) or a masked mean.
Computes:  f(x)[b, s] = f(x[b, s]) for norms, linear layers, Gelu and residuals, so they run on [1,T,D], T real tokens.
           Attention sees [P,C,D]: short rows behind each other in one, each token still among its own row's alone. Where only
           the first token asks it sees [B,L,D]: each row's real tokens moved to its front, L the longest row's number of them.
Shapes:    x [B,S,D], mask [B,S] of integers (0: padding) or booleans computed from the inputs, its bias [B,1,1,S].
Numerics:  rounding only (tolerance row "reassociate") where the outputs do not show padding. A row without any token gives finite
           numbers, others than before: see README.
Refuses:   another mask than a bias made from ``attention_mask`` or such booleans, one that only weakens scores, an operator that
           reads padded positions, an output that shows them (unless asked to write zeros there), attention in another form than
           the operator.
Source:    positions are added before the first norm, so attention does not know them: it may see keys in any order, and keys
           without weight may be left out. The first token is always kept, because the head reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from onnxfuse.architecture import MASK
from onnxfuse.fusions.packing import Packing
from onnxfuse.fusions.padding_mask import PaddingMask, bias_of, shuts, sizes_of, understood
from onnxfuse.rewrite import Analysis, pattern
from onnxfuse.rewrite.analysis import ONE, Dim, constant, is_constant
from onnxfuse.rewrite.attributes import attribute
from onnxfuse.rewrite.passes import Context, Result

NAME = "unpad"

ROWS = frozenset({"Identity", "Gelu", "Tanh", "Relu", "Erf", "Sigmoid"})
"""Operators of one operand that work on each element."""

BROADCAST = frozenset({"Add", "Sum", "Sub", "Mul", "Div"})


class Refused(Exception):  # noqa: N818 - not an error: it is how this step says no
    """Why padding stays."""


@dataclass
class Region:
    """What runs on real tokens: values that change from [B,S,..] to [1,T,..], and where they meet the rest of the graph."""

    mask: PaddingMask
    batch: Dim
    length: Dim
    values: set[ir.Value] = field(default_factory=set)
    entries: list[tuple[ir.Node, int]] = field(default_factory=list)
    attentions: list[ir.Node] = field(default_factory=list)
    first_tokens: list[ir.Node] = field(default_factory=list)
    sizes: list[ir.Node] = field(default_factory=list)
    exits: list[tuple[ir.Node, int]] = field(default_factory=list)
    shown: list[ir.Value] = field(default_factory=list)
    bias: ir.Value | None = None


@dataclass(frozen=True)
class Padding:
    """What became of padding: why it is ``kept`` ("" when it is gone), and the outputs that now show ``zeros`` for it."""

    kept: str = ""
    zeros: tuple[str, ...] = ()

    def __str__(self) -> str:
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
    """

    zeros: bool = False
    name: str = NAME

    def apply(self, model: ir.Model, context: Context) -> PaddingResult:
        padding = unpad(model, context.analysis(model), zeros=self.zeros)
        if not padding.kept:
            context.forget()  # what was known of values that moved is no longer so
        return PaddingResult(not padding.kept, padding)


def unpad(model: ir.Model, analysis: Analysis, *, zeros: bool = False) -> Padding:
    """Remove padding in place, or leave the model untouched and say why.

    Args:
        zeros: whether outputs may show zeros at padded positions instead of what the model computes there.
    """
    try:
        region = _find(model.graph, analysis, zeros)
    except Refused as reason:
        return Padding(str(reason))
    shown = tuple(value.name or "" for value in model.graph.outputs if value in region.shown)
    _rewrite(model.graph, region, analysis)
    return Padding(zeros=shown)


# What can run on real tokens -------------------------------------------------------------------------------------


def _find(graph: ir.Graph, analysis: Analysis, zeros: bool) -> Region:
    region = _masked(graph, analysis, zeros)
    for node in graph:
        inside = [at for at, value in enumerate(node.inputs) if value in region.values]
        if inside:
            _visit(node, inside, region, analysis, zeros)
        elif _starts(node, region, analysis):
            _visit_rows(node, region, analysis)
    for value in region.values:
        if any(user.graph is not graph for user, _ in value.uses()):
            raise Refused(f"a branch or a body inside another operator reads {pattern.name_of(value)}")
    for value in graph.outputs:
        if value in region.values and not zeros:
            raise Refused(f"output {value.name!r} shows padded positions")
    region.shown += [value for value in graph.outputs if value in region.values]
    for value in region.shown:
        if value not in region.values and value.uses():
            raise Refused(f"{pattern.name_of(value)} shows padded positions to another operator")
        if any(value is node.outputs[0] for node in region.attentions):
            raise Refused(f"output {value.name!r} is attention's own")
    if not region.attentions:
        raise Refused("the Attention operators read nothing that stands token by token")
    return region


def _masked(graph: ir.Graph, analysis: Analysis, zeros: bool) -> Region:
    """An empty region, with what tells padding in it."""
    attentions = [node for node in graph if node.op_type == "Attention" and not node.domain]
    if not attentions:
        raise Refused("there is no Attention operator")
    named = next((value for value in graph.inputs if value.name == MASK), None)
    rank = analysis[named].rank
    if named is not None and rank != 2:
        raise Refused(f"input {MASK!r} has {'an unknown rank' if rank is None else f'rank {rank}'}, wanted [B,S]")
    biases = [bias_of(node.inputs[3]) for node in attentions if len(node.inputs) > 3]
    mask = next((found for bias in biases if (found := understood(bias, named, analysis)) is not None), None)
    if mask is None:
        raise Refused(_why_not(named, biases, analysis))
    if zeros and mask.value not in (graph.inputs if named is None else [named]):
        raise Refused(f"outputs would show zeros where {mask.value.name} says, which is not the mask that is given")
    shape = analysis.shape(mask.value)
    assert shape is not None
    batch, length = shape
    return Region(mask, batch, length)


def _why_not(named: ir.Value | None, biases: list[ir.Value | None], analysis: Analysis) -> str:
    """Why no mask tells padding."""
    if not any(biases):
        return "attention has no mask"
    if not any(sizes_of(bias, analysis) for bias in biases):
        return f"the mask {pattern.name_of(biases[0])} is not one row [B,1,1,S] for all queries"
    source, bias = "one input [B,S]" if named is None else repr(MASK), pattern.name_of(biases[0])
    return f"the mask {bias} is not made from {source} or booleans [B,S] alone, or does not shut out padding"


def _visit(node: ir.Node, inside: list[int], region: Region, analysis: Analysis, zeros: bool) -> None:
    """Take a node that reads tokens, as its operands ``inside``, into the region or to its edge; refuse one that fits neither."""
    if node.domain:
        raise Refused(f"{node.op_type} at {node.outputs[0].name} reads padded positions")
    if node.op_type == "Attention":
        _visit_attention(node, inside, region, analysis)
    elif _picks_first(node, analysis):
        region.first_tokens.append(node)
    elif _forgets(node, inside[0], region, analysis):
        region.exits.append((node, inside[0]))
    elif node.op_type == "Shape":
        region.sizes.append(node)
    elif zeros and _drops_width(node, analysis):
        region.exits.append((node, 0))
        region.shown.append(node.outputs[0])
    else:
        _visit_rows(node, region, analysis)


def _starts(node: ir.Node, region: Region, analysis: Analysis) -> bool:
    """A norm or a linear layer on every token, padded ones included: what comes from it can be left out at padding."""
    if node.domain or not _whole(node.inputs[0] if node.inputs else None, region, analysis):
        return False
    return node.op_type == "LayerNormalization" or (node.op_type == "MatMul" and is_constant(node.inputs[1]))


def _whole(value: ir.Value | None, region: Region, analysis: Analysis) -> bool:
    """Whether a value has one row for each token, padded ones included: [B,S,D]."""
    shape = analysis.shape(value)
    return value not in region.values and shape is not None and len(shape) == 3 and shape[:2] == (region.batch, region.length)


def _visit_attention(node: ir.Node, inside: list[int], region: Region, analysis: Analysis) -> None:
    where = node.outputs[0].name
    if not {1, 2} <= set(inside) or len(node.inputs) != 4 or len(node.outputs) != 1:
        raise Refused(f"attention at {where} has no mask, a past, or keys from elsewhere")
    if attribute(node, "is_causal", analysis.opset):
        raise Refused(f"attention at {where} is causal")
    if 0 not in inside and (analysis.shape(node.inputs[0]) or ())[1:2] != (ONE,):
        raise Refused(f"attention at {where} has queries from elsewhere")
    bias = bias_of(node.inputs[3])
    if sizes_of(bias, analysis) != (region.batch, region.length):
        raise Refused(f"the mask at {where} is not one row [B,1,1,S] for all queries")
    shut = region.mask.at_padding(bias, analysis)
    if shut is None or not shuts(shut, bias, analysis):
        raise Refused(f"the mask at {where} is not made from {region.mask.value.name!r} alone, or does not shut out padding")
    if region.bias not in (None, bias):
        raise Refused(f"attention at {where} has a mask of its own")
    region.bias = bias
    region.attentions.append(node)
    if 0 in inside:
        region.values.add(node.outputs[0])


def _picks_first(node: ir.Node, analysis: Analysis) -> bool:
    """Gather(x, 0, axis=1): the first token of each row."""
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 1:
        return False
    data = analysis[node.inputs[1]].data
    return data is not None and [dim.number for dim in data] == [0]


def _visit_rows(node: ir.Node, region: Region, analysis: Analysis) -> None:
    """Take a node into the region; refuse one that does not work on each token by itself."""
    if not _by_rows(node, analysis):
        raise Refused(f"{node.op_type} at {node.outputs[0].name} reads padded positions")
    for at, value in enumerate(node.inputs):
        whole = _whole(value, region, analysis)
        if at > 0 and node.op_type not in BROADCAST and (whole or value in region.values):
            raise Refused(f"{node.op_type} at {node.outputs[0].name} takes tokens for its operand {at}")
        if whole:
            _need_width(value, analysis)
            region.entries.append((node, at))
        elif value not in region.values and not _same_for_all(node, value, analysis):
            read = f"reads {pattern.name_of(value)}, which is not one for all tokens"
            raise Refused(f"{node.op_type} at {node.outputs[0].name} {read}")
    for value in node.outputs:
        _need_width(value, analysis)
        region.values.add(value)


def _need_width(value: ir.Value | None, analysis: Analysis) -> None:
    match analysis.shape(value):
        case (*_, width) if width.number is not None:
            return
    raise Refused(f"the width of {pattern.name_of(value)} is not known")


def _forgets(node: ir.Node, at: int, region: Region, analysis: Analysis) -> bool:
    """Mul(x, m) with a function of the mask, [B,S,1] and perhaps widened, that is 0 for padding: masked sums and means."""
    if node.op_type != "Mul":
        return False
    factor = node.inputs[1 - at]
    assert factor is not None
    maker = factor.producer()
    if maker is not None and maker.op_type == "Expand":
        factor = maker.inputs[0]
    return analysis.shape(factor) == (region.batch, region.length, ONE) and region.mask.at_padding(factor, analysis) == 0


def _drops_width(node: ir.Node, analysis: Analysis) -> bool:
    """[B,S,1] squeezed to [B,S], or one column of [B,S,D]: a question answerer's scores."""
    second = node.inputs[1] if len(node.inputs) == 2 else None
    if node.op_type == "Gather":
        return node.attributes.get_int("axis", 0) in (-1, 2) and analysis.shape(second) == ()
    axes = constant(second) if node.op_type == "Squeeze" else None
    return axes is not None and axes.tolist() in ([-1], [2])


def _by_rows(node: ir.Node, analysis: Analysis) -> bool:
    if node.op_type in ("LayerNormalization", "Split"):
        return attribute(node, "axis", analysis.opset) in (-1, 2)
    return node.op_type in ROWS or node.op_type in BROADCAST or node.op_type == "MatMul"


def _same_for_all(node: ir.Node, operand: ir.Value | None, analysis: Analysis) -> bool:
    """Whether an operand from outside is the same for every token: a weight, a bias, the widths of a Split."""
    shape = analysis.shape(operand)
    if shape is None:
        return False
    if node.op_type == "MatMul":
        return len(shape) == 2
    return len(shape) <= 3 and set(shape[:-1]) <= {ONE}


# Rewriting -------------------------------------------------------------------------------------------------------


def _rewrite(graph: ir.Graph, region: Region, analysis: Analysis) -> None:
    assert region.bias is not None
    packing = Packing(graph, analysis, region.mask, region.bias)
    readers = {value: [(use.node, use.idx) for use in value.uses()] for value in region.values}
    for node, at in region.entries:
        node.replace_input_with(at, packing.rows(node.inputs[at], packing.kept))
    for node in region.attentions:
        every = node.inputs[0] in region.values
        layout = packing.packed if every else packing.rows_only
        for at in (0, 1, 2) if every else (1, 2):
            node.replace_input_with(at, packing.rows(node.inputs[at], layout.index))
        node.replace_input_with(3, layout.bias)
        if layout.back is not None:
            for reader, at in readers[node.outputs[0]]:
                reader.replace_input_with(at, packing.rows(node.outputs[0], layout.back))
    for node, at in region.exits:
        node.replace_input_with(at, packing.whole(node.inputs[at]))
    for node in region.sizes:
        sizes = packing.sizes_of(node.inputs[0], node.attributes.get_int("start", 0), node.attributes.get_int("end", 3))
        ir.convenience.replace_all_uses_with(node.outputs[0], _renamed(sizes, node.outputs[0]), replace_graph_outputs=True)
    for at, value in enumerate(graph.outputs):
        if value in region.values:
            graph.outputs[at] = _renamed(packing.whole(value), value)
    for node in region.first_tokens:
        picked = packing.first_of(node.inputs[0], keep_axis=bool(analysis.shape(node.inputs[1])))
        ir.convenience.replace_all_uses_with(node.outputs[0], _renamed(picked, node.outputs[0]), replace_graph_outputs=True)
    for initializer in packing.op.initializers:
        graph.register_initializer(initializer)
    graph.extend(packing.op.nodes)
    graph.sort()


def _renamed(value: ir.Value, old: ir.Value) -> ir.Value:
    """``value`` under the name and type of the one whose place it takes."""
    value.name, old.name = old.name, f"{old.name}/padded"
    value.type, value.shape = old.type, old.shape
    return value
