"""The verb that is all of them in a row: run."""

from __future__ import annotations

from pathlib import Path

from onnxfuse.cli import ci, options
from onnxfuse.cli.console import progress, show, threads_text
from onnxfuse.config import BenchmarkConfig, ExportConfig, shape_text
from onnxfuse.io import folders


@options.examples(
    "onnxfuse run bert-base-cased --dry-run",
    "onnxfuse run ./my-checkpoint -o onnx/mine --length 64 --require all",
)
def run(
    source: options.Source,
    output: options.Output = None,
    task: options.Task = None,
    outputs: options.Outputs = None,
    framework: options.Framework = None,
    exporter: options.Exporter = None,
    opset: options.Opset = None,
    model_type: options.ModelType = None,
    random_weights: options.RandomWeights = False,
    target: options.TargetName = "cpu",
    require: options.Require = None,
    batch: options.Batch = None,
    length: options.Length = None,
    threads: options.Threads = 0,
    rounds: options.Rounds = 20,
    precision: options.Half = None,
    dry_run: options.DryRun = False,
    junit: options.Junit = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Export, optimize, quantize, check and measure in one go, with a table at the end."""
    plan = ExportConfig(
        source,
        folders.export_folder(source, output),
        task,
        model_type,
        exporter,
        opset,
        random_weights,
        framework=framework,
        overwrite=overwrite,
        outputs=options.names(outputs, "--outputs"),
    )

    measure = BenchmarkConfig(batch or 0, length or 0, threads, rounds)
    needs, half = tuple(require or ()), options.half(precision)
    if dry_run:
        _plan(plan, target, measure, needs, half, as_json=as_json)
    else:
        _run(plan, target, measure, needs, half, junit, as_json=as_json)


def _plan(
    plan: ExportConfig, target: str, measure: BenchmarkConfig, require: tuple[str, ...], half: str | None, *, as_json: bool
) -> None:
    from onnxfuse.pipeline.dry_run import dry_run

    planned = dry_run(plan, target, measure, require, half)
    show(as_json, planned.to_json(), *planned.lines())


def _run(
    plan: ExportConfig,
    target: str,
    measure: BenchmarkConfig,
    require: tuple[str, ...],
    half: str | None,
    junit: Path | None,
    *,
    as_json: bool,
) -> None:
    options.require_source(plan)

    from onnxfuse.cli import tables
    from onnxfuse.pipeline.optimize import required
    from onnxfuse.pipeline.run import run_all

    near = (Path(plan.source), plan.out / folders.MODEL)
    with ci.report("run", junit, overwrite=plan.overwrite, sources=near) as cases, progress() as tell:
        outcome = run_all(plan, target, measure, tell, require=require, half=half)
        cases.cases += [*required(outcome.optimize, require), *((f"{name} agrees", "") for name in outcome.parity)]
    title = f"{Path(plan.source).name}, {shape_text(outcome.plan)}, {threads_text(measure.threads)}"
    show(as_json, outcome.to_json(), tables.run_table(outcome, title))
