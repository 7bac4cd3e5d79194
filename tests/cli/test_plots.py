"""Plots of measurements, by the texts in them, which matplotlib writes into an .svg as comments, in the order of the bars."""

import re

from onnxfuse.cli import plots
from onnxfuse.cli.plots import Bar
from onnxfuse.measure.benchmark import summarize
from onnxfuse.pipeline.compare import Candidate, Comparison, Row


def texts(path):
    return re.findall(r"<!-- (.*?) -->", path.read_text())


def test_the_fastest_is_on_top_and_every_bar_has_its_value(tmp_path):
    rows = [
        Row(Candidate(name, "fp32", lambda feeds: feeds, ours=name == "middle"), summarize([ms / 1e3] * 3), None)
        for name, ms in (("slow", 30), ("fast", 10), ("middle", 20))
    ]
    plots.comparison(Comparison({row.candidate.name: row for row in rows}), tmp_path / "p.svg", "a title")
    seen = texts(tmp_path / "p.svg")
    assert [text for text in seen if text in ("slow", "fast", "middle")] == ["fast", "middle", "slow"]
    assert {"10", "20", "30", "onnxfuse", "other tools", "a title"} <= {text.strip() for text in seen}


def test_one_slow_thing_does_not_make_all_others_look_alike(tmp_path):
    content = [Bar("a", 10, 9, 11), Bar("b", 12, 11, 13), Bar("c", 14, 13, 15), Bar("d", 5000, 4900, 5100)]
    plots.bars(content, tmp_path / "p.svg", title="t", label="ms")
    seen = texts(tmp_path / "p.svg")
    assert [text.strip() for text in seen if "→" in text] == ["→ 5000"]
    assert max(float(text) for text in seen if re.fullmatch(r"\d+", text)) <= 60
    assert "other tools" not in seen
