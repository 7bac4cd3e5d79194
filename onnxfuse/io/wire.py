"""The bytes of an .onnx file, walked field by field, so that no weight is held in memory.

A protobuf parser copies every weight, once for the file and once for the message. Here small fields go through ``onnx``, and each
large tensor is left where it lies; writing streams them, one after another.

Source: the protobuf wire format (tag = field << 3 | wire type; varint lengths) and the field numbers of ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

LARGE = 1024
"""Tensors of at least this many bytes stay in the file; smaller ones are parsed with the rest."""

FIELDS = 1_000_000
"""Of a graph: nodes, tensors and annotations. A field takes up two bytes in a file and a hundred in memory."""

# Field numbers of onnx.proto.
MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA, TENSOR_EXTERNAL, TENSOR_LOCATION = 7, 5, 9, 13, 14
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


Weights = list[tuple[ir.Value, ir.TensorProtocol]]


# Reading ---------------------------------------------------------------------------------------------------------


def _varint(data: mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def _fields(data: mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Walk one message: (field, wire type, start of the field, start of its payload, end)."""
    at = start
    while at < end:
        begin = at
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            payload = at
            _, at = _varint(data, at)
        elif wire == BYTES:
            length, payload = _varint(data, at)
            at = payload + length
        elif wire in (FIXED64, FIXED32):
            payload, at = at, at + (8 if wire == FIXED64 else 4)
        else:
            raise ValueError(f"wire type {wire} at byte {begin}")
        if field == 0 or at > end:
            raise ValueError(f"field {field} at byte {begin} runs past the end")
        yield field, wire, begin, payload, at


def without_weights(data: mmap, location: str) -> bytes:
    """The model message with every large tensor's bytes replaced by (location, offset, length)."""
    out = bytearray()
    for field, wire, begin, payload, end in _fields(data, 0, len(data)):
        if field == MODEL_GRAPH and wire == BYTES:
            graph = bytearray()
            for at, (inner, inner_wire, inner_begin, inner_payload, inner_end) in enumerate(_fields(data, payload, end)):
                if at > FIELDS:
                    raise ValueError(f"a graph of more than {FIELDS} nodes, tensors and annotations, too many to read")
                if inner == GRAPH_INITIALIZER and inner_wire == BYTES and inner_end - inner_payload >= LARGE:
                    graph += _message(GRAPH_INITIALIZER, _reference(data, inner_payload, inner_end, location))
                else:
                    graph += data[inner_begin:inner_end]
            out += _message(MODEL_GRAPH, bytes(graph))
        else:
            out += data[begin:end]
    return bytes(out)


def _reference(data: mmap, start: int, end: int, location: str) -> bytes:
    out = bytearray()
    raw: tuple[int, int] | None = None
    for field, wire, begin, payload, stop in _fields(data, start, end):
        if field == TENSOR_RAW_DATA and wire == BYTES:
            raw = (payload, stop - payload)
        else:
            out += data[begin:stop]
    if raw is None:
        return bytes(out)
    for key, value in (("location", location), ("offset", str(raw[0])), ("length", str(raw[1]))):
        entry = onnx.StringStringEntryProto(key=key, value=value)
        out += _message(TENSOR_EXTERNAL, entry.SerializeToString())
    return bytes(out) + _tag(TENSOR_LOCATION, VARINT) + b"\x01"


# Writing ---------------------------------------------------------------------------------------------------------


def split(model: ir.Model) -> tuple[onnx.ModelProto, Weights]:
    """The model message without its large weights, and those weights."""
    weights = [
        (value, value.const_value)
        for value in model.graph.initializers.values()
        if value.const_value is not None and _streamed(value.const_value)
    ]
    empty = ir.tensor(np.zeros(0, dtype=np.float32))
    for value, _ in weights:
        value.const_value = empty
    try:
        proto = ir.to_proto(model)
    finally:
        for value, tensor in weights:
            value.const_value = tensor
    large = {value.name for value, _ in weights}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in large]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    named = [value for value in proto.graph.value_info if value.name not in model.graph.initializers]
    del proto.graph.value_info[:]  # a weight has its own shape; a second one misleads tools that transpose weights in place
    proto.graph.value_info.extend(named)
    return proto, weights


def _streamed(tensor: ir.TensorProtocol) -> bool:
    """Whether a weight's bytes are written behind the message: large ones, and all that lie in another file."""
    return tensor.dtype != ir.DataType.STRING and (tensor.nbytes >= LARGE or isinstance(tensor, ir.ExternalTensor))


def write(file: BinaryIO, proto: onnx.ModelProto, weights: Weights) -> None:
    """Write a model, its graph last, and ``weights`` behind what else the graph holds.

    A model of no producer gets one: OpenVINO takes a file for ONNX by its first fields, of which no two may be alike, as two
    opsets would be. Source: OpenVINO's onnx_model_validator.
    """
    proto.producer_name = proto.producer_name or "onnxfuse"
    headers = [_tensor_header(value, tensor) for value, tensor in weights]
    graph = proto.graph.SerializeToString()
    sizes = [len(header) + tensor.nbytes for header, (_, tensor) in zip(headers, weights, strict=True)]
    framed = sum(len(_tag(GRAPH_INITIALIZER, BYTES)) + len(_encode(size)) + size for size in sizes)
    proto.ClearField("graph")
    file.write(proto.SerializeToString() + _tag(MODEL_GRAPH, BYTES) + _encode(len(graph) + framed) + graph)
    for header, size, (_, tensor) in zip(headers, sizes, weights, strict=True):
        file.write(_tag(GRAPH_INITIALIZER, BYTES) + _encode(size) + header)
        _copy(tensor, file)


def _copy(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    """Stream a tensor's bytes; tensors that lie in a file are copied there by the kernel."""
    if isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(file)
    else:
        file.write(tensor.tobytes())


def _tensor_header(value: ir.Value, tensor: ir.TensorProtocol) -> bytes:
    """A TensorProto up to and including the length of its raw_data."""
    dims = [int(dim) for dim in tensor.shape.numpy()]
    head = onnx.TensorProto(name=value.name, data_type=int(tensor.dtype), dims=dims)
    return bytes(head.SerializeToString()) + _tag(TENSOR_RAW_DATA, BYTES) + _encode(tensor.nbytes)


def _tag(field: int, wire: int) -> bytes:
    return _encode(field << 3 | wire)


def _encode(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _message(field: int, payload: bytes) -> bytes:
    return _tag(field, BYTES) + _encode(len(payload)) + payload
