"""Targets: what a runtime runs, and the form it runs fastest, as data."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfuse.errors import UsageError


@dataclass(frozen=True)
class Target:
    """The operators that an optimized model may use, and the preferred form of each fused thing.

    Args:
        opset: the standard opset that models are raised to; 0 keeps the exporter's, from 17 to ``highest``.
        attention, gelu, residual, linear: a key of ``fusions.FORMS``.
        why: the measurement behind the choice.
    """

    name: str
    opset: int
    attention: str
    gelu: str
    residual: str
    why: str
    highest: int = 23
    linear: str = "MatMul"

    @property
    def forms(self) -> dict[str, str]:
        """The preferred form of each thing, by its key in ``fusions.FORMS``."""
        return {"attention": self.attention, "gelu": self.gelu, "residual": self.residual, "linear": self.linear}


TARGETS = {
    target.name: target
    for target in (
        Target("cpu", 23, "Attention", "Gelu", "Sum",
               "ONNX Runtime 1.31 on CPU: opset-23 Attention 0.19 ms against 0.29 decomposed and 0.30 MultiHeadAttention; "
               "Sum keeps the loader from SkipLayerNormalization, 0.22 ms against 0.04 (bert-base, batch 1, S=128)"),
        Target("standard", 0, "decomposed", "Gelu", "Sum",
               "operators of opset 17 to 20 only, for runtimes from before 2025", highest=20),
        Target("ort-contrib", 20, "MultiHeadAttention", "BiasGelu", "SkipLayerNormalization",
               "the com.microsoft forms that ONNX Runtime's own optimizer would choose; for comparison", highest=22),
    )
}


def find(name: str) -> Target:
    """The target of that name. Raises UsageError."""
    if name not in TARGETS:
        raise UsageError(f"no target named {name!r}; choose one of {', '.join(TARGETS)}")
    return TARGETS[name]
