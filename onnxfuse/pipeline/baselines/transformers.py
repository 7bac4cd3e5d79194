"""transformers' own exporter with its fusions for ONNX Runtime, and its int8. Source: ``transformers.exporters``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse.pipeline.baselines.api import Baseline, Context, from_file


def _export(context: Context, path: Path, **options: Any) -> None:
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    from onnxfuse.exporters.torch import sample

    checkpoint = context.torch()
    feeds: dict[str, Any] = dict(zip(checkpoint.inputs, sample(checkpoint), strict=True))
    model: Any = checkpoint.module.model
    exporter = OnnxExporter()  # type: ignore[no-untyped-call]
    ir.save(exporter.export(model, feeds, config=OnnxConfig(dynamic=True, ort_fusions="cpu", **options)).program, path)


def _quantize(context: Context, path: Path) -> None:
    from transformers.exporters.quantizers.quantizer_onnxruntime import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    _export(context, path, quantizer=OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig()))


BASELINES = (
    Baseline("transformers", "fp32", from_file(_export, "transformers")),
    Baseline("transformers-int8", "int8", from_file(_quantize, "transformers-int8")),
)
