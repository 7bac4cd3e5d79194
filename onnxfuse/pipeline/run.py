"""The chain export -> optimize -> quantize -> check -> benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse import targets
from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.errors import NothingToQuantizeError
from onnxfuse.io import folders
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.pipeline.export import Exported, export
from onnxfuse.pipeline.optimize import Optimized, optimize
from onnxfuse.pipeline.quantize import Quantized, quantize
from onnxfuse.pipeline.step import Step, fitted
from onnxfuse.runtime import Feeds, Runner, Settings
from onnxfuse.verify import verdict
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from onnxfuse.verify.opened import Opened, afresh
from onnxfuse.verify.parity import Parity
from onnxfuse.verify.verdict import Real

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint

INT8 = "int8"
"""The row of the int8 model."""


@dataclass(frozen=True)
class Run:
    """The whole chain's outcome: each step, and the measurement of all its models.

    ``quantize`` is None where nothing was worth quantizing; ``unquantized`` says why.
    """

    export: Exported
    optimize: Optimized
    quantize: Quantized | None
    parity: Mapping[str, Parity]
    timings: Mapping[str, benchmark.Timing]
    plan: BenchmarkConfig
    framework: str
    unquantized: str = ""

    @property
    def steps(self) -> dict[str, Step]:
        """What was made, by the names of its rows."""
        return _steps(self.export, self.optimize, self.quantize)

    @property
    def paths(self) -> dict[str, Path]:
        """The models by the names of their rows."""
        return {name: step.path for name, step in self.steps.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "export": self.export.to_json(),
            "optimize": self.optimize.to_json(),
            "quantize": {"skipped": self.unquantized} if self.quantize is None else self.quantize.to_json(),
            "parity": {name: result.to_json() for name, result in self.parity.items()},
            "benchmark": {name: timing.to_json() for name, timing in self.timings.items()},
        }


def _steps(*steps: Step | None) -> dict[str, Step]:
    return {name: step for name, step in zip(("ONNX", "optimized", INT8), steps, strict=True) if step is not None}


def run_all(
    plan: ExportConfig,
    target: str,
    measure: BenchmarkConfig,
    progress: Progress = silent,
    feeds: Callable[[Checkpoint], list[Feeds]] | None = None,
) -> Run:
    """Export, optimize, quantize, check against the model's own framework, and measure: everything lands in ``plan.out``.

    Args:
        feeds: real inputs to measure with, given the checkpoint; random ones of ``measure``'s shape when None.

    Raises:
        OnnxfuseError: a step failed; what the steps before it wrote is there.
    """
    with targets.use(target):
        return _run_all(plan, target, measure, progress, feeds)


def _run_all(
    plan: ExportConfig,
    target: str,
    measure: BenchmarkConfig,
    progress: Progress,
    feeds: Callable[[Checkpoint], list[Feeds]] | None,
) -> Run:
    from onnxfuse.exporters import checkpoint_runner, frameworks, limit_threads

    if measure.threads:
        limit_threads(measure.threads)
    exported = export(plan, progress, keep=True)
    measure = fitted(measure, exported.model.inputs)
    optimized = optimize(OptimizeConfig(exported.path, plan.out / folders.OPTIMIZED, target), progress, exported.model)
    quantized, why = _quantized(optimized, plan.out / folders.QUANTIZED, progress)
    framework, models = frameworks()[exported.framework].label, _steps(exported, optimized, quantized)
    progress(f"comparing all with {framework}")
    real = None if quantized is None else quantized.real
    results = _compare_all(exported.original, framework, {name: step.model for name, step in models.items()}, real)
    progress("measuring")
    settings = Settings(threads=measure.threads)
    runners = {framework: checkpoint_runner(exported.checkpoint, measure.threads)}
    runners |= {name: afresh(step.model.runner(settings)) for name, step in models.items()}
    profile = exported.model.profile
    inputs = feeds(exported.checkpoint) if feeds else [profile.feeds(measure.batch, measure.length, seed=measure.seed)]
    timings = benchmark.measure(runners, inputs, rounds=measure.rounds, progress=progress)
    outcome = Run(exported, optimized, quantized, results, timings, measure, framework, why)
    folders.record(plan.out, "benchmark", measure, {"timings": outcome.to_json()["benchmark"]})
    return outcome


def _quantized(optimized: Optimized, out: Path, progress: Progress) -> tuple[Quantized | None, str]:
    """The int8 model; or None, and why nothing was worth quantizing."""
    try:
        return quantize(QuantizeConfig(optimized.path, out), progress, optimized.model), ""
    except NothingToQuantizeError as error:
        return None, str(error) + (f"; {out} is of an earlier run" if out.exists() else "")


def _compare_all(original: Runner, framework: str, models: Mapping[str, Opened], real: Real | None) -> dict[str, Parity]:
    """Hold the models of a run against what they were exported from. Raises ParityError."""
    random = expect(original, grid(models["ONNX"].inputs))
    known = [] if real is None else expect(original, real.cases)
    results = {}
    for name, model in models.items():
        if name == INT8:
            result = verdict.judge(random, known, model.runner(), "int8", "" if real is None else real.name)
        else:
            result = verdict.judge(random, [], model.runner(), "reassociate")
        there = f"{', '.join(each.path.name for each in models.values())} are in {model.path.parent}"
        results[name] = result.require(f"{model} differs from {framework}", there)
    return results
