"""Tasks, and the classes of ``transformers`` that were made for them."""

from __future__ import annotations

from typing import Any

from onnxfuse.architecture import Architecture
from onnxfuse.errors import UsageError


def checked(task: str, family: Architecture) -> str:
    """``task`` itself when the family has it. Raises UsageError."""
    if task not in family.tasks:
        raise UsageError(f"{family.model_type} has no task {task!r}; choose one of {', '.join(family.tasks)}")
    return task


def classification(family: Architecture) -> str:
    """The family's classification of whole inputs: what random weights are made for when no task is asked for."""
    return next(task for task in family.tasks if task in ("text-classification", "image-classification"))


def task_of(class_name: str, family: Architecture) -> str | None:
    """The task that a class of ``transformers`` was made for: ``BertForMaskedLM`` is bert's of ``AutoModelForMaskedLM``."""
    made_for = {
        f"{family.model_type}{auto.removeprefix('AutoModel') or 'Model'}".lower(): task
        for task, auto in reversed(list(family.tasks.items()))
    }  # of tasks with one class, the plain one
    return made_for.get(class_name.lower())


def auto_classes(config: Any, begin: str) -> dict[str, Any]:
    """The auto classes of ``transformers`` (``AutoModelForMaskedLM``) that have a model for a config, and its class.

    Args:
        begin: of their names: ``AutoModel``, or ``TFAutoModel``.
    """
    import transformers

    autos = {name: getattr(transformers, name) for name in dir(transformers) if name.startswith(begin)}
    mappings = {name: auto._model_mapping for name, auto in autos.items() if hasattr(auto, "_model_mapping")}
    found = {name: mapping[type(config)] for name, mapping in mappings.items() if type(config) in mapping}
    return {name: kind for name, kind in found.items() if hasattr(kind, "base_model_prefix")}
