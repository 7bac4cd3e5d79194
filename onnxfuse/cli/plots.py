"""Bars with intervals, bars side by side, and curves over a count, as .svg, .png or .pdf."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfuse.errors import MissingExtraError, UsageError
from onnxfuse.io import atomic
from onnxfuse.io.ours import Replaceable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from onnxfuse.pipeline.ablation import Result
    from onnxfuse.pipeline.compare import Comparison
    from onnxfuse.quantization.gate import TradeOff

OURS, OTHERS = "#c8553d", "#4878a8"
LONGEST = 4
"""Times the median: where a bar is cut, so that one slow thing does not make all others look alike."""

SUFFIXES = (".svg", ".png", ".pdf")

MAKER = "drawn by onnxfuse"
"""What the metadata of a plot say of their maker."""


@dataclass(frozen=True)
class Bar:
    """A value with its interval; ``ours`` gets the other colour."""

    name: str
    value: float
    low: float
    high: float
    ours: bool = False


def require_format(path: Path) -> None:
    """Raises UsageError when ``path`` is no .svg, .png or .pdf file: to be asked before a long measurement."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--plot {path}: wanted a file ending in {', '.join(SUFFIXES)}")


def require_place(path: Path, *, overwrite: bool) -> None:
    """``require_format``, and a place that is free, or holds a plot of ours. Raises UsageError."""
    require_format(path)
    Replaceable(overwrite=overwrite, ours=is_plot, option="--plot").require(path)


def is_plot(path: Path) -> bool:
    """Whether a file is a plot that onnxfuse drew."""
    return path.is_file() and MAKER.encode() in path.read_bytes()


def bars(content: Sequence[Bar], path: Path, *, title: str, label: str, mark: float | None = None) -> None:
    """Draw one bar a line, in order, into ``path``, with its value; ``mark`` draws a line at that value.

    Raises:
        UsageError: ``path`` is no .svg, .png or .pdf file.
        MissingExtraError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    with _figure(path, height=0.3 * len(content) + 1.4) as figure:
        from matplotlib.patches import Patch

        axes = figure.subplots()
        around = [[bar.value - bar.low for bar in content], [bar.high - bar.value for bar in content]]
        drawn = axes.barh(
            [bar.name for bar in content],
            [bar.value for bar in content],
            xerr=around,
            color=[OURS if bar.ours else OTHERS for bar in content],
            ecolor="#303030",
            capsize=2,
        )
        cut = LONGEST * statistics.median(bar.value for bar in content)
        for bar, place in zip(content, drawn, strict=True):
            at, arrow = (cut, " → ") if bar.high > cut else (bar.high, " ")
            value = f"{bar.value:.3g}" if bar.value < 1000 else f"{bar.value:.0f}"
            axes.text(
                at,
                place.get_y() + place.get_height() / 2,
                f"{arrow}{value}",
                va="center",
                fontsize="small",
                backgroundcolor="white" if bar.high > cut else "none",
            )
        if 0 < sum(bar.ours for bar in content) < len(content):
            axes.legend([Patch(color=OURS), Patch(color=OTHERS)], ["onnxfuse", "other tools"], loc="upper right")
        if mark is not None:
            axes.axvline(mark, color="#303030", linewidth=0.8)
        axes.margins(y=0.01)
        axes.set_xlim(right=1.12 * min(cut, max(bar.high for bar in content)))
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(label)
        figure.suptitle(title, x=0.01, ha="left")


def curves(counts: Sequence[int], content: Mapping[str, Sequence[float]], path: Path, *, title: str, label: str) -> None:
    """Draw one panel for each entry of ``content`` above each other, all over ``counts``. Raises as ``bars`` does."""
    with _figure(path, height=1.8 * len(content) + 0.8) as figure:
        panels = figure.subplots(len(content), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(panels, content.items(), strict=True):
            axes.plot(counts, values, color=OURS, marker="o")
            axes.set_ylabel(name)
        panels[0].set_title(title, loc="left")
        panels[-1].set_xlabel(label)
        panels[-1].set_xticks(counts)


Shares = Sequence[tuple[float, float] | None]
"""Of each model in turn a value with its share of the whole; None of one that has none."""


def panels(content: Mapping[str, Sequence[tuple[str, Shares]]], path: Path, *, title: str, names: Sequence[str]) -> None:
    """Draw one panel for each entry of ``content`` below each other: rows from top to bottom, in each a bar for each model.

    Args:
        content: by what the panel shows, the rows by name.
        names: of the models, for the legend; empty where there is one. The first panel's longest rows stand on top.

    Raises:
        As ``bars``.
    """
    models = max(len(names), 1)
    colors = (OURS,) if models == 1 else (OTHERS, OURS)
    rows = [len(each) for each in content.values()]
    with _figure(path, height=sum(rows) * (0.12 + 0.19 * models) + 1.8) as figure:
        from matplotlib.patches import Patch

        figure.suptitle(title, x=0.01, ha="left")
        axes_of = figure.subplots(len(content), 1, squeeze=False, height_ratios=[each + 1 for each in rows])[:, 0]
        for axes, (label, each) in zip(axes_of, content.items(), strict=True):
            _draw_rows(axes, each, colors)
            axes.set_title(label, loc="left", fontsize="medium")
        if names:  # rows get shorter downwards: there is room
            axes_of[0].legend([Patch(color=color) for color in colors], list(names), loc="lower right")


def _draw_rows(axes: Axes, rows: Sequence[tuple[str, Shares]], colors: Sequence[str]) -> None:
    """Rows of bars with their values and shares, the first on top."""
    thick = 0.8 / len(colors)
    longest = max((value[0] for _, values in rows for value in values if value is not None), default=0.0) or 1.0
    for at, color in enumerate(colors):
        for row, (_, values) in enumerate(rows):
            place, value = row + (at - (len(colors) - 1) / 2) * thick, values[at]
            text = "\N{EM DASH}"
            if value is not None:
                axes.barh(place, value[0], height=thick * 0.92, color=color)
                text = f"{value[0]:{'#.3g' if 0 < value[0] < 1000 else '.0f'}}  ({value[1]:.1%})"
            axes.text((0.0 if value is None else value[0]) + 0.01 * longest, place, text, va="center", fontsize="small")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_xlim(0, 1.25 * longest)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def comparison(outcome: Comparison, path: Path, title: str) -> None:
    """Draw the median latencies with their intervals, the fastest on top, under names of ``tails``. Raises as ``bars`` does."""
    rows = sorted(zip(tails(list(outcome.rows)), outcome.rows.values(), strict=True), key=lambda item: item[1].timing.p50)
    content = [Bar(name, row.timing.p50, row.timing.low, row.timing.high, row.candidate.ours) for name, row in rows]
    bars(content, path, title=title, label="ms (median and its 95 % interval)")


def tails(names: Sequence[str]) -> list[str]:
    """Names for others to see: of an absolute path as many of its last parts as tell it from all other names."""
    parts = [Path(name).parts for name in names]
    for count in range(1, max(map(len, parts), default=0) + 1):
        tail = {name: str(Path(*each[-count:])) for name, each in zip(names, parts, strict=True) if Path(name).is_absolute()}
        found = [tail.get(name, name) for name in names]
        if len(set(found)) == len(set(names)):
            return found
    return list(names)


def ablation(results: Sequence[Result], path: Path, title: str) -> None:
    """Draw the speed of every variant with its interval. Raises as ``bars`` does."""
    speeds = [Bar(result.name, result.speed.value, result.speed.low, result.speed.high) for result in results]
    bars(speeds, path, title=title, label="times as fast as the original, with the 95 % interval", mark=1)


def gate(trade_off: TradeOff, path: Path, title: str) -> None:
    """Draw what keeping linear layers in float brought and cost. Raises as ``bars`` does."""
    timed = [candidate for candidate in trade_off.candidates if candidate.p50 is not None]
    candidates = timed or list(trade_off.candidates[:1])  # it passed at once
    accuracies = [candidate.quality.accuracy for candidate in candidates]
    content = {"accuracy": [accuracy for accuracy in accuracies if accuracy is not None]} if accuracies[0] is not None else {}
    content["cosine"] = [candidate.quality.cosine for candidate in candidates]
    content["p50 ms"] = [candidate.p50 or 0.0 for candidate in candidates]
    curves([len(candidate.kept) for candidate in candidates], content, path, title=title, label="linear layers kept in float")


@contextmanager
def _figure(path: Path, *, height: float) -> Iterator[Figure]:
    """A figure that lands in ``path`` when the block ends well."""
    require_format(path)
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plots", "plot") from error
    with rc_context({"svg.hashsalt": "onnxfuse"}):
        figure = Figure(figsize=(8, height), layout="constrained")
        yield figure
        with atomic.replacing(path) as staged:
            maker = {"Software" if path.suffix == ".png" else "Creator": MAKER}
            figure.savefig(staged, metadata=maker | ({"Date": None} if path.suffix == ".svg" else {}))
