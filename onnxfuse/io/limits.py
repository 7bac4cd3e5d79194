"""How large a stranger's graph may be, and whether its tensors hold what they say: counted before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

import onnx
import onnx_ir as ir

from onnxfuse.errors import ModelError
from onnxfuse.io.repair import graphs, inner_tensors, nodes_of

NODES = 100_000
"""Of a model, its functions put where they are called: the encoders of this world have up to five thousand."""

ENDS = 1000
"""Inputs, or outputs: one that shows all its layers' attention has a hundred."""

RANK = 64
"""Axes of a tensor: numpy's limit."""

AXIS = (1 << 31) - 1
"""Length of an axis of an input: products of two of them still have 64 bits."""

DENSE = 1 << 28
"""Bytes of a sparse tensor once it is dense: it may say any size."""


TYPES = frozenset(int(dtype) for dtype in ir.DataType) - {int(ir.DataType.UNDEFINED)}


def require_modest(proto: onnx.ModelProto) -> None:
    """Refuse a graph that nothing here could walk in time, or whose tensors are not what they say.

    Raises:
        ModelError: in words that follow the file's name.
    """
    every = list(graphs(proto))
    for body in (*every, *proto.functions):
        if len(body.node) > NODES:
            raise ModelError(f"a graph of {len(body.node)} nodes, at most {NODES} are read")
    if (count := expanded(proto)) > NODES:
        raise ModelError(f"more than {NODES} nodes once its functions are inlined ({min(count, 10**9)} and more), too many")
    for graph in every:
        for value in (*graph.input, *graph.output, *graph.value_info):
            _require_shape(value)
        for value in graph.input:
            if (size := max((dim.dim_value for dim in value.type.tensor_type.shape.dim), default=0)) > AXIS:
                raise ModelError(f"{value.name!r} with an axis of {size}, at most {AXIS} are read")
    for node in (node for body in (*every, *proto.functions) for node in body.node):
        if node.op_type == "Constant" and not node.domain and len(node.attribute) != 1:
            raise ModelError(
                f"Constant {node.output[:1]} with {len(node.attribute)} attributes, wanted the one that is its value"
            )
    named = {tensor.name for tensor in proto.graph.initializer}
    given = sum(value.name not in named for value in proto.graph.input)
    if max(given, len(proto.graph.output)) > ENDS:
        raise ModelError(f"a graph of {given} inputs and {len(proto.graph.output)} outputs, at most {ENDS} are read")
    for value in proto.graph.input:
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type not in TYPES:
            raise ModelError(f"input {value.name!r} of type number {value.type.tensor_type.elem_type}, which ONNX has not")
    for tensor in (*proto.graph.initializer, *inner_tensors(proto)):
        require_whole(tensor)
    for sparse in sparse_tensors(proto):
        wanted = math.prod(sparse.dims) * itemsize(sparse.values)
        if not 0 <= wanted <= DENSE or len(sparse.dims) > RANK:
            raise ModelError(
                f"the sparse tensor {sparse.values.name!r} takes {wanted} bytes when dense, at most {DENSE} are made"
            )


def expanded(proto: onnx.ModelProto) -> int:
    """How many nodes a model has once every call of a function is replaced by its nodes. Raises ModelError for circles."""
    if not proto.functions:
        return sum(len(graph.node) for graph in graphs(proto))
    bodies = {(each.domain, each.name, each.overload): list(nodes_of(each)) for each in proto.functions}
    calls = {key: {_callee(node) for node in body} & bodies.keys() for key, body in bodies.items()}
    sizes: dict[tuple[str, str, str], int] = {}
    try:
        for key in TopologicalSorter(calls).static_order():
            sizes[key] = _size(bodies[key], sizes)
    except CycleError as error:
        raise ModelError(f"the functions {', '.join(name for _, name, _ in error.args[1][1:])}, which call each other") from error
    return _size(nodes_of(proto.graph), sizes)


def _size(nodes: Iterable[onnx.NodeProto], sizes: dict[tuple[str, str, str], int]) -> int:
    return min(sum(sizes.get(_callee(node), 1) for node in nodes), 10**12)


def _callee(node: onnx.NodeProto) -> tuple[str, str, str]:
    return node.domain, node.op_type, node.overload


def _require_shape(value: onnx.ValueInfoProto) -> None:
    shape = value.type.tensor_type.shape
    if len(shape.dim) > RANK:
        raise ModelError(f"{value.name!r} with {len(shape.dim)} axes, at most {RANK} are read")


def require_whole(tensor: onnx.TensorProto) -> None:
    """Refuse a tensor of an unknown type, of impossible sizes, or that holds other bytes than they want; weights elsewhere pass.

    Raises:
        ModelError: in words that follow the file's name.
    """
    called = f"tensor {tensor.name!r}"
    if len(tensor.dims) > RANK or min(tensor.dims, default=0) < 0:
        raise ModelError(f"{called} of sizes {list(tensor.dims)[:8]}, wanted up to {RANK} that are 0 or more")
    bits = itemsize(tensor) * 8
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    count = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        wanted, held, unit = math.ceil(count * bits / 8), len(tensor.raw_data), "bytes"
    else:
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        held, unit = len(getattr(tensor, field)), field.replace("_data", "")
        twice = ir.DataType(tensor.data_type) in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128)
        wanted = math.ceil(count * bits / 8) if 0 < bits < 8 else count * (1 + twice)
    if held != wanted:
        raise ModelError(f"{called} holds {held} {unit}, its sizes {list(tensor.dims)[:8]} want {wanted}")


def itemsize(tensor: onnx.TensorProto) -> float:
    """Bytes of one element; half of one where two share it, 0 for texts. Raises ModelError for a type that ONNX has not."""
    try:
        dtype = ir.DataType(tensor.data_type)
        return 0 if dtype == ir.DataType.STRING else dtype.itemsize
    except (ValueError, TypeError) as error:
        raise ModelError(f"tensor {tensor.name!r} of type number {tensor.data_type}, which ONNX has not") from error


def sparse_tensors(proto: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    """All sparse tensors: initializers, and those in attributes."""
    every = list(graphs(proto))
    for graph in every:
        yield from graph.sparse_initializer
    for body in (*every, *proto.functions):
        for node in body.node:
            for attribute in node.attribute:
                if attribute.HasField("sparse_tensor"):
                    yield attribute.sparse_tensor
                yield from attribute.sparse_tensors
