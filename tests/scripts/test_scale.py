"""The simulation of many nodes: exact where nothing varies, and worse for each thing that goes wrong; what is written is on the page."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxfuse.bulk.job import PART
from onnxfuse.bulk.work import WINDOW

pytest.importorskip("pyarrow")
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import measure_map  # noqa: E402
import simulate_scale  # noqa: E402
from simulate_scale import Case, simulated  # noqa: E402

ALIKE = np.full(10, 2.0)
"""Windows of 2 s."""


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(simulate_scale, "ROWS", 100 * PART)


def test_nodes_that_are_alike_share_the_parts():
    part = 2.0 * PART / WINDOW
    for nodes, rounds in ((1, 100), (10, 10), (30, 4), (100, 1), (1000, 1)):
        assert simulated(nodes, ALIKE, Case(False, False)) == pytest.approx(rounds * part)


def test_slow_and_lost_nodes_cost_time_and_no_part(monkeypatch):
    monkeypatch.setattr(simulate_scale, "SLOW_NODES", 0.2)
    alike, slow = (simulated(10, ALIKE, Case(which, False)) for which in (False, True))
    assert alike < slow <= simulate_scale.SLOWNESS * alike
    monkeypatch.setattr(simulate_scale, "LIFE", 100.0)
    lost = simulated(10, ALIKE, Case(False, True))
    assert lost > alike
    assert lost == simulated(10, ALIKE, Case(False, True))  # the same seed


def test_files_are_cut_faster_than_models_run():
    assert simulate_scale.cut_speed(".parquet", 20_000) > simulate_scale.cut_speed(".jsonl", 20_000) > 20_000


def test_the_page_holds_what_was_measured():
    """docs/scale.md is what the script makes of benchmarks/scale.json, but for what it measures anew."""
    figures, page = json.loads(simulate_scale.FIGURES.read_text()), simulate_scale.PAGE.read_text()
    assert "".join(simulate_scale.measurement(figures)) in page
    assert figures["equal"] and figures["many"]["rows"] == figures["ray"]["rows"] == 200_000
    assert figures["many"]["peak"] <= 1.1 * figures["few"]["peak"]


def test_sentences_are_all_different():
    found = measure_map.sentences(3000)
    assert len(set(found)) == 3000 and all(text.isprintable() for text in found)
    again = measure_map.sentences(3000)
    assert found == again


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "1 seconds"), (119, "119 seconds"), (120, "2.0 minutes"), (7200, "2.0 hours"), (864_000, "10.0 days")],
)
def test_spans(seconds, said):
    assert simulate_scale.span(seconds) == said
