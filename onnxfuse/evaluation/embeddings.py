"""What a rewrite or quantization does to sentence embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxfuse.errors import ParityError
from onnxfuse.runtime import Feeds, Runner

Tokenize = Callable[[Sequence[str]], Feeds]
OUTPUT = "sentence_embedding"


@dataclass(frozen=True)
class Kept:
    """How much of a reference's embeddings a model keeps: the mean cosine with them, and the part of the sentences whose
    nearest other sentence stays the same."""

    cosine: float
    neighbours: float
    sentences: int


def embed(run: Runner, tokenize: Tokenize, texts: Sequence[str], batch: int = 8) -> np.ndarray:
    """Sentence embeddings [len(texts), D], computed ``batch`` rows at a time in the given order."""
    parts = [run(tokenize(texts[at : at + batch]))[OUTPUT] for at in range(0, len(texts), batch)]
    return np.concatenate(parts).astype(np.float64)


def compare(reference: np.ndarray, embeddings: np.ndarray) -> Kept:
    """Hold embeddings [M,D] of distinct sentences against a reference's.

    Raises:
        ParityError: fewer than two sentences, or shapes that differ.
    """
    if len(reference) < 2 or reference.shape != embeddings.shape:
        raise ParityError(f"embeddings of shape {embeddings.shape} cannot be compared with {reference.shape}")
    same = _nearest(reference) == _nearest(embeddings)
    return Kept(float(cosines(reference, embeddings).mean()), float(same.mean()), len(reference))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of each row of a [n,D] with that of b: 0 where one is zero or not finite, 1 where both are zero."""
    finite = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    a, b = (np.where(finite[:, None], rows, 0) for rows in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    nothing = finite & ~a.any(axis=1) & ~b.any(axis=1)
    return np.asarray(np.where(norms > 0, (a * b).sum(axis=1) / np.where(norms > 0, norms, 1), nothing.astype(float)))


def _nearest(rows: np.ndarray) -> np.ndarray:
    """The row with the largest cosine to each, itself left out; a row that is not finite is near to none."""
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms > 0, norms, 1)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    return np.asarray(similar.argmax(axis=1))
