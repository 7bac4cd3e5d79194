"""PyTorch: eager, compiled, and compiled under autocast to bfloat16. Source: torch.compile."""

from __future__ import annotations

from onnxfuse.pipeline.baselines.api import Baseline, in_torch

BASELINES = (
    Baseline("torch", "fp32", lambda context: in_torch(context.torch(), context)),
    Baseline("torch-compile", "fp32", lambda context: in_torch(context.torch(), context, compiled=True)),
    Baseline("torch-bf16", "bf16", lambda context: in_torch(context.torch(), context, compiled=True, bfloat16=True)),
)
