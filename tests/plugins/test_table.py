"""The table of CONTRIBUTING: what one writes to add a thing, and in how many lines, as these tests' examples do."""

import re
from pathlib import Path

import pytest

from tests.plugins import test_baseline, test_exporter, test_family, test_fusion, test_layout, test_runtime, test_target

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"

EXAMPLES = {
    "fusion": test_fusion.SIGMOID,
    "family": test_family.ERNIE,
    "runtime": test_runtime.REFERENCE,
    "exporter": test_exporter.SIGNED,
    "layout": test_layout.FLAT,
    "baseline": test_baseline.REFERENCE,
    "target with operators": test_target.LOWERING,
}


ROWS = dict(re.findall(r"^\| an? ([a-z ]+) \|.*\| (\d+)[^|]*\|$", CONTRIBUTING.read_text(), re.MULTILINE))


def test_a_target_has_a_line_for_each_of_its_keys():
    assert int(ROWS["target"]) == len(test_target.TARGET)
    assert ROWS.keys() == {*EXAMPLES, "target"}


@pytest.mark.parametrize("thing", EXAMPLES)
def test_lines(thing):
    """Empty ones do not count."""
    assert int(ROWS[thing]) == sum(bool(line.strip()) for line in EXAMPLES[thing].splitlines())
