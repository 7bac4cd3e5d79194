"""Embeddings of texts or images, as ``Model.encode`` gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxfuse.bulk.use import Columns, Use, counted, prepared, ran
from onnxfuse.inference.embeddings import OUTPUT, TASKS, gathered
from onnxfuse.inference.serving import Serving


def prepare(serving: Serving, given: Sequence[Any]) -> Sequence[Any]:
    return prepared(serving, given if serving.sees else [serving.front + text for text in given])


def run(serving: Serving, made: Sequence[Any]) -> Columns:
    prompt = serving.tokens.count(serving.front) if serving.front else 0
    return {"embedding": gathered(serving, ran(serving, made, prompt), len(made))}


def takes(serving: Serving) -> bool:
    return OUTPUT in serving.outputs


USE = Use("embed", " or ".join(TASKS), takes, ("text",), ("embedding",), 1, prepare, run, counted, prompted=True)
