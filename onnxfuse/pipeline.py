"""The chain export -> optimize -> quantize -> check -> benchmark, and each of its steps. The only place that knows the order.

Every step loads, works in memory, verifies, and saves last: what fails leaves no file behind.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxfuse import benchmark, catalog, files, parity, samples, storage, targets
from onnxfuse import plan as plans
from onnxfuse.architecture import MASK
from onnxfuse.dump import Dump
from onnxfuse.errors import RequirementError, UsageError
from onnxfuse.explain import Finding
from onnxfuse.explain import explain as findings
from onnxfuse.fuse import fuse
from onnxfuse.parity import Parity
from onnxfuse.plan import BenchmarkPlan, ExportPlan, OptimizePlan, QuantizePlan
from onnxfuse.progress import Progress, silent
from onnxfuse.quantize import quantize_dynamic
from onnxfuse.runtime import Feeds, Settings, open_runner
from onnxfuse.runtime.model import METADATA
from onnxfuse.runtime.pytorch import torch_runner
from onnxfuse.samples import Case
from onnxfuse.targets import Target

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint

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
    """Export a checkpoint to ``plan.out/model.onnx`` and compare it with PyTorch.

    Args:
        source: a ``transformers`` model to export instead of ``plan.source``.

    Raises:
        OnnxfuseError: see ``exporters``; ParityError when the graph does not compute what PyTorch does.
    """
    from onnxfuse.exporters import choose_opset, open_checkpoint
    from onnxfuse.exporters import export as write

    opset = choose_opset(plan.exporter, plan.opset)
    clock = _Clock()
    progress(f"loading {plan.source}")
    checkpoint = open_checkpoint(source or plan.source, task=plan.task, model_type=plan.model_type,
                                 random_weights=plan.random_weights, seed=plan.seed)
    clock.lap("load")
    progress(f"exporting with {plan.exporter}")
    path = plan.out / plans.MODEL
    with files.replacing(path) as staged:
        write(checkpoint, staged, exporter=plan.exporter, opset=opset)
        clock.lap("export")
        progress("comparing with PyTorch")
        expected = parity.reference(torch_runner(checkpoint), grid(staged, checkpoint.config))
        result = parity.compare(expected, open_runner(staged), "reassociate").require("the export differs from PyTorch")
        clock.lap("verify")
    checkpoint.save_beside(plan.out)
    step = Step(path, files.model_bytes(path), clock.seconds, result, {"task": checkpoint.task})
    plans.record(plan.out, "export", plan, step.to_json())
    return step, checkpoint


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
    model.metadata_props[METADATA] = json.dumps({"target": target.name, "session": asdict(target.session), "fused": fused.counts,
                                                 "versions": plans.versions()})
    result = None
    with files.replacing(plan.out) as staged:
        storage.save(model, staged)
        clock.lap("save")
        if plan.verify != "off":
            progress("comparing with the original")
            cases = list(samples.grid(_profile(plan.source, config).fixed(plan.batch, plan.length)))
            result = compare_files(plan.source, staged, "reassociate", cases, zeros=fused.padding.zeros)
            result.require("optimizing changed the outputs")
            clock.lap("verify")
    step = Step(plan.out, files.model_bytes(plan.out), clock.seconds, result, details)
    plans.record(plan.out.parent, "optimize", plan, step.to_json())
    return step


def explain(source: Path, target: str = "cpu", model_type_: str | None = None) -> list[Finding]:
    """Say of each layer of a model what fuses, and where the nearest match stops for what does not.

    Raises:
        UsageError, ModelError.
    """
    model = storage.load(source)
    family = catalog.architecture(model_type(model, plans.read_config(source), model_type_))
    family.name_inputs(model)
    return findings(model, targets.find(target), family)


def quantize(plan: QuantizePlan, progress: Progress = silent) -> Step:
    """Quantize a float model to dynamic int8 and save it if it passes the int8 bar.

    Raises:
        UsageError, ModelError; ParityError when the outputs fall under the bar.
    """
    clock = _Clock()
    model = storage.load(plan.source)
    config = plans.read_config(plan.source)
    clock.lap("load")
    progress("quantizing weights")
    counts = quantize_dynamic(model, embeddings=plan.embeddings, bits=plan.bits)
    clock.lap("quantize")
    scheme = {"scheme": "dynamic", "weights": "s8 per channel", "bits": counts.bits, "activations": "u8"}
    model.metadata_props["onnxfuse.int8"] = json.dumps(scheme)
    with files.replacing(plan.out) as staged:
        storage.save(model, staged)
        del model
        clock.lap("save")
        progress("comparing with float")
        result = compare_files(plan.source, staged, "int8", grid(plan.source, config))
        result.require("the int8 model is not close enough to float")
        clock.lap("verify")
    ratio = files.model_bytes(plan.out) / files.model_bytes(plan.source)
    details = {"matmuls": counts.matmuls, "embeddings": counts.embeddings, "bits": counts.bits, "size_ratio": round(ratio, 4)}
    step = Step(plan.out, files.model_bytes(plan.out), clock.seconds, result, details)
    plans.record(plan.out.parent, "quantize", plan, step.to_json())
    return step


def check(first: Path, second: Path, kind: str) -> Parity:
    """Compare two model files on the parity grid; the first is the reference. Raises ModelError, ParityError."""
    if kind not in parity.TOLERANCES:
        raise UsageError(f"no tolerance named {kind!r}; choose one of {', '.join(parity.TOLERANCES)}")
    return compare_files(first, second, kind, grid(second, plans.read_config(first)))


@dataclass(frozen=True)
class Run:
    """The whole chain's outcome: each step, and the measurement of all its models."""

    export: Step
    optimize: Step
    quantize: Step
    parity: dict[str, Parity]
    timings: dict[str, benchmark.Timing]
    plan: BenchmarkPlan

    def to_json(self) -> dict[str, Any]:
        return {"export": self.export.to_json(), "optimize": self.optimize.to_json(), "quantize": self.quantize.to_json(),
                "parity": {name: result.to_json() for name, result in self.parity.items()},
                "benchmark": {name: timing.to_json() for name, timing in self.timings.items()}}


VARIANTS = {"ONNX": plans.MODEL, "optimized": plans.OPTIMIZED, "int8": plans.QUANTIZED}
PYTORCH = "PyTorch"


def run_all(plan: ExportPlan, target: str, measure: BenchmarkPlan, progress: Progress = silent,
            feeds: Callable[[Checkpoint], list[Feeds]] | None = None) -> Run:
    """Export, optimize, quantize, check against PyTorch, and measure: everything lands in ``plan.out``.

    Args:
        feeds: real inputs to measure with, given the checkpoint; random ones of ``measure``'s shape when None.
    """
    exported, checkpoint = export(plan, progress)
    optimized = optimize(OptimizePlan(exported.path, plan.out / plans.OPTIMIZED, target), progress)
    quantized = quantize(QuantizePlan(optimized.path, plan.out / plans.QUANTIZED), progress)
    paths = {name: plan.out / file for name, file in VARIANTS.items()}

    progress("comparing all with PyTorch")
    torch_run = torch_runner(checkpoint, measure.threads)
    expected = parity.reference(torch_run, grid(exported.path, checkpoint.config))
    results = {name: parity.compare(expected, open_runner(path), "int8" if name == "int8" else "reassociate")
               .require(f"{path} differs from PyTorch") for name, path in paths.items()}

    progress("measuring")
    profile = samples.profile_of(storage.load(exported.path), checkpoint.config)
    inputs = feeds(checkpoint) if feeds else [profile.feeds(measure.batch, measure.length, seed=measure.seed)]
    settings = Settings(threads=measure.threads)
    runners = {PYTORCH: torch_run} | {name: open_runner(path, settings) for name, path in paths.items()}
    timings = benchmark.measure(runners, inputs, rounds=measure.rounds, progress=progress)
    outcome = Run(exported, optimized, quantized, results, timings, measure)
    plans.record(plan.out, "benchmark", measure, {"timings": outcome.to_json()["benchmark"]})
    return outcome


# Runners and comparisons -----------------------------------------------------------------------------------------


def compare_files(first: Path, second: Path, kind: str, cases: list[Case], zeros: tuple[str, ...] = ()) -> Parity:
    """Compare two files, holding one of them in memory at a time. ``zeros``: outputs that are wanted to be zero at padding."""
    runner = open_runner(first)
    expected = parity.reference(runner, cases)
    for case, outputs in expected:
        for name in zeros:
            mask = case.feeds[MASK].astype(bool)
            outputs[name] = np.where(mask.reshape(mask.shape + (1,) * (outputs[name].ndim - 2)), outputs[name], 0)
    del runner
    gc.collect()
    return parity.compare(expected, open_runner(second), kind)


def grid(path: Path, config: dict[str, Any]) -> list[Case]:
    """The parity grid of a model file."""
    return list(samples.grid(_profile(path, config)))


def _profile(path: Path, config: dict[str, Any]) -> samples.Profile:
    return samples.profile_of(storage.load(path), config)


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
