"""Load a PyTorch checkpoint: a hub id, a local folder, random weights, or a model that is already in memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse import catalog
from onnxfuse import plan as plans
from onnxfuse.errors import ExportError, MissingExtraError, UsageError
from onnxfuse.exporters import heads, tf_weights
from onnxfuse.exporters.checkpoint import (
    Checkpoint,
    checked,
    classification,
    describe,
    guarded,
    require_there,
    task_of,
)

if TYPE_CHECKING:
    import torch

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""What a folder's weights are read from: one file, or the index of several."""

WANTED = "config.json and model.safetensors that fit each other"


def open_pytorch(source: str | Path | torch.nn.Module, *, task: str | None = None, model_type: str | None = None,
                 random_weights: bool = False, attention: str = "sdpa", seed: int = 0) -> Checkpoint:
    """Load ``source`` for export. Weights come from safetensors or tf_model.h5; no code from the checkpoint runs.

    Arguments as of ``sources.open_checkpoint``; ``source``: a folder, a hub id, or a ``transformers`` model.

    Raises:
        MissingExtraError, ExportError, ModelError (unsupported architecture), UsageError (unknown task).
    """
    if random_weights:
        family, _ = catalog.checkpoint(str(source))
        checked(task or next(iter(family.tasks)), family)
    elif isinstance(source, (str, Path)):
        _require_checkpoint(str(source), task, model_type)
    transformers = require_torch()
    with _quiet(transformers):
        if not isinstance(source, (str, Path)):
            return _from_object(source, task)
        if random_weights:
            return _random(str(source), task, attention, seed)
        return _pretrained(str(source), task, model_type, attention)


def require_torch() -> Any:
    """The ``transformers`` module. Raises MissingExtraError when it or torch is not installed."""
    try:
        importlib.import_module("torch")
        return importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtraError("exporting a PyTorch checkpoint", "torch") from error


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """transformers' loading reports and bars are noise beside ours."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _from_object(model: Any, task: str | None) -> Checkpoint:
    config = model.config.to_dict()
    family = catalog.architecture(config.get("model_type", "none"))
    chosen = task or task_of(type(model).__name__, family)
    return Checkpoint(type(model).__name__, heads.wrap(model, family, chosen, None), family, chosen, config, {})


def _random(name: str, task: str | None, attention: str, seed: int) -> Checkpoint:
    import torch
    import transformers

    family, fields = catalog.checkpoint(name)
    chosen = checked(task or classification(family), family)
    config = transformers.AutoConfig.for_model(family.model_type, **fields)
    torch.manual_seed(seed)
    model = getattr(transformers, family.tasks[chosen]).from_config(config, attn_implementation=attention)
    _disturb(model)
    as_dict = config.to_dict() | {"architectures": [type(model).__name__]}
    return Checkpoint(name, heads.wrap(model, family, chosen, None), family, chosen, as_dict, {})


def _disturb(model: torch.nn.Module) -> None:
    """Give biases and norms random values too: zeros and ones would hide a bias that a rewrite drops or swaps."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)


def _pretrained(source: str, task: str | None, model_type: str | None, attention: str) -> Checkpoint:
    import transformers

    told = describe(source, task, model_type, WANTED)
    family, chosen = told.family, told.task
    loader = getattr(transformers, family.tasks[chosen])
    foreign = tf_weights.find(Path(source))
    if foreign is None:
        model = guarded(source, lambda: loader.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, attn_implementation=attention, dtype="float32"), WANTED)
    else:
        model = loader.from_config(told.config, attn_implementation=attention, dtype="float32")
        tf_weights.load_into(model, tf_weights.read(foreign), chosen, source)
    origin = "" if foreign is None else f"with TensorFlow's weights from {foreign.name}, read without TensorFlow"
    module = heads.wrap(model, family, chosen, told.pooling)
    return Checkpoint(source, module, family, chosen, told.config.to_dict(), told.files, origin=origin)


def _require_checkpoint(source: str, task: str | None, model_type: str | None) -> None:
    """Refuse what can be neither a usable folder nor a hub id, before anything slow is imported."""
    folder = Path(source)
    if folder.is_file():
        raise UsageError(f"{source} is a file; export takes a checkpoint's folder, a hub id, or a .keras file")
    if folder.is_dir():
        family = catalog.architecture(model_type or plans.read_config(folder / WEIGHTS[0]).get("model_type", "none"))
        if task is not None:
            checked(task, family)
        if not any((folder / name).is_file() for name in (*WEIGHTS, tf_weights.H5)):
            raise ExportError(f"cannot load the checkpoint in {source}: it has no {WEIGHTS[0]} and no {tf_weights.H5}; save the "
                              "model again with save_pretrained (pickled weights are not read, they can run code)")
    require_there(source)
