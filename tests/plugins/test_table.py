"""The table of CONTRIBUTING: what one writes to add a thing, and in how many lines, as these tests' examples do."""

import re
from pathlib import Path

import pytest

from tests.plugins import test_exporter, test_family, test_fusion, test_runtime, test_target

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"

EXAMPLES = {
    "fusion": test_fusion.SIGMOID,
    "family": test_family.ELECTRA,
    "runtime": test_runtime.REFERENCE,
    "exporter": test_exporter.SIGNED,
    "target with operators": test_target.LOWERING,
}


@pytest.mark.parametrize("thing", EXAMPLES)
def test_lines(thing):
    """Empty ones do not count."""
    rows = dict(re.findall(r"^\| an? ([a-z ]+) \|.*\| (\d+)[^|]*\|$", CONTRIBUTING.read_text(), re.MULTILINE))
    assert int(rows[thing]) == sum(bool(line.strip()) for line in EXAMPLES[thing].splitlines())
