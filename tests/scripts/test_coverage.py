"""The coverage table: a column for each family that every framework has, and what is incomplete told by its opset."""

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "coverage.py"


@pytest.fixture
def coverage(monkeypatch):
    spec = importlib.util.spec_from_file_location("coverage_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "coverage_table", module)  # where its dataclass looks
    spec.loader.exec_module(module)
    return module


def test_every_family_of_the_table_has_a_small_model(coverage):
    assert coverage.FAMILIES.keys() == SMALL.keys()


def test_the_table_has_a_column_for_each_family(coverage, monkeypatch):
    monkeypatch.setattr(coverage, "FAMILIES", dict.fromkeys(("bert", "vit", "new"), "AutoModel"))
    rows = [coverage.Row(family, "dynamo", "sdpa", "18", "here", "layer_norm 5/5", error=1e-7) for family in coverage.FAMILIES]
    rows.append(coverage.Row("new", "dynamo", "sdpa", "14", "here", "layer_norm 4/5", complete=False, error=2e-7))
    rows.append(coverage.Row("new", "dynamo", "sdpa", "23", "here", refused="it cannot"))
    said, _, refused, _, head, rule, line = coverage.table(rows).splitlines()
    assert said.startswith("3 of 4 graphs fuse completely.")
    assert refused == "- opset 23: it cannot"
    assert head == "| graph from | attention | model from | opsets | bert | vit | new | largest difference |"
    assert rule.count("|") == head.count("|") == line.count("|")
    assert (
        line == "| dynamo | sdpa | here | 18, 14 | norm 5/5 | norm 5/5 | opset 14: layer_norm 4/5, difference 2e-07 | 2.0e-07 |"
    )
