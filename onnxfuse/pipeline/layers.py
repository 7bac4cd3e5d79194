"""Which layer each node of a model belongs to: what ``explain`` looks for by what it is, the others by their neighbours."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxfuse.pipeline.explain import things_by_layer

EMBEDDINGS, HEAD = "embeddings", "head"


def by_layer(graph: ir.Graph) -> dict[ir.Node, str]:
    """The layer of every node of a graph, in the graph's order: "embeddings", "layer 0", ..., "head".

    A node between two layers belongs to the later one, as projections in front of attention do; what adds two values that
    change, a residual, to the earlier one. What several layers read and no layer made (a mask) belongs to what is before
    all of them. Behind the last thing of the last layer there is the head.
    """
    groups = list(things_by_layer(graph))
    known = {node: number for number, (_, nodes) in enumerate(groups) for node in nodes}
    nodes, last = list(graph), len(groups) - 1
    lowest = dict[ir.Node, int]()
    for node in nodes:
        before = [lowest[maker] for maker in _makers(node) if maker in lowest]
        lowest[node] = known.get(node, max(before, default=0))
    highest = dict[ir.Node, int]()
    for node in reversed(nodes):
        after = [highest[user] for value in node.outputs for user, _ in value.uses() if user in highest]
        apart = lowest[node] == 0 and len(set(after)) > 1
        highest[node] = known.get(node, 0 if apart else min(after, default=last))
    found, behind = dict[ir.Node, str](), _behind(nodes, known, last) if last else set()
    for node in nodes:
        residual = node.op_type in ("Add", "Sum") and len(_makers(node)) > 1
        number = known.get(node, lowest[node] if residual else highest[node])
        found[node] = HEAD if node in behind else groups[number][0]
    return found


def in_order(layers: Iterable[str]) -> list[str]:
    """Names of layers, once, as the model has them: "embeddings", "layer 0", ..., "head"."""

    def place(name: str) -> tuple[int, int]:
        return (0, 0) if name == EMBEDDINGS else (2, 0) if name == HEAD else (1, int(name.rpartition(" ")[2]))

    return sorted(set(layers), key=place)


def _makers(node: ir.Node) -> list[ir.Node]:
    return [maker for value in node.inputs if value is not None and (maker := value.producer()) is not None]


def _behind(nodes: list[ir.Node], known: dict[ir.Node, int], last: int) -> set[ir.Node]:
    """What reads nothing of the last layer's things but their end, and comes before none of them."""
    things = {node for node, number in known.items() if number == last}
    before = set(things)
    for node in reversed(nodes):
        if any(user in before for value in node.outputs for user, _ in value.uses()):
            before.add(node)
    after = set(things)
    for node in nodes:
        if any(maker in after for maker in _makers(node)):
            after.add(node)
    return {node for node in nodes if node in after and node not in before}
