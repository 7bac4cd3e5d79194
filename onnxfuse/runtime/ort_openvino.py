"""OpenVINO behind ONNX Runtime's interface, for programs that must stay with that: sessions whose nodes OpenVINO computes.

As fast as OpenVINO alone where ONNX Runtime leaves the graph as it is written. It brings its own OpenVINO, which may stand beside
the package ``openvino`` in one process, and takes CPUs of Intel alone.

Source: onnxruntime-ep-openvino 1.8, ONNX Runtime's plugin providers (register_execution_provider_library, get_ep_devices).
"""

from __future__ import annotations

import importlib
import json
from functools import cache, partial
from pathlib import Path

import onnxruntime as ort

from onnxfuse.errors import MissingExtraError, ModelError
from onnxfuse.io.atomic import shown
from onnxfuse.runtime import denormals
from onnxfuse.runtime.api import Feeds, Outputs, Runner, Runtime, Settings
from onnxfuse.runtime.openvino import compile_options
from onnxfuse.runtime.sessions import Devices, open_session, refusals, run

PROVIDER = "OpenVINOExecutionProvider"


def open_runner(path: Path, settings: Settings, precision: str) -> Runner:
    """A model file as a function from feeds to outputs.

    Args:
        precision: OpenVINO's word for what float32 is computed in, f32 or bf16; int8 files are int8 in either.

    Raises:
        MissingExtraError, ModelError: see ``_cpus``; or ONNX Runtime cannot open the model.
    """
    compiled = json.dumps({"CPU": compile_options(settings, precision)})
    session, path = open_session(path, settings, optimize=False, on=Devices(_cpus(), {"load_config": compiled})), shown(path)

    def call(feeds: Feeds) -> Outputs:
        with denormals.as_zero(settings.denormals_as_zero):
            return run(session, feeds, path)

    return call


def _cpus() -> tuple[ort.OrtEpDevice, ...]:
    """What the provider computes on.

    Raises:
        MissingExtraError: it is not installed. ModelError: it cannot be loaded, or takes no CPU of this machine.
    """
    found = tuple(each for each in _devices() if each.device.type == ort.OrtHardwareDeviceType.CPU)
    if not found:
        raise ModelError(
            "OpenVINO as a provider of ONNX Runtime takes CPUs of Intel alone, and this one is none; choose the runtime openvino"
        )
    return found


@cache
def _devices() -> tuple[ort.OrtEpDevice, ...]:
    """Every device of the provider, which is loaded once in a process. Raises as ``_cpus``."""
    try:
        plugin = importlib.import_module("onnxruntime_ep_openvino")
    except ImportError as error:
        raise MissingExtraError("OpenVINO as a provider of ONNX Runtime", "ort-openvino") from error
    if not (found := _listed()):  # whoever calls us may have loaded it
        try:
            with refusals():
                ort.register_execution_provider_library(PROVIDER, plugin.get_library_path())
        except ModelError as error:
            raise ModelError(f"ONNX Runtime cannot load OpenVINO's provider: {error}; install onnxfuse[ort-openvino]") from error
        found = _listed()
    return found


def _listed() -> tuple[ort.OrtEpDevice, ...]:
    return tuple(each for each in ort.get_ep_devices() if each.ep_name == PROVIDER)


def _require_bf16() -> None:
    """Raises as ``_cpus``; ModelError where this CPU has no bfloat16."""
    if "BF16" not in _cpus()[0].ep_metadata.get("OPTIMIZATION_CAPABILITIES", "").split():
        raise ModelError("this CPU has no bfloat16 products, OpenVINO would compute in float32; choose the runtime ort-openvino")


RUNTIMES = (
    Runtime(
        "ort-openvino",
        "ONNX Runtime with OpenVINO",
        partial(open_runner, precision="f32"),
        integers=("static",),
        static="qdq-source",
        target="openvino",
        require=_cpus,
        instead_of="openvino",
    ),
    Runtime(
        "ort-openvino-bf16",
        "ONNX Runtime with OpenVINO in bfloat16",
        partial(open_runner, precision="bf16"),
        computes={"fp32": "bf16", "fp16": "bf16", "bf16": "bf16"},
        integers=("static",),
        static="qdq-source",
        target="openvino",
        require=_require_bf16,
        instead_of="openvino-bf16",
    ),
)
