"""Measure full-size models with random weights against every baseline. ``make bench`` runs it.

BENCHMARKS.md has a section for each kind of machine; a run writes that of its own, and its plots under benchmarks/.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from onnxfuse.cli import plots
from onnxfuse.cli.tables import agreement_text, megabytes
from onnxfuse.config import ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.errors import OnnxfuseError
from onnxfuse.io import atomic, folders, onnx_file
from onnxfuse.measure import benchmark, machine
from onnxfuse.pipeline import baselines, compare
from onnxfuse.pipeline.compare import Candidate, Comparison
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.runtime import Feeds, Settings
from onnxfuse.runtime.cores import cores
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.profile import Profile

THREADS = 2
HOME = Path(__file__).parent.parent
HEADER = f"""# Benchmarks

Written by `make bench` (scripts/bench.py), a section for each kind of machine. Times drift: only ratios of one run mean anything.
Models with random weights, {THREADS} threads, ONNX Runtime with default options; baselines run as their own defaults have it.
"""

BERT, DISTILBERT, VIT = "bert-base-uncased", "distilbert-base-uncased", "google/vit-base-patch16-224"
TASKS = {BERT: "text-classification", DISTILBERT: "text-classification", VIT: "image-classification"}

OURS, OURS_INT8, PADDED, PADDED_INT8 = "onnxfuse", "onnxfuse int8", "onnxfuse --no-unpad", "onnxfuse int8 --no-unpad"
OURS_OV, OURS_OV_BF16 = "onnxfuse in OpenVINO", "onnxfuse in OpenVINO bf16"
TS = ", TorchScript"
FP32 = ("ort", f"ort{TS}", "ort-optimizer", f"ort-optimizer{TS}", "onnxscript", "transformers")
INT8 = ("quantize-dynamic", f"quantize-dynamic{TS}", "ort-optimizer-int8", f"ort-optimizer-int8{TS}", "transformers-int8")
OTHERS = ("torch-compile", "torch-bf16", "openvino", "openvino-bf16", "openvino-int8")
FROM_TORCHSCRIPT = tuple(name for name in FP32 + INT8 if name.endswith(TS))


@dataclass(frozen=True)
class Promise:
    """``ours`` must be at least ``wanted`` times as fast as the fastest of ``theirs``."""

    ours: str
    theirs: tuple[str, ...]
    wanted: float


@dataclass(frozen=True)
class Workload:
    """A batch by the number of real tokens in each row, how often it is run, beside what, and what is promised of it."""

    model: str
    name: str
    lengths: tuple[int, ...]
    rounds: int
    candidates: tuple[str, ...]
    promises: tuple[Promise, ...]

    def inputs(self, profile: Profile) -> list[Feeds]:
        batch, longest = len(self.lengths), max(self.lengths)
        mask = (np.arange(longest) < np.array(self.lengths)[:, None]).astype(np.int64)
        return [
            profile.feeds(batch, longest, seed=seed) | ({"attention_mask": mask} if profile.masked else {})
            for seed in range(compare.COMPARED)
        ]


ALL = (*FP32, *INT8, *OTHERS, OURS, OURS_INT8, PADDED, PADDED_INT8, OURS_OV, OURS_OV_BF16)
SOME = ("ort", *INT8, OURS, OURS_INT8)

WORKLOADS = (
    Workload(
        BERT,
        "1 row of 128 tokens",
        (128,),
        24,
        ALL,
        (
            Promise(OURS, ("ort",), 1.10),
            Promise(OURS_INT8, ("quantize-dynamic",), 1.35),
            Promise(OURS, FP32, 1.15),
            Promise(OURS_INT8, INT8, 1.5),
            Promise(OURS, (PADDED,), 0.97),
            Promise(OURS_INT8, (PADDED_INT8,), 0.97),
        ),
    ),
    Workload(
        BERT,
        "8 rows up to 128 tokens, 40 % of them real",
        (128, 80, 64, 48, 37, 25, 16, 12),
        8,
        ALL,
        (
            Promise(OURS, FP32, 2.0),
            Promise(OURS_INT8, INT8, 2.5),
            Promise(OURS_INT8, ("openvino-int8",), 1.15),
            Promise(OURS_OV_BF16, ("openvino-bf16",), 1.5),
            Promise(OURS_OV, ("openvino",), 1.5),
        ),
    ),
    Workload(BERT, "1 row of 512 tokens", (512,), 8, SOME, (Promise(OURS_INT8, INT8, 1.6),)),
    Workload(DISTILBERT, "1 row of 128 tokens", (128,), 24, SOME, (Promise(OURS_INT8, INT8, 1.5),)),
    Workload(VIT, "1 image", (1,), 16, SOME, (Promise(OURS_INT8, INT8, 1.35),)),
)


class Model:
    """One checkpoint, its exports, what onnxfuse makes of them, and the baselines' scratch folders."""

    def __init__(self, name: str, folder: Path, log: Console) -> None:
        log.print(f"exporting and optimizing {name}", highlight=False)
        exports = {}
        for exporter in ("torchscript", "dynamo"):
            plan = ExportConfig(name, folder / exporter, task=TASKS[name], exporter=exporter, random_weights=True)
            exports[exporter] = export(plan)
            checkpoint = exports[exporter].checkpoint
        source = exports["dynamo"].path
        self.files: dict[str, tuple[Path, str]] = {}
        for unpad, float32, int8 in ((None, OURS, OURS_INT8), (False, PADDED, PADDED_INT8)):
            home = folder / f"unpad-{unpad}"
            home.mkdir()
            step = optimize(OptimizeConfig(source, home / folders.OPTIMIZED, require=("all",), unpad=unpad))
            quantized = quantize(QuantizeConfig(step.path, home / folders.QUANTIZED))
            self.files |= {float32: (step.path, "ort"), int8: (quantized.path, "ort")}
        self.files |= {OURS_OV: (self.files[OURS][0], "openvino"), OURS_OV_BF16: (self.files[OURS][0], "openvino-bf16")}
        family = checkpoint.family.model_type
        self.context = baselines.Context(source, family, folder / "made", THREADS, checkpoint)
        self.torchscript = baselines.Context(
            exports["torchscript"].path, family, folder / "made-torchscript", THREADS, checkpoint
        )
        self.profile = profile_of(onnx_file.load(source), checkpoint.config)

    def candidates(self, names: Sequence[str], failed: dict[str, str], log: Console) -> list[Candidate]:
        """PyTorch first, then the named ones; ``failed`` receives why one is not there."""
        found = []
        for name in ("torch", *names):
            log.print(f"opening {name}", highlight=False)
            try:
                if name in self.files:
                    path, runtime = self.files[name]
                    found.append(compare.from_file(path, name, Settings(runtime, THREADS)))
                else:
                    baseline = baselines.BASELINES[name.removesuffix(TS)]
                    found.append(
                        Candidate(name, baseline.kind, baseline.open(self.torchscript if name.endswith(TS) else self.context))
                    )
            except OnnxfuseError as error:
                failed[name] = str(error).replace(str(self.context.folder.parent), "")
        return found


def table(workload: Workload, outcome: Comparison, picture: str) -> str:
    """One workload in Markdown: every candidate, and the promises with the figure reached."""
    rows = outcome.rows
    base = rows["torch"].timing
    lines = [
        f"| {name} | {'' if row.size is None else megabytes(row.size)} | {agreement_text(row) or 'reference'} | "
        f"{t.p50:.1f} | {t.low:.1f} - {t.high:.1f} | {t.p90:.1f} | {t.p99:.1f} | {benchmark.ratio(base, t).value:.2f} |"
        for name, row in rows.items()
        for t in (row.timing,)
    ]
    kept = [f"- {name} could not take part: {why}" for name, why in outcome.failed.items()]
    return "\n".join(
        [
            f"### {workload.model}, {workload.name}",
            "",
            f"{workload.rounds} interleaved rounds. ![{workload.name}]({picture})",
            "",
            "| | size | against PyTorch | p50 ms | 95 % interval | p90 | p99 | times PyTorch's speed |",
            "|---|---|---|---|---|---|---|---|",
            *lines,
            "",
            *kept,
            *([""] if kept else []),
            "How many times as fast, as the median over rounds of both calls of a round:",
            "",
            "| ours | the fastest of | at least | reached | 95 % interval |",
            "|---|---|---|---|---|",
            *(reached(promise, outcome) for promise in workload.promises),
            "",
        ]
    )


def reached(promise: Promise, outcome: Comparison) -> str:
    """A promise beside the figure reached against the fastest of the others."""
    theirs = [name for name in promise.theirs if name in outcome.rows]
    if promise.ours not in outcome.rows or not theirs:
        return f"| {promise.ours} | {', '.join(promise.theirs)} | {promise.wanted:.2f} | not measured: see above | |"
    ours = outcome.rows[promise.ours].timing
    ratios = {name: benchmark.ratio(outcome.rows[name].timing, ours) for name in theirs}
    fastest = min(theirs, key=lambda name: ratios[name].value)
    among = "" if len(promise.theirs) == 1 else f" (of {len(theirs)})"
    r = ratios[fastest]
    return f"| {promise.ours} | {fastest}{among} | {promise.wanted:.2f} | {r.value:.2f} | {r.low:.2f} - {r.high:.2f} |"


def placed(section: str, text: str) -> str:
    """BENCHMARKS.md with ``section`` in place of the one of the same machine, the others untouched."""
    _, *sections = text.split("\n## ")
    by_machine = {f"## {part}".split("\n")[0]: f"## {part}".strip() + "\n" for part in sections}
    by_machine[section.split("\n")[0]] = section
    return "\n".join([HEADER, *(by_machine[name] for name in sorted(by_machine))])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=HOME / "BENCHMARKS.md")
    parser.add_argument("--rounds", type=int, help="instead of each workload's own number")
    parser.add_argument("--only", help="workloads whose model and name hold this text; the result is printed, not written")
    arguments = parser.parse_args()
    log = Console(stderr=True)
    tables = []
    chosen = [item for item in WORKLOADS if (arguments.only or "") in f"{item.model}, {item.name}"]
    for name in dict.fromkeys(item.model for item in chosen):
        with tempfile.TemporaryDirectory() as folder:
            model = Model(name, Path(folder), log)
            for workload in (item for item in chosen if item.model == name):
                workload = replace(workload, rounds=arguments.rounds or workload.rounds)
                failed: dict[str, str] = {}
                entries = model.candidates(workload.candidates, failed, log)
                log.print(f"measuring {workload.model}, {workload.name}", highlight=False)
                rows = compare.measure(entries, workload.inputs(model.profile), workload.rounds, failed)
                outcome = Comparison(rows, failed)
                slug = re.sub(r"\W+", "-", f"{machine.cpu()} {workload.model} {workload.name}").strip("-").lower()
                picture = arguments.output.parent / "benchmarks" / f"{slug}.svg"
                plots.comparison(outcome, picture, f"{workload.model}, {workload.name}")
                tables.append(table(workload, outcome, f"benchmarks/{picture.name}"))
                log.print(tables[-1], markup=False, highlight=False)
    versions = ", ".join(f"{name} {number}" for name, number in folders.versions().items())
    section = "\n".join([f"## {machine.cpu()}", "", f"{cores()} cores. Versions: {versions}.", "", *tables])
    known = arguments.output.read_text(encoding="utf-8") if arguments.output.is_file() else ""
    if not arguments.only:
        atomic.save_text(placed(section, known), arguments.output)
    sys.stdout.write(section)
    return 0


if __name__ == "__main__":
    sys.exit(main())
