"""NVIDIA Triton: a model repository, a folder for each model with config.pbtxt above the folder of its first version.

Source: Triton's model configuration (model_config.proto; dims without the batch where max_batch_size is above 0; data types;
instance groups), and its ONNX Runtime backend's parameters.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import onnx_ir as ir

from onnxfuse.layouts.api import FLOAT, INT8, Content, Layout, above
from onnxfuse.runtime.cores import cores

TYPES = {
    ir.DataType.BOOL: "TYPE_BOOL",
    ir.DataType.UINT8: "TYPE_UINT8",
    ir.DataType.UINT16: "TYPE_UINT16",
    ir.DataType.UINT32: "TYPE_UINT32",
    ir.DataType.UINT64: "TYPE_UINT64",
    ir.DataType.INT8: "TYPE_INT8",
    ir.DataType.INT16: "TYPE_INT16",
    ir.DataType.INT32: "TYPE_INT32",
    ir.DataType.INT64: "TYPE_INT64",
    ir.DataType.FLOAT16: "TYPE_FP16",
    ir.DataType.FLOAT: "TYPE_FP32",
    ir.DataType.DOUBLE: "TYPE_FP64",
    ir.DataType.BFLOAT16: "TYPE_BF16",
    ir.DataType.STRING: "TYPE_STRING",
}

ROWS = 64
"""The most rows of one call: max_batch_size of a model that takes any number."""


def refusal(content: Content) -> str:
    """Why config.pbtxt cannot say what a model takes and gives, and the next step."""
    for model in content.models.values():
        for value in (*model.model.graph.inputs, *model.model.graph.outputs):
            if value.shape is None or value.dtype not in TYPES:
                what = "no shape" if value.shape is None else f"type {value.dtype}"
                return f"{value.name} has {what}, which config.pbtxt cannot say; export the model again"
    return ""


def texts(content: Content, precision: str, place: PurePosixPath) -> Mapping[str, str]:
    folder = above(place)
    graph = content.models[precision].model.graph
    return {str(folder / "config.pbtxt"): config(str(folder), graph.inputs, graph.outputs)}


def config(name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> str:
    """config.pbtxt of a model whose inputs and outputs have types and shapes."""
    batched = _batched(inputs, outputs)
    lines = [f'name: "{name}"', 'backend: "onnxruntime"', f"max_batch_size: {ROWS if batched else 0}"]
    for kind, values in (("input", inputs), ("output", outputs)):
        lines += [f"{kind} [", ",\n".join(_entry(value, batched) for value in values), "]"]
    lines += ["dynamic_batching { }"] if batched else []
    return "\n".join([*lines, *_sessions()]) + "\n"


def _sessions() -> list[str]:
    """As ``map`` has it: each core computes a batch of its own, and none waits for others."""
    return [
        "# A session for each core, of one thread: set count to the cores of your server.",
        f"instance_group [ {{ count: {cores()} kind: KIND_CPU }} ]",
        'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }',
    ]


def _batched(inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> bool:
    """Whether rows that belong to each other stand first in all inputs and outputs, in any number."""
    first = [value.shape.dims[0] if value.shape else 1 for value in (*inputs, *outputs)]
    return len({str(dim) for dim in first[: len(inputs)]}) == 1 and not any(isinstance(dim, int) for dim in first)


def _entry(value: ir.Value, batched: bool) -> str:
    assert value.shape is not None and value.dtype is not None
    sizes = [dim if isinstance(dim, int) else -1 for dim in value.shape.dims][1 if batched else 0 :]
    shape = "" if sizes else " reshape { shape: [ ] }"  # Triton wants a size, a row of this model is a number
    dims = ", ".join(map(str, sizes or [1]))
    return f'  {{ name: "{value.name}" data_type: {TYPES[value.dtype]} dims: [ {dims} ]{shape} }}'


def use(content: Content, precision: str, folder: str) -> str:
    return f"tritonserver --model-repository {shlex.quote(folder)}  # model {above(LAYOUT.placed(content)[precision])}"


LAYOUT = Layout("triton", "Triton", {FLOAT: "{name}/1/model.onnx", INT8: "{name}_int8/1/model.onnx"}, use, refusal, texts)
