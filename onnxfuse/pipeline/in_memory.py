"""Models in memory, for verbs that work on files: written to a folder that is gone afterwards, and read back whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_ir as ir

from onnxfuse.errors import ModelError, OnnxfuseError
from onnxfuse.io import folders, onnx_file
from onnxfuse.io.atomic import scratch

M = TypeVar("M", onnx.ModelProto, ir.Model)


@contextmanager
def as_file(model: onnx.ModelProto | ir.Model) -> Iterator[Path]:
    """A file that holds the model while the block runs; the model itself stays as it is.

    Raises:
        ModelError: some of its weights lie in another file. What the block raises names the model instead of the file.
    """
    if isinstance(model, onnx.ModelProto):
        elsewhere = [t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
        if elsewhere:
            raise ModelError(f"weight {elsewhere[0]} of the model lies in another file; give the model's path, or load it whole")
    with scratch() as folder:
        path = folder / folders.MODEL
        try:
            onnx_file.save(ir.from_proto(model) if isinstance(model, onnx.ModelProto) else model.clone(), path)
            yield path
        except OnnxfuseError as error:
            error.args = tuple(str(part).replace(str(path), "the model").replace(str(folder), "memory") for part in error.args)
            raise


def read(path: Path, like: M) -> M:
    """The model in a file, of the kind that ``like`` is, with its weights in memory."""
    if isinstance(like, onnx.ModelProto):
        return onnx.load(path)
    model = onnx_file.load(path)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=value.name)
    return model


@contextmanager
def mode_kept(model: Any) -> Iterator[None]:
    """A torch module trains, or does not, afterwards as before: exporting puts it into evaluation mode."""
    modes = {module: module.training for module in model.modules()} if hasattr(model, "modules") else {}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
