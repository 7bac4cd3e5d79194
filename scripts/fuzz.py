"""Feed strange bytes to every reader of onnxfuse and to its rewrites, guided by coverage (atheris), and keep what breaks them.

    python scripts/fuzz.py SECONDS [--only PART ...]

The time is shared between the parts of ``tests/fuzz/parts.py``, each in a process of its own, which a native crash, a hang of
30 s or 2 GB of memory ends and which is then started again. Findings lie in ``build/fuzz/findings``, one for each place that
raises, the shortest input that was met; ``--replay FILE`` shows one again. Exit code 1 when there are any.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "fuzz"
KEPT = ROOT / "tests" / "fuzz" / "corpus"
CHILD = Path(__file__).with_name("fuzz_child.py")
HANG, MEMORY = 30, 2048
"""Seconds that one input may take, and MiB that it may add to what the process has at its start (about 600 MiB)."""

PARTS = {"model": 4, "optimize": 3, "splices": 2, "graphs": 3, "checkpoint": 1, "data": 1, "record": 1}
"""Shares of the time."""

DIED = {70: "hang", 71: "memory", 77: "signal"}
"""Exit codes of libFuzzer."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", type=int, nargs="?", default=600, help="of fuzzing in all")
    parser.add_argument("--only", nargs="+", default=[*PARTS], choices=[*PARTS], help="parts to fuzz")
    parser.add_argument("--replay", type=Path, help="a finding to show again, instead")
    arguments = parser.parse_args()
    if arguments.replay:
        return subprocess.run([sys.executable, CHILD, "--replay", arguments.replay], check=False).returncode
    shares = sum(PARTS[name] for name in arguments.only)
    results = {name: fuzz(name, arguments.seconds * PARTS[name] // shares) for name in arguments.only}
    _add_up(results)
    found = sum(len(result["findings"]) for result in results.values())
    for name, result in results.items():
        print(f"{name:<11}{result['runs']:>9} inputs in {result['seconds']:>6} s, {len(result['findings'])} findings")  # noqa: T201
        for finding in result["findings"]:
            print(f"  {finding}")  # noqa: T201
    print(f"{found} findings" + (f" in {BUILD / 'findings'}; show one with: --replay FILE" if found else ""))  # noqa: T201
    return 1 if found else 0


def fuzz(name: str, seconds: int) -> dict[str, object]:
    """Fuzz one part, starting again as often as its process dies."""
    corpus, began, runs = BUILD / "corpus" / name, time.monotonic(), 0
    findings = BUILD / "findings" / name
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    before = _inputs(findings)
    while (left := seconds - int(time.monotonic() - began)) > 0:
        runs += _child(name, left, corpus, findings)
    new = sorted(str(path.relative_to(BUILD)) for path in _inputs(findings) - before)
    return {"runs": runs, "seconds": int(time.monotonic() - began), "findings": new}


def _inputs(findings: Path) -> set[Path]:
    """The inputs in a folder of findings: what each raised lies beside it as a .log file."""
    return {path for path in findings.iterdir() if path.suffix != ".log"}


def _child(name: str, seconds: int, corpus: Path, findings: Path) -> int:
    """One process: the number of inputs it ran. What ended it before its time becomes a finding."""
    crash = BUILD / f"crash-{name}"
    crash.unlink(missing_ok=True)
    log = BUILD / f"{name}.log"
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={HANG}",
        f"-rss_limit_mb={MEMORY + 600}",
        f"-exact_artifact_path={crash}",
        "-max_len=131072",
        "-len_control=0",
        f"-seed={int(time.time()) % 10**9}",
    ]
    seeds = [KEPT / name] if (KEPT / name).is_dir() else []
    with log.open("wb") as out:
        command = [sys.executable, CHILD, name, findings, *options, corpus, *seeds]
        ended = subprocess.run(command, stdout=out, stderr=out, cwd=ROOT, env=_environment(), check=False)
    text = log.read_text(errors="replace")
    if ended.returncode and crash.exists():
        place = findings / f"{DIED.get(ended.returncode, 'signal')}-{hashlib.sha1(crash.read_bytes()).hexdigest()[:12]}"
        shutil.move(crash, place)
        shutil.copy(log, f"{place}.log")
    elif ended.returncode:
        raise SystemExit(f"{name} could not be fuzzed, see {log}:\n{text[-2000:]}")
    return max((int(number) for number in re.findall(r"^#(\d+)", text, re.MULTILINE)), default=0)


def _environment() -> dict[str, str]:
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE", "PYTHONHASHSEED"), "1")
    return os.environ | one


def _add_up(results: dict[str, dict[str, object]]) -> None:
    """Add the inputs and seconds to those of earlier calls, in build/fuzz/total.json."""
    path = BUILD / "total.json"
    total = json.loads(path.read_text()) if path.exists() else {}
    for name, result in results.items():
        known = total.setdefault(name, {"runs": 0, "seconds": 0})
        known["runs"] += result["runs"]
        known["seconds"] += result["seconds"]
    path.write_text(json.dumps(total, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
