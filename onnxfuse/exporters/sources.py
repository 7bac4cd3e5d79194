"""Which framework opens a source, and the checkpoint it becomes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from onnxfuse.errors import MissingExtraError, UsageError
from onnxfuse.exporters import weights
from onnxfuse.exporters.checkpoint import LABELS, Checkpoint, homes
from onnxfuse.io import folders

SAVED_MODEL = "saved_model.pb"
"""The file that makes a folder a SavedModel."""


def framework_of(source: Any, asked: str | None = None) -> str:
    """The framework that will run ``source``: as asked, or as its files show.

    A ``transformers`` checkpoint with TensorFlow's weights is read into PyTorch's class where TensorFlow is not installed.

    Raises:
        UsageError: no such framework.
        MissingExtraError: TensorFlow is needed and not installed.
    """
    if asked is not None and asked not in LABELS:
        raise UsageError(f"--framework {asked}: wanted one of {', '.join(LABELS)}")
    if asked == "pt" or (asked is None and not of_tensorflow(source)):
        return "pt"
    if importlib.util.find_spec("tensorflow") is not None:
        return "tf"
    if isinstance(source, (str, Path)) and _has_tensorflows_weights(source):
        return "pt"
    raise MissingExtraError(f"exporting {source} from TensorFlow", "tf")


def of_tensorflow(source: Any) -> bool:
    """Whether a source is TensorFlow's or Keras' by its files, or is a model object of theirs."""
    if not isinstance(source, (str, Path)):
        return any(base.__module__.split(".")[0] in ("keras", "tf_keras") for base in type(source).__mro__)
    path = Path(source)
    return (
        path.suffix == ".keras"
        or (path / SAVED_MODEL).is_file()
        or "registered_name" in folders.read_json(path / "config.json")
        or _has_tensorflows_weights(source)
    )


def _has_tensorflows_weights(source: str | Path) -> bool:
    """Whether a folder of ``transformers`` holds weights that TensorFlow wrote, and none of PyTorch's."""
    if not Path(source).is_dir():
        return False
    found = weights.find(homes(str(source))[1])
    return found is not None and found.framework == "tf"


def open_checkpoint(
    source: Any,
    *,
    framework: str | None = None,
    task: str | None = None,
    model_type: str | None = None,
    random_weights: bool = False,
    attention: str = "sdpa",
    seed: int = 0,
) -> Checkpoint:
    """Load ``source`` for export. No code from a checkpoint runs; a SavedModel's graph does, so export only those you trust.

    Args:
        source: a checkpoint's folder, a hub id, a SavedModel, a .keras file, a KerasHub preset's folder, or a model object.
        framework: ``pt`` or ``tf``; None takes what the source's files show.
        task: None takes the one that the checkpoint was saved for.
        model_type: overrides config.json.
        random_weights: build the architecture that ``source`` names, without any download.
        attention: ``sdpa`` or ``eager``: which of transformers' PyTorch attentions to export.
        seed: of the random weights.

    Raises:
        MissingExtraError, ExportError, ModelError (unsupported architecture), UsageError (unknown task or framework).
    """
    if framework_of(source, framework) == "pt":
        from onnxfuse.exporters.pytorch import open_pytorch

        return open_pytorch(
            source, task=task, model_type=model_type, random_weights=random_weights, attention=attention, seed=seed
        )
    from onnxfuse.exporters.tensorflow import open_tensorflow

    return open_tensorflow(source, task=task, model_type=model_type, random_weights=random_weights, seed=seed)
