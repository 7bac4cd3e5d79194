"""ONNX from PyTorch, through torch.export or TorchScript."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxfuse.architecture import OUTPUTS
from onnxfuse.exporters.api import Exporter
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.io import onnx_file

if TYPE_CHECKING:
    import torch

SAMPLE = (2, 7)
"""Batch and length of the sample: torch.export fixes sizes of 1, and transformers leaves out a mask without zeros."""


def sample(checkpoint: Checkpoint) -> tuple[torch.Tensor, ...]:
    """Inputs to trace with: random ids or pixels, and a mask with zeros at the end of the second row."""
    import torch

    config = checkpoint.config
    batch, length = SAMPLE[0], min(SAMPLE[1], checkpoint.family.longest(config) or SAMPLE[1])
    values = {
        "input_ids": torch.arange(batch * length).reshape(batch, length) % config.get("vocab_size", 1000),
        "attention_mask": torch.ones((batch, length), dtype=torch.int64),
        "token_type_ids": torch.zeros((batch, length), dtype=torch.int64),
    }
    values["attention_mask"][1, length // 2 :] = 0
    if "pixel_values" in checkpoint.inputs:
        size = config["image_size"]
        height, width = (size, size) if isinstance(size, int) else size
        generator = torch.Generator().manual_seed(0)
        values["pixel_values"] = torch.randn(batch, config["num_channels"], height, width, generator=generator)
    return tuple(values[name] for name in checkpoint.inputs)


def dynamo(checkpoint: Checkpoint, path: Path, opset: int) -> None:
    """Write a checkpoint to ``path`` with torch.export; weights beyond protobuf's limit in a file of their own."""
    import torch

    longest = checkpoint.family.longest(checkpoint.config) or None
    dims = {"batch_size": torch.export.Dim("batch_size"), "sequence_length": torch.export.Dim("sequence_length", max=longest)}
    shapes = tuple({axis: dims[name] for axis, name in axes.items()} for axes in checkpoint.inputs.values())
    torch.onnx.export(
        checkpoint.module,
        sample(checkpoint),
        str(path),
        dynamo=True,
        dynamic_shapes=(shapes,),
        input_names=list(checkpoint.inputs),
        output_names=list(OUTPUTS[checkpoint.task]),
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
        output_names=list(OUTPUTS[checkpoint.task]),
        opset_version=opset,
        verbose=False,
    )


def _is_large(checkpoint: Checkpoint) -> bool:
    size: int = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.module.state_dict().values())
    return size > onnx_file.PROTOBUF_LIMIT - (1 << 24)


DYNAMO = Exporter("dynamo", "pt", 20, range(14, 24), dynamo, default=True)  # writes opset 18, and converts it down where it can
TORCHSCRIPT = Exporter("torchscript", "pt", 17, range(14, 21), torchscript)
