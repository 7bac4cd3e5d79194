"""Constant folding: what does not depend on the inputs is computed once, here.

Shape arithmetic is read off the facts. Transposed weights stay lazy views of the file. Everything else that is constant
runs once in ONNX Runtime, in one session.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxfuse.rewrite.driver import remove_dead
from onnxfuse.rewrite.facts import Facts, is_constant
from onnxfuse.storage import LARGE

LARGEST = 1 << 22
"""Elements up to which a computed constant is stored; larger ones (a table expanded for a batch) stay computed."""

RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}

STORED_SMALL = {"DequantizeLinear"}
"""Operators that a runtime runs better than it reads their result: an int8 weight stays one."""


def fold(model: ir.Model, facts: Facts) -> int:
    """Replace nodes whose result is known by initializers. Returns how many."""
    known: dict[ir.Value, ir.TensorProtocol] = {}
    to_run: list[ir.Node] = []
    pending: set[ir.Value] = set()
    for node in model.graph:
        if node.domain or len(node.outputs) != 1 or node.op_type in RANDOM | STORED_SMALL or node.outputs[0].is_graph_output():
            continue
        output = node.outputs[0]
        tensor = _known_integers(facts, output) or _transposed(node, facts)
        if tensor is not None:
            known[output] = tensor
        elif _doubles(node):
            continue
        elif node.inputs and _small(facts, output) and all(
                value is None or value in pending or value in known or is_constant(value) for value in node.inputs):
            to_run.append(node)
            pending.add(output)
    if to_run:
        known |= _run(to_run, known, facts.opset)
    for value, tensor in known.items():
        _make_initializer(model.graph, value, tensor)
    return len(known)


def _known_integers(facts: Facts, value: ir.Value) -> ir.TensorProtocol | None:
    fact = facts[value]
    if fact.data is None or fact.shape is None or fact.dtype is None:
        return None
    if any(item.number is None for item in fact.data):
        return None
    array = np.array([item.coef for item in fact.data], dtype=fact.dtype.numpy())
    return ir.tensor(array.reshape([dim.coef for dim in fact.shape]))


def _transposed(node: ir.Node, facts: Facts) -> ir.TensorProtocol | None:
    """A transposed weight, computed when read; a weight with other readers is not doubled."""
    weight = node.inputs[0] if node.op_type == "Transpose" else None
    if weight is None or weight.const_value is None or not is_constant(weight) or len(weight.uses()) > 1:
        return None
    source = weight.const_value
    sizes = source.shape.numpy()
    perm = node.attributes.get_ints("perm", list(range(len(sizes)))[::-1])
    shape = ir.Shape([sizes[i] for i in perm])
    return ir.LazyTensor(lambda: ir.tensor(np.ascontiguousarray(source.numpy().transpose(perm))), source.dtype, shape)


def _doubles(node: ir.Node) -> bool:
    """Whether folding would store a second copy of a weight that others read as it is (tied embeddings)."""
    weight = node.inputs[0] if node.op_type == "Transpose" else None
    return weight is not None and len(weight.uses()) > 1 and weight.const_value is not None and weight.const_value.nbytes >= LARGE


def _small(facts: Facts, value: ir.Value) -> bool:
    shape = facts[value].shape
    if shape is None or any(dim.number is None for dim in shape):
        return False
    return math.prod(dim.coef for dim in shape) <= LARGEST


def _run(nodes: list[ir.Node], known: dict[ir.Value, ir.TensorProtocol], opset: int) -> dict[ir.Value, ir.TensorProtocol]:
    outputs = [node.outputs[0] for node in nodes]
    made = set(outputs)
    sources = {value for node in nodes for value in node.inputs if value is not None and value not in made}
    tensors = {value.name or "": known.get(value) or value.const_value for value in sources}
    feeds = {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
              for name, array in feeds.items()]
    graph = onnx.helper.make_graph([ir.to_proto(node) for node in nodes], "constants", inputs,
                                   [onnx.ValueInfoProto(name=value.name) for value in outputs])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = session.run([value.name for value in outputs], feeds)
    return {value: ir.tensor(np.asarray(result)) for value, result in zip(outputs, results, strict=True)}


def _make_initializer(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    node = value.producer()
    if node is None or node.graph is None:
        return
    name, value.name = value.name, None
    constant = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor)
    graph.register_initializer(constant)
    ir.convenience.replace_all_uses_with(value, constant)
    remove_dead(graph, node)
