"""Classes of texts and of pairs of texts, and numbers for them: GLUE's tasks, by the columns that it publishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxfuse.errors import UsageError
from onnxfuse.inference.serving import LOGITS, Serving
from onnxfuse.scoring import metrics
from onnxfuse.scoring.metrics import Metric
from onnxfuse.scoring.source import Row, Source
from onnxfuse.scoring.task import Answer, Labels, Reader, Sample, Task, classes_of, column_of, text_of

TEXTS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("#1 String", "#2 String"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text", "text_pair"),
    ("text",),
    ("sentence",),
)
"""The columns of texts; the first that are all there."""

LABELS = ("label", "labels", "Quality", "gold_label", "is_duplicate", "class")
SCORES = ("score", "label", "labels", "similarity_score")


def texts_of(source: Source) -> tuple[str, ...]:
    """The columns of a text, or of both of a pair. Raises UsageError."""
    found = next((names for names in TEXTS if set(names) <= set(source.columns)), None)
    return found or (column_of(source, "texts", [" and ".join(names) for names in TEXTS]),)


def asked_of(row: Row, columns: Sequence[str], where: str) -> Any:
    texts = tuple(text_of(row, column, where) for column in columns)
    return texts if len(texts) > 1 else texts[0]


def number_of(row: Row, column: str, where: str) -> float:
    """Raises UsageError for what is no finite number."""
    try:
        value = float(row.get(column, ""))
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise UsageError(f"{where} has {row.get(column)!r:.60} as {column}, wanted a number")
    return value


def _regression(serving: Serving) -> bool:
    return serving.config.get("problem_type") == "regression" or classes_of(serving) == 1


def reader(serving: Serving, source: Source) -> Reader:
    if serving.config.get("problem_type") == "multi_label_classification":
        raise UsageError(f"{serving.path} gives several labels to a text (multi_label_classification), which is not evaluated")
    columns = texts_of(source)
    if _regression(serving):
        if (count := classes_of(serving)) > 1:
            raise UsageError(
                f"{serving.path} gives {count} numbers for a text (regression), and data have one; it is not evaluated"
            )
        score = column_of(source, "scores", SCORES)
        return lambda row, where: Sample(where, asked_of(row, columns, where), number_of(row, score, where))
    label = column_of(source, "labels", LABELS)
    labels = Labels.of(serving, source.classes.get(label, ()))
    return lambda row, where: Sample(where, asked_of(row, columns, where), labels.number(row.get(label), where))


def answers(serving: Serving, samples: Sequence[Sample], batch: int) -> list[Answer]:
    found: list[Answer | None] = [None] * len(samples)
    regression = _regression(serving)
    for places, _, outputs in serving.of_texts([sample.asked for sample in samples], batch):
        for place, logits in zip(places, outputs[LOGITS].astype(np.float64), strict=True):
            said = None if regression else int(logits.argmax())
            kept = (samples[place].right, float(logits[0])) if said is None else (samples[place].right, said)
            found[place] = Answer(kept, said, logits)
    return [each for each in found if each is not None]


def figures(serving: Serving, kept: np.ndarray) -> Mapping[str, Metric]:
    if _regression(serving):
        return metrics.of_numbers(*kept.T)
    return metrics.of_classes(classes_of(serving), *kept.astype(np.int64).T)


TASK = Task("text-classification", reader, answers, figures, lambda kept: kept[:, 0] == kept[:, 1])
