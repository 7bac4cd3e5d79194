"""Export a checkpoint to ONNX, and prove it against its own framework."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse.config import ExportConfig
from onnxfuse.errors import ExportError
from onnxfuse.io import atomic, folders, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.runtime import open_runner
from onnxfuse.verify import parity, verdict
from onnxfuse.verify.expected import expect
from onnxfuse.verify.verdict import grid_of

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint
from onnxfuse.pipeline.step import Clock, Step, unwritten


def export(plan: ExportConfig, progress: Progress = silent, source: Any = None) -> tuple[Step, Checkpoint]:
    """Export a checkpoint to ``plan.out/model.onnx`` and compare it with its own framework.

    Args:
        source: a ``transformers`` or KerasHub model to export instead of ``plan.source``.

    Raises:
        OnnxfuseError: see ``exporters``; ParityError when the graph does not compute what the framework does.
    """
    from onnxfuse.exporters import checkpoint_runner, choose_exporter, choose_opset, framework_of, frameworks, open_checkpoint
    from onnxfuse.exporters import export as write

    source = source or plan.source
    framework = framework_of(source, plan.framework)
    exporter = choose_exporter(plan.exporter, framework)
    opset = choose_opset(exporter, plan.opset)
    clock = Clock()
    progress(f"loading {plan.source}")
    checkpoint = open_checkpoint(
        source,
        framework=framework,
        task=plan.task,
        model_type=plan.model_type,
        random_weights=plan.random_weights,
        seed=plan.seed,
    )
    clock.lap("load")
    progress(f"exporting with {exporter}")
    path = plan.out / folders.MODEL
    with atomic.replacing(path) as staged:
        write(checkpoint, staged, exporter=exporter, opset=opset)
        clock.lap("export")
        label = frameworks()[framework].label
        progress(f"comparing with {label}")
        expected = expect(checkpoint_runner(checkpoint), grid_of(staged, checkpoint.config))
        verdict.require_numbers(expected, onnx_file.load(staged), str(plan.source), ExportError)
        result = parity.compare(expected, open_runner(staged), "reassociate")
        result.require(f"the export differs from {label}", unwritten(path))
        clock.lap("verify")
        details = {"task": checkpoint.task, "framework": framework, "from": str(checkpoint), "exporter": exporter}
        step = Step(path, onnx_file.model_bytes(staged), clock.seconds, result, details)
        lay_beside(staged, checkpoint, plan, "export", step)
    return step, checkpoint


def lay_beside(staged: Path, checkpoint: Checkpoint, plan: ExportConfig, name: str, step: Step) -> None:
    """What belongs to an exported model, beside it while it is staged: all of it takes its place, or nothing."""
    checkpoint.save_beside(staged.parent)
    folders.record(plan.out, name, plan, step.to_json(), staged=staged.parent)


FORMATS = ("onnx", "tflite")
