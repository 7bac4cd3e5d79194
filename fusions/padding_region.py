"""What of a graph can run on real tokens alone: the region between where tokens begin and where they are picked, summed or shown.

A value inside stands token by token, [B,S,..]. It grows in the order of the graph from norms and linear layers on every token, by
what works on each token by itself, through attention whose mask shuts padding out, up to its edges: a Gather of one token, a
product with zeros at padding or a choice of something else there, a Shape. What mixes tokens in another way keeps its padded form
(see ``padding_stale``), between two such regions. What would show that padding is gone refuses the whole.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxfuse.fusions.padding_heads import Pick, drops_width, forgets, picks_of, picks_real
from onnxfuse.fusions.padding_mask import PaddingMask, bias_of, shuts, sizes_of
from onnxfuse.fusions.padding_source import Refused, find_mask
from onnxfuse.fusions.padding_stale import Mixed, Site, Stale, left_stale
from onnxfuse.rewrite import Analysis, pattern
from onnxfuse.rewrite.analysis import ONE, Dim, constant, is_constant
from onnxfuse.rewrite.attributes import attribute

ROWS = frozenset({"Identity", "Gelu", "Tanh", "Relu", "Erf", "Sigmoid"})
"""Operators of one operand that work on each element."""

BROADCAST = frozenset({"Add", "Sum", "Sub", "Mul", "Div", "Pow"})

TOKENS = Stale(frozenset({1}))
"""What is stale of [B,S,D] whose tokens were put back: padding."""


@dataclass
class Region:
    """What runs on real tokens, [1,T,..] instead of [B,S,..], and where it meets the rest of the graph.

    Args:
        mask: what tells padding.
        batch, length: B and S.
        values: what stands token by token.
        entries: nodes inside and the operand, [B,S,D], that comes from outside.
        attentions: in a form without padding, with every token or only one asking.
        picks: Gathers of one token of each row.
        sizes: Shapes of values inside.
        exits: nodes outside and the operand that comes from inside, which is zero at padding.
        padded: the same, where it may be anything at padding.
        stale: what of values outside is others than before.
        mixed: whether attention stays in its padded form somewhere.
        shown: outputs of the graph that show zeros at padding afterwards.
        bias: the mask that all of ``attentions`` share, [B,1,1,S].
    """

    mask: PaddingMask
    batch: Dim
    length: Dim
    values: set[ir.Value] = field(default_factory=set)
    entries: list[tuple[ir.Node, int]] = field(default_factory=list)
    attentions: list[ir.Node] = field(default_factory=list)
    picks: list[Pick] = field(default_factory=list)
    sizes: list[ir.Node] = field(default_factory=list)
    exits: list[tuple[ir.Node, int]] = field(default_factory=list)
    padded: list[tuple[ir.Node, int]] = field(default_factory=list)
    stale: dict[ir.Value, Stale] = field(default_factory=dict)
    mixed: bool = False
    shown: list[ir.Value] = field(default_factory=list)
    bias: ir.Value | None = None


def find_region(graph: ir.Graph, analysis: Analysis, *, zeros: bool) -> Region:
    """The region of a graph.

    Args:
        zeros: whether outputs may show zeros at padded positions.

    Raises:
        Refused: there is none, or something outside would see that padding is gone.
    """
    mask = find_mask(graph, analysis, zeros=zeros)
    batch, length = analysis.shape(mask.value) or ()
    region = Region(mask, batch, length)
    for node in graph:
        inside = [at for at, value in enumerate(node.inputs) if value in region.values]
        if inside:
            _visit(node, inside, region, analysis, zeros)
        elif _starts(node, region, analysis):
            _visit_rows(node, region, analysis)
        elif any(value in region.stale for value in node.inputs):
            _mix(node, (), region, analysis)
    _require_unread_by_bodies(graph, region)
    _show_outputs(graph, region, zeros)
    if not region.attentions and not region.mixed:
        raise Refused("attention reads nothing that stands token by token")
    for pick in region.picks:
        _require_apart(pick.rows, region)
    return region


def _require_apart(rows: ir.Value | None, region: Region) -> None:
    """Which tokens are kept must not follow from what they hold; sizes may."""
    waiting, seen = [rows], set[ir.Value]()
    while waiting:
        value = waiting.pop()
        if value in region.values or value in region.stale:
            raise Refused(f"{pattern.name_of(rows)} picks tokens by what they hold")
        if value is not None and value not in seen:
            seen.add(value)
            node = value.producer()
            waiting += [] if node is None or node.op_type == "Shape" else node.inputs


def _require_unread_by_bodies(graph: ir.Graph, region: Region) -> None:
    """Branches and bodies of loops are not followed: they may read nothing inside."""
    for value in (*region.values, *region.stale):
        if any(user.graph is not graph for user, _ in value.uses()):
            raise Refused(f"a branch or a body inside another operator reads {pattern.name_of(value)}")


def _show_outputs(graph: ir.Graph, region: Region, zeros: bool) -> None:
    """Note the outputs that are inside; refuse where they may not show zeros, or where someone else would read those zeros."""
    inside = [value for value in graph.outputs if value in region.values]
    seen = [value for value in graph.outputs if value in region.stale or (value in inside and not zeros)]
    if seen:
        raise Refused(f"output {seen[0].name!r} shows padded positions")
    region.shown += inside
    for value in region.shown:
        if value not in region.values and value.uses():
            raise Refused(f"{pattern.name_of(value)} shows padded positions to another operator")
        if any(value is node.outputs[0] for node in region.attentions):
            raise Refused(f"output {value.name!r} is attention's own")


def _visit(node: ir.Node, inside: list[int], region: Region, analysis: Analysis, zeros: bool) -> None:
    """Take a node that reads tokens, as its operands ``inside``, into the region or to its edge; refuse one that fits neither."""
    sizes = (region.batch, region.length)
    if node.domain:
        raise Refused(f"{node.op_type} at {node.outputs[0].name} reads padded positions")
    if node.op_type == "Attention" and _packs(node, inside, region, analysis):
        _pack(node, inside, region)
    elif picks := picks_of(node, sizes, analysis):
        region.picks += picks
    elif len(inside) == 1 and (
        forgets(node, inside[0], region.mask, sizes, analysis) or picks_real(node, inside[0], region.mask, sizes, analysis)
    ):
        region.exits.append((node, inside[0]))
    elif node.op_type == "Shape":
        region.sizes.append(node)
    elif zeros and drops_width(node, analysis):
        region.exits.append((node, 0))
        region.shown.append(node.outputs[0])
    else:
        _visit_others(node, inside, region, analysis)


def _visit_others(node: ir.Node, inside: list[int], region: Region, analysis: Analysis) -> None:
    """Take a node in, or leave it in its padded form: a table of positions is not one for all tokens."""
    if not _by_rows(node, analysis):
        _mix(node, inside, region, analysis)
        return
    try:
        _visit_rows(node, region, analysis)
    except Refused as reason:
        try:
            _mix(node, inside, region, analysis)
        except Refused:
            raise reason from None


def _mix(node: ir.Node, inside: Collection[int], region: Region, analysis: Analysis) -> None:
    """Leave a node in its padded form; refuse one behind which elements of real tokens would have seen padding."""
    if not inside and node.inputs[0] and region.stale.get(node.inputs[0]) == TOKENS:
        picks = picks_of(node, (region.batch, region.length), analysis)
        region.picks += [replace(pick, stays=True) for pick in picks]
        if picks:
            return
    read = tuple(TOKENS if at in inside else region.stale.get(value) if value else None for at, value in enumerate(node.inputs))
    try:
        stale = left_stale(Site(node, read, region.mask, analysis))
    except Mixed as reason:
        raise Refused(str(reason)) from None
    region.padded += [(node, at) for at in inside]
    region.stale |= {} if stale is None else dict.fromkeys(node.outputs, stale)
    region.mixed |= node.op_type in ("Attention", "Softmax")


def _starts(node: ir.Node, region: Region, analysis: Analysis) -> bool:
    """A norm or a linear layer on every token, padded ones included: what comes from it can be left out at padding."""
    if node.domain or not _whole(node.inputs[0] if node.inputs else None, region, analysis):
        return False
    return node.op_type == "LayerNormalization" or (node.op_type == "MatMul" and is_constant(node.inputs[1]))


def _whole(value: ir.Value | None, region: Region, analysis: Analysis) -> bool:
    """Whether a value has one row for each token, padded ones included: [B,S,D]. What is stale of it may be padding alone."""
    shape = analysis.shape(value)
    if value is None or value in region.values or shape is None or region.stale.get(value, TOKENS) != TOKENS:
        return False
    return len(shape) == 3 and shape[:2] == (region.batch, region.length)


def _packs(node: ir.Node, inside: Collection[int], region: Region, analysis: Analysis) -> bool:
    """Whether attention needs no positions: its mask is the others' too, and one row [B,1,1,S] for all queries."""
    if not {1, 2} <= set(inside) or len(node.inputs) != 4 or len(node.outputs) != 1:
        return False
    if attribute(node, "is_causal", analysis.opset):
        return False
    if 0 not in inside and (analysis.shape(node.inputs[0]) or ())[1:2] != (ONE,):
        return False
    bias = bias_of(node.inputs[3])
    if sizes_of(bias, analysis) != (region.batch, region.length) or region.bias not in (None, bias):
        return False
    shut = region.mask.at_padding(bias, analysis)
    return shut is not None and shuts(shut, bias, analysis)


def _pack(node: ir.Node, inside: Collection[int], region: Region) -> None:
    region.bias = bias_of(node.inputs[3])
    region.attentions.append(node)
    if 0 in inside:
        region.values.add(node.outputs[0])


def _visit_rows(node: ir.Node, region: Region, analysis: Analysis) -> None:
    """Take a node into the region; refuse one that does not work on each token by itself."""
    entries = []
    for at, value in enumerate(node.inputs):
        whole = _whole(value, region, analysis)
        if at > 0 and node.op_type not in BROADCAST and (whole or value in region.values):
            raise Refused(f"{node.op_type} at {node.outputs[0].name} takes tokens for its operand {at}")
        if whole:
            _need_width(value, analysis)
            entries.append((node, at))
        elif value not in region.values and not _same_for_all(node, value, analysis):
            read = f"reads {pattern.name_of(value)}, which is not one for all tokens"
            raise Refused(f"{node.op_type} at {node.outputs[0].name} {read}")
    for value in node.outputs:
        _need_width(value, analysis)
    region.values |= set(node.outputs)
    region.entries += entries


def _need_width(value: ir.Value | None, analysis: Analysis) -> None:
    match analysis.shape(value):
        case (*_, width) if width.number is not None:
            return
    raise Refused(f"the width of {pattern.name_of(value)} is not known")


def _by_rows(node: ir.Node, analysis: Analysis) -> bool:
    if node.op_type in ("LayerNormalization", "Split"):
        return attribute(node, "axis", analysis.opset) in (-1, 2)
    if node.op_type == "Slice":
        axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
        return axes is not None and set(axes.tolist()) <= {-1, 2}
    return node.op_type in ROWS or node.op_type in BROADCAST or node.op_type == "MatMul"


def _same_for_all(node: ir.Node, operand: ir.Value | None, analysis: Analysis) -> bool:
    """Whether an operand from outside is the same for every token: a weight, a bias, the widths of a Split."""
    shape = analysis.shape(operand)
    if shape is None:
        return False
    if node.op_type == "MatMul":
        return len(shape) == 2
    return len(shape) <= 3 and set(shape[:-1]) <= {ONE}
