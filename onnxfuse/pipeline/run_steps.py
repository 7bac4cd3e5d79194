"""The steps of a run: export, optimize, quantize and compare; what they make takes its place together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.errors import NothingToQuantizeError, OnnxfuseError, UncalibratedError
from onnxfuse.io import atomic, folders
from onnxfuse.io.progress import Progress
from onnxfuse.pipeline import forms
from onnxfuse.pipeline.check import INT8, compare_all
from onnxfuse.pipeline.export import Exported, export, guard_of
from onnxfuse.pipeline.optimize import Optimized, optimize
from onnxfuse.pipeline.quantize import Quantized, quantize
from onnxfuse.pipeline.step import Step, fitted, require_measurable
from onnxfuse.targets import Target
from onnxfuse.verify.opened import Opened
from onnxfuse.verify.parity import Parity
from onnxfuse.verify.verdict import Real

S = TypeVar("S", bound=Step | None)


def steps(*made: Step | None) -> dict[str, Step]:
    """Export, optimized and int8 model by the names of their rows."""
    return {name: step for name, step in zip(("ONNX", "optimized", INT8), made, strict=True) if step is not None}


@dataclass
class Made:
    """The steps that have been done, what came out of comparing them, and how they are measured."""

    measure: BenchmarkConfig
    export: Exported
    optimize: Optimized
    quantize: Quantized | None
    unquantized: str
    half: Optimized | None
    static: Quantized | None
    unstatic: str
    elsewhere: Opened | None
    parity: dict[str, Parity]

    @property
    def files(self) -> dict[Path, str]:
        """What can be used in other forms, with its precision."""
        plain = [each.path for each in (self.optimize, self.elsewhere) if each is not None]
        int8 = {each.path: each.precision for each in (self.quantize, self.static) if each is not None}
        half = {} if self.half is None or self.half.half is None else {self.half.path: self.half.half.precision}
        return dict.fromkeys(plain, "fp32") | half | int8

    @property
    def real(self) -> Real | None:
        """What int8 was calibrated with."""
        return None if self.quantize is None else self.quantize.real


def make(
    plan: ExportConfig,
    source: Any,
    target: str,
    chosen: Target,
    measure: BenchmarkConfig,
    progress: Progress,
    require: tuple[str, ...],
    half: str | None,
) -> Made:
    """Export, optimize, quantize and compare; all files take their places together at the end.

    Raises:
        OnnxfuseError: a step failed; what the steps before it made takes its place.
    """
    from onnxfuse.exporters import frameworks

    done: list[Step] = []
    failed: OnnxfuseError | None = None
    with atomic.replacing(plan.out / folders.MODEL, guard_of(plan, *folders.MADE)) as staged:
        try:
            staging, accept = replace(plan, out=staged.parent), partial(require_measurable, measure)
            exported = export(staging, progress, source, keep=True, accept=accept)
            done, measure = [exported], fitted(measure, exported.model.inputs)
            config = OptimizeConfig(exported.path, staged.with_name(folders.OPTIMIZED), target, require=require, precision="fp32")
            optimized = _done(done, optimize(config, progress, exported.model))
            halved = _done(done, _halved(config, half, exported, progress))
            quantized, why = _quantized(optimized, plan.out, progress)
            _done(done, quantized)
            elsewhere = forms.fuse_elsewhere(exported.model, optimized, chosen, progress)
            static, unstatic = forms.static_int8(elsewhere or optimized.model, quantized, chosen, progress)
            unstatic += "" if _done(done, static) else _earlier(plan.out / folders.STATIC)
            models = {name: step.model for name, step in steps(exported, optimized, quantized).items()}
            label, real = frameworks()[exported.framework].label, None if quantized is None else quantized.real
            parity = compare_all(exported.original, label, models, real, progress)
        except OnnxfuseError as error:
            if not done:
                raise
            forms.drop(staged.with_name(folders.FUSED))
            error.args = tuple(atomic.named(str(part)) for part in error.args)
            failed = error
    for step in done:
        step.model.move(plan.out / step.path.name)
    if failed is not None:
        raise failed
    if elsewhere is not None:
        elsewhere.move(plan.out / folders.FUSED)
    exported, optimized, halved = _placed(exported, plan.out), _placed(optimized, plan.out), _placed(halved, plan.out)
    quantized, static = _placed(quantized, plan.out), _placed(static, plan.out)
    return Made(measure, exported, optimized, quantized, why, halved, static, unstatic, elsewhere, parity)


def _done(done: list[Step], step: S) -> S:
    """The step, which is kept where there is one."""
    if step is not None:
        done.append(step)
    return step


def _placed(step: S, folder: Path) -> S:
    return step if step is None else replace(step, path=folder / step.path.name)


def _halved(config: OptimizeConfig, half: str | None, exported: Exported, progress: Progress) -> Optimized | None:
    """The same model in half precision, beside it; None where that is not asked for."""
    if half is None:
        return None
    return optimize(replace(config, out=config.out.with_name(folders.HALVED[half]), precision=half), progress, exported.model)


def _quantized(optimized: Optimized, folder: Path, progress: Progress) -> tuple[Quantized | None, str]:
    """The int8 model; or None, and why nothing was worth quantizing."""
    out = folder / folders.QUANTIZED
    try:
        return quantize(QuantizeConfig(optimized.path, optimized.path.with_name(out.name)), progress, optimized.model), ""
    except (NothingToQuantizeError, UncalibratedError) as error:
        return None, str(error) + _earlier(out)


def _earlier(path: Path) -> str:
    """What to say of a file that was not made, and lies there."""
    return f"; {path} is of an earlier run" if path.exists() else ""
