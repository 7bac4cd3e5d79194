"""The tasks that are evaluated, a file each: a file that defines a ``Task`` here is found (``onnxfuse.plugins``)."""

from __future__ import annotations

from onnxfuse import plugins
from onnxfuse.errors import UsageError
from onnxfuse.inference.serving import Serving
from onnxfuse.scoring.task import Task


def tasks() -> dict[str, Task]:
    """Every task by its name."""
    return plugins.find(Task, "onnxfuse.scoring.tasks")


def task_of(serving: Serving) -> Task:
    """The task of a model: as it was exported for, else as its outputs show. Raises UsageError: one that is not evaluated."""
    known, named = tasks(), serving.config.get("onnxfuse_task")
    if named is None:
        outputs = set(serving.outputs)
        shown = {"question-answering": {"start_logits", "end_logits"}, "sentence-similarity": {"sentence_embedding"}}
        named = next((name for name, needed in shown.items() if needed <= outputs), "")
        if not named and "logits" in outputs:
            named = "image-classification" if serving.sees else _by_rank(serving)
    if named not in known:
        what = f"was exported for {named}" if named else f"gives {', '.join(serving.outputs)}"
        raise UsageError(f"{serving.path} {what}; labelled data are for {', '.join(known)}")
    return known[str(named)]


def _by_rank(serving: Serving) -> str:
    return {2: "text-classification", 3: "token-classification"}.get(serving.rank("logits"), "")
