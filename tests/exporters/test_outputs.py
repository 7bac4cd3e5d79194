"""Which outputs an export shows: the task's, or those that are asked for."""

import numpy as np
import onnx
import pytest

import onnxfuse
from onnxfuse import catalog
from onnxfuse.errors import UsageError
from onnxfuse.exporters import open_checkpoint
from onnxfuse.exporters.tasks import choose_outputs
from tests.cli.test_cli import expect_one_line
from tests.conftest import small_model


def names(path):
    return [value.name for value in onnx.load(path).graph.output]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs") / "encoder"
    small_model("bert", "AutoModel", layers=1).save_pretrained(folder)
    return folder


def test_a_sentence_model_shows_its_embedding_alone_and_loses_its_padding(encoder, tmp_path):
    step = onnxfuse.export(encoder, tmp_path, task="sentence-similarity", exporter="torchscript")
    assert names(step.path) == ["sentence_embedding"]
    assert str(onnxfuse.optimize(tmp_path).padding) == "removed"


def test_outputs_are_those_that_are_asked_for_in_that_order(cli, encoder, tmp_path):
    plan = ("export", encoder, "--task", "sentence-similarity", "--exporter", "torchscript", "-o", tmp_path / "out", "--outputs")
    result = cli(*plan, "last_hidden_state, sentence_embedding,token_embeddings")
    assert result.returncode == 0, result.stderr
    path = tmp_path / "out" / "model.onnx"
    assert names(path) == ["last_hidden_state", "sentence_embedding", "token_embeddings"]
    feeds = {name: np.ones((2, 5), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    result = onnxfuse.load(path).run(feeds)
    assert np.array_equal(result["last_hidden_state"], result["token_embeddings"])
    assert np.allclose(result["sentence_embedding"], result["last_hidden_state"].mean(axis=1), atol=1e-6)
    optimized = onnxfuse.optimize(path)
    assert str(optimized.padding) == "kept: output 'last_hidden_state' shows padded positions"
    assert optimized.parity.passed


def test_other_tasks_show_some_of_theirs(tmp_path):
    model = small_model("bert", "AutoModelForQuestionAnswering", layers=1)
    step = onnxfuse.export(model, tmp_path, exporter="torchscript", outputs=["end_logits"])
    assert names(step.path) == ["end_logits"]
    with pytest.raises(UsageError, match=r"no output 'logits'; choose of start_logits, end_logits"):
        onnxfuse.export(model, tmp_path, outputs=["logits"])


def test_outputs_that_a_task_has_not_are_named(cli, encoder):
    common = ("export", encoder, "--task")
    wrong = "task sentence-similarity has no output 'logits'; choose of sentence_embedding, token_embeddings, last_hidden_state"
    expect_one_line(cli(*common, "sentence-similarity", "--outputs", "logits"), 2, wrong)
    expect_one_line(
        cli(*common, "feature-extraction", "--outputs", "sentence_embedding"), 2, "has no output 'sentence_embedding'"
    )
    twice = "the outputs last_hidden_state, last_hidden_state name one twice"
    expect_one_line(cli(*common, "feature-extraction", "--outputs", "last_hidden_state,last_hidden_state"), 2, twice)
    expect_one_line(cli(*common, "feature-extraction", "--outputs", "last_hidden_state,"), 2, "wanted names with commas between")
    with pytest.raises(UsageError, match="outputs is the text 'logits', wanted a list of names"):
        onnxfuse.export(encoder, outputs="logits")


def test_nothing_asked_for_is_the_task_s_own(encoder):
    bert = catalog.architecture("bert")
    assert choose_outputs("question-answering", bert, ()) == ("start_logits", "end_logits")
    assert open_checkpoint(encoder).outputs == ("last_hidden_state",)
    assert open_checkpoint(encoder, outputs=("last_hidden_state",)).outputs == ("last_hidden_state",)
