"""The verbs that hold models against each other."""

from __future__ import annotations

from collections.abc import Sequence

from onnxfuse import cluster
from onnxfuse.cluster import Cluster
from onnxfuse.config import BenchmarkConfig
from onnxfuse.errors import UsageError
from onnxfuse.io.progress import Progress, require_callable, silent
from onnxfuse.pipeline import check as checking
from onnxfuse.pipeline import compare, evaluate_rewrites, evaluate_shards
from onnxfuse.pipeline import evaluate as evaluating
from onnxfuse.pipeline.arguments import Source, baselines_of, files_of, path_of, runtimes_of
from onnxfuse.verify.parity import Parity


def evaluate(
    models: Source | Sequence[Source],
    data: Source,
    *,
    split: str = "",
    batch: int = 8,
    threads: int = 0,
    rounds: int = 20,
    seconds: float = 0.0,
    runtimes: Sequence[str] = ("ort",),
    against: Sequence[str] = (),
    ablate: bool = False,
    target: str | None = None,
    engine: str = "local",
    address: str = "",
    actors: int = 0,
    progress: Progress = silent,
) -> evaluating.Evaluation:
    """Measure on labelled samples how good models are, beside the first of them, and how fast. Raises OnnxfuseError.

    Args:
        data: a file or folder of a published form, or a data set of the hub (``glue:mrpc``): see ``scoring.rows``.
        split: of a folder with several, or of a data set of the hub.
        seconds, runtimes, against: as of ``benchmark``.
        ablate: of one model, in place of other models its rewrites: none, each alone, and all.
        engine, address, actors: "local", or "ray", which spreads the rows over actors: see ``map``.
        target: with it, whose rewrites; cpu where none is given.
    """
    require_callable(progress)
    config = BenchmarkConfig(batch, threads=threads, rounds=rounds, seconds=seconds)
    if not isinstance(ablate, bool):
        raise UsageError(f"ablate is {ablate!r:.40}, wanted True or False")
    if target is not None and not ablate:
        raise UsageError(f"target {target!r:.80} says whose rewrites ablate judges; add ablate=True, or leave it out")
    paths, source = files_of(models), path_of(data, "data")
    where = cluster.chosen(engine, Cluster(address, actors, threads))
    here = {"--ablate": ablate, "--against": against}
    tally = evaluate_shards.tally_of(where, paths, source, split, runtimes=runtimes, alone=here)
    if ablate:
        if len(paths) > 1 or against or tuple(runtimes) != ("ort",):
            raise UsageError("ablate judges one model in ONNX Runtime; leave out other models, runtimes and against")
        return evaluate_rewrites.evaluate_rewrites(paths[0], source, config, target or "cpu", progress, split)
    runtimes, others = runtimes_of(runtimes), baselines_of(against)
    return evaluating.evaluate(paths, source, config, progress, split, runtimes=runtimes, against=others, tally=tally)


def benchmark(
    models: Source | Sequence[Source],
    *,
    batch: int = 0,
    length: int = 0,
    threads: int = 0,
    rounds: int = 20,
    seconds: float = 0.0,
    real: float = 1.0,
    runtimes: Sequence[str] = ("ort",),
    against: Sequence[str] = (),
    progress: Progress = silent,
) -> compare.Comparison:
    """Time models side by side in one interleaved run, with parity with the first.

    Args:
        batch, length: rows, and tokens in a row; 0 takes what the model does.
        seconds: run time for each, warm-up not counted, instead of rounds where it is not 0.
        real: share of real tokens; the rest is padding.
        against: other tools, made from the first model: see ``pipeline.baselines``.

    Raises:
        OnnxfuseError: a model cannot be measured. Another tool that fails is named in the result instead.
    """
    require_callable(progress)
    config, runtimes = BenchmarkConfig(batch, length, threads, rounds, real, seconds=seconds), runtimes_of(runtimes)
    others = baselines_of(against)
    return compare.compare_models(files_of(models), config, runtimes=runtimes, against=others, progress=progress)


def check(first: Source, second: Source, *, kind: str = "reassociate", data: Source | None = None) -> Parity:
    """Compare two models; the first is the reference. The result says whether they agree: ``passed``, ``require``.

    Args:
        kind: a row of the tolerances: exact, reassociate (float32), half (float16) or int8.
        data: real inputs to compare on; of int8 those that it was calibrated with, when not given.

    Raises:
        OnnxfuseError: they take other inputs or give other outputs, or nothing can be compared.
    """
    paths = files_of([first, second])
    return checking.check(paths[0], paths[1], kind, None if data is None else path_of(data, "data"))
