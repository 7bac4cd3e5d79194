"""The chain export -> optimize -> quantize -> check -> benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.errors import NothingToQuantizeError
from onnxfuse.evaluate import calibrated
from onnxfuse.io import folders, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.runtime import Feeds, Runner, Settings, open_runner
from onnxfuse.verify import verdict
from onnxfuse.verify.expected import expect
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.parity import Parity
from onnxfuse.verify.verdict import grid_of

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.pipeline.step import Step, fitted


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
    plan: BenchmarkConfig
    framework: str
    unquantized: str = ""

    @property
    def paths(self) -> dict[str, Path]:
        """The models by the names of their rows."""
        return _paths(self.export, self.optimize, self.quantize)

    def to_json(self) -> dict[str, Any]:
        return {
            "export": self.export.to_json(),
            "optimize": self.optimize.to_json(),
            "quantize": {"skipped": self.unquantized} if self.quantize is None else self.quantize.to_json(),
            "parity": {name: result.to_json() for name, result in self.parity.items()},
            "benchmark": {name: timing.to_json() for name, timing in self.timings.items()},
        }


def _paths(*steps: Step | None) -> dict[str, Path]:
    return {name: step.path for name, step in zip(("ONNX", "optimized", "int8"), steps, strict=True) if step is not None}


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
    from onnxfuse.exporters import checkpoint_runner, frameworks, limit_threads

    if measure.threads:
        limit_threads(measure.threads)
    exported, checkpoint = export(plan, progress)
    measure = fitted(measure, profile_of(onnx_file.load(exported.path), checkpoint.config))
    optimized = optimize(OptimizeConfig(exported.path, plan.out / folders.OPTIMIZED, target), progress)
    quantized, why = None, ""
    try:
        quantized = quantize(QuantizeConfig(optimized.path, plan.out / folders.QUANTIZED), progress)
    except NothingToQuantizeError as error:
        stale = plan.out / folders.QUANTIZED
        why = str(error) + (f"; {stale} is of an earlier run" if stale.exists() else "")
    framework = frameworks()[checkpoint.framework].label
    progress(f"comparing all with {framework}")
    original = checkpoint_runner(checkpoint, measure.threads)
    results = _compare_all(original, framework, _paths(exported, optimized, quantized), checkpoint.config)

    progress("measuring")
    settings = Settings(threads=measure.threads)
    runners = {name: open_runner(path, settings) for name, path in _paths(exported, optimized, quantized).items()}
    profile = verdict.profile_of_file(exported.path, checkpoint.config, runners["ONNX"])
    inputs = feeds(checkpoint) if feeds else [profile.feeds(measure.batch, measure.length, seed=measure.seed)]
    timings = benchmark.measure({framework: original} | runners, inputs, rounds=measure.rounds, progress=progress)
    outcome = Run(exported, optimized, quantized, results, timings, measure, framework, why)
    folders.record(plan.out, "benchmark", measure, {"timings": outcome.to_json()["benchmark"]})
    return outcome


def _compare_all(original: Runner, framework: str, paths: Mapping[str, Path], config: Mapping[str, Any]) -> dict[str, Parity]:
    """Hold the models of a run against what they were exported from. Raises ParityError."""
    random = expect(original, grid_of(paths["ONNX"], config))
    results = {}
    for name, path in paths.items():
        real = calibrated.real_inputs(path)
        known = [] if real is None else expect(original, real.cases)
        result = verdict.judge(
            random, known, open_runner(path), "int8" if name == "int8" else "reassociate", "" if real is None else real.name
        )
        there = f"{', '.join(file.name for file in paths.values())} are in {path.parent}"
        results[name] = result.require(f"{path} differs from {framework}", there)
    return results
