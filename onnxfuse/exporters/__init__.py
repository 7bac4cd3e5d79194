"""From a checkpoint to ``model.onnx``: find and load it, wrap it for its task, export it."""

from onnxfuse.exporters.api import Exporter, Framework, exporters, frameworks
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.exporters.run_pytorch import torch_runner
from onnxfuse.exporters.run_tensorflow import limit_threads
from onnxfuse.exporters.sources import checkpoint_runner, framework_of, open_checkpoint
from onnxfuse.exporters.write import choose_exporter, choose_opset, export

__all__ = [
    "Checkpoint",
    "Exporter",
    "Framework",
    "checkpoint_runner",
    "choose_exporter",
    "choose_opset",
    "export",
    "exporters",
    "framework_of",
    "frameworks",
    "limit_threads",
    "open_checkpoint",
    "torch_runner",
]
