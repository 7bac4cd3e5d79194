"""Figures and their intervals, beside scikit-learn and scipy, and beside what draws of samples do."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from onnxfuse.scoring import metrics
from onnxfuse.scoring.tasks.token_classification import entities


def drawn(count, seed=0, right=0.8):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    return labels, np.where(rng.random(count) < right, labels, 1 - labels)


def test_classes():
    labels, predicted = drawn(500)
    found = metrics.of_classes(2, labels, predicted)
    assert found["f1"].value == pytest.approx(sklearn.metrics.f1_score(labels, predicted))
    assert found["f1_macro"].value == pytest.approx(sklearn.metrics.f1_score(labels, predicted, average="macro"))
    assert found["matthews"].value == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predicted))
    low, high = scipy.stats.binomtest(int((labels == predicted).sum()), 500).proportion_ci(method="wilson")
    assert (found["accuracy"].low, found["accuracy"].high) == pytest.approx((low, high))
    assert "f1" not in metrics.of_classes(3, labels, predicted), "no class is the positive one of three"
    assert metrics.of_classes(2, np.ones(5, int), np.zeros(5, int))["f1"].value == 0


def test_draws_are_figures_of_drawn_samples():
    """A draw of samples that are all alike is the samples themselves; of others, their mean is near the figure."""
    labels, predicted = drawn(2000)
    wanted = metrics.of_classes(2, labels, predicted)
    for name, draws in metrics.drawn(labels, predicted, 2000).items():
        error = 5 * draws.std() / len(draws) ** 0.5
        assert draws.mean() == pytest.approx(wanted[name].value, abs=error + 1e-3), name
    alike = metrics.drawn(np.full(9, 3), np.full(9, 3), 4)
    assert set(alike["f1_macro"]) == {1.0} and set(alike["f1"]) == {0.0}


@pytest.mark.parametrize("name", ["accuracy", "f1", "f1_macro", "matthews"])
def test_intervals_hold_the_true_figure_95_times_in_100(name):
    truth = metrics.of_classes(2, *drawn(200_000))[name].value
    held = 0
    for seed in range(1, 101):
        each = metrics.of_classes(2, *drawn(300, seed))[name]
        held += each.low <= truth <= each.high
    assert held >= 89, "of 100 draws, fewer are less likely than 1 in 100"


def test_numbers():
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=200)
    given = wanted + rng.normal(size=200)
    found = metrics.of_numbers(wanted, given)
    exact = scipy.stats.pearsonr(wanted, given)
    assert found["pearson"].value == pytest.approx(exact.statistic)
    assert (found["pearson"].low, found["pearson"].high) == pytest.approx(tuple(exact.confidence_interval(0.95)))
    assert found["spearman"].value == pytest.approx(scipy.stats.spearmanr(wanted, given).statistic)
    assert found["spearman"].low < found["spearman"].value < found["spearman"].high
    assert np.isnan(metrics.of_numbers(wanted, np.ones(200))["pearson"].value)
    assert np.isnan(metrics.of_numbers(wanted[:1], given[:1])["spearman"].value), "one sample"
    assert metrics.of_classes(2, np.ones(1, int), np.ones(1, int))["accuracy"].value == 1, "and no warning"


def test_a_mean():
    values = np.random.default_rng(0).random(400)
    found = metrics.mean(values)
    half = scipy.stats.norm.ppf(0.975) * scipy.stats.sem(values)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))


def test_two_models_on_the_same_samples():
    first = np.array([True] * 90 + [False] * 10)
    second = first.copy()
    second[:10] = False
    assert metrics.mcnemar(first, first) == 1
    assert metrics.mcnemar(first, second) == pytest.approx(2 * 0.5**10), "ten are lost and none is gained"
    second[-10:] = True
    assert metrics.mcnemar(first, second) == pytest.approx(1.0)


TAGGED = [
    "B-A I-A O B-B",
    "I-A I-A O I-B",
    "B-A B-A I-B I-B",
    "O B-A I-B I-A",
    "S-A B-A I-A E-A O",
    "E-A E-A I-A S-B I-B",
    "O O O",
]


def test_entities_are_those_of_seqeval():
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    for line in TAGGED:
        tags = line.split()
        assert entities(tags) == {(kind, begin, end + 1) for kind, begin, end in seqeval.get_entities(tags)}, line


def test_figures_of_entities():
    seqeval = pytest.importorskip("seqeval.metrics")
    rng = np.random.default_rng(0)
    kinds = ["O", "B-A", "I-A", "B-B", "I-B"]
    right = [[kinds[at] for at in rng.integers(0, 5, 9)] for _ in range(80)]
    said = [[tag if rng.random() < 0.7 else kinds[rng.integers(0, 5)] for tag in row] for row in right]
    pairs = [(entities(one), entities(two)) for one, two in zip(said, right, strict=True)]
    table = np.array([(len(seen & there), len(seen), len(there)) for seen, there in pairs])
    found = metrics.of_entities(*table.T)
    assert {name: each.value for name, each in found.items()} == pytest.approx(
        {
            "precision": seqeval.precision_score(right, said),
            "recall": seqeval.recall_score(right, said),
            "f1": seqeval.f1_score(right, said),
        }
    )
    assert all(each.low < each.value < each.high for each in found.values())


def test_an_interval_ends_where_the_figure_must():
    found = metrics.mean(np.array([1.0, 1.0, 0.7]))
    assert found.high == 1.0 and 0 < found.low < found.value < 1
    assert metrics.mean(np.array([0.0, 0.0, 0.3])).low == 0.0
