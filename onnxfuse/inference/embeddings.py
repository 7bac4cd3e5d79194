"""Embeddings of texts or images, as ``SentenceTransformer.encode`` gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from onnxfuse.architecture import OUTPUTS
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.inference.serving import SENTENCES as FILE
from onnxfuse.inference.serving import Serving, require_text, several, several_images
from onnxfuse.runtime import Outputs

TASKS = ("sentence-similarity",)
(OUTPUT,) = OUTPUTS[TASKS[0]]


def encode(serving: Serving, inputs: Any, prompt_name: str | None, prompt: str | None, batch: int) -> np.ndarray:
    """See ``Model.encode``."""
    serving.require("encode", TASKS, OUTPUT)
    if serving.sees:
        given, single = several_images(inputs)
        parts = serving.of_images(given, batch)
    else:
        given, single = several(inputs, (str,), "a text")
        front = prompt_of(serving, prompt_name, prompt)
        texts = [front + require_text(text, f"text {number}") for number, text in enumerate(given, 1)]
        length = serving.tokens.count(front) if front else 0
        parts = ((places, outputs) for places, _, outputs in serving.of_texts(texts, batch, length))
    found = gathered(serving, parts, len(given))
    return found[0] if single else found


def gathered(serving: Serving, parts: Iterable[tuple[list[int], Outputs]], count: int) -> np.ndarray:
    """The embeddings [count,D] of what ran in any order: see ``Serving.of_texts``."""
    found = np.zeros((count, serving.width(OUTPUT)), np.float32)
    for number, (places, outputs) in enumerate(parts):
        vectors = outputs[OUTPUT]
        if number == 0:
            found = np.zeros((count, *vectors.shape[1:]), np.float32)
        found[places] = vectors
    return found


def prompt_of(serving: Serving, name: str | None, prompt: str | None) -> str:
    """What stands in front of every text. Raises UsageError, ModelError."""
    if prompt is not None:
        if name is not None:
            raise UsageError("prompt and prompt_name are given; give one of them")
        return require_text(prompt, "prompt")
    path, said = serving.home / FILE, serving.sentences
    prompts, chosen = said.get("prompts") or {}, said.get("default_prompt_name") if name is None else name
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ModelError(f"{path} has {prompts!r:.80} as prompts, wanted texts by name; correct it")
    if chosen is None:
        return ""
    if not isinstance(chosen, str) or chosen not in prompts:
        raise UsageError(f"there is no prompt named {chosen!r:.60} in {path}; it has {', '.join(prompts) or 'none'}")
    return prompts[chosen] or ""
