"""Load a TensorFlow model: transformers' TensorFlow classes here, SavedModels and KerasHub's models through their modules.

Whatever it is, it becomes one ``tf.function`` with Hugging Face's inputs in order (ids and masks int64 [B,S], pixels float32
[B,C,H,W]) that returns the task's outputs in order. Source: transformers 4.57 (5 has no TensorFlow classes), ``tf.saved_model``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse import catalog
from onnxfuse import plan as plans
from onnxfuse.architecture import Architecture
from onnxfuse.errors import ExportError, MissingExtraError, UsageError
from onnxfuse.exporters import heads, keras_hub, tf_weights
from onnxfuse.exporters.checkpoint import (
    Checkpoint,
    checked,
    checkpoint_file,
    classification,
    describe,
    guarded,
    require_there,
    task_of,
)
from onnxfuse.exporters.saved_model import open_saved_model
from onnxfuse.exporters.sources import SAVED_MODEL
from onnxfuse.exporters.tf_function import Tensors, function
from onnxfuse.quiet import silent

WANTED = f"config.json and {tf_weights.H5} or {tf_weights.SAFETENSORS} that fit each other"


def open_tensorflow(source: Any, *, task: str | None = None, model_type: str | None = None, random_weights: bool = False,
                    seed: int = 0) -> Checkpoint:
    """Load ``source`` for export; arguments as of ``sources.open_checkpoint``.

    Raises:
        MissingExtraError, ExportError, ModelError (unsupported architecture), UsageError (unknown task).
    """
    with silent():
        require_tensorflow()
        if not isinstance(source, (str, Path)):
            return _from_object(source, task)
        if random_weights:
            return _random(str(source), task, seed)
        folder = Path(source)
        if folder.suffix == ".keras" or "registered_name" in plans.read_json(folder / "config.json"):
            return keras_hub.checkpoint(keras_hub.load(folder), str(source), task)
        if (folder / SAVED_MODEL).is_file():
            return open_saved_model(folder, task, model_type)
        require_there(str(source))
        if folder.is_file() or (folder.is_dir() and not (folder / "config.json").is_file()):
            raise UsageError(f"{source} is no TensorFlow model; give a folder with config.json and {tf_weights.H5} or "
                             f"{tf_weights.SAFETENSORS}, a SavedModel's folder ({SAVED_MODEL}), a .keras file, or a KerasHub "
                             "preset's folder")
        return _pretrained(str(source), task, model_type)


def require_tensorflow() -> Any:
    """The ``tensorflow`` module, told to be quiet. Raises MissingExtraError when it is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        import tensorflow
    except ImportError as error:
        raise MissingExtraError("exporting a TensorFlow model", "tf") from error
    return tensorflow


def require_transformers() -> Any:
    """``transformers`` with its TensorFlow classes. Raises MissingExtraError for 5, which has none."""
    try:
        import tf_keras  # noqa: F401 - what they are made of
        import transformers
    except ImportError as error:
        raise MissingExtraError("exporting transformers' TensorFlow classes", "tf") from error
    if int(transformers.__version__.split(".")[0]) >= 5:
        raise MissingExtraError(f"transformers {transformers.__version__} has no TensorFlow classes; exporting them", "tf")
    transformers.utils.logging.set_verbosity_error()
    return transformers


def _from_object(model: Any, task: str | None) -> Checkpoint:
    if not hasattr(model, "base_model_prefix"):
        return keras_hub.checkpoint(model, type(model).__name__, task)
    config = model.config.to_dict()
    family = catalog.architecture(config.get("model_type", "none"))
    chosen = checked(task or task_of(type(model).__name__, family), family)
    return _of_transformers(type(model).__name__, model, family, chosen, config, None)


def _random(name: str, task: str | None, seed: int) -> Checkpoint:
    family, _ = catalog.checkpoint(name)
    chosen = checked(task or classification(family), family)
    model = random_model(name, chosen, seed)
    architecture = type(model).__name__.removeprefix("TF")
    return _of_transformers(name, model, family, chosen, model.config.to_dict() | {"architectures": [architecture]}, None)


def random_model(name: str, task: str, seed: int = 0) -> Any:
    """A TensorFlow model of ``transformers`` of a known architecture, random in every weight; nothing is downloaded."""
    import tensorflow

    family, fields = catalog.checkpoint(name)
    transformers = require_transformers()
    config = transformers.AutoConfig.for_model(family.model_type, **fields)
    tensorflow.random.set_seed(seed)
    model = getattr(transformers, f"TF{family.tasks[task]}").from_config(config)
    model.build_in_name_scope()
    rng = np.random.default_rng(seed)
    for weight in model.weights:  # zeros and ones would hide a bias that a rewrite drops or swaps
        if weight.shape.rank == 1:
            weight.assign_add(rng.normal(0, 0.02, weight.shape).astype(np.float32))
    return model


def _pretrained(source: str, task: str | None, model_type: str | None) -> Checkpoint:
    transformers = require_transformers()
    told = describe(source, task, model_type, WANTED)
    family, chosen, config = told.family, told.task, told.config
    loader = getattr(transformers, f"TF{family.tasks[chosen]}")
    theirs = checkpoint_file(source, tf_weights.SAFETENSORS)
    if theirs is not None and tf_weights.format_of(theirs) == "pt":
        model, report = guarded(source, lambda: _from_pytorch(loader.from_config(config), theirs), WANTED)
    else:
        model, report = guarded(source, lambda: loader.from_pretrained(source, config=config, trust_remote_code=False,
                                                                       output_loading_info=True), WANTED)
    unused = (*tf_weights.UNUSED.get(chosen, ()), "dropout")  # a layer without weights counts as missing too
    missing = [name for name in report["missing_keys"] if not any(part in name for part in unused)]
    if missing:
        raise ExportError(f"{source} has no weights for {missing[0]} ({len(missing)} missing) of task {chosen}; choose the "
                          "--task that it was saved for")
    return _of_transformers(source, model, family, chosen, config.to_dict(), told.pooling, told.files)


def _from_pytorch(model: Any, weights: Path) -> tuple[Any, dict[str, Any]]:
    """A TensorFlow model with PyTorch's weights; transformers 4.57 itself cannot read them with safetensors 0.8."""
    from safetensors.numpy import load_file
    from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

    loaded: tuple[Any, dict[str, Any]] = load_pytorch_state_dict_in_tf2_model(
        model, load_file(weights), allow_missing_keys=True, output_loading_info=True)
    return loaded


def _of_transformers(name: str, model: Any, family: Architecture, task: str, config: dict[str, Any],
                     pooling: heads.Pooling | None, files: dict[str, Path] | None = None) -> Checkpoint:
    def call(inputs: Tensors) -> Tensors:
        result = model(inputs, training=False)
        if task != "sentence-similarity":
            return dict(result)
        tokens = result["last_hidden_state"]
        sentence = _pool(tokens, inputs["attention_mask"], pooling or heads.Pooling())
        return {"token_embeddings": tokens, "sentence_embedding": sentence}

    module = function(call, family, task, config)
    return Checkpoint(name, module, family, task, config, files or {}, "tf", type(model).__name__)


def _pool(tokens: Any, mask: Any, pooling: heads.Pooling) -> Any:
    """``heads.pool`` in TensorFlow."""
    import tensorflow as tf

    if pooling.mode == "cls":
        pooled = tokens[:, 0]
    else:
        kept = tf.cast(mask, tokens.dtype)[:, :, None]
        if pooling.mode == "max":
            pooled = tf.reduce_max(tf.where(kept > 0, tokens, tokens.dtype.min), axis=1)
        else:
            pooled = tf.reduce_sum(tokens * kept, axis=1) / tf.maximum(tf.reduce_sum(kept, axis=1), 1e-9)
    if not pooling.normalize:
        return pooled
    return pooled / tf.maximum(tf.norm(pooled, axis=-1, keepdims=True), 1e-12)
