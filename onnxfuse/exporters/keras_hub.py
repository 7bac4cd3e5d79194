"""Keras models: KerasHub's encoders under Hugging Face's names, from .keras files, preset folders or memory.

Source: KerasHub 0.32 (BertBackbone, DistilBertBackbone, ViTBackbone and the classifiers on them), Keras 3.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxfuse import catalog
from onnxfuse.errors import ExportError, MissingExtraError, UsageError, first_line
from onnxfuse.exporters import tf_weights
from onnxfuse.exporters.api import Opening
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.exporters.tasks import checked, choose_outputs, classification
from onnxfuse.exporters.tf_function import function
from onnxfuse.io import door

INPUTS = {"input_ids": "token_ids", "attention_mask": "padding_mask", "token_type_ids": "segment_ids", "pixel_values": "images"}
"""Hugging Face's names of inputs, and KerasHub's. Images are [B,H,W,C] there."""


def load(source: Path) -> Any:
    """A .keras file, or a preset's folder. Code that a file carries does not run (Keras' safe mode).

    Raises:
        MissingExtraError: KerasHub is not installed.
        UsageError, ExportError: nothing is there, or it cannot be loaded.
    """
    try:
        import keras
        import keras_hub
    except ImportError as error:
        raise MissingExtraError(f"reading {source}", "tf") from error
    if not source.exists():
        raise UsageError(f"{source} is not there; give a .keras file or a KerasHub preset's folder")
    _require_held(source)
    try:
        if source.is_file():
            return keras.saving.load_model(source, compile=False, safe_mode=True)
        kind = keras_hub.models.Task if (source / "task.json").is_file() else keras_hub.models.Backbone
        return kind.from_preset(str(source))
    except Exception as error:
        raise ExportError(f"cannot load {source} with Keras {keras.__version__}: {first_line(error)}; save it again") from error


def _require_held(source: Path) -> None:
    """Refuse a .keras file, or a preset's folder, that reads other files, or unpacks to too much. Raises ExportError."""
    if source.is_dir():
        for path in door.whole(source, ExportError).rglob("*.h5"):
            tf_weights.require_held(path, path)
        return
    door.require_unpackable(source, ExportError)
    with door.reading(source, "a .keras file", ExportError), zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            if name.endswith(".h5"):
                tf_weights.require_held(io.BytesIO(archive.read(name)), source)


def checkpoint(model: Any, name: str, opening: Opening) -> Checkpoint:
    """A KerasHub encoder, or a classifier on one, as a checkpoint. Raises ExportError for another kind of Keras model."""
    import tensorflow as tf

    backbone = getattr(model, "backbone", model)
    called = type(backbone).__name__
    known = {kind: family for family in catalog.families().values() for kind in family.keras_hub}
    if called not in known:
        raise ExportError(
            f"{name} is a Keras model of class {type(model).__name__}; onnxfuse exports KerasHub's "
            f"{', '.join(known)} and classifiers on them; save it as a SavedModel with Hugging Face's inputs"
        )
    family = known[called]
    config = {"model_type": family.model_type} | _config(backbone, family.keras_hub[called])
    taken = [value.name for value in model.inputs]
    if sorted(taken) != sorted(INPUTS[ours] for ours in family.inputs):
        raise ExportError(
            f"{name} ({type(model).__name__}) takes {', '.join(taken)}; onnxfuse exports models that take "
            f"{', '.join(INPUTS[ours] for ours in family.inputs)} alone"
        )
    chosen = checked(opening.task or ("feature-extraction" if backbone is model else classification(family)), family)
    if chosen not in ("feature-extraction", classification(family)) or (backbone is model) != (chosen == "feature-extraction"):
        raise UsageError(f"{name} is a {type(model).__name__}, which has no outputs for task {chosen}; leave --task out")

    def call(inputs: dict[str, Any]) -> dict[str, Any]:
        if "pixel_values" in inputs:
            result = model(tf.transpose(inputs["pixel_values"], [0, 2, 3, 1]), training=False)
        else:
            result = model({INPUTS[ours]: tf.cast(value, tf.int32) for ours, value in inputs.items()}, training=False)
        if backbone is not model:
            return {"logits": result}
        return {"last_hidden_state": result["sequence_output"] if isinstance(result, dict) else result}

    outputs = choose_outputs(chosen, family, opening.outputs)
    module = function(call, family, chosen, outputs, config)
    return Checkpoint(name, module, family, chosen, config, {}, "tf", f"KerasHub's {type(model).__name__}", outputs=outputs)


def _config(backbone: Any, fields: Mapping[str, str]) -> dict[str, Any]:
    """config.json's fields of a backbone; ``fields``: by the names in its own config."""
    theirs = backbone.get_config()
    config = {ours: theirs[name] for name, ours in fields.items() if name in theirs}
    if "image_shape" in theirs:
        height, width, channels = theirs["image_shape"]
        config |= {"image_size": [height, width], "num_channels": channels, "patch_size": list(config["patch_size"])}
    return config
