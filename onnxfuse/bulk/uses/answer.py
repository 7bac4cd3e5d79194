"""Where a context answers a question, as ``Model.answer`` gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onnxfuse.bulk.use import Columns, Use
from onnxfuse.inference.answers import OUTS, TASKS, Search
from onnxfuse.inference.answers import answer as answered
from onnxfuse.inference.serving import Serving

SEARCH = Search(top=1, length=15, window=384, stride=128, none=False)
"""As ``Model.answer`` has them."""


def run(serving: Serving, made: Sequence[Any]) -> Columns:
    """Several questions at a time; the windows of one after another."""
    one = replace(serving, calls=map)
    found = list(serving.calls(lambda pair: answered(one, pair[0], pair[1], SEARCH), made))
    return {
        "answer": [each["answer"] for each in found],
        "score": np.array([each["score"] for each in found], np.float32),
        "start": [each["start"] for each in found],
        "end": [each["end"] for each in found],
    }


USE = Use(
    "answer",
    TASKS[0],
    lambda serving: set(OUTS) <= set(serving.outputs),
    ("question", "context"),
    ("answer", "score", "start", "end"),
    2,
    lambda serving, given: given,
    run,
    lambda made: 0,
)
