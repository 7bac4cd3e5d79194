"""The functions that stand in a model for our own operators, so that a runtime without our library runs it too.

Nodes of one operator that need different bodies call different overloads of its function; ONNX Runtime takes the library's
operator where it is there. ``apart`` puts standard operators in the place of ours, for whoever works on these.

Source: ONNX IR version 10 (overloads of functions).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from functools import partial
from typing import Any

import onnx
import onnx_ir as ir

from onnxfuse.native import bodies
from onnxfuse.rewrite import Op
from onnxfuse.rewrite.attributes import plain
from onnxfuse.rewrite.driver import replace
from onnxfuse.rewrite.shapes.native import DOMAIN

OVERLOADS = 10
"""The IR version that brought overloads."""

Keep = Callable[[ir.Node], bool]

Key = tuple[str, Hashable, Hashable]
"""What nodes have in common that need one body: the operator, the types of the inputs that it has, and the attributes."""


def is_ours(node: ir.Node) -> bool:
    """Whether a node is one of our own operators."""
    return node.domain == DOMAIN and node.op_type in bodies.BODIES


def weights_of(node: ir.Node) -> list[int]:
    """The places of a node's weights among its inputs."""
    if node.op_type == "Encoder":
        first, names = len(bodies.INPUTS["Encoder"]), bodies.LAYER
        places = [at for at in range(first, len(node.inputs)) if names[(at - first) % len(names)].endswith("_weight")]
    else:
        places = [at for at, name in enumerate(bodies.INPUTS[node.op_type]) if name == "weight"]
    return places


PRECISIONS = {ir.DataType.FLOAT: "float32", ir.DataType.BFLOAT16: "bfloat16"}
"""What attention's two products are computed in, by type, as our operators call it."""


def attend_in(model: ir.Model, kind: ir.DataType) -> None:
    """Have our own attention multiply in that type, in place: a key of ``PRECISIONS``."""
    for node in model.graph:
        if is_ours(node) and "precision" in node.attributes:
            node.attributes["precision"] = ir.AttrString("precision", PRECISIONS[kind])
    complete(model)


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """A node's attributes as Python's values."""
    return {name: plain(each.value) for name, each in node.attributes.items()}


def complete(model: ir.Model) -> None:
    """Bring a model the functions that its nodes of our operators call, and these alone of ours, in place."""
    for name in [name for name in model.functions if name[0] == DOMAIN]:
        del model.functions[name]
    made: dict[Key, ir.Function] = {}
    for node in model.graph.all_nodes():
        if is_ours(node):
            _bind(node, made, model.opset_imports[""])
    for function in made.values():
        model.functions[function.identifier()] = function
    if made:
        model.opset_imports.setdefault(DOMAIN, 1)
        model.ir_version = max(model.ir_version, OVERLOADS)


def completed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model with the functions of our operators; the one given where it has none of these."""
    if not any(node.domain == DOMAIN for node in proto.graph.node) or any(each.domain == DOMAIN for each in proto.functions):
        return proto
    model = ir.serde.deserialize_model(proto)
    complete(model)
    return ir.serde.serialize_model(model)


def _bind(node: ir.Node, made: dict[Key, ir.Function], opset: int) -> None:
    """Have a node call the function of its body, which is made where it is not there."""
    held = tuple(None if value is None or bodies.is_absent(value) else _kind(value) for value in node.inputs)
    attributes = attributes_of(node)
    key = node.op_type, held, tuple(sorted(attributes.items()))
    if key not in made:
        number = sum(name == node.op_type for name, _, _ in made)
        made[key] = _function(node, attributes, f"{number}" if number else "", opset)
    node.overload = made[key].overload


def _kind(value: ir.Value) -> ir.DataType:
    """The type where it chooses a body: of weights, which are not float."""
    return value.dtype if value.dtype in (ir.DataType.INT8, ir.DataType.BFLOAT16) else ir.DataType.FLOAT


def _function(node: ir.Node, attributes: dict[str, Any], overload: str, opset: int) -> ir.Function:
    """What a node computes. Its attributes are declared, and are in the body as they are."""
    names = [*bodies.INPUTS[node.op_type], *(f"{each}.{at}" for at in range(layers(node)) for each in bodies.LAYER)]
    formal = [
        None if value is None or bodies.is_absent(value) else ir.Value(name=name, type=ir.TensorType(_kind(value)))
        for name, value in zip(names, node.inputs, strict=False)
    ]
    op = Op(ir.Graph([], [], nodes=[], opset_imports={"": opset}), node.op_type)
    result = bodies.body(op, node.op_type, formal, attributes)
    held = [_held(value) for value in op.initializers]
    declared = [ir.Value(name=name) if value is None else value for name, value in zip(names, formal, strict=False)]
    graph = ir.Graph(declared, [result], nodes=[*held, *op.nodes], opset_imports={"": opset}, name=node.op_type)
    wanted = [ir.Attr(name, each.type, None) for name, each in node.attributes.items()]
    return ir.Function(DOMAIN, node.op_type, overload, graph=graph, attributes=wanted)


def layers(node: ir.Node) -> int:
    """How many whole layers a node computes: those of our Encoder, and none of any other."""
    return len(bodies.layers_of(node.inputs)) if is_ours(node) and node.op_type == "Encoder" else 0


def _held(value: ir.Value) -> ir.Node:
    """A node that holds what an initializer does, which functions cannot have, in its place."""
    constant = ir.node("Constant", [], attributes={"value": value.const_value})
    constant.outputs[0].name, value.name = value.name, None
    ir.convenience.replace_all_uses_with(value, constant.outputs[0])
    return constant


def type_of(node: ir.Node) -> ir.DataType:
    """The type of a node's weights, float32 where it has none: of an Encoder one that is not float32, if there is one."""
    types = [_kind(value) for at in weights_of(node) if (value := node.inputs[at]) is not None]
    return next((kind for kind in types if kind != ir.DataType.FLOAT), ir.DataType.FLOAT)


def apart(model: ir.Model, operators: Collection[str] = tuple(bodies.BODIES), keep: Keep = lambda node: False) -> bool:
    """Put the bodies of our operators in their places, in place. Returns whether there was one.

    Args:
        operators: those to take apart.
        keep: whether a node stays.
    """
    found = False
    for operator in ("Encoder", "Linear", "Attention"):  # an Encoder becomes the others
        nodes = [node for node in model.graph if is_ours(node) and node.op_type == operator and not keep(node)]
        for node in nodes if operator in operators else ():
            output = node.outputs[0]
            op = Op(model.graph, output.name or operator)
            write = bodies.layers if operator == "Encoder" else partial(bodies.body, operator=operator)
            replace(model.graph, node, op, write(op, inputs=node.inputs, attributes=attributes_of(node)))
            found = True
    for name in [name for name in model.functions if name[0] == DOMAIN]:
        del model.functions[name]
    return found
