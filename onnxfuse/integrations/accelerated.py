"""Blocks in which ``from_pretrained`` of ``transformers`` gives accelerated models."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from os import PathLike
from pathlib import Path
from typing import Any

from onnxfuse.choice import BEST
from onnxfuse.errors import MissingExtraError, OnnxfuseError, UsageError
from onnxfuse.integrations.accelerate import accelerate, load_torch, runtime_for
from onnxfuse.io import folders
from onnxfuse.io.progress import silent

OPTIONS: Mapping[str, Any] = {
    "task": None,
    "precision": "fp32",
    "runtime": None,
    "threads": None,
    "fallback": None,
    "progress": silent,
}
"""The options of ``accelerate`` besides int8's, with their defaults. (A block may load several models, ``folder`` is for one.)"""

_BLOCK: ContextVar[Mapping[str, Any] | None] = ContextVar("accelerated", default=None)
"""The options of the block that this thread is in; None where it is in none, or loads a model to accelerate."""

_LOCK = threading.Lock()

_ORIGINAL: list[Any] = []
"""What transformers has as ``from_pretrained``, once for each block that any thread is in."""


@contextlib.contextmanager
def accelerated(**options: Any) -> Iterator[None]:
    """Inside the block, ``from_pretrained`` of ``transformers`` gives accelerated models, where onnxfuse supports what is loaded.

    That holds in the thread that is in the block, for every class: the Auto classes, pipelines and sentence-transformers load
    through it. A folder of ours, without weights of PyTorch, is opened as by ``load_torch``. A block in a block has its own
    options.

    Args:
        options: of ``accelerate``, but ``folder``.

    Raises:
        MissingExtraError: ``transformers`` is not installed.
        UsageError: as ``accelerate`` for its options.
    """
    if "folder" in options:
        raise UsageError("folder is for one model, and a block may load several; leave it out")
    own = {name: options.get(name, default) for name, default in OPTIONS.items()}
    int8 = {name: value for name, value in options.items() if name not in own}
    runtime_for(own["precision"], own["runtime"], own["fallback"], int8, own["progress"])
    with _installed(), _with(options):
        yield


@contextlib.contextmanager
def _with(options: Mapping[str, Any] | None) -> Iterator[None]:
    token = _BLOCK.set(options)
    try:
        yield
    finally:
        _BLOCK.reset(token)


@contextlib.contextmanager
def _installed() -> Iterator[None]:
    """Ours in the place of ``from_pretrained`` while any thread is in a block. Raises MissingExtraError."""
    try:
        from transformers import PreTrainedModel
    except ImportError as error:
        raise MissingExtraError("accelerating models", "torch") from error
    with _LOCK:
        original = _ORIGINAL[0] if _ORIGINAL else PreTrainedModel.__dict__["from_pretrained"]
        if not _ORIGINAL:
            PreTrainedModel.from_pretrained = _replacement(original.__func__)  # type: ignore[method-assign]
        _ORIGINAL.append(original)
    try:
        yield
    finally:
        with _LOCK:
            _ORIGINAL.pop()
            if not _ORIGINAL:
                PreTrainedModel.from_pretrained = original  # type: ignore[method-assign]


def _replacement(load: Callable[..., Any]) -> Any:
    def from_pretrained(cls: Any, pretrained_model_name_or_path: Any = None, *args: Any, **kwargs: Any) -> Any:
        options = _BLOCK.get()
        if options is None or pretrained_model_name_or_path is None:  # weights are handed over, as our own exporters do
            return load(cls, pretrained_model_name_or_path, *args, **kwargs)
        if _is_ours(pretrained_model_name_or_path):
            opened = _open(pretrained_model_name_or_path, cls.__name__, options)
            return (opened, {}) if kwargs.get("output_loading_info") else opened
        with _with(None):
            return _accelerate(load(cls, pretrained_model_name_or_path, *args, **kwargs), cls.__name__, options)

    return classmethod(from_pretrained)


def _accelerate(loaded: Any, name: str, options: Mapping[str, Any]) -> Any:
    """What was loaded, a model or one with notes on its loading, with an accelerated model in the place of it."""
    model, *notes = loaded if isinstance(loaded, tuple) else (loaded,)
    try:
        fast = accelerate(model, **options)
    except OnnxfuseError as error:
        warnings.warn(f"{name} stays as it is: {error}", stacklevel=4)
        return loaded
    return (fast, *notes) if notes else fast


def _open(folder: str | PathLike[str], name: str, options: Mapping[str, Any]) -> Any:
    opened = load_torch(folder, runtime=options.get("runtime"), threads=options.get("threads"))
    if opened.interface.name != name:
        raise UsageError(f"{folder} holds a {opened.interface.name}, and {name} is asked for; load it as what it is")
    return opened


def _is_ours(source: Any) -> bool:
    """Whether a folder has a model of ours, and no weights that transformers could load."""
    place = Path(source) if isinstance(source, str | PathLike) else Path()
    named = source is not None and place.is_dir()
    return named and bool(folders.models_in(place, BEST)) and not any(place.glob("*.safetensors"))
