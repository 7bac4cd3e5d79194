"""LiteRT (TensorFlow Lite) beside ONNX: the same TensorFlow checkpoint through TensorFlow's own converter.

Source: ``tf.lite.TFLiteConverter`` of TensorFlow 2.21: post-training float16, and dynamic-range int8 (weights int8, activations
measured in each run).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxfuse.errors import ExportError, first_line
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.exporters.saved_model import SIGNATURE
from onnxfuse.io import folders
from onnxfuse.io.quiet import silent

FILES = dict(zip(("fp32", "fp16", "int8"), folders.LITERT, strict=True))
"""The file of each precision."""


def convert(checkpoint: Checkpoint, path: Path, precision: str, scratch: Path) -> None:
    """Write a TensorFlow checkpoint as a LiteRT model with dynamic batch and length and a signature by Hugging Face's names.

    Args:
        precision: a key of ``FILES``.
        scratch: an empty folder for the SavedModel on the way, as large as the weights.

    Raises:
        ExportError: the converter failed; its own words follow.
    """
    import tensorflow as tf

    with silent():
        try:
            _save(checkpoint, scratch)
            converter = tf.lite.TFLiteConverter.from_saved_model(str(scratch), signature_keys=[SIGNATURE])
            if precision != "fp32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if precision == "fp16":
                converter.target_spec.supported_types = [tf.float16]
            path.write_bytes(converter.convert())
        except OSError:  # a full disk is no fault of the converter
            raise
        except Exception as error:
            raise ExportError(
                f"TensorFlow's converter failed on {checkpoint.name}: {first_line(error)}; export it as ONNX instead"
            ) from error


def _save(checkpoint: Checkpoint, folder: Path) -> None:
    """A SavedModel whose signature has the names: the converter reads them from there alone."""
    import tensorflow as tf

    outputs = checkpoint.outputs

    def named(*inputs: Any) -> dict[str, Any]:
        return dict(zip(outputs, checkpoint.module(*inputs), strict=True))

    signature = tf.function(named, input_signature=checkpoint.module.input_signature)
    holder = tf.Module()
    holder.weights = list(checkpoint.module.get_concrete_function().graph.variables)
    tf.saved_model.save(holder, str(folder), signatures={SIGNATURE: signature})
