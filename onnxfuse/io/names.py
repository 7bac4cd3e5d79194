"""Names of values and nodes, each its own."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir


def name_apart(model: ir.Model) -> None:
    """Give every value of a model a name of its own, in place; the inputs and outputs of the main graph keep theirs.

    Values are told apart by what they are while a model is in memory, and by their names in a file: a value that was moved out of
    a graph inside a node, or renamed, must not meet another of that name there. Nodes of one graph get names of their own too.
    """
    kept = {*model.graph.inputs, *model.graph.outputs}
    rest = [
        value
        for graph in (model.graph, *model.graph.subgraphs())
        for value in (*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs))
        if value not in kept and (value.name or value.uses() or value.is_graph_output())
    ]  # an output left out has no name
    taken = Counter(value.name for value in (*kept, *dict.fromkeys(rest)))
    used = {value.name for value in kept}
    for value in dict.fromkeys(rest):
        if not value.name or value.name in used:
            value.name = _free(value.name or "value", taken)
        used.add(value.name)
    for graph in (model.graph, *model.graph.subgraphs()):
        names = Counter(node.name for node in graph)
        for node in [node for node in graph if node.name and names[node.name] > 1]:
            node.name = _free(node.name or "", names)


def _free(name: str, taken: Counter[str | None]) -> str:
    """``name`` with a number that makes it one that is not taken; taken from now on."""
    number = taken[name]
    while f"{name}_{number}" in taken:
        number += 1
    taken.update({name: 1, f"{name}_{number}": 1})
    return f"{name}_{number}"
