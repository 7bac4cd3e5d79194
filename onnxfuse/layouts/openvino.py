"""OpenVINO's own format, and the names that optimum-intel looks for.

Source: OpenVINO's Python API (convert_model, save_model, Core), optimum-intel (openvino_model.xml).
"""

from __future__ import annotations

from pathlib import Path

from onnxfuse.errors import MissingExtraError, ModelError
from onnxfuse.io.atomic import shown
from onnxfuse.layouts.api import FLOAT, INT8, Content, Layout, quoted
from onnxfuse.runtime.openvino import reason

PLACES = {FLOAT: "openvino_model.xml", INT8: "openvino_model_quantized.xml"}


def convert(source: Path, place: Path) -> None:
    """Write a model as ``place``, with its weights in their own type beside it. Raises MissingExtraError, ModelError."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("packaging for OpenVINO", "openvino") from error
    try:
        model = openvino.Core().read_model(source)
        openvino.save_model(model, place, compress_to_fp16=False)
    except RuntimeError as error:
        version = openvino.__version__.split("-")[0]
        raise ModelError(f"OpenVINO {version} cannot read {shown(source)}: {reason(error)}") from error


def use(content: Content, precision: str, folder: str) -> str:
    path = quoted(f"{folder}/{PLACES[precision]}")
    return f'openvino.Core().compile_model({path}, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})'


LAYOUT = Layout("openvino", "OpenVINO", PLACES, use, convert=convert, runtime="openvino")
