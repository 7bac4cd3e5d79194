"""What stands at a mask, as the fill-mask pipeline of ``transformers`` says it."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxfuse.architecture import IDS
from onnxfuse.errors import UsageError
from onnxfuse.inference.serving import LOGITS, Serving, require_text, several, softmax

TASKS = ("fill-mask",)


def fill(serving: Serving, texts: Any, top: int, batch: int) -> list[Any]:
    """See ``Model.fill``."""
    serving.require("fill", TASKS, LOGITS)
    if type(top) is not int or top < 1:
        raise UsageError(f"top is {top!r:.40}, wanted how many tokens to give for a mask")
    given, single = several(texts, (str,), "a text")
    for number, text in enumerate(given, 1):
        require_text(text, f"text {number}")
    mask = serving.tokens.named.get("mask_token")
    if mask is None:
        raise UsageError(f"the tokenizer in {serving.home} has no mask token; fill needs one")
    found: list[Any] = [None] * len(given)
    for places, rows, outputs in serving.of_texts(given, batch):
        assert rows.keep is not None
        logits = _logits(serving, outputs[LOGITS], mask)
        for row, place in enumerate(places):
            ids = rows.columns[IDS][row]
            at = np.flatnonzero((ids == mask) & rows.keep[row])
            if not at.size:
                word = serving.tokens.text([mask])
                raise UsageError(
                    f"text {place + 1} has no {word} in its first {serving.tokens.longest} tokens; put it where a word is to be"
                )
            kept = np.flatnonzero(rows.keep[row])
            masks = _filled(serving, ids[kept].tolist(), np.searchsorted(kept, at).tolist(), logits[row, at], top)
            found[place] = masks[0] if len(masks) == 1 else masks
    return found[0] if single else found


def _filled(serving: Serving, ids: list[int], at: list[int], logits: np.ndarray, top: int) -> list[list[dict[str, Any]]]:
    """For each mask of a text, the likeliest tokens; special ones stand in the sequence only where there are several masks."""
    found = []
    for place, row in zip(at, softmax(logits.astype(np.float32)), strict=True):
        best = np.argsort(-row, kind="stable")[:top].tolist()
        found.append(
            [
                {
                    "token": token,
                    "token_str": serving.tokens.text([token]),
                    "score": float(row[token]),
                    "sequence": serving.tokens.text([*ids[:place], token, *ids[place + 1 :]], special=len(at) > 1),
                }
                for token in best
            ]
        )
    return found


def _logits(serving: Serving, logits: np.ndarray, mask: int) -> np.ndarray:
    """Raises UsageError for what are no logits of a vocabulary for each token."""
    if logits.ndim != 3 or logits.shape[2] <= mask:
        raise UsageError(f"{serving.path} gives logits of shape {list(logits.shape)}, wanted one for each token of a vocabulary")
    return logits
