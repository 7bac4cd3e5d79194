"""The function that is exported from TensorFlow: the family's inputs in order, the task's outputs in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnxfuse.architecture import Architecture

Tensors = dict[str, Any]
Call = Callable[[Tensors], Tensors]
"""A model on named tensors. What it returns may hold more than a task shows."""


def function(call: Call, family: Architecture, task: str, outputs: Sequence[str], config: dict[str, Any]) -> Any:
    """``call`` as a ``tf.function`` by Hugging Face's names: ids and masks int64 [B,S], pixels float32 [B,C,H,W]; it returns
    ``outputs`` as a tuple."""
    import tensorflow as tf

    axes = family.inputs_of(config, task)
    names = tuple(axes)
    size = config.get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    pixels = tf.TensorSpec([None, config.get("num_channels", 3), height, width], tf.float32, name="pixel_values")
    signature = [
        pixels if name == "pixel_values" else tf.TensorSpec([None] * len(axes[name]), tf.int64, name=name) for name in names
    ]

    def exported(*inputs: Any) -> tuple[Any, ...]:
        results = call(dict(zip(names, inputs, strict=True)))
        return tuple(tf.identity(results[name], name=name) for name in outputs)

    return tf.function(exported, input_signature=signature, autograph=False)  # nothing branches; rewriting code takes seconds
