"""Load a TensorFlow model: transformers' TensorFlow classes, SavedModels, Keras files and KerasHub's backbones.

Whatever it is, it becomes one ``tf.function`` with Hugging Face's inputs in order (ids and masks int64 [B,S], pixels float32
[B,C,H,W]) that returns the task's outputs in order. Source: transformers 4.57 (5 has no TensorFlow classes), ``tf.saved_model``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse import catalog
from onnxfuse import plan as plans
from onnxfuse.architecture import OUTPUTS, Architecture
from onnxfuse.errors import ExportError, MissingExtraError, ModelError, UsageError
from onnxfuse.exporters import heads, keras_hub, tf_weights
from onnxfuse.exporters.checkpoint import (
    Checkpoint,
    checked,
    checkpoint_file,
    classification,
    default_task,
    guarded,
    processor_files,
    require_there,
    task_of,
)
from onnxfuse.exporters.sources import SAVED_MODEL
from onnxfuse.exporters.tf_function import Tensors, function
from onnxfuse.files import first_line
from onnxfuse.quiet import silent

SIGNATURE = "serving_default"
"""The signature of a SavedModel that is exported, where it has several."""


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
            return _from_keras(folder, task)
        if (folder / SAVED_MODEL).is_file():
            return _saved_model(folder, task, model_type)
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


# transformers ----------------------------------------------------------------------------------------------------


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
    wanted = "config.json and tf_model.h5 or model.safetensors that fit each other"
    config = guarded(source, lambda: transformers.AutoConfig.from_pretrained(source, trust_remote_code=False), wanted)
    family = catalog.architecture(model_type or config.model_type)
    if config.model_type != family.model_type:
        raise ModelError(f"{source} has model type {config.model_type!r} in config.json, --model-type says {family.model_type!r}")
    files = processor_files(source)
    pooling = heads.read_pooling(files, source)
    chosen = checked(task or default_task(config.architectures, family, pooled=pooling is not None), family)
    loader = getattr(transformers, f"TF{family.tasks[chosen]}")
    theirs = checkpoint_file(source, tf_weights.SAFETENSORS)
    if theirs is not None and tf_weights.format_of(theirs) == "pt":
        model, report = guarded(source, lambda: _from_pytorch(loader.from_config(config), theirs), wanted)
    else:
        model, report = guarded(source, lambda: loader.from_pretrained(source, config=config, trust_remote_code=False,
                                                                       output_loading_info=True), wanted)
    unused = (*tf_weights.UNUSED.get(chosen, ()), "dropout")  # a layer without weights counts as missing too
    missing = [name for name in report["missing_keys"] if not any(part in name for part in unused)]
    if missing:
        raise ExportError(f"{source} has no weights for {missing[0]} ({len(missing)} missing) of task {chosen}; choose the "
                          "--task that it was saved for")
    return _of_transformers(source, model, family, chosen, config.to_dict(), pooling, files)


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
    return Checkpoint(name, module, family, task, config, files or {}, "tf", f"{type(model).__name__}")


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


# SavedModels -----------------------------------------------------------------------------------------------------


def _saved_model(folder: Path, task: str | None, model_type: str | None) -> Checkpoint:
    """A SavedModel by its signature; config.json is read from the folder, or two above as ``save_pretrained`` lays it."""
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, RuntimeError, KeyError, tf.errors.OpError) as error:
        raise ExportError(f"cannot load the SavedModel {folder}: {first_line(error)}; save it again with "
                          "tf.saved_model.save") from error
    signatures = dict(loaded.signatures)
    chosen = SIGNATURE if SIGNATURE in signatures else next(iter(signatures), None)
    if chosen is None:
        raise ExportError(f"the SavedModel {folder} has no signature; save it with signatures={{'{SIGNATURE}': function}}")
    signature = signatures[chosen]
    where = f"the signature {chosen} of {folder}"
    specs = {spec.name: spec for spec in signature.structured_input_signature[1].values()}
    names = _hugging_face_names(specs, where)
    home = next((place for place in (folder, folder.parent.parent) if (place / "config.json").is_file()), folder)
    config = plans.read_config(home / "model")
    family = catalog.architecture(model_type or config.get("model_type") or _family_of(names.values()))
    if set(names.values()) != set(family.inputs):
        raise ExportError(f"{where} takes {', '.join(specs)}; {family.model_type} takes {', '.join(family.inputs)}; save it "
                          "again with those inputs")
    outputs = _outputs(signature.structured_outputs)
    task = checked(task or config.get("onnxfuse_task") or _task_of(set(outputs), config, family, where), family)

    def call(inputs: Tensors) -> Tensors:
        given = {theirs: tf.cast(inputs[ours], specs[theirs].dtype) for theirs, ours in names.items()}
        if IMAGES in given:
            given[IMAGES] = tf.transpose(given[IMAGES], [0, 2, 3, 1])
        results = loaded.signatures[chosen](**given)  # through what keeps its variables alive
        return {ours: results[theirs] for ours, theirs in outputs.items()}

    config = {"model_type": family.model_type} | _sizes(specs, signature.graph.variables) | config
    return Checkpoint(str(folder), function(call, family, task, config), family, task, config, processor_files(str(home)), "tf",
                      where)


IMAGES = keras_hub.INPUTS["pixel_values"]
"""KerasHub's pixels, the channels last."""


def _hugging_face_names(specs: dict[str, Any], where: str) -> dict[str, str]:
    """For each input of a signature, Hugging Face's or KerasHub's, the Hugging Face name.

    Raises:
        ExportError: what no encoder takes.
    """
    wanted = "input_ids, attention_mask and token_type_ids as integers [None, None], or pixel_values as float32 [None, C, H, W]"
    known = {ours: axes for family in catalog.families() for ours, axes in family.inputs.items()}
    names = {name: next((ours for ours, theirs in keras_hub.INPUTS.items() if theirs == name), name) for name in specs}
    for name, ours in names.items():
        spec = specs[name]
        if spec.dtype == "string":
            raise ExportError(f"{where} takes text (the string {name}): its tokenizer is inside, and ONNX has none; save the "
                              f"encoder behind the tokenizer, with {wanted}")
        if ours not in known:
            raise ExportError(f"{where} takes {', '.join(specs)}; {name} is no input of an encoder; save it again with {wanted}")
        pixels, rank = ours == "pixel_values", spec.shape.rank
        fixed = rank is None or any(spec.shape[axis] is not None for axis in known[ours] if axis < rank)
        if fixed or rank != (4 if pixels else 2) or not (spec.dtype.is_integer or pixels):
            raise ExportError(f"{where} takes {name} as {spec.dtype.name} {spec.shape}; save it again with {wanted}")
    return names


TABLES = {"vocab_size": "word|token_embed", "type_vocab_size": "token_type|segment", "max_position_embeddings": "position"}
"""config.json's fields that are the rows of a table, and what such a table is called."""


def _sizes(specs: dict[str, Any], variables: Any) -> dict[str, Any]:
    """What a signature and the model's tables tell of config.json's fields."""
    tables = [variable for variable in variables if variable.shape.rank == 2 and "embedding" in variable.name]
    found = {field: next((table.shape[0] for table in tables if re.search(called, table.name)), None)
             for field, called in TABLES.items()}
    sizes = {field: rows for field, rows in found.items() if rows is not None}
    for name, axes in (("pixel_values", (1, 2, 3)), (IMAGES, (3, 1, 2))):
        if name in specs:
            channels, height, width = (specs[name].shape[axis] for axis in axes)
            return {"num_channels": channels, "image_size": [height, width]}
    return sizes


def _outputs(given: dict[str, Any]) -> dict[str, str]:
    """A signature's outputs by Hugging Face's names; the only one of a Keras model is known by its rank."""
    names = {"last_hidden_state" if name == "sequence_output" else name: name for name in given}
    if list(given) == ["output_0"]:
        names = {"logits" if given["output_0"].shape.rank == 2 else "last_hidden_state": "output_0"}
    return names


def _family_of(inputs: Any) -> str:
    return "vit" if "pixel_values" in inputs else "bert" if "token_type_ids" in inputs else "distilbert"


def _task_of(outputs: set[str], config: dict[str, Any], family: Architecture, where: str) -> str:
    """The task whose outputs a signature has; logits are those of config.json's class, or of a classification."""
    named = config.get("architectures")
    told = [task_of(named[0], family)] if named else []
    for task in (*told, classification(family), *family.tasks):
        if set(OUTPUTS[task]) <= outputs:
            return task
    raise ExportError(f"{where} returns {', '.join(sorted(outputs))}; onnxfuse knows "
                      f"{'; '.join(sorted({', '.join(OUTPUTS[task]) for task in family.tasks}))}; save it again with those names")


# Keras -----------------------------------------------------------------------------------------------------------


def _from_keras(source: Path, task: str | None) -> Checkpoint:
    return keras_hub.checkpoint(keras_hub.load(source), str(source), task)
