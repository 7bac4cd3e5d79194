"""Alternatives of ``tune`` spread over the nodes of a cluster: each is measured on a node of its own, beside the choice so far.

While a node would wait, it measures what is decided later, beside the choice so far, too: most choices stay as they are, and then
it need not be measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from onnxfuse import cluster
from onnxfuse.cluster import Cluster, Driver
from onnxfuse.config import TuneConfig
from onnxfuse.errors import UsageError
from onnxfuse.io.progress import Progress
from onnxfuse.measure.machine import Machine, here
from onnxfuse.pipeline.alternatives import chosen_with
from onnxfuse.pipeline.trials import Trial
from onnxfuse.pipeline.tune_measure import NOISE, Measuring, Things
from onnxfuse.targets import Target


@contextmanager
def like(where: Cluster) -> Iterator[tuple[Driver, Machine, int]]:
    """A connection to a cluster, what its nodes are, all of them, and how many. Raises UsageError: they differ."""
    with cluster.connected(where) as driver:
        found = driver.on_each_node(here)
        if len(set(found)) > 1:
            kinds = "; ".join(f"{found.count(kind)} of {kind}" for kind in sorted(set(found), key=str))
            raise UsageError(f"tune holds times against each other, and nodes differ ({kinds}); give it like machines")
        yield driver, found[0], len(found) if not where.actors else min(where.actors, len(found))


@dataclass(frozen=True)
class Piece:
    """One alternative beside the choice so far."""

    thing: str
    option: str
    chosen: Target
    variant: Target


class Spread:
    """Measures as ``Measuring`` does, on a cluster."""

    def __init__(self, plan: TuneConfig, where: Cluster, driver: Driver, on: Machine, nodes: int, progress: Progress) -> None:
        """``driver``, ``on``, ``nodes``: as ``like`` gives them."""
        there = Path(plan.target)
        target = str(there.absolute()) if there.exists() else plan.target
        self.make = partial(maker, replace(plan, source=plan.source.absolute(), target=target), on)
        self.nodes, self.where = nodes, replace(where, threads=0, apart=True)
        self.driver, self.progress = driver, progress
        self.beside: Target | None = None
        self.found: dict[str, list[Trial]] = {}

    def measure(self, thing: str, chosen: Target, variants: Mapping[str, Target], then: Things) -> list[Trial]:
        """As ``Measuring.measure``; the noise is the widest of what its nodes had."""
        if chosen != self.beside:
            self.beside, self.found = chosen, {}
        if thing not in self.found:
            pieces = _pieces(thing, chosen, variants)
            for later, options in then:
                if len(pieces) < self.nodes and later not in self.found:
                    pieces += _pieces(later, chosen, {option: chosen_with(chosen, later, option) for option in options})
            measured: dict[str, list[Trial]] = {piece.thing: [] for piece in pieces}
            for trials in self.driver.spread(self.make, pieces, self.where, self.progress):
                measured[trials[0].thing] += trials
            self.found |= {name: _joined(trials, [piece.option for piece in pieces]) for name, trials in measured.items()}
        return self.found.pop(thing)


def _pieces(thing: str, chosen: Target, variants: Mapping[str, Target]) -> list[Piece]:
    return [Piece(thing, option, chosen, variant) for option, variant in variants.items() if variant != chosen]


def _joined(trials: Sequence[Trial], order: Sequence[str]) -> list[Trial]:
    """Trials of one thing from several nodes, in the order of its options; of the noise the widest."""
    noise = [trial for trial in trials if trial.option == NOISE]
    widest = sorted(noise, key=lambda trial: trial.speed.high if trial.speed else 0.0)[-1:]
    return widest + sorted((trial for trial in trials if trial.option != NOISE), key=lambda trial: order.index(trial.option))


def maker(plan: TuneConfig, on: Machine, threads: int) -> Callable[[Piece], list[Trial]]:
    """On a node: what measures an alternative. Raises UsageError: the node is of another kind than those that were asked."""
    if here() != on:
        raise UsageError(f"a node of another kind ({here()}) came to the cluster; run the same command again with like machines")
    measuring: list[Measuring] = []

    def measure(piece: Piece) -> list[Trial]:
        with piece.chosen.in_use():
            if not measuring:
                measuring.append(Measuring(plan))
            return measuring[0].measure(piece.thing, piece.chosen, {piece.option: piece.variant})

    return measure
