"""A loaded model, ready to export, whichever framework it came from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxfuse import catalog
from onnxfuse.architecture import Architecture
from onnxfuse.errors import ExportError, ModelError, UsageError
from onnxfuse.exporters import heads
from onnxfuse.files import first_line

LABELS = {"pt": "PyTorch", "tf": "TensorFlow"}
"""The frameworks as ``--framework`` names them, and as people do."""

PROCESSOR_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "added_tokens.json",
    "preprocessor_config.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json",
)
"""Files beside a checkpoint that a user of the exported model needs."""


@dataclass
class Checkpoint:
    """A loaded model, ready to export.

    Args:
        name: what the user called it.
        module: what is exported: takes the family's inputs in order and returns the task's outputs in order; a
            ``torch.nn.Module``, or a ``tf.function`` with its signature.
        family: its architecture.
        task: one of the family's tasks.
        config: config.json as a dict.
        files: processor files to lay beside the exported model, by their relative names.
        framework: ``pt`` or ``tf``: what runs ``module``.
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

    def __str__(self) -> str:
        """The framework, and how the weights came to it."""
        return f"{LABELS[self.framework]}{self.origin and ', '}{self.origin}"

    def save_beside(self, folder: Path) -> None:
        """Write config.json, with the task, and copy the tokenizer or image-processor files into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.config | {"onnxfuse_task": self.task}, indent=2)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        for name, path in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)


def require_there(source: str) -> None:
    """Refuse a path that is not there; what may be a hub id passes. Raises UsageError."""
    if not Path(source).exists() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise UsageError(f"{source} is not there; give a checkpoint's folder or a hub id")


def checkpoint_file(source: str, name: str) -> Path | None:
    """A file of a checkpoint's folder or hub id; None where there is none."""
    from transformers.utils import cached_file

    path = cached_file(source, name, _raise_exceptions_for_gated_repo=False, _raise_exceptions_for_missing_entries=False,
                       _raise_exceptions_for_connection_errors=False)
    return None if path is None else Path(path)


def processor_files(source: str) -> dict[str, Path]:
    """The processor files of a checkpoint's folder or hub id, by their relative names."""
    found = {name: checkpoint_file(source, name) for name in PROCESSOR_FILES}
    return {name: path for name, path in found.items() if path is not None}


@dataclass(frozen=True)
class Described:
    """What a ``transformers`` checkpoint says of itself: its config object, and what follows from it and from what is asked."""

    config: Any
    family: Architecture
    task: str
    pooling: heads.Pooling | None
    files: dict[str, Path]


def describe(source: str, task: str | None, model_type: str | None, wanted: str) -> Described:
    """Read config.json and what lies beside it.

    Args:
        task: None takes the one that the checkpoint was saved for.
        model_type: overrides config.json.
        wanted: what a folder must hold, for the error when it does not.

    Raises:
        ExportError, ModelError (another architecture), UsageError (unknown task).
    """
    from transformers import AutoConfig

    config = guarded(source, lambda: AutoConfig.from_pretrained(source, trust_remote_code=False), wanted)
    family = catalog.architecture(model_type or config.model_type)
    if config.model_type != family.model_type:
        raise ModelError(f"{source} has model type {config.model_type!r} in config.json, --model-type says {family.model_type!r}")
    files = processor_files(source)
    pooling = heads.read_pooling(files, source)
    saved_for = task_of((config.architectures or [""])[0], family) if pooling is None else "sentence-similarity"
    return Described(config, family, checked(task or saved_for, family), pooling, files)


def guarded(source: str, load: Callable[[], Any], wanted: str) -> Any:
    """Run a ``from_pretrained`` and turn its failures into one line that says what to do."""
    local = Path(source).is_dir()
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError) as error:
        if local:
            raise ExportError(f"cannot load the checkpoint in {source}: {first_line(error)}; it needs {wanted}") from error
        raise ExportError(f"cannot load {source!r} from the hub or its cache ({first_line(error)[:120]}); check the name and the "
                          "connection, give a local folder, or add --random-weights to try the architecture") from error


def checked(task: str, family: Architecture) -> str:
    """``task`` itself when the family has it. Raises UsageError."""
    if task not in family.tasks:
        raise UsageError(f"{family.model_type} has no task {task!r}; choose one of {', '.join(family.tasks)}")
    return task


def classification(family: Architecture) -> str:
    """The family's classification of whole inputs: what random weights are made for unless told otherwise."""
    return next(task for task in family.tasks if task in ("text-classification", "image-classification"))


def task_of(class_name: str, family: Architecture) -> str:
    """The task that a model class was made for; its features when it has no head."""
    suffixes = {"ForMaskedLM": "fill-mask", "ForSequenceClassification": "text-classification",
                "ForTokenClassification": "token-classification", "ForQuestionAnswering": "question-answering",
                "ForImageClassification": "image-classification"}
    return next((task for suffix, task in suffixes.items() if class_name.endswith(suffix)), "feature-extraction")
