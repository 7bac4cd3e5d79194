"""What models are mapped for: a file for each."""

from __future__ import annotations

from onnxfuse import plugins
from onnxfuse.bulk.use import Use
from onnxfuse.errors import UsageError
from onnxfuse.inference.serving import Serving


def uses() -> dict[str, Use]:
    """Every use by its name: those of this package, and those that others bring."""
    return plugins.find(Use, "onnxfuse.bulk.uses")


def use_of(serving: Serving) -> Use:
    """What a model is for. Raises UsageError: nothing that is done in bulk."""
    known = uses()
    found = next((use for use in known.values() if use.takes(serving)), None)
    if found is None:
        task = serving.config.get("onnxfuse_task")
        gives = f"gives {', '.join(serving.outputs)}" if task is None else f"was exported for {task}"
        raise UsageError(
            f"{serving.path} {gives}; map is for {', '.join(use.what for use in known.values())}: export it with --task"
        )
    return found
