"""The verbs that look into a model."""

from __future__ import annotations

from onnxfuse.config import BenchmarkConfig
from onnxfuse.io.progress import Progress, require_callable, silent
from onnxfuse.pipeline import profiling
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
