"""Model files that are none, and changes that make a valid model malformed."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable

import onnx
from onnx import TensorProto

FILES: dict[str, bytes] = {
    "empty": b"",
    "one": b"\x08",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "text": b"import onnx\n" * 40,
    "json": b'{"irVersion": "8", "graph": {}}',
    "gzip": gzip.compress(b"model" * 100),
    "zip": b"PK\x03\x04" + bytes(60),
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "long-length": b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "long-varint": b"\x08" + b"\xff" * 40,
    "groups": b"\x3b" * 5000,
    "nested": b"",
    "unknown-fields": b"".join(struct.pack("<BB", 0xF8, 0x7F) + b"\x01" for _ in range(4000)),
}


def _nested(depth: int) -> bytes:
    """A graph in a graph's attribute and so on, deeper than protobuf reads."""
    data = b""
    for _ in range(depth):
        node = b"\x2a" + _length(data) + data if data else b""
        data = b"\x32" + _length(node) + node
        data = b"\x0a" + _length(data) + data
    return b"\x08\x08\x3a" + _length(data) + data


def _length(data: bytes) -> bytes:
    size, found = len(data), b""
    while size > 127:
        found, size = found + bytes([size & 127 | 128]), size >> 7
    return found + bytes([size])


FILES["nested"] = _nested(2000)

Change = Callable[[onnx.ModelProto], None]
CHANGES: dict[str, Change] = {}


def _each(name: str, values: tuple[object, ...], change: Callable[[onnx.ModelProto, object], None]) -> None:
    for number, value in enumerate(values):
        CHANGES[f"{name}-{number}"] = lambda proto, value=value: change(proto, value)  # type: ignore[misc]


def largest(proto: onnx.ModelProto) -> TensorProto:
    """The largest weight."""
    return max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))


def _small(proto: onnx.ModelProto) -> TensorProto:
    return min(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))


def _set(part: str) -> Callable[[onnx.ModelProto, object], None]:
    """Set a field of the model by its path."""

    def change(proto: onnx.ModelProto, value: object) -> None:
        *path, last = part.split(".")
        place: object = proto
        for name in path:
            place = place[int(name)] if name.isdigit() else getattr(place, name)  # type: ignore[index]
        setattr(place, last, value)

    return change


NUMBERS = (-(2**63), -1, 0, 1, 999, 2**31, 2**62)
_each("ir-version", NUMBERS, _set("ir_version"))
_each("opset", NUMBERS, _set("opset_import.0.version"))
_each("domain", ("com.evil", "ai.onnx.ml", "\x00", "x" * 5000), _set("opset_import.0.domain"))
_each("input-type", (0, 8, 14, 999, 2**31 - 1), _set("graph.input.0.type.tensor_type.elem_type"))
_each("output-type", (0, 8, 14, 999), _set("graph.output.0.type.tensor_type.elem_type"))
_each("output-name", ("", "nowhere", "input_ids", "\x00"), _set("graph.output.0.name"))
_each("input-name", ("", "x", "attention_mask", "\n", "\ud7ff" * 300), _set("graph.input.0.name"))
_each(
    "dim-value",
    (-1, 0, 2**31, 2**62, -(2**63)),
    lambda p, v: setattr(p.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", v),
)
_each(
    "dim-param",
    ("", "²", "-1", "9" * 5000, "a b", "3", "\x00", "__import__('os')"),
    lambda p, v: setattr(p.graph.input[0].type.tensor_type.shape.dim[1], "dim_param", v),
)
_each("output-dim", (-1, 0, 2**62), lambda p, v: setattr(p.graph.output[0].type.tensor_type.shape.dim[0], "dim_value", v))
_each("weight-type", (0, 2, 3, 6, 7, 8, 9, 10, 14, 16, 17, 22, 23, 999, -1), lambda p, v: setattr(largest(p), "data_type", v))
_each(
    "weight-dims", ([], [-1], [2**62], [2**32, 2**32], [0], [0, 2**62], [1] * 200, [3, -5]), lambda p, v: set_dims(largest(p), v)
)
_each("small-dims", ([], [-1], [2**62], [0], [1] * 70), lambda p, v: set_dims(_small(p), v))
_each("raw", (b"", b"x", bytes(7)), lambda p, v: setattr(largest(p), "raw_data", v))
_each("node-op", ("", "Nothing", "Add\x00", "LoopLoop", "If", "Loop", "Scan", "Constant"), _set("graph.node.3.op_type"))
_each("node-domain", ("com.microsoft", "com.evil", "ai.onnx.ml", "\xff"), _set("graph.node.3.domain"))
_each("doc", ("x" * 10_000_000,), _set("graph.doc_string"))


def set_dims(tensor: TensorProto, dims: object) -> None:
    del tensor.dims[:]
    tensor.dims.extend(dims)  # type: ignore[arg-type]


def _external(key: str) -> Callable[[onnx.ModelProto, object], None]:
    """The largest weight in a file beside the model, where a word of its place is wrong."""

    def change(proto: onnx.ModelProto, value: object) -> None:
        tensor = largest(proto)
        size = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = {"location": "model.onnx", "offset": "0", "length": str(size)} | {key: str(value)}
        for name, text in entry.items():
            tensor.external_data.add(key=name, value=text)

    return change


_each("offset", ("abc", "-1", "²", "9" * 5000, 2**63, "1e3", "", " 0", "0x10", 2**40), _external("offset"))
_each("length", ("abc", "-1", "²", 0, 1, 2**63, 2**40, ""), _external("length"))
_each(
    "location",
    ("", ".", "..", "/", "nothing", "a" * 5000, "\x00", "a\nb", "model.onnx/", "./model.onnx", "~", "con"),
    _external("location"),
)
_each("checksum", ("x",), _external("checksum"))

METADATA = (
    "", "[]", "null", "1", "{", '{"session": 1}', '{"session": {"threads": "x"}}', '{"session": {"runtime": "evil"}}',
    '{"session": {"runtime": 3}}', '{"session": {"threads": -7}}', '{"session": {"threads": 100000000}}', '{"session": {"spinning": []}}',
    '{"libraries": 3}', '{"libraries": [1]}', '{"libraries": ["/tmp/evil.so"]}', '{"target": {}}', '{"session": {"nothing": 1}}',
    '{"a":' * 50_000, '{"session": {"threads": 1e400}}', '{"session": {"threads": ' + "9" * 5000 + "}}",
)  # fmt: skip


def _metadata(key: str) -> Callable[[onnx.ModelProto, object], None]:
    return lambda proto, value: proto.metadata_props.append(onnx.StringStringEntryProto(key=key, value=str(value)))


_each("metadata", METADATA, _metadata("onnxfuse"))
_each(
    "int8",
    (
        "[]",
        "1",
        "{",
        '{"calibration": 1}',
        '{"calibration": "/etc/passwd", "rows": 1}',
        '{"rows": "x"}',
        '{"calibration": "a\\u0000b"}',
        '{"a":' * 50_000,
    ),
    _metadata("onnxfuse.int8"),
)
