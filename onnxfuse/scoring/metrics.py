"""The published figures, each with the interval that so many samples leave it.

Figures come from scikit-learn and scipy. Intervals are of 95 %: of shares Wilson's, of correlations Fisher's (of ranks with the
variance of Fieller, Hartley and Pearson, 1957), of means the normal one, of others the bootstrap over samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxfuse.errors import MissingExtraError

RESAMPLED, SEED = 400, 0

Z = 1.959963984540054
"""Standard deviations of a normal distribution to either side that hold 95 %."""


@dataclass(frozen=True)
class Metric:
    """A figure and its 95 % interval; NaN where it is not defined (a correlation of constants)."""

    value: float
    low: float
    high: float


def libraries() -> tuple[Any, Any]:
    """scikit-learn's metrics, and scipy's statistics. Raises MissingExtraError."""
    try:
        import scipy.stats
        import sklearn.metrics
    except ImportError as error:
        raise MissingExtraError("measuring quality", "eval") from error
    return sklearn.metrics, scipy.stats


def share(hits: int, count: int) -> Metric:
    """A share of samples, with Wilson's interval."""
    _, stats = libraries()
    found = stats.binomtest(hits, count).proportion_ci(method="wilson")
    return Metric(hits / count, float(found.low), float(found.high))


def mean(values: np.ndarray) -> Metric:
    """The mean of a number from 0 to 1 that each sample has [n], with the normal interval between these."""
    value, half = float(values.mean()), Z * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    low, high = np.clip((value - half, value + half), 0.0, 1.0).tolist()
    return Metric(value, low, high)


def of_classes(classes: int, labels: np.ndarray, predicted: np.ndarray) -> dict[str, Metric]:
    """accuracy; f1 (of class 1, where there are two), f1_macro over the classes that occur, and matthews.

    Args:
        classes: that there are.
        labels, predicted: the class of each sample [n].
    """
    sklearn, _ = libraries()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that do not occur
        values = {
            "f1": sklearn.f1_score(labels, predicted, labels=[1], average="micro", zero_division=0.0),
            "f1_macro": sklearn.f1_score(labels, predicted, average="macro", zero_division=0.0),
            "matthews": sklearn.matthews_corrcoef(labels, predicted),
        }
    draws = drawn(labels, predicted, RESAMPLED)
    found = {name: _between(value, draws[name]) for name, value in values.items() if name != "f1" or classes == 2}
    return {"accuracy": share(int((labels == predicted).sum()), len(labels)), **found}


def drawn(labels: np.ndarray, predicted: np.ndarray, times: int) -> dict[str, np.ndarray]:
    """f1 of class 1, f1_macro and matthews of as many samples, drawn from these so many times [times].

    Samples of one label and one prediction are alike, so that how many of each there are is drawn.
    """
    names, codes = np.unique(np.concatenate([labels, predicted]), return_inverse=True)
    pairs, counts = np.unique(codes.reshape(2, -1), axis=1, return_counts=True)
    table = np.random.default_rng(SEED).multinomial(len(labels), counts / len(labels), times).astype(np.float64)
    wanted, given = (table @ np.eye(len(names))[side] for side in pairs)  # of each draw, how many of each class
    hits = table @ (np.eye(len(names))[pairs[0]] * (pairs[0] == pairs[1])[:, None])
    f1 = 2 * hits / np.maximum(wanted + given, 1)
    spread = (len(labels) ** 2 - (wanted**2).sum(axis=1)) * (len(labels) ** 2 - (given**2).sum(axis=1))
    together = len(labels) * hits.sum(axis=1) - (wanted * given).sum(axis=1)
    return {
        "f1": (f1 * (names == 1)).sum(axis=1),
        "f1_macro": f1.sum(axis=1) / (wanted + given > 0).sum(axis=1),
        "matthews": together / np.sqrt(np.where(spread > 0, spread, np.inf)),
    }


def of_numbers(wanted: np.ndarray, given: np.ndarray) -> dict[str, Metric]:
    """pearson and spearman of numbers beside the right ones [n]."""
    _, stats = libraries()
    pearson = spearman = float("nan")  # of a single sample
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants, whose correlation is NaN
        if len(wanted) > 1:
            pearson, spearman = float(stats.pearsonr(wanted, given).statistic), float(stats.spearmanr(wanted, given).statistic)
    return {"pearson": _correlation(pearson, len(wanted), 1.0), "spearman": _correlation(spearman, len(wanted), 1.06)}


def _correlation(value: float, count: int, variance: float) -> Metric:
    if count < 4 or not abs(value) < 1:
        return Metric(value, value, value) if abs(value) == 1 else Metric(value, float("nan"), float("nan"))
    half = Z * (variance / (count - 3)) ** 0.5
    return Metric(value, float(np.tanh(np.arctanh(value) - half)), float(np.tanh(np.arctanh(value) + half)))


def of_entities(hits: np.ndarray, found: np.ndarray, there: np.ndarray) -> dict[str, Metric]:
    """precision, recall and f1 of entities, which seqeval calls so, over all sentences.

    Args:
        hits, found, there: of each sentence [n], the entities that were found rightly, found, and there.
    """

    def figures(hits: float, found: float, there: float) -> tuple[float, float, float]:
        return (
            hits / found if found else 0.0,
            hits / there if there else 0.0,
            2 * hits / (found + there) if found + there else 0.0,
        )

    table, random = np.stack([hits, found, there]), np.random.default_rng(SEED)
    draws = [figures(*table[:, random.integers(0, len(hits), len(hits))].sum(axis=1)) for _ in range(RESAMPLED)]
    whole = figures(*table.sum(axis=1))
    return {name: _between(whole[at], [each[at] for each in draws]) for at, name in enumerate(("precision", "recall", "f1"))}


def _between(value: float, draws: Sequence[float] | np.ndarray) -> Metric:
    low, high = np.quantile(np.array(draws), [0.025, 0.975])
    return Metric(float(value), min(float(low), float(value)), max(float(high), float(value)))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """How likely two models that are equally good differ so much: the exact test of McNemar.

    Args:
        first, second: which samples each gets right, bool [n].
    """
    _, stats = libraries()
    lost, gained = int((first & ~second).sum()), int((second & ~first).sum())
    return float(stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
