"""An If whose condition is known takes the branch that runs: its nodes stand where the If was.

TorchScript writes an If for a question about shapes that only the model's own sizes answer (``if query.shape != key.shape``).
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxfuse.io.names import name_apart
from onnxfuse.normalize.structure import held, replace_node
from onnxfuse.rewrite.analysis import stored
from onnxfuse.rewrite.passes import Context, Pass, Result


@dataclass(frozen=True)
class InlineBranches:
    """Put the nodes of the branch that runs in the place of every If whose condition is a constant, in nested graphs too.

    A condition that follows from shapes is a constant once it is folded.

    ``then``: passes for what was in a branch and stands in the main graph now.
    """

    then: tuple[Pass, ...] = ()
    name: str = "inline-branches"

    def apply(self, model: ir.Model, context: Context) -> Result:
        if not inline_branches(model):
            return Result(False)
        context.forget()  # the shapes of what was an If's output may be known now
        for each in self.then:
            context.apply(each, model)
        return Result(True)


def inline_branches(model: ir.Model) -> int:
    """Replace every If whose condition is a constant by the branch that runs. Returns how many."""
    count = 0
    while found := _decided(model):
        if not count:
            name_apart(model)  # a branch's names meet those of the graph around it
        _inline(model, *found)
        count += 1
    return count


def _decided(model: ir.Model) -> tuple[ir.Node, ir.Graph, ir.Graph] | None:
    """An If with the branch that runs and the one that never does; None when no condition is known."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            if node.op_type == "If" and not node.domain and (condition := _condition(node.inputs[0])) is not None:
                both = node.attributes["then_branch"].as_graph(), node.attributes["else_branch"].as_graph()
                return node, both[not condition], both[condition]
    return None


def _condition(value: ir.Value | None) -> bool | None:
    """What a condition is; None where that is not known. Graphs inside nodes keep their Constant nodes."""
    node = None if value is None else value.producer()
    tensor = stored(value) if node is None else held(node)
    return None if tensor is None or tensor.size != 1 else bool(tensor.numpy().reshape(()))


def _inline(model: ir.Model, node: ir.Node, runs: ir.Graph, never: ir.Graph) -> None:
    """Move what a branch holds in front of its If, and have its outputs read instead."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    given = tuple(runs.outputs)
    runs.outputs.clear()
    for initializer in tuple(runs.initializers.values()):  # one that is the branch's output was not lifted
        del runs.initializers[initializer.name or ""]
        model.graph.register_initializer(initializer)
    moved = tuple(runs)
    runs.remove(moved)
    graph.insert_before(node, moved)
    for unused in tuple(never.all_nodes()):
        for at in range(len(unused.inputs)):
            unused.replace_input_with(at, None)  # else values outside would count as read
    replace_node(graph, node, zip(tuple(node.outputs), given, strict=True))
