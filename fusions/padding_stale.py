"""What mixes tokens while padding stands in its place, and which of its elements then are others than before.

Where attention needs to know positions (a bias of relative position, rotary positions, a window, the future) it stays on
[B,S,D]: real tokens are put back to where they were, other tokens' numbers stand at padding, and behind it real tokens are picked
again. That is right where no element that belongs to real tokens alone has seen padding. An element is *stale* where its index
along one of some axes is padding; operators carry those axes along, and attention ends them, as padded keys get no weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from onnxfuse.fusions.padding_keys import at_keys, is_shut, product, same_axis
from onnxfuse.fusions.padding_mask import FUNCTIONS, VIEWS, PaddingMask
from onnxfuse.rewrite import Analysis
from onnxfuse.rewrite.analysis import Shape, constant, is_constant
from onnxfuse.rewrite.attributes import attribute

ELEMENTWISE = frozenset({*FUNCTIONS, "Sum", "Div", "Cast", "Sigmoid", "Tanh", "Relu", "Erf", "Gelu"})


@dataclass(frozen=True)
class Stale:
    """Elements of a value that are others than before: those whose index along one of ``axes`` is padding.

    Args:
        axes: counted from the front; the batch is the first axis, or the slower part of it.
        zero: the axis along which elements at padding are zero, as softmax leaves those that are shut out.
    """

    axes: frozenset[int]
    zero: int | None = None


class Mixed(Exception):  # noqa: N818 - not an error: it is how these rules say no
    """Why elements of real tokens would have seen padding."""


@dataclass(frozen=True)
class Site:
    """A node that reads stale values: for each operand what is stale of it, None where nothing is."""

    node: ir.Node
    stale: tuple[Stale | None, ...]
    mask: PaddingMask
    analysis: Analysis

    def shape(self, at: int) -> Shape:
        """The shape of an operand. Raises Mixed where it is not known."""
        found = self.analysis.shape(self.node.inputs[at])
        if found is None:
            raise self.refused()
        return found

    @property
    def made(self) -> Shape:
        """The shape of the result. Raises Mixed where it is not known."""
        found = self.analysis.shape(self.node.outputs[0])
        if found is None:
            raise self.refused()
        return found

    def option(self, name: str) -> int:
        return int(attribute(self.node, name, self.analysis.opset) or 0)

    @property
    def only_first(self) -> Stale:
        """What is stale of the first operand. Raises Mixed where another one is."""
        first = self.stale[0]
        if first is None or any(self.stale[1:]):
            raise self.refused()
        return first

    def refused(self) -> Mixed:
        return Mixed(f"{self.node.op_type} at {self.node.outputs[0].name} reads padded positions")


def left_stale(site: Site) -> Stale | None:
    """What is stale of a node's outputs; None where nothing is. Raises Mixed where that is not known."""
    rule = RULES.get(site.node.op_type)
    if rule is None or site.node.domain:
        raise site.refused()
    found = rule(site)
    return found if found is not None and (found.axes or found.zero is not None) else None


def _nothing(site: Site) -> Stale | None:
    """A shape does not show content."""
    return None


def _viewed(site: Site) -> Stale:
    before, after, stale = site.shape(0), site.made, site.only_first
    axes = {same_axis(before, axis, after) for axis in stale.axes}
    found = frozenset(axis for axis in axes if axis is not None)
    if len(found) < len(stale.axes) or not _same_batch(before, after):
        raise site.refused()
    return Stale(found)


def _same_batch(before: Shape, after: Shape) -> bool:
    """Whether the first axes are as long, or heads were split from one of them or merged with it."""
    heads = range(1, max(len(before), len(after)) + 1)
    return any(product(before[:at]) == after[0] or product(after[:at]) == before[0] for at in heads)


def _transposed(site: Site) -> Stale:
    perm, stale = attribute(site.node, "perm", site.analysis.opset), site.only_first
    if not perm or perm[0] != 0:
        raise site.refused()
    return Stale(frozenset(perm.index(axis) for axis in stale.axes))


def _elementwise(site: Site) -> Stale:
    axes: set[int] = set()
    for at, stale in enumerate(site.stale):
        if stale is not None:
            if len(site.shape(at)) != len(site.made) or site.shape(at)[0] != site.made[0]:
                raise site.refused()
            axes |= stale.axes
    return Stale(frozenset(axes), _still_zero(site))


def _still_zero(site: Site) -> int | None:
    """Along which axis weights that were zero at padding still are: times something, or chosen besides zeros."""
    for at, stale in enumerate(site.stale):
        others = [value for number, value in enumerate(site.node.inputs) if number != at]
        chosen = site.node.op_type == "Where" and at > 0 and site.analysis[others[1]].uniform == 0
        if stale is not None and (site.node.op_type == "Mul" or chosen):
            return stale.zero
    return None


def _along_one(site: Site) -> Stale:
    """Split, Concat, GatherElements: along an axis that is neither the batch nor stale."""
    axis = site.option("axis") % len(site.shape(0))
    read = [stale for stale in site.stale if stale is not None]
    if axis == 0 or any(axis in stale.axes for stale in read):
        raise site.refused()
    return Stale(frozenset().union(*(stale.axes for stale in read)))


def _gathered(site: Site) -> Stale:
    site.only_first  # noqa: B018 - the index must not be stale
    return _along_one(site)


def _taken(site: Site) -> Stale:
    """Gather along an axis that is neither the batch nor stale: its index may have no axis, or several."""
    _gathered(site)
    axis, more = site.option("axis") % len(site.shape(0)), len(site.shape(1)) - 1
    return Stale(frozenset(at + more if at > axis else at for at in site.only_first.axes))


def _sliced(site: Site) -> Stale:
    stale, rank = site.only_first, len(site.shape(0))
    given = constant(site.node.inputs[3]) if len(site.node.inputs) > 3 else None
    if given is None or {0, *stale.axes} & {int(axis) % rank for axis in given}:
        raise site.refused()
    return Stale(stale.axes)


def _softmax(site: Site) -> Stale:
    """Over stale keys only where their scores shut them out: their weights are zero."""
    stale, rank = site.only_first, len(site.shape(0))
    axis = site.option("axis") % rank
    if axis not in stale.axes:
        return Stale(stale.axes)
    _need_shut(site, 0, axis - rank, "scores")
    return Stale(stale.axes - {axis}, zero=axis)


def _need_shut(site: Site, at: int, axis: int, what: str) -> None:
    """Raises Mixed unless an operand shuts padding out along an axis."""
    value = site.node.inputs[at]
    number = at_keys(value, site.mask.value, site.mask.token, site.analysis, axis)
    if number is None or not is_shut(number, value, site.analysis):
        name = None if value is None else value.name
        raise Mixed(f"the {what} {name} do not shut out padding by {site.mask.value.name!r}")


def _product(site: Site) -> Stale:
    """Of what is summed, either nothing is stale or its weights are zero where it is."""
    (x, y), ranks = site.stale[:2], (len(site.shape(0)), len(site.shape(1)))
    last = ranks[0] - 1
    weights = ranks[1] == 2 and y is None and is_constant(site.node.inputs[1])
    if ranks[0] < 3 or (ranks[0] != ranks[1] and not weights) or (x is not None and last in x.axes):
        raise site.refused()
    rows = frozenset() if x is None else x.axes
    if y is None:
        return Stale(rows)
    summed = ranks[1] - 2
    if summed in y.axes and (x is None or x.zero != last):
        raise site.refused()
    return Stale(rows | (y.axes - {summed}))


def _attention(site: Site) -> Stale | None:
    """The operator, on [B,S,D] or on heads [B,N,S,H]: padded keys are shut out by its mask, padded queries stay stale."""
    node = site.node
    where = node.outputs[0].name
    if len(node.inputs) != 4 or len(node.outputs) != 1 or node.inputs[3] is None:
        raise Mixed(f"attention at {where} has no mask, or a past")
    if site.stale[3] is not None:
        raise Mixed(f"the mask of attention at {where} is made from tokens")
    positions = {frozenset({len(site.shape(at)) - 2}) if len(site.shape(at)) == 4 else frozenset({1}) for at in range(3)}
    if any(stale is not None and stale.axes not in positions for stale in site.stale) or len(positions) > 1:
        raise site.refused()
    number = at_keys(node.inputs[3], site.mask.value, site.mask.token, site.analysis)
    if number is None or not is_shut(number, node.inputs[3], site.analysis):
        name = node.inputs[3].name
        raise Mixed(f"the mask {name} is not made from {site.mask.value.name!r}, or does not shut out padding")
    return site.stale[0]


RULES: dict[str, Callable[[Site], Stale | None]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(VIEWS, _viewed),
    "Attention": _attention,
    "Concat": _along_one,
    "Gather": _taken,
    "GatherElements": _gathered,
    "MatMul": _product,
    "Shape": _nothing,
    "Slice": _sliced,
    "Softmax": _softmax,
    "Split": _along_one,
    "Transpose": _transposed,
}
