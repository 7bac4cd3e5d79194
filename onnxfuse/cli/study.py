"""The verbs that look into a model: explain, profile, ablate, tune, view, diff, report.

What works on models is imported by the verb that needs it, so that --help and wrong usage answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from onnxfuse.cli import options
from onnxfuse.cli.console import progress, show, threads_text
from onnxfuse.config import BenchmarkConfig, TuneConfig
from onnxfuse.errors import InterruptedWorkError
from onnxfuse.io import atomic, folders, places


@options.examples(
    "onnxfuse explain onnx/bert-base-cased",
    "onnxfuse explain model.onnx --target standard",
)
def explain(
    model: options.Model = None,
    target: options.TargetName = "cpu",
    model_type: options.ModelType = None,
    as_json: options.Json = False,
) -> None:
    """Say of each layer what fuses, and where the nearest match stops for what does not; and what becomes of padding."""
    source = folders.source_file(model, folders.MODEL)

    from onnxfuse.cli import tables
    from onnxfuse.pipeline.explain import explain_file, padding_of

    with progress() as tell:
        tell(f"fusing {source}")
        findings = explain_file(source, target, model_type)
        padding = str(padding_of(source, target, model_type))
    done = sum(finding.done for finding in findings)
    found = {"model": str(source), "findings": [finding.to_json() for finding in findings], "padding": padding}
    lines = tables.finding_lines(findings)
    show(as_json, found, f"{source} for target {target}", *lines, f"{done} of {len(findings)} done", f"padding: {padding}")


@options.examples(
    "onnxfuse ablate onnx/bert-base-cased --length 128",
    "onnxfuse ablate model.onnx --rounds 50 --plot rewrites.svg",
)
def ablate(
    model: options.Model = None,
    target: options.TargetName = "cpu",
    batch: options.Batch = None,
    length: options.Length = None,
    threads: options.Threads = 0,
    rounds: options.Rounds = 20,
    plot: options.Plot = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Measure what each rewrite brings: none, each alone, all but each, all."""
    source = folders.source_file(model, folders.MODEL)

    from onnxfuse.cli import plots, tables
    from onnxfuse.pipeline import ablation

    if plot is not None:
        plots.require_place(plot, overwrite=overwrite)
    with progress() as tell:
        outcome = ablation.ablate(source, target, BenchmarkConfig(batch or 0, length or 0, threads, rounds), tell)
    title = f"{source} for target {target}, {outcome.shape}, {threads_text(threads)}, {rounds} rounds"
    if plot is not None:
        plots.ablation(outcome.results, plot, places.told(title, source, Path(target)).replace(" for target", "\nfor target"))
    found = {
        "model": str(source),
        "target": target,
        "shape": outcome.shape,
        "results": [result.to_json() for result in outcome.results],
    }
    show(as_json, found, tables.ablation_table(outcome.results, title))


@options.examples(
    "onnxfuse profile onnx/bert-base-cased --length 128 --plot time.svg",
    "onnxfuse profile onnx/bert-base-cased/model.onnx --against onnx/bert-base-cased/model_optimized.onnx",
)
def profile(
    model: options.Model = None,
    against: options.Beside = None,
    batch: options.Batch = None,
    length: options.Length = None,
    real: options.RealShare = 1.0,
    threads: options.ItsThreads = 0,
    rounds: options.CountedRounds = 20,
    plot: options.Plot = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Say where a model's time goes in ONNX Runtime, by operator and by layer; of two models, side by side."""
    for given in (model, *(() if against is None else (against,))):
        folders.source_file(given, *folders.OPENED)

    from onnxfuse.cli import plots, profiles
    from onnxfuse.pipeline import profiling

    if plot is not None:
        plots.require_place(plot, overwrite=overwrite)
    with progress() as tell:
        outcome = profiling.profile(model, against, BenchmarkConfig(batch or 0, length or 0, threads, rounds, real), tell)
    if plot is not None:
        profiles.profile_plot(outcome, plot)
    *models, title = profiles.titles(outcome)
    show(as_json, outcome.to_json(), *models, *profiles.profile_tables(outcome, title))


@options.examples(
    "onnxfuse tune onnx/bert-base-cased --batch 8 --length 128 --real 0.4",
    "onnxfuse tune model.onnx -o here.json --precision fp32 --precision int8 --runtime ort --runtime openvino",
)
def tune(
    model: options.Model = None,
    output: options.TunedFile = None,
    batch: options.Batch = None,
    length: options.Length = None,
    real: options.RealShare = 1.0,
    threads: options.TunedThreads = 0,
    rounds: options.Rounds = 20,
    target: options.TargetName = "cpu",
    model_type: options.ModelType = None,
    precision: options.Precisions = None,
    runtime: options.Runtimes = None,
    overwrite: options.Overwrite = False,
    engine: options.EngineName = "local",
    address: options.Address = "",
    actors: options.Actors = 0,
    as_json: options.Json = False,
) -> None:
    """Measure what is fastest here for a model and write it as a target file. Interrupted, it goes on where it was."""
    source = folders.source_file(model, folders.MODEL)
    shapes = (batch or 0, length or 0, real, threads, rounds)
    choices = (target, tuple(precision or ("fp32",)), tuple(runtime or ("ort",)), model_type)
    plan = TuneConfig(source, output or source.with_name("tuned.json"), *shapes, *choices, overwrite=overwrite)

    from onnxfuse import cluster
    from onnxfuse.cli import tables
    from onnxfuse.pipeline import trials
    from onnxfuse.pipeline import tune as verb

    where = cluster.chosen(engine, cluster.Cluster(address, actors))
    try:
        with progress() as tell:
            outcome = verb.tune(plan, tell, where)
    except KeyboardInterrupt as error:
        if plan.out not in atomic.WRITTEN and trials.partial_of(plan).exists():
            raise InterruptedWorkError("interrupted; run the same command to go on where it was") from error
        raise
    show(
        as_json,
        {"path": str(plan.out), "target": outcome.target.to_json()},
        f"{source} on {'this machine' if where is None else outcome.target.measured['machine']}, from target {target}",
        *tables.tune_lines(outcome),
        f"{plan.out}: use it with onnxfuse optimize --target {plan.out}",
    )


@options.examples(
    "onnxfuse view onnx/bert-base-cased",
    "onnxfuse view model.onnx --no-browser --port 8080",
)
def view(
    model: options.Model = None, no_browser: options.NoBrowser = False, port: options.Port = 0, as_json: options.Json = False
) -> None:
    """Show a graph in Netron, until Ctrl-C."""
    from onnxfuse.pipeline import view as viewer

    path = folders.source_file(model, folders.OPTIMIZED, *folders.RUN)
    address = viewer.serve(path, port=port, browser=not no_browser)
    show(as_json, {"path": str(path), "address": address}, address)
    sys.stdout.flush()
    viewer.wait()


def nodes_text(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"


@options.examples(
    "onnxfuse diff onnx/bert-base-cased",
    "onnxfuse diff model.onnx model_optimized.onnx --layer 3 -o layer3.html",
)
def diff(
    first: options.Before,
    second: options.After = None,
    layer: options.Layer = "",
    output: options.Page = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Draw a layer of two models beside each other, coloured by the rules that made it, into one HTML file."""
    before, after = folders.pair(first, second)

    from onnxfuse.pipeline import diff as verb

    out = output or after.with_name(verb.NAME)
    with progress() as tell:
        found = verb.diff(before, after, out, layer, tell, overwrite=overwrite)
    counts = [f"{each.rule}: {nodes_text(each.before)} before, {each.after} after" for each in found.counts]
    nodes = f"{found.layer}: {nodes_text(found.before.nodes)} before, {found.after.nodes} after"
    show(as_json, {"page": str(out), **found.to_json()}, nodes, *counts, found.how, f"written: {out}")


@options.examples(
    "onnxfuse report onnx/bert-base-cased",
    "onnxfuse report onnx/mine --data test.csv -o mine.html",
)
def report(
    folder: options.ReportFolder,
    data: options.ReportData = None,
    split: options.Split = "",
    layer: options.Layer = "",
    output: options.Page = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write all that is known of a folder's models into one HTML file: what was done, how fast, how good, and drawings."""
    from onnxfuse.pipeline import report as verb

    out = output or folder / verb.NAME
    with progress() as tell:
        found = verb.report(folder, out, data, layer, tell, split=split, overwrite=overwrite)
    missing = [f"not in it: {each}" for each in found.missing]
    show(as_json, {"page": str(out), **found.to_json()}, *missing, f"written: {out}")
