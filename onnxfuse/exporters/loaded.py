"""A model with a checkpoint's weights in it, whichever framework loaded them, and what it computes on a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from onnxfuse.architecture import Architecture
from onnxfuse.errors import OnnxfuseError

HIDDEN = "last_hidden_state"
"""Among a model's outputs: what its encoder gives every head."""

BARE = ("feature-extraction", "sentence-similarity", "image-feature-extraction")
"""Tasks without a head: their outputs are the encoder's."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Output:
    """What a model computes on a sample, and the names of the weights that it depends on."""

    value: np.ndarray
    reached: frozenset[str]


class Loaded(Protocol):
    """A model of one class, with a checkpoint's weights in it.

    ``kind``: the class, named as PyTorch's. ``prefix``: how weights of the encoder begin in classes with a head (``bert.``).
    ``required``: the names in ``own`` that a checkpoint must hold; the others are computed. ``vocabulary``: the rows of the
    table of words, which classes tie to others; 0 where there is none.
    """

    @property
    def model(self) -> Any: ...

    @property
    def kind(self) -> str: ...

    @property
    def prefix(self) -> str: ...

    @property
    def required(self) -> frozenset[str]: ...

    @property
    def vocabulary(self) -> int: ...

    def own(self) -> Arrays:
        """Its weights and buffers by their names in PyTorch, and laid out as there."""

    def outputs(self) -> Mapping[str, Output]:
        """Its outputs on a sample, by their names, and ``HIDDEN``."""


def outputs_of(loaded: Loaded) -> Mapping[str, Output]:
    """A model's outputs; none when it cannot run on the family's inputs."""
    try:
        return loaded.outputs()
    except OnnxfuseError:
        return {}


def same(theirs: Output, ours: Output, unread: set[str]) -> bool:
    """Whether one output is the other, without depending on the weights that the other's model has not."""
    return (
        not theirs.reached & unread
        and theirs.value.shape == ours.value.shape
        and np.allclose(theirs.value, ours.value, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(ours.value).max())))
    )


def shown(task: str, family: Architecture) -> tuple[str, ...]:
    """The outputs of a class of ``transformers`` that a task's outputs are made of."""
    return (HIDDEN,) if task == "sentence-similarity" else family.outputs_of(task)
