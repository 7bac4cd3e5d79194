"""Export a checkpoint to ONNX, and prove it against its own framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse.config import ExportConfig
from onnxfuse.errors import ExportError
from onnxfuse.io import atomic, folders, places
from onnxfuse.io.ours import Replaceable, require_elsewhere, stale
from onnxfuse.io.progress import Progress, counted, silent
from onnxfuse.pipeline.step import Clock, Step, unwritten
from onnxfuse.runtime import Runner
from onnxfuse.verify import parity, verdict
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from onnxfuse.verify.opened import Opened, Remembered

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint

FORMATS = ("onnx", "tflite")


@dataclass(frozen=True)
class Exported(Step):
    """An exported model.

    Args:
        task: what its outputs are for.
        framework: ``pt`` or ``tf``.
        origin: how the checkpoint was read, for people.
        exporter: what wrote it.
        precision: of a LiteRT model.
        checkpoint: what it came from, loaded.
        original: the checkpoint in its own framework, as a function from feeds to outputs.
    """

    task: str
    framework: str
    origin: str
    exporter: str
    checkpoint: Checkpoint = field(repr=False, compare=False)
    original: Runner = field(repr=False, compare=False)
    precision: str = ""

    def details(self) -> dict[str, Any]:
        precision = {"precision": self.precision} if self.precision else {}
        return {"task": self.task, "framework": self.framework, "from": self.origin, "exporter": self.exporter, **precision}


def export(
    plan: ExportConfig,
    progress: Progress = silent,
    source: Any = None,
    *,
    keep: bool = False,
    accept: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Exported:
    """Export a checkpoint to ``plan.out/model.onnx`` and compare it with its own framework.

    Args:
        source: a ``transformers`` or KerasHub model to export instead of ``plan.source``.
        keep: whether both stay open, and remember what they computed, in the result.
        accept: raises where a loaded checkpoint is not worth an export.

    Raises:
        OnnxfuseError: see ``exporters``; ParityError when the graph does not compute what the framework does.
    """
    from onnxfuse.exporters import checkpoint_runner, choose_exporter, choose_opset, framework_of, frameworks
    from onnxfuse.exporters import export as write

    guard = guard_of(plan, folders.MODEL)
    source = plan.source if source is None else source
    framework = framework_of(source, plan.framework)
    exporter = choose_exporter(plan.exporter, framework)
    opset = choose_opset(exporter, plan.opset)
    clock = Clock()
    checkpoint = load_checkpoint(plan, source, framework, progress)
    accept(checkpoint)
    clock.lap("load")
    path = plan.out / folders.MODEL
    progress(f"exporting with {exporter}")
    with atomic.replacing(path, guard) as staged:
        model = Opened(staged, write(checkpoint, staged, exporter=exporter, opset=opset), checkpoint.saved_config, keep=keep)
        clock.lap("export")
        label, run = frameworks()[framework].label, checkpoint_runner(checkpoint)
        cases = counted(list(grid(model.inputs)), partial(progress, f"comparing with {label}"), end=verdict.HALF)
        original = Remembered(run) if keep else run
        expected = expect(original, cases)
        verdict.require_numbers(expected, model.model, str(plan.source), ExportError)
        result = parity.compare(expected, model.runner(), "reassociate")
        result.require(f"the export differs from {label}", unwritten(path))
        clock.lap("verify")
        came = (checkpoint.task, framework, str(checkpoint), exporter, checkpoint, original)
        step = Exported(path, model.size, clock.seconds, result, model, *came)
        lay_beside(staged, checkpoint, plan, "export", step, progress)
    model.move(path)
    return step


def guard_of(plan: ExportConfig, *names: str) -> Replaceable:
    """What may be replaced in ``plan.out``. Raises UsageError: it is the source itself, or one of ``names`` there must stay."""
    require_elsewhere(plan.out, [Path(plan.source)])
    guard = Replaceable(overwrite=plan.overwrite)
    guard.require(*(plan.out / name for name in (*names, "config.json", folders.RECORD)))
    return guard


def load_checkpoint(plan: ExportConfig, source: Any, framework: str, progress: Progress) -> Checkpoint:
    """The checkpoint that a plan asks for. Raises OnnxfuseError: see ``exporters``."""
    from onnxfuse.exporters import open_checkpoint

    progress(f"loading {plan.source}")
    return open_checkpoint(
        source,
        framework=framework,
        task=plan.task,
        model_type=plan.model_type,
        random_weights=plan.random_weights,
        seed=plan.seed,
        outputs=plan.outputs,
    )


def lay_beside(staged: Path, checkpoint: Checkpoint, plan: ExportConfig, name: str, step: Step, progress: Progress) -> None:
    """What belongs to an exported model, beside it while it is staged, and what goes with the old one: all of it, or nothing."""
    names = checkpoint.save_beside(staged.parent)
    if not plan.random_weights:
        plan = replace(plan, source=places.origin(plan.source, plan.out))
    steps, gone = stale(name, staged, names, plan.source)
    atomic.merge(staged.with_name(folders.RECORD), steps)
    atomic.drop(staged, gone)
    if gone:
        progress(f"removing {', '.join(gone)}: made from what was there")
    folders.record(plan.out, name, plan, step.to_json(), staged=staged, files=(staged.name, *names))
