"""The likeliest label of texts, pairs of texts or images, and its score, as ``Model.classify`` gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxfuse.bulk.use import Columns, Use, counted, prepared, ran
from onnxfuse.inference.classes import TASKS, gathered
from onnxfuse.inference.serving import LOGITS, Serving


def takes(serving: Serving) -> bool:
    task = serving.config.get("onnxfuse_task")
    return serving.outputs == (LOGITS,) and (task in TASKS if task is not None else serving.rank(LOGITS) == 2)


def run(serving: Serving, made: Sequence[Any]) -> Columns:
    best = [labels[0] for labels in gathered(serving, ran(serving, made), len(made), 1)]
    return {"label": [each["label"] for each in best], "score": np.array([each["score"] for each in best], np.float32)}


USE = Use("classify", " or ".join(TASKS), takes, ("text",), ("label", "score"), 2, prepared, run, counted)
