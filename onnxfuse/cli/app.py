"""The command line: arguments in, one result on stdout, progress on stderr, and a documented exit code.

What works on models is imported by the verb that needs it, so that --help and wrong usage answer at once.

Exit codes: 0 done, 2 usage, 3 unsafe or broken model, 4 export, 5 parity, 6 requirement not met, 7 missing extra, 8 reading or
writing, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from onnxfuse.config import (
    BenchmarkConfig,
    ExportConfig,
    OptimizeConfig,
    QuantizeConfig,
    Scheme,
    Thresholds,
    TuneConfig,
    shape_text,
)
from onnxfuse.errors import INTERRUPTED, InterruptedWorkError, OnnxfuseError, StorageError, UsageError, one_line
from onnxfuse.io import files, folders
from onnxfuse.io.progress import Lines, Progress
from onnxfuse.pipeline import view as viewer

if TYPE_CHECKING:
    from onnxfuse.pipeline.step import Step

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From a Hugging Face encoder to the fastest ONNX model for this machine.",
)
WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""

out, err = Console(width=None if sys.stdout.isatty() else WIDTH), Console(stderr=True)

SOURCE = "A hub id, a checkpoint's folder, a SavedModel's folder, a .keras file or a KerasHub preset's folder."
Model = Annotated[Path | None, typer.Argument(help="A folder or an .onnx file; else the current folder or the newest export.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Where the result goes: a folder, or a file for one model.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Task = Annotated[
    str | None,
    typer.Option(
        help="feature-extraction, fill-mask, text-classification, token-classification, "
        "question-answering, sentence-similarity or image-classification."
    ),
]
Framework = Annotated[str | None, typer.Option(help="pt (PyTorch) or tf (TensorFlow, Keras); the source's when not given.")]
Exporter = Annotated[
    str | None, typer.Option(help="Of PyTorch: dynamo (torch.export, the default) or torchscript; of TensorFlow: tf2onnx.")
]
Opset = Annotated[int | None, typer.Option(help="Opset of the export; the exporter's own when not given.")]
RandomWeights = Annotated[bool, typer.Option("--random-weights", help="Build a known architecture without any download.")]
TargetName = Annotated[
    str, typer.Option("--target", help="cpu, standard (opset 17 to 20), ort-contrib (com.microsoft), or a file that tune wrote.")
]
ModelType = Annotated[str | None, typer.Option(help="bert, distilbert or vit; detected when not given.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads for every runtime; 0 takes all cores.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Rows in a batch; 1, or as the model takes, when not given.")]
Length = Annotated[int | None, typer.Option(min=1, help="Tokens in a row; 128, or as the model takes, when not given.")]
Rounds = Annotated[int, typer.Option(min=1, help="Timed rounds.")]
Real = Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of real tokens in a batch; the rest is padding.")]
Runtimes = Annotated[list[str] | None, typer.Option("--runtime", help="ort, openvino or openvino-bf16; repeatable.")]
Plot = Annotated[Path | None, typer.Option(help="Draw the result into this .svg, .png or .pdf file.")]

RENAMED = {"--clip-safe": "--reduce-range", "--no-clip-safe": "--no-reduce-range", "--form": "--format"}
"""What options of earlier versions are called now."""


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        code = _fail("interrupted; no file is half-written", INTERRUPTED, debug)
    except OnnxfuseError as error:
        code = _fail(str(error), error.exit_code, debug)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{where}{error.strerror or one_line(error)}", StorageError.exit_code, debug)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own usage errors have it
            raise
        code = _fail(_renamed(error) or error.format_message() or "see --help", UsageError.exit_code, debug)
    sys.stdout.flush()
    raise SystemExit(code or 0)


def _renamed(error: Exception) -> str:
    """Of an option that has another name now, which; else nothing."""
    old = str(getattr(error, "option_name", ""))
    return f"{old} is called {RENAMED[old]} now" if old in RENAMED else ""


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    err.print(f"onnxfuse: {' '.join(message.split())}", markup=False, highlight=False, soft_wrap=True)
    return code


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on stderr while the block runs; where stderr is no terminal, a line for each phase."""
    if not err.is_terminal:
        yield Lines(lambda line: err.print(line, markup=False, highlight=False, soft_wrap=True))
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def tell(text: str, done: float | None = None, step: str = "") -> None:
            bar.update(
                task, description=f"{text}, {step}" if step else text, total=None if done is None else 1.0, completed=done or 0.0
            )

        yield tell


def _print(as_json: bool, value: Any, *lines: Any) -> None:
    if as_json:
        sys.stdout.write(json.dumps(folders.plain(value), indent=2, ensure_ascii=False) + "\n")
        return
    for line in lines:
        if isinstance(line, str):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            out.print(line)


def _step_lines(step: Step, *parts: str) -> list[str]:
    from onnxfuse.cli import tables

    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in step.seconds.items())
    return [
        f"{step.path}  {tables.megabytes(step.size)}",
        *(f"  {part}" for part in parts),
        f"  parity: {tables.parity_text(step.parity)}",
        f"  {times}",
    ]


@app.command()
def export(
    source: Annotated[str, typer.Argument(help=SOURCE)],
    output: Output = None,
    task: Task = None,
    framework: Framework = None,
    exporter: Exporter = None,
    opset: Opset = None,
    model_type: ModelType = None,
    random_weights: RandomWeights = False,
    format: Annotated[str, typer.Option(help="onnx, or tflite (LiteRT, from TensorFlow).")] = "onnx",
    precision: Annotated[str, typer.Option(help="Of tflite: fp32, fp16 or int8 (dynamic).")] = "fp32",
    as_json: Json = False,
) -> None:
    """Export a checkpoint to model.onnx, with its config and tokenizer or image processor beside it."""
    plan = ExportConfig(
        source,
        _export_folder(source, output),
        task,
        model_type,
        exporter,
        opset,
        random_weights,
        framework=framework,
        format=format,
        precision=precision,
    )

    from onnxfuse.pipeline.export import FORMATS, export
    from onnxfuse.pipeline.export_tflite import export_tflite

    if plan.format not in FORMATS:
        raise UsageError(f"--format {plan.format}: wanted one of {', '.join(FORMATS)}")
    with _progress() as progress:
        step = export_tflite(plan, progress) if plan.format == "tflite" else export(plan, progress)[0]
    _print(
        as_json,
        step.to_json(),
        *_step_lines(step, f"task: {step.details['task']}", f"from: {step.details['from']}, with {step.details['exporter']}"),
    )


def _export_folder(source: str, output: Path | None) -> Path:
    if output is not None:
        return folders.output_folder(output)
    path = Path(source)
    return folders.EXPORTS / (path.stem if path.suffix == ".keras" else path.resolve().name if path.is_dir() else source)


@app.command()
def optimize(
    model: Model = None,
    output: Output = None,
    target: TargetName = "cpu",
    model_type: ModelType = None,
    only: Annotated[list[str] | None, typer.Option(help="Use this fusion alone; repeatable.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Leave this rule out; repeatable.")] = None,
    require: Annotated[list[str] | None, typer.Option(help="all, or NAME=NUMBER; fail when not fused so.")] = None,
    verify: Annotated[str, typer.Option(help="each: prove every rewrite; final: compare the result; off.")] = "each",
    unpad: Annotated[
        bool | None, typer.Option(help="Leave padding out, with zeros where outputs show it; by default where none does.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Fix the number of rows; any when not given.")] = None,
    length: Annotated[int | None, typer.Option(min=1, help="Fix the length of a row; any when not given.")] = None,
    dump: Annotated[Path | None, typer.Option(help="A folder for the graph after each rewrite.")] = None,
    as_json: Json = False,
) -> None:
    """Fuse a model for a target and prove that it computes the same."""
    source = folders.source_file(model, folders.MODEL)
    plan = OptimizeConfig(
        source,
        folders.output_file(source, output, folders.OPTIMIZED),
        target,
        model_type,
        frozenset(only or ()),
        frozenset(without or ()),
        tuple(require or ()),
        verify,
        dump,
        unpad,
        batch,
        length,
    )

    from onnxfuse.cli import tables
    from onnxfuse.pipeline.optimize import optimize

    with _progress() as progress:
        step = optimize(plan, progress)
    details = step.details
    _print(
        as_json,
        step.to_json(),
        f"{source} ({details['model_type']}) for target {target}",
        *_step_lines(
            step,
            f"fused: {tables.fused_text(details['fused'], details['expected'])}",
            f"padding: {details['padding']}",
            f"nodes: {details['nodes']}",
            f"rewrites: {sum(details['trace']['rules'].values())}, proven one by one: {details['trace']['proven']}",
            *(f"not done, wrong here: {rule} {why}" for rule, why in details["trace"]["rejected"].items()),
            *(f"stopped, it undid another: {rule}" for rule in details["trace"]["endless"]),
            *_slow_lines(details, plan.out),
        ),
    )


def _slow_lines(details: dict[str, Any], path: Path) -> list[str]:
    slow = details.get("slow_types")
    if slow is None:
        return []
    return [
        f"{slow['matmuls']} matmuls have u8 weights, which take {slow['factor']:.2f} times as long here as s8; make them "
        f"s8 with: onnxfuse quantize --retype {path}"
    ]


@app.command()
def explain(model: Model = None, target: TargetName = "cpu", model_type: ModelType = None, as_json: Json = False) -> None:
    """Say of each layer what fuses, and where the nearest match stops for what does not."""
    source = folders.source_file(model, folders.MODEL)

    from onnxfuse.cli import tables
    from onnxfuse.pipeline.explain import explain_file

    with _progress() as progress:
        progress(f"fusing {source}")
        findings = explain_file(source, target, model_type)
    missing = [finding for finding in findings if not finding.done]
    verdict = f"{len(findings) - len(missing)} of {len(findings)} done"
    _print(
        as_json,
        {"model": str(source), "findings": [finding.to_json() for finding in findings]},
        f"{source} for target {target}",
        *tables.finding_lines(findings),
        verdict,
    )


@app.command()
def quantize(
    model: Model = None,
    output: Output = None,
    static: Annotated[
        bool,
        typer.Option("--static/--dynamic", help="Scales of activations from calibration, or measured in each run (the default)."),
    ] = False,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Real inputs: a folder of .npy files, an .npz, .txt, .csv or "
            ".jsonl file, or none. Sentences of Python's own documentation "
            "for models with a tokenizer, when not given."
        ),
    ] = None,
    ranges: Annotated[str, typer.Option(help="Of static scales: minmax, percentile or entropy.")] = "minmax",
    format: Annotated[str, typer.Option(help="Of a static model: qdq, qoperator, or auto, the faster one here.")] = "auto",
    smooth: Annotated[str, typer.Option(help="Move outliers into weights: auto, off, or SmoothQuant's alpha.")] = "auto",
    rounding: Annotated[str, typer.Option(help="Of weights: gptq, or nearest.")] = "gptq",
    max_drop: Annotated[str | None, typer.Option(help="Accuracy that may be lost on --data, such as 0.5%.")] = None,
    min_cosine: Annotated[float | None, typer.Option(help="Mean cosine with float that must be kept.")] = None,
    min_agreement: Annotated[str | None, typer.Option(help="Share of answers that must stay, as 99%.")] = None,
    data: Annotated[Path | None, typer.Option(help="What those are measured on; else the calibration data.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows in a batch of that data.")] = 8,
    keep_embeddings: Annotated[bool, typer.Option("--keep-embeddings", help="Leave embedding tables in float.")] = False,
    reduce_range: Annotated[bool | None, typer.Option(help="Weights that no CPU clips; measured when not given.")] = None,
    retype: Annotated[bool, typer.Option("--retype", help="Bring an int8 model to the fast types, u8 x s8.")] = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Quantize to int8: u8 activations, s8 weights per channel. Refuses to save what falls under the thresholds."""
    if retype:
        return _retype(model, output, reduce_range is False, as_json)
    source = folders.source_file(model, folders.OPTIMIZED, folders.MODEL)
    alpha: str | float = smooth if smooth in ("auto", "off") else _share(smooth, "--smooth", "auto, off, or a number from 0 to 1")
    scheme = Scheme(static, not keep_embeddings, reduce_range, alpha, rounding, ranges, format)
    thresholds = Thresholds(
        None if max_drop is None else _share(max_drop, "--max-drop"),
        min_cosine,
        None if min_agreement is None else _share(min_agreement, "--min-agreement"),
    )
    plan = QuantizeConfig(
        source, folders.output_file(source, output, folders.QUANTIZED), scheme, calibration, data, thresholds, batch
    )

    from onnxfuse.cli import plots, tables
    from onnxfuse.pipeline.quantize import quantize

    if plot is not None:
        plots.require_format(plot)
    with _progress() as progress:
        step = quantize(plan, progress)
    details = step.details
    trade_off = details.get("gate")
    if plot is not None and trade_off is not None:
        tables.gate_plot(trade_off, plot, f"{step.path}, batches of {details['batch']}")
    table = [] if trade_off is None else [tables.gate_table(trade_off, details["batch"])]
    _print(
        as_json,
        step.to_json(),
        f"{source} to int8",
        *_step_lines(
            step,
            f"{tables.int8_text(details)}; {details['size_ratio']:.3f} of the size",
            *(f"kept in float: {role}" for role in details["float"]),
        ),
        *table,
    )
    return None


def _share(text: str, option: str, wanted: str = "a share such as 0.5% or 0.005") -> float:
    """A share as people write it. Raises UsageError."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"{option} {text}: wanted {wanted}")
    return share


def _retype(model: Path | None, output: Path | None, elsewhere: bool, as_json: bool) -> None:
    source = folders.source_file(model, folders.QUANTIZED, folders.MODEL)
    out = folders.output_file(source, output, f"{source.stem}_retyped.onnx")

    from onnxfuse.pipeline.retype import retype

    with _progress() as progress:
        step = retype(source, out, progress, elsewhere=elsewhere)
    details = step.details
    _print(
        as_json,
        step.to_json(),
        f"{source} to u8 x s8",
        *_step_lines(
            step,
            f"{details['weights']} weights and {details['activations']} activations retyped",
            f"{details['speed']['value']:.2f} times as fast ({details['speed']['low']:.2f} - {details['speed']['high']:.2f})",
        ),
    )


@app.command()
def check(
    first: Annotated[Path, typer.Argument(help="The reference: a folder or an .onnx file.")],
    second: Annotated[Path, typer.Argument(help="The model in question.")],
    kind: Annotated[str, typer.Option(help="Tolerance: exact, reassociate (float32), half (float16) or int8.")] = "reassociate",
    data: Annotated[
        Path | None, typer.Option(help="Real inputs to compare on; for int8 those that it was calibrated with, when not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the outputs of two models on a grid of batches, lengths and masks; int8 on real inputs where it was calibrated."""
    paths = [folders.source_file(path, folders.MODEL) for path in (first, second)]

    from onnxfuse.cli import tables
    from onnxfuse.pipeline.check import check

    with _progress() as progress:
        progress(f"comparing {paths[1]} with {paths[0]}")
        result = check(paths[0], paths[1], kind, data)
    _print(as_json, result.to_json(), *tables.parity_lines(result))
    result.require(f"{paths[1]} differs from {paths[0]}")


@app.command()
def benchmark(
    models: Annotated[list[Path], typer.Argument(help="Folders or .onnx files; the first is the reference.")],
    batch: Batch = None,
    length: Length = None,
    threads: Threads = 0,
    rounds: Rounds = 20,
    real: Real = 1.0,
    runtime: Runtimes = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Other tools, made from the first model: all, or some with commas "
            "between (torch,ort-optimizer,quantize-dynamic)."
        ),
    ] = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Time models side by side, with other tools' if asked, in one interleaved run; parity is with the first."""
    paths = [path for model in models for path in _models_in(model)]

    from onnxfuse.cli import plots, tables
    from onnxfuse.pipeline import baselines, compare

    others = baselines.choose(against) if against else []
    if plot is not None:
        plots.require_format(plot)
    with _progress() as progress:
        plan = BenchmarkConfig(batch or 0, length or 0, threads, rounds, real)
        outcome = compare.compare_models(paths, plan, runtimes=tuple(runtime or ("ort",)), against=others, progress=progress)
    title = f"{outcome.shape}, {threads or os.cpu_count()} threads, {rounds} rounds"
    if plot is not None:
        plots.comparison(outcome, plot, title)
    _print(
        as_json,
        outcome.to_json(),
        tables.comparison_table(outcome, title),
        *(f"{name} could not take part: {why}" for name, why in outcome.failed.items()),
    )


def _models_in(model: Path) -> list[Path]:
    """The file itself, or every model of ours in a folder, LiteRT's last."""
    if not model.is_dir():
        return [files.require_file(model)]
    names = (folders.MODEL, folders.OPTIMIZED, folders.QUANTIZED, *folders.LITERT)
    found = [model / name for name in names if (model / name).is_file()]
    return found or [folders.source_file(model, folders.MODEL)]


@app.command()
def tune(
    model: Model = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The target file; tuned.json beside the model when not given.")
    ] = None,
    batch: Batch = None,
    length: Length = None,
    real: Real = 1.0,
    threads: Annotated[int, typer.Option(min=0, help="Threads for one call; 0 tunes them too.")] = 0,
    rounds: Rounds = 20,
    target: TargetName = "cpu",
    model_type: ModelType = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32 or int8: what may be chosen; repeatable.")] = None,
    runtime: Runtimes = None,
    as_json: Json = False,
) -> None:
    """Measure what is fastest here for a model and write it as a target file. Interrupted, it goes on where it was."""
    source = folders.source_file(model, folders.MODEL)
    plan = TuneConfig(
        source,
        output or source.with_name("tuned.json"),
        batch or 0,
        length or 0,
        real,
        threads,
        rounds,
        target,
        tuple(precision or ("fp32",)),
        tuple(runtime or ("ort",)),
        model_type,
    )

    from onnxfuse.cli import tables
    from onnxfuse.pipeline import tune

    try:
        with _progress() as progress:
            outcome = tune.tune(plan, progress)
    except KeyboardInterrupt as error:
        raise InterruptedWorkError("interrupted; run the same command to go on where it was") from error
    _print(
        as_json,
        outcome.target.to_json(),
        f"{source} on this machine, from target {target}",
        *tables.tune_lines(outcome),
        f"{plan.out}: use it with onnxfuse optimize --target {plan.out}",
    )


@app.command()
def ablate(
    model: Model = None,
    target: TargetName = "cpu",
    batch: Batch = None,
    length: Length = None,
    threads: Threads = 0,
    rounds: Rounds = 20,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Measure what each rewrite brings: none, each alone, all but each, all."""
    source = folders.source_file(model, folders.MODEL)

    from onnxfuse.cli import plots, tables
    from onnxfuse.pipeline import ablation

    if plot is not None:
        plots.require_format(plot)

    with _progress() as progress:
        outcome = ablation.ablate(source, target, BenchmarkConfig(batch or 0, length or 0, threads, rounds), progress)
    title = f"{source} for target {target}, {outcome.shape}, {threads or os.cpu_count()} threads, {rounds} rounds"
    if plot is not None:
        plots.ablation(outcome.results, plot, title.replace(" for target", "\nfor target"))
    _print(as_json, [result.to_json() for result in outcome.results], tables.ablation_table(outcome.results, title))


@app.command()
def evaluate(
    models: Annotated[list[Path], typer.Argument(help="Folders or .onnx files; the first is the reference.")],
    data: Annotated[Path, typer.Option(help="Real inputs, and labels: a folder of .npy files, .npz, .csv or .jsonl.")],
    batch: Annotated[int, typer.Option(min=1, help="Rows in a batch.")] = 8,
    threads: Threads = 0,
    rounds: Rounds = 20,
    as_json: Json = False,
) -> None:
    """Measure on real samples how good models are (accuracy, F1, closeness to the first), beside how fast."""
    paths = [path for model in models for path in _models_in(model)]

    from onnxfuse.cli import tables
    from onnxfuse.pipeline.evaluate import evaluate

    with _progress() as progress:
        results = evaluate(paths, data, BenchmarkConfig(batch, threads=threads, rounds=rounds), progress)
    taken = next(iter(results.values())).batch
    title = f"{data}, batches of {taken}, {threads or os.cpu_count()} threads, {rounds} rounds"
    _print(as_json, {name: result.to_json() for name, result in results.items()}, tables.evaluation_table(results, title))


@app.command()
def view(
    model: Model = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 takes a free one.")] = 0,
) -> None:
    """Show a graph in Netron, until Ctrl-C."""
    path = folders.source_file(model, folders.OPTIMIZED, folders.MODEL)
    sys.stdout.write(f"{viewer.serve(path, port=port, browser=not no_browser)}\n")
    sys.stdout.flush()
    viewer.wait()


@app.command()
def run(
    source: Annotated[str, typer.Argument(help=SOURCE)],
    output: Output = None,
    task: Task = None,
    framework: Framework = None,
    exporter: Exporter = None,
    opset: Opset = None,
    model_type: ModelType = None,
    random_weights: RandomWeights = False,
    target: TargetName = "cpu",
    batch: Batch = None,
    length: Length = None,
    threads: Threads = 0,
    rounds: Rounds = 20,
    as_json: Json = False,
) -> None:
    """Export, optimize, quantize, check and measure in one go, with a table at the end."""
    plan = ExportConfig(
        source, _export_folder(source, output), task, model_type, exporter, opset, random_weights, framework=framework
    )

    from onnxfuse.cli import tables
    from onnxfuse.pipeline.run import run_all

    with _progress() as progress:
        outcome = run_all(plan, target, BenchmarkConfig(batch or 0, length or 0, threads, rounds), progress)
    title = f"{Path(source).name}, {shape_text(outcome.plan)}, {threads or os.cpu_count()} threads"
    _print(as_json, outcome.to_json(), tables.run_table(outcome, title))


if __name__ == "__main__":
    main()
