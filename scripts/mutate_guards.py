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
import ast
import functools
import gc
import hashlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import tomllib
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a forked child has no pool of threads
    os.environ[variable] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import mutants  # noqa: E402
import pytest  # noqa: E402
from _pytest.runner import runtestprotocol  # noqa: E402
from mutants import Mutant  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    "fusions/*.py",
    "onnxfuse/normalize/*.py",
    "onnxfuse/rewrite/*.py",
    "onnxfuse/rewrite/shapes/*.py",
    "onnxfuse/quantization/patches.py",
    "onnxfuse/quantization/smooth.py",
    "onnxfuse/verify/tolerances.py",
    "onnxfuse/verify/expected.py",
    "onnxfuse/verify/difference.py",
    "onnxfuse/verify/parity.py",
    "onnxfuse/verify/inputs.py",
    "onnxfuse/verify/roles.py",
    "onnxfuse/verify/positions.py",
    "onnxfuse/verify/grid.py",
    "onnxfuse/pipeline/optimize.py",
    "onnxfuse/pipeline/quantize.py",
    "onnxfuse/pipeline/run.py",
)
LEARNED = ROOT / "build" / "mutate_guards.jsonl"
EQUIVALENT = ROOT / "scripts" / "equivalent_mutants.toml"
WANTED = 0.95
MOST = 20.0
"""Seconds of tests for one mutant, as they took when nothing was changed."""

SURVIVED, KILLED, BROKEN = 0, 1, 70
Lines = dict[str, set[int]]


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program's result


def fork(work: Callable[[], int], folder: str, seconds: float) -> int:
    """Run ``work`` in a child that is quiet, writes under ``folder``, and ends; its result is the exit code. Returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = BROKEN
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (2**33, 2**33))
        signal.alarm(int(20 * seconds))  # one that waits uses no processor
        os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = tempfile.tempdir = folder
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        code = work()
    except BaseException:  # noqa: BLE001 - told to the parent, which ends
        (Path(folder) / "killer").write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(code)


def _said_in(folder: str) -> str:
    """What a child left to say."""
    note = Path(folder) / "killer"
    return note.read_text(encoding="utf-8") if note.is_file() else "it did not end"


def run(items: list[pytest.Item]) -> pytest.Item | None:
    """Run tests until one fails, and return it."""
    for item, following in zip(items, [*items[1:], None], strict=False):
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
            return item
    return None


# Which test reaches which line -----------------------------------------------------------------------------------


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
                raise RuntimeError(f"learning ended with {status}: {_said_in(folder)}")
            if not pid:
                time.sleep(20)
                say(f"learned what {len(known(new, mutated))} of {len(new)} tests reach")
    LEARNED.write_text("".join(json.dumps(entry) + "\n" for entry in _kept().values()), encoding="utf-8")
    return known(items, mutated)


# Putting a mutant in place ---------------------------------------------------------------------------------------


class Sources:
    """The files to mutate: their trees, their modules, and the functions that live in this process."""

    def __init__(self) -> None:
        paths = [path for pattern in FILES for path in sorted(ROOT.glob(pattern))]
        self.trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}
        self.modules = {file: importlib.import_module(_module_of(file)) for file in self.trees}
        self.names = {str(module.__file__): file for file, module in self.modules.items()}
        self._functions: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
        for thing in gc.get_objects():
            if type(thing) is FunctionType and thing.__code__.co_filename in self.names:
                code = thing.__code__
                self._functions[self.names[code.co_filename], code.co_qualname, code.co_firstlineno].append(thing)

    def mention(self, mutant: Mutant) -> Lines:
        """The lines that a mutant changes, or that read the constant it changes."""
        if not mutant.names:
            return {mutant.file: set(mutant.lines)}
        word = re.compile(rf"\b({'|'.join(mutant.names)})\b")
        texts = {file: (ROOT / file).read_text(encoding="utf-8").splitlines() for file in self.trees}
        return {file: {at for at, text in enumerate(lines, 1) if word.search(text)} for file, lines in texts.items()}

    def install(self, mutant: Mutant) -> None:
        """Change this process; nothing undoes it."""
        mutant.apply()
        tree, module = ast.fix_missing_locations(self.trees[mutant.file]), self.modules[mutant.file]
        if mutant.names:
            self._rebind(mutant, vars(module))
        elif mutant.default:
            self._default(mutant, vars(module))
        else:
            new = {(code.co_qualname, code.co_firstlineno): code for code in _codes(compile(tree, str(module.__file__), "exec"))}
            for function in mutant.functions:
                for holder in self._functions[mutant.file, *function]:
                    holder.__code__ = new[function]

    def _default(self, mutant: Mutant, namespace: dict[str, Any]) -> None:
        arguments = mutant.statement.args  # type: ignore[union-attr]
        for function in self._functions[mutant.file, *mutant.functions[-1]]:
            function.__defaults__ = tuple(_value(node, namespace) for node in arguments.defaults) or None
            function.__kwdefaults__ = {
                argument.arg: _value(node, namespace)
                for argument, node in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
                if node is not None
            }

    def _rebind(self, mutant: Mutant, namespace: dict[str, Any]) -> None:
        """A constant of a module, in all modules that imported it; or the default of a dataclass's field."""
        changed = dict(namespace)
        exec(compile(ast.Module([mutant.statement], []), "<mutant>", "exec"), changed)
        for name in mutant.names:
            new = changed[name]
            if mutant.function:
                owner = namespace[mutant.function]
                start, code = owner.__init__, owner.__init__.__code__
                fields = code.co_varnames[code.co_argcount - len(start.__defaults__) : code.co_argcount]
                start.__defaults__ = tuple(
                    new if field == name else old for field, old in zip(fields, start.__defaults__, strict=True)
                )
                continue
            old = namespace[name]
            for module in list(sys.modules.values()):
                if getattr(module, "__name__", "").startswith(("onnxfuse", "tests")) and vars(module).get(name) is old:
                    setattr(module, name, new)


def _module_of(file: str) -> str:
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.startswith("onnxfuse") else f"onnxfuse.{name}"


def _codes(code: Any) -> Iterator[Any]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            yield from _codes(constant)


def _value(node: ast.expr, namespace: dict[str, Any]) -> Any:
    return eval(compile(ast.fix_missing_locations(ast.Expression(node)), "<mutant>", "eval"), namespace)


# The run ---------------------------------------------------------------------------------------------------------


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
        killer = _said_in(folder)
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
