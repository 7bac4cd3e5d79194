"""Constant folding: what does not depend on the inputs is computed once, here.

Shape arithmetic is read off the facts. Transposed weights stay lazy views of the file. Everything else that is constant
runs once in ONNX Runtime, in one session; what that cannot run is left.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxfuse.files import first_line
from onnxfuse.normalize.structure import is_deterministic
from onnxfuse.rewrite.driver import Trace, remove_dead
from onnxfuse.rewrite.facts import Facts, is_constant
from onnxfuse.storage import LARGE

LARGEST = 1 << 22
"""Elements up to which a computed constant is stored; larger ones (a table expanded for a batch) stay computed."""

STORED_SMALL = {"DequantizeLinear"}
"""Operators that a runtime runs better than it reads their result: an int8 weight stays one."""

PASSED = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.INT16,
          ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64}
"""Types that ONNX Runtime takes and gives as numpy's own. All others but strings are narrower than float32, and pass as it."""

LEFT = "onnxfuse.left"
"""Marks a node that could not be computed: it is not tried again."""


def fold(model: ir.Model, facts: Facts, trace: Trace | None = None) -> int:
    """Replace nodes whose result is known by initializers. Returns how many.

    What gives another result each time, holds a graph, or cannot be computed by ONNX Runtime stays as it is.

    Args:
        trace: receives why a constant could not be computed.
    """
    known: dict[ir.Value, ir.TensorProtocol] = {}
    to_run: list[ir.Node] = []
    pending: set[ir.Value] = set()
    for node in model.graph:
        output = node.outputs[0]
        if len(node.outputs) != 1 or output.is_graph_output() or node.op_type in STORED_SMALL or LEFT in node.meta \
                or not is_deterministic(node, facts.opset):
            continue
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
        known |= _run(to_run, known, facts, trace)
        news = [node.outputs[0] for node in to_run if node.outputs[0] in known and not facts[node.outputs[0]].known]
        facts.forget(news)  # what reads them may know more now
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
    """Whether a value is of known size and type, and small enough to be stored."""
    shape = facts[value].shape
    if shape is None or facts[value].dtype is None or any(dim.number is None for dim in shape):
        return False
    return math.prod(dim.coef for dim in shape) <= LARGEST


Tensors = dict[ir.Value, ir.TensorProtocol]


def _run(nodes: list[ir.Node], known: Tensors, facts: Facts, trace: Trace | None) -> Tensors:
    """What nodes compute, in one session; if ONNX Runtime refuses one, each in its own, and those stay that it refuses."""
    try:
        return _compute(nodes, known, facts)
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
    found: Tensors = {}
    for node in nodes:
        if not all(value is None or value in known or value in found or is_constant(value) for value in node.inputs):
            continue
        try:
            found |= _compute([node], known | found, facts)
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            node.meta[LEFT] = True
            if trace is not None:
                trace.unfolded[node.outputs[0].name or ""] = f"{node.op_type}: {first_line(error)}"
    return found


def _compute(nodes: list[ir.Node], known: Tensors, facts: Facts) -> Tensors:
    """Run nodes in one session. Values get names and types of its own: theirs may be of a kind that numpy does not have."""
    outputs = [node.outputs[0] for node in nodes]
    read = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)
    names = {value: f"v{at}" for at, value in enumerate(dict.fromkeys([*read, *outputs]))}
    graph = onnx.GraphProto(name="constants", node=[_renamed(node, names) for node in nodes])
    feeds = {}
    for value in read.keys() - set(outputs):
        tensor = known.get(value, value.const_value)
        assert tensor is not None
        if tensor.dtype in PASSED:
            feeds[names[value]] = tensor.numpy()
            graph.input.append(onnx.helper.make_tensor_value_info(names[value], int(tensor.dtype), tensor.shape.numpy()))
        else:
            graph.initializer.append(_stored(tensor, names[value]))
    for value in outputs:
        shown = names[value]
        if facts[value].dtype not in PASSED | {ir.DataType.STRING}:
            shown = f"{names[value]}/wide"
            graph.node.append(onnx.helper.make_node("Cast", [names[value]], [shown], to=onnx.TensorProto.FLOAT))
        graph.output.append(onnx.ValueInfoProto(name=shown))
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", facts.opset)], ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = session.run([value.name for value in graph.output], feeds)
    return {value: _tensor(np.asarray(result), facts[value].dtype) for value, result in zip(outputs, results, strict=True)}


def _renamed(node: ir.Node, names: dict[ir.Value, str]) -> onnx.NodeProto:
    proto = ir.to_proto(node)
    proto.input[:] = ["" if value is None else names[value] for value in node.inputs]
    proto.output[:] = [names[value] for value in node.outputs]
    return proto


def _stored(tensor: ir.TensorProtocol, name: str) -> onnx.TensorProto:
    proto = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
    if tensor.dtype == ir.DataType.STRING:
        proto.string_data.extend(tensor.string_data())  # type: ignore[attr-defined]
    else:
        proto.raw_data = tensor.tobytes()
    return proto


def _tensor(array: np.ndarray, dtype: ir.DataType | None) -> ir.TensorProtocol:
    if dtype == ir.DataType.STRING:
        return ir.StringTensor([text.encode() for text in array.reshape(-1)], shape=ir.Shape(array.shape))
    return ir.tensor(array) if dtype is None or dtype in PASSED else ir.tensor(array.astype(dtype.numpy()), dtype=dtype)


def _make_initializer(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    node = value.producer()
    if node is None or node.graph is None:
        return
    name, value.name = value.name, None
    constant = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor)
    graph.register_initializer(constant)
    ir.convenience.replace_all_uses_with(value, constant)
    remove_dead(graph, node)
