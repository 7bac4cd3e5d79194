"""Measure full-size models against every baseline. ``make bench`` runs it.

Each workload replaces its own row of this kind of machine under benchmarks/; BENCHMARKS.md is rendered from all that is there.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_models import Model, checkpoint
from bench_page import Machine, measured, page
from bench_workloads import WORKLOADS, Workload
from rich.console import Console

from onnxfuse.io import atomic, folders
from onnxfuse.measure import machine
from onnxfuse.pipeline import compare
from onnxfuse.pipeline.compare import Comparison
from onnxfuse.runtime.cores import cores

THREADS = 2
HOME = Path(__file__).parent.parent
FOLDER = "benchmarks"

PEERS = ("ctranslate2", "torchao", "sentence-transformers")
"""Packages whose versions are recorded beside those that decide what our models become."""


def chosen(only: str) -> list[Workload]:
    """The workloads whose model and name hold one of the texts, which stand with ``;`` between; all where there is none."""
    wanted = [text.strip() for text in only.split(";") if text.strip()] or [""]
    return [work for work in WORKLOADS if any(text in str(work) for text in wanted)]


def versions() -> dict[str, str]:
    here = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    return folders.versions() | {name: here[name] for name in PEERS if name in here}


def run(workloads: Sequence[Workload], output: Path, log: Console) -> None:
    """Measure, and write what came out after each workload: what is there then is whole."""
    ran: dict[str, Any] = {"threads": THREADS, "cores": cores(), "versions": versions()}
    for name in dict.fromkeys(work.model for work in workloads):
        with tempfile.TemporaryDirectory() as folder:
            model = Model(name, Path(folder), log, THREADS, checkpoint(name))
            for work in (each for each in workloads if each.model == name):
                publish(work, _cell(model, work, ran, log), output)
                forget_compiled()
            del model  # before the next one is opened


def forget_compiled() -> None:
    """Let go of what torch compiled: of one function it compiles eight forms in a process, and runs the others as they are."""
    import torch

    torch._dynamo.reset()
    gc.collect()  # what compiled models hold of each other


def _cell(model: Model, work: Workload, ran: dict[str, Any], log: Console) -> dict[str, Any]:
    """One workload, measured; what was opened for it alone is gone then: two times all of it is more than 24 GB."""
    failed: dict[str, str] = {}
    inputs = work.inputs(model.profile)
    entries = model.candidates(inputs, failed)
    log.print(f"measuring {work}", highlight=False)
    rows = compare.measure(entries, inputs, work.rounds, failed)
    return measured(work, Comparison(rows, failed), ran)


def publish(work: Workload, cell: dict[str, Any], output: Path) -> None:
    """Put one workload in place of the same one of this machine, and render the page anew."""
    here = Machine.at(machine.cpu(), output.parent / FOLDER)
    here.cells[str(work)] = cell
    here.save()
    here.draw(str(work))
    machines = [Machine.read(path) for path in sorted((output.parent / FOLDER).glob("*.json"))]
    before = output.read_text(encoding="utf-8") if output.is_file() else ""
    atomic.save_text(page(machines, before), output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=HOME / "BENCHMARKS.md", help=f"{FOLDER}/ is beside it")
    parser.add_argument("--rounds", type=int, help="instead of each workload's own number")
    parser.add_argument("--only", default="", help="workloads whose name holds this text, or one of several with ; between")
    arguments = parser.parse_args()
    workloads = chosen(arguments.only)
    if not workloads:
        parser.error(f"--only {arguments.only}: no workload's name holds it; there are {'; '.join(map(str, WORKLOADS))}")
    if arguments.rounds:
        workloads = [replace(work, rounds=arguments.rounds) for work in workloads]
    run(workloads, arguments.output, Console(stderr=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
