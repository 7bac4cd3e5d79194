"""Where the layers of an encoder begin and end in a graph, fused or not, in normal form or as a runtime wrote it.

A layer begins at its attention. A norm that only the projections of the next attention read belongs to that one (ViT's first
norm); what comes before the first layer is the embeddings.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxfuse import catalog
from onnxfuse.native import functions
from onnxfuse.optimizer import stands_for
from onnxfuse.rewrite import Fusion
from onnxfuse.rewrite.fusion import ordered

NORM, ATTENTION = "layer_norm", "attention"
"""The fusions of what may stand before a layer's attention and belong to it, and of attention."""

BEFORE, AFTER, OTHER = "embeddings", "head", "other"
"""What stands before the first layer, behind the last one, and where no layer can be told."""

NUMBERED = re.compile(r"(?:^|[./_])(?:layers?|blocks?|h)[./_](\d+)(?=[./_]|$)")
"""In a name of a checkpoint's module, the number of its layer."""

SIZES = ("Shape", "Size")
"""Operators that read no numbers: exporters have them where a tensor is at hand, and use what they tell much later."""

REACH = 4
"""How many nodes after a softmax the product with the values may be: roundings, a guard against rows without keys."""

IN_ENCODER = {"post": ["linear", "linear", "linear"], "pre": ["linear", NORM, "linear", "linear"]}
"""What follows a layer's attention, by the order of our Encoder: norms that follow a linear layer are done in it."""


@dataclass(frozen=True)
class Known:
    """The fusions of things to count, by the operator that they make and by the anchors of what was not made."""

    fusions: Mapping[str, Fusion]

    def of(self, operator: str) -> list[Fusion]:
        """The fusions that make an operator; those that ask more of it come last."""
        made = [fusion for fusion in self.fusions.values() if fusion.operator == operator]
        return sorted(made, key=lambda fusion: fusion.condition is not None)

    def at(self, anchor: str) -> list[Fusion]:
        """The fusions that an operator would have been part of."""
        return [fusion for fusion in self.fusions.values() if anchor in fusion.anchors]

    def shows(self, node: ir.Node) -> bool:
        """Whether a node is of a thing, or a sign of one that was not made."""
        return not node.domain and bool(self.of(node.op_type) or self.at(node.op_type))

    def stands_for(self, node: ir.Node) -> Fusion | None:
        return stands_for(node, self.fusions.values())

    def attends(self, node: ir.Node) -> bool:
        """Whether a node is attention, has it inside, or is the sign of one that was not fused."""
        attention = self.fusions[ATTENTION]
        if functions.layers(node) or node.op_type in (attention.operator, *attention.anchors):
            return True
        return self.stands_for(node) is attention

    def leads(self, norm: ir.Node) -> bool:
        """Whether a norm is there for projections alone, and no residual reads it."""
        return self.fusions[NORM].made(norm) and {user.op_type for user, _ in norm.outputs[0].uses()} == {"MatMul"}


def counted_things() -> dict[str, Fusion]:
    """The fusions of what is counted, in order, by name."""
    return {fusion.name: fusion for fusion in ordered(catalog.fusions().values()) if fusion.operator}


def layers(graph: ir.Graph, known: Known) -> Iterator[tuple[str, list[ir.Node]]]:
    """The nodes of interest, by layer."""
    things = [node for node in graph if known.shows(node) or known.stands_for(node)]
    found: list[list[ir.Node]] = [[]]
    for at, node in enumerate(things):
        led = len(found) > 1 and len(found[-1]) == 1 and known.leads(found[-1][0])
        leads = at + 1 < len(things) and known.attends(things[at + 1]) and known.leads(node)
        if leads or (known.attends(node) and not led):
            found.append([])
        found[-1].append(node)
    for number, nodes in enumerate(found):
        yield named(number - 1), nodes


def named(number: int, count: int = 1) -> str:
    """A layer by its number, or so many from there; -1 is what comes before the first."""
    return BEFORE if number < 0 else f"layer {number}" if count < 2 else f"layers {number} to {number + count - 1}"


def _numbers(name: str) -> tuple[int, int] | None:
    """The first and the last number of what ``named`` names; None of any other name."""
    found = re.fullmatch(r"layers? ([0-9]{1,9})(?: to ([0-9]{1,9}))?", name)
    return None if found is None else (int(found[1]), int(found[2] or found[1]))


def in_order(names: Iterable[str]) -> list[str]:
    """Names of layers, once each, in the model's order; several in one come behind the last of them."""

    def place(name: str) -> tuple[float, int]:
        if (numbers := _numbers(name)) is not None:
            return numbers[1], numbers[1] - numbers[0]
        return {BEFORE: (-1.0, 0), AFTER: (math.inf, 0)}.get(name, (math.inf, 1))

    return sorted(set(names), key=place)


def within(name: str, names: Iterable[str]) -> str:
    """The one of these names that holds most layers, and a layer's or layers' own among them; the name itself where none does."""
    if (own := _numbers(name)) is None:
        return name
    known = {each: numbers for each in in_order(names) if (numbers := _numbers(each)) is not None}
    around = [each for each, (first, last) in known.items() if first <= own[0] and own[1] <= last]
    return max(around, key=lambda each: known[each][1] - known[each][0], default=name)


def homes(graph: ir.Graph) -> dict[ir.Node, str]:
    """The layer of every node of a graph, which may hold what no rule knows: also the embeddings, and the head.

    What every way to the outputs leads through one attention is of its layer: its projections, the norm before these. What comes
    after an attention is of its layer up to the next one. The head is what follows the last layer's counterpart of the end of
    the layer before, and what nothing else reads; of one layer alone it is not told apart, unless it is one operator. Whole
    layers that are one stand together, as "layers 0 to 11".
    Without any attention, names of modules tell, in the names of nodes, values or weights; where these do not, the layer is
    "other".
    """
    known = Known(counted_things())
    softmaxes = [node for node in graph if node.op_type.endswith("Softmax")]  # those in integers, too
    attending = {node for node in graph if known.attends(node)} - {*softmaxes} | {_weighing(node) for node in softmaxes}
    marks = [node for node in graph if node in attending]
    if not marks:
        return {node: _by_name(node) for node in graph}
    sources = {node: [*_sources(node)] for node in graph}
    behind, towards = _behind(sources, marks), _towards(sources, marks)
    level = {node: at if at >= 0 else behind[node] - 1 for node, at in towards.items()}
    for node in graph:  # nothing is of an earlier layer than what it reads
        level[node] = max([level[node], *(level[source] for source in sources[node])])
    count = len(marks)
    before = [node for node in graph if level[node] == behind[node] - 1 == count - 2 and towards[node] < 0]
    last = [node for node in graph if behind[node] == count]
    level |= dict.fromkeys(_head(marks, before, last), count)
    read = {source for each in sources.values() for source in each}
    elsewhere = {node: any(value.is_graph_output() for value in node.outputs) for node in graph}
    for node in reversed(graph):
        if behind[node] < count and node in read and not elsewhere[node] and node not in attending:
            level[node] = count
        for source in sources[node]:
            elsewhere[source] |= level[node] < count
    names = {-1: BEFORE, count: AFTER} | dict(enumerate(_names(marks)))
    return {node: names[level[node]] for node in graph}


def _names(marks: Sequence[ir.Node]) -> Iterator[str]:
    """Of each attention, its layer's; of a node that computes several layers, theirs."""
    number = 0
    for mark in marks:
        count = functions.layers(mark) or 1
        yield named(number, count)
        number += count


def _weighing(softmax: ir.Node) -> ir.Node | None:
    """The product of what a softmax gives with the values, where attention ends; None of a classifier's softmax."""
    values = list(softmax.outputs)
    for _ in range(REACH):
        users = [user for value in values for user, _ in value.uses()]
        for user in users:
            if _is_linear(user) and all(value is None or value.producer() is not None for value in user.inputs[:2]):
                return user
        values = [value for user in users if not _is_linear(user) for value in user.outputs]
    return None


def _is_linear(node: ir.Node) -> bool:
    return node.op_type == "Linear" or any(word in node.op_type for word in ("MatMul", "Gemm", "Einsum"))


def _sources(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes of the same graph that a node reads, also from inside its bodies."""
    bodies = [attr.as_graph() for attr in node.attributes.values() if attr.type == ir.AttributeType.GRAPH]
    inside = [value for body in bodies for each in body.all_nodes() for value in each.inputs]
    for value in (*node.inputs, *inside):
        source = None if value is None else value.producer()
        if source is not None and source.graph is node.graph:
            yield source


Sources = Mapping[ir.Node, Sequence[ir.Node]]
"""Of each node of a graph, in their order, the nodes that it reads."""


def _behind(sources: Sources, marks: Sequence[ir.Node]) -> dict[ir.Node, int]:
    """Of each node, how many of ``marks`` come before it, by the last one that it depends on."""
    passed = {mark: at + 1 for at, mark in enumerate(marks)}
    behind: dict[ir.Node, int] = {}
    for node in sources:
        behind[node] = max((passed.get(source, behind[source]) for source in sources[node]), default=0)
    return behind


def _towards(sources: Sources, marks: Sequence[ir.Node]) -> dict[ir.Node, int]:
    """Of each node, the number of the mark that every way from it to the outputs meets first; -1 where there is none, and where
    that mark has residuals inside, which are ways past its attention. Who reads sizes alone is on no way."""
    met: dict[ir.Node, set[int]] = {node: set() for node in sources}
    towards = {mark: at for at, mark in enumerate(marks)}
    for node in reversed([*sources]):
        if node not in towards:
            met[node] |= {-1} if any(value.is_graph_output() for value in node.outputs) else set()
            towards[node] = met[node].pop() if len(met[node]) == 1 else -1
        if node.op_type not in SIZES:
            for source in sources[node]:
                met[source].add(-1 if functions.layers(node) else towards[node])
    return towards


def _kind(node: ir.Node) -> str:
    """What tells the parts of a layer apart, whatever precision they are in."""
    return "linear" if _is_linear(node) else NORM if "LayerNormalization" in node.op_type else ""


def _kinds(nodes: Iterable[ir.Node]) -> list[str]:
    return [kind for kind in map(_kind, nodes) if kind]


def _rest(kinds: Sequence[str], trailing: Iterable[ir.Node], last: Sequence[ir.Node]) -> Sequence[ir.Node]:
    """Of what follows the last attention, what comes behind its layer, which ends as the one before does: with parts of these
    kinds, and nodes like these behind the last of them; else none."""
    steps = [at for at, node in enumerate(last) if _kind(node)][: len(kinds)]
    if not kinds or [_kind(last[at]) for at in steps] != kinds:
        return ()
    left, at = Counter(node.op_type for node in trailing), steps[-1] + 1
    while at < len(last) and left[last[at].op_type]:
        left[last[at].op_type] -= 1
        at += 1
    return last[at:]


def _head(marks: Sequence[ir.Node], before: Sequence[ir.Node], last: Sequence[ir.Node]) -> Sequence[ir.Node]:
    """Of what follows the last attention, what is behind its layer; ``before`` is what follows the one before, in its layer."""
    if functions.layers(marks[-1]):
        return last
    if len(marks) > 1 and functions.layers(marks[-2]):
        return _rest(IN_ENCODER[marks[-2].attributes["order"].as_string()], (), last)
    ends = max((at for at, node in enumerate(before) if _kind(node)), default=-1) + 1
    return _rest(_kinds(before), before[ends:], last)


def _by_name(node: ir.Node) -> str:
    weights = [value.name for value in node.inputs if value is not None and value.is_initializer()]
    for name in (node.name, *(value.name for value in node.outputs), *weights):
        if found := NUMBERED.search(name or ""):
            return named(int(found[1]))
    return OTHER
