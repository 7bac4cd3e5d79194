"""What a use of a model is to bulk inference: which columns it reads, and which it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxfuse.inference.serving import Serving
from onnxfuse.runtime import Outputs

ROWS, IMAGES = 256, 8
"""The most texts, and images, in a batch."""

Columns = Mapping[str, Any]
"""Answers by column: an array [rows] or [rows,D] of float32, or a list of texts or whole numbers."""


@dataclass(frozen=True)
class Use:
    """One way to use a model.

    Args:
        name: of it.
        what: the tasks of its models, for messages.
        takes: whether a model is for it.
        columns: what the columns that it reads are called, where nobody says; texts, or images where the model takes these.
        answers: what those that it writes are called.
        most: how many columns it can read.
        prepare: rows (a text, an image's array, or a tuple of texts each) as ``run`` takes them.
        run: the answers to prepared rows.
        tokens: how many of them prepared rows have.
        prompted: whether a prompt stands in front of texts.
    """

    name: str
    what: str
    takes: Callable[[Serving], bool]
    columns: tuple[str, ...]
    answers: tuple[str, ...]
    most: int
    prepare: Callable[[Serving, Sequence[Any]], Sequence[Any]]
    run: Callable[[Serving, Sequence[Any]], Columns]
    tokens: Callable[[Sequence[Any]], int]
    prompted: bool = False


def prepared(serving: Serving, given: Sequence[Any]) -> Sequence[Any]:
    """Texts as tokens; images as they are."""
    return given if serving.sees else serving.tokens.encoded(given)


def ran(serving: Serving, made: Sequence[Any], prompt: int = 0) -> Iterator[tuple[list[int], Outputs]]:
    """Prepared rows through the model: places of theirs and the outputs for these, in any order."""
    if serving.sees:
        return serving.of_pixels(made, IMAGES)
    return ((places, outputs) for places, _, outputs in serving.of_tokens(made, ROWS, prompt))


def counted(made: Sequence[Any]) -> int:
    """The tokens of prepared texts; of images none."""
    return sum(len(each.ids) for each in made if hasattr(each, "ids"))
