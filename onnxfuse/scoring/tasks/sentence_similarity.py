"""Pairs of sentences with scores: the cosine of their embeddings beside these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxfuse.errors import UsageError
from onnxfuse.inference.embeddings import encode
from onnxfuse.inference.serving import Serving
from onnxfuse.scoring import metrics
from onnxfuse.scoring.metrics import Metric
from onnxfuse.scoring.source import Source
from onnxfuse.scoring.task import Answer, Reader, Sample, Task, column_of
from onnxfuse.scoring.tasks.text_classification import SCORES, asked_of, number_of, texts_of


def reader(serving: Serving, source: Source) -> Reader:
    columns, score = texts_of(source), column_of(source, "scores", SCORES)
    if len(columns) != 2:
        raise UsageError(f"{source.name} holds single texts ({columns[0]}), and similarity is of two; give pairs with scores")
    return lambda row, where: Sample(where, asked_of(row, columns, where), number_of(row, score, where))


def answers(serving: Serving, samples: Sequence[Sample], batch: int) -> list[Answer]:
    pairs = np.stack([encode(serving, [sample.asked[at] for sample in samples], None, None, batch) for at in (0, 1)])
    pairs = pairs.astype(np.float64)
    norms = np.maximum(np.linalg.norm(pairs, axis=2), np.finfo(np.float32).tiny)
    cosines = (pairs[0] * pairs[1]).sum(axis=1) / norms.prod(axis=0)
    both = np.concatenate(pairs, axis=1)
    return [Answer((sample.right, cosine), None, row) for sample, cosine, row in zip(samples, cosines, both, strict=True)]


def figures(serving: Serving, kept: np.ndarray) -> Mapping[str, Metric]:
    return metrics.of_numbers(*kept.T)


TASK = Task("sentence-similarity", reader, answers, figures)
