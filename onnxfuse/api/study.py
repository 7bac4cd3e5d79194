"""The verbs that look into a model, and show it."""

from __future__ import annotations

from pathlib import Path

from onnxfuse.config import BenchmarkConfig
from onnxfuse.errors import UsageError
from onnxfuse.io import folders
from onnxfuse.io.progress import Progress, require_callable, silent
from onnxfuse.pipeline import diff as comparing
from onnxfuse.pipeline import profiling
from onnxfuse.pipeline import report as reporting
from onnxfuse.pipeline.arguments import Source, path_of


def profile(
    model: Source,
    against: Source | None = None,
    *,
    batch: int = 0,
    length: int = 0,
    real: float = 1.0,
    threads: int = 0,
    rounds: int = 20,
    progress: Progress = silent,
) -> profiling.Profiling:
    """Say where a model's time goes in ONNX Runtime, by operator and by layer; of two models, side by side in one run.

    Args:
        model, against: .onnx files, or folders: of a folder what ``load`` opens in ONNX Runtime.
        batch, length: rows, and tokens in a row; 0 takes what the models do.
        real: share of real tokens; the rest is padding.
        threads: for one call; 0 takes what each model's target says.
        rounds: calls that count.

    Raises:
        OnnxfuseError: a model is no ONNX file, or cannot be run; or there is no room for what the profiler writes.
    """
    require_callable(progress)
    beside = None if against is None else path_of(against, "against")
    return profiling.profile(path_of(model), beside, BenchmarkConfig(batch, length, threads, rounds, real), progress)


def diff(
    first: Source,
    second: Source | None = None,
    output: Source | None = None,
    *,
    layer: str = "",
    overwrite: bool = False,
    progress: Progress = silent,
) -> comparing.Difference:
    """Draw a layer of two models beside each other, coloured by the rules that made it, into one HTML file.

    Args:
        second: of a folder ``first`` its ``model_optimized.onnx`` when not given.
        output: the file; ``diff.html`` beside the second model when not given.
        layer: embeddings, head, or a layer's number; the first layer when empty.

    Raises:
        OnnxfuseError: see ``pipeline.diff.diff``.
    """
    require_callable(progress)
    before, after = folders.pair(path_of(first), None if second is None else path_of(second))
    out = after.with_name(comparing.NAME) if output is None else path_of(output, "output")
    return comparing.diff(before, after, out, _layer(layer), progress, overwrite=overwrite)


def report(
    folder: Source,
    output: Source | None = None,
    *,
    data: Source | None = None,
    split: str = "",
    layer: str = "",
    overwrite: bool = False,
    progress: Progress = silent,
) -> reporting.Report:
    """Write all that is known of a folder's models into one HTML file.

    Args:
        folder: what ``run``, ``export`` or ``optimize`` wrote.
        output: the file; ``report.html`` in the folder when not given.
        data, split: labelled samples to measure accuracy on, as of ``evaluate``.
        layer: as of ``diff``.

    Raises:
        OnnxfuseError: see ``pipeline.report.report``.
    """
    require_callable(progress)
    out, samples = _path(output, "output"), _path(data, "data")
    return reporting.report(path_of(folder), out, samples, _layer(layer), progress, split=split, overwrite=overwrite)


def _path(given: Source | None, what: str) -> Path | None:
    return None if given is None else path_of(given, what)


def _layer(given: str) -> str:
    """Raises UsageError for what is no text."""
    if not isinstance(given, str):
        raise UsageError(f"layer is {given!r}, wanted a text: embeddings, head, or a layer's number such as '0'")
    return given
