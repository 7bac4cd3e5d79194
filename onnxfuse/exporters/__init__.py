"""From a checkpoint to ``model.onnx``: find and load it, wrap it for its task, export it, and compare both.

    sources   hub id, local folder, random weights or a model object -> a loaded checkpoint
    heads     the module that is exported: a task's outputs in order, or pooling for sentence embeddings
    torch     torch.export and TorchScript
"""

from onnxfuse.exporters.sources import Checkpoint, open_checkpoint
from onnxfuse.exporters.torch import EXPORTERS, choose_opset, export

__all__ = ["EXPORTERS", "Checkpoint", "choose_opset", "export", "open_checkpoint"]
