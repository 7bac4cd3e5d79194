"""Classes of images: a folder for each class, or a column of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxfuse.inference.serving import LOGITS, Serving
from onnxfuse.scoring import metrics
from onnxfuse.scoring.metrics import Metric
from onnxfuse.scoring.rows import IMAGE, LABEL
from onnxfuse.scoring.source import Source
from onnxfuse.scoring.task import Answer, Labels, Reader, Sample, Task, classes_of, column_of

TOP = 5


def reader(serving: Serving, source: Source) -> Reader:
    image, label = column_of(source, "images", (IMAGE, "img")), column_of(source, "labels", (LABEL, "labels", "fine_label"))
    labels = Labels.of(serving, source.classes.get(label, ()))
    return lambda row, where: Sample(where, row[image], labels.number(row.get(label), where))


def answers(serving: Serving, samples: Sequence[Sample], batch: int) -> list[Answer]:
    found: list[Answer] = []
    for places, outputs in serving.of_images([sample.asked for sample in samples], batch):
        for place, logits in zip(places, outputs[LOGITS].astype(np.float64), strict=True):
            right, best = samples[place].right, np.argsort(-logits, kind="stable")[:TOP]
            found.append(Answer((right, int(best[0]), right in best), int(best[0]), logits))
    return found


def figures(serving: Serving, kept: np.ndarray) -> Mapping[str, Metric]:
    classes = classes_of(serving)
    found = metrics.of_classes(classes, *kept[:, :2].astype(np.int64).T)
    top = {f"top_{TOP}": metrics.share(int(kept[:, 2].sum()), len(kept))} if classes > TOP else {}
    return {"accuracy": found["accuracy"], **top, "f1_macro": found["f1_macro"]}


TASK = Task("image-classification", reader, answers, figures, lambda kept: kept[:, 0] == kept[:, 1])
