"""Data of many rows: memory does not grow with them, progress tells where it is, and an interrupted evaluation goes on."""

import re
import subprocess
import sys

import numpy as np
import pytest

from onnxfuse.config import BenchmarkConfig
from onnxfuse.errors import InterruptedWorkError
from onnxfuse.pipeline import begun
from onnxfuse.pipeline import evaluate as verb
from onnxfuse.scoring import judge


def table(path, count):
    path.write_text("text,label\n" + "".join(f"a word {at} of list,{at % 2}\n" for at in range(count)))
    return path


SCRIPT = """
import sys
from pathlib import Path
from onnxfuse.config import BenchmarkConfig
from onnxfuse.pipeline.evaluate import evaluate
from onnxfuse.pipeline.memory import peak_so_far
evaluate([Path(sys.argv[1])], Path(sys.argv[2]), BenchmarkConfig(32, rounds=1))
print(peak_so_far())
"""


def test_memory_does_not_grow_with_rows(made, tmp_path):
    """The whole process over 5,000 rows and over 50,000: at most a tenth more."""
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    peaks = []
    for count in (5_000, 50_000):
        path = table(tmp_path / f"{count}.csv", count)
        command = [sys.executable, "-c", SCRIPT, str(folder / "model.onnx"), str(path)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] <= 1.1 * peaks[0]


def test_progress_tells_rows_a_second_and_what_is_left(made, tmp_path):
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    told = []
    verb.evaluate(
        [folder / "model.onnx"],
        table(tmp_path / "d.csv", 1000),
        BenchmarkConfig(32, rounds=1),
        lambda *said: told.append(said),
    )
    steps = [(done, step) for text, done, step in (said for said in told if len(said) == 3) if text.startswith("answering")]
    assert [done for done, _ in steps] == pytest.approx([0, 0.256, 0.512, 0.768])
    assert steps[0][1] == "row 1 of 1,000"
    assert re.fullmatch(r"row 257 of 1,000, [\d,]+ a second, [\d,]+ s left", steps[1][1])


@pytest.mark.parametrize("spoilt", [False, True])
def test_an_interrupted_evaluation_goes_on(made, tmp_path, monkeypatch, spoilt):
    _, source = made("bert", "BertForSequenceClassification", ["no", "yes"])
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path, plan, folder = table(tmp_path / "d.csv", 900), BenchmarkConfig(32, rounds=1), tmp_path
    monkeypatch.setattr(begun, "FEWEST", 256)
    before = set(folder.iterdir())
    (whole,) = verb.evaluate([folder / "model.onnx"], path, plan).rows.values()
    tallied, seen = judge.Tally.add, []

    def add(self, answers, first):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(answers))
        tallied(self, answers, first)

    monkeypatch.setattr(judge.Tally, "add", add)
    with pytest.raises(InterruptedWorkError, match="run the same command to go on where it was"):
        verb.evaluate([folder / "model.onnx"], path, plan)
    (kept,) = set(folder.iterdir()) - before
    if spoilt:
        kept.write_bytes(kept.read_bytes()[:100])
    seen.clear()
    monkeypatch.setattr(judge.Tally, "add", lambda *given: seen.append(len(given[1])) or tallied(*given))
    (again,) = verb.evaluate([folder / "model.onnx"], path, plan).rows.values()
    assert sum(seen) == (900 if spoilt else 900 - 512)
    assert again.metrics == whole.metrics and np.isclose(again.cosine, whole.cosine) and again.count == 900
    assert set(folder.iterdir()) == before


def test_other_data_begin_anew(made, tmp_path):
    """What was kept is of the same models, data and batch alone."""
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    sources = [verb.open_source(str(table(tmp_path / name, count))) for name, count in (("a.csv", 10), ("b.csv", 10))]
    paths = {
        begun.Begun(["a"], [folder / "model.onnx"], source, BenchmarkConfig(batch)).path for source in sources for batch in (1, 2)
    }
    assert len(paths) == 4
