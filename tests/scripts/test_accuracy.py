"""scripts/measure_accuracy.py: one command for each table, and a table that says what the command answered."""

import csv
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

pytest.importorskip("torch")
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import measure_accuracy as script  # noqa: E402
import readings  # noqa: E402

NAMES = ("exact_match", "f1", "accuracy", "f1_macro")


def row(name, **more):
    figures = {each: {"value": 0.75, "low": 0.7, "high": 0.8125} for each in NAMES}
    speed = {"value": 1.5, "low": 1.25, "high": 2.0}
    kept = {"metrics": figures, "p_value": 0.04, "count": 8, "seconds": 2.0, "size": 1_500_000, "rewrites": 3}
    return {"name": name, **kept, "latency": {"p50": 4.5}, "speed": speed, "parity": None} | more


class Answering(script.Bench):
    """Commands that are taken down; each answers with the rows that were asked for."""

    told: ClassVar[list[str]] = []
    rows: ClassVar[list[dict]] = []

    def ran(self, told):
        self.told.append(told)
        return {"results": self.rows, "failed": [{"name": "ibert", "why": "it takes RoBERTa"}]}


@pytest.fixture
def bench(tmp_path):
    Answering.told, Answering.rows = [], []
    (tmp_path / "reader" / "test").mkdir(parents=True)
    entries = [{"context": str(at), "qas": [{"id": str(at)}]} for at in range(200)]
    squad = {"version": "1.1", "data": [{"title": "t", "paragraphs": entries}]}
    (tmp_path / "reader" / "test" / "squad.json").write_text(json.dumps(squad))
    return Answering(tmp_path, 2.0, None)


def test_rewrites_are_one_command_and_the_same_on_fewer(bench):
    Answering.rows = [row("none", p_value=None), row("gelu alone"), row("all")]
    text = script.rewrites(bench, "reader")
    told = "onnxfuse evaluate onnx/reader/model.onnx --data reader/test/squad.json --ablate --seconds 2"
    assert text.startswith(f"`{told}`\n\n| rewrites |")
    again = (
        "onnxfuse evaluate onnx/reader/model.onnx onnx/reader/model_optimized.onnx --data reader/test/squad-N.json --seconds 2"
    )
    assert bench.told[0] == "onnxfuse export reader -o onnx/reader" and bench.told[2] == "onnxfuse optimize onnx/reader"
    assert bench.told[1] == told and bench.told[3:] == [again.replace("N", str(count)) for count in (10, 100)]
    assert f"`{again}`" in text
    for count in (10, 100):
        (kept,) = json.loads((bench.folder / f"reader/test/squad-{count}.json").read_text())["data"]
        assert len(kept["paragraphs"]) == count
    figure = "75.00 (70.0 - 81.2)"
    assert f"| gelu alone | 3 | {figure} | {figure} | 4.0 | 4.50 | 1.50 (1.25 - 2.00) | 0.04 |" in text
    assert "- ibert could not take part: it takes RoBERTa" in text
    assert text.count("| 10 | none |") == text.count("| 100 | all |") == 1


def test_the_four_modes_have_their_names(bench):
    files = [
        f"onnx/b/{name} in {runtime}"
        for name in ("openvino.onnx", "openvino_int8.onnx")
        for runtime in ("openvino", "openvino-bf16")
    ]
    Answering.rows = [row(name) for name in (*files, "torch")]
    text = script.modes(bench, "b")
    for mode, name in zip(script.MODES, files, strict=True):
        assert text.count(f"| {mode} | {name.removeprefix('onnx/b/')} |") == 1
    assert text.count("|  | torch |") == 1
    assert [told.endswith("--against torch,torch-traced,torch-frozen,torch-bf16 --seconds 2") for told in bench.told] == [True]


def test_runtimes(bench):
    Answering.rows = [row("onnx/b/model.onnx in ort", p_value=None), row("torch")]
    text = script.runtimes(bench, "b", "b/test/texts.csv", "torch,ibert")
    assert "8 test samples" in text and "--against torch,ibert`" in text
    assert "| torch | 75.00 (70.0 - 81.2) | 75.00 (70.0 - 81.2) | 0.04 | 2.00 | 1.5 | 4.50 | 1.50 (1.25 - 2.00) |" in text


def test_the_page_has_a_place_for_each_part(monkeypatch, tmp_path):
    for name in ("rewrites", "modes", "runtimes"):
        monkeypatch.setattr(script, name, lambda bench, *given, name=name: f"{name} {given[0]}")
    monkeypatch.setattr(script, "prepared", lambda bench, *given: None)
    monkeypatch.setattr(sys, "argv", ["measure_accuracy.py", str(tmp_path), "-o", str(tmp_path / "page.md")])
    assert script.main() == 0
    text = (tmp_path / "page.md").read_text()
    for part in ("rewrites docs-reader", "modes docs-bert", "runtimes docs-bert", "runtimes digits-vit"):
        assert text.count(part) == 1
    assert "{" not in text and "onnxruntime 1." in text and "threads, with\ntorch " in text


def test_a_command_that_fails_ends_it_in_its_own_words(tmp_path):
    from rich.console import Console

    with pytest.raises(SystemExit, match=r"exit code 2: onnxfuse optimize nowhere\.onnx\n(.|\n)*nowhere\.onnx is not there"):
        script.Bench(tmp_path, 1.0, Console(stderr=True)).ran("onnxfuse optimize nowhere.onnx")


def test_the_folder_is_not_told(tmp_path, monkeypatch):
    answer = json.dumps({"why": f"{tmp_path.resolve()}/docs-bert is none"})
    monkeypatch.setattr(script.subprocess, "run", lambda *given, **named: SimpleNamespace(returncode=0, stdout=answer.encode()))
    from rich.console import Console

    assert script.Bench(tmp_path, 1.0, Console(stderr=True)).ran("onnxfuse evaluate") == {"why": "docs-bert is none"}


def test_more_questions_about_the_same_contexts():
    one, three = readings.readings(), readings.readings(3)
    assert len(three) == 3 * len(one)
    for at in range(0, len(one), 50):
        sentences = {tuple(sorted(each.context.split())) for each in (one[at], *three[3 * at : 3 * at + 3])}
        assert len(sentences) == 1, "each time the same, in another order"
    assert len({(each.question, each.context) for each in three}) > 2 * len(one)


def test_a_table_of_texts_and_labels():
    make = pytest.importorskip("make_checkpoints")
    table = make.labelled(['say "so", then', "b"], ["os", "re"])
    assert list(csv.reader(io.StringIO(table))) == [["text", "label"], ['say "so", then', "os"], ["b", "re"]]
