"""Read and write ONNX files without holding their weights in memory.

Each large weight becomes an ``onnx_ir.ExternalTensor`` that points into the .onnx file itself, or beside it: its bytes are
memory-mapped, and read when used.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import onnx
import onnx.shape_inference
import onnx_ir as ir
from google.protobuf.message import DecodeError, EncodeError

from onnxfuse.errors import ModelError, StorageError, UsageError, first_line, one_line
from onnxfuse.io import door
from onnxfuse.io.atomic import replacing, shown
from onnxfuse.io.external import find_external, follow, weight_files
from onnxfuse.io.files import require_file
from onnxfuse.io.limits import require_modest
from onnxfuse.io.names import name_apart
from onnxfuse.io.repair import inner_tensors, name_foreign, repair
from onnxfuse.io.wire import split, without_weights, write

PROTOBUF_LIMIT = 2**31 - 1
"""protobuf refuses longer messages; a model above it keeps its weights in ``NAME.data`` beside it."""

OTHERS = {".xml": "OpenVINO", ".tflite": "LiteRT"}
"""Formats that a model may be converted to, by suffix."""


def load(path: Path) -> ir.Model:
    """Open an .onnx file with its weights memory-mapped, made standard where only ONNX Runtime reads it: see ``repair``.

    Args:
        path: the file. Its external data, if any, must lie in its folder under a relative name.

    Raises:
        UsageError: there is no such file, or it is in the format of another runtime.
        ModelError: it is not an ONNX model, is cut short, or points to external data that is missing or outside.
    """
    path = require_file(path)
    if path.suffix in OTHERS:
        what = f"{OTHERS[path.suffix]}'s own format, which is not rewritten"
        raise UsageError(f"{path} is in {what}: give the .onnx file that it was made from")
    proto = _parse(path)
    if not proto.opset_import or not proto.graph.output:
        raise ModelError(f"{path} is not an ONNX model: it has no opset or no outputs; give a file that an exporter wrote")
    newest = onnx.defs.onnx_opset_version()
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > newest:
            raise ModelError(
                f"{path} has opset {entry.version}, and onnx {onnx.__version__} knows up to {newest}; export it with an older one"
            )
    find_external(proto, path)
    try:
        require_modest(proto)
        repair(proto)
    except ModelError as error:
        raise ModelError(f"{path} is not a valid ONNX model: {error}") from error
    with door.reading(path, "a valid ONNX model", advice="export it again"):
        _infer_outputs(proto)
        _check(_skeleton(proto))
        model = ir.from_proto(proto)
    _number_dimensions(model)
    return model


def _parse(path: Path) -> onnx.ModelProto:
    """The model in a file, with its large weights left where they are. Raises ModelError."""
    proto = onnx.ModelProto()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            proto.ParseFromString(without_weights(data, str(path.resolve())))
    except (DecodeError, ValueError, IndexError) as error:
        raise ModelError(f"{path} is not a whole ONNX model ({one_line(error)}); export it again or copy it again") from error
    except MemoryError as error:
        raise ModelError(f"{path} is too large for this machine's memory") from error
    return proto


def skim(path: Path) -> onnx.ModelProto:
    """What a file says, its large weights left in it, and nothing of it held against anything. Raises UsageError, ModelError."""
    return _parse(require_file(path))


def metadata(path: Path) -> dict[str, str]:
    """The metadata of a model's file. Raises UsageError, ModelError: it is none."""
    return {pair.key: pair.value for pair in skim(path).metadata_props}


def model_bytes(path: Path, model: ir.Model | None = None) -> int:
    """Size in bytes of a model on disk, with the files that hold its weights, whatever they are called.

    Args:
        model: what ``save`` gave for the file, so that it need not be read again.
    """
    found = {path.resolve()}
    if model is not None:
        found |= weight_files(model)
    elif path.suffix == ".onnx":
        proto = _parse(path)
        for tensor in (*proto.graph.initializer, *inner_tensors(proto)):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                named = [path.parent / pair.value for pair in tensor.external_data if pair.key == "location"]
                found |= {door.within(file, path.parent) for file in named}
    elif path.suffix == ".xml" and (weights := path.with_suffix(".bin")).is_file():
        found |= {weights.resolve()}
    return sum(file.stat().st_size for file in found)


def _number_dimensions(model: ir.Model) -> None:
    """A dimension that is named "3" is 3: transformers' own exporter writes fixed sizes so. One named "-1" has no name."""
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([_number(dim) for dim in value.shape.dims])


def _number(dim: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    if isinstance(dim, int) or dim.value is None:
        return dim
    if dim.value.isascii() and dim.value.isdecimal() and len(dim.value) < 19:  # beyond, no file could say it as a number
        return int(dim.value)
    return dim if any(letter.isalpha() for letter in dim.value) else ir.SymbolicDim(None)


def save(model: ir.Model, path: Path) -> ir.Model:
    """Write ``model`` to ``path``: staged beside it, read back, synced, renamed. The old file is whole until then.

    Weights go into the file itself, or above 2 GiB into ``NAME.data`` beside it.

    Returns:
        The model as it was read back, its weights in ``path``.

    Raises:
        StorageError: the disk is full or not writable; nothing is left behind.
    """
    name_apart(model)
    with replacing(path) as staged:
        proto, weights = split(model)
        if proto.ByteSize() + sum(tensor.nbytes for _, tensor in weights) < PROTOBUF_LIMIT - (1 << 20):
            with staged.open("wb") as file:
                write(file, proto, weights)
        else:
            _save_external(model, staged, path)
        try:
            saved = load(staged)
        except ModelError as error:
            raise ModelError(str(error).replace(str(staged), f"what onnxfuse would write to {shown(path)}")) from error
    follow(saved, staged, path)
    return saved


def _infer_outputs(proto: onnx.ModelProto) -> None:
    """Give outputs that lack them the type and shape that follow from the graph, as ONNX Runtime does."""
    wanting = [value for value in proto.graph.output if not _has_shape(value)]
    if not wanting:
        return
    try:
        inferred = onnx.shape_inference.infer_shapes(_skeleton(proto))
    except onnx.shape_inference.InferenceError:
        return  # of an operator that it does not follow, or of what the checker will name
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


def _save_external(model: ir.Model, staged: Path, path: Path) -> None:
    try:
        ir.save(model, staged, external_data=path.name + ".data")
    except EncodeError as error:
        raise StorageError(f"cannot write {path}: {first_line(error)}") from error
