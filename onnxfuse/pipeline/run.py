"""The chain export -> optimize -> quantize -> check -> benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse import targets
from onnxfuse.config import BenchmarkConfig, ExportConfig
from onnxfuse.io import folders
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark, fastest
from onnxfuse.measure.fastest import Fastest
from onnxfuse.measure.machine import cpu
from onnxfuse.pipeline import forms
from onnxfuse.pipeline.export import Exported
from onnxfuse.pipeline.forms import Others
from onnxfuse.pipeline.optimize import Optimized, require_countable
from onnxfuse.pipeline.quantize import Quantized
from onnxfuse.pipeline.run_steps import Made, make, steps
from onnxfuse.pipeline.step import Step
from onnxfuse.runtime import USUAL, Feeds, Settings, open_runner
from onnxfuse.verify.opened import afresh
from onnxfuse.verify.parity import Parity

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint


@dataclass(frozen=True)
class Run:
    """The whole chain's outcome: each step, and the measurement of all its models.

    ``quantize`` is None where nothing was worth quantizing; ``unquantized`` says why. ``static`` is the int8 model with scales
    from calibration, for runtimes that gain from it; ``unstatic`` says why there is none. ``elsewhere`` is how many bytes the
    model fused for such a runtime has, whose file stays if it is the fastest. ``others`` are the forms in other runtimes, and
    ``fastest`` is the one that ``load`` opens here.
    """

    export: Exported
    optimize: Optimized
    quantize: Quantized | None
    parity: Mapping[str, Parity]
    timings: Mapping[str, benchmark.Timing]
    plan: BenchmarkConfig
    framework: str
    unquantized: str
    half: Optimized | None
    static: Quantized | None
    unstatic: str
    elsewhere: int | None
    others: Others
    fastest: Fastest

    @property
    def steps(self) -> dict[str, Step]:
        """What was made, by the names of its rows in the usual runtime."""
        return steps(self.export, self.optimize, self.quantize)

    @property
    def paths(self) -> dict[str, Path]:
        """The models by the names of their rows."""
        return {name: step.path for name, step in self.steps.items()} | {form.name: form.path for form in self.others.forms}

    def stays(self, path: Path) -> bool:
        """Whether a file is there at the end."""
        return path.name != folders.FUSED or self.fastest.file == folders.FUSED

    @property
    def dropped(self) -> list[str]:
        """Of what was measured and is not there, for people."""
        gone = [form.name for form in self.others.forms if not self.stays(form.path)]
        return [f"{', '.join(gone)}: of a model fused for that, which is not kept as it is not the fastest"] if gone else []

    def to_json(self) -> dict[str, Any]:
        return {
            "export": self.export.to_json(),
            "optimize": self.optimize.to_json(),
            "quantize": {"skipped": self.unquantized} if self.quantize is None else self.quantize.to_json(),
            "half": None if self.half is None else self.half.to_json(),
            "static": {"skipped": self.unstatic} if self.static is None else self.static.to_json(),
            "results": [self._result(name) for name in self.timings],
            "refused": list(self.others.refused),
            "fastest": self.fastest.to_json(),
        }

    def _result(self, name: str) -> dict[str, Any]:
        """A row: the model's own framework first, which the others are held against."""
        timing, seen = self.timings[name], self.parity.get(name)
        return {
            "name": name,
            "path": str(self.paths[name]) if name in self.paths and self.stays(self.paths[name]) else None,
            "parity": None if seen is None else seen.to_json(),
            "latency": timing.to_json(),
            "speed": asdict(benchmark.ratio(self.timings[self.framework], timing)),
        }


def run_all(
    plan: ExportConfig,
    target: str,
    measure: BenchmarkConfig,
    progress: Progress = silent,
    feeds: Callable[[Checkpoint], list[Feeds]] | None = None,
    require: tuple[str, ...] = (),
    source: Any = None,
    half: str | None = None,
) -> Run:
    """Export, optimize, quantize, check against the model's own framework, and measure: everything lands in ``plan.out``.

    Args:
        source: a model in memory, instead of ``plan.source``.
        feeds: real inputs to measure with, given the checkpoint; random ones of ``measure``'s shape when None.
        require: what must fuse, as ``OptimizeConfig`` has it.
        half: a model in half precision is made, too: fp16 or bf16; what the target chose where it is None.

    Raises:
        OnnxfuseError: a step failed; what the steps before it wrote is there.
    """
    from onnxfuse.exporters import limit_threads

    with targets.use(target) as chosen:
        require_countable(require)
        if measure.threads:
            limit_threads(measure.threads)
        half = half or (chosen["precision"] if chosen["precision"] in folders.HALVED else None)
        made = make(plan, source, target, chosen, measure, progress, require, half)
        outcome = None
        try:
            outcome = _compared(plan, made, chosen.session, progress, feeds)
        finally:
            if made.elsewhere is not None and (outcome is None or not outcome.stays(made.elsewhere.path)):
                forms.drop(made.elsewhere.path)
        return outcome


def _compared(
    plan: ExportConfig,
    made: Made,
    session: Settings,
    progress: Progress,
    feeds: Callable[[Checkpoint], list[Feeds]] | None,
) -> Run:
    """The models that were made, measured beside what they come from, in every form; the record keeps it."""
    from onnxfuse.exporters import checkpoint_runner, frameworks

    exported, measure, models = made.export, made.measure, steps(made.export, made.optimize, made.quantize)
    framework = frameworks()[exported.framework].label
    progress("comparing in other runtimes")
    measured = replace(session, threads=measure.threads)
    others = Others.of(made.files, measured, exported.original, exported.model.inputs, made.real)
    progress("measuring")
    ours = {name: step.path for name, step in models.items() if step is not exported}
    plain = Settings(threads=measure.threads)
    runners = {framework: checkpoint_runner(exported.checkpoint, measure.threads)}
    runners |= {name: afresh(step.model.runner(plain)) for name, step in models.items() if step is exported}
    runners |= {name: open_runner(path, replace(measured, runtime=USUAL)) for name, path in ours.items()}
    runners |= {form.name: form.run for form in others.forms}
    profile = exported.model.profile
    inputs = feeds(exported.checkpoint) if feeds else [profile.feeds(measure.batch, measure.length, seed=measure.seed)]
    timings = benchmark.measure(runners, inputs, rounds=measure.rounds, progress=progress)
    chosen = forms.choose(others, ours, measured, session.threads, timings)
    outcome = Run(
        exported,
        made.optimize,
        made.quantize,
        {**made.parity, **others.parity},
        timings,
        measure,
        framework,
        made.unquantized,
        made.half,
        made.static,
        made.unstatic,
        None if made.elsewhere is None else made.elsewhere.size,
        others,
        chosen,
    )
    there = dict.fromkeys(path.name for path in outcome.paths.values() if outcome.stays(path))
    kept = f"{', '.join(there)} are saved there, what was measured is not"
    folders.record(plan.out, "benchmark", measure, _measured(outcome), kept=kept)
    return outcome


def _measured(outcome: Run) -> dict[str, Any]:
    """What the record keeps of a measurement, and of which files it is true: what ``card.measured`` reads."""
    rows = {
        name: {"file": path.name, "fingerprint": folders.fingerprint(path), "parity": outcome.parity[name].brief}
        for name, path in outcome.paths.items()
    }
    first = outcome.timings[outcome.framework]
    timings = {name: each.to_json() | {"speed": asdict(benchmark.ratio(first, each))} for name, each in outcome.timings.items()}
    return {"timings": timings, "rows": rows, "cpu": cpu(), fastest.KEY: outcome.fastest.to_json()}
