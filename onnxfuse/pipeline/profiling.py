"""Where the time of a model goes in ONNX Runtime, by operator and by layer; of two models, side by side.

What a node took is its median over the rounds, and both views are sums of these: they are equal, and a call that something else
on the machine slowed down moves neither. Two models take turns on like inputs (ABBA), each after an untimed call of its own.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse.choice import settings_of
from onnxfuse.config import BenchmarkConfig, shape_text
from onnxfuse.errors import UsageError
from onnxfuse.io import folders
from onnxfuse.io.atomic import scratch
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark, fastest
from onnxfuse.pipeline.layers import OTHER, homes, in_order
from onnxfuse.pipeline.step import fitted
from onnxfuse.runtime import USUAL, Feeds, Settings, declared, open_runner
from onnxfuse.runtime.traced import Call, Kernel, Traced
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.meaning import understood
from onnxfuse.verify.opened import blaming
from onnxfuse.verify.profile import BATCH, LENGTH, Profile

EVENTS = 50_000
"""Kernels that one session notes, about as many kilobytes: for more rounds than that, the model is opened again."""


def _milliseconds(parts: Iterable[float]) -> float:
    """A sum without what binary fractions add: medians are of whole microseconds, or halves of them."""
    return round(math.fsum(parts), 4)


@dataclass(frozen=True)
class Part:
    """The nodes of one operator or of one layer: how many ran in a call, what they took, and its share of all kernels."""

    name: str
    nodes: int
    ms: float
    share: float


@dataclass(frozen=True)
class Profiled:
    """One model's call, in milliseconds.

    Args:
        path: the file; ``settings``: what it was opened with.
        operators: those that took longest first; another domain's than ONNX's with it in front.
        layers: in the order of the model.
        outside: what a call takes beside its kernels.
    """

    path: Path
    settings: Settings
    operators: tuple[Part, ...]
    layers: tuple[Part, ...]
    outside: float

    @property
    def nodes(self) -> int:
        return sum(part.nodes for part in self.operators)

    @property
    def kernels(self) -> float:
        """What all kernels take together: the sum of the operators, and of the layers."""
        return _milliseconds(part.ms for part in self.operators)

    @property
    def call(self) -> float:
        """What a call takes: its kernels, and what is outside of them."""
        return _milliseconds((self.kernels, self.outside))

    def to_json(self) -> dict[str, Any]:
        return {
            "name": str(self.path),
            "path": str(self.path),
            "settings": asdict(self.settings),
            "nodes": self.nodes,
            "call": self.call,
            "kernels": self.kernels,
            "outside": self.outside,
            "operators": [asdict(part) for part in self.operators],
            "layers": [asdict(part) for part in self.layers],
        }


@dataclass(frozen=True)
class Profiling:
    """One model, or two side by side, and what they were measured on, for people."""

    models: tuple[Profiled, ...]
    shape: str
    rounds: int

    def to_json(self) -> dict[str, Any]:
        return {"shape": self.shape, "rounds": self.rounds, "results": [model.to_json() for model in self.models]}


@dataclass(frozen=True)
class _Opening:
    """A model's file, what it is opened with, and what it takes."""

    path: Path
    settings: Settings
    inputs: Profile


def profile(model: Path | None, against: Path | None, plan: BenchmarkConfig, progress: Progress = silent) -> Profiling:
    """Profile a model in ONNX Runtime, or two in one interleaved run, as ``load`` opens them there.

    Args:
        model, against: .onnx files or folders; None as ``model`` takes the current folder or the newest export.
        plan: ``threads`` 0 takes as many as each model's target says.

    Raises:
        UsageError: there is no such file, it is not ONNX, or it takes other rows or tokens than those of the plan.
        ModelError: a model is broken, or cannot run.
        StorageError: there is no room for what the profiler writes.
    """
    with ExitStack() as blamed:
        openings = []
        for given in (model, *(() if against is None else (against,))):
            path, settings = opened_as(given, plan.threads)
            blamed.enter_context(blaming(path))
            openings.append(_Opening(path, settings, profile_of(declared(path), folders.read_config(path))))
        plan = _fitted(plan, openings)
        calls, graphs = _traced(openings, plan, progress)
    parts = [_profiled(*each) for each in zip(openings, calls, graphs, strict=True)]
    return Profiling(tuple(parts), shape_text(plan), plan.rounds)


def opened_as(model: Path | None, threads: int = 0) -> tuple[Path, Settings]:
    """The file that is opened in ONNX Runtime, and what with: of a folder what ``run`` measured as the fastest on this kind of
    machine, where that was in ONNX Runtime; else the int8 model, the optimized one, or the export.

    Args:
        threads: instead of what the model's target says, where not 0.

    Raises:
        UsageError, ModelError: as ``profile``.
    """
    path = folders.source_file(model, *folders.OPENED)
    if path.suffix != ".onnx":
        raise UsageError(f"{path} is no .onnx file, and profile reads what ONNX Runtime notes: give the .onnx file of that model")
    folder = path.parent if model is None else model
    known = fastest.found(folder)[0] if folder.is_dir() else None
    if known is not None and known.settings.runtime != USUAL:
        known = None
    path = path if known is None else folder / known.file
    settings = settings_of(declared(path), path)  # raises where its target's operators are not here
    settings = settings if known is None else known.settings
    return path, replace(settings, runtime=USUAL, threads=threads or settings.threads)


def _fitted(plan: BenchmarkConfig, openings: Sequence[_Opening]) -> BenchmarkConfig:
    """The plan with rows and tokens that every model takes. Raises UsageError: there are none."""
    asked = {BATCH: plan.batch, LENGTH: plan.length}
    for dim, what in ((BATCH, "rows"), (LENGTH, "tokens")):
        only = {each.path: size for each in openings if (size := each.inputs.only(dim))}
        if len(set(only.values())) > 1:
            takes = ", ".join(f"{path} takes {size} {what} alone" for path, size in only.items())
            raise UsageError(f"{takes}; profile each by itself")
        asked[dim] = asked[dim] or next(iter(only.values()), 0)
    plans = [fitted(replace(plan, batch=asked[BATCH], length=asked[LENGTH]), each.inputs) for each in openings]
    return replace(plans[0], length=min((each.length for each in plans if each.length), default=0))


def _traced(openings: Sequence[_Opening], plan: BenchmarkConfig, progress: Progress) -> tuple[list[list[Call]], list[ir.Graph]]:
    """The calls that count of each model, and the graph that it runs."""
    feeds = []
    for each in openings:
        progress(f"reading {each.path}")
        meant = understood(each.inputs, open_runner(each.path, each.settings))
        feeds.append(meant.feeds(plan.batch, plan.length, seed=plan.seed, real=plan.real))
    calls: list[list[Call]] = [[] for _ in openings]
    graphs: list[ir.Graph] = []
    while (done := len(calls[0])) < plan.rounds:
        with scratch() as folder:
            models = [Traced(each.path, each.settings, _new(folder / str(at))) for at, each in enumerate(openings)]
            graphs = graphs or [model.graph for model in models]
            if empty := [str(each.path) for each, graph in zip(openings, graphs, strict=True) if not len(graph)]:
                raise UsageError(f"{empty[0]} runs no node: its outputs are inputs or constants, and take no time to profile")
            fit = EVENTS // (len(models) * max(len(model.graph) for model in models))
            counted = _rounds(models, feeds, min(plan.rounds - done, max(1, fit)), (done, plan.rounds), progress)
            calls = [[*before, *new] for before, new in zip(calls, counted, strict=True)]
    return calls, graphs


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _rounds(
    models: Sequence[Traced], feeds: Sequence[Feeds], rounds: int, of: tuple[int, int], progress: Progress
) -> list[list[Call]]:
    """So many rounds, after some that do not count. ``of``: rounds that were done before, and of how many."""
    order, made = list(range(len(models))), [list[bool]() for _ in models]
    for number in range(-benchmark.WARM_UP, rounds):
        at = of[0] + max(number, 0)
        progress("profiling", at / of[1], f"round {at + 1} of {of[1]}")
        for turn in order:
            if len(models) > 1:  # the other's threads go to sleep, and its weights leave the caches
                time.sleep(benchmark.SETTLE)
                models[turn](feeds[turn])
                made[turn].append(False)
            models[turn](feeds[turn])
            made[turn].append(number >= 0)
        order.reverse()
    return [[call for call, counts in zip(model.end(), made[at], strict=True) if counts] for at, model in enumerate(models)]


Key = tuple[int, str]
"""A node of a call: its place in the main graph and, of what runs inside of it, a name."""


def _profiled(opening: _Opening, calls: Sequence[Call], graph: ir.Graph) -> Profiled:
    """What the nodes took, as medians, by operator and by layer."""
    nodes, inner = _nodes(calls[0], graph), {node.name: node for node in graph.all_nodes()}
    layers = homes(graph)
    operator_of: dict[Key, str] = {}
    layer_of: dict[Key, str] = {}
    taken: dict[Key, list[int]] = {}
    for number, call in enumerate(calls):
        for key, kernel in _flat(call):
            node = nodes[key[0]]
            operator_of.setdefault(key, _operator(kernel, inner.get(kernel.name) if key[1] else node))
            layer_of.setdefault(key, OTHER if node is None else layers[node])
            taken.setdefault(key, [0] * len(calls))[number] += kernel.own
    medians = {key: statistics.median(values) for key, values in taken.items()}
    operators = sorted(_parts(medians, operator_of), key=lambda part: -part.ms)
    found = {part.name: part for part in _parts(medians, layer_of)}
    outside = statistics.median(call.taken - sum(kernel.taken for kernel in call.kernels) for call in calls)
    layered = tuple(found[name] for name in in_order(found))
    return Profiled(opening.path, opening.settings, tuple(operators), layered, max(0.0, outside / 1e3))


def _nodes(call: Call, graph: ir.Graph) -> list[ir.Node | None]:
    """The node of each kernel: they run in the order of the graph; by name, should a runtime order them otherwise."""
    nodes = list(graph)
    if [node.op_type for node in nodes] == [kernel.operator for kernel in call.kernels]:
        return list(nodes)
    by_name = {node.name: node for node in nodes}
    return [by_name.get(kernel.name) for kernel in call.kernels]


def _flat(call: Call) -> Iterator[tuple[Key, Kernel]]:
    """All kernels of a call, those inside of others too."""
    for place, kernel in enumerate(call.kernels):
        yield (place, ""), kernel
        for name, inside in _inside(kernel, ""):
            yield (place, name), inside


def _inside(kernel: Kernel, path: str) -> Iterator[tuple[str, Kernel]]:
    for each in kernel.inside:
        name = f"{path}/{each.name}"
        yield name, each
        yield from _inside(each, name)


def _operator(kernel: Kernel, node: ir.Node | None) -> str:
    return f"{node.domain}.{kernel.operator}" if node is not None and node.domain else kernel.operator


def _parts(medians: Mapping[Key, float], group_of: Mapping[Key, str]) -> list[Part]:
    """Sums by group, in milliseconds, in the order in which the groups first run."""
    groups: dict[str, list[float]] = defaultdict(list)
    for key, taken in medians.items():
        groups[group_of[key]].append(taken)
    whole = sum(medians.values()) or 1.0
    return [Part(name, len(each), sum(each) / 1e3, sum(each) / whole) for name, each in groups.items()]
