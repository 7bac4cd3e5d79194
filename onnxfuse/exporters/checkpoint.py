"""A loaded model, ready to export, whichever framework it came from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxfuse.architecture import Architecture
from onnxfuse.exporters.api import frameworks
from onnxfuse.io import places


@dataclass
class Checkpoint:
    """A loaded model, ready to export.

    Args:
        name: what the user called it.
        module: what is exported: takes ``inputs`` in order and returns ``outputs`` in order; a
            ``torch.nn.Module``, or a ``tf.function`` with its signature.
        family: its architecture.
        task: one of the family's tasks.
        outputs: the names of what ``module`` returns; those of the task when not given.
        config: config.json as a dict.
        files: processor files to lay beside the exported model, by their relative names.
        texts: the same, of files that say something else there.
        more_inputs: what ``module`` takes beside the family's inputs, with dynamic dimensions by axis.
        framework: the name of what runs ``module``.
        origin: what it was read as, for people; empty when that is the framework's own class.
    """

    name: str
    module: Any
    family: Architecture
    task: str
    config: dict[str, Any]
    files: dict[str, Path]
    framework: str = "pt"
    origin: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    more_inputs: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outputs = self.outputs or self.family.outputs_of(self.task)

    @property
    def inputs(self) -> dict[str, Mapping[int, str]]:
        """What ``module`` takes, in order, with dynamic dimensions by axis."""
        return {**self.family.inputs_of(self.config, self.task), **self.more_inputs}

    def __str__(self) -> str:
        """The framework, and how the weights came to it."""
        return f"{frameworks()[self.framework].label}{self.origin and ', '}{self.origin}"

    @property
    def saved_config(self) -> dict[str, Any]:
        """config.json as it is read beside the exported model: with the task."""
        config = {name: value for name, value in self.config.items() if name != "_name_or_path"}  # often a folder
        return dict(places.cleaned(json.loads(json.dumps(config | {"onnxfuse_task": self.task}))))

    def save_beside(self, folder: Path) -> list[str]:
        """Write config.json, with the task, and the tokenizer or image-processor files into ``folder``; gives their names."""
        texts = {"config.json": json.dumps(self.saved_config, indent=2) + "\n", **self.texts}
        for name in (*texts, *self.files):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, path in self.files.items():
            shutil.copyfile(path, folder / name)
        return [*texts, *self.files]
