"""PyTorch: eager, compiled, compiled under autocast to bfloat16, and in TorchScript, traced, and frozen besides.

Source: ``torch.compile``; ``torch.jit.trace``, ``torch.jit.freeze`` and ``torch.jit.optimize_for_inference``.
"""

from __future__ import annotations

from dataclasses import replace

from onnxfuse.io.quiet import quiet
from onnxfuse.pipeline.baselines.api import Baseline, Context, Made, in_torch


def _traced(context: Context, *, frozen: bool) -> Made:
    """A checkpoint in TorchScript, traced on a sample whose rows and lengths stay free.

    Args:
        frozen: its weights become constants, and its graph what TorchScript's own optimizer makes of it.
    """
    import torch

    from onnxfuse.exporters.torch import sample

    checkpoint = context.torch()
    stored = in_torch(checkpoint, context).size
    with quiet(), torch.no_grad():  # it warns that TorchScript is old
        module = torch.jit.trace(checkpoint.module, sample(checkpoint), check_trace=False)  # type: ignore[no-untyped-call]
        if frozen:
            module = torch.jit.optimize_for_inference(torch.jit.freeze(module))
    return replace(in_torch(replace(checkpoint, module=module), context), size=stored)


BASELINES = (
    Baseline("torch", "fp32", lambda context: in_torch(context.torch(), context)),
    Baseline("torch-compile", "fp32", lambda context: in_torch(context.torch(), context, compiled=True)),
    Baseline("torch-bf16", "bf16", lambda context: in_torch(context.torch(), context, compiled=True, bfloat16=True)),
    Baseline("torch-traced", "fp32", lambda context: _traced(context, frozen=False)),
    Baseline("torch-frozen", "fp32", lambda context: _traced(context, frozen=True)),
)
