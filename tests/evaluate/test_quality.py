"""Quality: known scores, closeness to a reference, and what cannot be judged."""

import numpy as np
import pytest

from onnxfuse.errors import ModelError, UsageError
from onnxfuse.evaluate.dataset import Dataset
from onnxfuse.evaluate.quality import answer, judge, score

RNG = np.random.default_rng(0)


def test_accuracy_and_f1_of_known_answers():
    accuracy, f1 = score(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0]))
    assert accuracy == 3 / 5
    assert f1 == pytest.approx((2 * 1 / 4 + 2 * 2 / 5) / 2)  # class 2 does not occur


def test_f1_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    labels, answers = RNG.integers(0, 5, (2, 200))
    assert score(answers, labels)[1] == pytest.approx(metrics.f1_score(labels, answers, average="macro"))


def both(run, other, data, batch=8):
    return judge(answer(other, data, batch), answer(run, data, batch), data)


DATA = Dataset("set", {"x": RNG.standard_normal((30, 4)), "attention_mask": np.ones((30, 4), np.int64)}, RNG.integers(0, 4, 30))


def test_a_model_keeps_all_of_itself():
    found = both(lambda feeds: {"logits": feeds["x"]}, lambda feeds: {"logits": feeds["x"] * 2}, DATA)
    assert found.cosine == pytest.approx(1)
    assert found.agreement == 1
    assert found.accuracy == (DATA.inputs["x"].argmax(axis=1) == DATA.labels).mean()
    assert found.count == 30


def test_other_answers_agree_less():
    found = both(lambda feeds: {"logits": feeds["x"]}, lambda feeds: {"logits": -feeds["x"]}, DATA)
    assert found.cosine == pytest.approx(-1)
    assert found.agreement == 0


def test_padding_does_not_count():
    mask = np.array([[1, 1, 0, 0]] * 3 + [[1, 1, 1, 1]])
    data = Dataset("set", {"x": RNG.standard_normal((4, 4)), "attention_mask": mask})

    def run(wrong):
        def call(feeds):
            hidden = np.stack([feeds["x"], feeds["x"]**2, feeds["x"] + 1], axis=-1)
            return {"last_hidden_state": np.where(feeds["attention_mask"][..., None].astype(bool), hidden, wrong)}
        return call
    assert both(run(0.0), run(7.0), data, 4).cosine == pytest.approx(1)


def test_hidden_states_count_only_where_nothing_else_is():
    def run(noise):
        return lambda feeds: {"logits": feeds["x"], "last_hidden_state": feeds["x"][..., None] * np.array([1.0, noise])}
    assert both(run(0.0), run(9.0), DATA).cosine == pytest.approx(1)


def test_embeddings_agree_by_their_neighbours():
    def run(feeds):
        return {"sentence_embedding": feeds["x"]}
    assert both(run, run, DATA).agreement == 1
    shuffled = RNG.permuted(DATA.inputs["x"], axis=1)
    found = both(run, lambda feeds: {"sentence_embedding": shuffled[:len(feeds["x"])]}, Dataset("set", DATA.inputs), 30)
    assert found.agreement < 0.5


def test_what_cannot_be_judged():
    with pytest.raises(UsageError, match="labels up to 3, the model 2 classes"):
        both(lambda feeds: {"logits": feeds["x"][:, :2]}, lambda feeds: {"logits": feeds["x"][:, :2]}, DATA)
    assert both(lambda feeds: {"y": feeds["x"]}, lambda feeds: {"y": feeds["x"]}, DATA).accuracy is None
    with pytest.raises(ModelError, match=r"the outputs are \['z'\], wanted \['y'\]"):
        both(lambda feeds: {"y": feeds["x"]}, lambda feeds: {"z": feeds["x"]}, DATA)
