"""onnxscript's fusions for ONNX Runtime. Source: ``onnxscript.rewriter.ort_fusions``."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from onnxfuse.pipeline.baselines.api import Baseline, Context, from_file


def _fuse(context: Context, path: Path) -> None:
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    model, _ = optimize_for_ort(ir.load(context.model))
    ir.save(model, path)


BASELINE = Baseline("onnxscript", "fp32", from_file(_fuse, "onnxscript"), exported=True)
