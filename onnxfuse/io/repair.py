"""Models that ONNX Runtime runs and the standard does not allow, made standard: in memory, before anything reads them.

Every repair is exact, and is what ONNX Runtime itself takes the model for. What it refuses too is left, for the checker to name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

import numpy as np
import onnx
import onnx.numpy_helper

from onnxfuse.errors import ModelError
from onnxfuse.io import door
from onnxfuse.operators import is_runnable, newest_opsets

DEFAULT = ("", "ai.onnx")
"""The two names of the standard's own domain."""

CONSTANT_INITIALIZERS = 4
"""From this IR version on a caller may override an initializer that is also an input; before, all of them had to be inputs."""

COMMON_OPSET = 17
"""Given to a model that uses no operator of the standard, where any would do."""

FOREIGN = "onnxruntime"
"""The domain that the checker is told of operators that ONNX Runtime alone has in the standard's: it does not look into it."""


def repair(proto: onnx.ModelProto) -> None:
    """Make ``proto`` standard in place; its weights may lie elsewhere.

    Raises:
        ModelError: its nodes feed each other in a circle.
    """
    _rename_domains(proto)
    _import_domains(proto)
    proto.graph.name = proto.graph.name or "graph"
    for graph in graphs(proto):
        _repair_initializers(graph)
        _forget_negative_sizes(graph)
    proto.ClearField(
        "configuration"
    )  # which devices share which node: no runtime here reads it, and rewrites would not keep it true
    for node in nodes(proto):
        node.ClearField("device_configurations")
        _make_dense(node)
    declared = {value.name: value.type for value in proto.graph.input}
    for value in proto.graph.output:
        if value.name in declared:  # one value has one declaration, and the caller's is the input's
            value.type.CopyFrom(declared[value.name])
    if 0 < proto.ir_version < CONSTANT_INITIALIZERS:
        _initializers_are_constants(proto)
    _sort(proto.graph)
    keys = {pair.key: pair.value for pair in proto.metadata_props}
    if len(keys) < len(proto.metadata_props):
        onnx.helper.set_model_props(proto, keys)


def graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and all graphs inside nodes, those of functions too."""
    yield proto.graph
    yield from _inner_graphs(proto)


def _inner_graphs(proto: onnx.ModelProto) -> list[onnx.GraphProto]:
    """All graphs inside nodes, those of functions too."""
    return [graph for body in (proto.graph, *proto.functions) for graph in _inner(body)]


def _inner(body: onnx.GraphProto | onnx.FunctionProto) -> list[onnx.GraphProto]:
    """All graphs inside a body's nodes, each behind the one that it is in."""
    found = _inside(body.node)
    for graph in found:
        found += _inside(graph.node)
    return found


def nodes_of(body: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph or function, those inside nodes too."""
    yield from body.node
    for graph in _inner(body):
        yield from graph.node


def _inside(given: Iterable[onnx.NodeProto]) -> list[onnx.GraphProto]:
    """The graphs that nodes hold, not those inside these."""
    found: list[onnx.GraphProto] = []
    for node in given:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found.append(attribute.g)
            found += attribute.graphs
    return found


def nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those inside nodes and functions too."""
    for graph in graphs(proto):
        yield from graph.node
    for function in proto.functions:
        yield from function.node


def inner_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors but the main graph's initializers: those in attributes and in graphs inside nodes, and sparse ones' parts."""
    inner = _inner_graphs(proto)
    bodies = (proto.graph, *inner, *proto.functions)
    attributes = [attribute for body in bodies for node in body.node for attribute in node.attribute]
    attributes += [attribute for function in proto.functions for attribute in function.attribute_proto]
    sparse = [tensor for graph in (proto.graph, *inner) for tensor in graph.sparse_initializer]
    for attribute in attributes:
        yield from (attribute.t, *attribute.tensors) if attribute.HasField("t") else attribute.tensors
        sparse += (
            (attribute.sparse_tensor, *attribute.sparse_tensors)
            if attribute.HasField("sparse_tensor")
            else attribute.sparse_tensors
        )
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)
    for graph in inner:
        yield from graph.initializer


# Domains and opsets ----------------------------------------------------------------------------------------------


def _rename_domains(proto: onnx.ModelProto) -> None:
    """ "ai.onnx" is "", and of two imports of a domain the last counts."""
    versions = {"" if entry.domain in DEFAULT else entry.domain: entry.version for entry in proto.opset_import}
    if any(entry.domain == DEFAULT[1] for entry in proto.opset_import) or len(versions) < len(proto.opset_import):
        del proto.opset_import[:]
        proto.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
    for node in nodes(proto):
        if node.domain == DEFAULT[1]:
            node.domain = ""


def _import_domains(proto: onnx.ModelProto) -> None:
    """Import what is used: ONNX Runtime takes the newest opset of a domain it knows that a model does not import."""
    imported = {entry.domain for entry in proto.opset_import}
    used = {node.domain for graph in graphs(proto) for node in graph.node}
    for domain in sorted(used - imported - {""}):
        if domain in newest_opsets():
            proto.opset_import.add(domain=domain, version=newest_opsets()[domain])
    if imported and "" not in imported:
        proto.opset_import.add(domain="", version=_lowest_equal_opset(proto))


def _lowest_equal_opset(proto: onnx.ModelProto) -> int:
    """The lowest opset in which the model's standard operators are what they are in ONNX Runtime's newest."""
    newest = min(newest_opsets()[""], onnx.defs.onnx_opset_version())
    names = {node.op_type for graph in graphs(proto) for node in graph.node if not node.domain}
    since = [onnx.defs.get_schema(name, newest).since_version for name in names if onnx.defs.has(name, newest)]
    return max(COMMON_OPSET, *since, 0)


def name_foreign(proto: onnx.ModelProto) -> None:
    """Move the operators that ONNX Runtime has in the standard's domain, and the standard lacks, to ``FOREIGN``.

    Its own LayerNormalization is one, which its sessions and optimizer write at any opset; the standard's came with opset 17.
    """
    opset = next((entry.version for entry in proto.opset_import if not entry.domain), 0)
    found = [node for graph in graphs(proto) for node in graph.node if _is_foreign(node, opset)]
    for node in found:
        node.domain = FOREIGN
    if found:
        proto.opset_import.add(domain=FOREIGN, version=1)


def _is_foreign(node: onnx.NodeProto, opset: int) -> bool:
    if node.domain:
        return False
    standard = onnx.defs.has(node.op_type, opset) and not onnx.defs.get_schema(node.op_type, opset).deprecated
    return not standard and is_runnable(node.op_type, opset)


# Order -----------------------------------------------------------------------------------------------------------


def _sort(graph: onnx.GraphProto) -> None:
    """Put makers before readers where they are not. Inside of nodes ONNX Runtime wants them sorted too."""
    makers = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
    needs = [{makers[name] for name in _reads(node) if name in makers} for node in graph.node]
    if all(max(need, default=-1) < at for at, need in enumerate(needs)):
        return
    try:
        order = list(TopologicalSorter(dict(enumerate(needs))).static_order())
    except CycleError as error:
        around = ", ".join(graph.node[at].output[0] for at in error.args[1][1:])
        raise ModelError(f"the nodes that make {around} feed each other in a circle; export the model again") from error
    content = [onnx.NodeProto.FromString(graph.node[at].SerializeToString()) for at in order]
    del graph.node[:]
    graph.node.extend(content)


def _reads(node: onnx.NodeProto) -> set[str]:
    """What a node reads, and what the graphs inside it read, from outside or of their own."""
    return {*node.input} | {name for graph in _inside([node]) for inner in graph.node for name in _reads(inner)}


# Values ----------------------------------------------------------------------------------------------------------


def _repair_initializers(graph: onnx.GraphProto) -> None:
    """Of initializers of one name the last counts; one without a name is nobody's; sparse ones become dense."""
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse))
    del graph.sparse_initializer[:]
    last = {tensor.name: at for at, tensor in enumerate(graph.initializer) if tensor.name}
    if len(last) < len(graph.initializer):
        for at in reversed(range(len(graph.initializer))):
            if last.get(graph.initializer[at].name) != at:
                del graph.initializer[at]


def _make_dense(node: onnx.NodeProto) -> None:
    """A Constant that holds a sparse tensor holds a dense one."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.SPARSE_TENSOR and node.op_type == "Constant" and not node.domain:
            attribute.CopyFrom(onnx.helper.make_attribute("value", _dense(attribute.sparse_tensor)))


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    with door.reading(f"the sparse tensor {sparse.values.name!r}", "one", advice="export it again"):
        values, at = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
        whole = np.zeros(list(sparse.dims), values.dtype)
        whole[np.unravel_index(at, whole.shape) if at.ndim == 1 else tuple(at.T)] = values
        return onnx.numpy_helper.from_array(whole, sparse.values.name)


def _forget_negative_sizes(graph: onnx.GraphProto) -> None:
    """A size of -1 is a dynamic one, and no two of them are the same."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 0:
                dim.ClearField("dim_value")


def _initializers_are_constants(proto: onnx.ModelProto) -> None:
    """Before IR version 4 every initializer stood among the inputs, and ONNX Runtime lets no caller override it."""
    named = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.input if value.name not in named]
    if len(kept) < len(proto.graph.input):
        content = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
        del proto.graph.input[:]
        proto.graph.input.extend(content)
    proto.ir_version = CONSTANT_INITIALIZERS
