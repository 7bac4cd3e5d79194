"""How good a model's answers are: how often they are right, and how close they are to a reference's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxfuse.architecture import MASK
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.evaluate import embeddings
from onnxfuse.evaluate.dataset import Dataset
from onnxfuse.runtime import Outputs, Runner

LOGITS = "logits"

HIDDEN = {"last_hidden_state", "token_embeddings"}
"""Outputs that count only where a model has no other."""


@dataclass(frozen=True)
class Answers:
    """A model's outputs on a data set: for each batch, with the mask of its real tokens (None where there is no mask)."""

    batches: tuple[tuple[Outputs, np.ndarray | None], ...]

    def joined(self, name: str) -> np.ndarray:
        """One output over all samples [n, ...]; only for outputs without a length."""
        return np.concatenate([outputs[name] for outputs, _ in self.batches])


@dataclass(frozen=True)
class Quality:
    """How good answers are.

    Args:
        cosine: the mean cosine of an output's rows (over its last axis, real tokens alone) with the reference's; of several
            outputs, the lowest.
        agreement: the share of the rows whose largest class is the reference's; of sentence embeddings, the share whose
            nearest neighbour is.
        accuracy: the share of samples whose largest class is the label; None without labels or without logits [B, classes].
        f1: F1 of each class, averaged without weights over the classes that occur; None as accuracy is.
        count: how many samples.
    """

    cosine: float
    agreement: float
    accuracy: float | None
    f1: float | None
    count: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def answer(run: Runner, data: Dataset, batch: int) -> Answers:
    """Run a model over a data set, ``batch`` samples at a time."""
    return Answers(tuple((run(feeds), feeds.get(MASK)) for feeds in data.batches(batch)))


def judge(got: Answers, reference: Answers, data: Dataset) -> Quality:
    """The quality of a model's answers beside a reference model's.

    Raises:
        ModelError: other outputs than the reference's.
        UsageError: labels that the model has no class for.
    """
    names = list(reference.batches[0][0])
    answers = [name for name in names if name not in HIDDEN] or names
    if set(names) != set(got.batches[0][0]):
        raise ModelError(f"the outputs are {sorted(got.batches[0][0])}, wanted {sorted(names)}")
    accuracy = f1 = None
    if data.labels is not None and LOGITS in names and got.batches[0][0][LOGITS].ndim == 2:
        accuracy, f1 = score(_classes(got, data.labels, data.name), np.asarray(data.labels))
    close = [_close(name, got, reference) for name in answers]
    return Quality(min(cosine for cosine, _ in close), min(same for _, same in close), accuracy, f1, len(data))


def score(answers: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy and F1 of answers [n] beside the true labels [n]."""
    right = answers == labels
    parts = []
    for name in np.unique(labels):
        hits = int((right & (labels == name)).sum())
        parts.append(2 * hits / (int((answers == name).sum()) + int((labels == name).sum())))
    return float(right.mean()), float(np.mean(parts))


def _classes(answers: Answers, labels: np.ndarray, name: str) -> np.ndarray:
    logits = answers.joined(LOGITS)
    if labels.max() >= logits.shape[1]:
        raise UsageError(f"{name} has labels up to {labels.max()}, the model {logits.shape[1]} classes")
    return logits.argmax(axis=1)


def _close(name: str, got: Answers, reference: Answers) -> tuple[float, float]:
    """Mean cosine and agreement of one output's rows."""
    if name == embeddings.OUTPUT and len(reference.joined(name)) > 1:
        kept = embeddings.compare(reference.joined(name), got.joined(name))
        return kept.cosine, kept.neighbours
    wanted, seen = (np.concatenate([_rows(outputs[name], mask) for outputs, mask in answers.batches])
                    if reference.batches[0][0][name].ndim == 3 else answers.joined(name) for answers in (reference, got))
    wanted, seen = (array.reshape(len(array), -1).astype(np.float64) for array in (wanted, seen))
    if wanted.shape[1] == 1:  # one number a row has no direction: all rows are one
        wanted, seen = wanted.T, seen.T
    norms = np.linalg.norm(wanted, axis=1) * np.linalg.norm(seen, axis=1)
    cosines = (wanted * seen).sum(axis=1) / np.where(norms == 0, 1, norms)
    return float(cosines.mean()), float((wanted.argmax(axis=1) == seen.argmax(axis=1)).mean())


def _rows(output: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """[B, S, D] as the rows of the real tokens."""
    return output.reshape(-1, output.shape[-1]) if mask is None or mask.shape != output.shape[:2] else output[mask.astype(bool)]
