"""Choose what is fastest by measuring it: on this machine, for this model and these shapes.

Things are decided one after another, from a shipped target on: precision and runtime together first, then the lowerings, then
how the session is opened. For each thing all alternatives run in one interleaved measurement beside the choice so far, which
takes part twice: how far it is from itself is the noise. At the end the result is measured against where it started. On a
cluster each alternative is measured on a node of its own, with the choice so far beside it there.

``RULE`` is the rule of choice; equal measurements give equal choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnxfuse import targets
from onnxfuse.cluster import Cluster
from onnxfuse.config import TuneConfig, shape_text
from onnxfuse.errors import UsageError
from onnxfuse.io import atomic, external, folders, onnx_file, places
from onnxfuse.io.ours import Replaceable, inputs_of
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure.machine import Machine, here
from onnxfuse.pipeline import tune_spread
from onnxfuse.pipeline.alternatives import FORM, alternatives, chosen_with, forms_of, value_of
from onnxfuse.pipeline.step import fitted
from onnxfuse.pipeline.trials import Known, Trial
from onnxfuse.pipeline.tune_measure import NOISE, Measure, Measuring
from onnxfuse.runtime import require, runtimes
from onnxfuse.targets import Target
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.opened import blaming

RULE = (
    "An alternative replaces the choice so far when the 95 % interval of its speed, as a multiple of that choice's, lies "
    "above 1 and above the interval of that choice measured against itself (the noise); of several, the largest median wins. "
    "The result replaces the target it started from when it is faster than that by the same rule."
)


@dataclass(frozen=True)
class Tuned:
    """The target that came out, and every trial on the way, thing by thing."""

    target: Target
    trials: tuple[Trial, ...]


def tune(plan: TuneConfig, progress: Progress = silent, where: Cluster | None = None) -> Tuned:
    """Measure the alternatives for a model and write the best choices to ``plan.out``, a target file.

    What was measured before an interruption is kept beside it and not measured again.

    Args:
        where: a cluster whose nodes measure, as many alternatives at a time; this machine without it.

    Raises:
        UsageError: no precision or runtime of that name; nodes are not alike, or cannot be reached.
        OnnxfuseError: the model cannot be optimized or run.
    """
    with targets.use(plan.target) as base, blaming(plan.source):
        _require_known(plan)
        model = onnx_file.load(plan.source)
        sources = (Path(plan.target), *inputs_of(plan.source, external.weight_files(model)))
        guard = Replaceable(sources, plan.overwrite, _is_tuned)
        guard.require(plan.out)
        plan = fitted(plan, profile_of(model, folders.read_config(plan.source)))
        if where is None:
            return _tune(plan, base, here(), Measuring(plan).measure, guard, progress)
        with tune_spread.like(where) as (driver, on, nodes):
            spread = tune_spread.Spread(plan, where, driver, on, nodes, progress)
            return _tune(plan, base, on, spread.measure, guard, progress)


def _require_known(plan: TuneConfig) -> None:
    """Raises UsageError: no precision or runtime of a name. MissingExtraError, ModelError: a runtime cannot be used."""
    takes = runtimes(plan.source.suffix)
    for name, asked, all_ in (
        ("precision", plan.precisions, targets.choices()["precision"]),
        ("runtime", plan.runtimes, tuple(takes)),
    ):
        if unknown := sorted(set(asked) - set(all_)):
            raise UsageError(f"no {name} named {unknown[0]!r}; choose from {', '.join(all_)}")
    for name in plan.runtimes:
        require(takes[name])


def _tune(plan: TuneConfig, base: Target, on: Machine, measure: Measure, guard: Replaceable, progress: Progress) -> Tuned:
    """``measure``: as ``Measuring`` does, on machines as ``on`` is; it is also told what may be measured next."""
    known = Known(plan, on)
    base = replace(base, session=replace(base.session, threads=plan.threads))
    possible = forms_of(plan)
    if value_of(base, FORM) not in possible:
        base = chosen_with(base, FORM, possible[0])
    chosen, trials = base, []
    things = list(alternatives(base, plan, on.cores))
    for number, (thing, options) in enumerate(things):
        progress(f"{thing}: {', '.join(options)}", number / (len(things) + 1))
        variants = {option: chosen_with(chosen, thing, option) for option in options}
        found = known.trials(thing) or measure(thing, chosen, variants, things[number + 1 :])
        known.add(thing, found)
        trials += found
        chosen = variants.get(best(found), chosen)
    progress("against the target it started from", number / (len(things) + 1))
    if chosen != base:
        found = known.trials("all") or measure("all", base, {"tuned": chosen}, ())
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
