"""Shape inference for operators that have no shape function here: ONNX's own for those that it knows, a runtime's for all others.

A node is put into a model by itself. Sizes that are not numbers go in as named dimensions and come back under their names;
those that inference makes up are fresh, equal to nothing else.

Source: ``onnx.shape_inference``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import onnx
import onnx.checker
import onnx.shape_inference
import onnx_ir as ir

from onnxfuse.errors import one_line

if TYPE_CHECKING:
    from onnxfuse.rewrite.analysis import Dim, ValueInfo

Size = int | str | None
"""A number, a named dimension, or unknown; so is a name that was made up."""

Inferred = tuple[ir.DataType | None, tuple[Size, ...] | None]
"""What inference says of an output: its type and its sizes; None is unknown."""

Infer = Callable[[onnx.ModelProto], Sequence[Inferred]]
"""What a runtime infers of each output of a model of one node; ``runtime.sessions.infer`` is one."""

IR_VERSION = 10


class Inference:
    """Infers the outputs of one node at a time, and remembers them: equal layers ask equal questions.

    Args:
        opsets: of each domain, as the model imports them.
        infer: asked about operators that ONNX does not know; None leaves their outputs unknown.
    """

    def __init__(self, opsets: Mapping[str, int], infer: Infer | None = None) -> None:
        self._opsets = opsets
        self._infer = infer
        self._known: dict[bytes, tuple[Inferred, ...]] = {}

    def outputs(
        self, node: ir.Node, inputs: Sequence[tuple[ir.Value, ValueInfo, ir.TensorProtocol | None]], names: dict[Dim, str]
    ) -> tuple[Inferred, ...]:
        """What is known of each output of ``node``.

        Args:
            inputs: what it reads, its subgraphs included; each with what is known of it, and its content where
                that is a small constant.
            names: receives a name for each size that is not a number.
        """
        question = self._question(node, inputs, names)
        key = question.SerializeToString(deterministic=True)
        if key not in self._known:
            self._known[key] = tuple(self._ask(question, node))
        return self._known[key]

    def _ask(self, question: onnx.ModelProto, node: ir.Node) -> Iterable[Inferred]:
        if onnx.defs.has(node.op_type, node.domain):
            return _by_onnx(question)
        return [(None, None)] * len(node.outputs) if self._infer is None else self._infer(question)

    def refusal(
        self, node: ir.Node, inputs: Sequence[tuple[ir.Value, ValueInfo, ir.TensorProtocol | None]], names: dict[Dim, str]
    ) -> str | None:
        """Why ONNX does not allow such a node on such inputs; None where it does, or does not know the operator."""
        try:
            onnx.shape_inference.infer_shapes(
                self._question(node, inputs, names), check_type=True, strict_mode=True, data_prop=True
            )
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
            return one_line(error, 160)
        return None

    def _question(
        self, node: ir.Node, inputs: Sequence[tuple[ir.Value, ValueInfo, ir.TensorProtocol | None]], names: dict[Dim, str]
    ) -> onnx.ModelProto:
        """A model of this node alone, under names that depend on nothing but their order."""
        own = {value.name or "": f"v{at}" for at, (value, _, _) in enumerate(inputs)}
        proto = ir.serde.serialize_node(node)
        proto.name = ""
        proto.ClearField("metadata_props")
        proto.ClearField("doc_string")
        if not any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            proto.input[:] = [own.get(name, name) for name in proto.input]
        else:
            own = {name: name for name in own}  # a subgraph reads them by the names that they have
            for attribute in proto.attribute:
                _forget_shapes(attribute.g)
        proto.output[:] = [f"out{at}" for at in range(len(proto.output))]
        graph = onnx.GraphProto(name="question", node=[proto])
        for value, info, content in inputs:
            graph.input.append(_typed(own[value.name or ""], info, names))
            if content is not None:
                tensor = ir.serde.serialize_tensor(content)
                tensor.name = own[value.name or ""]
                graph.initializer.append(tensor)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in proto.output)
        return onnx.helper.make_model(
            graph, opset_imports=opset_imports([node], self._opsets), ir_version=IR_VERSION, producer_name="onnxfuse"
        )


def _forget_shapes(graph: onnx.GraphProto) -> None:
    """Take away what a subgraph says of its own shapes: annotations go stale."""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.ClearField("shape")
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        _forget_shapes(attribute.g)


def _typed(name: str, info: ValueInfo, names: dict[Dim, str]) -> onnx.ValueInfoProto:
    proto = onnx.ValueInfoProto(name=name)
    if info.dtype is not None:
        proto.type.tensor_type.elem_type = int(info.dtype)
    for dim in info.shape or ():
        size = proto.type.tensor_type.shape.dim.add()
        if dim.number is not None:
            size.dim_value = dim.number
        else:
            size.dim_param = names.setdefault(dim, f"d{len(names)}")
    if info.shape == ():
        proto.type.tensor_type.shape.SetInParent()
    return proto


def _by_onnx(question: onnx.ModelProto) -> Iterator[Inferred]:
    try:
        graph = onnx.shape_inference.infer_shapes(question, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        graph = question.graph  # it is the node's own fault, or of a kind that inference does not follow: nothing is known
    for value in graph.output:
        kind = value.type.tensor_type
        dtype = ir.DataType(kind.elem_type) if kind.elem_type else None
        sizes = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim)
        yield dtype, sizes if kind.HasField("shape") else None


def opset_imports(nodes: Iterable[ir.Node], opsets: Mapping[str, int]) -> list[onnx.OperatorSetIdProto]:
    """The imports of a model that holds these nodes alone: the standard's domain, and every other that occurs.

    Args:
        opsets: of the model that they stand in; a domain that it does not import is taken at version 1.
    """
    held = {node.domain for node in nodes} | {inner.domain for node in nodes for inner in _inside(node)}
    return [onnx.helper.make_opsetid(domain, opsets.get(domain, 1)) for domain in sorted(held | {""})]


def _inside(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes of a node's subgraphs."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from ir.traversal.RecursiveGraphIterator(attribute.value)
