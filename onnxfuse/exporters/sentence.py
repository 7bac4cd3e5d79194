"""What follows the encoder of a sentence encoder, as data: the steps that modules.json asks for, with their weights.

Source: sentence-transformers 6.2's modules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from onnxfuse.architecture import PROMPT
from onnxfuse.config import BATCH_SIZE

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")
"""Classes of torch.nn that a Dense may apply, with their defaults."""

TOKENS, SENTENCE = "token_embeddings", "sentence_embedding"


@dataclass(frozen=True)
class Pooling:
    """How token embeddings [B,S,D] become one sentence embedding, [B, D * number of modes].

    Args:
        modes: of ``MODES``; their results stand one after another.
        left: whether the tokenizer pads on the left, so that rows do not begin with their first token.
        without_prompt: whether each row's first tokens, as many as the input ``PROMPT`` says, are left out.
    """

    modes: tuple[str, ...] = ("mean",)
    left: bool = False
    without_prompt: bool = False


@dataclass(frozen=True)
class Dense:
    """activation(x W' + b), and x added to it (``residual``: empty), or x times that weight; on ``source``, giving ``target``."""

    weight: np.ndarray
    bias: np.ndarray | None
    activation: str
    source: str = SENTENCE
    target: str = SENTENCE
    residual: np.ndarray | None = None


@dataclass(frozen=True)
class LayerNorm:
    """A norm over the sentence embedding."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Normalize:
    """Length 1; on ``source``, giving ``target``."""

    source: str = SENTENCE
    target: str = SENTENCE


@dataclass(frozen=True)
class Splade:
    """log(1 + relu(scores)) of the tokens that the mask keeps, once or (``twice``) twice, and their maximum or ``total``."""

    total: bool = False
    twice: bool = False


@dataclass(frozen=True)
class Embeds:
    """The encoder's own embedding of the whole input, its output ``source`` [B,D], is the sentence embedding."""

    source: str


Step = Embeds | Pooling | Dense | LayerNorm | Normalize | Splade
Chain = tuple[Step, ...]
"""What is done to the encoder's outputs, in order; empty for an encoder alone."""


def inputs_of(chain: Chain, outputs: Collection[str]) -> dict[str, Mapping[int, str]]:
    """The inputs that a chain needs beside the encoder's for these outputs, with their dynamic dimensions by axis."""
    asks = SENTENCE in outputs and any(isinstance(step, Pooling) and step.without_prompt for step in chain)
    return {PROMPT: {0: BATCH_SIZE}} if asks else {}
