"""TensorFlow weights without TensorFlow: what tf_model.h5, or safetensors that TensorFlow wrote, hold, in PyTorch's terms.

transformers' TensorFlow classes name a layer as PyTorch's do, with / for the dot; a kernel is a transposed weight, gamma and beta
are a norm's weight and bias. Source: HDF5 files and safetensors of transformers 4.57; Keras stores Conv2D kernels as
[height, width, in, out], PyTorch as [out, in, height, width].
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onnxfuse.errors import ExportError, MissingExtraError, one_line

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
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name.split("/", 2)[2]] = item[()]  # behind the layer's group and the model's name: bert/encoder/...

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
        return in_pytorch(found)
    except Exception as error:
        raise ExportError(
            f"cannot read {path} ({one_line(error)}): it is broken, or not laid out as transformers' TensorFlow "
            "classes write it; save the model again with save_pretrained"
        ) from error


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
