"""Runtimes that execute models; to the rest of onnxfuse each is a function from feeds to outputs.

ort         ONNX Runtime sessions, with the options that users get or with measured ones
openvino    OpenVINO, in float32 or bfloat16
litert      LiteRT, for .tflite files
denormals   floats too small to be normal, as zero in the calling thread
settings    how a model is opened, and what a runner takes and gives
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnxfuse.errors import UsageError
from onnxfuse.runtime import litert, openvino, ort
from onnxfuse.runtime.api import Feeds, Outputs, Runner, Settings
from onnxfuse.runtime.probes import product_saturates, slow_factor
from onnxfuse.runtime.sessions import open_session, run

RUNTIMES: dict[str, Callable[[Path, Settings], Runner]] = {
    "ort": ort.open_runner,
    **dict.fromkeys(openvino.PRECISIONS, openvino.open_runner),
}
"""How each runtime opens a file."""

__all__ = [
    "RUNTIMES",
    "Feeds",
    "Outputs",
    "Runner",
    "Settings",
    "open_runner",
    "open_session",
    "product_saturates",
    "run",
    "slow_factor",
]


def open_runner(path: Path, settings: Settings = Settings()) -> Runner:  # noqa: B008 - frozen
    """A model file as a function from feeds to outputs. A .tflite file runs in LiteRT, whatever the runtime.

    Raises:
        UsageError: no runtime of that name.
        MissingExtraError, ModelError: the runtime is not installed, or cannot open the file.
    """
    if path.suffix == litert.SUFFIX:
        return litert.open_runner(path, settings)
    if settings.runtime not in RUNTIMES:
        raise UsageError(f"no runtime named {settings.runtime!r}; choose one of {', '.join(RUNTIMES)}")
    return RUNTIMES[settings.runtime](path, settings)
