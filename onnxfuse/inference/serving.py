"""What every use of an opened model shares: what it takes, its folder's files, and batches of any number of inputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse import catalog
from onnxfuse.architecture import IDS, MASK, PIXELS, POSITIONS, PROMPT, TYPES
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.evaluation.collate import Collator, Rows, Sizes
from onnxfuse.evaluation.sources import collator_of, usual_collator
from onnxfuse.inference.images import Images, images_in
from onnxfuse.inference.tokens import Text, Tokens, tokens_in
from onnxfuse.io import door, files, folders
from onnxfuse.runtime import Outputs, Runner, declared

KNOWN = frozenset({IDS, MASK, TYPES, POSITIONS, PROMPT, PIXELS})
"""Inputs that mean what they mean in ``transformers``."""

SENTENCES = "config_sentence_transformers.json"

LOGITS = "logits"
"""The output that several tasks have."""

BLOCK = 4096
"""Texts that are held as tokens at a time."""


Calls = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""What gives the answers of a function to several arguments, as ``map``."""


@dataclass(frozen=True)
class Serving:
    """An opened model with its folder. Threads may share it: what it reads, it reads once or twice, and never changes.

    Args:
        path: the model's file.
        run: the opened model.
        inputs, outputs: their names.
        beside: a file in the folder of its config.json and tokenizer, where these lie apart; None where they do not.
        within: sizes that it is held to, beside others; None for its own.
        budget: tokens of a batch, its padding included, at most; 0 bounds its rows alone.
        front: what stands in front of every text that is embedded, where it is known beforehand.
        calls: makes the calls of several batches: one after another, or some at a time, with the answers in their order.
    """

    path: Path
    run: Runner
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    beside: Path | None = None
    within: Sizes | None = None
    budget: int = 0
    calls: Calls = map
    front: str = ""

    @cached_property
    def home(self) -> Path:
        """The folder of config.json and the tokenizer."""
        return folders.home_of(self.beside or self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json; empty where there is none."""
        return folders.read_config(self.beside or self.path)

    @cached_property
    def sentences(self) -> dict[str, Any]:
        """What sentence-transformers says of prompts; empty where it says nothing. Raises ModelError."""
        path = self.home / SENTENCES
        return files.read_object(door.linked(path, self.home)) if os.path.lexists(path) else {}

    @cached_property
    def _read(self) -> tuple[Collator, Mapping[str, int], Mapping[str, int]]:
        """What the model takes, the last size of each output that says one, and the rank of each that says it."""
        graph = declared(self.path)
        known = KNOWN.issuperset(self.inputs)
        collator = usual_collator(self.path, graph) if known else collator_of(self.path, graph, self.run)
        last = {value.name or "": value.shape[-1] for value in graph.graph.outputs if value.shape}
        ranks = {value.name or "": len(value.shape) for value in graph.graph.outputs if value.shape is not None}
        return collator, {name: size for name, size in last.items() if isinstance(size, int)}, ranks

    @property
    def collator(self) -> Collator:
        """Brings inputs into the form that the model takes."""
        return self._read[0]

    @cached_property
    def sizes(self) -> Sizes:
        """Those that the model takes, or is held to."""
        return self.within or self.collator.sizes

    def width(self, output: str) -> int:
        """The last size of an output; 0 where the graph does not say."""
        return self._read[1].get(output, 0)

    def rank(self, output: str) -> int:
        """How many axes an output has; 0 where the graph does not say."""
        return self._read[2].get(output, 0)

    @property
    def sees(self) -> bool:
        """Whether it takes images."""
        return PIXELS in self.inputs

    @cached_property
    def tokens(self) -> Tokens:
        """The tokenizer, for texts as long as the model takes. Raises UsageError, ModelError, MissingExtraError."""
        if missing := self.collator.missing((IDS, MASK, TYPES)):
            raise UsageError(f"{self.path} takes {', '.join(missing)}, which texts do not give; call the model itself")
        if self.collator.choices:
            raise UsageError(f"{self.path} takes several texts in a row; call the model itself")
        family = catalog.families().get(str(self.config.get("model_type")))
        known = (self.collator.longest, self.sizes.length, family.longest(self.config) if family else 0)
        return tokens_in(self.home, min(size for size in known if size))

    @cached_property
    def images(self) -> Images:
        """What makes arrays of images, as the model takes them. Raises UsageError, ModelError, MissingExtraError."""
        taken = next(value for value in self.collator.profile.inputs if value.name == PIXELS)
        if missing := self.collator.missing((PIXELS,)):
            raise UsageError(f"{self.path} takes {', '.join(missing)}, which images do not give; call the model itself")
        return images_in(self.home, taken)

    def require(self, use: str, tasks: Sequence[str], *outputs: str) -> None:
        """Raises UsageError for a model without the outputs that a use of it needs, or of another task with such an output."""
        task = self.config.get("onnxfuse_task")
        other = outputs == (LOGITS,) and task not in (None, *tasks)
        if other or not set(outputs) <= set(self.outputs):
            gives = f"gives {', '.join(self.outputs)}" if task is None else f"was exported for {task}"
            raise UsageError(
                f"{self.path} {gives}; {use} needs {', '.join(outputs)} of a model of {' or '.join(tasks)}: export it with --task"
            )

    def of_texts(self, texts: Sequence[Text], batch: int, prompt: int = 0) -> Iterator[tuple[list[int], Rows, Outputs]]:
        """Run on texts: places of theirs, their rows, and the outputs for these, in any order.

        Args:
            prompt: tokens at the begin of each that are its prompt.

        Raises:
            UsageError, ModelError, MissingExtraError: see ``tokens``; or the model fails on them.
        """
        for start in range(0, len(texts), BLOCK):
            made = self.tokens.encoded(texts[start : start + BLOCK])
            for places, rows, outputs in self.of_tokens(made, batch, prompt):
                yield [start + place for place in places], rows, outputs

    def of_tokens(self, made: Sequence[Any], batch: int, prompt: int = 0) -> Iterator[tuple[list[int], Rows, Outputs]]:
        """The same for texts that are encoded already, those of like length together."""
        collator, sizes, tokens = self.collator, self.sizes, self.tokens

        def call(places: list[int]) -> tuple[list[int], Rows, Outputs]:
            rows = tokens.rows([made[place] for place in places], collator.pad, None if sizes.even else sizes.length)
            rows = Rows({**rows.columns, PROMPT: np.full(len(places), prompt)}, rows.keep)
            collator.require(rows.columns, f"the tokenizer in {self.home}", ModelError)
            return places, rows, self._ran(rows, len(places))

        lengths = [len(each.ids) for each in made]
        yield from self.calls(call, _batches(lengths, sizes.batch or _whole(batch), sizes.even, self.budget))

    def of_images(self, images: Sequence[Any], batch: int) -> Iterator[tuple[list[int], Outputs]]:
        """Run on images: places of theirs, and the outputs for these. Raises as ``of_texts``."""
        made = self.images
        return self._of_pixels(lambda place: made.pixels(images[place], place + 1), len(images), batch)

    def of_pixels(self, pixels: Sequence[np.ndarray], batch: int) -> Iterator[tuple[list[int], Outputs]]:
        """The same for images that are arrays already, as ``images.pixels`` makes them."""
        return self._of_pixels(pixels.__getitem__, len(pixels), batch)

    def _of_pixels(self, pixels: Callable[[int], np.ndarray], count: int, batch: int) -> Iterator[tuple[list[int], Outputs]]:
        size = self.sizes.batch or _whole(batch)

        def call(start: int) -> tuple[list[int], Outputs]:
            places = list(range(start, min(start + size, count)))
            return places, self._ran(Rows({PIXELS: np.stack([pixels(place) for place in places])}, None), len(places))

        yield from self.calls(call, range(0, count, size))

    def _ran(self, rows: Rows, count: int) -> Outputs:
        """The outputs for the first ``count`` rows."""
        outputs = self.run(self.collator.feeds(self.collator.fitted(rows, self.sizes)))
        return {name: array[:count] for name, array in outputs.items()}


def _whole(batch: int) -> int:
    """Raises UsageError for a size that no batch has."""
    if type(batch) is not int or batch < 1:
        raise UsageError(f"batch is {batch!r:.40}, wanted the rows of a batch: a whole number from 1")
    return batch


def _batches(lengths: Sequence[int], size: int, even: bool, budget: int = 0) -> Iterator[list[int]]:
    """Places of up to ``size`` rows, long ones first; ``even``: all of one length; ``budget``: see ``Serving``."""
    chosen: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        full = len(chosen) == size or (budget and chosen and (len(chosen) + 1) * lengths[chosen[0]] > budget)
        if full or (even and chosen and lengths[place] != lengths[chosen[0]]):
            yield chosen
            chosen = []
        chosen.append(place)
    if chosen:
        yield chosen


def several(given: Any, one: tuple[type, ...], what: str) -> tuple[list[Any], bool]:
    """What is given as a list, and whether it was a single one. Raises UsageError for what is neither."""
    if isinstance(given, one):
        return [given], True
    if isinstance(given, Iterable) and not isinstance(given, bytes | dict):
        return list(given), False
    raise UsageError(f"{type(given).__name__} given, wanted {what}, or a list of these")


def several_images(given: Any) -> tuple[list[Any], bool]:
    """The same for images, of which a list or tuple holds several."""
    return (list(given), False) if isinstance(given, list | tuple) else ([given], True)


def require_text(text: Any, name: str) -> str:
    """``text`` itself. Raises UsageError when it is none."""
    if not isinstance(text, str):
        raise UsageError(f"{name} is {type(text).__name__}, wanted a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} holds half a character (a lone surrogate) at {error.start}") from error
    return str(text)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))
