"""What models are mapped for: a file for each."""

from __future__ import annotations

from onnxfuse import plugins
from onnxfuse.bulk.use import Use
from onnxfuse.errors import UsageError
from onnxfuse.inference.embeddings import prompt_of
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


def front_of(use: Use, serving: Serving, prompt_name: str | None) -> str:
    """What stands in front of every text. Raises UsageError: no such prompt, or a model that is used without any."""
    if use.prompted and not serving.sees:
        return prompt_of(serving, prompt_name, None)
    if prompt_name is not None:
        raise UsageError(f"--prompt-name {prompt_name}: {serving.path} is used without prompts; leave it out")
    return ""
