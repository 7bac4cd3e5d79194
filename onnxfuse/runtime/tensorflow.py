"""TensorFlow as a runtime: the checkpoint that its exports are compared with, and a row of its own in tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxfuse.architecture import OUTPUTS
from onnxfuse.errors import ModelError
from onnxfuse.files import first_line
from onnxfuse.runtime.settings import Feeds, Outputs, Runner

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint


def tensorflow_runner(checkpoint: Checkpoint, threads: int = 0) -> Runner:
    """A checkpoint's ``tf.function`` as a function from feeds to outputs (float32).

    Args:
        threads: for every model in this process, settled when TensorFlow first runs one; 0 leaves the choice to it.
    """
    import tensorflow as tf

    if threads and tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError as error:
            raise ModelError(f"TensorFlow runs with another number of threads already: {first_line(error)}") from error
    names, outputs = list(checkpoint.family.inputs), OUTPUTS[checkpoint.task]
    concrete = checkpoint.module.get_concrete_function()

    def call(feeds: Feeds) -> Outputs:
        try:
            results = concrete(*(tf.constant(feeds[name]) for name in names))
        except tf.errors.OpError as error:
            shapes = ", ".join(f"{name} {list(feeds[name].shape)}" for name in names)
            raise ModelError(f"TensorFlow cannot run the model on {shapes}: {first_line(error)}") from error
        return {name: value.numpy() for name, value in zip(outputs, results, strict=True)}

    return call
