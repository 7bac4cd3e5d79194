"""Load transformers' TensorFlow classes: a folder, random weights, or a model that is already in memory.

Source: transformers 4.57 (5 has no TensorFlow classes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from onnxfuse import catalog
from onnxfuse.architecture import Architecture
from onnxfuse.errors import ExportError, MissingExtraError, one_line
from onnxfuse.exporters import sentence, tf_weights, weights
from onnxfuse.exporters.api import Opening
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.exporters.description import Description, cannot_load, describe, family_of
from onnxfuse.exporters.faithful import Checker
from onnxfuse.exporters.loaded import BARE, HIDDEN, Arrays, Output, shown
from onnxfuse.exporters.pairing import aliases
from onnxfuse.exporters.tasks import auto_classes, checked, choose_outputs, classification, tasks_of
from onnxfuse.exporters.tf_function import Tensors, function
from onnxfuse.verify.inputs import profile_of_family


def require_transformers() -> Any:
    """``transformers`` with its TensorFlow classes. Raises MissingExtraError for 5, which has none."""
    try:
        import tf_keras  # noqa: F401 - what they are made of
        import transformers
    except ImportError as error:
        raise MissingExtraError("exporting transformers' TensorFlow classes", "tf") from error
    if int(transformers.__version__.split(".")[0]) >= 5:
        raise MissingExtraError(f"transformers {transformers.__version__} has no TensorFlow classes; exporting them", "tf")
    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    return transformers


def from_object(model: Any, opening: Opening) -> Checkpoint:
    """A model of ``transformers`` that has the task's outputs. Raises ExportError, ModelError, UsageError (unknown task)."""
    config = model.config.to_dict()
    family = family_of(config, None, type(model).__name__)
    known = tasks_of(model, family)
    if not known and opening.task is None:
        raise ExportError(
            f"{type(model).__name__} is a class that onnxfuse does not export; name the --task whose outputs it "
            f"has: {', '.join(family.tasks)}"
        )
    chosen = checked(opening.task or known[0], family)
    given = _Loaded(model, family).run(model, chosen)
    lacking = [output for output in shown(chosen, family) if output not in given]
    if lacking:
        raise ExportError(
            f"{type(model).__name__} has no output {lacking[0]}, which task {chosen} shows; it returns {', '.join(given)}"
        )
    return _of_transformers(type(model).__name__, model, family, chosen, config, opening)


def random_checkpoint(name: str, opening: Opening) -> Checkpoint:
    """A known architecture with random weights. Raises UsageError, MissingExtraError."""
    family, _ = catalog.checkpoint(name)
    chosen = checked(opening.task or classification(family), family)
    model = random_model(name, chosen, opening.seed)
    architecture = type(model).__name__.removeprefix("TF")
    config = model.config.to_dict() | {"architectures": [architecture]}
    return _of_transformers(name, model, family, chosen, config, opening)


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


def pretrained(source: str, opening: Opening) -> Checkpoint:
    """A checkpoint's folder or hub id. Raises ExportError, ModelError, UsageError, MissingExtraError."""
    require_transformers()
    description = describe(source, opening.task, opening.model_type)
    stored = description.own(weights.read(weights.require(description.home)))

    def load(kind: Any) -> _Loaded:
        return _Loaded(_model(kind, description, stored), description.family)

    classes = {
        name.removeprefix("TF"): kind
        for name, kind in auto_classes(description.config, "TFAutoModel", description.family).items()
    }
    model = Checker(description, stored, classes, load).faithful().model
    config = description.config.to_dict()
    return _of_transformers(source, model, description.family, description.task or "", config, opening, description)


def _model(kind: Any, description: Description, stored: Arrays) -> Any:
    """A model of a class, with every stored weight in it that has a place of its name; the others are random."""
    try:
        model = kind(description.config)
        model.build_in_name_scope()
        places = {_torch_name(variable): variable for variable in model.weights}
        for name, array in stored.items():
            place = next((places[alias] for alias in aliases(name, f"{model.base_model_prefix}.") if alias in places), None)
            if place is not None:
                laid_out = tf_weights.in_tensorflow(place.name, array)
                if tuple(place.shape) == laid_out.shape:
                    place.assign(laid_out)
        return model
    except Exception as error:
        raise cannot_load(description, "TensorFlow", kind, error) from error


def _torch_name(variable: Any) -> str:
    """A variable's name in PyTorch: behind the model's own (tf_bert_model/bert/...)."""
    return tf_weights.torch_name(variable.name.split("/", 1)[1])


@dataclass
class _Loaded:
    """A model of ``transformers`` in TensorFlow, as ``loaded.Loaded``."""

    model: Any
    family: Architecture

    @property
    def kind(self) -> str:
        return type(self.model).__name__.removeprefix("TF")

    @property
    def prefix(self) -> str:
        return f"{self.model.base_model_prefix}."

    @property
    def required(self) -> frozenset[str]:
        return frozenset(map(_torch_name, self.model.weights))

    @property
    def vocabulary(self) -> int:
        return int(getattr(self.model.config, "vocab_size", 0))

    def own(self) -> Arrays:
        found = {_torch_name(weight): tf_weights.laid_out(weight.name, weight.numpy()) for weight in self.model.weights}
        positions = getattr(self.model.config, "max_position_embeddings", 0)  # counted by the class; PyTorch's stored them once
        return found | {f"{self.prefix}embeddings.position_ids": np.arange(positions)[None]}

    def outputs(self) -> Mapping[str, Output]:
        return self._outputs

    @cached_property
    def _outputs(self) -> dict[str, Output]:
        import tensorflow as tf

        variables = self.model.trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            encoder = self.run(getattr(self.model, self.model.base_model_prefix), BARE[0])
            results = self.run(self.model, next(iter(tasks_of(self.model, self.family)), BARE[0])) | {HIDDEN: encoder[HIDDEN]}
        reached = {
            name: [
                variable for variable, found in zip(variables, tape.gradient(tensor, variables), strict=True) if found is not None
            ]
            for name, tensor in results.items()
        }
        return {name: Output(tensor.numpy(), frozenset(map(_torch_name, reached[name]))) for name, tensor in results.items()}

    def run(self, layer: Any, task: str) -> dict[str, Any]:
        """What a part of the model that takes a task's inputs returns on a sample, by name. Raises ExportError."""
        import tensorflow as tf

        profile = profile_of_family(self.family, self.model.config.to_dict(), task)
        feeds = {name: tf.constant(array) for name, array in profile.feeds(2, min(7, profile.longest), mask="right").items()}
        try:
            results = layer(feeds, training=False, return_dict=True)
            return {name: tensor for name, tensor in results.items() if tf.is_tensor(tensor)}
        except Exception as error:
            raise ExportError(f"TensorFlow cannot run {self.kind} on {', '.join(feeds)}: {one_line(error)}") from error


def _of_transformers(
    name: str,
    model: Any,
    family: Architecture,
    task: str,
    config: dict[str, Any],
    opening: Opening,
    description: Description | None = None,
) -> Checkpoint:
    """A model of ``transformers``, ready to export; ``description``: what its checkpoint says, where it has one."""
    chain = (description.chain if description else ()) or (sentence.Pooling(),)
    if task == "fill-mask" and description and description.chain:
        raise ExportError(
            "modules.json asks for SpladePooling, which is exported from PyTorch alone; export it with --framework pt"
        )

    def call(inputs: Tensors) -> Tensors:
        result = model(inputs, training=False, return_dict=True)
        if task != "sentence-similarity":
            return dict(result)
        tokens = result["last_hidden_state"]
        embedding = _sentence(tokens, inputs["attention_mask"], chain)
        return {"token_embeddings": tokens, "last_hidden_state": tokens, "sentence_embedding": embedding}

    outputs = choose_outputs(task, family, opening.outputs)
    module = function(call, family, task, outputs, config)
    origin = ", ".join([type(model).__name__, *(description.assumed if description else [])])
    return Checkpoint(
        name,
        module,
        family,
        task,
        config,
        description.files if description else {},
        "tf",
        origin,
        description.texts if description else {},
        outputs,
    )


def _sentence(tokens: Any, mask: Any, chain: sentence.Chain) -> Any:
    """The sentence embedding of tokens [B,S,D]: ``pooling.wrap``'s steps in TensorFlow. Raises ExportError for one it has not."""
    import tensorflow as tf

    pooled = tokens
    for step in chain:
        match step:
            case sentence.Pooling() if not (step.left or step.without_prompt):
                pooled = tf.concat([_pool(tokens, mask, mode) for mode in step.modes], axis=-1)
            case sentence.Normalize() if step.source == step.target == sentence.SENTENCE:
                pooled = pooled / tf.maximum(tf.norm(pooled, axis=-1, keepdims=True), 1e-12)
            case _:
                kind = type(step).__name__
                if isinstance(step, sentence.Pooling):
                    kind += " without prompts" if step.without_prompt else " of rows padded on the left"
                raise ExportError(
                    f"modules.json asks for {kind}, which is exported from PyTorch alone; export it with --framework pt, "
                    "or the encoder alone with --task feature-extraction"
                )
    return pooled


def _pool(tokens: Any, mask: Any, mode: str) -> Any:
    """``pooling.pool`` in one mode."""
    import tensorflow as tf

    kept = tf.cast(mask, tokens.dtype)[:, :, None]
    positions = tf.range(tf.shape(mask)[1])
    if mode == "cls":
        return tokens[:, 0]
    if mode == "max":
        return tf.reduce_max(tf.where(kept > 0, tokens, tokens.dtype.min), axis=1)
    if mode == "lasttoken":
        last = tf.reduce_max(tf.cast(mask, tf.int32) * positions[None], axis=1)
        return tf.gather(tokens * kept, last, axis=1, batch_dims=1)
    if mode == "weightedmean":
        kept = kept * tf.cast(positions + 1, tokens.dtype)[None, :, None]
    count = tf.maximum(tf.reduce_sum(kept, axis=1), 1e-9)
    return tf.reduce_sum(tokens * kept, axis=1) / (tf.sqrt(count) if mode == "mean_sqrt_len_tokens" else count)
