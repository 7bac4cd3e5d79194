"""Measure target native beside other tools, and write the tables of docs/native.md. ``python scripts/measure_native.py``

Each workload of ``bench_workloads`` that promises something of our own kernels, in one interleaved run with all baselines but
PyTorch's own, which BENCHMARKS.md has; on AVX2 alone with those in ONNX Runtime. The page has a table for each kind of kernels;
a run replaces the lines of its own kind's workloads that it measures.
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
from bench_workloads import FIRST, NATIVE, NATIVE_BF16, NATIVE_FP32, WORKLOADS, Promise, Workload, peers
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

IN_ORT = tuple(name for name in BESIDE if name.startswith(("quantize-dynamic", "ort-optimizer-int8", "transformers-int8")))
"""What quantizes for ONNX Runtime's own kernels."""


def run(work: Workload, model: Model, log: Console) -> list[str]:
    """One line for each promise of a workload."""
    failed: dict[str, str] = {}
    inputs = work.inputs(model.profile)
    held = promised(work)
    names = tuple(dict.fromkeys([FIRST, *(name for _, against in held for name in against)]))
    theirs = model.opened({name: (lambda name=name: model.peer(name)) for name in names}, failed)
    kinds = {promise.kind for promise, _ in held}
    forms = [form for form in FORMS if form.native and form.kind in kinds]
    ours = model.opened({form.name: (lambda form=form: model.form(form)) for form in forms}, failed)
    tried = compare.measure([theirs[0], *ours], inputs, TRIED, failed)
    mine = [tried[form.name] for form in ours if form.name in tried]
    products = [made for promise, _ in held if (made := product(promise.ours, mine)) is not None]
    log.print(f"measuring {work}", highlight=False)
    rows = compare.measure([*theirs, *products], inputs, work.rounds, failed)
    for name, why in failed.items():
        log.print(f"not there: {name}: {why}", highlight=False)
    return [line(work, *each, rows.values()) for each in held]


def promised(work: Workload) -> list[tuple[Promise, Collection[str]]]:
    """What this machine's kernels promise of a workload, each with the peers that it is held against.

    AVX2 has no instruction for products of bytes, nor one for bfloat16: there int8 is to be no slower than ONNX Runtime's own,
    and no more is promised.
    """
    if native.kernels() == "avx2":
        return [(replace(each, wanted=1.0), IN_ORT) for each in work.promises if each.ours == NATIVE]
    return [(each, BESIDE) for each in work.promises if each.ours in OURS]


def line(work: Workload, promise: Promise, names: Collection[str], rows: Collection[Row]) -> str:
    """Ours beside the fastest of some peers, of those of its precision."""
    mine = next((row for row in rows if row.candidate.name.split(":")[0] == promise.ours), None)
    theirs = [row for row in rows if row.candidate.name in names and row.candidate.kind == promise.kind]
    if mine is None or not theirs:
        return f"| {work} | {promise.kind} | not measured | | | | | |"
    best = min(theirs, key=lambda row: row.timing.p50)
    ratio = benchmark.ratio(best.timing, mine.timing)
    cosines = ", ".join("" if row.parity is None else f"{row.parity.cosine:.4f}" for row in (mine, best))
    kept = "yes" if ratio.value >= promise.wanted else "no"
    name = mine.candidate.name.partition(": ")[2]
    whose = f"{best.candidate.name} (best in ONNX Runtime)" if names is IN_ORT else best.candidate.name
    return (
        f"| {work} | {name} | {mine.timing.p50:.2f} | {whose} | {best.timing.p50:.2f} | "
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
    works = [work for work in chosen(arguments.only) if promised(work)]
    today, cpu = datetime.datetime.now(datetime.UTC).date(), machine.cpu()
    told = f"{today}, {cpu}, {THREADS} threads, kernels {native.kernels()}; one interleaved run for each line's workload."
    for name in dict.fromkeys(work.model for work in works):
        with tempfile.TemporaryDirectory() as folder:
            model = Model(name, Path(folder), log, THREADS, checkpoint(name))
            for work in (each for each in works if each.model == name):
                lines = run(replace(work, rounds=arguments.rounds or work.rounds), model, log)
                log.print(*lines, sep="\n", highlight=False, soft_wrap=True)
                write(work, told, lines)
            del model
    return 0


def write(work: Workload, told: str, lines: list[str]) -> None:
    """Put a workload's lines into the table of this machine's kernels, in place of those that are there."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- kernels {native.kernels()} -->", "<!-- end -->"
    found = re.search(f"{re.escape(begin)}\n(.*?){re.escape(end)}", text, flags=re.DOTALL)
    if found is None:
        raise SystemExit(f"{PAGE.name} has no table for kernels {native.kernels()}: put the lines {begin} and {end} into it")
    old = [each for each in found[1].splitlines() if each.startswith("| ") and not each.startswith((HEAD[0], f"| {work} |"))]
    order = [str(each) for each in WORKLOADS]
    table = sorted([*old, *lines], key=lambda each: order.index(each.split(" | ")[0].removeprefix("| ")))
    made = "\n".join([begin, told, "", *HEAD, *table, end])
    atomic.save_text(text[: found.start()] + made + text[found.end() :], PAGE)


if __name__ == "__main__":
    sys.exit(main())
