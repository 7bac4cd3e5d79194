"""The verbs that make models: export, optimize, quantize, package.

What works on models is imported by the verb that needs it, so that --help and wrong usage answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxfuse.cli import ci, options
from onnxfuse.cli.console import progress, show, step_lines
from onnxfuse.config import ExportConfig, OptimizeConfig, PackageConfig, QuantizeConfig, Scheme, Thresholds
from onnxfuse.errors import UsageError
from onnxfuse.io import folders

if TYPE_CHECKING:
    from onnxfuse.pipeline.optimize import Optimized


@options.examples(
    "onnxfuse export bert-base-cased --task fill-mask",
    "onnxfuse export ./my-checkpoint -o onnx/mine --exporter torchscript",
)
def export(
    source: options.Source,
    output: options.Output = None,
    task: options.Task = None,
    outputs: options.Outputs = None,
    framework: options.Framework = None,
    exporter: options.Exporter = None,
    opset: options.Opset = None,
    model_type: options.ModelType = None,
    random_weights: options.RandomWeights = False,
    format: options.Format = "onnx",
    precision: options.Precision = "fp32",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Export a checkpoint to model.onnx, with its config and tokenizer or image processor beside it."""
    plan = ExportConfig(
        source,
        folders.export_folder(source, output),
        task,
        model_type,
        exporter,
        opset,
        random_weights,
        framework=framework,
        format=format,
        precision=precision,
        overwrite=overwrite,
        outputs=options.names(outputs, "--outputs"),
    )

    options.require_source(plan)

    from onnxfuse.pipeline.export import FORMATS
    from onnxfuse.pipeline.export import export as to_onnx
    from onnxfuse.pipeline.export_tflite import export_tflite

    if plan.format not in FORMATS:
        raise UsageError(f"--format {plan.format}: wanted one of {', '.join(FORMATS)}")
    with progress() as tell:
        step = export_tflite(plan, tell) if plan.format == "tflite" else to_onnx(plan, tell)
    lines = step_lines(step, f"task: {step.task}", f"from: {step.origin}, with {step.exporter}")
    show(as_json, step.to_json(), *lines)


@options.examples(
    "onnxfuse optimize onnx/bert-base-cased --require all",
    "onnxfuse optimize model.onnx --target ort-contrib --batch 1 --length 128",
)
def optimize(
    model: options.Model = None,
    output: options.Output = None,
    target: options.TargetName = "cpu",
    model_type: options.ModelType = None,
    only: options.Only = None,
    without: options.Without = None,
    require: options.Require = None,
    verify: options.Verify = "each",
    unpad: options.Unpad = None,
    batch: options.FixedBatch = None,
    length: options.FixedLength = None,
    dump: options.DumpFolder = None,
    precision: options.Half = None,
    half_io: options.HalfIo = False,
    junit: options.Junit = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Fuse a model for a target and prove that it computes the same."""
    source = folders.source_file(model, folders.MODEL)
    plan = OptimizeConfig(
        source,
        folders.output_file(source, output, folders.HALVED.get(precision or "", folders.OPTIMIZED)),
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
        overwrite,
        precision,
        half_io,
    )

    from onnxfuse.pipeline import optimize as verb

    with ci.report("optimize", junit, overwrite=overwrite, sources=(source, plan.out)) as cases, progress() as tell:
        step = verb.optimize(plan, tell)
        cases.cases += verb.required(step, plan.require)
    show(as_json, step.to_json(), f"{source} ({step.model_type}) for target {target}", *_optimized_lines(step))


def _optimized_lines(step: Optimized) -> list[str]:
    from onnxfuse.cli import tables

    slow = step.slow_types
    advice = (
        []
        if slow is None
        else [
            f"{slow.matmuls} matmuls have u8 weights, which take {slow.factor:.2f} times as long here as s8; make them "
            f"s8 with: onnxfuse quantize --retype {step.path}"
        ]
    )
    return step_lines(
        step,
        f"fused: {tables.fused_text(step.fused, step.expected)}",
        f"padding: {step.padding}",
        f"nodes: {step.nodes}",
        *_half_lines(step),
        f"rewrites: {len(step.trace.applications)}, proven one by one: {step.trace.proven}",
        *(f"not done, wrong here: {rule} {why}" for rule, why in step.trace.rejected.items()),
        *(f"stopped, it would never end: {rule}" for rule in sorted(step.trace.endless)),
        *advice,
    )


def _half_lines(step: Optimized) -> list[str]:
    """What became of it in half precision."""
    half = step.half
    if half is None:
        return []
    if half.precision == "bf16":
        return [f"bf16: {half.count} weights, computed with in float32 where a runtime has nothing else"]
    over, others = ([each for each in half.kept if each.overflows == large] for large in (True, False))
    lines = [f"fp16: {half.count} of {step.nodes} nodes"]
    if over:
        lines += [f"float32 stay {len(over)}, as float16 ends at 65504:"]
        lines += [f"  {each.operator} {each.name} reaches {each.peak:.3g}" for each in over]
    if others:
        lines += [f"float32 stay {len(others)}, without which the outputs are too far from the original:"]
        lines += [f"  {each.operator} {each.name}" for each in others]
    return lines


@options.examples(
    "onnxfuse quantize onnx/bert-base-cased",
    "onnxfuse quantize onnx/mine --data test.csv --max-drop 0.5%",
)
def quantize(
    model: options.Model = None,
    output: options.Output = None,
    static: options.Static = None,
    calibration: options.Calibration = None,
    ranges: options.Ranges = "minmax",
    format: options.QuantFormat = "auto",
    smooth: options.Smooth = "auto",
    rounding: options.Rounding = "gptq",
    attention: options.Attention = "fp32",
    max_drop: options.MaxDrop = None,
    min_cosine: options.MinCosine = None,
    min_agreement: options.MinAgreement = None,
    data: options.ThresholdData = None,
    batch: options.DataBatch = 8,
    keep_embeddings: options.KeepEmbeddings = False,
    reduce_range: options.ReduceRange = None,
    retype: options.Retype = False,
    plot: options.Plot = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Quantize to int8: u8 activations, s8 weights per channel. Refuses to save what falls under the thresholds."""
    if retype:
        _retype(model, output, elsewhere=reduce_range is False, overwrite=overwrite, as_json=as_json)
        return
    source = folders.source_file(model, folders.OPTIMIZED, folders.MODEL)
    out = folders.output_file(source, output, folders.QUANTIZED)
    alpha = smooth if smooth in ("auto", "off") else options.share(smooth, "--smooth", "auto, off, or a number from 0 to 1")
    scheme = Scheme(static, not keep_embeddings, reduce_range, alpha, rounding, ranges, format, attention)
    thresholds = Thresholds(
        None if max_drop is None else options.share(max_drop, "--max-drop"),
        min_cosine,
        None if min_agreement is None else options.share(min_agreement, "--min-agreement"),
    )
    _quantize(QuantizeConfig(source, out, scheme, calibration, data, thresholds, batch, overwrite), plot, as_json=as_json)


def _quantize(plan: QuantizeConfig, plot: Path | None, *, as_json: bool) -> None:
    from onnxfuse.cli import plots, tables
    from onnxfuse.pipeline import quantize as verb

    if plot is not None:
        plots.require_place(plot, overwrite=plan.overwrite)
    with progress() as tell:
        step = verb.quantize(plan, tell)
    rows = step.description.batch
    if plot is not None and step.gate is not None:
        plots.gate(step.gate, plot, f"{step.path.name}, batches of {rows}")
    table = [] if step.gate is None else [tables.gate_table(step.gate, rows)]
    what = f"{tables.int8_text(step)}; {step.size_ratio:.3f} of the size"
    lines = step_lines(step, what, *(f"kept in float: {role}" for role in step.description.kept))
    show(as_json, step.to_json(), f"{plan.source} to int8", *lines, *table)


def _retype(model: Path | None, output: Path | None, *, elsewhere: bool, overwrite: bool, as_json: bool) -> None:
    source = folders.source_file(model, folders.QUANTIZED, folders.MODEL)
    out = folders.output_file(source, output, f"{source.stem}_retyped.onnx")

    from onnxfuse.pipeline.retype import retype

    with progress() as tell:
        step = retype(source, out, tell, elsewhere=elsewhere, overwrite=overwrite)
    speed = step.speed
    lines = step_lines(
        step,
        f"{step.weights} weights and {step.activations} activations retyped",
        f"{speed.value:.2f} times as fast ({speed.low:.2f} - {speed.high:.2f})",
    )
    show(as_json, step.to_json(), f"{source} to u8 x s8", *lines)


@options.examples(
    "onnxfuse package onnx/mine --for sentence-transformers",
    "onnxfuse package onnx/mine --for triton -o models/mine",
)
def package(
    layout: options.Layout,
    model: options.Model = None,
    output: options.PackageFolder = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Lay a folder's models, config and tokenizer into a folder that another library opens."""
    source = folders.source_file(model, folders.OPTIMIZED, folders.MODEL, folders.QUANTIZED)

    from onnxfuse.cli import tables
    from onnxfuse.pipeline import package as verb

    plan = PackageConfig(source, layout, verb.package_folder(source, layout, output), overwrite)
    with progress() as tell:
        made = verb.package(plan, tell)
    lines = [f"{source.parent} for {layout}: {made.path}, {len(made.files)} files"]
    for each, path in made.models.items():
        lines += [f"{path}  {tables.megabytes(made.sizes[each])}", f"  use: {made.use[each]}"]
        lines += [f"  parity: {tables.parity_text(made.parity[each])}"] if each in made.parity else []
    show(as_json, made.to_json(), *lines)
