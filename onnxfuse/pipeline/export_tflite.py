"""Convert a TensorFlow checkpoint for LiteRT."""

from __future__ import annotations

import tempfile
from pathlib import Path

from onnxfuse.config import ExportConfig
from onnxfuse.errors import UsageError
from onnxfuse.io import atomic
from onnxfuse.io.progress import Progress, silent
from onnxfuse.pipeline.export import Exported, guard_of, lay_beside, load_checkpoint
from onnxfuse.pipeline.step import Clock, unwritten
from onnxfuse.verify import parity, tolerances
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from onnxfuse.verify.inputs import profile_of_family
from onnxfuse.verify.opened import Opened


def export_tflite(plan: ExportConfig, progress: Progress = silent) -> Exported:
    """Convert a TensorFlow checkpoint for LiteRT, compare both, and save it in ``plan.out`` under the precision's name.

    Raises:
        OnnxfuseError: see ``exporters``; ParityError when LiteRT does not compute what TensorFlow does.
    """
    from onnxfuse.exporters import checkpoint_runner
    from onnxfuse.exporters.tflite import FILES, convert

    if plan.precision not in FILES:
        raise UsageError(f"--precision {plan.precision}: wanted one of {', '.join(FILES)}")
    label = _required(plan)
    guard = guard_of(plan, FILES[plan.precision])
    clock = Clock()
    checkpoint = load_checkpoint(plan, plan.source, "tf", progress)
    clock.lap("load")
    progress("converting for LiteRT")
    path = plan.out / FILES[plan.precision]
    with atomic.replacing(path, guard) as staged, tempfile.TemporaryDirectory(dir=staged.parent.parent) as scratch:
        convert(checkpoint, staged, plan.precision, Path(scratch))
        clock.lap("convert")
        progress(f"comparing with {label}")
        profile = profile_of_family(checkpoint.family, checkpoint.config, checkpoint.task)
        original = checkpoint_runner(checkpoint)
        expected = expect(original, list(grid(profile)))
        model = Opened(staged, config=checkpoint.saved_config)
        result = parity.compare(expected, model.runner(), tolerances.OF_PRECISION[plan.precision])
        result.require(f"LiteRT differs from {label}", unwritten(path))
        clock.lap("verify")
        step = Exported(
            path,
            staged.stat().st_size,
            clock.seconds,
            result,
            model,
            checkpoint.task,
            "tf",
            str(checkpoint),
            "TensorFlow's converter",
            checkpoint,
            original,
            plan.precision,
        )
        lay_beside(staged, checkpoint, plan, f"export {plan.format} {plan.precision}", step, progress)
    model.move(path)
    return step


def _required(plan: ExportConfig) -> str:
    """What TensorFlow is called. Raises UsageError when the source is another framework's."""
    from onnxfuse.exporters import framework_of, frameworks

    known, framework = frameworks(), framework_of(plan.source, plan.framework)
    label = known["tf"].label
    if framework != "tf":
        raise UsageError(
            f"--format tflite converts {label} models; {plan.source} is {known[framework].label}'s; "
            "give one of the other's, or --framework tf where the tf extra is installed"
        )
    return label
