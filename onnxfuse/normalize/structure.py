"""Passes that need no pattern: inlining, constants, dead nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from onnxfuse.errors import ModelError, first_line
from onnxfuse.io.names import name_apart
from onnxfuse.native import bodies, functions
from onnxfuse.operators import is_known
from onnxfuse.rewrite.analysis import constant
from onnxfuse.rewrite.passes import Context, Result


@dataclass(frozen=True)
class Inline:
    """Put the nodes of model-local functions where they are called.

    ``own``: whether the target has our own operators. Then those stay that rules do not make anew: attention that is told where
    rows begin, and what is not float32.

    Raises:
        ModelError: a function cannot be inlined, or an operator of ours holds what only a target with these has.
    """

    own: bool = False
    name: str = "inline"

    def apply(self, model: ir.Model, context: Context) -> Result:
        called = bool(model.functions)
        _take_own_apart(model, keep=self.own)
        _inline(model)
        return Result(called)


@dataclass(frozen=True)
class LiftConstants:
    """Make initializers of the main graph of Constant nodes there, and of the initializers of graphs inside nodes."""

    name: str = "lift-constants"

    def apply(self, model: ir.Model, context: Context) -> Result:
        lifted = lift_constants(model.graph)
        return Result(common.LiftSubgraphInitializersToMainGraphPass()(model).modified or lifted > 0)


@dataclass(frozen=True)
class RemoveDropout:
    """Read what a Dropout reads instead: it does nothing at inference."""

    name: str = "remove-dropout"

    def apply(self, model: ir.Model, context: Context) -> Result:
        return Result(_bypass_dropout(model.graph) > 0)


@dataclass(frozen=True)
class RemoveIdentities:
    """Read what an Identity reads instead. Graphs inside nodes keep theirs: what they give is nobody else's to change."""

    name: str = "remove-identities"

    def apply(self, model: ir.Model, context: Context) -> Result:
        return Result(_bypass_identities(model.graph) > 0)


@dataclass(frozen=True)
class RemoveUnused:
    """Remove nodes that nobody reads."""

    name: str = "remove-unused"

    def apply(self, model: ir.Model, context: Context) -> Result:
        return Result(common.RemoveUnusedNodesPass()(model).modified)


@dataclass(frozen=True)
class NameApart:
    """Give values that others have the name of names of their own."""

    name: str = "name-apart"

    def apply(self, model: ir.Model, context: Context) -> Result:
        name_apart(model)
        return Result(False)  # names are no part of what a model is


@dataclass(frozen=True)
class Tidy:
    """Leave what a reader expects (``tidy``)."""

    name: str = "tidy"

    def apply(self, model: ir.Model, context: Context) -> Result:
        tidy(model)
        return Result(True)


def _take_own_apart(model: ir.Model, *, keep: bool) -> None:
    other = next((node for node in model.graph if functions.is_ours(node) and _is_final(node, attention=False)), None)
    if other is not None and not keep:
        kind = functions.type_of(other).name.lower()
        raise ModelError(
            f"{other.op_type} at {other.outputs[0].name} holds {kind} weights, which target native alone takes; choose that "
            f"target, or start from the float32 model that it was made of"
        )
    functions.apart(model, keep=_is_final if keep else lambda node: False)


def _is_final(node: ir.Node, *, attention: bool = True) -> bool:
    """Whether no rule makes an operator of ours anew: its weights are not float32, or (``attention``) it is told where rows
    begin."""
    told = node.op_type == "Attention" and bodies.inputs_of("Attention", node.inputs)["bounds"] is not None
    return functions.type_of(node) != ir.DataType.FLOAT or (attention and told)


def _inline(model: ir.Model) -> None:
    opset = model.opset_imports.get("", 0)
    for name, function in tuple(model.functions.items()):
        own = function.opset_imports.get("", opset)
        changed = {node.op_type for node in function.all_nodes() if not node.domain and _since(node, own) != _since(node, opset)}
        if is_known(function.domain, function.name):
            del model.functions[name]
        elif changed:
            raise ModelError(
                f"function {function.name!r} uses {', '.join(sorted(changed))} of opset {own}, which is another "
                f"operator in the model's own opset {opset}; export it again with one opset"
            )
        elif set(function.inputs) & set(function.outputs):
            raise ModelError(f"function {function.name!r} gives an input back as an output; export the model again")
        else:
            function.opset_imports[""] = opset
    try:
        ir.passes.Sequential(common.InlinePass(), common.RemoveUnusedFunctionsPass())(model)  # type: ignore[no-untyped-call]
    except ir.passes.PassError as error:
        raise ModelError(f"the model's functions cannot be inlined: {first_line(error.__cause__ or error)}") from error


def _since(node: ir.Node, opset: int) -> int:
    """The opset that brought the operator which a node of this opset is; 0 for none."""
    known = onnx.defs.has(node.op_type, opset)
    return onnx.defs.get_schema(node.op_type, opset).since_version if known else 0


def lift_constants(graph: ir.Graph) -> int:
    """Make an initializer of every Constant node, except one whose output is the graph's. Returns how many."""
    count = 0
    for node in graph:
        tensor = held(node)
        if tensor is None or node.outputs[0].is_graph_output():
            continue
        value = node.outputs[0]
        lifted = ir.Value(
            name=value.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        value.name = None
        graph.register_initializer(lifted)
        ir.convenience.replace_all_uses_with(value, lifted)
        graph.remove(node, safe=True)
        count += 1
    return count


NUMBERS = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}


def held(node: ir.Node) -> ir.TensorProtocol | None:
    """What a Constant node holds; None for another node, and for one without: it gave an attribute that a call left out."""
    if node.op_type != "Constant" or node.domain or len(node.attributes) != 1:
        return None
    [(name, attribute)] = node.attributes.items()
    if name == "value":
        return attribute.as_tensor()
    if name in ("value_string", "value_strings"):
        texts = [attribute.value] if name == "value_string" else attribute.value
        content = [text.encode() for text in texts]
        return ir.StringTensor(content, shape=ir.Shape([] if name == "value_string" else [len(content)]))
    return ir.tensor(np.array(attribute.value, dtype=NUMBERS[name]))


def _bypass_identities(graph: ir.Graph) -> int:
    """Read what an Identity reads instead; one stays that gives a graph output a name which nothing else can carry."""
    count = 0
    for node in graph:
        if node.op_type == "Identity" and not node.domain and node.inputs[0] is not None:
            _read_instead(graph, node.outputs[0], node.inputs[0])
            count += not (node.outputs[0].uses() or node.outputs[0].is_graph_output())
    return count


def replace_node(graph: ir.Graph, node: ir.Node, pairs: Iterable[tuple[ir.Value, ir.Value]]) -> None:
    """Remove a node; of each pair the second is read where the first, one of its outputs, was."""
    for old, new in pairs:
        _read_instead(graph, old, new)
        if old.is_graph_output():
            carrier = ir.node("Identity", [new])
            carrier.outputs[0].type, carrier.outputs[0].shape = old.type, old.shape
            graph.insert_before(node, carrier)
            _hand_over(graph, old, carrier.outputs[0])
    graph.remove(node, safe=True)


def _read_instead(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Have every node read ``new`` instead of ``old``.

    If ``old`` is an output of the graph, ``new`` becomes that, by its name; not if it is an input, an initializer or an output
    already.
    """
    for user, at in tuple(old.uses()):
        user.replace_input_with(at, new)
    if old.is_graph_output() and new.producer() is not None and not new.is_graph_output():
        _hand_over(graph, old, new)


def _hand_over(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Make ``new`` the graph output that ``old`` was, with its name, type and shape."""
    new.name, old.name = old.name, None
    new.type, new.shape = old.type, old.shape
    for at, value in enumerate(graph.outputs):
        if value is old:
            graph.outputs[at] = new


def _bypass_dropout(graph: ir.Graph) -> int:
    """Remove Dropouts; returns how many.

    Dropout does nothing at inference: its training_mode is absent or false. One with a used mask or a runtime flag stays.
    """
    count = 0
    for node in graph:
        if node.op_type != "Dropout" or node.domain or node.inputs[0] is None:
            continue
        flag = node.inputs[2] if len(node.inputs) > 2 else None
        known = constant(flag)
        training = flag is not None and (known is None or bool(known))
        if not training and not gives_mask(node):
            replace_node(graph, node, [(node.outputs[0], node.inputs[0])])
            count += 1
    return count


def gives_mask(node: ir.Node) -> bool:
    """Whether a node of the standard's domain is a Dropout whose mask is read."""
    mask = node.outputs[1] if node.op_type == "Dropout" and len(node.outputs) > 1 else None
    return mask is not None and (bool(mask.uses()) or mask.is_graph_output())


def tidy(model: ir.Model) -> None:
    """Leave what a reader expects: sorted nodes, opsets that are used and declared, no stale annotations."""
    for node in model.graph:
        model.opset_imports.setdefault(node.domain, 1)
        for value in node.outputs:
            if not value.is_graph_output():
                value.type = value.shape = None
    ir.passes.Sequential(common.TopologicalSortPass(), common.RemoveUnusedOpsetsPass())(model)
    forget_origins(model)


def forget_origins(model: ir.Model) -> None:
    """Drop the exporter's notes on each node: stack traces with paths of the machine it ran on, a megabyte of them."""
    common.ClearMetadataAndDocStringPass()(model)
