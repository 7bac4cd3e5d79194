"""Quality: known scores, closeness to a reference, and what cannot be judged."""

import numpy as np
import pytest

from onnxfuse.config import Thresholds
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.evaluation.quality import Quality, judge, predict, score
from onnxfuse.quantization.gate import misses

RNG = np.random.default_rng(0)


def test_accuracy_and_f1_of_known_answers():
    accuracy, f1 = score(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0]))
    assert accuracy == 3 / 5
    assert f1 == pytest.approx((2 * 1 / 4 + 2 * 2 / 5 + 0) / 3)  # class 2 occurs in the predictions alone


@pytest.mark.parametrize("seed", range(20))
def test_f1_is_scikit_learns(seed):
    """Few samples of many classes: some occur in the labels alone, some in the predictions alone, some nowhere."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, 4, 9), np.append(rng.integers(1, 6, 8), 6)
    assert score(predictions, labels)[0] == metrics.accuracy_score(labels, predictions)
    assert score(predictions, labels)[1] == pytest.approx(metrics.f1_score(labels, predictions, average="macro", zero_division=0))


def both(run, other, data, batch=8):
    return judge(predict(other, data, batch), predict(run, data, batch), data)


DATA = Dataset("set", {"x": RNG.standard_normal((30, 4)), "attention_mask": np.ones((30, 4), np.int64)}, RNG.integers(0, 4, 30))


def test_the_worse_of_two_is_so_in_each_figure():
    one, other = Quality(0.9, 0.8, 0.7, None, 5), Quality(0.8, 0.9, 0.6, 0.5, 5)
    assert one.worse_of(other) == other.worse_of(one) == Quality(0.8, 0.8, 0.6, None, 5)


def test_a_model_keeps_all_of_itself():
    found = both(lambda feeds: {"logits": feeds["x"]}, lambda feeds: {"logits": feeds["x"] * 2}, DATA)
    assert found.cosine == pytest.approx(1)
    assert found.agreement == 1
    assert found.accuracy == (DATA.inputs["x"].argmax(axis=1) == DATA.labels).mean()
    assert found.count == 30


def test_each_sample_of_a_batch_alone():
    def run(feeds):
        return {"logits": feeds["x"] * 3}

    found, wanted = predict(run, DATA, 8).alone(), predict(run, DATA, 1)
    assert [len(outputs["logits"]) for outputs, _ in found.batches] == [1] * len(DATA)
    np.testing.assert_array_equal(found.joined("logits"), wanted.joined("logits"))
    assert judge(found, wanted, DATA) == judge(wanted, found, DATA) == judge(wanted, wanted, DATA)


@pytest.mark.parametrize(
    "outputs",
    [
        lambda x: {"logits": x[..., None]},
        lambda x: {"logits": x, "sentence_embedding": x},
        lambda x: {"last_hidden_state": x},
        lambda x: {"logits": x[:, 0]},
    ],
)
def test_what_may_have_tokens_is_not_taken_apart(outputs):
    assert predict(lambda feeds: outputs(feeds["x"]), DATA, 8).alone() is None


def test_classes_of_tokens_have_no_accuracy():
    def run(feeds):
        return {"logits": feeds["x"][..., None] * np.array([1.0, -1.0])}

    found = both(run, run, DATA)
    assert (found.accuracy, found.f1, found.cosine) == (None, None, pytest.approx(1))


def test_other_answers_agree_less():
    found = both(lambda feeds: {"logits": feeds["x"]}, lambda feeds: {"logits": -feeds["x"]}, DATA)
    assert found.cosine == pytest.approx(-1)
    assert found.agreement == 0


def test_padding_does_not_count():
    mask = np.array([[1, 1, 0, 0]] * 3 + [[1, 1, 1, 1]])
    data = Dataset("set", {"x": RNG.standard_normal((4, 4)), "attention_mask": mask})

    def run(wrong):
        def call(feeds):
            hidden = np.stack([feeds["x"], feeds["x"] ** 2, feeds["x"] + 1], axis=-1)
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
    turned = both(run, lambda feeds: {"sentence_embedding": feeds["x"][:, ::-1]}, DATA)
    assert turned.agreement == 1
    assert turned.cosine < 0.5
    assert both(run, run, DATA.first(1)).agreement == 1  # there is no neighbour
    shuffled = RNG.permuted(DATA.inputs["x"], axis=1)
    found = both(run, lambda feeds: {"sentence_embedding": shuffled[: len(feeds["x"])]}, Dataset("set", DATA.inputs), 30)
    assert found.agreement < 0.5


PADDED = Dataset("set", {"x": RNG.standard_normal((6, 5)), "attention_mask": np.tri(6, 5, dtype=np.int64)})
"""Rows of 1 to 5 tokens, so that batches differ in length."""


def through(output, *, noise=0.0, padding=0.0):
    """A model whose one output is made of the rows' numbers (noise added) and their mask; ``padding`` stands where no token is."""
    rng = np.random.default_rng(1)

    def run(feeds):
        mask = feeds["attention_mask"].astype(bool)
        return {"y": output(np.where(mask, feeds["x"] + noise * rng.standard_normal(mask.shape), padding))}

    return run


def deep(x):
    return np.stack([x, x**2, x + 1], axis=-1)


SHAPES = {
    "[B,S]": lambda x: x,
    "[B,S,D]": deep,
    "[S,B,D]": lambda x: deep(x).transpose(1, 0, 2),
    "[B*S,D]": lambda x: deep(x).reshape(-1, 3),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_count_and_padding_does_not_in_any_order_of_axes(shape):
    output = SHAPES[shape]
    same = both(through(output), through(output, padding=9.0), PADDED, 2)
    assert (same.cosine, same.agreement) == (pytest.approx(1), 1)
    assert both(through(output, padding=-np.inf), through(output), PADDED, 2).cosine == pytest.approx(1)
    other = both(through(output), through(output, noise=3.0), PADDED, 2)
    assert other.cosine < 0.9
    assert other.agreement < 1


@pytest.mark.parametrize(
    "output",
    [
        lambda x: x.sum(),
        lambda x: x.sum(axis=1),
        lambda x: np.rint(50 * x).astype(np.int64).sum(axis=1),
        lambda x: x.sum(axis=1) > 0,
        lambda x: x.sum(axis=1, keepdims=True),
    ],
)
def test_outputs_of_one_number(output):
    assert both(through(output), through(output), PADDED, 2).cosine == pytest.approx(1)
    assert both(through(output), through(output, noise=3.0), PADDED, 2).cosine < 0.98


def test_one_number_a_sample_is_held_against_the_other_samples():
    found = both(
        lambda feeds: {"y": feeds["x"][:, 0]},
        lambda feeds: {"y": feeds["x"][::-1, 0]},
        Dataset("set", {"x": np.arange(1.0, 9)[:, None]}),
    )
    assert found.cosine < 0.7
    assert found.agreement == 0


def test_the_worst_output_counts():
    found = both(lambda feeds: {"a": feeds["x"], "b": feeds["x"]}, lambda feeds: {"a": feeds["x"], "b": -feeds["x"]}, DATA)
    assert (found.cosine, found.agreement) == (pytest.approx(-1), 0)


def test_outputs_of_text_are_equal_or_not():
    first, second = (through(lambda x, at=at: np.array(["one", "two", "three"])[: len(x)][[0, at]]) for at in (1, 0))
    assert both(first, first, PADDED, 2).cosine == 1
    assert both(first, second, PADDED, 2).cosine == both(first, second, PADDED, 2).agreement == 0.5


def test_classes_are_not_taken_for_tokens():
    """Three classes, three tokens: a padded token does not hide its class."""
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    data = Dataset("set", {"x": np.array([[1.0, 2, 3], [1, 0, 0]]), "attention_mask": mask})
    found = both(lambda feeds: {"logits": feeds["x"]}, lambda feeds: {"logits": feeds["x"] + np.array([0, 0, 5.0])}, data)
    assert found.cosine < 0.95
    assert found.agreement == 0.5


def test_rows_of_zeros_are_equal_only_to_themselves():
    zeros = through(lambda x: np.zeros((len(x), 4)))
    assert both(zeros, zeros, PADDED).cosine == 1
    assert both(zeros, through(lambda x: np.ones((len(x), 4))), PADDED).cosine == 0


@pytest.mark.parametrize("name", ["y", "sentence_embedding"])
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_is_close_to_nothing(name, broken):
    def run(wrong):
        return lambda feeds: {name: np.where(np.arange(4) == 2, wrong, feeds["x"][:, :4])}

    found = both(run(1.0), run(broken), DATA)
    assert (found.cosine, found.agreement) == (0, pytest.approx(0, abs=0.1))
    with pytest.raises(ModelError, match=f"output '{name}' of the model to compare with is not finite"):
        both(run(broken), run(1.0), DATA)
    assert misses(Thresholds(min_cosine=0.9), Quality(np.nan, 1, 1, 1, 1), Quality(1, 1, 1, 1, 1))
    assert misses(Thresholds(max_drop=0.1), Quality(1, 1, np.nan, 1, 1), Quality(1, 1, 1, 1, 1))


def test_an_output_of_another_shape_is_named():
    with pytest.raises(ModelError, match=r"output 'y' has the shape \[2, 3\], wanted \[2, 5\]"):
        both(through(lambda x: x[:, :1] + np.zeros((2, 5))), through(lambda x: x[:, :1] + np.zeros((2, 3))), PADDED, 2)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.full(30, 4), "labels from 4 to 4, the model 4 classes"),
        (np.full(30, -1), "labels from -1 to -1, the model 4 classes"),
        (np.zeros((30, 4), np.int64), r"the shape \[30, 4\], wanted one class for each sample"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, words):
    with pytest.raises(UsageError, match=words):
        both(lambda feeds: {"logits": feeds["x"]}, lambda feeds: {"logits": feeds["x"]}, Dataset("set", DATA.inputs, labels))


def test_labels_are_judged_after_the_first_batch():
    ran = []

    def run(feeds):
        ran.append(feeds)
        return {"logits": feeds["x"][:, :2]}

    with pytest.raises(UsageError, match="labels from 0 to 3, the model 2 classes"):
        predict(run, DATA, 2)
    assert len(ran) == 1


def test_what_cannot_be_judged():
    with pytest.raises(UsageError, match="labels from 0 to 3, the model 2 classes"):
        both(lambda feeds: {"logits": feeds["x"][:, :2]}, lambda feeds: {"logits": feeds["x"][:, :2]}, DATA)
    assert both(lambda feeds: {"y": feeds["x"]}, lambda feeds: {"y": feeds["x"]}, DATA).accuracy is None
    with pytest.raises(ModelError, match=r"the outputs are \['z'\], wanted \['y'\]"):
        both(lambda feeds: {"y": feeds["x"]}, lambda feeds: {"z": feeds["x"]}, DATA)


def test_data_without_a_real_token_judge_nothing():
    data = Dataset("set", {"x": np.ones((4, 4)), "attention_mask": np.zeros((4, 4), np.int64)})

    def run(feeds):
        return {"last_hidden_state": np.ones((*feeds["x"].shape, 3))}

    with pytest.raises(UsageError, match="no token of the data is real, so nothing can be judged by output 'last_hidden_state'"):
        both(run, run, data)
