"""The verbs that hold models against each other: check, benchmark, evaluate.

What works on models is imported by the verb that needs it, so that --help and wrong usage answer at once.
"""

from __future__ import annotations

from pathlib import Path

from onnxfuse.cli import ci, options
from onnxfuse.cli.console import error_json, pace_text, progress, show, threads_text
from onnxfuse.config import BenchmarkConfig
from onnxfuse.errors import ParityError, UsageError
from onnxfuse.io import files, folders


@options.examples(
    "onnxfuse check onnx/bert-base-cased/model.onnx onnx/bert-base-cased/model_optimized.onnx",
    "onnxfuse check a.onnx b.onnx --kind half",
)
def check(
    first: options.First,
    second: options.Second,
    kind: options.Kind = "reassociate",
    data: options.RealData = None,
    junit: options.Junit = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Compare the outputs of two models on a grid of batches, lengths and masks; int8 on real inputs where it was calibrated."""
    paths = [folders.source_file(path, *folders.RUN) for path in (first, second)]

    from onnxfuse.cli import tables
    from onnxfuse.pipeline import check as verb

    with ci.report("check", junit, overwrite=overwrite, sources=paths) as cases:
        with progress() as tell:
            result = verb.check(paths[0], paths[1], kind, data, tell)
        cases.cases += [(each.output, "; ".join(result.failures_of(each.output))) for each in result.differences]
        failed = None
        try:
            result.require(f"{paths[1]} differs from {paths[0]}")
        except ParityError as error:
            failed = error
        wrong = {} if failed is None else {"error": error_json("ParityError", str(failed), failed.exit_code)}
        found = {"reference": str(paths[0]), "model": str(paths[1]), "parity": result.to_json()}
        show(as_json, found | wrong, *tables.parity_lines(result))
        if failed is not None:
            raise failed


@options.examples(
    "onnxfuse benchmark onnx/bert-base-cased --batch 8 --length 128 --real 0.4",
    "onnxfuse benchmark onnx/bert-base-cased --against all --plot speed.svg",
)
def benchmark(
    models: options.Models,
    batch: options.Batch = None,
    length: options.Length = None,
    threads: options.Threads = 0,
    rounds: options.OrRounds = None,
    seconds: options.Seconds = None,
    real: options.RealShare = 1.0,
    runtime: options.Runtimes = None,
    against: options.Against = None,
    plot: options.Plot = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Time models side by side, with other tools' if asked, in one interleaved run; parity is with the first."""
    plan = BenchmarkConfig(batch or 0, length or 0, threads, real=real, **options.pace(rounds, seconds))
    paths = [path for model in models for path in _models_in(model)]

    from onnxfuse.cli import plots, tables
    from onnxfuse.pipeline import baselines, compare

    others = baselines.choose(against) if against else []
    if plot is not None:
        plots.require_place(plot, overwrite=overwrite)
    with progress() as tell:
        outcome = compare.compare_models(paths, plan, runtimes=tuple(runtime or ("ort",)), against=others, progress=tell)
    title = f"{outcome.shape}, {threads_text(threads)}, {pace_text(plan)}"
    if plot is not None:
        plots.comparison(outcome, plot, title)
    missing = [f"{name} could not take part: {why}" for name, why in outcome.failed.items()]
    show(as_json, outcome.to_json(), tables.comparison_table(outcome, title), *missing)


@options.examples(
    "onnxfuse evaluate onnx/mine --data test.csv",
    "onnxfuse evaluate onnx/reader --data dev-v2.0.json --ablate",
    "onnxfuse evaluate onnx/mine --data msr_paraphrase_test.txt.tsv --runtime ort --runtime openvino --against torch",
)
def evaluate(
    models: options.Models,
    data: options.Labelled,
    split: options.Split = "",
    batch: options.Rows = 8,
    threads: options.Threads = 0,
    rounds: options.OrRounds = None,
    seconds: options.Seconds = None,
    runtime: options.Runtimes = None,
    against: options.Against = None,
    ablate: options.Ablate = False,
    target: options.AblatedTarget = None,
    engine: options.EngineName = "local",
    address: options.Address = "",
    actors: options.Actors = 0,
    as_json: options.Json = False,
) -> None:
    """Measure on labelled data how good models are (the published figures, closeness to the first), beside how fast."""
    config = BenchmarkConfig(batch, threads=threads, **options.pace(rounds, seconds))
    given = {"--runtime": runtime, "--against": against}
    alone = _alone(models, ablate, target, [name for name, value in given.items() if value])
    paths = [alone] if alone else [path for model in models for path in _models_in(model)]

    from onnxfuse import cluster
    from onnxfuse.cli import tables
    from onnxfuse.cluster import Cluster
    from onnxfuse.pipeline import baselines, evaluate_rewrites, evaluate_shards
    from onnxfuse.pipeline import evaluate as verb

    others, runtimes = baselines.choose(against) if against else [], tuple(runtime or ("ort",))
    where, here = cluster.chosen(engine, Cluster(address, actors, threads)), {"--ablate": ablate, "--against": against}
    tally = evaluate_shards.tally_of(where, paths, data, split, runtimes=runtimes, alone=here)
    with progress() as tell:
        if alone:
            outcome = evaluate_rewrites.evaluate_rewrites(alone, data, config, target or "cpu", tell, split)
        else:
            outcome = verb.evaluate(paths, data, config, tell, split, runtimes=runtimes, against=others, tally=tally)
    taken = next(iter(outcome.rows.values())).batch
    what = f"{alone} for target {target or 'cpu'}, " if alone else ""
    title = f"{what}{data}, batches of {taken}, {threads_text(threads)}, {pace_text(config)}"
    missing = [f"{name} could not take part: {why}" for name, why in outcome.failed.items()]
    show(as_json, outcome.to_json(), tables.evaluation_table(outcome.rows, title), *missing)


def _alone(models: list[Path], ablate: bool, target: str | None, others: list[str]) -> Path | None:
    """The model whose rewrites are judged; None where that is not asked for. Raises UsageError for what does not go with it."""
    if not ablate:
        if target is not None:
            raise UsageError(f"--target {target} says whose rewrites --ablate judges; add that, or leave it out")
        return None
    if len(models) > 1 or others:
        what = f"{len(models)} models are given" if len(models) > 1 else f"{' and '.join(others)} would add others"
        raise UsageError(f"--ablate judges one model with and without rewrites in ONNX Runtime, and {what}; leave that out")
    return folders.source_file(models[0], folders.MODEL)


def _models_in(model: Path) -> list[Path]:
    """The file itself, or every model of ours in a folder, LiteRT's last."""
    if not model.is_dir():
        return [files.require_file(model)]
    names = (*folders.MADE, *folders.LITERT, folders.IR, folders.IR_QUANTIZED)
    return folders.models_in(model, names) or [folders.source_file(model, *folders.RUN)]
