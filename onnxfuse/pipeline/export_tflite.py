"""Convert a TensorFlow checkpoint for LiteRT."""

from __future__ import annotations

import tempfile
from pathlib import Path

from onnxfuse.config import ExportConfig
from onnxfuse.errors import UsageError
from onnxfuse.io import atomic, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.pipeline.export import lay_beside
from onnxfuse.pipeline.step import Clock, Step, unwritten
from onnxfuse.runtime import open_runner
from onnxfuse.verify import parity, tolerances
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from onnxfuse.verify.inputs import profile_of_family


def export_tflite(plan: ExportConfig, progress: Progress = silent) -> Step:
    """Convert a TensorFlow checkpoint for LiteRT, compare both, and save it in ``plan.out`` under the precision's name.

    Raises:
        OnnxfuseError: see ``exporters``; ParityError when LiteRT does not compute what TensorFlow does.
    """
    from onnxfuse.exporters import checkpoint_runner, framework_of, frameworks, open_checkpoint
    from onnxfuse.exporters.tflite import FILES, convert

    if plan.precision not in FILES:
        raise UsageError(f"--precision {plan.precision}: wanted one of {', '.join(FILES)}")
    known, framework = frameworks(), framework_of(plan.source, plan.framework)
    label = known["tf"].label
    if framework != "tf":
        raise UsageError(
            f"--format tflite converts {label} models; {plan.source} is {known[framework].label}'s; "
            "give one of the other's, or --framework tf where the tf extra is installed"
        )
    clock = Clock()
    progress(f"loading {plan.source}")
    checkpoint = open_checkpoint(
        plan.source,
        framework="tf",
        task=plan.task,
        model_type=plan.model_type,
        random_weights=plan.random_weights,
        seed=plan.seed,
    )
    clock.lap("load")
    progress("converting for LiteRT")
    path = plan.out / FILES[plan.precision]
    with atomic.replacing(path) as staged, tempfile.TemporaryDirectory(dir=staged.parent.parent) as scratch:
        convert(checkpoint, staged, plan.precision, Path(scratch))
        clock.lap("convert")
        progress(f"comparing with {label}")
        profile = profile_of_family(checkpoint.family, checkpoint.config)
        expected = expect(checkpoint_runner(checkpoint), list(grid(profile)))
        result = parity.compare(expected, open_runner(staged), tolerances.OF_PRECISION[plan.precision])
        result.require(f"LiteRT differs from {label}", unwritten(path))
        clock.lap("verify")
        details = {
            "task": checkpoint.task,
            "framework": "tf",
            "from": str(checkpoint),
            "exporter": "TensorFlow's converter",
            "precision": plan.precision,
        }
        step = Step(path, onnx_file.model_bytes(staged), clock.seconds, result, details)
        lay_beside(staged, checkpoint, plan, f"export {plan.format} {plan.precision}", step)
    return step
