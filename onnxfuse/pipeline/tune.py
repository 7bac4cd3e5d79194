"""Choose what is fastest by measuring it: on this machine, for this model and these shapes.

Things are decided one after another, from a shipped target on: precision and runtime together first, then the lowerings, then
how the session is opened. For each thing all alternatives run in one interleaved measurement beside the choice so far, which
takes part twice: how far it is from itself is the noise. At the end the result is measured against where it started.

``RULE`` is the rule of choice; equal measurements give equal choices.
"""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx_ir as ir

from onnxfuse import catalog, targets
from onnxfuse.config import Scheme, TuneConfig, shape_text
from onnxfuse.errors import ModelError, OnnxfuseError, UncalibratedError, UsageError
from onnxfuse.evaluation import calibrated
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.evaluation.sources import default_calibration
from onnxfuse.io import atomic, external, folders, onnx_file, places
from onnxfuse.io.atomic import scratch
from onnxfuse.io.ours import Replaceable, inputs_of
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.optimizer import fuse
from onnxfuse.pipeline import compare, forms
from onnxfuse.pipeline.compare import Candidate
from onnxfuse.pipeline.step import fitted
from onnxfuse.pipeline.trials import Known, Trial
from onnxfuse.quantization.prepare import prepare
from onnxfuse.quantization.write import DYNAMIC, QDQ, write
from onnxfuse.runtime import Feeds, Settings, open_runner, require, runtimes
from onnxfuse.runtime.cores import cores
from onnxfuse.targets import PRECISIONS, Target
from onnxfuse.verify import verdict
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.opened import blaming

RULE = (
    "An alternative replaces the choice so far when the 95 % interval of its speed, as a multiple of that choice's, lies "
    "above 1 and above the interval of that choice measured against itself (the noise); of several, the largest median wins. "
    "The result replaces the target it started from when it is faster than that by the same rule."
)

NOISE = "the same again"

SAME = "the model is the same"

FORM, IN = "form", " in "
"""What is decided first: a precision in a runtime, together, as text with ``IN`` between them."""


@dataclass(frozen=True)
class Tuned:
    """The target that came out, and every trial on the way, thing by thing."""

    target: Target
    trials: tuple[Trial, ...]


def tune(plan: TuneConfig, progress: Progress = silent) -> Tuned:
    """Measure the alternatives for a model and write the best choices to ``plan.out``, a target file.

    What was measured before an interruption is kept beside it and not measured again.

    Raises:
        UsageError: no precision or runtime of that name.
        OnnxfuseError: the model cannot be optimized or run.
    """
    with targets.use(plan.target) as base, blaming(plan.source):
        return _tune(plan, base, progress)


def _tune(plan: TuneConfig, base: Target, progress: Progress) -> Tuned:
    takes = runtimes(plan.source.suffix)
    for name, asked, all_ in (
        ("precision", plan.precisions, targets.choices()["precision"]),
        ("runtime", plan.runtimes, tuple(takes)),
    ):
        if unknown := sorted(set(asked) - set(all_)):
            raise UsageError(f"no {name} named {unknown[0]!r}; choose from {', '.join(all_)}")
    for name in plan.runtimes:
        require(takes[name])
    model = onnx_file.load(plan.source)
    sources = (Path(plan.target), *inputs_of(plan.source, external.weight_files(model)))
    guard = Replaceable(sources, plan.overwrite, _is_tuned)
    guard.require(plan.out)
    plan = fitted(plan, profile_of(model, folders.read_config(plan.source)))
    known = Known(plan)
    base = replace(base, session=replace(base.session, threads=plan.threads))
    possible = _forms(plan)
    if value_of(base, FORM) not in possible:
        base = chosen_with(base, FORM, possible[0])
    trying = _Trials(plan)
    chosen, trials = base, []
    things = list(_alternatives(base, plan))
    with scratch() as folder:
        for number, (thing, options) in enumerate(things):
            progress(f"{thing}: {', '.join(options)}", number / (len(things) + 1))
            variants = {option: chosen_with(chosen, thing, option) for option in options}
            found = known.trials(thing) or trying.measure(thing, chosen, variants, folder)
            known.add(thing, found)
            trials += found
            chosen = variants.get(best(found), chosen)
        progress("against the target it started from", number / (len(things) + 1))
        if chosen != base:
            found = known.trials("all") or trying.measure("all", base, {"tuned": chosen}, folder)
            known.add("all", found)
            trials += found
            chosen = chosen if best(found) else base
    measured = known.key | {"rule": RULE, "from": base.name, "trials": [trial.to_json() for trial in trials]}
    measured = places.portable(measured, plan.out.parent, (plan.source,))
    chosen = replace(
        chosen,
        name=plan.out.stem,
        measured=measured,
        why=f"measured by onnxfuse tune on {measured['machine']}, {shape_text(plan)}",
    )
    atomic.save_json(chosen.to_json(), plan.out, guard)
    known.forget()
    return Tuned(chosen, tuple(trials))


def _is_tuned(path: Path) -> bool:
    """Whether a file is a target that ``tune`` wrote."""
    measured = folders.read_json(path).get("measured")
    return isinstance(measured, dict) and "trials" in measured


def best(trials: Sequence[Trial]) -> str:
    """The option that ``RULE`` takes; "" keeps the choice so far."""
    noise = next((trial.speed.high for trial in trials if trial.option == NOISE and trial.speed), 1.0)
    better = [trial for trial in trials if trial.option != NOISE and trial.speed and trial.speed.low > max(1.0, noise)]
    return max(better, key=lambda trial: trial.speed.value if trial.speed else 0.0).option if better else ""


def _forms(plan: TuneConfig) -> tuple[str, ...]:
    """Each precision in each runtime that computes it as it is meant. Raises UsageError: none of those that the plan asks for."""
    known = runtimes()
    found = [
        f"{precision}{IN}{name}" for precision in plan.precisions for name in plan.runtimes if forms.meant(precision, known[name])
    ]
    if not found:
        raise UsageError(
            f"{plan.runtimes[0]} computes {plan.precisions[0]} in float32, right but slow; choose another of --precision or "
            "--runtime"
        )
    return tuple(found)


def _alternatives(base: Target, plan: TuneConfig) -> Sequence[tuple[str, tuple[str, ...]]]:
    """What is measured: each thing with its options, the one of ``base`` among them."""
    things = [(FORM, _forms(plan))]
    lowered = targets.lowerings()
    things += [(thing, tuple(name for name, each in variants.items() if each.tuned)) for thing, variants in lowered.items()]
    things += [(thing, variants) for thing, variants in targets.SWITCHES.items() if thing != "precision"]  # that is half of FORM
    things += [("denormals_as_zero", ("True", "False")), ("spinning", ("True", "False"))]
    if not plan.threads:
        things.append(("threads", ("0", *(str(count) for count in range(1, cores() + 1)))))
    return [(thing, options) for thing, options in things if set(options) - {value_of(base, thing)}]


def value_of(target: Target, thing: str) -> str:
    """What a target chooses for a thing, as text."""
    if thing == FORM:
        return f"{target['precision']}{IN}{target.session.runtime}"
    return str(getattr(target.session, thing) if hasattr(target.session, thing) else target[thing])


def chosen_with(target: Target, thing: str, option: str) -> Target:
    """The target with another option for one thing."""
    if thing == FORM:
        precision, _, runtime = option.partition(IN)
        return chosen_with(target.choosing(precision=precision), "runtime", runtime)
    if not hasattr(target.session, thing):
        return target.choosing(**{thing: option})
    kind = type(getattr(target.session, thing))
    value = option == "True" if kind is bool else kind(option)
    return replace(target, session=Settings(**vars(target.session) | {thing: value}))


class _Trials:
    """Makes what a model is for each alternative, and measures these side by side."""

    def __init__(self, plan: TuneConfig) -> None:
        self.plan = plan
        config = folders.read_config(plan.source)
        model = onnx_file.load(plan.source)
        self.family = catalog.architecture(catalog.model_type(model, config, plan.model_type))
        self.calibration = _calibration(plan, model) if set(plan.precisions) - {"fp32"} else None
        self.real = None if self.calibration is None else calibrated.real_of(self.calibration, calibrated.ROWS)
        profile = verdict.profile_of_file(plan.source, config, open_runner(plan.source))
        self.inputs: list[Feeds] = [
            profile.feeds(plan.batch, plan.length, seed=plan.seed + seed, real=plan.real) for seed in range(compare.COMPARED)
        ]

    def measure(self, thing: str, chosen: Target, variants: Mapping[str, Target], folder: Path) -> list[Trial]:
        """A trial for each variant other than ``chosen``, and one for ``chosen`` against itself."""
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
                        real=self.real if target["precision"] != "fp32" else None,
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
        for path in folder.glob("*.onnx*"):
            path.unlink()
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
            if target["precision"] != "fp32":
                model = self._quantized(model, target)
            onnx_file.save(model, path)
        return path

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
