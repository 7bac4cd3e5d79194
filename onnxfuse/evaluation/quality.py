"""How good a model's predictions are: how often they are right, and how close they are to a reference's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxfuse.errors import ModelError, UsageError
from onnxfuse.evaluation import embeddings
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.io.progress import Share, untold
from onnxfuse.runtime import Outputs, Runner

LOGITS = "logits"

HIDDEN = {"last_hidden_state", "token_embeddings"}
"""Outputs that count only where a model has no other."""


@dataclass(frozen=True)
class Predictions:
    """A model's outputs on a data set: for each batch, with the mask of its real tokens (None where there is no mask)."""

    batches: tuple[tuple[Outputs, np.ndarray | None], ...]

    def joined(self, name: str) -> np.ndarray:
        """One output over all samples [n, ...]; only for outputs without a length."""
        return np.concatenate([outputs[name] for outputs, _ in self.batches])

    def alone(self) -> Predictions | None:
        """Each sample in a batch of its own, as a model would give it whose rows do not depend on their neighbours.

        None where there is more than logits [B, classes]: outputs of tokens would be shorter.
        """
        if any(set(outputs) != {LOGITS} or outputs[LOGITS].ndim != 2 for outputs, _ in self.batches):
            return None
        return Predictions(tuple(({LOGITS: row[None]}, None) for row in self.joined(LOGITS)))


@dataclass(frozen=True)
class Quality:
    """How good predictions are.

    Args:
        cosine: the mean cosine of an output's rows (over its last axis, real tokens alone) with the reference's; of several
            outputs, the lowest.
        agreement: the share of the rows whose largest class is the reference's; of sentence embeddings, the share whose
            nearest neighbour is.
        accuracy: the share of samples whose largest class is the label; None without labels or without logits [B, classes].
        f1: F1 of each class, averaged without weights over the classes that occur in labels or predictions; None as accuracy is.
        count: how many samples.
    """

    cosine: float
    agreement: float
    accuracy: float | None
    f1: float | None
    count: int

    def worse_of(self, other: Quality) -> Quality:
        """The worse of the two in each figure."""

        def least(a: float | None, b: float | None) -> float | None:
            return None if a is None or b is None else min(a, b)

        return Quality(
            min(self.cosine, other.cosine),
            min(self.agreement, other.agreement),
            least(self.accuracy, other.accuracy),
            least(self.f1, other.f1),
            self.count,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def predict(run: Runner, data: Dataset, batch: int, tell: Share = untold) -> Predictions:
    """Run a model over a data set, ``batch`` samples at a time.

    Raises:
        UsageError: after the first batch, for labels that are no classes of the model.
    """
    found: list[tuple[Outputs, np.ndarray | None]] = []
    done = 0
    for part in data.judged(batch):
        tell(done / len(data), f"sample {done + 1} of {len(data)}")
        done += part.rows
        outputs, fed = run(part.feeds), len(next(iter(part.feeds.values())))
        if not found:
            _require_classes(outputs, data)
        found.append(
            (
                {name: _without_filling(output, fed, part.rows) for name, output in outputs.items()},
                None if part.keep is None else part.keep[: part.rows],
            )
        )
    return Predictions(tuple(found))


def _without_filling(output: np.ndarray, fed: int, rows: int) -> np.ndarray:
    """An output without the rows that only filled its batch up: [B, ...], or [B * S, ...]."""
    per_row, rest = divmod(len(output), fed) if output.ndim else (0, 0)
    return output[: per_row * rows] if per_row and not rest else output


def judge(got: Predictions, reference: Predictions, data: Dataset) -> Quality:
    """The quality of a model's predictions beside a reference model's.

    Raises:
        ModelError: other outputs than the reference's, or a reference that is not finite.
    """
    names = list(reference.batches[0][0])
    judged = [name for name in names if name not in HIDDEN] or names
    if set(names) != set(got.batches[0][0]):
        raise ModelError(f"the outputs are {sorted(got.batches[0][0])}, wanted {sorted(names)}")
    accuracy = f1 = None
    if data.labels is not None and _classifies(got.batches[0][0]):
        accuracy, f1 = score(got.joined(LOGITS).argmax(axis=1), np.asarray(data.labels))
    close = [_closeness(name, got, reference) for name in judged]
    return Quality(min(each.cosine for each in close), min(each.agreement for each in close), accuracy, f1, len(data))


def score(predictions: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy and F1 of predictions [n] beside the true labels [n].

    Source: scikit-learn's f1_score(average="macro"): a class that occurs in the predictions alone counts as 0.
    """
    right = predictions == labels
    parts = []
    for name in np.union1d(labels, predictions):
        hits = int((right & (labels == name)).sum())
        parts.append(2 * hits / (int((predictions == name).sum()) + int((labels == name).sum())))
    return float(right.mean()), float(np.mean(parts))


def _classifies(outputs: Outputs) -> bool:
    """Whether they are one row of classes for each sample."""
    return LOGITS in outputs and outputs[LOGITS].ndim == 2


def _require_classes(outputs: Outputs, data: Dataset) -> None:
    """Raises UsageError when labels are no classes of the model that gives such outputs."""
    labels = data.labels
    if labels is None or not _classifies(outputs):
        return
    if labels.ndim != 1:
        raise UsageError(f"the labels of {data.name} have the shape {list(labels.shape)}, wanted one class for each sample")
    count = outputs[LOGITS].shape[1]
    if count == 1:
        raise UsageError(f"{data.name} has labels, and the model gives one number for each sample (regression); leave them out")
    if labels.min() < 0 or labels.max() >= count:
        raise UsageError(f"{data.name} has labels from {labels.min()} to {labels.max()}, the model {count} classes")


@dataclass(frozen=True)
class _Closeness:
    """The mean cosine of an output's rows with a reference's, and the share of rows whose largest number is in the same place."""

    cosine: float
    agreement: float


@dataclass(frozen=True)
class _Rows:
    """One batch of an output as rows [n, width], the reference's and the other's, and which of their numbers count."""

    wanted: np.ndarray
    seen: np.ndarray
    counted: np.ndarray

    @property
    def finite(self) -> bool:
        """Whether all that counts of the reference is finite."""
        return bool(np.isfinite(np.where(self.counted, self.wanted, 0)).all())

    def cosines(self) -> np.ndarray:
        """Of each row [n]."""
        return embeddings.cosines(np.where(self.counted, self.wanted, 0), np.where(self.counted, self.seen, 0))

    def agree(self) -> np.ndarray:
        """Whether the largest number of each row is in the same place, bool [n]."""
        return np.asarray(self._largest(self.wanted) == self._largest(self.seen))

    def _largest(self, rows: np.ndarray) -> np.ndarray:
        """The place of the largest number of each row that counts; of a row that is not finite, none that another has."""
        finite = np.isfinite(np.where(self.counted, rows, 0)).all(axis=1)
        return np.where(finite, np.where(self.counted, rows, -np.inf).argmax(axis=1), -1)


_Pair = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""An output on one batch: the reference's, the other's, and the mask of the batch's real tokens."""


def _closeness(name: str, got: Predictions, reference: Predictions) -> _Closeness:
    """How close one output is, over all batches.

    Raises:
        ModelError: shapes differ, or the reference is not finite.
        UsageError: the mask leaves nothing to compare.
    """
    pairs = _pairs(name, got, reference)
    if pairs[0][0].dtype.kind in "OSU":  # texts have no direction: they are equal or not
        equal = float(np.concatenate([(wanted == seen).reshape(-1) for wanted, seen, _ in pairs]).mean())
        return _Closeness(equal, equal)
    batches = _rows(name, pairs)
    if not any(len(rows.wanted) for rows in batches):
        raise UsageError(f"no token of the data is real, so nothing can be judged by output {name!r}; correct its attention_mask")
    if not all(rows.finite for rows in batches):
        raise ModelError(f"output {name!r} of the model to compare with is not finite on the data; nothing can be judged by it")
    if name == embeddings.OUTPUT and sum(len(rows.wanted) for rows in batches) > 1:
        kept = embeddings.compare(_all(rows.wanted for rows in batches), _all(rows.seen for rows in batches))
        return _Closeness(kept.cosine, kept.neighbours)
    if all(rows.wanted.shape[1] == 1 for rows in batches):  # one number a row has no direction: all rows are one
        batches = [_Rows(_all(rows.wanted for rows in batches).T, _all(rows.seen for rows in batches).T, np.ones(1, bool))]
    cosine, agreement = _all(rows.cosines() for rows in batches).mean(), _all(rows.agree() for rows in batches).mean()
    return _Closeness(float(cosine), float(agreement))


def _all(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(arrays))


def _pairs(name: str, got: Predictions, reference: Predictions) -> list[_Pair]:
    """One output of both models, batch by batch. Raises ModelError where shapes differ."""
    pairs = [(wanted[name], seen[name], mask) for (wanted, mask), (seen, _) in zip(reference.batches, got.batches, strict=True)]
    for wanted, seen, _ in pairs:
        if wanted.shape != seen.shape:
            raise ModelError(f"output {name!r} has the shape {list(seen.shape)}, wanted {list(wanted.shape)}")
    return pairs


ORDERS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (np.asarray, np.transpose, np.ravel)
"""Of a mask [B,S], as the tokens of an output stand: [B,S,D], [S,B,D], [B*S,D]."""


def _rows(name: str, pairs: list[_Pair]) -> list[_Rows]:
    """An output of any rank as rows: one for each real token where every batch has tokens, else one for each sample."""
    masked = [(wanted, seen, mask.astype(bool)) for wanted, seen, mask in pairs if mask is not None]
    if masked and name != LOGITS and all(wanted.shape == mask.shape for wanted, _, mask in masked):
        return [_Rows(_flat(wanted), _flat(seen), mask) for wanted, seen, mask in masked]  # a number for each token
    for order in ORDERS if masked else ():
        if all(wanted.shape[:-1] == order(mask).shape for wanted, _, mask in masked):
            chosen = [(wanted[order(mask)], seen[order(mask)]) for wanted, seen, mask in masked]
            return [_Rows(wanted.astype(np.float64), seen.astype(np.float64), np.ones(1, bool)) for wanted, seen in chosen]
    return [_Rows(_flat(wanted), _flat(seen), np.ones(1, bool)) for wanted, seen, _ in pairs]


def _flat(output: np.ndarray) -> np.ndarray:
    """A row for each sample [n, width]."""
    return output.reshape(len(output) if output.ndim else 1, -1).astype(np.float64)
