"""Read and write ONNX files without holding their weights in memory.

A protobuf parser copies every weight, once for the file and once for the message. Here the file is walked field by
field: small fields go through ``onnx``, and each large tensor becomes an ``onnx_ir.ExternalTensor`` that points into the
.onnx file itself, so its bytes are memory-mapped and read when used. Writing streams them back, one after another.

Source: the protobuf wire format (tag = field << 3 | wire type; varint lengths) and the field numbers of ``onnx.proto``.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError

from onnxfuse.errors import ModelError, StorageError, first_line
from onnxfuse.io.atomic import replacing, shown, sync
from onnxfuse.io.files import require_file
from onnxfuse.io.repair import inner_tensors, name_foreign, repair

LARGE = 1024
"""Tensors of at least this many bytes stay in the file; smaller ones are parsed with the rest."""

PROTOBUF_LIMIT = 2**31 - 1
"""protobuf refuses longer messages; a model above it keeps its weights in ``NAME.data`` beside it."""

# Field numbers of onnx.proto.
MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA, TENSOR_EXTERNAL, TENSOR_LOCATION = 7, 5, 9, 13, 14
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def load(path: Path) -> ir.Model:
    """Open an .onnx file with its weights memory-mapped, made standard where only ONNX Runtime reads it: see ``repair``.

    Args:
        path: the file. Its external data, if any, must lie in its folder under a relative name.

    Raises:
        UsageError: there is no such file.
        ModelError: it is not an ONNX model, is cut short, or points to external data that is missing or outside.
    """
    path = require_file(path)
    proto = _parse(path)
    if not proto.opset_import or not proto.graph.output:
        raise ModelError(f"{path} is not an ONNX model: it has no opset or no outputs; give a file that an exporter wrote")
    newest = onnx.defs.onnx_opset_version()
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > newest:
            raise ModelError(
                f"{path} has opset {entry.version}, and onnx {onnx.__version__} knows up to {newest}; export it with an older one"
            )
    _find_external(proto, path)
    try:
        repair(proto)
        _infer_outputs(proto)
        _check(_skeleton(proto))
        model = ir.from_proto(proto)
    except (onnx.checker.ValidationError, ir.serde.SerdeError, ValueError, KeyError, TypeError, ModelError) as error:
        raise ModelError(f"{path} is not a valid ONNX model: {first_line(error)}") from error
    _number_dimensions(model)
    return model


def _parse(path: Path) -> onnx.ModelProto:
    """The model in a file, with its large weights left where they are. Raises ModelError."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return onnx.ModelProto.FromString(_without_weights(data, str(path.resolve())))
    except (DecodeError, ValueError, IndexError) as error:
        raise ModelError(f"{path} is not a whole ONNX model ({error}); export it again or copy it again") from error


def model_bytes(path: Path) -> int:
    """Size in bytes of a model on disk, with the files that hold its weights, whatever they are called."""
    found = {path.resolve()}
    if path.suffix == ".onnx":
        proto = _parse(path)
        for tensor in (*proto.graph.initializer, *inner_tensors(proto)):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                found |= {(path.parent / pair.value).resolve() for pair in tensor.external_data if pair.key == "location"}
    return sum(file.stat().st_size for file in found)


def _number_dimensions(model: ir.Model) -> None:
    """A dimension that is named "3" is 3: transformers' own exporter writes fixed sizes so. One named "-1" has no name."""
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([_number(dim) for dim in value.shape.dims])


def _number(dim: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    if isinstance(dim, int) or dim.value is None:
        return dim
    if dim.value.isdigit():
        return int(dim.value)
    return dim if any(letter.isalpha() for letter in dim.value) else ir.SymbolicDim(None)


def save(model: ir.Model, path: Path) -> None:
    """Write ``model`` to ``path``: staged beside it, synced, read back, renamed. The old file is whole until then.

    Weights go into the file itself, or above 2 GiB into ``NAME.data`` beside it.

    Raises:
        StorageError: the disk is full or not writable; nothing is left behind.
    """
    name_apart(model)
    with replacing(path) as staged:
        proto, weights = _split(model)
        if proto.ByteSize() + sum(tensor.nbytes for _, tensor in weights) < PROTOBUF_LIMIT - (1 << 20):
            with staged.open("wb") as file:
                _write(file, proto, weights)
                sync(file)
        else:
            _save_external(model, staged, path)
        try:
            load(staged)
        except ModelError as error:
            raise ModelError(str(error).replace(str(staged), f"what onnxfuse would write to {shown(path)}")) from error


def name_apart(model: ir.Model) -> None:
    """Give every value of a model a name of its own, in place; the inputs and outputs of the main graph keep theirs.

    Values are told apart by what they are while a model is in memory, and by their names in a file: a value that was moved out of
    a graph inside a node, or renamed, must not meet another of that name there. Nodes of one graph get names of their own too.
    """
    kept = {*model.graph.inputs, *model.graph.outputs}
    rest = [
        value
        for graph in (model.graph, *model.graph.subgraphs())
        for value in (*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs))
        if value not in kept and (value.name or value.uses() or value.is_graph_output())
    ]  # an output left out has no name
    taken = Counter(value.name for value in (*kept, *dict.fromkeys(rest)))
    used = {value.name for value in kept}
    for value in dict.fromkeys(rest):
        if not value.name or value.name in used:
            value.name = _free(value.name or "value", taken)
        used.add(value.name)
    for graph in (model.graph, *model.graph.subgraphs()):
        names = Counter(node.name for node in graph)
        for node in [node for node in graph if node.name and names[node.name] > 1]:
            node.name = _free(node.name or "", names)


def _free(name: str, taken: Counter[str | None]) -> str:
    """``name`` with a number that makes it one that is not taken; taken from now on."""
    number = taken[name]
    while f"{name}_{number}" in taken:
        number += 1
    taken.update({name: 1, f"{name}_{number}": 1})
    return f"{name}_{number}"


# Reading ---------------------------------------------------------------------------------------------------------


def _varint(data, at: int) -> tuple[int, int]:
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


def _fields(data, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
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


def _without_weights(data, location: str) -> bytes:
    """The model message with every large tensor's bytes replaced by (location, offset, length)."""
    out = bytearray()
    for field, wire, begin, payload, end in _fields(data, 0, len(data)):
        if field == MODEL_GRAPH and wire == BYTES:
            graph = bytearray()
            for inner, inner_wire, inner_begin, inner_payload, inner_end in _fields(data, payload, end):
                if inner == GRAPH_INITIALIZER and inner_wire == BYTES and inner_end - inner_payload >= LARGE:
                    graph += _message(GRAPH_INITIALIZER, _reference(data, inner_payload, inner_end, location))
                else:
                    graph += data[inner_begin:inner_end]
            out += _message(MODEL_GRAPH, bytes(graph))
        else:
            out += data[begin:end]
    return bytes(out)


def _reference(data, start: int, end: int, location: str) -> bytes:
    out, raw = bytearray(), None
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


def _find_external(proto: onnx.ModelProto, path: Path) -> None:
    """Have large initializers point to the very files that hold them, and bring all other external tensors in.

    Raises:
        ModelError: a file is missing, too short, or outside the model's folder.
    """
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            file, offset, length = _place(tensor, path)
            if length >= LARGE:
                del tensor.external_data[:]
                for key, value in (("location", file), ("offset", offset), ("length", length)):
                    tensor.external_data.add(key=key, value=str(value))
            else:
                _bring_in(tensor, file, offset, length)
    for tensor in inner_tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _bring_in(tensor, *_place(tensor, path))


def _bring_in(tensor: onnx.TensorProto, file: Path, offset: int, length: int) -> None:
    with file.open("rb") as content:
        content.seek(offset)
        tensor.raw_data = content.read(length)
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def _place(tensor: onnx.TensorProto, path: Path) -> tuple[Path, int, int]:
    """The file that holds an external tensor, where in it, and how many bytes.

    As ONNX Runtime does it, links are followed as long as they stay in the model's folder, or in that of the file which the
    model's own name links to (the Hugging Face cache is made so).
    """
    entry = {pair.key: pair.value for pair in tensor.external_data}
    name = entry.get("location", "")
    own = path.resolve()
    file = (path.parent / name).resolve()
    if file != own and (
        not name
        or Path(name).is_absolute()
        or not any(file.is_relative_to(folder) for folder in (path.parent.resolve(), own.parent))
    ):
        raise ModelError(f"{path}: weight {tensor.name} points outside the model's folder ({name!r}); refused")
    if not file.is_file():
        raise ModelError(f"{path}: its weights file {name!r} is missing; copy it beside the model")
    try:
        wanted = math.ceil(math.prod(tensor.dims) * ir.DataType(tensor.data_type).itemsize)
        offset, length = int(entry.get("offset", 0)), int(entry.get("length", wanted))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: weight {tensor.name} cannot lie in another file ({error}); export it again") from error
    if length != wanted:
        raise ModelError(f"{path}: weight {tensor.name} has {length} bytes, its shape wants {wanted}; export it again")
    if offset < 0 or file.stat().st_size < offset + length:
        raise ModelError(f"{path}: {name!r} ends before weight {tensor.name}; copy it again")
    return file, offset, length


def _infer_outputs(proto: onnx.ModelProto) -> None:
    """Give outputs that lack them the type and shape that follow from the graph, as ONNX Runtime does."""
    wanting = [value for value in proto.graph.output if not _has_shape(value)]
    if not wanting:
        return
    try:
        inferred = onnx.shape_inference.infer_shapes(_skeleton(proto))
    except onnx.shape_inference.InferenceError:
        return
    found = {value.name: value for value in (*inferred.graph.output, *inferred.graph.value_info, *inferred.graph.input)}
    for value in wanting:
        if value.name in found:
            value.type.CopyFrom(found[value.name].type)
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param.startswith("unk__"):  # a name of the inference's own
                    dim.ClearField("dim_param")


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or value.type.tensor_type.HasField("shape"))


def _skeleton(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without external weights, which are declared as inputs, and with ONNX Runtime's own operators named as such.

    So the checker and shape inference can judge it, and read no file.
    """
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(proto)
    kept = [t for t in skeleton.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    moved = [t for t in skeleton.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    inputs = {value.name for value in skeleton.graph.input}
    skeleton.graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in moved if t.name not in inputs
    )
    del skeleton.graph.initializer[:]
    skeleton.graph.initializer.extend(kept)
    del skeleton.graph.value_info[:]
    name_foreign(skeleton)
    return skeleton


def _check(skeleton: onnx.ModelProto) -> None:
    """Raises ValidationError where ``skeleton`` is no valid model; shapes, and types of outputs, may be unknown."""
    for value in (*skeleton.graph.input, *skeleton.graph.output):
        if not _has_shape(value):
            value.type.tensor_type.shape.SetInParent()
    for value in skeleton.graph.output:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.elem_type:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.checker.check_model(skeleton)


# Writing ---------------------------------------------------------------------------------------------------------


def _split(model: ir.Model) -> tuple[onnx.ModelProto, list[tuple[ir.Value, ir.TensorProtocol]]]:
    """The model message without its large weights, and those weights."""
    weights = [
        (value, value.const_value)
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes >= LARGE and value.const_value.dtype != ir.DataType.STRING
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


def _write(file: BinaryIO, proto: onnx.ModelProto, weights: list[tuple[ir.Value, ir.TensorProtocol]]) -> None:
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
    return head.SerializeToString() + _tag(TENSOR_RAW_DATA, BYTES) + _encode(tensor.nbytes)


def _save_external(model: ir.Model, staged: Path, path: Path) -> None:
    try:
        ir.save(model, staged, external_data=path.name + ".data")
    except EncodeError as error:
        raise StorageError(f"cannot write {path}: {first_line(error)}") from error
    for file in staged.parent.iterdir():
        with file.open("rb+") as handle:
            sync(handle)


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
