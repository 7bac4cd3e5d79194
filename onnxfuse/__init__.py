"""onnxfuse: from a Hugging Face encoder to the fastest ONNX model for this machine, every rewrite explained and proven.

The command line is in ``cli``, the chain behind it in ``pipeline``. From Python:

    from onnxfuse import ExportPlan, OptimizePlan, QuantizePlan, pipeline
    pipeline.optimize(OptimizePlan(Path("model.onnx"), Path("model_optimized.onnx")))
"""

from onnxfuse.errors import OnnxfuseError
from onnxfuse.plan import BenchmarkPlan, ExportPlan, OptimizePlan, QuantizePlan

__all__ = ["BenchmarkPlan", "ExportPlan", "OnnxfuseError", "OptimizePlan", "QuantizePlan"]
