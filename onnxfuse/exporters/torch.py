"""Write a checkpoint as ONNX, through torch.export or TorchScript."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxfuse import files, storage
from onnxfuse.architecture import OUTPUTS, TOKENS
from onnxfuse.errors import ExportError, UsageError
from onnxfuse.exporters.sources import Checkpoint
from onnxfuse.normalize.structure import forget_origins
from onnxfuse.quiet import quiet

if TYPE_CHECKING:
    import torch

EXPORTERS = {"dynamo": 20, "torchscript": 17}
"""The exporters, and the opset each writes unless told otherwise: the newest that all runtimes of 2025 read, and the
newest that TorchScript knows for these models."""

OPSETS = {"dynamo": range(14, 24), "torchscript": range(14, 21)}
"""What may be asked for. torch.export writes opset 18 and converts it down where its converter can."""

SAMPLE = (2, 7)
"""Batch and length of the sample: torch.export fixes sizes of 1, and transformers leaves out a mask without zeros."""


def export(checkpoint: Checkpoint, path: Path, *, exporter: str = "dynamo", opset: int | None = None) -> None:
    """Write ``checkpoint`` to ``path`` as an ONNX model with dynamic batch and length.

    Args:
        exporter: ``dynamo`` (torch.export) or ``torchscript``.
        opset: None takes the exporter's in ``EXPORTERS``.

    Raises:
        UsageError: an exporter or opset that does not exist.
        ExportError: the exporter failed; its own words follow.
    """
    opset = choose_opset(exporter, opset)
    with files.replacing(path) as staged:
        raw = staged.with_name("raw") / staged.name  # large weights come in files of the exporter's own naming
        raw.parent.mkdir()
        with quiet():
            try:
                _WRITERS[exporter](checkpoint, raw, opset)
            except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError, IndexError) as error:
                raise ExportError(f"the {exporter} exporter failed on {checkpoint.name}: {files.first_line(error)}; "
                                  f"try --exporter {'torchscript' if exporter == 'dynamo' else 'dynamo'}") from error
        model = storage.load(raw)
        written = model.opset_imports[""]
        if written != opset:
            raise ExportError(f"the {exporter} exporter wrote opset {written} for {checkpoint.name}, wanted {opset}: "
                              f"its converter does not reach it; use --opset {written}")
        _name_outputs(model)
        checkpoint.family.name_inputs(model)
        forget_origins(model)
        storage.save(model, staged)
        shutil.rmtree(raw.parent)


def choose_opset(exporter: str, opset: int | None) -> int:
    """The opset to export with. Raises UsageError for an exporter or opset that does not exist."""
    if exporter not in EXPORTERS:
        raise UsageError(f"no exporter named {exporter!r}; choose one of {', '.join(EXPORTERS)}")
    opset = opset or EXPORTERS[exporter]
    span = OPSETS[exporter]
    if opset not in span:
        raise UsageError(f"the {exporter} exporter writes opset {span[0]} to {span[-1]}, not {opset}")
    return opset


def sample(checkpoint: Checkpoint) -> tuple[torch.Tensor, ...]:
    """Inputs to trace with: random ids or pixels, and a mask with zeros at the end of the second row."""
    import torch

    batch, length = SAMPLE
    config = checkpoint.config
    values = {
        "input_ids": torch.arange(batch * length).reshape(SAMPLE) % config.get("vocab_size", 1000),
        "attention_mask": torch.ones(SAMPLE, dtype=torch.int64),
        "token_type_ids": torch.zeros(SAMPLE, dtype=torch.int64),
    }
    values["attention_mask"][1, length // 2:] = 0
    if "pixel_values" in checkpoint.family.inputs:
        size = config["image_size"]
        height, width = (size, size) if isinstance(size, int) else size
        generator = torch.Generator().manual_seed(0)
        values["pixel_values"] = torch.randn(batch, config["num_channels"], height, width, generator=generator)
    return tuple(values[name] for name in checkpoint.family.inputs)


def _dynamo(checkpoint: Checkpoint, path: Path, opset: int) -> None:
    import torch

    longest = checkpoint.config.get("max_position_embeddings")
    dims = {"batch_size": torch.export.Dim("batch_size"),
            "sequence_length": torch.export.Dim("sequence_length", max=longest)}
    shapes = tuple({axis: dims[name] for axis, name in axes.items()} for axes in checkpoint.family.inputs.values())
    torch.onnx.export(checkpoint.module, sample(checkpoint), str(path), dynamo=True, dynamic_shapes=(shapes,),
                      input_names=list(checkpoint.family.inputs), output_names=list(OUTPUTS[checkpoint.task]),
                      opset_version=opset, external_data=_is_large(checkpoint), verbose=False)


def _torchscript(checkpoint: Checkpoint, path: Path, opset: int) -> None:
    import torch

    axes = {name: dict(dims) for name, dims in checkpoint.family.inputs.items()}
    torch.onnx.export(checkpoint.module, sample(checkpoint), str(path), dynamo=False, dynamic_axes=axes,
                      input_names=list(checkpoint.family.inputs), output_names=list(OUTPUTS[checkpoint.task]),
                      opset_version=opset, verbose=False)


_WRITERS: dict[str, Any] = {"dynamo": _dynamo, "torchscript": _torchscript}


def _is_large(checkpoint: Checkpoint) -> bool:
    size = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.module.state_dict().values())
    return size > storage.PROTOBUF_LIMIT - (1 << 24)


def _name_outputs(model: ir.Model) -> None:
    """Name dynamic dimensions of outputs as those of the inputs, however the exporter called them."""
    for value in model.graph.outputs:
        if value.shape is not None:
            value.shape = ir.Shape([ir.SymbolicDim(TOKENS[axis]) if axis in TOKENS and not isinstance(dim, int) else dim
                                    for axis, dim in enumerate(value.shape.dims)])
