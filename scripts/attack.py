"""Hand onnxfuse what strangers may hand it, each case in a child of its own, and count how it ends.

    python scripts/attack.py [--only PART ...] [--count N] [--seed S] [--name TEXT] [--json FILE]

Exit code 1 when a case ends in another way than done or refused in one line with a documented code.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from attacks import calls, checkpoints, commands, data, escapes, imports, malformed, peers
from attacks.child import BAD, GOOD, Case, Outcome, attempt
from attacks.sources import Sources, prepare

PEERS = "peers"
"""Not onnxfuse: run where it is asked for, and judged by nobody."""

PARTS: dict[str, Callable[[Sources, int], list[Case]]] = {
    "models": malformed.cases,
    "escapes": escapes.cases,
    "checkpoints": checkpoints.cases,
    "data": data.cases,
    "commands": commands.cases,
    "calls": calls.cases,
    PEERS: peers.cases,
}
"""The cases of each part, from the sources and a seed."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, help="this part alone; repeatable")
    parser.add_argument("--count", type=int, default=0, help="so many cases of each part, drawn by the seed; all when not given")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn and mutated")
    parser.add_argument("--name", default="", help="only cases whose text holds this")
    parser.add_argument("--json", type=Path, help="write every outcome into this file")
    arguments = parser.parse_args()
    imports.everything()
    begin = time.monotonic()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        sources = prepare(Path(folder) / "sources", imports.run)
        for part in arguments.only or [part for part in PARTS if part != PEERS]:
            cases = [case for case in PARTS[part](sources, arguments.seed) if arguments.name in str(case)]
            if arguments.count:
                cases = random.Random(arguments.seed).sample(cases, min(arguments.count, len(cases)))
            outcomes += _part(cases, Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) | {"case": str(each.case)} for each in outcomes], indent=1))
    for line in (*_table(outcomes), f"{len(outcomes)} cases in {time.monotonic() - begin:.0f} s, seed {arguments.seed}"):
        print(line)  # noqa: T201 - a program's result
    return int(any(outcome.bad for outcome in outcomes if outcome.case.part != PEERS))


def _part(cases: Sequence[Case], folder: Path) -> list[Outcome]:
    outcomes = []
    for number, case in enumerate(cases):
        outcome = attempt(case, folder / str(number), imports.run)
        outcomes.append(outcome)
        if outcome.bad:
            last = (outcome.text.strip().splitlines() or [""])[-1][:160]
            print(f"{outcome.kind}: {case}: exit {outcome.code}, {outcome.seconds:.1f} s, {last}", file=sys.stderr)  # noqa: T201
    return outcomes


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    """The count of each way to end, by part."""
    kinds = (*GOOD, *BAD)
    lines = ["".join(f"{each:>15}" for each in ("part", "cases", *kinds, "slowest s", "most MB"))]
    for part in dict.fromkeys(outcome.case.part for outcome in outcomes):
        here = [outcome for outcome in outcomes if outcome.case.part == part]
        count = Counter(outcome.kind for outcome in here)
        figures = [len(here), *(count[kind] for kind in kinds)]
        slowest, most = max(each.seconds for each in here), max(each.peak for each in here) >> 20
        lines.append("".join(f"{each:>15}" for each in (part, *figures, f"{slowest:.1f}", most)))
    return lines


if __name__ == "__main__":
    sys.exit(main())
