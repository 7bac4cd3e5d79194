"""The same data through every runtime and other tools: a row each, and what cannot take part is named."""

import numpy as np
import pytest

from onnxfuse.config import BenchmarkConfig
from onnxfuse.errors import UsageError
from onnxfuse.pipeline import baselines
from onnxfuse.pipeline.baselines import Baseline, Made
from onnxfuse.pipeline.evaluate import evaluate

PLAN = BenchmarkConfig(batch=8, rounds=1)


@pytest.fixture
def table(sentences, pick, tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{pick.randrange(2)}\n" for text in sentences[:60]))
    return path


def broken(after):
    """A tool that fails after some calls."""

    def make(context):
        run, calls = context.session(context.model).run, []

        def call(feeds):
            calls.append(feeds)
            if len(calls) > after:
                raise UsageError("it has had enough")
            return run(feeds)

        return Made(call, 7)

    return Baseline("broken", "fp32", make)


def test_every_runtime_and_tool_is_a_row(made, table):
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    model = folder / "model.onnx"
    against = baselines.choose("torch,openvino")
    found = evaluate([model], table, PLAN, runtimes=("ort", "openvino"), against=against)
    names = [f"{model} in ort", f"{model} in openvino", "torch", "openvino"]
    assert (list(found.rows), found.failed) == (names, {})
    first = found.rows[names[0]]
    for name in names[1:]:
        row = found.rows[name]
        assert row.metrics == first.metrics, "float32 decides alike"
        assert row.agreement == 1 and row.cosine == pytest.approx(1, abs=1e-5) and row.p_value == 1
        assert row.size > 0 and row.timing.p50 > 0
    answer = found.to_json()
    assert [row["name"] for row in answer["results"]] == names and answer["results"][0]["speed"]["value"] == 1


def test_seconds_are_for_each_row(made, table):
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    plan = BenchmarkConfig(batch=8, rounds=1, seconds=0.5)
    rows = evaluate([folder / "model.onnx"], table, plan, against=baselines.choose("ort")).rows
    first, second = (row.timing.samples for row in rows.values())
    assert first == second > 5


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("arrays", [False, True])
def test_a_tool_that_fails_is_named(made, table, tmp_path, after, arrays):
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    if arrays:
        table = tmp_path / "d.npz"
        ones = np.ones((60, 4), np.int64)
        np.savez(table, input_ids=ones, attention_mask=ones, labels=np.arange(60) % 2)
    found = evaluate([folder / "model.onnx"], table, PLAN, against=[broken(after)])
    assert list(found.rows) == [str(folder / "model.onnx")]
    assert found.failed == {"broken": "it has had enough"}


def test_a_file_that_fails_stops_it(made, table, tmp_path):
    _, two = made("bert", "BertForSequenceClassification", ["no", "yes"])
    _, three = made("bert", "BertForSequenceClassification", ["contradiction", "neutral", "entailment"], pairs=True)
    with pytest.raises(Exception, match="gives an answer of 3 numbers, the first model 2; compare models of one kind"):
        evaluate([two / "model.onnx", three / "model.onnx"], table, PLAN)
    with pytest.raises(UsageError, match=r"runtime litert takes \.tflite files"):
        evaluate([two / "model.onnx"], table, PLAN, runtimes=("ort", "litert"))
