"""TensorFlow and Keras: transformers' TensorFlow classes, SavedModels, and KerasHub's models, each loaded by a module of its own.

Whatever it is, it becomes one ``tf.function`` with Hugging Face's inputs in order (ids and masks int64 [B,S], pixels float32
[B,C,H,W]) that returns the task's outputs in order.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from onnxfuse.errors import MissingExtraError, UsageError
from onnxfuse.exporters import keras_hub, tf_transformers, weights
from onnxfuse.exporters.api import Framework, Opening
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.exporters.description import homes
from onnxfuse.exporters.run_tensorflow import tensorflow_runner
from onnxfuse.exporters.saved_model import FILE, open_saved_model
from onnxfuse.io import folders
from onnxfuse.io.hub import require_there
from onnxfuse.io.quiet import silent


def recognizes(source: Any) -> bool:
    """Whether a source is TensorFlow's or Keras' by its files, or is a model object of theirs.

    A ``transformers`` checkpoint with TensorFlow's weights is not where TensorFlow is not installed: PyTorch reads it there.
    """
    if not isinstance(source, (str, Path)):
        return any(base.__module__.split(".")[0] in ("keras", "tf_keras") for base in type(source).__mro__)
    path = Path(source)
    if path.suffix == ".keras" or (path / FILE).is_file() or _is_preset(path):
        return True
    if not path.is_dir() or importlib.util.find_spec("tensorflow") is None:
        return False
    found = weights.find(homes(str(source))[1])
    return found is not None and found.framework == "tf"


def _is_preset(path: Path) -> bool:
    """Whether a folder is a preset of KerasHub."""
    return "registered_name" in folders.read_json(path / "config.json")


def open_tensorflow(source: Any, opening: Opening) -> Checkpoint:
    """Load ``source`` for export.

    Raises:
        MissingExtraError, ExportError, ModelError (unsupported architecture), UsageError (unknown task).
    """
    with silent():
        require_tensorflow()
        if not isinstance(source, (str, Path)):
            if hasattr(source, "base_model_prefix"):
                return tf_transformers.from_object(source, opening)
            return keras_hub.checkpoint(source, type(source).__name__, opening)
        if opening.random_weights:
            return tf_transformers.random_checkpoint(str(source), opening)
        folder = Path(source)
        if folder.suffix == ".keras" or _is_preset(folder):
            return keras_hub.checkpoint(keras_hub.load(folder), str(source), opening)
        if (folder / FILE).is_file():
            return open_saved_model(folder, opening)
        require_there(str(source))
        if folder.is_file() or (folder.is_dir() and not homes(str(source))[1].has("config.json")):
            raise UsageError(
                f"{source} is no TensorFlow model; give a folder with config.json and {weights.H5} or "
                f"{weights.SAFETENSORS}, a SavedModel's folder ({FILE}), a .keras file, or a KerasHub "
                "preset's folder"
            )
        return tf_transformers.pretrained(str(source), opening)


def require_tensorflow() -> Any:
    """The ``tensorflow`` module, made quiet. Raises MissingExtraError when it is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        import tensorflow
    except ImportError as error:
        raise MissingExtraError("exporting a TensorFlow model", "tf") from error
    return tensorflow


TENSORFLOW = Framework("tf", "TensorFlow", recognizes, open_tensorflow, tensorflow_runner)
