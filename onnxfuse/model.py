"""A model opened for use: the best file of a folder, with the options that measured best for its target."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxfuse import plugins, targets
from onnxfuse.errors import MissingExtraError, ModelError, UsageError, first_line, reason
from onnxfuse.evaluation import calibrated
from onnxfuse.io import door, folders
from onnxfuse.measure import fastest
from onnxfuse.runtime import USUAL, Feeds, Outputs, Runner, Settings, asked, declared, open_runner, require, runtime_of, runtimes
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


BEST = (*folders.OPENED, folders.IR_QUANTIZED, folders.IR)
"""The files of a folder, of which the first that is there is opened."""

METADATA = "onnxfuse"
"""The key of a model's metadata that says what it was optimized for."""


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
    known, why = fastest.found(Path(model)) if runtime is None else (None, "")
    if known is not None:
        try:
            require(asked(known.settings.runtime))
        except (MissingExtraError, ModelError) as error:
            why = f"{why}, and {first_line(error)}"
        else:
            path = Path(model) / known.file
            settings = known.settings if threads is None else replace(known.settings, threads=threads)
            graph = declared(path)
            settings_of(graph, path)  # its target's operators must be here
            return replace(_opened(path, graph, settings), why=why)
    return replace(_usual(model, threads, runtime), why=why)


def _usual(model: Path | str, threads: int | None, runtime: str | None) -> Model:
    """What is opened where nothing is known of this kind of machine. Raises as ``load``."""
    path, graph = _best_for(Path(model), runtime)
    settings = settings_of(graph, path)
    if runtime is None and settings.runtime not in (known := runtimes()):
        raise ModelError(
            f"{path}: its metadata {METADATA!r} has {settings.runtime!r:.80} as runtime, and there is none of that name; choose "
            f"one with: onnxfuse.load(..., runtime=NAME), of {', '.join(known)}"
        )
    its = settings.runtime if settings.runtime in runtimes(path.suffix) else USUAL
    name = (runtime_of(path, its) if runtime is None else asked(runtime, path)).name
    settings = replace(settings, threads=settings.threads if threads is None else threads, runtime=name)
    return _opened(path, graph, settings)


def _best_for(model: Path, runtime: str | None) -> tuple[Path, ir.Model]:
    """The file that is opened where none is named, and what it declares: of a folder the best, for a runtime that was asked for
    of those that it computes as they are meant. Raises UsageError: nothing is there."""
    first = folders.source_file(model, *BEST)
    if runtime is not None and model.is_dir():
        known = asked(runtime)
        names = [name for name in (folders.QUANTIZED, folders.STATIC, *BEST[1:]) if name.endswith(known.suffixes)]
        for path in folders.models_in(model, names):
            graph = declared(path)
            if calibrated.scheme(graph) in ("", *known.integers):
                return path, graph
    return first, declared(first)


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


def settings_of(model: ir.Model, path: Path) -> Settings:
    """What the model's target opens it with; target cpu's for a model that onnxfuse did not optimize. Raises ModelError."""
    wrong = f"its metadata {METADATA!r}"
    try:
        known = door.parse_json(model.metadata_props.get(METADATA, "{}"), wrong)
        settings = Settings(**known["session"]) if "session" in known else targets.find("cpu").session
        libraries = known.get("libraries", [])
        if not isinstance(libraries, list) or not all(isinstance(name, str) for name in libraries):
            raise TypeError(f"libraries are {libraries!r:.80}, wanted a list of names")
    except (ValueError, TypeError, AttributeError, UsageError, ModelError) as error:
        raise ModelError(f"{path}: {wrong} is not what onnxfuse writes ({reason(error, wrong)}); optimize it again") from error
    _require_libraries(libraries, known.get("target"), path)
    return settings


def _require_libraries(names: Sequence[str], target: str, path: Path) -> None:
    """Raises ModelError when a library with operators of the model's target is in no folder that was given."""
    here = {library.name for library in plugins.libraries()}
    for name in names:
        if name not in here:
            raise ModelError(
                f"{path} has operators of target {target!r}, which are in {name}; give that target's folder: "
                f"onnxfuse.load(..., target=FOLDER), or name it in {plugins.VARIABLE}"
            )
