"""What each rewrite brings: none, each alone, all but each, and all; latency, error and nodes of every variant.

Each variant is measured beside the original in one interleaved run, and only that ratio means anything. Alone still means in
normal form: no fusion finds its pattern in an exporter's spelling.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse import catalog, targets
from onnxfuse.config import BenchmarkConfig, shape_text
from onnxfuse.io import folders, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.measure.benchmark import Ratio, Timing
from onnxfuse.optimizer import fuse
from onnxfuse.pipeline.step import fitted
from onnxfuse.runtime import Feeds, Settings, open_runner
from onnxfuse.targets import Target
from onnxfuse.verify import parity, verdict
from onnxfuse.verify.inputs import profile_of

UNITS = {"merge-linears": {"merged-qkv"}, "gelu": {"gelu", "gelu-tanh"}}
"""Rewrites that go by another name than their rules; the others are called as their rule."""

NORMAL = ("division-to-multiplication", "remove-dropout")
"""Steps of the normal form that are measured too: by the names of the field."""

OTHER_FORMS = {"merge-linears": {"attention": "decomposed"}, "bias-in-linear": {"linear": "Gemm"}}
NEEDS = {"merge-linears": frozenset({"attention", "attention-decomposed"})}
"""Rewrites that are measured in another form than the target's: merged projections are found through attention, which is then
taken apart again; a bias inside the product needs Gemm, which no target prefers."""


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


def variants(target: Target) -> Iterator[Variant]:
    """None, the normal form, each rewrite alone, all but each, all."""
    rules = list(dict.fromkeys(rule.name for rule in catalog.select(target, frozenset(), frozenset()).rewrites))
    named = {name for names in UNITS.values() for name in names}
    units = {name: frozenset(names) for name, names in UNITS.items()}
    units |= {name: frozenset({name}) for name in rules if name not in named}
    yield Variant("none", target, original=True)
    yield Variant("normal form", target, without=frozenset(rules))
    for name, unit in units.items():
        needs = unit | NEEDS.get(name, frozenset())
        yield Variant(f"{name} alone", _spelt(target, **OTHER_FORMS.get(name, {})), only=needs)
    yield Variant("bias-in-linear alone", _spelt(target, **OTHER_FORMS["bias-in-linear"]), only=frozenset({"bias-in-linear"}))
    for name, unit in (units | {name: frozenset({name}) for name in (*NORMAL, catalog.UNPAD)}).items():
        yield Variant(f"all but {name}", target, without=unit)
    yield Variant("all", target)


def _spelt(target: Target, attention: str = "", linear: str = "") -> Target:
    """The target with other forms."""
    return replace(target, attention=attention or target.attention, linear=linear or target.linear)


def ablate(source: Path, target_name: str, plan: BenchmarkConfig, progress: Progress = silent) -> Ablation:
    """Make and measure every variant of a model.

    Raises:
        UsageError, ModelError: as ``fuse``; the model takes other rows or tokens than those of the plan.
    """
    config = folders.read_config(source)
    profile = profile_of(onnx_file.load(source), config)
    plan = fitted(plan, profile)
    family = catalog.architecture(catalog.model_type(onnx_file.load(source), config, None))
    expected = parity.reference(open_runner(source), verdict.grid_of(source, config))
    feeds = [profile.feeds(plan.batch, plan.length, seed=plan.seed)]
    results = []
    chosen = list(variants(targets.find(target_name)))
    with tempfile.TemporaryDirectory() as folder:
        for number, variant in enumerate(chosen):
            progress("measuring rewrites", number / len(chosen), variant.name)
            model = onnx_file.load(source)
            family.name_inputs(model)
            rewrites = 0
            path = source
            if not variant.original:
                rewrites = len(fuse(model, variant.target, only=variant.only, without=variant.without).trace.applications)
                path = Path(folder) / "variant.onnx"
                onnx_file.save(model, path)
            results.append(_measure(variant, model, path, source, rewrites, expected, feeds, plan))
    return Ablation(results, shape_text(plan))


def _measure(
    variant: Variant,
    model: ir.Model,
    path: Path,
    source: Path,
    rewrites: int,
    expected: list[parity.Expected],
    feeds: list[Feeds],
    plan: BenchmarkConfig,
) -> Result:
    settings = Settings(threads=plan.threads)
    runners = {"original": open_runner(source, settings), variant.name: open_runner(path, settings)}
    error = parity.compare(expected, runners[variant.name], "reassociate").error
    timings = benchmark.measure(runners, feeds, rounds=plan.rounds)
    speed = benchmark.ratio(timings["original"], timings[variant.name])
    return Result(variant.name, len(model.graph), rewrites, error, timings[variant.name], speed)
