"""A float32 model in half precision: its nodes one by one as float16, or its weights alone as bfloat16.

A converter of the ecosystem (onnxconverter-common 1.16) was tried first: it leaves the type of a model's own casts as it is,
gives one weight to nodes of both types, and knows no runtime's operators, so that no fused model of ours came out whole.

Source: ONNX's Cast, and the range of IEEE 754 half precision.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx_ir as ir

from onnxfuse.half.types import Places, infer_types, places
from onnxfuse.native import functions

LARGEST = float(np.finfo(np.float16).max)
"""65504: what is larger is infinite in float16."""

SMALLEST = np.finfo(np.float16).smallest_subnormal

SUFFIX = {ir.DataType.FLOAT16: "_float16", ir.DataType.FLOAT: "_float32", ir.DataType.BFLOAT16: "_bfloat16"}

FEW = 1024
"""Numbers of a weight that is not worth a cast."""


def key_of(node: ir.Node) -> str:
    """What tells a node from others, also in a copy of its model: its first output."""
    return node.outputs[0].name or ""


def halvable(model: ir.Model) -> dict[str, Places]:
    """The nodes that float16 can be the type of, by their keys."""
    infer_types(model)
    found = {key_of(node): places(node, model.opset_imports.get(node.domain, 1)) for node in model.graph}
    return {key: chosen for key, chosen in found.items() if chosen}


def fit_masks(model: ir.Model) -> None:
    """Have a float32 model compute with masks as its float16 form does, in place: see ``as_float16``."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.size == 1:
            value.const_value = ir.tensor(as_float16(tensor.numpy()).astype(np.float32), name=value.name)


def to_float16(model: ir.Model, kept: Collection[str] = (), *, io: bool = False) -> int:
    """Make a model's nodes float16, in place; casts stand where float32 begins and ends. Weights go with their readers.

    Args:
        kept: keys of nodes that stay float32, beside those that cannot be float16.
        io: whether float32 inputs and outputs become float16, too.

    Returns:
        How many nodes are float16.
    """
    chosen = {key: each for key, each in halvable(model).items() if key not in kept}
    _Conversion(model.graph, chosen).run(io=io)
    return len(chosen)


def to_bfloat16(model: ir.Model) -> int:
    """Store a model's weights as bfloat16, in place, a cast behind each; nodes stay float32: ONNX Runtime has no others on CPUs.

    Our own operators read them without a cast, and compute in bfloat16.

    Returns:
        How many weights there are.
    """
    graph, count = model.graph, 0
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < FEW or value.is_graph_output():
            continue
        uses = list(value.uses())
        own = [use for use in uses if functions.is_ours(use.node) and use.idx in functions.weights_of(use.node)]
        if len(own) < sum(functions.is_ours(use.node) for use in uses):
            continue  # what else they read is float32
        stored = _weight(value, ir.DataType.BFLOAT16)
        for use in own:
            use.node.replace_input_with(use.idx, stored)
        del graph.initializers[value.name or ""]
        graph.initializers.add(stored)
        if rest := [use for use in uses if use not in own]:
            cast = _cast(stored, ir.DataType.FLOAT, value.name or "")
            graph.insert_before(graph[0], cast)
            for use in rest:
                use.node.replace_input_with(use.idx, cast.outputs[0])
        count += 1
    functions.attend_in(model, ir.DataType.BFLOAT16)
    return count


class _Conversion:
    """``chosen``: the nodes to be float16, by their keys, with the inputs and outputs that change."""

    def __init__(self, graph: ir.Graph, chosen: Mapping[str, Places]) -> None:
        self.graph, self.chosen = graph, chosen
        self.made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        outputs = (value for node in graph for value in node.outputs)
        every = (*graph.inputs, *graph.initializers.values(), *outputs)
        self.floats = {value for value in every if value.dtype == ir.DataType.FLOAT}
        self.results = [at for at, value in enumerate(graph.outputs) if value in self.floats]

    def run(self, *, io: bool) -> None:
        nodes = list(self.graph)
        if io:
            for value in self.floats & set(self.graph.inputs):
                value.type = ir.TensorType(ir.DataType.FLOAT16)
        for node in nodes:
            if outputs := self.chosen.get(key_of(node), Places()).outputs:
                _retype(node)
                for at in outputs:
                    node.outputs[at].type = ir.TensorType(ir.DataType.FLOAT16)
        for node in nodes:
            half = self.chosen.get(key_of(node), Places()).inputs
            for at in range(len(node.inputs)):
                self._feed(node, at, ir.DataType.FLOAT16 if at in half else ir.DataType.FLOAT)
            for inner in _inside(node):
                for at in range(len(inner.inputs)):
                    self._feed(inner, at, ir.DataType.FLOAT)
        for at in self.results:
            self._give(at, ir.DataType.FLOAT16 if io else ir.DataType.FLOAT)
        for value in list(self.graph.initializers.values()):
            self._share(value)
        for name, value in list(self.graph.initializers.items()):
            if value in self.floats and not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]

    def _feed(self, node: ir.Node, at: int, wanted: ir.DataType) -> None:
        """Have a node read what it did in the type that it wants."""
        value = node.inputs[at]
        if value is not None and value in self.floats and value.dtype != wanted:
            node.replace_input_with(at, self._as(value, wanted))

    def _as(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """A value in another type: a weight, or what a cast gives."""
        if (value, wanted) not in self.made:
            name = f"{value.name}{SUFFIX[wanted]}"
            if value.const_value is not None and value.is_initializer():
                self.made[value, wanted] = weight = _weight(value, wanted)
                self.graph.initializers.add(weight)
            else:
                cast, producer = _cast(value, wanted, name), value.producer()
                if producer is None:
                    self.graph.insert_before(self.graph[0], cast)
                else:
                    self.graph.insert_after(producer, cast)
                self.made[value, wanted] = cast.outputs[0]
        return self.made[value, wanted]

    def _share(self, value: ir.Value) -> None:
        """Have graphs inside nodes read a weight that is float16 here from that, behind a cast, so that it is stored once."""
        half, tensor = self.made.get((value, ir.DataType.FLOAT16)), value.const_value
        inside = [use for use in value.uses() if use.node.graph is not self.graph]
        if half is None or tensor is None or not inside or np.abs(tensor.numpy()).max(initial=0.0) > LARGEST:
            return
        cast = _cast(half, ir.DataType.FLOAT, f"{half.name}{SUFFIX[ir.DataType.FLOAT]}")
        self.graph.insert_before(self.graph[0], cast)
        for use in inside:
            use.node.replace_input_with(use.idx, cast.outputs[0])

    def _give(self, at: int, wanted: ir.DataType) -> None:
        """An output of the model in the type that it has to be, by its own name."""
        value = self.graph.outputs[at]
        if value.dtype == wanted or value.producer() is None:
            return
        name = value.name or ""
        value.name = f"{name}{SUFFIX[value.dtype or wanted]}"
        cast = _cast(value, wanted, name)
        self.graph.append(cast)
        self.graph.outputs[at] = cast.outputs[0]


def _retype(node: ir.Node) -> None:
    """What an operator's attributes say of its output's type."""
    if node.op_type == "Cast":
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16.value)
    elif node.op_type == "ConstantOfShape":
        filled = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else np.zeros(1, np.float32)
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(as_float16(filled)))


def _inside(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes of a node's own graphs, and of theirs."""
    for attribute in node.attributes.values():
        graphs = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []
        graphs += attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else []
        for graph in graphs:
            yield from ir.traversal.RecursiveGraphIterator(graph)


def _weight(value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """A weight in another type, under a name that says so."""
    assert value.const_value is not None
    array = value.const_value.numpy()
    made = as_float16(array) if dtype == ir.DataType.FLOAT16 else array.astype(dtype.numpy())
    name = f"{value.name}{SUFFIX[dtype]}"
    tensor = ir.Tensor(made, dtype=dtype, name=name)
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape, const_value=tensor)


def as_float16(array: np.ndarray) -> np.ndarray:
    """Numbers as float16: finite ones stay finite, and none becomes zero that is not.

    One below the range that stands alone is what a mask adds to scores. It becomes a quarter of the lowest: a score added to it,
    or another mask, stays finite, and its softmax is zero as before.
    """
    if array.size == 1 and np.isfinite(array).all() and array.min() < -LARGEST:
        return np.full_like(array, -LARGEST / 4, np.float16)
    fits = np.where(np.isfinite(array), np.clip(array, -LARGEST, LARGEST), array).astype(np.float16)
    lost = (fits == 0) & (array != 0)
    return np.where(lost, np.copysign(SMALLEST, array).astype(np.float16), fits) if lost.any() else fits


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    output = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype.value)], outputs=[output], name=f"{name}_cast")
