"""Compare two model files, all of a run with what they come from, or one with itself in another runtime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from onnxfuse.errors import UsageError
from onnxfuse.evaluation import calibrated
from onnxfuse.evaluation.sources import dataset_for
from onnxfuse.io import folders
from onnxfuse.io.progress import Progress, counted, silent
from onnxfuse.quantization.linears import stored_in
from onnxfuse.runtime import Runner, Settings, declared, open_runner, runtimes
from onnxfuse.verify import parity, tolerances, verdict
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from onnxfuse.verify.opened import Opened
from onnxfuse.verify.parity import Parity
from onnxfuse.verify.verdict import Real, compare_files, grid_of

INT8 = "int8"
"""The row of the int8 model in a run."""


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


def compare_all(
    original: Runner, framework: str, models: Mapping[str, Opened], real: Real | None, progress: Progress
) -> dict[str, Parity]:
    """Hold all models of a run against what they were exported from.

    Args:
        models: by the names of their rows; ``INT8`` is judged on the inputs that it was calibrated with.
        real: these.

    Raises:
        ParityError: one differs.
    """
    tell = partial(progress, f"comparing all with {framework}")
    first = next(iter(models.values()))
    random = expect(original, counted(list(grid(first.inputs)), tell, end=verdict.HALF))
    known = [] if real is None else expect(original, real.cases)
    results = {}
    for name, model in counted(list(models.items()), tell, begin=verdict.HALF):
        if name == INT8:
            result = verdict.judge(random, known, model.runner(), "int8", "" if real is None else real.name)
        else:
            result = verdict.judge(random, [], model.runner(), "reassociate")
        there = f"{', '.join(each.path.name for each in models.values())} are in {model.path.parent}"
        results[name] = result.require(f"{model} differs from {framework}", there)
    return results


def check_runtime(model: Path, runtime: str) -> Parity:
    """Compare a float model in another runtime with itself in ONNX Runtime, in the tolerance of what that one computes in.

    Raises:
        MissingExtraError, ModelError: it is not installed, or cannot run the model.
    """
    expected = expect(open_runner(model), grid_of(model, folders.read_config(model)))
    kind = tolerances.OF_PRECISION[runtimes()[runtime].precision(stored_in(declared(model)))]
    return parity.compare(expected, open_runner(model, Settings(runtime=runtime)), kind)
