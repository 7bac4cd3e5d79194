"""Change one condition, guard or number at a time and run the tests that reach it: what no test notices, nothing holds.

    python scripts/mutate_guards.py [--only fusions/qkv.py ...] [--tests tests/fusions ...] [--jobs 2] [--sample 200] [--killers]

Everything is imported once. A first run of the fast tests learns which test reaches which line; what it learned is kept in build/
and used again for tests whose file, and whose reached files, are the same. Each mutant is then a forked child that compiles the
changed function into every place that holds the old one, and runs the tests that reach it, the quickest first, until one fails:
at most ``MOST`` seconds of them. A child that does not end counts as killed: without its guard, a rule may fire for ever.

``equivalent_mutants.toml`` names the mutants that compute the same, or all that is asked for, each with its reason. The result is
the share killed of all others; exit code 1 under 95 %, or when the list names what is not there.

Why not mutmut 3 or cosmic-ray: the first leaves decorated functions alone, which all shape functions are, and constants of
modules; the second starts pytest anew for each mutant.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a forked child has no pool of threads
    os.environ[variable] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import mutants  # noqa: E402
import pytest  # noqa: E402
from mutant_children import BROKEN, KILLED, SURVIVED, fork, run, said_in, say  # noqa: E402
from mutant_reach import learned  # noqa: E402
from mutant_sources import Sources  # noqa: E402
from mutants import Mutant  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "scripts" / "equivalent_mutants.toml"
WANTED = 0.95
MOST = 20.0
"""Seconds of tests for one mutant, as they took when nothing was changed."""


class Judge:
    """The part of pytest that decides what to run: it has the tests, and every child inherits them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.code = BROKEN

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = [item for item in session.items if "process" not in getattr(item, "fixturenames", ())]  # not this process
        sources = Sources()
        found = [mutant for file, tree in sources.trees.items() for mutant in mutants.of_file(file, tree)]
        excused = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))
        stale = sorted(excused.keys() - {mutant.key for mutant in found})
        found = [mutant for mutant in found if not self.options.only or mutant.file in self.options.only]
        judged = [mutant for mutant in found if mutant.key not in excused]
        if self.options.sample:
            judged = random.Random(self.options.seed).sample(judged, min(self.options.sample, len(judged)))
        reached = learned(items, sources.names, {mutant.file for mutant in judged}, self.options.jobs)
        for test in (test for test, entry in reached.items() if not entry["passed"]):
            say(f"left out, it fails when nothing is changed: {test}")
        by_quickness = sorted(
            (item for item in items if reached[item.nodeid]["passed"]), key=lambda item: reached[item.nodeid]["seconds"]
        )
        gc.freeze()
        survivors = self.judge(judged, sources, by_quickness, reached)
        for key in stale:
            say(f"{EQUIVALENT.name} names what is not there: {key}")
        self.code = report(judged, survivors, len(found) - len(judged) if not self.options.sample else 0) or bool(stale)
        return True

    def judge(
        self, judged: list[Mutant], sources: Sources, items: list[pytest.Item], reached: dict[str, dict[str, Any]]
    ) -> list[Mutant]:
        """Those that no test notices."""
        survivors: list[Mutant] = []
        running: dict[int, tuple[Mutant, str]] = {}
        for at, mutant in enumerate(judged):
            if at and at % 100 == 0:
                say(f"{at} of {len(judged)} mutants judged, {len(survivors)} survived")
            wanted = sources.mention(mutant)
            chosen, seconds = [], 0.0
            for item in items:
                entry = reached[item.nodeid]
                if any(lines.intersection(entry["lines"].get(file, ())) for file, lines in wanted.items()):
                    seconds += entry["seconds"]
                    if chosen and seconds > MOST:
                        break
                    chosen.append(item)
            if len(running) >= self.options.jobs:
                survivors += self.ended(running)
            folder = tempfile.mkdtemp()
            pid = fork(lambda m=mutant, c=chosen, f=folder: attempt(m, c, sources, Path(f)), folder, 20 + 5 * min(seconds, MOST))
            running[pid] = (mutant, folder)
        while running:
            survivors += self.ended(running)
        return survivors

    def ended(self, running: dict[int, tuple[Mutant, str]]) -> list[Mutant]:
        """Wait for one child; its mutant when it survived."""
        pid, status = os.wait()
        mutant, folder = running.pop(pid)
        killer = said_in(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == BROKEN:
            raise RuntimeError(f"{mutant.key} could not be put in place: {killer}")
        if status == SURVIVED:
            say(f"survived: {mutant.file}:{mutant.line}: {mutant.function}: {mutant.text}")
            return [mutant]
        if self.options.killers:
            say(f"killed: {mutant.file}:{mutant.line}: {mutant.function}: {mutant.text} by {killer}")
        return []


def attempt(mutant: Mutant, items: list[pytest.Item], sources: Sources, folder: Path) -> int:
    """In a child: whether the tests notice."""
    sources.install(mutant)
    failed = run(items)
    if failed is not None:
        (folder / "killer").write_text(failed.nodeid, encoding="utf-8")
    return SURVIVED if failed is None else KILLED


def report(judged: list[Mutant], survivors: list[Mutant], excused: int) -> int:
    """Counts by file and altogether; 0 when enough are killed."""
    for file in dict.fromkeys(mutant.file for mutant in judged):
        every, alive = (sum(mutant.file == file for mutant in group) for group in (judged, survivors))
        say(f"{file}: {every - alive} of {every}")
    share = 1 - len(survivors) / max(len(judged), 1)
    say(
        f"{len(judged) - len(survivors)} of {len(judged)} changes are noticed by a test ({share:.1%}); "
        f"{excused} more compute the same"
    )
    return 0 if share >= WANTED else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="FILE", help="mutate these files alone")
    parser.add_argument("--tests", nargs="+", metavar="PATH", default=[], help="run these tests alone")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sample", type=int, help="judge this many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--killers", action="store_true", help="say which test notices each change")
    options = parser.parse_args()
    judge = Judge(options)
    os.chdir(ROOT)
    sys.path[0] = str(ROOT)  # not scripts/, where modules have names of libraries
    pytest.main(["-q", "-s", "-p", "no:cacheprovider", "-m", "not slow", "--rootdir", str(ROOT), *options.tests], plugins=[judge])
    return judge.code


if __name__ == "__main__":
    sys.exit(main())
