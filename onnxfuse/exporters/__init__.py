"""From a checkpoint to ``model.onnx``: find and load it, wrap it for its task, export it, and compare both.

checkpoint    a loaded model, ready to export, and what its files say
home          where the files of a checkpoint are, each checked when found
weights       what is stored, in any file of weights, with tf_weights: TensorFlow's, without TensorFlow
loaded        what was loaded is what was stored, or is refused
sources       which framework opens a source
pytorch       hub id, local folder, random weights or a model object, with heads: a task's outputs, or pooling
tensorflow    transformers' TensorFlow classes, saved_model and keras_hub, with tf_function: what is exported of them
write         the exporters, and what is the same behind all: torch (torch.export, TorchScript), tf2onnx
tflite        LiteRT instead of ONNX
run_pytorch   a checkpoint in its own framework, which an export is compared with, and run_tensorflow
"""

from onnxfuse.exporters.checkpoint import LABELS, Checkpoint
from onnxfuse.exporters.run_pytorch import torch_runner
from onnxfuse.exporters.run_tensorflow import limit_threads, tensorflow_runner
from onnxfuse.exporters.sources import framework_of, open_checkpoint
from onnxfuse.exporters.write import EXPORTERS, choose_exporter, choose_opset, export
from onnxfuse.runtime import Runner

__all__ = [
    "EXPORTERS",
    "LABELS",
    "Checkpoint",
    "checkpoint_runner",
    "choose_exporter",
    "choose_opset",
    "export",
    "framework_of",
    "limit_threads",
    "open_checkpoint",
    "torch_runner",
]


def checkpoint_runner(checkpoint: Checkpoint, threads: int = 0) -> Runner:
    """A checkpoint in its own framework, as a function from feeds to outputs."""
    runners = {"pt": torch_runner, "tf": tensorflow_runner}
    return runners[checkpoint.framework](checkpoint, threads)
