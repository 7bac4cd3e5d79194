"""One model with each choice of its rewrites on the same data: a row each, and the figures are those of evaluate."""

import json
import shutil

import numpy as np
import onnx_ir
import pytest

import onnxfuse
from onnxfuse.config import BenchmarkConfig
from onnxfuse.errors import InterruptedWorkError, UsageError
from onnxfuse.io import onnx_file
from onnxfuse.pipeline import ablation, begun, evaluate_rewrites
from onnxfuse.pipeline.evaluate import evaluate
from onnxfuse.scoring import judge
from onnxfuse.targets import find
from tests.cli import documented
from tests.cli.test_cli import expect_one_line

PLAN = BenchmarkConfig(batch=8, rounds=1)


@pytest.fixture(scope="module")
def squad(sentences, tmp_path_factory):
    """Questions about three sentences each, a third without an answer."""
    entries = []
    for at in range(24):
        context = " ".join(sentences[2 * at : 2 * at + 3])
        text = " ".join(sentences[2 * at + 1].split()[1:3])
        answers = [] if at % 3 == 0 else [{"text": text, "answer_start": context.index(text)}]
        asked = {"id": str(at), "question": f"what {text}", "answers": answers, "is_impossible": not answers}
        entries.append({"context": context, "qas": [asked]})
    path = tmp_path_factory.mktemp("squad") / "dev.json"
    path.write_text(json.dumps({"version": "2.0", "data": [{"title": "t", "paragraphs": entries}]}))
    return path


@pytest.fixture(scope="module")
def reader(made):
    return made("bert", "BertForQuestionAnswering", 2, pairs=True)[1] / "model.onnx"


def chosen(target="cpu"):
    names = [variant.name for variant in ablation.variants(find(target))]
    return [name for name in names if not name.startswith("all but")]


def test_every_choice_is_a_row(cli, reader, squad):
    result = cli("evaluate", reader, "--data", squad, "--ablate", "--rounds", 1, "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    documented.require("evaluate", answer)
    rows = {row["name"]: row for row in answer["results"]}
    assert list(rows) == chosen()
    assert (chosen()[0], chosen()[-1], answer["failed"]) == ("none", "all", []) and "attention alone" in rows
    (alone,) = evaluate([reader], squad, PLAN).rows.values()
    for name, row in rows.items():
        assert row["count"] == 24 and row["agreement"] == 1 and row["seconds"] > 0, name
        assert row["metrics"]["f1"]["value"] == pytest.approx(alone.metrics["f1"].value), name
        assert row["speed"]["value"] > 0 and row["latency"]["p50"] > 0
    assert rows["none"]["rewrites"] == 0 < rows["attention alone"]["rewrites"] < rows["all"]["rewrites"]
    assert rows["none"]["speed"]["value"] == 1 and rows["none"]["p_value"] is None and rows["all"]["p_value"] == 1


def test_a_rewrite_that_changes_answers_shows(reader, squad, monkeypatch):
    """The variant's own answers are judged, not what the original's are remembered as."""
    made = ablation.made

    def spoilt(source, variant, path):
        model, file, rewrites = made(source, variant, path)
        if variant.name == "all":
            for value in model.graph.initializers.values():
                array = value.const_value.numpy()
                if array.dtype == np.float32 and 2 in array.shape:  # the head's
                    value.const_value = onnx_ir.tensor(-array)
            onnx_file.save(model, file)
        return model, file, rewrites

    monkeypatch.setattr(ablation, "made", spoilt)
    monkeypatch.setattr(ablation, "units", lambda target: iter(()))
    found = evaluate_rewrites.evaluate_rewrites(reader, squad, PLAN)
    rows = found.rows
    assert not found.failed
    assert list(rows) == ["none", "normal form", "all"]
    assert rows["normal form"].agreement == 1 > rows["all"].agreement
    assert rows["none"].metrics == rows["normal form"].metrics != rows["all"].metrics


def test_own_inputs_of_a_model(made, tmp_path):
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    ones = np.random.default_rng(0).integers(5, 40, (20, 6))
    np.savez(tmp_path / "d.npz", input_ids=ones, attention_mask=np.ones_like(ones), labels=np.arange(20) % 2)
    found = onnxfuse.evaluate(folder, tmp_path / "d.npz", ablate=True, target="standard", rounds=1)
    assert list(found.rows) == chosen("standard") and not found.failed
    assert {row.metrics["accuracy"].value for row in found.rows.values()} == {found.rows["none"].metrics["accuracy"].value}
    assert all(row.rewrites is not None and row.seconds > 0 for row in found.rows.values())


def test_each_input_is_run_once(tmp_path):
    calls = []

    def run(feeds):
        calls.append(feeds)
        return {"y": feeds["x"] * 2}

    known = evaluate_rewrites.remembered(run, tmp_path)
    some = [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((2, 3), np.float32), np.ones((2, 3)), np.zeros((2, 3))]
    for array in some:
        given = known({"x": array})["y"]
        assert given.dtype == array.dtype and np.array_equal(given, array * 2)
    assert len(calls) == 4


@pytest.fixture(scope="module")
def whole(reader, squad):
    """What comes of one that is not interrupted, eight samples at a time."""
    with pytest.MonkeyPatch.context() as patch:
        eight_at_a_time(patch)
        return evaluate_rewrites.evaluate_rewrites(reader, squad, PLAN)


def eight_at_a_time(patch):
    patch.setattr(begun, "FEWEST", 8)
    patch.setattr(judge, "CHUNK", 8)


@pytest.mark.parametrize("stop", [2, 7])
def test_an_interrupted_one_goes_on_where_it_was(reader, squad, whole, tmp_path, monkeypatch, stop):
    """In the midst of a choice, and between two: what was answered of all is not asked again."""
    for file in reader.parent.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    path, before = tmp_path / "model.onnx", set(tmp_path.iterdir())
    eight_at_a_time(monkeypatch)
    tallied, seen = judge.Tally.add, []

    def add(self, answers, first):
        if len(seen) == stop:
            raise KeyboardInterrupt
        seen.append(len(answers))
        tallied(self, answers, first)

    monkeypatch.setattr(judge.Tally, "add", add)
    with pytest.raises(InterruptedWorkError, match="run the same command to go on where it was"):
        evaluate_rewrites.evaluate_rewrites(path, squad, PLAN)
    assert set(tmp_path.iterdir()) > before
    done, stop = len(seen), -1
    seen.clear()
    again = evaluate_rewrites.evaluate_rewrites(path, squad, PLAN)
    each = len(whole.rows) * 3 + (len(whole.rows) - 1) * 3
    assert each - done <= len(seen) <= each - done + 1  # of a choice of two ways, one may have answered once more
    assert {name: row.metrics for name, row in again.rows.items()} == {name: row.metrics for name, row in whole.rows.items()}
    assert set(tmp_path.iterdir()) == before


def test_table(cli, reader, squad):
    result = cli("evaluate", reader.parent, "--data", squad, "--ablate", "--target", "standard", "--rounds", 1)
    assert result.returncode == 0, result.stderr
    assert f"{reader} for target standard, {squad}, batches of 8" in result.stdout
    assert "all: the figures of none, to the last sample" in result.stdout
    assert "measured anew with each row" in result.stdout and "samples/s: of all samples" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("b.onnx", "--ablate"), "--ablate judges one model with and without rewrites in ONNX Runtime, and 2 models are given"),
        (("--ablate", "--runtime", "openvino"), "and --runtime would add others; leave that out"),
        (("--ablate", "--against", "torch"), "and --against would add others; leave that out"),
        (("--target", "cpu"), "--target cpu says whose rewrites --ablate judges; add that, or leave it out"),
        (("--ablate", "--target", "tpu"), "tpu"),
    ],
)
def test_what_does_not_go_with_it(cli, reader, squad, arguments, said):
    expect_one_line(cli("evaluate", reader, *arguments, "--data", squad), 2, said)


def test_no_onnx_model(tmp_path):
    with pytest.raises(UsageError, match=r"model\.xml is no ONNX model, and rewrites are of these alone"):
        evaluate_rewrites.evaluate_rewrites(tmp_path / "model.xml", tmp_path / "d.csv", PLAN)


def test_several_models_from_python(reader, squad):
    with pytest.raises(UsageError, match="ablate judges one model in ONNX Runtime; leave out other models"):
        onnxfuse.evaluate([reader, reader], squad, ablate=True)
