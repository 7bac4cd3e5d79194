"""The chain export -> optimize -> quantize -> check -> benchmark, and each of its steps. The only place that knows the order.

Every step loads, works in memory, verifies, and saves last: what fails leaves no file behind.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import onnx_ir as ir

from onnxfuse import benchmark, catalog, files, parity, samples, storage, targets, verdict
from onnxfuse import plan as plans
from onnxfuse.dump import Dump
from onnxfuse.errors import ExportError, NothingToQuantizeError, RequirementError, UncalibratedError, UsageError
from onnxfuse.evaluate.dataset import Dataset
from onnxfuse.evaluate.quality import Quality, answer, judge
from onnxfuse.evaluate.sources import dataset_for, datasets_for, default_calibration
from onnxfuse.explain import Finding
from onnxfuse.explain import explain as findings
from onnxfuse.fuse import fuse
from onnxfuse.model import METADATA
from onnxfuse.parity import Parity
from onnxfuse.plan import BenchmarkPlan, ExportPlan, OptimizePlan, QuantizePlan, TunePlan
from onnxfuse.progress import Progress, silent
from onnxfuse.quantize.forms import choose_form
from onnxfuse.quantize.gate import pass_bars
from onnxfuse.quantize.prepare import Prepared, clip_safe, prepare
from onnxfuse.quantize.products import find_tables, integer_node
from onnxfuse.quantize.retype import retype as retype_weights
from onnxfuse.quantize.retype import slow_products
from onnxfuse.quantize.write import write
from onnxfuse.runtime import (
    Feeds,
    Runner,
    Settings,
    open_runner,
    product_saturates,
    slow_factor,
)
from onnxfuse.targets import Target
from onnxfuse.verdict import compare_files, grid

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint

P = TypeVar("P", BenchmarkPlan, TunePlan)


@dataclass(frozen=True)
class Step:
    """What a step made: the file, its size in bytes, seconds spent on each part, and parity with what it came from."""

    path: Path
    size: int
    seconds: dict[str, float]
    parity: Parity | None
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "size": self.size, "seconds": self.seconds,
                "parity": None if self.parity is None else self.parity.to_json(), **self.details}


class _Clock:
    """Seconds by part: ``with``-less, since parts follow each other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._at = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = round(now - self._at, 3)
        self._at = now

    def split(self, part: str, inner: str, seconds: float) -> None:
        """Count ``seconds`` of ``part`` as ``inner``."""
        self.seconds[part] = round(self.seconds[part] - seconds, 3)
        self.seconds[inner] = round(seconds, 3)


def export(plan: ExportPlan, progress: Progress = silent, source: Any = None) -> tuple[Step, Checkpoint]:
    """Export a checkpoint to ``plan.out/model.onnx`` and compare it with its own framework.

    Args:
        source: a ``transformers`` or KerasHub model to export instead of ``plan.source``.

    Raises:
        OnnxfuseError: see ``exporters``; ParityError when the graph does not compute what the framework does.
    """
    from onnxfuse.exporters import LABELS, checkpoint_runner, choose_exporter, choose_opset, framework_of, open_checkpoint
    from onnxfuse.exporters import export as write

    source = source or plan.source
    framework = framework_of(source, plan.framework)
    exporter = choose_exporter(plan.exporter, framework)
    opset = choose_opset(exporter, plan.opset)
    clock = _Clock()
    progress(f"loading {plan.source}")
    checkpoint = open_checkpoint(source, framework=framework, task=plan.task, model_type=plan.model_type,
                                 random_weights=plan.random_weights, seed=plan.seed)
    clock.lap("load")
    progress(f"exporting with {exporter}")
    path = plan.out / plans.MODEL
    with files.replacing(path) as staged:
        write(checkpoint, staged, exporter=exporter, opset=opset)
        clock.lap("export")
        progress(f"comparing with {LABELS[framework]}")
        expected = parity.reference(checkpoint_runner(checkpoint), grid(staged, checkpoint.config))
        verdict.require_numbers(expected, storage.load(staged), str(plan.source), ExportError)
        result = parity.compare(expected, open_runner(staged), "reassociate")
        result.require(f"the export differs from {LABELS[framework]}", _unwritten(path))
        clock.lap("verify")
        details = {"task": checkpoint.task, "framework": framework, "from": str(checkpoint), "exporter": exporter}
        step = Step(path, storage.model_bytes(staged), clock.seconds, result, details)
        _lay_beside(staged, checkpoint, plan, "export", step)
    return step, checkpoint


def _lay_beside(staged: Path, checkpoint: Checkpoint, plan: ExportPlan, name: str, step: Step) -> None:
    """What belongs to an exported model, beside it while it is staged: all of it takes its place, or nothing."""
    checkpoint.save_beside(staged.parent)
    plans.record(plan.out, name, plan, step.to_json(), staged=staged.parent)


FORMATS = ("onnx", "tflite")


def export_tflite(plan: ExportPlan, progress: Progress = silent) -> Step:
    """Convert a TensorFlow checkpoint for LiteRT, compare both, and save it in ``plan.out`` under the precision's name.

    Raises:
        OnnxfuseError: see ``exporters``; ParityError when LiteRT does not compute what TensorFlow does.
    """
    from onnxfuse.exporters import LABELS, checkpoint_runner, framework_of, open_checkpoint
    from onnxfuse.exporters.tflite import FILES, convert

    if plan.precision not in FILES:
        raise UsageError(f"--precision {plan.precision}: wanted one of {', '.join(FILES)}")
    if framework_of(plan.source, plan.framework) != "tf":
        raise UsageError(f"--format tflite converts {LABELS['tf']} models; {plan.source} is {LABELS['pt']}'s; "
                         "give one of the other's, or --framework tf where the tf extra is installed")
    clock = _Clock()
    progress(f"loading {plan.source}")
    checkpoint = open_checkpoint(plan.source, framework="tf", task=plan.task, model_type=plan.model_type,
                                 random_weights=plan.random_weights, seed=plan.seed)
    clock.lap("load")
    progress("converting for LiteRT")
    path = plan.out / FILES[plan.precision]
    with files.replacing(path) as staged, tempfile.TemporaryDirectory(dir=staged.parent.parent) as scratch:
        convert(checkpoint, staged, plan.precision, Path(scratch))
        clock.lap("convert")
        progress(f"comparing with {LABELS['tf']}")
        profile = samples.profile_of_family(checkpoint.family, checkpoint.config)
        expected = parity.reference(checkpoint_runner(checkpoint), list(samples.grid(profile)))
        result = parity.compare(expected, open_runner(staged), parity.OF_PRECISION[plan.precision])
        result.require(f"LiteRT differs from {LABELS['tf']}", _unwritten(path))
        clock.lap("verify")
        details = {"task": checkpoint.task, "framework": "tf", "from": str(checkpoint), "exporter": "TensorFlow's converter",
                   "precision": plan.precision}
        step = Step(path, storage.model_bytes(staged), clock.seconds, result, details)
        _lay_beside(staged, checkpoint, plan, f"export {plan.format} {plan.precision}", step)
    return step


VERIFY = ("off", "final", "each")


def optimize(plan: OptimizePlan, progress: Progress = silent) -> Step:
    """Fuse a model for its target, check the counts and the outputs, and save it.

    Raises:
        UsageError, ModelError, ParityError; RequirementError when ``plan.require`` is not met.
    """
    clock = _Clock()
    target = targets.find(plan.target)
    config = plans.read_config(plan.source)
    model = storage.load(plan.source)
    kind = _kind(model)
    slow = slow_products(model)
    samples.profile_of(model, config).require_length(plan.length or 0)
    family = model_type(model, config, plan.model_type)
    catalog.architecture(family).name_inputs(model, plan.sizes)
    clock.lap("load")
    progress(f"fusing for {target.name}")
    if plan.verify not in VERIFY:
        raise UsageError(f"--verify {plan.verify}: wanted one of {', '.join(VERIFY)}")
    listener = None if plan.dump is None else Dump(model, plan.dump)
    without = plan.without | ({catalog.UNPAD} if plan.unpad is False else set())
    fused = fuse(model, target, only=plan.only, without=without, zeros=plan.unpad is True, prove=plan.verify == "each",
                 listener=listener)
    if plan.unpad and fused.padding.kept:
        raise RequirementError(f"--unpad: padding stays, {fused.padding.kept}; leave --unpad out to optimize with padding")
    clock.lap("fuse")
    clock.split("fuse", "prove", fused.trace.proof_seconds)
    expected = _expected(family, config, target)
    _require(plan, fused.counts, expected)
    details = {"model_type": family, "target": target.name, "fused": fused.counts, "expected": expected,
               "padding": str(fused.padding), "nodes": len(model.graph), "trace": fused.trace.to_json()}
    if slow:
        details["slow_types"] = {"products": slow, "factor": round(slow_factor(), 2)}
    model.metadata_props[METADATA] = json.dumps({"target": target.name, "session": asdict(target.session), "fused": fused.counts,
                                                 "versions": plans.versions()})
    result = None
    with files.replacing(plan.out) as staged:
        storage.save(model, staged)
        clock.lap("save")
        if plan.verify != "off":
            progress("comparing with the original")
            result = compare_files(plan.source, staged, kind, zeros=fused.padding.zeros)
            result.require("optimizing changed the outputs", _unwritten(plan.out))
            clock.lap("verify")
    step = Step(plan.out, storage.model_bytes(plan.out), clock.seconds, result, details)
    plans.record(plan.out.parent, "optimize", plan, step.to_json())
    return step


def _kind(model: ir.Model) -> str:
    """The row of ``parity.TOLERANCES`` that a rewrite of the model is held to: by the coarsest numbers that it computes with."""
    if integer_node(model) is not None:
        return "int8"  # a rounding step before int8 is a whole code behind it
    held = {value.dtype for value in (*model.graph.initializers.values(), *model.graph.inputs)}
    return next((kind for dtype, kind in reversed(parity.OF_TYPE.items()) if dtype in held), "reassociate")


def explain(source: Path, target: str = "cpu", model_type_: str | None = None) -> list[Finding]:
    """Say of each layer of a model what fuses, and where the nearest match stops for what does not.

    Raises:
        UsageError, ModelError.
    """
    model, config = storage.load(source), plans.read_config(source)
    family = catalog.architecture(model_type(model, config, model_type_))
    family.name_inputs(model)
    return findings(model, targets.find(target), tuple(family.fusable(config)))


def quantize(plan: QuantizePlan, progress: Progress = silent) -> Step:
    """Quantize a float model to int8 and save it if it passes the int8 tolerance, and the bars that the plan sets.

    Raises:
        UsageError, ModelError; ParityError when the outputs are too far away; RequirementError when ``plan.bars`` cannot be met.
    """
    clock = _Clock()
    model = storage.load(plan.source)
    calibration, uncalibrated = _calibration(plan, model)
    data = calibration if plan.data is None else dataset_for(plan.data, plan.source, model)
    if plan.bars and data is None:
        raise UsageError(f"the bars need inputs to be measured on; give --data FILE ({uncalibrated})")
    if plan.scheme.static and calibration is None:
        raise UsageError(f"static int8 needs calibration data; give --calibration FILE, or leave --static out ({uncalibrated})")
    clock.lap("load")
    prepared = prepare(model, plan.scheme, None if calibration is None else partial(calibration.batches, plan.batch), progress)
    clock.lap("prepare")
    form, forms = choose_form(prepared, plan.batch, calibration, progress)
    trade = None
    if plan.bars:
        assert data is not None
        progress("comparing with float on the data")
        trade = pass_bars(prepared, plan.source, form, data, plan.batch, plan.bars, progress)
        clock.lap("gate")
    kept = () if trade is None else trade.kept
    details = _int8_details(plan, prepared, calibration, form, forms, kept)
    with files.replacing(plan.out) as staged:
        quantized = write(prepared, kept, form)
        quantized.metadata_props[verdict.METADATA] = verdict.note(details, plan.batch)
        storage.save(quantized, staged)
        del model, prepared, quantized
        clock.lap("save")
        progress("comparing with float")
        real = None if calibration is None else verdict.Real.of(calibration, plan.batch)
        result = compare_files(plan.source, staged, "bars" if plan.bars else "int8", real=real)
        result.require("the int8 model is not close enough to float", _unwritten(plan.out))
        clock.lap("verify")
    details["uncalibrated"] = uncalibrated
    details["size_ratio"] = round(storage.model_bytes(plan.out) / storage.model_bytes(plan.source), 4)
    if trade is not None:
        details["gate"] = trade.to_json()
    step = Step(plan.out, storage.model_bytes(plan.out), clock.seconds, result, details)
    plans.record(plan.out.parent, "quantize", plan, step.to_json())
    return step


def _calibration(plan: QuantizePlan, model: ir.Model) -> tuple[Dataset | None, str]:
    """What to calibrate with, or why there is nothing. Raises UsageError, ModelError where it was asked for."""
    if plan.calibration is not None:
        asked = plan.calibration != "none"
        return (dataset_for(Path(plan.calibration), plan.source, model), "") if asked else (None, "as asked")
    try:
        return default_calibration(plan.source, model), ""
    except UncalibratedError as error:
        return None, str(error)


def _int8_details(plan: QuantizePlan, prepared: Prepared, calibration: Dataset | None, form: str, forms: dict[str, float],
                  kept: tuple[str, ...]) -> dict[str, Any]:
    """What the int8 model is, for people and for its own metadata."""
    roles = {product.name: product.role for product in prepared.products}
    return {"scheme": "static" if plan.scheme.static else "dynamic", "form": form, "forms": forms, "weights": "s8 per channel",
            "activations": "u8", "clip_safe": clip_safe(plan.scheme), "matmuls": len(roles) - len(kept),
            "embeddings": len(find_tables(prepared.model)) if plan.scheme.embeddings else 0,
            "calibration": None if calibration is None else calibration.name,
            "batch": plan.batch if calibration is None else calibration.rows(plan.batch),
            "notes": [] if calibration is None else list(calibration.notes),
            "smoothed": {roles[name]: alpha for name, alpha in prepared.smoothed.items()},
            "float": [roles[name] for name in kept]}


def retype(source: Path, out: Path, progress: Progress = silent, *, elsewhere: bool = False) -> Step:
    """Bring an int8 model to u8 activations and s8 weights, and save it if its outputs are equal to the bit.

    Args:
        elsewhere: it will run on a machine that does not clip sums of u8 x s8 products, and is compared as it computes there.

    Raises:
        UsageError, ModelError; ParityError when they are not, as on a machine that clips sums of u8 x s8 products.
    """
    clock = _Clock()
    model = storage.load(source)
    slow = slow_products(model)
    counts = retype_weights(model)
    with files.replacing(out) as staged:
        storage.save(model, staged)
        clock.lap("retype")
        progress("comparing with the original")
        result = compare_files(source, staged, "exact", settings=Settings(unclipped=elsewhere))
        clips = "this machine clips sums of u8 x s8 products: keep u8 x u8 here, or retype for another with --no-clip-safe"
        result.require(clips if product_saturates() else "retyping changed the outputs", _unwritten(out))
        clock.lap("verify")
        progress("measuring")
        runners = {"before": open_runner(source), "after": open_runner(staged)}
        profile = verdict.understood(source, plans.read_config(source), runners["before"])
        timings = benchmark.measure(runners, [profile.feeds(1, min(128, profile.longest))], rounds=10, progress=progress)
    details = {"weights": counts.weights, "activations": counts.activations, "slow": slow,
               "speed": asdict(benchmark.ratio(timings["before"], timings["after"]))}
    step = Step(out, storage.model_bytes(out), clock.seconds, result, details)
    plans.record(out.parent, "retype", {"source": source, "out": out}, step.to_json())
    return step


def fitted(plan: P, profile: samples.Profile) -> P:
    """The plan with the rows and tokens that a model takes. Raises UsageError: it does not take those of the plan."""
    rows, columns = profile.measured(plan.batch, plan.length)
    return replace(plan, batch=rows, length=columns)


def evaluate(paths: list[Path], data: Path, plan: BenchmarkPlan, progress: Progress = silent) -> dict[str, Evaluated]:
    """Measure on real samples how good models are, beside the first of them, and how fast, beside each other.

    Raises:
        UsageError, ModelError: see ``evaluate.dataset.read`` and ``evaluate.quality.judge``.
    """
    sets = dict(zip(map(str, paths), datasets_for(data, paths), strict=True))
    runners = {str(path): open_runner(path, Settings(threads=plan.threads)) for path in paths}
    answers = {}
    for number, (name, run) in enumerate(runners.items()):
        progress(f"answering with {name}", number / len(runners))
        answers[name] = answer(run, sets[name], plan.batch)
    timed = {name: _on(run, next(sets[name].batches(plan.batch))) for name, run in runners.items()}
    timings = benchmark.measure(timed, [{}], rounds=plan.rounds, progress=progress)
    return {str(path): Evaluated(judge(answers[str(path)], answers[str(paths[0])], sets[str(path)]), timings[str(path)],
                                 storage.model_bytes(path), sets[str(path)].rows(plan.batch)) for path in paths}


def _on(run: Runner, feeds: Feeds) -> Runner:
    """A runner for one input of its own: models that call their inputs differently are timed side by side."""
    return lambda _: run(feeds)


@dataclass(frozen=True)
class Evaluated:
    """One model's quality on a data set, its latency on the set's first batch, its size in bytes, and the rows in a batch."""

    quality: Quality
    timing: benchmark.Timing
    size: int
    batch: int

    def to_json(self) -> dict[str, Any]:
        return self.quality.to_json() | {"latency": self.timing.to_json(), "size": self.size, "batch": self.batch}


def check(first: Path, second: Path, kind: str, data: Path | None = None) -> Parity:
    """Compare two model files; the first is the reference.

    Args:
        kind: a row of ``parity.TOLERANCES``.
        data: real inputs to compare on, beside the grid; of int8 those that it was calibrated with, when None.

    Raises:
        UsageError: no such row, or what the second was calibrated with is gone. ModelError, ParityError: see ``compare_files``.
    """
    if kind not in parity.TOLERANCES:
        raise UsageError(f"no tolerance named {kind!r}; choose one of {', '.join(parity.TOLERANCES)}")
    real = verdict.real_inputs(second, first) if kind == "int8" and data is None else None
    if data is not None:
        real = verdict.Real.of(dataset_for(data, second), verdict.ROWS)
    return compare_files(first, second, kind, real=real)


@dataclass(frozen=True)
class Run:
    """The whole chain's outcome: each step, and the measurement of all its models.

    ``quantize`` is None where nothing was worth quantizing; ``unquantized`` says why.
    """

    export: Step
    optimize: Step
    quantize: Step | None
    parity: dict[str, Parity]
    timings: dict[str, benchmark.Timing]
    plan: BenchmarkPlan
    framework: str
    unquantized: str = ""

    @property
    def paths(self) -> dict[str, Path]:
        """The models by the names of their rows."""
        return _paths(self.export, self.optimize, self.quantize)

    def to_json(self) -> dict[str, Any]:
        return {"export": self.export.to_json(), "optimize": self.optimize.to_json(),
                "quantize": {"skipped": self.unquantized} if self.quantize is None else self.quantize.to_json(),
                "parity": {name: result.to_json() for name, result in self.parity.items()},
                "benchmark": {name: timing.to_json() for name, timing in self.timings.items()}}


def _paths(*steps: Step | None) -> dict[str, Path]:
    return {name: step.path for name, step in zip(("ONNX", "optimized", "int8"), steps, strict=True) if step is not None}


def run_all(plan: ExportPlan, target: str, measure: BenchmarkPlan, progress: Progress = silent,
            feeds: Callable[[Checkpoint], list[Feeds]] | None = None) -> Run:
    """Export, optimize, quantize, check against the model's own framework, and measure: everything lands in ``plan.out``.

    Args:
        feeds: real inputs to measure with, given the checkpoint; random ones of ``measure``'s shape when None.

    Raises:
        OnnxfuseError: a step failed; what the steps before it wrote is there.
    """
    from onnxfuse.exporters import LABELS, checkpoint_runner, limit_threads

    if measure.threads:
        limit_threads(measure.threads)
    exported, checkpoint = export(plan, progress)
    measure = fitted(measure, samples.profile_of(storage.load(exported.path), checkpoint.config))
    optimized = optimize(OptimizePlan(exported.path, plan.out / plans.OPTIMIZED, target), progress)
    quantized, why = None, ""
    try:
        quantized = quantize(QuantizePlan(optimized.path, plan.out / plans.QUANTIZED), progress)
    except NothingToQuantizeError as error:
        stale = plan.out / plans.QUANTIZED
        why = str(error) + (f"; {stale} is of an earlier run" if stale.exists() else "")
    framework = LABELS[checkpoint.framework]
    progress(f"comparing all with {framework}")
    original = checkpoint_runner(checkpoint, measure.threads)
    results = _compare_all(original, framework, _paths(exported, optimized, quantized), checkpoint.config)

    progress("measuring")
    settings = Settings(threads=measure.threads)
    runners = {name: open_runner(path, settings) for name, path in _paths(exported, optimized, quantized).items()}
    profile = verdict.understood(exported.path, checkpoint.config, runners["ONNX"])
    inputs = feeds(checkpoint) if feeds else [profile.feeds(measure.batch, measure.length, seed=measure.seed)]
    timings = benchmark.measure({framework: original} | runners, inputs, rounds=measure.rounds, progress=progress)
    outcome = Run(exported, optimized, quantized, results, timings, measure, framework, why)
    plans.record(plan.out, "benchmark", measure, {"timings": outcome.to_json()["benchmark"]})
    return outcome


def _compare_all(original: Runner, framework: str, paths: Mapping[str, Path], config: Mapping[str, Any]) -> dict[str, Parity]:
    """Hold the models of a run against what they were exported from. Raises ParityError."""
    random = parity.reference(original, grid(paths["ONNX"], config))
    results = {}
    for name, path in paths.items():
        real = verdict.real_inputs(path)
        known = [] if real is None else parity.reference(original, real.cases)
        result = verdict.judge(random, known, open_runner(path), "int8" if name == "int8" else "reassociate",
                               "" if real is None else real.name)
        there = f"{', '.join(file.name for file in paths.values())} are in {path.parent}"
        results[name] = result.require(f"{path} differs from {framework}", there)
    return results


def _unwritten(path: Path) -> str:
    return f"{path} was not written"


# Expectations ----------------------------------------------------------------------------------------------------


def model_type(model: ir.Model, config: dict[str, Any], override: str | None) -> str:
    """The family a model belongs to: as told, as config.json says, or as its inputs show.

    Raises:
        ModelError: a family that onnxfuse does not know.
    """
    named = override or config.get("model_type")
    if named is None:
        inputs = {value.name for value in model.graph.inputs}
        named = "vit" if "pixel_values" in inputs else "bert" if "token_type_ids" in inputs else "distilbert"
    return catalog.architecture(named).model_type


def _expected(family: str, config: dict[str, Any], target: Target) -> dict[str, int]:
    """What ``models/`` says the model must hold for a target; empty when there is no config.json to say how many layers."""
    architecture = catalog.architecture(family)
    if architecture.layers not in config:
        return {}
    expected = architecture.expected(config, config.get("onnxfuse_task"))
    return {name: count for name, count in expected.items() if name != "qkv" or target.qkv == "merged"}


def _require(plan: OptimizePlan, counts: dict[str, int], expected: dict[str, int]) -> None:
    """Hold the counts against ``--require``: "all", or NAME=NUMBER. What is missing is explained."""
    needs: dict[str, int] = {}
    for item in plan.require:
        name, _, number = item.partition("=")
        if item == "all":
            if not expected:
                raise UsageError("--require all needs config.json beside the model, to know how many layers it has")
            needs |= expected
        elif name in counts and number.isdigit():
            needs[name] = int(number)
        else:
            raise UsageError(f"--require {item}: wanted all, or NAME=NUMBER with NAME one of {', '.join(counts)}")
    for name, needed in needs.items():
        if counts[name] != needed:
            missed = [str(finding) for finding in explain(plan.source, plan.target, plan.model_type)
                      if finding.fusion == name and not finding.done]
            raise RequirementError("; ".join([f"{name} fused {counts[name]} times, required {needed}", *missed[:1]]))
