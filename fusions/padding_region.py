"""What of a graph can run on real tokens alone: the region between where tokens begin and where they are picked, summed or shown.

A value inside stands token by token, [B,S,..]. It grows in the order of the graph from norms and linear layers on every token, by
what works on each token by itself, through attention whose mask shuts padding out, up to its edges: the first token's Gather, a
product with zeros at padding or a choice of something else there, a Shape. What reads tokens in any other way refuses the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from onnxfuse.architecture import MASK
from onnxfuse.fusions.padding_mask import VIEWS, PaddingMask, bias_of, shuts, sizes_of, understood
from onnxfuse.rewrite import Analysis, pattern
from onnxfuse.rewrite.analysis import ONE, Dim, constant, is_constant
from onnxfuse.rewrite.attributes import attribute

ROWS = frozenset({"Identity", "Gelu", "Tanh", "Relu", "Erf", "Sigmoid"})
"""Operators of one operand that work on each element."""

BROADCAST = frozenset({"Add", "Sum", "Sub", "Mul", "Div"})


class Refused(Exception):  # noqa: N818 - not an error: it is how this step says no
    """Why padding stays."""


@dataclass
class Region:
    """What runs on real tokens, [1,T,..] instead of [B,S,..], and where it meets the rest of the graph.

    Args:
        mask: what tells padding.
        batch, length: B and S.
        values: what stands token by token.
        entries: nodes inside and the operand, [B,S,D], that comes from outside.
        attentions: with every token or only the first asking.
        first_tokens: Gathers of the first token of each row.
        sizes: Shapes of values inside.
        exits: nodes outside and the operand that comes from inside.
        shown: outputs of the graph that show zeros at padding afterwards.
        bias: the mask that all attentions share, [B,1,1,S].
    """

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


def find_region(graph: ir.Graph, analysis: Analysis, *, zeros: bool) -> Region:
    """The region of a graph.

    Args:
        zeros: whether outputs may show zeros at padded positions.

    Raises:
        Refused: there is none, or something outside would see that padding is gone.
    """
    region = _masked(graph, analysis, zeros)
    for node in graph:
        inside = [at for at, value in enumerate(node.inputs) if value in region.values]
        if inside:
            _visit(node, inside, region, analysis, zeros)
        elif _starts(node, region, analysis):
            _visit_rows(node, region, analysis)
    _require_unread_by_bodies(graph, region)
    _show_outputs(graph, region, zeros)
    if not region.attentions:
        raise Refused("the Attention operators read nothing that stands token by token")
    return region


def _require_unread_by_bodies(graph: ir.Graph, region: Region) -> None:
    """Branches and bodies of loops are not followed: they may read nothing inside."""
    for value in region.values:
        if any(user.graph is not graph for user, _ in value.uses()):
            raise Refused(f"a branch or a body inside another operator reads {pattern.name_of(value)}")


def _show_outputs(graph: ir.Graph, region: Region, zeros: bool) -> None:
    """Note the outputs that are inside; refuse where they may not show zeros, or where someone else would read those zeros."""
    inside = [value for value in graph.outputs if value in region.values]
    if inside and not zeros:
        raise Refused(f"output {inside[0].name!r} shows padded positions")
    region.shown += inside
    for value in region.shown:
        if value not in region.values and value.uses():
            raise Refused(f"{pattern.name_of(value)} shows padded positions to another operator")
        if any(value is node.outputs[0] for node in region.attentions):
            raise Refused(f"output {value.name!r} is attention's own")


def _masked(graph: ir.Graph, analysis: Analysis, zeros: bool) -> Region:
    """An empty region, with what tells padding in it."""
    attentions = [node for node in graph if node.op_type == "Attention" and not node.domain]
    if not attentions:
        raise Refused("there is no Attention operator")
    on_heads = next((node for node in attentions if analysis[node.inputs[0]].rank == 4), None)
    if on_heads is not None:  # behind rotary positions, say
        raise Refused(f"attention at {on_heads.outputs[0].name} is on heads [B,N,S,H], wanted [B,S,D]")
    named = _by_sequences(next((value for value in graph.inputs if value.name == MASK), None), analysis)
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


def _by_sequences(mask: ir.Value | None, analysis: Analysis) -> ir.Value | None:
    """A mask [B,S]; of one for several choices a row, [B,C,S], what it is reshaped to, [B*C,S], where it is."""
    shape = analysis.shape(mask)
    if mask is None or shape is None or len(shape) != 3:
        return mask
    casts = [node.outputs[0] for node, _ in mask.uses() if node.op_type == "Cast"]
    views = [node.outputs[0] for value in (mask, *casts) for node, _ in value.uses() if node.op_type == "Reshape"]
    return next((view for view in views if (seen := analysis.shape(view)) and len(seen) == 2 and seen[-1] == shape[-1]), mask)


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
    elif len(inside) == 1 and (_forgets(node, inside[0], region, analysis) or _picks_real(node, inside[0], region, analysis)):
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
    """Whether a node's result does not depend on what the operand ``at`` is at padding: masked sums, means and maxima.

    Mul(x, m), m zero for padding; Where(c, x, y), which takes y there; both m and c [B,S,1] or [B,S,D].
    """
    if node.op_type not in ("Mul", "Where"):
        return False
    decides = node.inputs[1 - at] if node.op_type == "Mul" else node.inputs[0]
    shape, there = analysis.shape(decides), region.mask.at_padding(decides, analysis)
    if there is None or shape is None or len(shape) != 3 or shape[:2] != (region.batch, region.length):
        return False
    return there == 0 if node.op_type == "Mul" else bool(there) == (at == 2)


def _picks_real(node: ir.Node, at: int, region: Region, analysis: Analysis) -> bool:
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
    if last or analysis.shape(tokens) != (region.batch, region.length):
        return False
    padding, real = (region.mask.at(tokens, token, analysis) for token in (region.mask.token, 1 - region.mask.token))
    return padding is not None and real is not None and real > padding


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
