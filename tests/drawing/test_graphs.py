"""graphs/: a drawing of every rule and every family, each legible."""

import re

import pytest

from onnxfuse import catalog, targets
from onnxfuse.optimizer import NORMAL_RULES
from tests.drawing import browser
from tests.pages import ROOT

FOLDER = ROOT / "graphs"
DRAWINGS = sorted(FOLDER.glob("*.svg"))


def test_every_rule_and_every_family_has_one():
    fusions = [rule for fusion in catalog.fusions().values() for rule in fusion.rules]
    lowered = [each for thing in targets.lowerings().values() for each in thing.values()]
    rules = (*NORMAL_RULES, *fusions, *(rule for each in lowered for rule in (*each.before, *each.rules)))
    wanted = {f"rule-{rule.name}.svg" for rule in rules} | {f"{name}.svg" for name in catalog.families()}
    assert {path.name for path in DRAWINGS} == wanted
    assert set(re.findall(r"\((\S+\.svg)\)", (FOLDER / "README.md").read_text())) == wanted


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_is_legible(tmp_path, scheme):
    faults, blank = {}, tmp_path / "blank.html"
    blank.write_text('<link rel="icon" href="data:,">')
    with browser.opened(blank, scheme) as page:
        for path in DRAWINGS:
            page.set_content(path.read_text())
            count, wrong = page.evaluate(browser.FACTS)
            if wrong or not count:
                faults[path.name] = wrong
    assert not faults
