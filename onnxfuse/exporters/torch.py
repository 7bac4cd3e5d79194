"""ONNX from PyTorch, through torch.export or TorchScript."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfuse.architecture import IDS, MASK, PIXELS, PROMPT, TYPES
from onnxfuse.config import BATCH_SIZE, NUM_CHOICES, SEQUENCE_LENGTH
from onnxfuse.exporters.api import Exporter
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.io import onnx_file

if TYPE_CHECKING:
    import torch

SAMPLE = {BATCH_SIZE: 2, NUM_CHOICES: 3, SEQUENCE_LENGTH: 7}
"""Sizes of the sample: torch.export fixes sizes of 1, and transformers leaves out a mask without zeros."""


def sample(checkpoint: Checkpoint) -> tuple[torch.Tensor, ...]:
    """Inputs to trace with: ids in order, or random pixels, and a mask with zeros at the end of the second row."""
    import torch

    config = checkpoint.config
    batch, length = SAMPLE[BATCH_SIZE], min(SAMPLE[SEQUENCE_LENGTH], checkpoint.family.longest(config) or SAMPLE[SEQUENCE_LENGTH])
    values = {}
    if IDS in checkpoint.inputs:
        sizes = SAMPLE | {SEQUENCE_LENGTH: length}
        shape = [sizes[name] for name in checkpoint.inputs[IDS].values()]
        ids = torch.arange(math.prod(shape)).reshape(shape) % config.get("vocab_size", 1000)
        values = {IDS: ids, MASK: torch.ones_like(ids), TYPES: torch.zeros_like(ids), PROMPT: torch.tensor([1, 2])}
        values[MASK][1, ..., length // 2 :] = 0
    if PIXELS in checkpoint.inputs:
        size = config["image_size"]
        height, width = (size, size) if isinstance(size, int) else size
        generator = torch.Generator().manual_seed(0)
        values[PIXELS] = torch.randn(batch, config["num_channels"], height, width, generator=generator)
    return tuple(values[name] for name in checkpoint.inputs)


def dynamo(checkpoint: Checkpoint, path: Path, opset: int) -> None:
    """Write a checkpoint to ``path`` with torch.export; weights beyond protobuf's limit in a file of their own."""
    import torch

    longest = {SEQUENCE_LENGTH: checkpoint.family.longest(checkpoint.config) or None}
    dims = {name: torch.export.Dim(name, max=longest.get(name)) for name in SAMPLE}
    shapes = tuple({axis: dims[name] for axis, name in axes.items()} for axes in checkpoint.inputs.values())
    torch.onnx.export(
        checkpoint.module,
        sample(checkpoint),
        str(path),
        dynamo=True,
        dynamic_shapes=(shapes,),
        input_names=list(checkpoint.inputs),
        output_names=list(checkpoint.outputs),
        opset_version=opset,
        external_data=_is_large(checkpoint),
        verbose=False,
    )


def torchscript(checkpoint: Checkpoint, path: Path, opset: int) -> None:
    """Write a checkpoint to ``path`` by tracing it with TorchScript."""
    import torch

    axes = {name: dict(dims) for name, dims in checkpoint.inputs.items()}
    torch.onnx.export(
        checkpoint.module,
        sample(checkpoint),
        str(path),
        dynamo=False,
        dynamic_axes=axes,
        input_names=list(checkpoint.inputs),
        output_names=list(checkpoint.outputs),
        opset_version=opset,
        verbose=False,
    )


def _is_large(checkpoint: Checkpoint) -> bool:
    size: int = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.module.state_dict().values())
    return size > onnx_file.PROTOBUF_LIMIT - (1 << 24)


DYNAMO = Exporter("dynamo", "pt", 20, range(14, 24), dynamo, default=True)  # writes opset 18, and converts it down where it can
TORCHSCRIPT = Exporter("torchscript", "pt", 17, range(14, 21), torchscript)
