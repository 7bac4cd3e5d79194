"""Weights that lie in files: of the model itself, or beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxfuse.errors import ModelError
from onnxfuse.io import door
from onnxfuse.io.limits import itemsize
from onnxfuse.io.repair import inner_tensors
from onnxfuse.io.wire import LARGE


def find_external(proto: onnx.ModelProto, path: Path) -> None:
    """Have large initializers point to the very files that hold them, and bring all other external tensors in.

    Raises:
        ModelError: a file is missing, too short, or outside the model's folder.
    """
    own = str(path.resolve())
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            file, offset, length = _place(tensor, path, own)
            if length >= LARGE:
                del tensor.external_data[:]
                for key, value in (("location", file), ("offset", offset), ("length", length)):
                    tensor.external_data.add(key=key, value=str(value))
            else:
                _bring_in(tensor, file, offset, length)
    for tensor in inner_tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _bring_in(tensor, *_place(tensor, path, own))


def _bring_in(tensor: onnx.TensorProto, file: Path, offset: int, length: int) -> None:
    with file.open("rb") as content:
        content.seek(offset)
        tensor.raw_data = content.read(length)
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def _place(tensor: onnx.TensorProto, path: Path, own: str) -> tuple[Path, int, int]:
    """The file that holds an external tensor, where in it, and how many bytes.

    Links are followed as ``door.within`` allows it.
    """
    entry = {pair.key: pair.value for pair in tensor.external_data}
    name = entry.get("location", "")
    file = Path(name)
    if name != own:
        file = path.parent / name
        if not name:
            raise ModelError(f"{path}: weight {tensor.name} names no file for its numbers; export it again")
        if "\0" in name:
            raise ModelError(f"{path}: weight {tensor.name} is in {name!r}, which no file can be called; export it again")
        if Path(name).is_absolute() or Path(os.path.normpath(name)).parts[:1] == ("..",):
            raise ModelError(
                f"{path}: weight {tensor.name} points outside the model's folder ({name!r}); save the model again with its "
                "weights beside it"
            )
        if ".." not in Path(name).parts and not os.path.lexists(file):
            raise ModelError(f"{path}: its weights file {name!r} is missing; copy it beside the model")
        try:
            file = door.within(file, path.parent)
        except ModelError as error:
            raise ModelError(f"{path}: weight {tensor.name}: {error}") from error
    wanted = math.ceil(math.prod(tensor.dims) * itemsize(tensor))
    offset, length = (_number(entry, key, usual, path) for key, usual in (("offset", 0), ("length", wanted)))
    if tensor.data_type == onnx.TensorProto.STRING:
        raise ModelError(f"{path}: weight {tensor.name} holds texts, which cannot lie in another file; export it again")
    if length != wanted:
        raise ModelError(f"{path}: weight {tensor.name} has {length} bytes, its shape wants {wanted}; export it again")
    if offset < 0 or file.stat().st_size < offset + length:
        raise ModelError(f"{path}: {name!r} ends before weight {tensor.name}; copy it again")
    return file, offset, length


def _number(entry: Mapping[str, str], key: str, usual: int, path: Path) -> int:
    """Where a weight begins, or its length, as a decimal number."""
    text = entry.get(key, str(usual))
    number = text.isascii() and text.isdecimal()
    if number and len(text) < 20:
        return int(text)
    wrong = "beyond the end of any file" if number else "wanted a number"
    raise ModelError(f"{path}: a weight in {entry.get('location')!r} has {key} {text[:20]!r}, {wrong}; export it again")


def follow(model: ir.Model, old: Path, new: Path) -> None:
    """Have weights that lie in ``old``'s folder lie in ``new``'s, in place: the model's files were moved there."""
    before, after = old.resolve().parent, new.resolve().parent
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and Path(tensor.location).parent == before:
            place = after / Path(tensor.location).name
            value.const_value = ir.ExternalTensor(
                str(place), tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=tensor.name
            )


def weight_files(model: ir.Model) -> set[Path]:
    """The files that hold a model's weights; its own file is among them where it holds some."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return {Path(tensor.location).resolve() for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
