"""TensorFlow weights without TensorFlow: tf_model.h5, or safetensors that TensorFlow wrote, into the PyTorch class.

transformers' TensorFlow classes name a layer as PyTorch's do, with / for the dot; a kernel is a transposed weight, gamma and beta
are a norm's weight and bias. Source: HDF5 files and safetensors of transformers 4.57; Keras stores Conv2D kernels as
[height, width, in, out], PyTorch as [out, in, height, width].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxfuse.errors import ExportError, MissingExtraError
from onnxfuse.files import first_line

if TYPE_CHECKING:
    import torch

H5, SAFETENSORS = "tf_model.h5", "model.safetensors"

LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight"}
"""The last part of a name in TensorFlow, and in PyTorch where it differs."""

FROM_KERNEL = {2: (1, 0), 4: (3, 2, 0, 1)}
"""A kernel's axes in PyTorch's order, by rank: Dense and Conv2D."""

UNUSED = {"feature-extraction": ("pooler",), "sentence-similarity": ("pooler",)}
"""Parts of a model that a task's outputs do not show: their weights may be missing."""


def find(folder: Path) -> Path | None:
    """The file in ``folder`` that holds TensorFlow's weights, or None. PyTorch's own weights come before tf_model.h5."""
    weights = folder / SAFETENSORS
    if weights.is_file():
        return weights if format_of(weights) == "tf" else None
    return folder / H5 if (folder / H5).is_file() else None


def format_of(path: Path) -> str:
    """The framework that a safetensors file says it was written by; empty when it does not say, or is none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return ""
        try:
            return str(json.loads(file.read(length)).get("__metadata__", {}).get("format", ""))
        except (ValueError, AttributeError):
            return ""


def read(path: Path) -> dict[str, np.ndarray]:
    """Every weight of a file, by its name in PyTorch and laid out as there.

    Raises:
        ExportError: the file is broken.
        MissingExtraError: h5py or safetensors is not installed.
    """
    try:
        return {torch_name(name): laid_out(name, array) for name, array in _arrays(path).items()}
    except ImportError as error:
        raise MissingExtraError(f"reading {path.name}", "torch") from error
    except (OSError, ValueError) as error:
        raise ExportError(f"cannot read {path}: {first_line(error)}; save the model again with save_pretrained") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays by their names in TensorFlow, from the model's first part on (bert/encoder/...)."""
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(path))
    import h5py

    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name.split("/", 2)[2]] = item[()]  # behind the layer's group and the model's name

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def torch_name(name: str) -> str:
    """``mlm___cls/layer_._0/dense/kernel:0`` as PyTorch names it: ``cls.layer.0.dense.weight``."""
    *parts, leaf = name.split(":")[0].replace("_._", "/").split("/")
    return ".".join([part.split("___")[-1] for part in parts] + [LEAVES.get(leaf, leaf)])


def laid_out(name: str, array: np.ndarray) -> np.ndarray:
    """The array with its axes in PyTorch's order."""
    kernel = name.split(":")[0].endswith("/kernel")
    return np.ascontiguousarray(array.transpose(FROM_KERNEL[array.ndim])) if kernel else array


def load_into(model: torch.nn.Module, weights: Mapping[str, np.ndarray], task: str, source: str) -> None:
    """Give a ``transformers`` PyTorch model weights by name, with the base model's prefix or without.

    Raises:
        ExportError: a weight that the task's outputs show is missing, or has another shape.
    """
    import torch

    prefix = f"{model.base_model_prefix}."
    own = model.state_dict()
    given = {}
    for name, array in weights.items():
        known = next((form for form in (name, prefix + name, name.removeprefix(prefix)) if form in own), None)
        if known is not None:
            if array.shape != tuple(own[known].shape):
                raise ExportError(f"{source}: {name} is {list(array.shape)}, config.json wants {list(own[known].shape)}; "
                                  "config.json and the weights must be of one model")
            given[known] = torch.from_numpy(np.array(array, dtype=np.float32))
    loaded = {own[name].data_ptr() for name in given}  # tied weights are stored once
    buffers = {name for name, _ in model.named_buffers()}
    missing = [name for name, value in own.items() if value.data_ptr() not in loaded and name not in buffers
               and not any(part in name.split(".") for part in UNUSED.get(task, ()))]
    if missing:
        raise ExportError(f"{source} has no weights for {missing[0]} ({len(missing)} missing) of task {task}; choose the --task "
                          "that it was saved for")
    model.load_state_dict(given, strict=False)
