"""The class of texts, of pairs of texts, or of images, as the pipelines of ``transformers`` name and score it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from onnxfuse.errors import ModelError, UsageError
from onnxfuse.inference.serving import LOGITS, Serving, require_text, several, several_images, softmax
from onnxfuse.inference.tokens import Text
from onnxfuse.runtime import Outputs

TASKS = ("text-classification", "image-classification", "next-sentence-prediction")


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-scores)))


SCORES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "regression": np.asarray,
    "multi_label_classification": _sigmoid,
    "single_label_classification": softmax,
}
"""How logits become scores, by config.json's problem_type."""


def classify(serving: Serving, inputs: Any, top: int | None, batch: int) -> list[Any]:
    """See ``Model.classify``."""
    serving.require("classify", TASKS, LOGITS)
    if top is not None and (type(top) is not int or top < 1):
        raise UsageError(f"top is {top!r:.40}, wanted how many labels to give, or None for all")
    if serving.sees:
        given, single = several_images(inputs)
        parts = serving.of_images(given, batch)
    else:
        given, single = several(inputs, (str, tuple), "a text or a pair of texts")
        texts = [_text(text, f"text {number}") for number, text in enumerate(given, 1)]
        parts = ((places, outputs) for places, _, outputs in serving.of_texts(texts, batch))
    found = gathered(serving, parts, len(given), top)
    return found[0] if single else found


def gathered(serving: Serving, parts: Iterable[tuple[list[int], Outputs]], count: int, top: int | None) -> list[Any]:
    """The labels of what ran in any order, best first: see ``Serving.of_texts``."""
    found: list[Any] = [None] * count
    for places, outputs in parts:
        for place, row in zip(places, _scores(serving, outputs[LOGITS]), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            found[place] = [{"label": _label(serving, int(at)), "score": float(row[at])} for at in best]
    return found


def _text(given: Any, name: str) -> Text:
    """Raises UsageError."""
    if not isinstance(given, tuple | list):
        return require_text(given, name)
    if len(given) != 2:
        raise UsageError(f"{name} has {len(given)} texts, wanted one, or a pair")
    return require_text(given[0], f"{name}, its first,"), require_text(given[1], f"{name}, its second,")


def _scores(serving: Serving, logits: np.ndarray) -> np.ndarray:
    """Scores [B,labels]. Raises UsageError for what are no logits of classes."""
    if logits.ndim != 2:
        raise UsageError(f"{serving.path} gives logits of shape {list(logits.shape)}, wanted one for each label; see fill")
    kind = serving.config.get("problem_type")
    usual = "single_label_classification" if logits.shape[1] > 1 else "multi_label_classification"
    if kind is not None and kind not in list(SCORES):
        raise ModelError(f"{serving.home}: config.json has {kind!r:.60} as problem_type, wanted one of {', '.join(SCORES)}")
    alone = logits.shape[1] == 1 and kind != "regression"
    return SCORES[usual if kind is None or alone else kind](logits.astype(np.float32))


def _label(serving: Serving, number: int) -> str:
    named = serving.config.get("id2label")
    return str((named if isinstance(named, dict) else {}).get(str(number), f"LABEL_{number}"))
