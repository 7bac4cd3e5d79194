"""TensorFlow as a runtime: the checkpoint that its exports are compared with, and a row of its own in tables."""

from __future__ import annotations

import os

from onnxfuse.errors import ModelError, first_line
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.runtime.api import Feeds, Outputs, Runner
from onnxfuse.runtime.cores import cores


def limit_threads(threads: int) -> None:
    """Give TensorFlow this many threads, before it first runs something in this process; it cannot be changed later."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)


def tensorflow_runner(checkpoint: Checkpoint, threads: int = 0) -> Runner:
    """A checkpoint's ``tf.function`` as a function from feeds to outputs (float32).

    Args:
        threads: what it must have been given (see ``limit_threads``); 0 does not ask.

    Raises:
        ModelError: TensorFlow runs with another number of threads already.
    """
    import tensorflow as tf

    given = int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or cores()
    if threads not in (0, given):
        raise ModelError(
            f"TensorFlow runs with {given} threads in this process, wanted {threads}; set TF_NUM_INTRAOP_THREADS="
            f"{threads} and start again"
        )
    names, outputs = list(checkpoint.inputs), checkpoint.outputs
    concrete = checkpoint.module.get_concrete_function()

    def call(feeds: Feeds) -> Outputs:
        try:
            results = concrete(*(tf.constant(feeds[name]) for name in names))
        except tf.errors.OpError as error:
            shapes = ", ".join(f"{name} {list(feeds[name].shape)}" for name in names)
            raise ModelError(f"TensorFlow cannot run the model on {shapes}: {_reason(error)}") from error
        return {name: value.numpy() for name, value in zip(outputs, results, strict=True)}

    return call


def _reason(error: Exception) -> str:
    """The first line of TensorFlow's own that is not about where in the graph it happened."""
    lines = [line.strip() for line in str(error).splitlines()]
    places = ("Graph execution error", "Detected at node", "<stack traces", "[[", "File ")
    return next((line for line in lines if line and not line.startswith(places)), first_line(error))[:200]
