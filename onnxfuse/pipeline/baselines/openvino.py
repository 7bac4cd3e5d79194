"""OpenVINO on the plain export: float32, bfloat16, and NNCF's static int8. Source: OpenVINO, ``nncf.quantize``."""

from __future__ import annotations

from pathlib import Path

from onnxfuse.pipeline.baselines.api import Baseline, Context, Made, calibration_rows


def _nncf(context: Context, path: Path) -> None:
    import nncf
    import openvino

    rows = calibration_rows(context.model)
    model = nncf.quantize(
        openvino.Core().read_model(context.model),
        nncf.Dataset(rows),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(rows),
    )
    openvino.save_model(model, path.with_suffix(".xml"))


def _int8(context: Context, runtime: str) -> Made:
    return context.session(context.made("openvino-int8", _nncf).with_suffix(".xml"), runtime)


BASELINES = (
    Baseline("openvino", "fp32", lambda context: context.session(context.model, "openvino"), exported=True),
    Baseline("openvino-bf16", "bf16", lambda context: context.session(context.model, "openvino-bf16"), exported=True),
    Baseline("openvino-int8", "int8", lambda context: _int8(context, "openvino"), exported=True),
    Baseline("openvino-int8-bf16", "int8", lambda context: _int8(context, "openvino-bf16"), exported=True),
)
"""By default, where the CPU has bfloat16, OpenVINO takes it for what is not int8: the last is that, the third pins float32."""
