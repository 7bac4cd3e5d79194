"""Hold what stands in a model's place against the model: answers on real texts and images, and speed; write docs/drop-in.md.

    .venv/bin/python scripts/make_checkpoints.py build/checkpoints
    .venv/bin/python scripts/measure_dropin.py build/checkpoints

``make dropin`` runs both. ``--only answers`` and ``--only speed`` measure one part, and leave the page's other part as it is.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console

from onnxfuse.io import atomic
from onnxfuse.measure import machine

sys.path.insert(0, str(Path(__file__).parent))
import dropin_answers as answers
import dropin_speed as speed
from demo import minilm

PAGE = Path(__file__).with_name("dropin_page.md")
"""The page, with a place for each part."""

PACKAGES = ("torch", "transformers", "onnxruntime")
PARTS = ("answers", "speed")


def table(columns: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *rows])


def measured() -> str:
    """When, on what and with what."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return f"Measured on {datetime.date.today():%Y-%m-%d} on {machine.cpu()}, with {versions}."


def all_answers(checkpoints: Path, home: Path, count: int, old: Path, log: Console) -> str:
    """The table of answers."""
    torch.set_num_threads(1)
    subjects: dict[str, Callable[[Path], Iterator[answers.Row]]] = {
        "docs-bert": lambda at: answers.classes(checkpoints / "docs-bert", at, count),
        "all-MiniLM-L6-v2": lambda at: answers.vectors(minilm(), at, count),
        "docs-tagger": lambda at: answers.tags(checkpoints / "docs-tagger", at, count),
        "docs-reader": lambda at: answers.spans(checkpoints / "docs-reader", at, count, old),
        "docs-filler": lambda at: answers.gaps(checkpoints / "docs-filler", at, count),
        "digits-vit": lambda at: answers.images(checkpoints / "digits-vit", at, count),
    }
    found = []
    for name, ask in subjects.items():
        log.print(f"asking {name}")
        place = home / name
        place.mkdir()
        for row in ask(place):
            log.print("  " + ", ".join(row.cells()), highlight=False)
            found.append(row.cells())
    columns = ["model", "asked by", "precision", "batch", "equal answers", "largest difference of scores"]
    return f"{measured()}\n\n{table(columns, found)}"


def all_speeds(home: Path, log: Console) -> str:
    """The tables of speed."""
    speed.make(home)
    parts = [measured()]
    for threads in speed.THREADS:
        log.print(f"timing with {threads} threads")
        parts.append(f"{threads} thread{'s' * (threads > 1)}:\n\n{table(*speed.beside_eager(home, threads))}")
    log.print("timing the wrapper")
    parts.append(f"What the torch module adds to a call of the runtime's session:\n\n{table(*speed.wrapper(home))}")
    return "\n\n".join(parts)


def kept(page: Path, name: str) -> str:
    """A part of the page as it is; a word in its place where there is none yet."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    _, found, behind = text.partition(f"<!-- {name} -->\n")
    return behind.partition(f"\n<!-- end of {name} -->")[0] if found else "Not measured yet."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, help="what make_checkpoints.py wrote")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/drop-in.md"))
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--count", type=int, default=500, help="inputs for each model, at most")
    parser.add_argument("--old", type=Path, default=Path(".venv-4.57/bin/python"), help="Python with transformers 4.57")
    arguments = parser.parse_args()
    log = Console(stderr=True, soft_wrap=True)
    parts = {name: kept(arguments.output, name) for name in PARTS}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if arguments.only != "speed":
            parts["answers"] = all_answers(arguments.checkpoints, home, arguments.count, arguments.old, log)
        if arguments.only != "answers":
            parts["speed"] = all_speeds(home / "speed", log)
    atomic.save_text(PAGE.read_text(encoding="utf-8").format(**parts), arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
