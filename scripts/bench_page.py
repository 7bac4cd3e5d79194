"""What ``bench.py`` publishes: BENCHMARKS.md, rendered from the measurements of each kind of machine under benchmarks/."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench_workloads import WORKLOADS, Promise, Workload

from onnxfuse.cli import plots
from onnxfuse.cli.tables import agreement_text, megabytes
from onnxfuse.errors import first_line
from onnxfuse.io import atomic
from onnxfuse.measure import benchmark
from onnxfuse.pipeline.compare import Comparison

HEADER = """# Benchmarks

Written by `make bench` (scripts/bench.py). Times drift: only ratios of one run mean anything. Each workload is one interleaved
run of everything in its table; ratios are the median over rounds of both calls of a round, with its 95 % interval. Parity, and
cosine, is with PyTorch in float32, on the inputs that are timed.

Models have random weights and no tokenizer, but for all-MiniLM-L6-v2, and classifiers of texts have 150 labels; our int8 and
NNCF's are calibrated with the same random rows, of 16 to 128 tokens.
Baselines run as their own defaults have it (compiled PyTorch with its weights frozen), from the
export of torch.export or, where a name says so, of TorchScript. CTranslate2 runs the encoder, and PyTorch the checkpoint's head.
"onnxfuse, tuned" is the fastest of our forms that is as near to PyTorch as its precision must be, chosen in a run before the one
that is published; the forms stand beside it. Sizes are bytes of weights, in the tool's own file or in memory.
"""

SUMMARY = """## Summary

How many times as fast as the fastest other tool of that precision, and the cosines with PyTorch of both: a promise is kept
where the speed is reached at no lower cosine.

| work | ours | the best peer | at least | reached | 95 % interval | cosines | kept | machine |
|---|---|---|---|---|---|---|---|---|
"""

ROUND = 4
"""Digits that cosines are shown and held against each other with."""


def measured(workload: Workload, outcome: Comparison, ran: Mapping[str, Any]) -> dict[str, Any]:
    """One workload as data: a row for each candidate, why others are not there, and what came of each promise.

    Args:
        ran: what else is to be known of the run (cores, versions, threads).
    """
    base = next(iter(outcome.rows.values())).timing
    rows = [
        {
            "name": name,
            "kind": row.candidate.kind,
            "ours": row.candidate.ours,
            "size": row.size,
            "agrees": agreement_text(row) or "reference",
            "cosine": 1.0 if row.parity is None else row.parity.cosine,
            "speed": benchmark.ratio(base, row.timing).value,
            **{each: getattr(row.timing, each) for each in ("p50", "low", "high", "p90", "p99")},
        }
        for name, row in outcome.rows.items()
    ]
    promises = [reached(promise, outcome, rows) for promise in workload.promises]
    return {"rounds": workload.rounds, **ran, "rows": rows, "failed": outcome.failed, "promises": promises}


def reached(promise: Promise, outcome: Comparison, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A promise, with the figures reached against the fastest peer of its precision; without them where one is not there."""
    ours = next((row for row in rows if row["name"].split(":")[0] == promise.ours), None)
    theirs = [row for row in rows if not row["ours"] and row["kind"] == promise.kind]
    made = asdict(promise)
    if ours is None or not theirs:
        return made
    timing = outcome.rows[ours["name"]].timing
    ratios = {row["name"]: benchmark.ratio(outcome.rows[row["name"]].timing, timing) for row in theirs}
    best = min(theirs, key=lambda row: ratios[row["name"]].value)
    cosines = [round(row["cosine"], ROUND) for row in (ours, best)]
    speed = ratios[best["name"]]
    kept = speed.value >= promise.wanted and cosines[0] >= cosines[1]
    named = {"form": ours["name"], "peer": best["name"], "of": len(theirs)}
    return made | named | asdict(speed) | {"cosines": cosines, "kept": kept}


# The page ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """The measurements of one kind of machine, by workload, and where they lie."""

    name: str
    path: Path
    cells: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Machine:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return cls(stored["machine"], path, stored["workloads"])

    @classmethod
    def at(cls, name: str, folder: Path) -> Machine:
        """The one of that name, with what is known of it."""
        path = folder / f"{slug(name)}.json"
        return cls.read(path) if path.is_file() else cls(name, path, {})

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic.save_text(json.dumps({"machine": self.name, "workloads": self.cells}, indent=1) + "\n", self.path)

    def ordered(self) -> Iterable[tuple[str, dict[str, Any]]]:
        """The workloads in the order in which they are measured; those that are no more are left out."""
        return [(str(work), self.cells[str(work)]) for work in WORKLOADS if str(work) in self.cells]

    def picture(self, work: str) -> Path:
        return self.path.with_name(f"{slug(f'{self.name} {work}')}.svg")

    def draw(self, work: str) -> None:
        """One bar for each row, the fastest on top, ours in the other colour."""
        rows = sorted(self.cells[work]["rows"], key=lambda row: row["p50"])
        content = [plots.Bar(row["name"], row["p50"], row["low"], row["high"], row["ours"]) for row in rows]
        plots.bars(content, self.picture(work), title=f"{work}\n{self.name}", label="ms (median and its 95 % interval)")

    def section(self) -> str:
        return "\n".join([f"## {self.name}", "", *(self._cell(work, cell) for work, cell in self.ordered())])

    def _cell(self, work: str, cell: Mapping[str, Any]) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in cell["versions"].items())
        lost = [f"- {name} could not take part: {first_line(why)}" for name, why in cell["failed"].items()]
        return "\n".join(
            [
                f"### {work}",
                "",
                f"{cell['rounds']} interleaved rounds, {cell['threads']} threads on {cell['cores']} cores. Versions: {versions}.",
                "",
                f"![{work}]({self.path.parent.name}/{self.picture(work).name})",
                "",
                "| | size | against PyTorch | cosine | p50 ms | 95 % interval | p90 | p99 | times PyTorch's speed |",
                "|---|---|---|---|---|---|---|---|---|",
                *(_row(row) for row in cell["rows"]),
                "",
                *lost,
                *([""] if lost else []),
            ]
        )


def _row(row: Mapping[str, Any]) -> str:
    return _line(
        f"**{row['name']}**" if row["ours"] else row["name"],
        "" if row["size"] is None else megabytes(row["size"]),
        row["agrees"],
        f"{row['cosine']:.{ROUND}f}",
        f"{row['p50']:.1f}",
        f"{row['low']:.1f} - {row['high']:.1f}",
        f"{row['p90']:.1f}",
        f"{row['p99']:.1f}",
        f"{row['speed']:.2f}",
    )


def _promised(work: str, promise: Mapping[str, Any], machine: str) -> str:
    """One promise of one workload on one machine, in a line of the summary."""
    what, wanted = f"{work}, {promise['kind']}", f"{promise['wanted']:.2f}"
    if "peer" not in promise:
        return _line(what, promise["ours"], "", wanted, "not measured: see its section", "", "", "", machine)
    return _line(
        what,
        promise["form"],
        f"{promise['peer']} (of {promise['of']})",
        wanted,
        f"{promise['value']:.2f}",
        f"{promise['low']:.2f} - {promise['high']:.2f}",
        ", ".join(f"{cosine:.{ROUND}f}" for cosine in promise["cosines"]),
        "yes" if promise["kept"] else "no",
        machine,
    )


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def page(machines: Sequence[Machine], before: str) -> str:
    """BENCHMARKS.md: the summary, and a section for each machine.

    Args:
        before: the page as it was; sections of machines that were only measured as pages were then stay as they are.
    """
    summary = [_promised(work, one, each.name) for each in machines for work, cell in each.ordered() for one in cell["promises"]]
    older = {f"## {part}".split("\n")[0]: f"## {part}".strip() + "\n" for part in before.split("\n## ")[1:]}
    sections = older | {f"## {each.name}": each.section() for each in machines}
    sections.pop("## Summary", None)
    return "\n".join([HEADER, SUMMARY + "".join(f"{line}\n" for line in summary), *(sections[name] for name in sorted(sections))])


def slug(text: str) -> str:
    return re.sub(r"\W+", "-", text).strip("-").lower()
