"""Constant folding: what does not depend on the inputs is computed once, here.

Shape arithmetic is read off the analysis. Transposed weights stay lazy views of the file. Everything else that is constant
runs once in ONNX Runtime, in one session; what that cannot run is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from onnxfuse.errors import ModelError
from onnxfuse.io.wire import LARGE
from onnxfuse.normalize.duplicates import is_deterministic
from onnxfuse.rewrite.analysis import Analysis, ValueInfo, is_constant, stored
from onnxfuse.rewrite.driver import Trace, remove_dead
from onnxfuse.rewrite.inference import opset_imports
from onnxfuse.rewrite.passes import Context, Result
from onnxfuse.rewrite.proof import Prover
from onnxfuse.runtime.sessions import compute

LARGEST = 1 << 22
"""Elements up to which a computed constant is stored; larger ones (a table expanded for a batch) stay computed."""

ROOM, SHARE = 1 << 28, 4
"""Bytes that folding one model may read and make: so many, and so many times its weights. A type made wider takes
three times them."""

STORED_SMALL = {"DequantizeLinear"}
"""Operators that a runtime runs better than it reads their result: an int8 weight stays one."""

PASSED = {
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT16,
    ir.DataType.BOOL,
    ir.DataType.INT8,
    ir.DataType.INT16,
    ir.DataType.INT32,
    ir.DataType.INT64,
    ir.DataType.UINT8,
    ir.DataType.UINT16,
    ir.DataType.UINT32,
    ir.DataType.UINT64,
}
"""Types that ONNX Runtime takes and gives as numpy's own. All others but strings are narrower than float32, and pass as it."""

LEFT = "onnxfuse.left"
"""Marks a node that could not be computed: it is not tried again."""

Tensors = dict[ir.Value, ir.TensorProtocol]


@dataclass(frozen=True)
class FoldConstants:
    """Replace nodes whose result is known by initializers (``fold``)."""

    name: str = "fold-constants"

    def apply(self, model: ir.Model, context: Context) -> Result:
        return Result(fold(model, context.analysis(model), context.trace, context.prover(model)) > 0)


def fold(model: ir.Model, analysis: Analysis, trace: Trace, prover: Prover | None = None) -> int:
    """Replace nodes whose result is known by initializers. Returns how many.

    What gives another result each time, holds a graph, or cannot be computed by ONNX Runtime stays as it is.

    What would read and make more than ``ROOM`` and ``SHARE`` allow stays as well.

    Args:
        trace: receives why a constant could not be computed, and counts the bytes of those that could.
        prover: runs the nodes whose content the analysis knows; where that differs, they stay.
    """
    room = ROOM + SHARE * max(0, _stored_bytes(model) - trace.folded_bytes) - trace.folded_bytes
    known: Tensors = {}
    read_off: Tensors = {}
    to_run: list[ir.Node] = []
    pending: set[ir.Value] = set()
    for node in model.graph:
        output = node.outputs[0]
        if not _may_go(node, analysis):
            continue
        if (integers := _known_integers(analysis, output)) is not None:
            known[output] = read_off[output] = integers
        elif node.op_type == "Transpose" and is_constant(node.inputs[0]):
            if not _doubles(node.inputs[0]):
                known[output] = _transposed(node)
        elif _small(analysis[output]) and all(
            value is None or value in pending or value in known or is_constant(value) for value in node.inputs
        ):
            taken = sum(_bytes(analysis[value]) for value in {output, *node.inputs} if value is not None)
            if taken > room:
                node.meta[LEFT] = True
                trace.unfolded[output.name or ""] = f"{node.op_type}: constants of the model take more than was left to them"
                continue
            room -= taken
            trace.folded_bytes += taken
            to_run.append(node)
            pending.add(output)
    wrong = _refuted(read_off, prover, trace) if prover is not None and read_off else []
    for value in wrong:
        del known[value]
    if to_run and not wrong:  # what is to run may read what is wrong
        known |= _run(to_run, known, analysis, trace)
        analysis.forget(output for output in pending if not analysis[output].known)  # what reads them may know more now
    for value, tensor in known.items():
        _make_initializer(model.graph, value, tensor)
    return len(known)


def _may_go(node: ir.Node, analysis: Analysis) -> bool:
    """Whether a constant could stand in a node's place, whatever its inputs are."""
    shown = len(node.outputs) != 1 or node.outputs[0].is_graph_output()
    return not shown and node.op_type not in STORED_SMALL and LEFT not in node.meta and is_deterministic(node, analysis.opset)


def _refuted(known: Tensors, prover: Prover, trace: Trace) -> list[ir.Value]:
    """The values that are something else than the analysis says, by running their nodes in one session."""
    nodes: list[ir.Node] = []
    feeds: dict[ir.Value, np.ndarray] = {}
    with trace.proving():
        for value in known:
            node = value.producer()
            assert node is not None
            try:
                feeds |= {read: prover.content(read, at) for at, read in enumerate(node.inputs) if read is not None}
                nodes.append(node)
            except ValueError as reason:
                trace.unproven.setdefault(FoldConstants.name, str(reason))
        values = [node.outputs[0] for node in nodes]
        try:
            computed = prover.outputs(nodes, values, {value: array for value, array in feeds.items() if value not in set(values)})
        except ModelError as reason:
            trace.unproven.setdefault(FoldConstants.name, str(reason))
            return []
    wrong = [value for value, array in zip(values, computed, strict=True) if not np.array_equal(array, known[value].numpy())]
    for value in wrong:
        node = value.producer()
        assert node is not None
        node.meta[LEFT] = True
        trace.rejected.setdefault(FoldConstants.name, f"at {value.name}: the analysis says {known[value].numpy().tolist()}")
    return wrong


def _known_integers(analysis: Analysis, value: ir.Value) -> ir.TensorProtocol | None:
    info = analysis[value]
    if info.data is None or any(item.number is None for item in info.data):
        return None
    assert info.shape is not None and info.dtype is not None  # nothing knows the content alone
    array = np.array([item.coef for item in info.data], dtype=info.dtype.numpy())
    return ir.tensor(array.reshape([dim.coef for dim in info.shape]))


def _doubles(weight: ir.Value | None) -> bool:
    """Whether folding would store a second copy of a weight that others read as it is (tied embeddings)."""
    assert weight is not None and weight.const_value is not None
    return len(weight.uses()) > 1 and weight.const_value.nbytes >= LARGE


def _transposed(node: ir.Node) -> ir.TensorProtocol:
    """A transposed weight, computed when read."""
    source = stored(node.inputs[0])
    assert source is not None
    sizes = source.shape.numpy()
    perm = node.attributes.get_ints("perm", list(range(len(sizes)))[::-1])
    shape = ir.Shape([sizes[i] for i in perm])
    return ir.LazyTensor(lambda: ir.tensor(np.ascontiguousarray(source.numpy().transpose(perm))), source.dtype, shape)


def _small(info: ValueInfo) -> bool:
    """Whether a value is of known size, and small enough to be stored."""
    if info.shape is None or any(dim.number is None for dim in info.shape):
        return False
    return math.prod(dim.coef for dim in info.shape) <= LARGEST


def _bytes(info: ValueInfo) -> int:
    """What a value takes; 0 where its size is not known."""
    if info.shape is None or any(dim.number is None for dim in info.shape):
        return 0
    width = 8 if info.dtype is None or info.dtype == ir.DataType.STRING else info.dtype.itemsize
    return math.ceil(math.prod(dim.coef for dim in info.shape) * width)


def _stored_bytes(model: ir.Model) -> int:
    """What the model's weights take."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(0 if tensor is None or tensor.dtype == ir.DataType.STRING else tensor.nbytes for tensor in tensors)


def _run(nodes: list[ir.Node], known: Tensors, analysis: Analysis, trace: Trace) -> Tensors:
    """What nodes compute, in one session; if ONNX Runtime refuses one, each in its own, and those stay that it refuses."""
    together = _try(nodes, known, analysis)
    if not isinstance(together, ModelError):
        return together
    found: Tensors = {}
    refused: set[ir.Value | None] = set()
    for node in nodes:
        output = node.outputs[0]
        if not refused.isdisjoint(node.inputs):
            refused.add(output)
            continue
        result = _try([node], known | found, analysis)
        if isinstance(result, ModelError):
            refused.add(output)
            node.meta[LEFT] = True
            trace.unfolded[output.name or ""] = f"{node.op_type}: {result}"
        else:
            found |= result
    return found


def _try(nodes: list[ir.Node], known: Tensors, analysis: Analysis) -> Tensors | ModelError:
    """What nodes compute, or why ONNX Runtime refuses."""
    try:
        return _compute(nodes, known, analysis)
    except ModelError as error:
        return error


def _compute(nodes: list[ir.Node], known: Tensors, analysis: Analysis) -> Tensors:
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
        if analysis[value].dtype not in PASSED | {ir.DataType.STRING}:
            shown = f"{names[value]}/wide"
            graph.node.append(onnx.helper.make_node("Cast", [names[value]], [shown], to=onnx.TensorProto.FLOAT))
        graph.output.append(onnx.ValueInfoProto(name=shown))
    proto = onnx.helper.make_model(graph, opset_imports=opset_imports(nodes, analysis.opsets), ir_version=10)
    results = compute(proto, feeds)
    return {value: _tensor(np.asarray(result), analysis[value].dtype) for value, result in zip(outputs, results, strict=True)}


def _renamed(node: ir.Node, names: dict[ir.Value, str]) -> onnx.NodeProto:
    proto = ir.serde.serialize_node(node)
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
    assert dtype is not None  # the shape is known, and whatever tells that tells the type of what constants give
    if dtype == ir.DataType.STRING:
        return ir.StringTensor([text.encode() for text in array.reshape(-1)], shape=ir.Shape(array.shape))
    return ir.tensor(array.astype(dtype.numpy(), copy=False), dtype=dtype)


def _make_initializer(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    node = value.producer()
    assert node is not None
    if node.graph is None:  # it fed only what was made an initializer before it
        return
    name, value.name = value.name, None
    constant = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor)
    graph.register_initializer(constant)
    ir.convenience.replace_all_uses_with(value, constant)
    remove_dead(graph, node)
