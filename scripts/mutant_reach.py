"""Which test reaches which line: learned once, kept in build/, and used again where neither has changed."""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from mutant_children import fork, said_in, say

ROOT = Path(__file__).resolve().parent.parent
LEARNED = ROOT / "build" / "mutate_guards.jsonl"
Lines = dict[str, set[int]]


class Tracer:
    """Collects the lines of ``files`` that run; once all of a function's have, it is left alone.

    As a plugin of pytest, it keeps what fixtures reach that several tests share: it belongs to each test that uses them.
    """

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files  # by the name that code objects bear
        self._whole: dict[Any, set[int]] = {}
        self._shared: dict[str, Lines] = defaultdict(lambda: defaultdict(set))
        self.lines: Lines = defaultdict(set)

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        code = frame.f_code
        file = self._files.get(code.co_filename)
        if file is None:
            return None
        seen = self.lines[file]
        if code not in self._whole:
            self._whole[code] = {line for _, _, line in code.co_lines() if line}
        if self._whole[code] <= seen:
            return None

        def local(frame: Any, event: str, argument: Any) -> Any:
            seen.add(frame.f_lineno)
            return local

        return local

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        if fixturedef.scope == "function":
            return (yield)
        outer, self.lines = self.lines, defaultdict(set)
        try:
            return (yield)
        finally:
            _add(self._shared[fixturedef.argname], self.lines)
            self.lines = outer

    def reached(self, item: pytest.Item) -> Lines:
        for name in getattr(item, "fixturenames", ()):
            _add(self.lines, self._shared.get(name, {}))
        return self.lines


def _add(lines: Lines, more: Lines) -> None:
    for file, seen in more.items():
        lines[file] |= seen


def learn(items: list[pytest.Item], files: dict[str, str]) -> int:
    """Run tests one by one under a tracer, and keep what each reached: a line of JSON, whole or not there."""
    tracer = Tracer(files)
    items[0].config.pluginmanager.register(tracer)
    threading.settrace(tracer)
    rules = [thing for thing in gc.get_objects() if type(thing).__name__ == "Rule"]
    out = os.open(LEARNED, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for item, following in zip(items, [*items[1:], None], strict=False):
        for rule in rules:
            vars(rule).pop("pattern", None)  # traced when it is first asked for, by whichever test comes first
        tracer.lines = defaultdict(set)
        start = time.process_time()
        sys.settrace(tracer)
        reports = runtestprotocol(item, log=False, nextitem=following)
        sys.settrace(None)
        reached = tracer.reached(item)
        entry = {
            "test": item.nodeid,
            "passed": not any(report.failed for report in reports),
            "seconds": round(time.process_time() - start, 3),
            "digests": digests(item, reached),
            "lines": {file: sorted(lines) for file, lines in reached.items()},
        }
        os.write(out, (json.dumps(entry) + "\n").encode())
    return 0


def digests(item: pytest.Item, reached: Iterable[str]) -> dict[str, str]:
    """Of what decides a test's lines: its file, what tests share, and the files that it reaches."""
    shared = (path for path in (ROOT / "tests").glob("*.py") if not path.name.startswith("test_"))
    paths = {str(path.relative_to(ROOT)) for path in (item.path, *shared)}
    return {path: _content(ROOT / path) for path in sorted(paths.union(reached))}


def holds(entry: dict[str, Any], mutated: set[str]) -> bool:
    """Whether what was learned of a test is still true of the files that are mutated now."""
    return all(
        _content(ROOT / path) == seen for path, seen in entry["digests"].items() if path in mutated or path not in entry["lines"]
    )


@functools.cache
def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _kept() -> dict[str, dict[str, Any]]:
    """What was learned last of each test."""
    lines = LEARNED.read_text(encoding="utf-8").splitlines() if LEARNED.is_file() else []
    return {entry["test"]: entry for entry in map(json.loads, lines)}


def known(items: list[pytest.Item], mutated: set[str]) -> dict[str, dict[str, Any]]:
    """What was learned of these tests, as far as it is still true."""
    kept = _kept()
    return {item.nodeid: kept[item.nodeid] for item in items if item.nodeid in kept and holds(kept[item.nodeid], mutated)}


def learned(items: list[pytest.Item], files: dict[str, str], mutated: set[str], jobs: int) -> dict[str, dict[str, Any]]:
    """What each test reaches: from the last time where that is still true."""
    for file in files.values():
        _content(ROOT / file)  # as it was imported
    LEARNED.parent.mkdir(exist_ok=True)
    before = known(items, mutated)
    new = [item for item in items if item.nodeid not in before]
    modules = list(dict.fromkeys(item.path for item in new))
    shares = [[item for item in new if modules.index(item.path) % jobs == job] for job in range(min(jobs, len(modules)))]
    with tempfile.TemporaryDirectory() as folder:
        children = {fork(lambda mine=mine: learn(mine, files), folder, 7200) for mine in shares}
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            children.discard(pid)
            if status:
                raise RuntimeError(f"learning ended with {status}: {said_in(folder)}")
            if not pid:
                time.sleep(20)
                say(f"learned what {len(known(new, mutated))} of {len(new)} tests reach")
    LEARNED.write_text("".join(json.dumps(entry) + "\n" for entry in _kept().values()), encoding="utf-8")
    return known(items, mutated)
