"""What a checkpoint stores: its weights by name, read from safetensors (one file or several) or from TensorFlow's tf_model.h5.

Source: the safetensors format (8 bytes: the header's length; a JSON object of names, types, shapes and offsets; the numbers),
``model.safetensors.index.json`` as transformers writes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.errors import ExportError, ModelError
from onnxfuse.exporters import tf_weights
from onnxfuse.exporters.home import Home
from onnxfuse.io import door, files

SAFETENSORS, INDEX, H5 = "model.safetensors", "model.safetensors.index.json", "tf_model.h5"

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
TYPES = FLOATS | {
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "<u1",
    "BOOL": "?",
}
"""Types of a safetensors file, and how numpy reads their bytes; bfloat16 as the upper half of a float32."""

AGAIN = "download it again"


@dataclass(frozen=True)
class Weights:
    """The files that hold a checkpoint's weights, and whose names they have: ``pt`` or ``tf``."""

    name: str
    paths: tuple[Path, ...]
    framework: str


def find(home: Home) -> Weights | None:
    """The weights of a checkpoint; None where there are none. PyTorch's own, in one file or several, come before tf_model.h5.

    Raises:
        ExportError: a file that is there in name only.
    """
    for name in (SAFETENSORS, INDEX, H5):
        path = _found(home, name)
        if path is None:
            continue
        paths = _shards(home, path) if name == INDEX else (path,)
        return Weights(name, paths, "tf" if name == H5 or format_of(paths[0]) == "tf" else "pt")
    return None


def require(home: Home) -> Weights:
    """The weights of a checkpoint. Raises ExportError when there are none."""
    found = find(home)
    if found is None:
        raise ExportError(
            f"cannot load the checkpoint in {home}: it has no {SAFETENSORS} and no {H5}; save the model again with "
            "save_pretrained (pickled weights are not read, they can run code)"
        )
    return found


def _found(home: Home, name: str) -> Path | None:
    try:
        return home.find(name)
    except ModelError as error:  # of weights: the checkpoint cannot be loaded
        raise ExportError(str(error)) from error


def _shards(home: Home, index: Path) -> tuple[Path, ...]:
    """The files that an index names. Raises ExportError when one is not there."""
    named = files.read_object(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ExportError(f"{home}: {INDEX} has no weight_map that names files; {AGAIN}")
    paths = []
    for name in sorted(set(named.values())):
        path = _found(home, name) if Path(name).name == name else None
        if path is None:
            raise ExportError(f"{home}: {INDEX} names {name}, which is not beside it; {AGAIN}")
        paths.append(path)
    return tuple(paths)


def format_of(path: Path) -> str:
    """The framework that a safetensors file says it was written by; empty when it does not say, or is none."""
    try:
        return str(dict(_header(path)[0].get("__metadata__", {})).get("format", ""))
    except (ExportError, ImportError, TypeError, ValueError):
        return ""


def read(weights: Weights) -> dict[str, np.ndarray]:
    """Every weight by its name in PyTorch and laid out as there, floats as float32; memory-mapped where they are that already.

    Raises:
        ExportError: a file is broken.
        MissingExtraError: h5py is not installed.
    """
    if weights.name == H5:
        return tf_weights.read(weights.paths[0])
    found: dict[str, np.ndarray] = {}
    for path in weights.paths:
        found |= _tensors(path)
    if weights.framework == "tf":
        return tf_weights.in_pytorch(found)
    return found


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's header, and where its numbers begin. Raises ExportError when the file is broken, or is none."""
    from safetensors import safe_open

    whole = door.reading(path, "a whole safetensors file", ExportError, AGAIN)
    with whole, safe_open(path, framework="np"), path.open("rb") as file:  # opening holds all offsets against shapes and size
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file. Raises ExportError."""
    header, start = _header(path)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    odd = next((name for name, entry in entries.items() if entry["dtype"] not in TYPES), None)
    if odd is not None:
        raise ExportError(
            f"{path} stores {odd} as {entries[odd]['dtype']}, wanted {', '.join(FLOATS)}; give the checkpoint that "
            "it was quantized from"
        )
    with door.reading(path, "the arrays of a safetensors file", ExportError, AGAIN):
        raw = np.asarray(np.memmap(path, dtype=np.uint8, mode="c"))
        return {
            name: _array(raw[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]], entry)
            for name, entry in entries.items()
        }


def _array(raw: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    array = raw.view(TYPES[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.require(array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array, requirements="A")
