"""Runtimes that execute models; to the rest of onnxfuse each is a function from feeds to outputs.

    ort         ONNX Runtime sessions, with the options that users get or with measured ones
    openvino    OpenVINO, in float32 or bfloat16
    litert      LiteRT, for .tflite files
    pytorch     PyTorch and
    tensorflow  TensorFlow: what an export is compared with
    denormals   floats too small to be normal, as zero in the calling thread
    model       what ``onnxfuse.load`` returns
    settings    how a model is opened, and what a runner takes and gives
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfuse.errors import UsageError
from onnxfuse.runtime import litert, openvino, ort
from onnxfuse.runtime.ort import open_session, product_saturates, run, slow_factor
from onnxfuse.runtime.pytorch import torch_runner
from onnxfuse.runtime.settings import Feeds, Outputs, Runner, Settings
from onnxfuse.runtime.tensorflow import limit_threads, tensorflow_runner

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint

RUNTIMES: dict[str, Callable[[Path, Settings], Runner]] = {
    "ort": ort.open_runner, **dict.fromkeys(openvino.PRECISIONS, openvino.open_runner)}
"""How each runtime opens a file."""

__all__ = ["RUNTIMES", "Feeds", "Outputs", "Runner", "Settings", "checkpoint_runner", "limit_threads", "open_runner",
           "open_session", "product_saturates", "run", "slow_factor"]


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


def checkpoint_runner(checkpoint: Checkpoint, threads: int = 0) -> Runner:
    """A checkpoint in its own framework, as a function from feeds to outputs."""
    runners = {"pt": torch_runner, "tf": tensorflow_runner}
    return runners[checkpoint.framework](checkpoint, threads)
