"""Tasks, and the classes of ``transformers`` that were made for them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from onnxfuse.architecture import ALL, MORE_OUTPUTS, OPTIONAL_OUTPUTS, OUTPUTS, Architecture
from onnxfuse.errors import ExportError, UsageError


def checked(task: str, family: Architecture) -> str:
    """``task`` itself when the family has it. Raises UsageError."""
    if task not in family.tasks:
        raise UsageError(f"{family.model_type} has no task {task!r}; choose one of {', '.join(family.tasks)}")
    return task


def choose_outputs(
    task: str, family: Architecture, asked: tuple[str, ...], *, pooled: bool = False, given: Collection[str] = ()
) -> tuple[str, ...]:
    """The outputs of an export for a task: those that are asked for, else the task's own.

    Args:
        pooled: whether a sentence embedding is made of the task's outputs, which then stands for them.
        given: what the model gives that depends on no weight but the checkpoint's.

    Raises:
        UsageError: an output that it has not.
    """
    own = OUTPUTS["sentence-similarity"] if pooled else family.outputs_of(task)
    optional = tuple(name for name in OPTIONAL_OUTPUTS.get(task, ()) if name in given)
    if asked == (ALL,):
        return tuple(dict.fromkeys((*own, *optional)))
    known = tuple(dict.fromkeys((*own, *family.outputs_of(task), *MORE_OUTPUTS.get(task, ()), *optional)))
    for name in asked:
        if name not in known:
            raise UsageError(f"task {task} has no output {name!r}; choose of {', '.join(known)}")
    if len(set(asked)) < len(asked):
        raise UsageError(f"the outputs {', '.join(asked)} name one twice; name each once")
    return asked or own


def classification(family: Architecture) -> str:
    """The family's classification of whole inputs, or its first task: what random weights are made for by default."""
    kinds = ("text-classification", "image-classification")
    return next((task for task in family.tasks if task in kinds), next(iter(family.tasks)))


def task_of(class_name: str, family: Architecture) -> str | None:
    """The task that a class of ``transformers`` was made for: ``BertForMaskedLM`` is bert's of ``AutoModelForMaskedLM``."""
    begin = re.sub("[^a-z0-9]", "", family.model_type)
    made_for = {
        (f"{begin}{auto.removeprefix('AutoModel') or 'Model'}" if auto.startswith("AutoModel") else auto).lower(): task
        for task, auto in reversed(list(family.tasks.items()))
    }  # of tasks with one class, the plain one
    made_for |= {name.lower(): task for name, task in family.classes.items()}
    return made_for.get(class_name.lower())


def tasks_of(model: Any, family: Architecture) -> list[str]:
    """The tasks that a model's class, and those that it was made from, were made for; its own first."""
    names = [base.__name__.removeprefix("TF") for base in type(model).__mro__]
    return [task for name in names if (task := task_of(name, family)) is not None]


def auto_classes(config: Any, begin: str, family: Architecture) -> dict[str, Any]:
    """The auto classes of ``transformers`` (``AutoModelForMaskedLM``) that have a model for a config, and its class.

    Of several classes of one auto class (DeiT's, with a teacher and without) the one that config.json names, else the first.
    Classes that the family's tasks name themselves stand under their own names.

    Args:
        begin: of their names: ``AutoModel``, or ``TFAutoModel``.
    """
    import transformers

    autos = {name: getattr(transformers, name) for name in dir(transformers) if name.startswith(begin)}
    mappings = {name: auto._model_mapping for name, auto in autos.items() if hasattr(auto, "_model_mapping")}
    found = {name: _one_of(mapping[type(config)], config) for name, mapping in mappings.items() if type(config) in mapping}
    own = begin.removesuffix("AutoModel")
    found |= {
        f"{own}{name}": getattr(transformers, f"{own}{name}")
        for name in family.tasks.values()
        if not name.startswith("AutoModel") and hasattr(transformers, f"{own}{name}")
    }
    return {name: kind for name, kind in found.items() if hasattr(kind, "base_model_prefix")}


def _one_of(kinds: Any, config: Any) -> Any:
    if not isinstance(kinds, tuple):
        return kinds
    return next((kind for kind in kinds if kind.__name__ in (config.architectures or ())), kinds[0])


def class_for(task: str, family: Architecture, classes: Mapping[str, Any]) -> Any:
    """A task's class among ``auto_classes``. Raises ExportError: ``transformers`` has none for the model's config."""
    auto = family.tasks[task]
    if auto not in classes:
        import transformers

        raise ExportError(
            f"transformers {transformers.__version__} has no {auto} for {family.model_type}, which task {task} needs; "
            f"it has {', '.join(classes) or 'none'}"
        )
    return classes[auto]
