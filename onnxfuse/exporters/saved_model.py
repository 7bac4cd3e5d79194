"""Load a SavedModel: a TensorFlow program, known by the inputs and outputs of its signature alone.

Source: ``tf.saved_model``; the signatures that transformers' ``save_pretrained(saved_model=True)`` and Keras' ``export`` write.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from onnxfuse import catalog
from onnxfuse.architecture import Architecture
from onnxfuse.errors import ExportError, first_line
from onnxfuse.exporters import keras_hub
from onnxfuse.exporters.api import Opening
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.exporters.description import processor_files
from onnxfuse.exporters.home import Home
from onnxfuse.exporters.tasks import checked, choose_outputs, classification, task_of
from onnxfuse.exporters.tf_function import Tensors, function
from onnxfuse.io import door, folders

FILE = "saved_model.pb"
"""The file that makes a folder a SavedModel."""

SIGNATURE = "serving_default"
"""The signature that is exported, where there are several."""


def open_saved_model(folder: Path, opening: Opening) -> Checkpoint:
    """Load a SavedModel by its signature for export.

    config.json is read from the folder, or two above as ``save_pretrained`` lays it.

    Raises:
        ExportError: it cannot be loaded, or its inputs or outputs are no encoder's.
        ModelError, UsageError: an unsupported architecture, an unknown task.
    """
    import tensorflow as tf

    loaded, chosen = _read(folder)
    signature = loaded.signatures[chosen]
    where = f"the signature {chosen} of {folder}"
    specs = {spec.name: spec for spec in signature.structured_input_signature[1].values()}
    names = _hugging_face_names(specs, where)
    home = next((place for place in (folder, folder.parent.parent) if (place / "config.json").is_file()), folder)
    config = folders.read_config(home / "model")
    family = catalog.architecture(opening.model_type or config.get("model_type") or catalog.shown_by(names.values()).model_type)
    if set(names.values()) != set(family.inputs):
        raise ExportError(
            f"{where} takes {', '.join(specs)}; {family.model_type} takes {', '.join(family.inputs)}; save it "
            "again with those inputs"
        )
    outputs = _outputs(signature.structured_outputs)
    task = checked(opening.task or config.get("onnxfuse_task") or _task_of(set(outputs), config, family, where), family)
    asked = choose_outputs(task, family, opening.outputs)
    if lacking := [name for name in asked if name not in outputs]:
        raise ExportError(
            f"{where} returns {', '.join(sorted(outputs))}, and no {lacking[0]}; choose another --task or --outputs"
        )

    def call(inputs: Tensors) -> Tensors:
        given = {theirs: tf.cast(inputs[ours], specs[theirs].dtype) for theirs, ours in names.items()}
        if IMAGES in given:
            given[IMAGES] = tf.transpose(given[IMAGES], [0, 2, 3, 1])
        results = loaded.signatures[chosen](**given)  # through what keeps its variables alive
        return {ours: results[theirs] for ours, theirs in outputs.items()}

    config = {"model_type": family.model_type} | _sizes(specs, signature.graph.variables) | config
    files, made = processor_files(Home(str(home))), function(call, family, task, asked, config)
    return Checkpoint(str(folder), made, family, task, config, files, "tf", where, outputs=asked)


def _read(folder: Path) -> tuple[Any, str]:
    """A SavedModel, and the name of the signature to export. Raises ExportError."""
    import tensorflow as tf

    door.whole(folder, ExportError)
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:
        raise ExportError(
            f"cannot load the SavedModel {folder}: {first_line(error)}; save it again with tf.saved_model.save"
        ) from error
    chosen = SIGNATURE if SIGNATURE in loaded.signatures else next(iter(loaded.signatures), None)
    if chosen is None:
        raise ExportError(f"the SavedModel {folder} has no signature; save it with signatures={{'{SIGNATURE}': function}}")
    return loaded, chosen


IMAGES = keras_hub.INPUTS["pixel_values"]
"""KerasHub's pixels, the channels last."""


def _hugging_face_names(specs: dict[str, Any], where: str) -> dict[str, str]:
    """For each input of a signature, Hugging Face's or KerasHub's, the Hugging Face name.

    Raises:
        ExportError: what no encoder takes.
    """
    wanted = "input_ids, attention_mask and token_type_ids as integers [None, None], or pixel_values as float32 [None, C, H, W]"
    known = {ours: axes for family in catalog.families().values() for ours, axes in family.inputs.items()}
    names = {name: next((ours for ours, theirs in keras_hub.INPUTS.items() if theirs == name), name) for name in specs}
    for name, ours in names.items():
        spec = specs[name]
        if spec.dtype == "string":
            raise ExportError(
                f"{where} takes text (the string {name}): its tokenizer is inside, and ONNX has none; save the "
                f"encoder behind the tokenizer, with {wanted}"
            )
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
    found = {
        field: next((table.shape[0] for table in tables if re.search(called, table.name)), None)
        for field, called in TABLES.items()
    }
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


def _task_of(outputs: set[str], config: dict[str, Any], family: Architecture, where: str) -> str:
    """The task whose outputs a signature has; logits are those of config.json's class, or of a classification."""
    named = config.get("architectures")
    saved = task_of(str(named[0]), family) if isinstance(named, list) and named else None
    for task in (saved or classification(family), classification(family), *family.tasks):
        if set(family.outputs_of(task)) <= outputs:
            return task
    raise ExportError(
        f"{where} returns {', '.join(sorted(outputs))}; onnxfuse knows "
        f"{'; '.join(sorted({', '.join(family.outputs_of(task)) for task in family.tasks}))}; save it again with those names"
    )
