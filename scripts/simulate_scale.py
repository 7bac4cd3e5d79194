"""What a billion rows take on many nodes, simulated from what scripts/measure_map.py measured on one; writes docs/scale.md.

A node is the machine that was measured. A part takes the sum of window times that are drawn from the measured ones; nodes take
the next part when they are free, as Ray Data gives them; some are slow, some are lost and come again. Before the first part the
driver cuts the input, and every node starts and loads the model; output goes to one store.
"""

from __future__ import annotations

import heapq
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.bulk.data import open_data
from onnxfuse.bulk.job import PART
from onnxfuse.bulk.work import WINDOW

ROOT = Path(__file__).parent.parent
FIGURES, PAGE = ROOT / "benchmarks" / "scale.json", ROOT / "docs" / "scale.md"
MARKS = "<!-- {}: written by scripts/{} -->\n", "<!-- end of {} -->\n"

ROWS = 1_000_000_000
NODES = (1, 10, 100, 1_000, 10_000)

# What is assumed, and stands on the page.
START = 30.0
"""Seconds from a node's start to its first row: Python, Ray's worker, the model from the store."""
SLOW_NODES, SLOWNESS = 0.01, 3.0
"""The share of nodes that have a bad neighbour, and how many times as long these take."""
LIFE = 30 * 86_400.0
"""Mean seconds until a node is lost (spot machines: days), after which another comes."""
AWAY = 180.0
"""Seconds until it does."""
STORE = 5e9
"""Bytes a second that a shared store takes from all nodes together."""
PRICE = 0.04
"""Of a core for an hour, in dollars."""


@dataclass(frozen=True)
class Case:
    """What is switched on."""

    slow: bool = True
    lost: bool = True


def simulated(nodes: int, windows: np.ndarray, case: Case, seed: int = 0) -> float:
    """Seconds from the first part's begin to the last one's end."""
    random = np.random.default_rng(seed)
    parts = -(-ROWS // PART)
    draws = random.choice(windows, (parts, PART // WINDOW)).sum(axis=1)
    factors = np.where(random.random(nodes) < (SLOW_NODES if case.slow else 0), SLOWNESS, 1.0)
    dies = random.exponential(LIFE, nodes) if case.lost else np.full(nodes, np.inf)
    free, waiting, end = [(0.0, node) for node in range(nodes)], list(range(parts))[::-1], 0.0
    heapq.heapify(free)
    while waiting:
        now, node = heapq.heappop(free)
        part = waiting.pop()
        done = now + draws[part] * factors[node]
        if done > dies[node]:  # the part goes back, and another node comes
            waiting.insert(0, part)
            again = max(now, dies[node]) + AWAY + START
            dies[node] = again + random.exponential(LIFE)
            heapq.heappush(free, (again, node))
            continue
        end = max(end, done)
        heapq.heappush(free, (done, node))
    return end


def cut_speed(ending: str, rows: int = 200_000) -> float:
    """Rows a second that are cut into parts."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    texts = [f"A sentence of the usual length, which is number {at}, and is followed by another one." for at in range(rows)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{ending}"
        if ending == ".parquet":
            parquet.write_table(arrow.table({"text": texts}), path)
        else:
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        start = time.perf_counter()
        assert sum(part.rows for part in open_data(str(path)).parts(PART)) == rows
        return rows / (time.perf_counter() - start)


def span(seconds: float) -> str:
    """A time for people."""
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:,.0f} seconds"


def simulation(figures: dict[str, Any]) -> Iterator[str]:
    """The page's second part."""
    windows, cores = np.array(figures["many"]["windows"]), figures["cores"]
    rate = WINDOW / windows.mean()
    speeds = {ending: cut_speed(ending) for ending in (".jsonl", ".parquet")}
    yield (
        f"A node is this machine ({cores} cores): a window of {WINDOW:,} rows takes {windows.mean():.2f} s (5 % under "
        f"{np.percentile(windows, 5):.2f}, 5 % above {np.percentile(windows, 95):.2f}, the longest {windows.max():.2f}), "
        f"{rate:,.0f} rows a second. Parts have {PART:,} rows. One process cuts {speeds['.jsonl']:,.0f} rows a second of .jsonl "
        f"and {speeds['.parquet']:,.0f} of .parquet, whose footers tell how many there are.\n\n"
        f"Assumed: a node starts in {START:.0f} s; {SLOW_NODES:.0%} of the nodes take {SLOWNESS:.0f} times as long; a node is "
        f"lost every {LIFE / 86_400:.0f} days, and another comes after {AWAY:.0f} s; the store takes {STORE / 1e9:.0f} GB a "
        f"second of all nodes together; a core costs {PRICE:.2f} dollars an hour.\n\n"
    )
    names = ("if all were alike", "with slow and lost nodes", "cutting .parquet / .jsonl before", "all, of .parquet")
    yield f"| nodes | {' | '.join(names)} | efficiency | dollars |\n"
    yield "| --- | --- | --- | --- | --- | --- | --- |\n"
    for nodes in NODES:
        ideal = ROWS / rate / nodes
        alike, real = (simulated(nodes, windows, Case(which, which)) for which in (False, True))
        stored = max(0.0, ROWS * figures["bytes"] / STORE - real)  # what the store is behind
        cut = {ending: ROWS / speed for ending, speed in speeds.items()}
        total = START + cut[".parquet"] + real + stored
        cost = total * nodes * cores / 3600 * PRICE
        yield (
            f"| {nodes:,} | {span(alike)} | {span(real)} | {span(cut['.parquet'])} / {span(cut['.jsonl'])} | {span(total)} | "
            f"{ideal / total:.0%} | {cost:,.0f} |\n"
        )
    size = ROWS * figures["bytes"]
    yield f"\nThe result has {size / 1e12:.2f} TB, which the store takes in {span(size / STORE)}.\n"


def measurement(figures: dict[str, Any]) -> Iterator[str]:
    """The page's first part."""
    speeds, forms = figures["speeds"], figures["forms"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    yield f"On {figures['date']}, {figures['machine']}, {figures['cores']} threads each, {versions}.\n\n"
    yield "| all-MiniLM-L6-v2 | rows a second | times a plain loop | times sentence-transformers | cosine with PyTorch |\n"
    yield "| --- | --- | --- | --- | --- |\n"
    torch = {name: max(each) for name, each in speeds.items() if name.startswith("sentence-transformers")}
    best = max(torch, key=lambda name: torch[name])
    labels = {"int8": "`map`, int8 in ONNX Runtime", "fastest": "`map`, what `run` found the fastest"}
    for name, label in labels.items():
        loop = speeds[f"{name} in a loop"]
        ratios = sorted(ours / theirs for ours, theirs in zip(speeds[name], loop, strict=True))
        yield (
            f"| {label} | {np.median(speeds[name]):,.0f} | {np.median(ratios):.2f} ({ratios[0]:.2f} - {ratios[-1]:.2f}) | "
            f"{np.median(speeds[name]) / torch[best]:.1f} | {forms[name]['cosine with PyTorch']:.4f} |\n"
        )
        yield f"| the same in a loop, batches of 32 | {np.median(loop):,.0f} | 1 | {np.median(loop) / torch[best]:.1f} | |\n"
    yield f"| {best}, the best of its sizes | {torch[best]:,.0f} | | 1 | 1 |\n\n"
    few, many, ray = figures["few"], figures["many"], figures["ray"]
    yield (
        f"Reading and tokenizing beside the model take {many['tokenizing'] / many['seconds']:.0%} of the time, on one thread.\n\n"
        "| rows | engine | rows a second | peak memory |\n| --- | --- | --- | --- |\n"
    )
    for label, each in (("local", few), ("local", many)):
        yield f"| {each['rows']:,} | {label} | {each['rows'] / each['seconds']:,.0f} | {each['peak'] / 1e6:,.0f} MB |\n"
    yield f"| {ray['rows']:,} | Ray, two nodes of one core | {ray['rows'] / ray['seconds']:,.0f} | |\n\n"
    yield f"The files of both engines are {'equal, byte for byte' if figures['equal'] else 'NOT equal'}.\n"


def put(text: str, name: str, script: str) -> None:
    """Replaces a part of the page."""
    begin, end = MARKS[0].format(name, script), MARKS[1].format(name)
    page = PAGE.read_text()
    first, last = page.index(begin) + len(begin), page.index(end)
    PAGE.write_text(page[:first] + text + page[last:])


if __name__ == "__main__":
    known = json.loads(FIGURES.read_text())
    put("".join(measurement(known)), "figures", "measure_map.py")
    put("".join(simulation(known)), "simulation", "simulate_scale.py")
