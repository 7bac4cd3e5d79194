"""Measure target native beside other tools, and write the table of docs/native.md. ``python scripts/measure_native.py``

Each workload of ``bench_workloads`` that promises something of our own kernels, in one interleaved run with all baselines of
its precision but PyTorch's own, which BENCHMARKS.md has.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from bench import THREADS, chosen
from bench_models import FORMS, TRIED, Model, checkpoint, product
from bench_workloads import FIRST, NATIVE, NATIVE_BF16, NATIVE_FP32, Promise, Workload, peers
from rich.console import Console

from onnxfuse import native
from onnxfuse.io import atomic
from onnxfuse.measure import benchmark, machine
from onnxfuse.pipeline import compare
from onnxfuse.pipeline.compare import Row

PAGE = Path(__file__).parent.parent / "docs" / "native.md"

OURS = {NATIVE, NATIVE_FP32, NATIVE_BF16}

BESIDE = tuple(name for name in peers() if not name.startswith(("torch-", "sentence-", "tensorflow", "ibert")))
"""PyTorch's forms are two to six times as slow: BENCHMARKS.md has them."""


def run(work: Workload, model: Model, log: Console) -> list[str]:
    """One line for each promise of a workload."""
    failed: dict[str, str] = {}
    inputs = work.inputs(model.profile)
    names = (FIRST, *BESIDE)
    theirs = model.opened({name: (lambda name=name: model.peer(name)) for name in names}, failed)
    forms = [form for form in FORMS if form.native]
    ours = model.opened({form.name: (lambda form=form: model.form(form)) for form in forms}, failed)
    tried = compare.measure([theirs[0], *ours], inputs, TRIED, failed)
    mine = [tried[form.name] for form in ours if form.name in tried]
    products = [made for name in sorted(OURS) if (made := product(name, mine)) is not None]
    log.print(f"measuring {work}", highlight=False)
    rows = compare.measure([*theirs, *products], inputs, work.rounds, failed)
    for name, why in failed.items():
        log.print(f"not there: {name}: {why}", highlight=False)
    return [line(work, promise, rows.values()) for promise in work.promises if promise.ours in OURS]


def line(work: Workload, promise: Promise, rows: Collection[Row]) -> str:
    """Ours beside the fastest peer of its precision."""
    mine = next((row for row in rows if row.candidate.name.split(":")[0] == promise.ours), None)
    theirs = [row for row in rows if row.candidate.name in BESIDE and row.candidate.kind == promise.kind]
    if mine is None or not theirs:
        return f"| {work} | {promise.kind} | not measured | | | | | |"
    best = min(theirs, key=lambda row: row.timing.p50)
    ratio = benchmark.ratio(best.timing, mine.timing)
    cosines = ", ".join("" if row.parity is None else f"{row.parity.cosine:.4f}" for row in (mine, best))
    kept = "yes" if ratio.value >= promise.wanted else "no"
    name = mine.candidate.name.partition(": ")[2]
    return (
        f"| {work} | {name} | {mine.timing.p50:.2f} | {best.candidate.name} | {best.timing.p50:.2f} | "
        f"{ratio.value:.2f} ({ratio.low:.2f} - {ratio.high:.2f}) | {promise.wanted:g} | {kept} | {cosines} |"
    )


HEAD = (
    "| work | ours | ms | best other tool of that precision | ms | times as fast (95 %) | wanted | reached "
    "| cosines with PyTorch |",
    "|---|---|---|---|---|---|---|---|---|",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="as of bench.py")
    parser.add_argument("--rounds", type=int, help="instead of each workload's own number")
    arguments = parser.parse_args()
    log = Console(stderr=True)
    works = [work for work in chosen(arguments.only) if any(promise.ours in OURS for promise in work.promises)]
    today, cpu = datetime.datetime.now(datetime.UTC).date(), machine.cpu()
    told = f"{today}, {cpu}, {THREADS} threads, kernels {native.kernels()}; one interleaved run for each line's workload."
    lines = [told, "", *HEAD]
    for name in dict.fromkeys(work.model for work in works):
        with tempfile.TemporaryDirectory() as folder:
            model = Model(name, Path(folder), log, THREADS, checkpoint(name))
            for work in (each for each in works if each.model == name):
                lines += run(replace(work, rounds=arguments.rounds or work.rounds), model, log)
                log.print(lines[-1], highlight=False, soft_wrap=True)
                write("\n".join(lines))
            del model
    return 0


def write(table: str) -> None:
    """Put a table between the page's marks."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- written by scripts/measure_native.py -->", "<!-- end -->"
    put = f"{begin}\n{table}\n{end}"
    atomic.save_text(re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda found: put, text, flags=re.DOTALL), PAGE)


if __name__ == "__main__":
    sys.exit(main())
