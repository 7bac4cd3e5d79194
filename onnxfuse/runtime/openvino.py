"""OpenVINO as a runtime: the same files, in float32 or in bfloat16 where the CPU has it.

OpenVINO 2026.4 reads what every shipped target writes, opset-23 Attention and com.microsoft operators too; what it does not know
is refused when it is opened. Dynamic int8 is right in it but slow: it multiplies MatMulInteger in float32.

Source: OpenVINO's Python API (Core.read_model, compile_model) and its CPU properties.
"""

from __future__ import annotations

import importlib
import threading
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import MissingExtraError, ModelError, first_line
from onnxfuse.io.atomic import shown
from onnxfuse.io.files import require_file
from onnxfuse.rewrite.shapes.native import DOMAIN
from onnxfuse.runtime import denormals
from onnxfuse.runtime.api import Feeds, Outputs, Runner, Runtime, Settings, require_inputs


def open_runner(path: Path, settings: Settings, precision: str) -> Runner:
    """A model file as a function from feeds to outputs.

    Args:
        precision: OpenVINO's word for what float32 is computed in, f32 or bf16; int8 files are int8 in either.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ModelError: OpenVINO cannot read or run it.
    """
    request = _compiled(path, settings, compile_options(settings, precision)).create_infer_request()
    return _caller(request, settings.denormals_as_zero)


def open_many(path: Path, settings: Settings, calls: int, precision: str) -> Runner:
    """The same for many calls at a time, each of which a thread of OpenVINO's computes. Raises as ``open_runner``."""
    options = compile_options(replace(settings, threads=calls), precision) | {"NUM_STREAMS": calls}
    compiled, own = _compiled(path, settings, options), threading.local()

    def call(feeds: Feeds) -> Outputs:
        if not hasattr(own, "call"):
            own.call = _caller(compiled.create_infer_request(), settings.denormals_as_zero)
        outputs: Outputs = own.call(feeds)
        return outputs

    return call


def _compiled(path: Path, settings: Settings, options: dict[str, str | int | bool]) -> Any:
    """A model that OpenVINO has compiled. Raises MissingExtraError, ModelError."""
    openvino = _openvino()
    require_file(path)
    core = openvino.Core()
    try:
        with denormals.as_zero(settings.denormals_as_zero):
            return core.compile_model(core.read_model(path), "CPU", options)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO {openvino.__version__.split('-')[0]} cannot open {shown(path)}: {reason(error)}") from error


def _require_bf16() -> None:
    """Raises MissingExtraError; ModelError where this CPU has no bfloat16."""
    if "BF16" not in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ModelError("this CPU has no bfloat16 products, OpenVINO would compute in float32; choose the runtime openvino")


def compile_options(settings: Settings, precision: str) -> dict[str, str | int | bool]:
    """What a model is compiled for the CPU with, one call after another; ``precision`` as of ``open_runner``."""
    options: dict[str, str | int | bool] = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "CPU_DENORMALS_OPTIMIZATION": settings.denormals_as_zero,
    }
    return options | ({"INFERENCE_NUM_THREADS": settings.threads} if settings.threads else {})


def _openvino() -> Any:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingExtraError("running models with OpenVINO", "openvino") from error


def _caller(request: Any, denormals_as_zero: bool) -> Runner:
    model = request.get_compiled_model()
    wanted = {value.get_any_name() for value in model.inputs}
    names = [value.get_any_name() for value in model.outputs]

    def call(feeds: Feeds) -> Outputs:
        require_inputs(wanted, feeds)  # for one that is missing, OpenVINO would take the last call's
        try:
            with denormals.as_zero(denormals_as_zero):  # OpenVINO's own option stays on in the calling thread
                results = request.infer({name: array for name, array in feeds.items() if name in wanted}, share_inputs=True)
        except RuntimeError as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
            raise ModelError(f"OpenVINO cannot run the model on {shapes}: {reason(error)}") from error
        return {name: np.array(results[at]) for at, name in enumerate(names)}

    return call


def reason(error: RuntimeError) -> str:
    """The last of OpenVINO's lines that says something: the first ones are places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    said = (telling or [first_line(error)])[-1][-300:]
    own = "; it reads no functions that stand for our operators: fuse the export with --target openvino" if DOMAIN in said else ""
    return f"{said}{own}"


# Files of its own -------------------------------------------------------------------------------------------------

TYPES = {
    "boolean": ir.DataType.BOOL,
    "u8": ir.DataType.UINT8,
    "i8": ir.DataType.INT8,
    "i32": ir.DataType.INT32,
    "i64": ir.DataType.INT64,
    "f16": ir.DataType.FLOAT16,
    "bf16": ir.DataType.BFLOAT16,
    "f32": ir.DataType.FLOAT,
    "f64": ir.DataType.DOUBLE,
}
"""OpenVINO's names of the types that models take and give."""

STORED = {"i8": "int8", "u8": "int8", "f16": "fp16", "bf16": "bf16", "f32": "fp32"}
"""Precisions by the type of the weights."""


def declares(path: Path) -> ir.Model:
    """Inputs, outputs and metadata of a file in OpenVINO's own format, as a model without nodes; its dimensions have no names.

    Raises:
        UsageError: no such file. MissingExtraError, ModelError: OpenVINO is not installed, or cannot read it.
    """
    model = _read(path)
    told = model.get_rt_info(["framework"]).value if model.has_rt_info(["framework"]) else {}
    graph = ir.Graph([_value(each) for each in model.inputs], [_value(each) for each in model.outputs], nodes=[], name=path.stem)
    made = ir.Model(graph, ir_version=10)
    made.metadata_props.update({name: str(getattr(each, "value", each)) for name, each in told.items()})
    return made


def stored(path: Path) -> str:
    """What most of a file's weights are stored in. Raises as ``declares``."""
    sizes: Counter[str] = Counter()
    for node in _read(path).get_ordered_ops():
        if node.get_type_name() == "Constant":
            sizes[STORED.get(node.get_element_type().get_type_name(), "")] += node.get_byte_size()
    sizes.pop("", None)
    return max(sizes, key=lambda name: sizes[name], default="fp32")


def _read(path: Path) -> Any:
    openvino = _openvino()
    require_file(path)
    try:
        return openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO {openvino.__version__.split('-')[0]} cannot read {shown(path)}: {reason(error)}") from error


def _value(port: Any) -> ir.Value:
    sizes = port.partial_shape
    dims = None if sizes.rank.is_dynamic else ir.Shape([dim.get_length() if dim.is_static else None for dim in sizes])
    dtype = TYPES.get(port.element_type.get_type_name(), ir.DataType.UNDEFINED)
    return ir.Value(name=port.get_any_name(), shape=dims, type=ir.TensorType(dtype))


FILES = (".onnx", ".xml")
"""ONNX, and OpenVINO's own format."""

RUNTIMES = (
    Runtime(
        "openvino",
        "OpenVINO",
        partial(open_runner, precision="f32"),
        FILES,
        stored=stored,
        declares=declares,
        integers=("static",),
        static="qdq-source",
        target="openvino",
        require=_openvino,
        many=partial(open_many, precision="f32"),
    ),
    Runtime(
        "openvino-bf16",
        "OpenVINO in bfloat16",
        partial(open_runner, precision="bf16"),
        FILES,
        computes={"fp32": "bf16", "fp16": "bf16", "bf16": "bf16"},
        stored=stored,
        declares=declares,
        integers=("static",),
        static="qdq-source",
        target="openvino",
        require=_require_bf16,
        many=partial(open_many, precision="bf16"),
    ),
)
