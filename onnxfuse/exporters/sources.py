"""Which framework opens a source, the checkpoint it becomes, and how that runs there."""

from __future__ import annotations

from typing import Any

from onnxfuse.errors import UsageError
from onnxfuse.exporters.api import Opening, frameworks
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.io import hub
from onnxfuse.runtime.api import Runner


def framework_of(source: Any, asked: str | None = None) -> str:
    """The name of the framework that will run ``source``: as asked, or the one that recognizes it.

    Raises:
        UsageError: no such framework.
    """
    known = frameworks()
    if asked is not None and asked not in known:
        raise UsageError(f"--framework {asked}: wanted one of {', '.join(known)}")
    return asked or next((name for name, framework in known.items() if framework.recognizes(source)), next(iter(known)))


def open_checkpoint(
    source: Any,
    *,
    framework: str | None = None,
    task: str | None = None,
    model_type: str | None = None,
    random_weights: bool = False,
    attention: str = "sdpa",
    seed: int = 0,
    outputs: tuple[str, ...] = (),
) -> Checkpoint:
    """Load ``source`` for export. No code from a checkpoint runs; a SavedModel's graph does, so export only those you trust.

    Args:
        source: a checkpoint's folder, a hub id, a SavedModel, a .keras file, a KerasHub preset's folder, or a model object.
        framework: its name; None takes the one that recognizes the source.
        task, model_type, random_weights, attention, seed, outputs: as of ``Opening``.

    Raises:
        MissingExtraError, ExportError, ModelError (unsupported architecture), UsageError (unknown task or framework).
    """
    opening = Opening(task, model_type, random_weights, attention, seed, outputs)
    with hub.settled(None if random_weights else source):
        return frameworks()[framework_of(source, framework)].open(source, opening)


def checkpoint_runner(checkpoint: Checkpoint, threads: int = 0) -> Runner:
    """A checkpoint in its own framework, as a function from feeds to outputs."""
    return frameworks()[checkpoint.framework].run(checkpoint, threads)
