"""Shape inference for operators that have no law here: ONNX's own for standard ones, ONNX Runtime's for its own.

A node is put into a model by itself. Sizes that are not numbers go in as named dimensions and come back under their names;
those that inference makes up are fresh, equal to nothing else.

Source: ``onnx.shape_inference``; ONNX Runtime tells the shapes of a session's outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import onnx
import onnx.shape_inference
import onnx_ir as ir
import onnxruntime as ort

if TYPE_CHECKING:
    from onnxfuse.rewrite.analysis import Dim, ValueInfo

Size = int | str | None
"""A number, a named dimension, or unknown; so is a name that was made up."""

Told = tuple[ir.DataType | None, tuple[Size, ...] | None]
"""What inference tells of an output: its type and its sizes; None is unknown."""

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

IR_VERSION = 10


class Inference:
    """Asks for the outputs of one node at a time, and remembers what it was told: equal layers ask equal questions.

    Args:
        opset: of the default domain.
    """

    def __init__(self, opset: int) -> None:
        self._imports = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(MICROSOFT, 1)]
        self._known: dict[bytes, tuple[Told, ...]] = {}

    def outputs(
        self, node: ir.Node, inputs: Sequence[tuple[ir.Value, ValueInfo, ir.TensorProtocol | None]], names: dict[Dim, str]
    ) -> tuple[Told, ...]:
        """What is known of each output of ``node``.

        Args:
            inputs: what it reads, its subgraphs included; each with its fact, and its content where that is a small constant.
            names: receives a name for each size that is not a number.
        """
        question = self._question(node, inputs, names)
        key = question.SerializeToString(deterministic=True)
        if key not in self._known:
            self._known[key] = _ask(question, node.domain)
        return self._known[key]

    def _question(
        self, node: ir.Node, inputs: Sequence[tuple[ir.Value, ValueInfo, ir.TensorProtocol | None]], names: dict[Dim, str]
    ) -> onnx.ModelProto:
        """A model of this node alone, under names that depend on nothing but their order."""
        own = {value.name or "": f"v{at}" for at, (value, _, _) in enumerate(inputs)}
        proto = ir.to_proto(node)
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
                tensor = ir.to_proto(content)
                tensor.name = own[value.name or ""]
                graph.initializer.append(tensor)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in proto.output)
        return onnx.helper.make_model(graph, opset_imports=self._imports, ir_version=IR_VERSION, producer_name="onnxfuse")


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


def _ask(question: onnx.ModelProto, domain: str) -> tuple[Told, ...]:
    return tuple(_by_runtime(question)) if domain == MICROSOFT else tuple(_by_onnx(question))


def _by_onnx(question: onnx.ModelProto) -> Iterator[Told]:
    try:
        graph = onnx.shape_inference.infer_shapes(question, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        graph = question.graph  # it is the node's own fault, or of a kind that inference does not follow: nothing is told
    for value in graph.output:
        kind = value.type.tensor_type
        dtype = ir.DataType(kind.elem_type) if kind.elem_type else None
        sizes = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim)
        yield dtype, sizes if kind.HasField("shape") else None


TYPES = {name.lower(): ir.DataType(kind) for name, kind in onnx.TensorProto.DataType.items() if kind}
"""ONNX Runtime's names of types: tensor(float) and so on."""


def _by_runtime(question: onnx.ModelProto) -> Iterator[Told]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(question.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        yield from [(None, None)] * len(question.graph.output)
        return
    for value in session.get_outputs():
        sizes = tuple(value.shape)
        yield TYPES.get(value.type.removeprefix("tensor(").removesuffix(")")), sizes or None  # it tells scalar and unknown alike
