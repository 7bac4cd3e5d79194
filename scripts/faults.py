"""Break every call that changes a file in optimize, quantize, export, tune and run, one at a time, and count what is lost.

    python scripts/faults.py [--only optimize ...] [--kinds kill int ...] [--every 3] [--json]

A small model is made twice. For each verb, a folder holds what it wrote for the first; then it runs for the second, in a
forked child whose Nth changing call (open for write, write, fsync, rename, link, unlink, mkdir and so on; faults.c is
preloaded, which sees them) is its last, or comes with a signal, or fails: on a full disk once or from then on, or without
permission from then on. Afterwards the folder is looked at as it lies, then as a reader of onnxfuse's sees it, then after the
next run there. Counted are

    torn       files that are neither the old one nor the new one
    mixed      folders that hold old and new ones, for a reader of onnxfuse's
    leftovers  other files, after the next run
    untrue     what was said does not hold; a traceback, several lines or another exit code count here too

Exit code 1 unless all are 0. ``tune`` does not measure here; all else is as users run it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_judge import Judge, content_of

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "build" / "faults.so"
KINDS = {"kill": 1, "int": 2, "term": 3, "full-once": 4, "full": 5, "denied": 6}
COUNTED = ("torn", "mixed", "leftovers", "untrue")


def preloaded() -> ctypes.CDLL:
    """The library of faults; this program starts anew with it first."""
    if os.environ.get("LD_PRELOAD") != str(LIBRARY):
        LIBRARY.parent.mkdir(exist_ok=True)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", LIBRARY, ROOT / "scripts" / "faults.c", "-ldl"], check=True)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        os.environ |= threads | {"LD_PRELOAD": str(LIBRARY), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        os.execv(sys.executable, [sys.executable, *sys.argv])
    return ctypes.CDLL(str(LIBRARY))


# The verbs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A verb: its command line in a folder, what it needs there of the second model, and where its files go."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...]
    fresh: bool = False
    """Whether nothing of an earlier run is there."""


EXPORT = ("--exporter", "torchscript", "-o", "out/model")
CASES = (
    Case("optimize", ("optimize", "out/model/model.onnx", "--verify", "final"), ("model.onnx",)),
    Case(
        "quantize",
        ("quantize", "out/model/model_optimized.onnx", "--calibration", "none"),
        ("model.onnx", "model_optimized.onnx"),
    ),
    Case("tune", ("tune", "out/model/model.onnx", "--threads", "1"), ("model.onnx",)),
    Case("export", ("export", "../second", *EXPORT), ()),
    Case("export, new folder", ("export", "../second", *EXPORT), (), fresh=True),
    Case("run", ("run", "../second", *EXPORT, "--rounds", "1", "--length", "8"), ()),
)


def make_checkpoint(folder: Path, seed: int) -> None:
    """A BERT of one layer with a vocabulary of its own."""
    import torch
    import transformers

    torch.manual_seed(seed)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{seed}{number}" for number in range(95))]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": bool(seed % 2), "model_max_length": 16 + seed}))
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 1}
    config = transformers.BertConfig(vocab_size=100, max_position_embeddings=16, **sizes)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)


def quick_tune() -> None:
    """Have ``tune`` find everything equally fast."""
    from onnxfuse.measure.benchmark import Ratio
    from onnxfuse.pipeline import tune

    def measure(self: Any, thing: str, chosen: Any, variants: Any, then: Any) -> list[Any]:
        return [tune.Trial(thing, name, 1.0, Ratio(1.0, 1.0, 1.0)) for name in (tune.NOISE, *variants)]

    tune.Measuring.measure = measure  # type: ignore[method-assign]


def call(place: Path, command: tuple[str, ...], arm: Callable[[], None]) -> tuple[int, str, int]:
    """Run ``onnxfuse`` in a forked child. Returns its exit code, the lines that it ended with, and its changing calls."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as counted:
        child = os.fork()
        if not child:
            _child(place, command, arm, said.fileno(), counted.fileno())
        _, status = os.waitpid(child, 0)
        said.seek(0)
        counted.seek(0)
        lines = [line for line in said.read().decode().splitlines() if not line.startswith("  ")]
        return os.waitstatus_to_exitcode(status), "\n".join(lines), int(counted.read() or 0)


def _child(place: Path, command: tuple[str, ...], arm: Callable[[], None], said: int, counted: int) -> None:
    code = 70
    try:
        os.dup2(said, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["onnxfuse", *command]
        os.chdir(place)
        tempfile.tempdir = str(place / "tmp")
        from onnxfuse.cli.app import main

        arm()
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    finally:
        FAULTS.fault_count.restype = ctypes.c_long
        number = FAULTS.fault_count()
        FAULTS.fault_arm(b"", 0, 0)
        os.write(counted, str(number).encode())
        sys.stderr.flush()
        os._exit(code)


def prepared(case: Case, work: Path) -> Path:
    """A folder as a verb finds it: the first model's files, and those of the second that it works on."""
    place = work / "place"
    shutil.rmtree(place, ignore_errors=True)
    (place / "tmp").mkdir(parents=True)
    (place / "out").mkdir()
    if not case.fresh:
        shutil.copytree(work / "first-out", place / "out" / "model")
    for name in case.needs:
        shutil.copy(work / "second-out" / name, place / "out" / "model" / name)
    return place


def tried(case: Case, work: Path, kinds: list[str], every: int, tell: Callable[[str], object]) -> Counter[str]:
    """Break each changing call of a verb, and count what is lost."""
    place = prepared(case, work)
    old = content_of(place / "out")
    code, said, calls = call(place, case.command, lambda: FAULTS.fault_arm(str(place).encode(), 0, 0))
    judge = Judge(place, old, content_of(place / "out"))
    if code or judge.sides(judge.new) != {"new"}:
        raise SystemExit(f"{case.name} does not run: {said} {judge.sides(judge.new)}")
    counts = Counter({"calls": calls})
    for kind in kinds:
        for number in range(1, calls + 1, every):
            prepared(case, work)
            judge.begin()
            arm = (str(place).encode(), ctypes.c_long(number), KINDS[kind])
            code, said, _ = call(place, case.command, lambda: FAULTS.fault_arm(*arm))
            wrong = judge.faults(kind, code, said)
            counts["tried"] += 1
            counts.update(wrong.keys())
            for name, why in wrong.items():
                tell(f"{case.name}, {kind} at call {number}: {name}: {why}")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[case.name for case in CASES])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--every", type=int, default=1, help="only each Nth call")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        make_both(work)
        for case in (case for case in CASES if case.name in arguments.only):
            counts = tried(case, work, arguments.kinds, arguments.every, lambda line: sys.stderr.write(line + "\n"))
            results[case.name] = counts
            if not arguments.json:
                shown = ", ".join(f"{name} {counts[name]}" for name in ("calls", "tried", *COUNTED))
                sys.stdout.write(f"{case.name}: {shown}\n")
                sys.stdout.flush()
    if arguments.json:
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
    raise SystemExit(any(counts[name] for counts in results.values() for name in COUNTED))


def make_both(work: Path) -> None:
    """Both checkpoints, and what every verb makes of them."""
    quick_tune()
    (work / "tmp").mkdir()
    for seed, name in enumerate(("first", "second")):
        make_checkpoint(work / name, seed)
        for command in (
            ("run", name, *EXPORT[:2], "-o", f"{name}-out", "--rounds", "1", "--length", "8"),
            ("tune", f"{name}-out/model.onnx", "--threads", "1"),
        ):
            code, said, _ = call(work, command, lambda: None)
            if code:
                raise SystemExit(f"{name}: {said}")


if __name__ == "__main__":
    FAULTS = preloaded()
    main()
