"""Model families that onnxfuse knows, as data: inputs, tasks, and how often each fused thing must occur."""

from __future__ import annotations

from onnxfuse.architecture import Architecture
from onnxfuse.models import bert, distilbert, vit

ARCHITECTURES: dict[str, Architecture] = {
    module.ARCHITECTURE.model_type: module.ARCHITECTURE for module in (bert, distilbert, vit)
}

__all__ = ["ARCHITECTURES"]
