"""onnxfuse: from a Hugging Face encoder to the fastest ONNX model for this machine, every rewrite explained and proven.

The command line is in ``cli``, the chain behind it in ``pipeline``. From Python:

    from onnxfuse.config import OptimizeConfig
    from onnxfuse.pipeline.optimize import optimize
    optimize(OptimizeConfig(Path("model.onnx"), Path("model_optimized.onnx")))
    model = onnxfuse.load("folder")
    outputs = model(input_ids=ids, attention_mask=mask)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.errors import OnnxfuseError

if TYPE_CHECKING:
    from onnxfuse.model import Model

__all__ = ["BenchmarkConfig", "ExportConfig", "OnnxfuseError", "OptimizeConfig", "QuantizeConfig", "load"]


def load(model: Path | str, *, threads: int | None = None, runtime: str | None = None, target: Path | str | None = None) -> Model:
    """Open a model, or the best one of a folder, with the options that measured best: see ``model.load``."""
    from onnxfuse import model as opened

    return opened.load(model, threads=threads, runtime=runtime, target=target)
