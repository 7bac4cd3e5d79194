"""What each rewrite brings: none, each alone, all but each, and all; latency, error and nodes of every variant.

Each variant is measured beside the original in one interleaved run, and only that ratio means anything. Alone still means in
normal form: no fusion finds its pattern in the form that an exporter writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse import catalog, targets
from onnxfuse.config import BenchmarkConfig, shape_text
from onnxfuse.fusions.unpad import NAME as UNPAD
from onnxfuse.io import folders, onnx_file
from onnxfuse.io.atomic import scratch
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.measure.benchmark import Ratio, Timing
from onnxfuse.optimizer import NORMAL_RULES, fuse, left_out, lowerings
from onnxfuse.pipeline.step import fitted
from onnxfuse.rewrite import Alone, Fusion, Lowering
from onnxfuse.rewrite.fusion import BY_RULE, FUSE, HOIST, ordered
from onnxfuse.runtime import Feeds, Settings, open_runner
from onnxfuse.targets import Target
from onnxfuse.verify import parity, verdict
from onnxfuse.verify.expected import Expected, expect
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.opened import blaming


@dataclass(frozen=True)
class Variant:
    """A choice of rewrites: ``only`` empty takes all, less ``without``."""

    name: str
    target: Target
    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    original: bool = False


@dataclass(frozen=True)
class Result:
    """One variant, measured. ``speed``: how many times as fast as the original beside it; ``error``: largest difference from it,
    relative to its largest output; ``rewrites``: how many were made."""

    name: str
    nodes: int
    rewrites: int
    error: float
    timing: Timing
    speed: Ratio

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "nodes": self.nodes,
            "rewrites": self.rewrites,
            "error": self.error,
            "latency": self.timing.to_json(),
            "speed": asdict(self.speed),
        }


@dataclass(frozen=True)
class Ablation:
    """Every variant, measured, and what on, for people."""

    results: list[Result]
    shape: str


@dataclass(frozen=True)
class Unit:
    """Rules that are measured as one. ``chosen``: whether the target uses them, so that they can be left out."""

    name: str
    rules: frozenset[str]
    alone: Alone = BY_RULE
    chosen: bool = True


MEASURED = ("remove-dropout",)
"""Passes of the normal form that are left out one by one, as rules are that say so (``Rule.measured``)."""


def normal_measured() -> list[str]:
    """The steps of the normal form that are left out one by one."""
    return [*dict.fromkeys(rule.name for rule in NORMAL_RULES if rule.measured), *MEASURED]


def units(target: Target) -> Iterator[Unit]:
    """What is measured: everything beyond the normal form that the target uses, or that says how it is measured by itself."""
    fusions = [fusion for stage in (FUSE, HOIST) for fusion in ordered(catalog.fusions().values()) if fusion.stage == stage]
    chosen: list[Fusion | Lowering] = [fusion for fusion in fusions if not left_out(fusion, target)] + lowerings(target)
    others = [each for thing in targets.lowerings().values() for each in thing.values() if each.alone.name and each not in chosen]
    for each in (*chosen, *others):
        before = each.before if isinstance(each, Lowering) else ()
        rules = frozenset(rule.name for rule in (*before, *each.rules))
        if each.alone.name:
            yield Unit(each.alone.name, rules, each.alone, each in chosen)
        else:
            yield from (Unit(name, frozenset({name})) for name in sorted(rules))


def variants(target: Target, *, all_but: bool = True) -> Iterator[Variant]:
    """None, the normal form, each rewrite alone, all but each (if asked for), all."""
    measured = list(units(target))
    yield Variant("none", target, original=True)
    rules = frozenset(rule for unit in measured if unit.chosen for rule in unit.rules)
    yield Variant("normal form", target, without=rules | {UNPAD})
    for unit in measured:
        yield Variant(f"{unit.name} alone", target.choosing(**unit.alone.target), only=unit.rules | unit.alone.needs)
    steps = [Unit(name, frozenset({name})) for name in (*normal_measured(), UNPAD)]
    for unit in (*(unit for unit in measured if unit.chosen), *steps) if all_but else ():
        yield Variant(f"all but {unit.name}", target, without=unit.rules)
    yield Variant("all", target)


def made(source: Path, variant: Variant, path: Path) -> tuple[ir.Model, Path, int]:
    """The model with a choice of rewrites, its file (``path``, or the original itself), and how many were made."""
    model = onnx_file.load(source)
    family = catalog.architecture(catalog.model_type(model, folders.read_config(source), None))
    family.name_inputs(model)
    if variant.original:
        return model, source, 0
    rewrites = len(fuse(model, variant.target, only=variant.only, without=variant.without).trace.applications)
    onnx_file.save(model, path)
    return model, path, rewrites


def ablate(source: Path, target_name: str, plan: BenchmarkConfig, progress: Progress = silent) -> Ablation:
    """Make and measure every variant of a model.

    Raises:
        UsageError, ModelError: as ``fuse``; the model takes other rows or tokens than those of the plan.
    """
    with targets.use(target_name) as target, blaming(source):
        return _ablate(source, target, plan, progress)


def _ablate(source: Path, target: Target, plan: BenchmarkConfig, progress: Progress) -> Ablation:
    config = folders.read_config(source)
    profile = profile_of(onnx_file.load(source), config)
    plan = fitted(plan, profile)
    expected = expect(open_runner(source), verdict.grid_of(source, config))
    feeds = [profile.feeds(plan.batch, plan.length, seed=plan.seed)]
    results = []
    chosen = list(variants(target))
    with scratch() as folder:
        for number, variant in enumerate(chosen):
            progress("measuring rewrites", number / len(chosen), variant.name)
            model, path, rewrites = made(source, variant, folder / "variant.onnx")
            results.append(_measure(variant, model, path, source, rewrites, expected, feeds, plan))
    return Ablation(results, shape_text(plan))


def _measure(
    variant: Variant,
    model: ir.Model,
    path: Path,
    source: Path,
    rewrites: int,
    expected: list[Expected],
    feeds: list[Feeds],
    plan: BenchmarkConfig,
) -> Result:
    settings = Settings(threads=plan.threads)
    runners = {"original": open_runner(source, settings), variant.name: open_runner(path, settings)}
    error = parity.compare(expected, runners[variant.name], "reassociate").error
    timings = benchmark.measure(runners, feeds, rounds=plan.rounds)
    speed = benchmark.ratio(timings["original"], timings[variant.name])
    return Result(variant.name, len(model.graph), rewrites, error, timings[variant.name], speed)
