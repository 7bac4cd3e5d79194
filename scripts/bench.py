"""Measure bert-base with random weights against its peers, in one interleaved run. ``make bench`` runs it.

BENCHMARKS.md has a section for each kind of machine; a run writes that of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from onnxfuse import ExportPlan, OptimizePlan, QuantizePlan, benchmark, files, parity, pipeline, samples, storage
from onnxfuse import plan as plans
from onnxfuse.benchmark import Timing
from onnxfuse.exporters import Checkpoint
from onnxfuse.report import megabytes, parity_text
from onnxfuse.runtime.ort import Feeds

MODEL, TASK, THREADS = "bert-base-uncased", "text-classification", 2

HEADER = f"""# Benchmarks

Written by `make bench` (scripts/bench.py), a section for each kind of machine. Times drift: only ratios of one run mean anything.

{MODEL} with random weights, {TASK}, {THREADS} threads, ONNX Runtime with default options.
"""


@dataclass(frozen=True)
class Line:
    """One promise: ``ours`` must be at least ``wanted`` times as fast as ``theirs``."""

    ours: str
    theirs: str
    wanted: float


TORCH = "PyTorch eager"
PLAIN, PLAIN_TS = "plain export, torch.export", "plain export, TorchScript"
ORT_INT8, ORT_INT8_TS = "quantize_dynamic of it, torch.export", "quantize_dynamic of it, TorchScript"
OURS, OURS_INT8 = "onnxfuse optimized", "onnxfuse int8"
PADDED, PADDED_INT8 = f"{OURS} --no-unpad", f"{OURS_INT8} --no-unpad"
INT8 = (ORT_INT8, ORT_INT8_TS, OURS_INT8, PADDED_INT8)


@dataclass(frozen=True)
class Workload:
    """A batch by the number of real tokens in each row, how many times it is run, and what is promised of it."""

    name: str
    lengths: tuple[int, ...]
    rounds: int
    lines: tuple[Line, ...]

    def feeds(self, profile: samples.Profile) -> Feeds:
        batch, longest = len(self.lengths), max(self.lengths)
        mask = np.arange(longest) < np.array(self.lengths)[:, None]
        return profile.feeds(batch, longest) | {"attention_mask": mask.astype(np.int64)}


WORKLOADS = (
    Workload("1 row of 128 tokens", (128,), 40, (
        Line(OURS, PLAIN, 1.10), Line(OURS, PLAIN_TS, 1.10), Line(OURS_INT8, ORT_INT8, 1.35), Line(OURS_INT8, ORT_INT8_TS, 1.35),
        Line(OURS, PADDED, 0.97), Line(OURS_INT8, PADDED_INT8, 0.97))),
    Workload("8 rows up to 128 tokens, 40 % of them real", (128, 80, 64, 48, 37, 25, 16, 12), 12, (
        Line(OURS, PLAIN, 2.0), Line(OURS, PLAIN_TS, 2.0), Line(OURS_INT8, ORT_INT8, 2.5), Line(OURS_INT8, ORT_INT8_TS, 2.5))),
)


def build(folder: Path, log: Console) -> tuple[dict[str, Path], Checkpoint]:
    """Every candidate's file, and the checkpoint that all of them come from."""
    from onnxruntime.quantization import quantize_dynamic

    paths = {}
    for exporter, plain, int8 in (("torchscript", PLAIN_TS, ORT_INT8_TS), ("dynamo", PLAIN, ORT_INT8)):
        log.print(f"exporting {MODEL} with {exporter}", highlight=False)
        plan = ExportPlan(MODEL, folder / exporter, task=TASK, exporter=exporter, random_weights=True)
        step, checkpoint = pipeline.export(plan)
        paths[plain] = step.path
        paths[int8] = folder / exporter / "ort_int8.onnx"
        quantize_dynamic(step.path, paths[int8])
    for unpad, float32, int8 in ((None, OURS, OURS_INT8), (False, PADDED, PADDED_INT8)):
        home = folder / f"unpad-{unpad}"
        home.mkdir()
        optimized = pipeline.optimize(OptimizePlan(paths[PLAIN], home / plans.OPTIMIZED, require=("all",), unpad=unpad))
        paths[float32], paths[int8] = optimized.path, pipeline.quantize(QuantizePlan(optimized.path, home / plans.QUANTIZED)).path
    return {name: paths[name] for name in (PLAIN, PLAIN_TS, OURS, PADDED, *INT8)}, checkpoint


def table(workload: Workload, timings: dict[str, Timing], parities: dict[str, str], sizes: dict[str, str]) -> str:
    """One workload: every candidate, and the promises with the figure reached."""
    rows = [f"| {name} | {sizes.get(name, '')} | {parities.get(name, 'reference')} | "
            f"{t.p50:.1f} | {t.low:.1f} - {t.high:.1f} | {t.p90:.1f} | {t.p99:.1f} | "
            f"{benchmark.ratio(timings[TORCH], t).value:.2f} |"
            for name, t in timings.items()]
    reached = [(line, benchmark.ratio(timings[line.theirs], timings[line.ours])) for line in workload.lines]
    ratios = [f"| {line.ours} | {line.theirs} | {line.wanted:.2f} | {r.value:.2f} | {r.low:.2f} - {r.high:.2f} |"
              for line, r in reached]
    return "\n".join([
        f"### {workload.name}, {workload.rounds} interleaved rounds", "",
        "| model | size | against PyTorch | p50 ms | 95 % interval | p90 | p99 | times PyTorch's speed |",
        "|---|---|---|---|---|---|---|---|", *rows, "",
        "How many times as fast: the median over rounds of both calls of a round.", "",
        "| ours | against | at least | reached | 95 % interval |", "|---|---|---|---|---|", *ratios, ""])


def placed(section: str, text: str) -> str:
    """BENCHMARKS.md with ``section`` in place of the one of the same machine, the others untouched."""
    _, *sections = text.split("\n## ")
    by_machine = {f"## {part}".split("\n")[0]: f"## {part}".strip() + "\n" for part in sections}
    by_machine[section.split("\n")[0]] = section
    return "\n".join([HEADER, *(by_machine[name] for name in sorted(by_machine))])


def cpu() -> str:
    """The processor's name and the instructions that decide int8 speed."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    flags = next(line.split() for line in text.splitlines() if line.startswith("flags"))
    return f"{name} ({', '.join(flag for flag in ('avx2', 'avx512f', 'avx512_vnni', 'amx_int8') if flag in flags)})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent.parent / "BENCHMARKS.md")
    parser.add_argument("--rounds", type=int, help="instead of each workload's own number")
    arguments = parser.parse_args()
    log = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        paths, checkpoint = build(Path(folder), log)
        profile = samples.profile_of(storage.load(paths[PLAIN]), checkpoint.config)
        torch_run = pipeline.torch_runner(checkpoint, THREADS)
        expected = parity.reference(torch_run, list(samples.grid(profile)))
        runners = {name: pipeline.onnx_runner(path, THREADS) for name, path in paths.items()}
        log.print("comparing with PyTorch")
        parities = {name: parity_text(parity.compare(expected, run, "int8" if name in INT8 else "reassociate"))
                    for name, run in runners.items()}
        sizes = {name: megabytes(files.model_bytes(path)) for name, path in paths.items()}
        tables = []
        for workload in WORKLOADS:
            workload = replace(workload, rounds=arguments.rounds or workload.rounds)
            log.print(f"measuring {workload.name}", highlight=False)
            timings = benchmark.measure({TORCH: torch_run} | runners, [workload.feeds(profile)], rounds=workload.rounds)
            tables.append(table(workload, timings, parities, sizes))
    versions = ", ".join(f"{name} {number}" for name, number in plans.versions().items())
    section = "\n".join([f"## {cpu()}", "", f"{os.cpu_count()} cores. Versions: {versions}.", "", *tables])
    known = arguments.output.read_text(encoding="utf-8") if arguments.output.is_file() else ""
    files.save_text(placed(section, known), arguments.output)
    sys.stdout.write(section)
    return 0


if __name__ == "__main__":
    sys.exit(main())
