"""How fast ``onnxfuse.accelerate`` is beside PyTorch eager: each in a process of its own, in turn; and what its wrapper costs.

measure_dropin.py starts this file again for each process: ``dropin_speed.py FORM FOLDER THREADS``.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
import transformers

import onnxfuse

THREADS = (1, 2)
SHAPES = ((1, 128), (1, 16), (8, 128))
FORMS = ("eager", "fp32", "int8")
TURNS = 3
"""Processes for each form: the machine of the first is not that of the last."""

SECONDS = 4
"""Of each shape in a process, at least 5 calls."""

CALLS = 400
"""Of the module."""

Table = tuple[list[str], list[list[str]]]


def original() -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForSequenceClassification.from_config(transformers.BertConfig(num_labels=2)).eval()


def make(home: Path) -> None:
    """Both accelerated models in their folders."""
    for precision in FORMS[1:]:
        onnxfuse.accelerate(original(), task="text-classification", precision=precision, folder=home / precision)


def inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(1000, 20000, (batch, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def one(form: str, home: Path, threads: int) -> list[float]:
    """Milliseconds of a call for each shape, the median."""
    torch.set_num_threads(threads)
    model = original() if form == FORMS[0] else onnxfuse.load_torch(home / form, threads=threads)
    found = []
    with torch.inference_mode():
        for shape in SHAPES:
            feeds = inputs(*shape)
            found.append(statistics.median(timed(lambda feeds=feeds: model(**feeds))) * 1e3)
    return found


def timed(call: Callable[[], Any]) -> list[float]:
    """Seconds of calls, after two that warm up."""
    call()
    call()
    seconds: list[float] = []
    while sum(seconds) < SECONDS or len(seconds) < 5:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def beside_eager(home: Path, threads: int) -> Table:
    """Columns and rows: milliseconds and ratios of each shape, the median over turns."""
    turns: dict[str, list[list[float]]] = {form: [] for form in FORMS}
    for _ in range(TURNS):
        for form in FORMS:
            command = [sys.executable, __file__, form, str(home), str(threads)]
            turns[form].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    rows = []
    for at, (batch, length) in enumerate(SHAPES):
        cells = [f"{batch} x {length} tokens"]
        for form in FORMS:
            spent = statistics.median(turn[at] for turn in turns[form])
            faster = statistics.median(eager[at] / turn[at] for eager, turn in zip(turns[FORMS[0]], turns[form], strict=True))
            cells.append(f"{spent:.2f} ms" + ("" if form == FORMS[0] else f" ({faster:.2f})"))
        rows.append(cells)
    return ["", "PyTorch eager", "accelerated, fp32", "accelerated, int8"], rows


def wrapper(home: Path) -> Table:
    """Columns and rows: how much of a module's call its runtime's session takes, of one row of 16 and of 128 tokens."""
    module, inside, run = onnxfuse.load_torch(home / "int8", threads=1), [0.0], onnxruntime.InferenceSession.run

    def watched(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return run(*args, **options)
        finally:
            inside[0] = time.perf_counter() - start

    onnxruntime.InferenceSession.run = watched
    rows = []
    for length in (16, 128):
        feeds, whole, session = inputs(1, length), [], []
        for _ in range(CALLS):
            start = time.perf_counter()
            module(**feeds)
            whole.append((time.perf_counter() - start) * 1e3)
            session.append(inside[0] * 1e3)
        more = statistics.median(a - b for a, b in zip(whole, session, strict=True))
        middle = statistics.median(session)
        cells = (f"{statistics.median(whole):.3f} ms", f"{middle:.3f} ms", f"{more:.3f} ms ({more / middle:.1%})")
        rows.append([f"1 x {length} tokens, int8", *cells])
    onnxruntime.InferenceSession.run = run
    return ["1 thread", "module", "session within it", "more"], rows


if __name__ == "__main__":
    form, folder, count = sys.argv[1:]
    sys.stdout.write(json.dumps(one(form, Path(folder), int(count))))
