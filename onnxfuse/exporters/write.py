"""Write a checkpoint as ONNX, through the exporter of its framework."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import onnx_ir as ir

from onnxfuse.architecture import CHOICES, MULTIPLE_CHOICE, TOKENS
from onnxfuse.errors import ExportError, OnnxfuseError, UsageError, first_line
from onnxfuse.exporters import empty_rows, rotary
from onnxfuse.exporters.api import exporters, frameworks
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.io import atomic, external, onnx_file
from onnxfuse.io.quiet import quiet
from onnxfuse.normalize.structure import forget_origins


def export(checkpoint: Checkpoint, path: Path, *, exporter: str | None = None, opset: int | None = None) -> ir.Model:
    """Write ``checkpoint`` to ``path`` as an ONNX model with dynamic batch and length.

    Args:
        exporter: a name of ``exporters``; None takes the default one of the checkpoint's framework.
        opset: None takes the exporter's own.

    Returns:
        The model as it was read back, its weights in ``path``.

    Raises:
        UsageError: an exporter or opset that does not exist.
        ExportError: the exporter failed; its own words follow.
    """
    exporter = choose_exporter(exporter, checkpoint.framework)
    opset = choose_opset(exporter, opset)
    with atomic.replacing(path) as staged:
        raw = staged.with_name("raw") / staged.name  # large weights come in files of the exporter's own naming
        raw.parent.mkdir()
        with quiet():
            try:
                exporters()[exporter].write(checkpoint, raw, opset)
            except (OnnxfuseError, OSError):  # a full disk is no fault of the exporter
                raise
            except Exception as error:
                others = [name for name in exporters(checkpoint.framework) if name != exporter]
                elsewhere = next(iter(frameworks().values())).label
                advice = f"try --exporter {others[0]}" if others else f"export it with {elsewhere} instead"
                raise ExportError(
                    f"the {exporter} exporter failed on {checkpoint.name}: {type(error).__name__}: {first_line(error)}; {advice}"
                ) from error
        if not raw.is_file():
            raise ExportError(f"the {exporter} exporter wrote no model for {checkpoint.name}; correct it, or choose another")
        model = onnx_file.load(raw)
        _require(model, checkpoint, exporter, opset)
        empty_rows.restore(model)
        rotary.widen(model)
        _drop_unread_inputs(model, checkpoint.inputs)
        _name_outputs(model, CHOICES if checkpoint.task == MULTIPLE_CHOICE else TOKENS)
        checkpoint.family.name_inputs(model)
        forget_origins(model)
        saved = onnx_file.save(model, staged)
        shutil.rmtree(raw.parent)
    external.follow(saved, staged, path)
    return saved


def _require(model: ir.Model, checkpoint: Checkpoint, exporter: str, opset: int) -> None:
    """Raises ExportError when an export has another opset than asked, or lacks inputs of its family."""
    written = model.opset_imports[""]
    if written != opset:
        raise ExportError(
            f"the {exporter} exporter wrote opset {written} for {checkpoint.name}, wanted {opset}: "
            f"its converter does not reach it; use --opset {written}"
        )
    unread = set(checkpoint.inputs) - {value.name for value in model.graph.inputs}
    if unread:
        raise ExportError(
            f"the graph of {checkpoint.name} does not read {' and '.join(sorted(unread))}, as models "
            f"of {checkpoint.family.model_type} do; its config.json may be of none (no layers)"
        )


def choose_exporter(exporter: str | None, framework: str) -> str:
    """The exporter to use for a framework. Raises UsageError for one that does not exist or takes another framework's models."""
    known, fitting, labels = exporters(), exporters(framework), frameworks()
    if exporter is None and fitting:
        return next(iter(fitting))
    if exporter is None or exporter not in known:
        wrong = f"{labels[framework].label} has no exporter" if exporter is None else f"no exporter named {exporter!r}"
        raise UsageError(f"{wrong}; choose one of {', '.join(known)}")
    if exporter not in fitting:
        raise UsageError(
            f"--exporter {exporter} takes {labels[known[exporter].framework].label} models, this one is "
            f"{labels[framework].label}'s; choose {' or '.join(fitting)}"
        )
    return exporter


def choose_opset(exporter: str, opset: int | None) -> int:
    """The opset to export with. Raises UsageError for an opset that the exporter does not write."""
    chosen = exporters()[exporter]
    if opset is not None and opset not in chosen.opsets:
        raise UsageError(f"the {exporter} exporter writes opset {chosen.opsets[0]} to {chosen.opsets[-1]}, not {opset}")
    return opset or chosen.opset


def _drop_unread_inputs(model: ir.Model, wanted: Collection[str]) -> None:
    """Drop inputs that nothing reads and the family does not have: weights that went round an exporter and were folded there."""
    for value in list(model.graph.inputs):
        if value.name not in wanted and not value.uses() and not value.is_graph_output():
            model.graph.inputs.remove(value)


def _name_outputs(model: ir.Model, axes: Mapping[int, str]) -> None:
    """Name dynamic dimensions of outputs as those of the inputs, ``axes``, however the exporter called them."""
    for value in model.graph.outputs:
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    ir.SymbolicDim(axes[axis]) if axis in axes and not isinstance(dim, int) else dim
                    for axis, dim in enumerate(value.shape.dims)
                ]
            )
