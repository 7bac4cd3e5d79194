"""TensorFlow weights without TensorFlow: what tf_model.h5, or safetensors that TensorFlow wrote, hold, in PyTorch's terms.

transformers' TensorFlow classes name a layer as PyTorch's do, with / for the dot; a kernel is a transposed weight, gamma and beta
are a norm's weight and bias. Source: HDF5 files and safetensors of transformers 4.57; Keras stores Conv2D kernels as
[height, width, in, out], PyTorch as [out, in, height, width].
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from onnxfuse.errors import ExportError, MissingExtraError
from onnxfuse.io import door

LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight"}
"""The last part of a name in TensorFlow, and in PyTorch where it differs."""

FROM_KERNEL = {2: (1, 0), 4: (3, 2, 0, 1)}
"""A kernel's axes in PyTorch's order, by rank: Dense and Conv2D."""


def read(path: Path) -> dict[str, np.ndarray]:
    """Every weight of a tf_model.h5, by its name in PyTorch and laid out as there.

    Raises:
        ExportError: the file is broken.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(f"reading {path.name}", "torch") from error
    advice = "it is broken, or not laid out as transformers' TensorFlow classes write it; save it again with save_pretrained"
    with door.reading(path, "TensorFlow's weights", ExportError, advice):
        with h5py.File(path) as file:
            sets = _sets(file)
            _require_held(sets, path, file.id.get_filesize())
            found = {name.split("/", 2)[2]: item[()] for name, item in sets.items()}  # behind layer and model: bert/encoder/...
        return in_pytorch(found)


def require_held(file: Path | BinaryIO, path: Path) -> None:
    """Refuse an HDF5 file whose numbers are elsewhere, for another library that reads it and follows links.

    Args:
        file: what to open.
        path: what it is called, or the archive that it lies in.

    Raises:
        ExportError: see ``_require_held``; or a link leads out of it, or it is no HDF5 file.
    """
    import h5py

    away: list[str] = []  # nothing is raised while it is visited: h5py loses that

    def note(name: str, link: Any) -> None:
        if isinstance(link, h5py.ExternalLink):
            away.append(name)

    with door.reading(path, "Keras' weights", ExportError), h5py.File(file) as opened:
        opened.visititems_links(note)
        if away:
            raise ExportError(f"{path}: {away[0]} is a link to another file; refused: save it again")
        _require_held(_sets(opened), path, opened.id.get_filesize())


def _sets(file: Any) -> dict[str, Any]:
    """The data sets of an HDF5 file itself by name; links are not followed."""
    import h5py

    sets: dict[str, Any] = {}
    file.visititems(lambda name, item: sets.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return sets


def _require_held(sets: Mapping[str, Any], path: Path, held: int) -> None:
    """Refuse data sets whose numbers are not in the file itself, of ``held`` bytes, before any is read. Raises ExportError.

    HDF5 lets a data set be made of bytes of any other file (external storage, virtual sets), and lets it have sizes that nothing
    was written for. Source: HDF5's layouts.
    """
    for name, item in sets.items():
        if item.external is not None or item.is_virtual:
            raise ExportError(f"{path}: {name} points to another file for its numbers; refused: save it again")
    wanted = sum(item.size * item.dtype.itemsize for item in sets.values())
    if wanted > held:
        raise ExportError(f"{path}: its arrays want {wanted} bytes, the file has {held}; download it again")


def in_pytorch(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by their names in TensorFlow, by those in PyTorch and laid out as there; floats as float32."""
    return {
        torch_name(name): np.asarray(laid_out(name, array), np.float32 if array.dtype.kind == "f" else None)
        for name, array in arrays.items()
    }


def torch_name(name: str) -> str:
    """``mlm___cls/layer_._0/dense/kernel:0`` as PyTorch names it: ``cls.layer.0.dense.weight``."""
    *parts, leaf = name.split(":")[0].replace("_._", "/").split("/")
    return ".".join([part.split("___")[-1] for part in parts] + [LEAVES.get(leaf, leaf)])


def laid_out(name: str, array: np.ndarray) -> np.ndarray:
    """The array with its axes in PyTorch's order."""
    return np.ascontiguousarray(array.transpose(FROM_KERNEL[array.ndim])) if _is_kernel(name) else array


def _is_kernel(name: str) -> bool:
    return name.split(":")[0].endswith("/kernel")


def in_tensorflow(name: str, array: np.ndarray) -> np.ndarray:
    """``laid_out`` the other way: an array of PyTorch's with its axes as the TensorFlow variable ``name`` has them."""
    return array.transpose(np.argsort(FROM_KERNEL[array.ndim])) if _is_kernel(name) else array
