"""What a layout is to the rest of onnxfuse: where its library looks for which file, and which models it can serve."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from onnxfuse.io import folders
from onnxfuse.verify.opened import Opened

FLOAT, INT8 = "float", "int8"

HUB = {FLOAT: f"onnx/{folders.MODEL}", INT8: f"onnx/{folders.QUANTIZED}"}
"""Where the repositories of the Hugging Face hub have their models."""


@dataclass(frozen=True)
class Content:
    """What is packaged.

    Args:
        name: of the package, which may be a folder's name.
        models: by precision, ``FLOAT`` or ``INT8``; at least one. All take and give the same.
        config: config.json.
        task: what the outputs are for; empty where nothing says.
        files: the names of what lies beside: tokenizer, image processor, modules of a sentence encoder.
        origin: the checkpoint that was exported, as a user names it.
    """

    name: str
    models: Mapping[str, Opened]
    config: Mapping[str, Any]
    task: str = ""
    files: frozenset[str] = frozenset()
    origin: str = "SOURCE"

    @property
    def first(self) -> Opened:
        return next(iter(self.models.values()))

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(value.name or "" for value in self.first.model.graph.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(value.name or "" for value in self.first.model.graph.outputs)


@dataclass(frozen=True)
class Layout:
    """How one library wants a model's folder.

    Args:
        name: as ``--for`` takes it.
        label: the library, for people.
        places: of the model of each precision; ``{name}`` stands for the package's.
        use: the line that opens the model of a precision in the folder of that name.
        refusal: why the library cannot serve what is packaged, and the next step; empty where it can.
        texts: further files, by place: what they say, of each model's place.
        convert: writes another format than ONNX. Raises MissingExtraError, ModelError.
        runtime: the one that opens what ``convert`` wrote.
    """

    name: str
    label: str
    places: Mapping[str, str]
    use: Callable[[Content, str, str], str]
    refusal: Callable[[Content], str] = lambda content: ""
    texts: Callable[[Content, str, PurePosixPath], Mapping[str, str]] = lambda content, precision, place: {}
    convert: Callable[[Path, Path], None] | None = None
    runtime: str = "ort"

    def placed(self, content: Content) -> dict[str, PurePosixPath]:
        """Where the models go, by precision."""
        return {each: PurePosixPath(self.places[each].format(name=content.name)) for each in content.models}


def quoted(text: str) -> str:
    """A text as Python and JavaScript write it."""
    return json.dumps(text, ensure_ascii=False)


def above(place: PurePosixPath) -> PurePosixPath:
    """The folder that config.json and the tokenizer go into, for a model's place: what ``folders.home_of`` finds again."""
    return place.parent.parent if folders.is_apart(place.parent.name) else place.parent
