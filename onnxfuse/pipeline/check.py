"""Compare two model files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from onnxfuse.errors import UsageError
from onnxfuse.evaluation import calibrated
from onnxfuse.evaluation.sources import dataset_for
from onnxfuse.io import folders
from onnxfuse.io.progress import Progress, silent
from onnxfuse.runtime import Settings, open_runner, runtimes
from onnxfuse.verify import parity, tolerances
from onnxfuse.verify.expected import expect
from onnxfuse.verify.parity import Parity
from onnxfuse.verify.verdict import compare_files, grid_of


def check(first: Path, second: Path, kind: str, data: Path | None = None, progress: Progress = silent) -> Parity:
    """Compare two model files; the first is the reference.

    Args:
        kind: a row of ``tolerances.TOLERANCES``.
        data: real inputs to compare on, beside the grid; of int8 those that it was calibrated with, when None.

    Raises:
        UsageError: no such row, or what the second was calibrated with is gone. ModelError, ParityError: see ``compare_files``.
    """
    if kind not in tolerances.TOLERANCES:
        raise UsageError(f"no tolerance named {kind!r}; choose one of {', '.join(tolerances.TOLERANCES)}")
    real = calibrated.real_inputs(second, first) if kind == "int8" and data is None else None
    if data is not None:
        real = calibrated.real_of(dataset_for(data, second), calibrated.ROWS)
    return compare_files(first, second, kind, real=real, tell=partial(progress, f"comparing {second} with {first}"))


def check_runtime(model: Path, runtime: str) -> Parity:
    """Compare a float32 model in another runtime with itself in ONNX Runtime, in the tolerance of what that one computes in.

    Raises:
        MissingExtraError, ModelError: it is not installed, or cannot run the model.
    """
    expected = expect(open_runner(model), grid_of(model, folders.read_config(model)))
    kind = tolerances.OF_PRECISION[runtimes()[runtime].precision("fp32")]
    return parity.compare(expected, open_runner(model, Settings(runtime=runtime)), kind)
