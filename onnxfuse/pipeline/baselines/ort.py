"""ONNX Runtime's own: the plain export, its offline optimizer, and dynamic int8 of both.

Source: ``onnxruntime.transformers.optimizer``, ``onnxruntime.quantization``.
"""

from __future__ import annotations

from pathlib import Path

from onnxfuse import catalog
from onnxfuse.pipeline.baselines.api import Baseline, Context, from_file


def _optimize(context: Context, path: Path) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    kind = catalog.architecture(context.family).ort_optimizer
    optimize_model(str(context.model), model_type=kind).save_model_to_file(str(path))


def _quantize(context: Context, path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(context.model, path)


def _quantize_optimized(context: Context, path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(context.made("ort-optimizer", _optimize), path)


BASELINES = (
    Baseline("ort", "fp32", lambda context: context.session(context.model), exported=True),
    Baseline("ort-optimizer", "fp32", from_file(_optimize, "ort-optimizer"), exported=True),
    Baseline("quantize-dynamic", "int8", from_file(_quantize, "quantize-dynamic"), exported=True),
    Baseline("ort-optimizer-int8", "int8", from_file(_quantize_optimized, "ort-optimizer-int8"), exported=True),
)
