"""PyTorch as a runtime: the checkpoint that everything is compared with, and a baseline of its own."""

from __future__ import annotations

from onnxfuse.errors import ExportError, one_line
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.runtime.api import Feeds, Outputs, Runner


def torch_runner(checkpoint: Checkpoint, threads: int = 0, *, compiled: bool = False, bfloat16: bool = False) -> Runner:
    """A checkpoint's module as a function from feeds to outputs (float32), which raises ExportError where the module fails.

    Args:
        compiled: through torch.compile with weights frozen, as is advised for inference on CPUs; it compiles anew for each new
            shape, and needs a C++ compiler.
        bfloat16: under autocast.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    names, outputs = list(checkpoint.inputs), checkpoint.outputs
    module = torch.compile(checkpoint.module, dynamic=False, options={"freezing": True}) if compiled else checkpoint.module

    def call(feeds: Feeds) -> Outputs:
        try:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                results = module(*(torch.from_numpy(feeds[name]) for name in names))
        except Exception as error:
            sizes = ", ".join(f"{name} {list(feeds[name].shape)}" for name in names)
            raise ExportError(f"PyTorch cannot run {checkpoint.name} on {sizes}: {one_line(error)}") from error
        return {name: value.float().numpy() for name, value in zip(outputs, results, strict=True)}

    return call
