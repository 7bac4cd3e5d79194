"""Drop one guard line at a time and run the rules' tests: a line that no test misses is a guard that nothing holds.

    python scripts/mutate_guards.py [--only fusions/qkv.py] [--jobs 2]

A guard line is a call of ``match.need...``, or of a helper that is given the match, whose result nobody uses. Exit code 1 when
fewer than 95 % are killed. Tests that do not end count as failed: without its guard, a rule may fire for ever.
"""

from __future__ import annotations

import argparse
import ast
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("fusions", "onnxfuse/normalize")
TESTS = ("tests/normalize", "tests/fusions", "tests/test_layer.py")
WANTED = 0.95
LONGEST = 120
"""Seconds; the tests take a fifth of that when nothing is wrong."""


@dataclass(frozen=True)
class Mutant:
    """One guard line to drop: its file and the lines it spans."""

    file: str
    first: int
    last: int
    text: str


def mutants(only: str | None) -> Iterator[Mutant]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.py")):
            name = str(path.relative_to(ROOT))
            if only in (None, name):
                yield from _of_file(name, path.read_text(encoding="utf-8"))


def _of_file(name: str, source: str) -> Iterator[Mutant]:
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef) or not any(argument.arg == "match" for argument in function.args.args):
            continue
        for statement in ast.walk(function):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and _guards(statement.value):
                yield Mutant(name, statement.lineno, statement.end_lineno or statement.lineno, ast.unparse(statement))


def _guards(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    takes_match = any(isinstance(argument, ast.Name) and argument.id == "match" for argument in call.args)
    return called.startswith("match.need") or takes_match


def killed(mutant: Mutant, home: Path) -> bool:
    """Whether the tests fail without the line."""
    path = home / mutant.file
    lines = (ROOT / mutant.file).read_text(encoding="utf-8").splitlines(keepends=True)
    indent = lines[mutant.first - 1][:len(lines[mutant.first - 1]) - len(lines[mutant.first - 1].lstrip())]
    lines[mutant.first - 1:mutant.last] = [f"{indent}pass\n"]
    path.write_text("".join(lines), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-k", "not ort", *TESTS]
        environment = os.environ | {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=home, env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=LONGEST)
        return done.returncode == 1
    except subprocess.TimeoutExpired:
        return True
    finally:
        shutil.copyfile(ROOT / mutant.file, path)


def _copy(home: Path) -> Path:
    """The tree, with the mapped folders where Python looks for them."""
    for name in ("onnxfuse", "fusions", "models", "tests"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", home / "pyproject.toml")
    for name in ("fusions", "models"):
        (home / "onnxfuse" / name).symlink_to(home / name)
    return home


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    found = list(mutants(arguments.only))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        homes: queue.Queue[Path] = queue.Queue()
        for number in range(arguments.jobs):
            homes.put(_copy(Path(folder) / str(number)))

        def judge(mutant: Mutant) -> bool:
            home = homes.get()
            try:
                return killed(mutant, home)
            finally:
                homes.put(home)

        survivors = []
        for mutant, dead in zip(found, pool.map(judge, found), strict=True):
            if not dead:
                survivors.append(mutant)
                print(f"survived: {mutant.file}:{mutant.first}: {mutant.text}", flush=True)  # noqa: T201 - a program's result
    share = 1 - len(survivors) / len(found)
    print(f"{len(found) - len(survivors)} of {len(found)} guard lines are held by a test ({share:.1%})")  # noqa: T201
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
