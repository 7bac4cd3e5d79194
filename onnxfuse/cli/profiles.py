"""What ``profile`` found, as tables and as a plot: the same rows in both, of one model or of two side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxfuse.cli import plots
from onnxfuse.cli.console import threads_text
from onnxfuse.cli.grid import Grid
from onnxfuse.io import places
from onnxfuse.pipeline.layers import in_order
from onnxfuse.pipeline.profiling import Part, Profiled, Profiling

SMALL = 0.01
"""Of all kernels the share under which an operator, in every model, stands among the others."""

NOTHING = "\N{EM DASH}"
"""Stands where a model has no such operator or layer."""

MARKS = ("A", "B")

SHARES = "profiling slows a call, small kernels most: read the shares; onnxfuse benchmark tells how long a call takes"


@dataclass(frozen=True)
class Row:
    """One operator or layer, of each model; None of one that lacks it."""

    name: str
    parts: tuple[Part | None, ...]

    @property
    def longest(self) -> float:
        return max(part.ms for part in self.parts if part is not None)

    @property
    def largest(self) -> float:
        return max(part.share for part in self.parts if part is not None)


def operator_rows(outcome: Profiling) -> list[Row]:
    """Operators, those that take longest in one of the models first, and the small ones together at the end."""
    rows = sorted(_beside([model.operators for model in outcome.models]), key=lambda row: -row.longest)
    small = [row for row in rows if row.largest < SMALL]
    if len(small) < 2:
        return rows
    others = f"{len(small)} others"
    columns = [[row.parts[at] for row in small] for at in range(len(outcome.models))]
    together = tuple(_sum(others, [part for part in column if part is not None]) for column in columns)
    return [*(row for row in rows if row not in small), Row(others, together)]


def layer_rows(outcome: Profiling) -> list[Row]:
    """Layers of every model, in their order."""
    rows = {row.name: row for row in _beside([model.layers for model in outcome.models])}
    return [rows[name] for name in in_order(rows)]


def _beside(lists: Sequence[Sequence[Part]]) -> list[Row]:
    known = [{part.name: part for part in parts} for parts in lists]
    return [Row(name, tuple(each.get(name) for each in known)) for name in dict.fromkeys(name for each in known for name in each)]


def _sum(name: str, parts: Sequence[Part]) -> Part | None:
    total = [sum(part.nodes for part in parts), sum(part.ms for part in parts), sum(part.share for part in parts)]
    return Part(name, int(total[0]), *total[1:]) if parts else None


def profile_tables(outcome: Profiling, title: str) -> list[Grid]:
    """By operator and by layer; both end with what all kernels take, the first with the call."""
    models = outcome.models
    form = ".2f" if max(model.call for model in models) >= 10 else ".3f"

    def cells(values: Sequence[tuple[str, float | None, str]]) -> tuple[str, ...]:
        told = [text for nodes, ms, share in values for text in (nodes, NOTHING if ms is None else format(ms, form), share)]
        if len(values) == 1:
            return tuple(told)
        return (*told, format((values[1][1] or 0.0) - (values[0][1] or 0.0), f"+{form}"))

    def of_part(part: Part | None) -> tuple[str, float | None, str]:
        return (NOTHING, None, NOTHING) if part is None else (str(part.nodes), part.ms, f"{part.share:.1%}")

    def whole(name: str, value: Callable[[Profiled], tuple[str, float | None, str]]) -> tuple[str, ...]:
        return (name, *cells([value(model) for model in models]))

    def table(what: str, rows: Sequence[Row]) -> list[tuple[str, ...]]:
        told = [(row.name, *cells([of_part(part) for part in row.parts])) for row in rows]
        return [*told, whole("all kernels", lambda model: (str(model.nodes), model.kernels, f"{1:.1%}"))]

    call = [
        whole("outside of kernels", lambda model: ("", model.outside, "")),
        whole("one call", lambda model: ("", model.call, "")),
    ]
    by_operator = [*table("operator", operator_rows(outcome)), *call]
    return [
        Grid(title, ("operator", *_headers(len(models))), by_operator),
        Grid("by layer", ("layer", *_headers(len(models))), table("layer", layer_rows(outcome)), (SHARES,)),
    ]


def _headers(models: int) -> tuple[str, ...]:
    if models == 1:
        return ("nodes", "ms", "share")
    return (*(f"{what} {mark}" for mark in MARKS for what in ("nodes", "ms", "share")), "ms B - A")


def titles(outcome: Profiling) -> list[str]:
    """A line for each model, and one for what both were measured on: the last."""
    threads = [threads_text(model.settings.threads) for model in outcome.models]
    apart = len(set(threads)) > 1
    on = f"{outcome.shape}, {outcome.rounds} rounds" if apart else f"{outcome.shape}, {threads[0]}, {outcome.rounds} rounds"
    if len(outcome.models) == 1:
        return [f"{outcome.models[0].path}, {on}"]
    lines = zip(MARKS, outcome.models, threads, strict=True)
    return [*(f"{mark}: {model.path}{f', {each}' * apart}" for mark, model, each in lines), on]


def profile_plot(outcome: Profiling, path: Path) -> None:
    """Draw both tables, a bar for each model in each row. Raises as ``plots.bars`` does."""
    near = [model.path for model in outcome.models]
    *names, title = [places.told(line, *near) for line in titles(outcome)]
    calls = [f"one call {model.call:.3g} ms, {model.outside:.2g} outside of kernels" for model in outcome.models]
    panels = {"ms by operator": operator_rows(outcome), "ms by layer": layer_rows(outcome)}
    content = {
        label: [(row.name, [None if part is None else (part.ms, part.share) for part in row.parts]) for row in rows]
        for label, rows in panels.items()
    }
    told = [f"{name}\n    {call}" for name, call in zip(names, calls, strict=True)] if names else []
    plots.panels(content, path, title=title if names else f"{title}\n{calls[0]}", names=told)
