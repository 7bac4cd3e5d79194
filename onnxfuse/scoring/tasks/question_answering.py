"""Answers in contexts: SQuAD 1.1, and 2.0 where some questions have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxfuse.errors import UsageError
from onnxfuse.inference.answers import Search, candidates
from onnxfuse.inference.serving import Serving
from onnxfuse.scoring import metrics, squad
from onnxfuse.scoring.metrics import Metric
from onnxfuse.scoring.source import Row, Source
from onnxfuse.scoring.task import Answer, Reader, Sample, Task, column_of, text_of

SEARCH = Search(top=1, length=30, window=384, stride=128, none=True)
"""As the published figures are measured: windows of 384 tokens that have 128 in common, answers of at most 30."""


def reader(serving: Serving, source: Source) -> Reader:
    names = [column_of(source, f"{name}s", (name,)) for name in ("question", "context")]
    answers = column_of(source, "answers", ("answers",))

    def read(row: Row, where: str) -> Sample:
        given = row.get(answers)
        texts = given.get("text") if isinstance(given, Mapping) else None
        if not isinstance(texts, list | tuple | np.ndarray) or not all(isinstance(each, str) for each in texts):
            raise UsageError(f"{where} has {given!r:.60} as answers, wanted texts with where they start, as SQuAD has them")
        return Sample(where, tuple(text_of(row, name, where) for name in names), squad.wanted(list(texts)))

    return read


def answers(serving: Serving, samples: Sequence[Sample], batch: int) -> list[Answer]:
    """Kept are exact match and F1 of the answer, whether there is none, and how much likelier the model finds that."""
    found = []
    for sample in samples:
        question, context = sample.asked
        try:
            given, nothing = candidates(serving, question, context, SEARCH)
        except UsageError as error:
            raise UsageError(f"{sample.where}: {error}; leave it out") from error
        best = [(str(each["answer"]), float(each["score"])) for each in given]
        text, score = max(best, key=lambda each: each[1], default=("", 0.0))
        right = sample.right
        kept = (squad.exact(text, right), squad.overlap(text, right), float(right == [""]), nothing - score)
        found.append(Answer(kept, text if kept[3] <= 0 else "", np.zeros(0)))
    return found


def figures(serving: Serving, kept: np.ndarray) -> Mapping[str, Metric]:
    """Where some questions have no answer, the model may decline; ``best`` figures are those of the best threshold for that."""
    exact, overlap, nothing, surplus = kept.T
    if not nothing.any():
        return {"exact_match": metrics.share(int(exact.sum()), len(kept)), "f1": metrics.mean(overlap)}
    declined = surplus > 0
    said = {name: np.where(declined, nothing, score) for name, score in (("exact_match", exact), ("f1", overlap))}
    found = {"exact_match": metrics.share(int(said["exact_match"].sum()), len(kept)), "f1": metrics.mean(said["f1"])}
    for name, score in (("exact_match", exact), ("f1", overlap)):
        _, threshold = squad.best_threshold(score, nothing, surplus)
        best = np.where(surplus > threshold, nothing, score)
        found[f"best_{name}"] = metrics.mean(best) if name == "f1" else metrics.share(int(best.sum()), len(kept))
    return found


def right(kept: np.ndarray) -> np.ndarray:
    exact, _, nothing, surplus = kept.T
    return np.asarray(np.where(nothing.any() & (surplus > 0), nothing, exact) == 1)


TASK = Task("question-answering", reader, answers, figures, right)
