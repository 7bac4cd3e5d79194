"""What measure_half writes: tables between the marks of docs/gpu.md, and nothing else of the page."""

import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import measure_half  # noqa: E402


def test_tables_go_between_their_marks(tmp_path, monkeypatch):
    before = measure_half.PAGE.read_text()
    monkeypatch.setattr(measure_half, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text(before)
    for mark in ("halves", "speeds"):
        measure_half.put(measure_half.table(["a", "b"], [["1", "2"]]), mark)
    after = (tmp_path / "page.md").read_text()
    assert after.count("| a | b |\n| --- | --- |\n| 1 | 2 |\n<!-- end of ") == 2
    lines = [line for line in before.splitlines() if not line.startswith(("|", "On ")) and line]
    assert [line for line in after.splitlines() if line in lines] == lines


def test_a_row_has_the_files_that_were_measured_in_their_order():
    told = {"results": [{"name": f"x/{name}", "latency": {"p50": at}} for at, name in enumerate(("torch", "b.onnx", "a.onnx"))]}
    assert measure_half._row("it", told, ("torch", "a.onnx", "c.onnx", "b.onnx")) == ["it", "0.00", "2.00", "", "1.00"]
