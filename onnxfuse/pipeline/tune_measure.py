"""What a model is for each alternative of ``tune``, measured side by side on this machine."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from onnxfuse import catalog
from onnxfuse.config import Scheme, TuneConfig
from onnxfuse.errors import ModelError, OnnxfuseError, UncalibratedError
from onnxfuse.evaluation import calibrated
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.evaluation.sources import default_calibration
from onnxfuse.half.convert import to_bfloat16, to_float16
from onnxfuse.half.peaks import overflowing, peaks
from onnxfuse.io import folders, onnx_file
from onnxfuse.io.atomic import scratch
from onnxfuse.measure import benchmark
from onnxfuse.optimizer import fuse
from onnxfuse.pipeline import compare, forms
from onnxfuse.pipeline.compare import Candidate
from onnxfuse.pipeline.trials import Trial
from onnxfuse.quantization.prepare import prepare
from onnxfuse.quantization.write import DYNAMIC, QDQ, write
from onnxfuse.runtime import Feeds, open_runner, runtimes
from onnxfuse.targets import PRECISIONS, Target, is_int8
from onnxfuse.verify import verdict

NOISE = "the same again"

SAME = "the model is the same"


Things = Sequence[tuple[str, tuple[str, ...]]]
"""What is measured, each with its options."""

Measure = Callable[[str, Target, Mapping[str, Target], Things], list[Trial]]
"""As ``Measuring.measure``."""


class Measuring:
    """Makes what a model is for each alternative, and measures these side by side."""

    def __init__(self, plan: TuneConfig) -> None:
        self.plan = plan
        config = folders.read_config(plan.source)
        model = onnx_file.load(plan.source)
        self.family = catalog.architecture(catalog.model_type(model, config, plan.model_type))
        self.calibration = _calibration(plan, model) if any(map(is_int8, plan.precisions)) else None
        self.real = None if self.calibration is None else calibrated.real_of(self.calibration, calibrated.ROWS)
        profile = verdict.profile_of_file(plan.source, config, open_runner(plan.source))
        self.inputs: list[Feeds] = [
            profile.feeds(plan.batch, plan.length, seed=plan.seed + seed, real=plan.real) for seed in range(compare.COMPARED)
        ]

    def measure(self, thing: str, chosen: Target, variants: Mapping[str, Target], then: Things = ()) -> list[Trial]:
        """A trial for each variant other than ``chosen``, and one for ``chosen`` against itself.

        Args:
            then: what will be measured next; here one thing is measured at a time.
        """
        with scratch() as folder:
            return self._measured(thing, chosen, variants, folder)

    def _measured(self, thing: str, chosen: Target, variants: Mapping[str, Target], folder: Path) -> list[Trial]:
        original = Candidate("original", "fp32", open_runner(self.plan.source))
        entries, refused = [original], []
        alternatives = {"so far": chosen, NOISE: chosen} | {name: target for name, target in variants.items() if target != chosen}
        for name, target in alternatives.items():
            try:
                path = self._made(target, folder)
                if name not in ("so far", NOISE) and _same(target, path, chosen, entries[1].path):
                    refused.append(Trial(thing, name, refused=SAME))
                    continue
                entries.append(
                    Candidate(
                        name,
                        forms.computed(target["precision"], runtimes()[target.session.runtime]),
                        open_runner(path, target.session),
                        path,
                        target.session.runtime,
                        real=self.real if is_int8(target["precision"]) else None,
                    )
                )
            except OnnxfuseError as error:
                if name in ("so far", NOISE):
                    raise
                refused.append(Trial(thing, name, refused=str(error).replace(str(folder), "")))
        if len(entries) == 3 and all(trial.refused == SAME for trial in refused):
            return refused  # nothing is there to measure
        failed: dict[str, str] = {}
        parities = compare.compare_outputs(entries, self.inputs, failed)
        for entry in entries[1:]:
            agrees = parities.get(entry.name)
            if agrees is None or not agrees.passed:
                refused.append(Trial(thing, entry.name, refused=failed.get(entry.name) or (agrees.failures[0] if agrees else "")))
        out = {trial.option for trial in refused}
        if out & {"so far", NOISE}:
            raise ModelError(f"target {chosen.name} does not compute what {self.plan.source} does: {refused[0].refused}")
        runners = {entry.name: entry.run for entry in entries[1:] if entry.name not in out}
        timings = benchmark.measure(runners, self.inputs[:1], rounds=self.plan.rounds)
        return [
            Trial(thing, name, timing.p50, benchmark.ratio(timings["so far"], timing))
            for name, timing in timings.items()
            if name != "so far"
        ] + refused

    def _made(self, target: Target, folder: Path) -> Path:
        """The model for a target; variants that differ in the session alone share a file."""
        parts = [str(target.opset), *target.chosen.values(), runtimes()[target.session.runtime].static]
        path = folder / ("-".join(parts) + ".onnx")
        if not path.exists():
            model = onnx_file.load(self.plan.source)
            self.family.name_inputs(model)
            fuse(model, target)
            if is_int8(target["precision"]):
                model = self._quantized(model, target)
            elif target["precision"] != "fp32":
                self._halve(model, target["precision"], folder)
            onnx_file.save(model, path)
        return path

    def _halve(self, model: ir.Model, precision: str, folder: Path) -> None:
        """As ``optimize`` brings it to half precision, in place, but for what only its search would find: whether it agrees is
        seen here, too."""
        if precision == "bf16":
            to_bfloat16(model)
        else:
            to_float16(model, overflowing(peaks(model, self.inputs, folder)))

    def _quantized(self, model: ir.Model, target: Target) -> ir.Model:
        """Int8 as ``quantize`` makes it, from few samples and with weights rounded to nearest: neither changes its speed.

        Raises:
            UsageError: static, and there is nothing to calibrate with.
        """
        static = PRECISIONS[target["precision"]][1] == "static"
        fastest = runtimes()[target.session.runtime].static
        format = (QDQ if fastest == "auto" else fastest) if static else DYNAMIC
        scheme = Scheme(static=static, format=format if static else "auto")
        if self.calibration is None:
            return write(prepare(model, scheme), format=format)
        few = self.calibration.first(calibrated.REAL * calibrated.ROWS)
        prepared = prepare(model, replace(scheme, rounding="nearest"), partial(few.batches, calibrated.ROWS))
        return write(prepared, format=format)


def _same(target: Target, path: Path, other: Target, place: Path | None) -> bool:
    """Whether two targets make one file of a model, and open it alike."""
    return place is not None and target.session == other.session and filecmp.cmp(path, place, shallow=False)


def _calibration(plan: TuneConfig, model: ir.Model) -> Dataset | None:
    """Sentences for a model with a tokenizer; None where int8 is made without them."""
    try:
        return default_calibration(plan.source, model)
    except UncalibratedError:
        return None
