"""A model opened for use: the best file of a folder, with the options that measured best for its target."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxfuse import targets
from onnxfuse.choice import choose, settings_of
from onnxfuse.errors import UsageError
from onnxfuse.runtime import Feeds, Outputs, Runner, Settings, declared, open_runner
from onnxfuse.runtime.feeds import Input, feeds_for, inputs_of

if TYPE_CHECKING:
    from onnxfuse.inference.serving import Serving


@dataclass(frozen=True)
class Model:
    """A model, called with arrays by position or by name, and giving named arrays.

    Args:
        path: the file.
        settings: what it was opened with; printing the model says them.
        inputs, outputs: their names.
        declared: what it says of its inputs, by name.
        why: why it is this file and runtime, where ``run`` measured several; printing the model says it.
    """

    path: Path
    settings: Settings
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    declared: Mapping[str, Input] = field(repr=False)
    runner: Runner = field(repr=False, compare=False)
    why: str = ""

    def __call__(self, *args: Any, **feeds: Any) -> Outputs:
        """Run on arrays or lists, by position or by name, of any type that the inputs' can hold: see ``feeds_for``.

        What tokenizers give to every model, such as token types, is passed over where the model has no input for it.

        Raises:
            UsageError: an input is missing, unknown, given twice, of another kind or of other sizes.
            ModelError: the model cannot run on such values.
        """
        return self.runner(feeds_for(self.declared, *args, **feeds))

    def run(self, feeds: Mapping[str, Any]) -> Outputs:
        """The same for feeds in a dict, or whatever maps names to arrays. Raises as a call."""
        if not isinstance(feeds, Mapping):
            raise UsageError(f"the feeds are a {type(feeds).__name__}, wanted a dict of arrays by the inputs' names")
        odd = [name for name in feeds if not isinstance(name, str)]
        if odd:
            raise UsageError(f"the feeds have {odd[0]!r} as a name, wanted those of the inputs: {', '.join(self.inputs)}")
        return self(**dict(feeds))

    @cached_property
    def _serving(self) -> Serving:
        from onnxfuse.inference.serving import Serving

        return Serving(self.path, self.runner, self.inputs, self.outputs)

    def encode(self, texts: Any, *, prompt_name: str | None = None, prompt: str | None = None, batch: int = 32) -> np.ndarray:
        """Embeddings, as ``SentenceTransformer.encode`` gives them, of a text [D] or of several [n,D], float32, in their order.

        Args:
            texts: one, or a list; images where the model takes these (see ``classify``).
            prompt_name: what stands in front of each text: one of config_sentence_transformers.json, by default its default.
            prompt: the same as a text.
            batch: the rows of a batch, those of like length together.

        Raises:
            UsageError: no texts, no such prompt, a model of another task, or no tokenizer.json beside it.
            ModelError: a file beside it is broken, or the model fails.
            MissingExtraError: the extra ``text`` is not installed.
        """
        from onnxfuse.inference.embeddings import encode

        return encode(self._serving, texts, prompt_name, prompt, batch)

    def classify(self, inputs: Any, *, top: int | None = 1, batch: int = 32) -> list[Any]:
        """Labels with their scores, best first: ``[{"label": ..., "score": ...}]``; of a list of inputs, a list of such lists.

        Scores are probabilities, of each label by itself or of all together, or numbers, as config.json's problem_type says.

        Args:
            inputs: a text, a pair of texts as a tuple, or an image: a file's path, an image of Pillow, or an array of bytes
                [height, width, 3]; or a list of these.
            top: how many labels; None gives all.
            batch: the rows of a batch.

        Raises:
            As ``encode``.
        """
        from onnxfuse.inference.classes import classify

        return classify(self._serving, inputs, top, batch)

    def answer(
        self,
        question: Any,
        context: Any,
        *,
        top: int = 1,
        length: int = 15,
        window: int = 384,
        stride: int = 128,
        none: bool = False,
    ) -> Any:
        """Where a context answers a question: ``{"answer": ..., "score": ..., "start": ..., "end": ...}``, in characters.

        Args:
            question, context: texts, or lists of these, which give a list.
            top: more than 1 gives a list of so many, best first.
            length: tokens of an answer, at most.
            window, stride: a longer context is read in parts of ``window`` tokens, the question's included, which have ``stride``
                in common.
            none: the empty answer may be the best, of models that were trained for that.

        Raises:
            As ``encode``.
        """
        from onnxfuse.inference.answers import Search, answer

        return answer(self._serving, question, context, Search(top, length, window, stride, none))

    def fill(self, texts: Any, *, top: int = 5, batch: int = 32) -> list[Any]:
        """Tokens for the mask of a text, best first: ``[{"token": id, "token_str": ..., "score": ..., "sequence": ...}]``.

        Args:
            texts: one, or a list, which gives a list. A text with several masks gives such a list for each of them.
            top: how many tokens for each.
            batch: the rows of a batch.

        Raises:
            As ``encode``; also UsageError for a text without a mask.
        """
        from onnxfuse.inference.fills import fill

        return fill(self._serving, texts, top, batch)

    def __str__(self) -> str:
        return f"{self.path}: {self.settings}" + (f"; {self.why}" if self.why else "")

    def __reduce__(self) -> tuple[Callable[[Path, Settings], Model], tuple[Path, Settings]]:
        """A pickle holds the path and the settings, no weights: who reads it opens the file again. So does ``copy.deepcopy``."""
        return _reopened, (self.path.absolute(), self.settings)


def load(model: Path | str, *, threads: int | None = None, runtime: str | None = None, target: Path | str | None = None) -> Model:
    """Open a model with the options that measured best for its target.

    Args:
        model: an .onnx file, or a folder: of a folder what ``run`` measured as the fastest on this kind of machine, where its
            runtime is installed; else the int8 model when there is one, else the optimized one, else the export. A file in
            OpenVINO's own format runs in OpenVINO.
        threads: instead of the target's; 0 leaves the choice to the runtime.
        runtime: instead of the target's; a name of ``runtime.runtimes``. Of a folder then the first of those models that it
            multiplies as they are meant (OpenVINO dynamic int8 not).
        target: the folder of its target, where that brings operators. Libraries run as code, so none is opened because a
            model names it: the folder must be given here, or in ``ONNXFUSE_PLUGINS``.

    Raises:
        UsageError: nothing is there, or no such runtime for such a file.
        ModelError, MissingExtraError: the file cannot be opened.
    """
    with nullcontext() if target is None else targets.use(str(target)):
        return _load(model, threads, runtime)


def _load(model: Path | str, threads: int | None, runtime: str | None) -> Model:
    chosen = choose(model, threads, runtime)
    return replace(_opened(chosen.path, chosen.graph, chosen.settings), why=chosen.why)


def _reopened(path: Path, settings: Settings) -> Model:
    """A pickled model. Raises as ``load``: its file must be there, and its target's operators in a folder that is known here."""
    graph = declared(path)
    settings_of(graph, path)
    return _opened(path, graph, settings)


def _opened(path: Path, graph: ir.Model, settings: Settings) -> Model:
    declared, outputs = inputs_of(graph.graph.inputs), tuple(value.name or "" for value in graph.graph.outputs)
    return Model(path, settings, tuple(declared), outputs, declared, _ForkSafe(path, settings))


class _ForkSafe:
    """A runner that a forked child opens again: the threads of the parent's session, and what these hold, are not in the child.

    Raises:
        UsageError, MissingExtraError, ModelError: as ``open_runner``, in a child when it first calls.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path, self._settings = path.absolute(), settings
        self._run, self._process = open_runner(path, settings), os.getpid()

    def __call__(self, feeds: Feeds) -> Outputs:
        if self._process != os.getpid():
            _INHERITED.append(self._run)
            self._run = open_runner(self._path, self._settings)
            self._process = os.getpid()
        return self._run(feeds)


_INHERITED: list[Runner] = []
"""Of a forked child: its parent's runners. Taking one down would wait for threads that are not there."""
