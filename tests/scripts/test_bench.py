"""What ``scripts/bench.py`` publishes: which peer a promise is held against, what replaces what, and the rows of calibration."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxfuse.measure.benchmark import summarize
from onnxfuse.pipeline.compare import Candidate, Comparison, Row

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module("bench")
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in ("bench", "bench_models", "bench_page", "bench_workloads", "demo"):
            sys.modules.pop(name, None)


class Near:
    """A parity with a cosine, as a row needs it."""

    def __init__(self, cosine, passed=True):
        self.cosine, self.passed, self.brief = cosine, passed, f"cosine {cosine:.4f}"


def row(name, kind, ms, cosine=0.999, ours=False, passed=True):
    seconds = [ms / 1e3 * factor for factor in (1.0, 1.01, 0.99, 1.0)]
    return Row(Candidate(name, kind, lambda feeds: feeds, ours=ours, stored=1_000_000), summarize(seconds), Near(cosine, passed))


def outcome(*rows):
    first = replace(row("torch", "fp32", 100), parity=None)
    return Comparison({each.candidate.name: each for each in (first, *rows)}, {"absent": "it is\nnot there"})


def work(bench, *promises):
    return replace(bench.WORKLOADS[0], promises=promises)


RAN = {"threads": 2, "cores": 2, "versions": {"python": "3"}}


@pytest.mark.parametrize(
    ("cosine", "ms", "kept"),
    [(0.9990, 10, True), (0.9991, 10, True), (0.99897, 10, True), (0.9980, 10, False), (0.9999, 19, False)],
)
def test_a_promise_is_kept_by_speed_and_cosine(bench, cosine, ms, kept):
    """Against the fastest of its own precision: neither a slower one that is nearer nor a faster float counts."""
    promise = sys.modules["bench_workloads"].Promise("onnxfuse, tuned", "int8", 1.5)
    rows = (
        row("quick", "int8", 20, 0.999),
        row("near", "int8", 40, 1.0),
        row("float", "fp32", 5, 1.0),
        row("onnxfuse int8", "int8", 1, 1.0, ours=True),
        row("onnxfuse, tuned: int8", "int8", ms, cosine, ours=True),
        row("onnxfuse, tuned, fp32: fp32", "fp32", 2, 1.0, ours=True),
    )
    (found,) = sys.modules["bench_page"].measured(work(bench, promise), outcome(*rows), RAN)["promises"]
    assert (found["peer"], found["of"], found["form"], found["kept"]) == ("quick", 2, "onnxfuse, tuned: int8", kept)
    assert found["value"] == pytest.approx(20 / ms)


def test_what_was_not_measured_is_said(bench):
    promise = sys.modules["bench_workloads"].Promise("onnxfuse, tuned, bf16", "bf16", 1.5)
    page = sys.modules["bench_page"]
    cell = page.measured(work(bench, promise), outcome(row("quick", "int8", 20)), RAN)
    assert "kept" not in cell["promises"][0]
    machine = page.Machine("M", Path("benchmarks/m.json"), {str(bench.WORKLOADS[0]): cell})
    text = page.page([machine], "")
    assert "| 1.50 | not measured: see its section |" in text
    assert "- absent could not take part: it is\n" in text


def test_the_product_is_the_fastest_form_that_is_near_enough(bench):
    models, works = sys.modules["bench_models"], sys.modules["bench_workloads"]
    rows = [
        row("onnxfuse", "fp32", 30, ours=True),
        row("onnxfuse int8", "int8", 20, ours=True),
        row("onnxfuse int8 static", "int8", 10, ours=True, passed=False),
        row("onnxfuse in OpenVINO", "fp32", 25, ours=True),
    ]
    assert models.product(works.TUNED, rows).name == "onnxfuse, tuned: int8"
    assert models.product(works.TUNED_FP32, rows).name == "onnxfuse, tuned, fp32: in OpenVINO"
    assert models.product(works.TUNED_BF16, rows) is None


def test_each_row_of_a_machine_is_replaced_alone_and_other_machines_stay(bench, tmp_path, monkeypatch):
    page, path = sys.modules["bench_page"], tmp_path / "BENCHMARKS.md"
    path.write_text("# Benchmarks\n\n## Old machine\n\nas it was\n\n### of old\n")
    first, second = (work(bench), replace(bench.WORKLOADS[1], promises=()))
    for machine, each, ms in (("A", first, 50), ("A", second, 60), ("B", first, 70), ("A", first, 80)):
        monkeypatch.setattr(bench.machine, "cpu", lambda machine=machine: machine)
        bench.publish(each, page.measured(each, outcome(row("peer", "int8", ms)), RAN), path)
    text = path.read_text()
    assert text.count("\n## ") == 4 and text.count("## Summary") == 1
    assert "## Old machine\n\nas it was\n\n### of old\n" in text
    of_a = text.partition("## A\n")[2].partition("## B\n")[0]
    assert [f"{ms}.0 |" in of_a for ms in (50, 60, 80)] == [False, True, True]
    assert "| peer | 1.0 MB | cosine 0.9990 | 0.9990 | 70.0 |" in text.partition("## B\n")[2].partition("## Old")[0]
    drawn = list(tmp_path.joinpath("benchmarks").glob("*.svg"))
    assert len(drawn) == 3 and all(f"benchmarks/{name.name}" in text for name in drawn)


def test_only_takes_parts_of_names(bench):
    assert bench.chosen("") == list(bench.WORKLOADS)
    assert {each.model for each in bench.chosen("vit; distilbert")} == {"google/vit-base-patch16-224", "distilbert-base-uncased"}
    assert {each.model for each in bench.chosen("vit; ")} == {"google/vit-base-patch16-224"}, "an empty text asks for nothing"
    assert bench.chosen("no such") == []


def test_rows_of_several_lengths_are_padded_at_their_end(bench, tmp_path):
    rows = [{"input_ids": np.full((1, length), 7), "attention_mask": np.ones((1, length), int)} for length in (2, 3)]
    sys.modules["bench_models"].save_rows(rows, tmp_path / "rows.npz")
    stored = np.load(tmp_path / "rows.npz")
    assert stored["input_ids"].tolist() == [[7, 7, 0], [7, 7, 7]]
    assert stored["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
