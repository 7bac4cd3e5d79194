"""What ``scripts/mutate_guards.py`` changes: every guard, condition, operand, bound, default and constant, and nothing else."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "mutants.py"
SOURCE = """
LIMIT, NAMES = 1e-5, {"a": 4}

class Kind:
    whole: bool = False

def judge(match, a: int | None, b, *, strict=True):
    assert a is not None and b
    match.need(a < b, f"{a if a else b} is small")
    helper(match)
    progress(a)
    if not a or b == 1:
        raise ValueError("a" if b else "b")
    def inner(x):
        return x
    c = [x for x in b if x]
    raise KeyError(c) if strict else ValueError
"""
WANTED = {
    "LIMIT, NAMES with 0.0001 for 1e-05",
    "LIMIT, NAMES with 1e-06 for 1e-05",
    "LIMIT, NAMES with 8 for 4",
    "LIMIT, NAMES with 2 for 4",
    "whole with True for False",
    "strict = False for True",
    "without `match.need(a < b, f'{(a if a else b)} is small')`",
    "`a <= b` for `a < b`",
    "without `helper(match)`",
    "always `not a or b == 1`",
    "never `not a or b == 1`",
    "without `not a`",
    "without `b == 1`",
    "`a` for `not a`",
    "`b != 1` for `b == 1`",
    "always `x`",
    "never `x`",
    "without `raise KeyError(c) if strict else ValueError`",
}


@pytest.fixture
def mutants(monkeypatch):
    spec = importlib.util.spec_from_file_location("mutants", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutants", module)  # where its dataclasses look
    spec.loader.exec_module(module)
    return module


def test_what_is_changed(mutants):
    assert {mutant.text for mutant in mutants.of_file("file.py", ast.parse(SOURCE))} == WANTED


def test_each_change_changes_the_code_and_keeps_free_variables(mutants):
    def codes(tree):
        return compile(ast.fix_missing_locations(tree), "file.py", "exec")

    count = len(WANTED)
    for at in range(count):
        tree = ast.parse(SOURCE)
        mutant = mutants.of_file("file.py", tree)[at]
        before = ast.unparse(tree)
        mutant.apply()
        assert ast.unparse(tree) != before
        assert codes(tree) != codes(ast.parse(SOURCE))


def test_a_dropped_guard_of_a_closure_keeps_its_cell(mutants):
    source = "def outer(limit):\n    def inner(match):\n        match.need(limit, 'no')\n        return 1\n    return inner\n"
    tree = ast.parse(source)
    (mutant,) = mutants.of_file("file.py", tree)
    mutant.apply()
    namespace = {}
    exec(compile(ast.fix_missing_locations(tree), "file.py", "exec"), namespace)
    inner = namespace["outer"](0)
    assert inner.__code__.co_freevars == ("limit",)
    assert inner(None) == 1
    assert mutant.functions == (("outer", 1), ("outer.<locals>.inner", 2))


def test_equal_changes_of_one_function_are_told_apart(mutants):
    tree = ast.parse("def f(a):\n    if a: return 1\n    b = 2\n    if a: return b\n")
    assert [mutant.text for mutant in mutants.of_file("file.py", tree)] == [
        "always `a`",
        "never `a`",
        "always `a` #2",
        "never `a` #2",
    ]
