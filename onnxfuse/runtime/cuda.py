"""NVIDIA's GPUs through ONNX Runtime: its own CUDA kernels, or TensorRT's engines.

Inputs and outputs are bound to the GPU's memory. A model of fixed shapes runs as a CUDA graph, where all of it is on the GPU.
Nothing falls back to the CPU unsaid: where the provider is not to be had, the runtime cannot be used. (Of a model that runs on
the GPU, ONNX Runtime itself keeps what computes sizes on the CPU.)

Source: ONNX Runtime's CUDAExecutionProvider and TensorrtExecutionProvider and their options.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from onnxfuse.errors import MissingExtraError, ModelError
from onnxfuse.io import onnx_file
from onnxfuse.io.atomic import shown
from onnxfuse.runtime.api import Runner, Runtime, Settings
from onnxfuse.runtime.bound import bound
from onnxfuse.runtime.sessions import Providers, Session, open_session

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"

GRAPHS, HALF = "enable_cuda_graph", "trt_fp16_enable"
"""The options that have a session's kernels replayed, and TensorRT compute in float16, as a model in that type is meant."""

OPTIONS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    CUDA: {CUDA: {"use_tf32": "0"}},  # float32 is computed as such
    TENSORRT: {TENSORRT: {}, CUDA: {"use_tf32": "0"}},
}
"""What is asked of each provider: for what TensorRT leaves, CUDA comes next."""


def open_runner(path: Path, settings: Settings, provider: str) -> Runner:
    """A model file as a function from feeds to outputs. Raises MissingExtraError, ModelError: see ``require``."""
    require(provider)
    session, graphs = _open(path, settings, provider)
    if provider not in session.get_providers():
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot use the GPU here ({provider} is left out); its CUDA and cuDNN must be those "
            "that it was built with: pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    return bound(session, "cuda", shown(path), again=graphs)


def _open(path: Path, settings: Settings, provider: str) -> tuple[Session, bool]:
    """The session, and whether it is a CUDA graph: of a model with sizes that are all known, where all nodes are on the GPU."""
    options = {name: dict(chosen) for name, chosen in OPTIONS[provider].items()}
    if provider == TENSORRT and _is_half(path):
        options[TENSORRT][HALF] = "1"
    plain = open_session(path, settings, on=Providers(options))
    fixed = all(isinstance(size, int) for value in plain.get_inputs() for size in value.shape)
    if not fixed or provider != CUDA:
        return plain, False
    try:
        return open_session(path, settings, on=Providers({CUDA: {**options[CUDA], GRAPHS: "1"}})), True
    except ModelError:
        return plain, False  # some nodes are on the CPU


def _is_half(path: Path) -> bool:
    return any(value.dtype == ir.DataType.FLOAT16 for value in onnx_file.load(path).graph.initializers.values())


def require(provider: str) -> None:
    """Raises MissingExtraError: ONNX Runtime is the one for CPUs. ModelError: this machine has no GPU that it can use."""
    if provider not in ort.get_available_providers():
        raise MissingExtraError(f"the runtime {NAMES[provider]} (the runtime ort runs its files on the CPU)", "gpu")
    if not any(device.device.type == ort.OrtHardwareDeviceType.GPU for device in ort.get_ep_devices()):
        raise ModelError("this machine has no GPU that ONNX Runtime can use; choose the runtime ort")


NAMES = {CUDA: "cuda", TENSORRT: "tensorrt"}

RUNTIMES = (
    Runtime("cuda", "CUDA", partial(open_runner, provider=CUDA), target="cuda", require=partial(require, CUDA), rare=True),
    Runtime(
        "tensorrt",
        "TensorRT",
        partial(open_runner, provider=TENSORRT),
        integers=(),
        target="standard",
        require=partial(require, TENSORRT),
        rare=True,
    ),
)
