"""LiteRT (TensorFlow Lite) as a runtime: its interpreter with XNNPACK, which needs no TensorFlow.

Source: ``ai_edge_litert.interpreter`` (its signatures, ``resize_tensor_input``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.errors import MissingExtraError, ModelError, first_line
from onnxfuse.io.files import require_file
from onnxfuse.io.quiet import silent
from onnxfuse.runtime.api import Feeds, Outputs, Runner, Runtime, Settings, require_inputs
from onnxfuse.runtime.cores import cores

WEIGHT = 1024
"""Elements from which a constant counts as a weight when a file's precision is read off it."""


def open_runner(path: Path, settings: Settings) -> Runner:
    """A .tflite file with one signature as a function from feeds to outputs. Sizes may change from call to call.

    Raises:
        MissingExtraError: LiteRT is not installed.
        ModelError: it cannot open or run the file.
    """
    interpreter = _open(path, settings.threads or cores())
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        raise ModelError(f"{path} has {len(signatures)} signatures, wanted one; convert it with: onnxfuse export --format tflite")
    signature = interpreter.get_signature_runner(next(iter(signatures)))
    inputs, outputs = signature.get_input_details(), signature.get_output_details()
    shapes: dict[str, tuple[int, ...]] = {}

    def call(feeds: Feeds) -> Outputs:
        require_inputs(set(inputs), feeds)
        now = {name: feeds[name].shape for name in inputs}
        try:
            if now != shapes:
                for name, detail in inputs.items():
                    interpreter.resize_tensor_input(detail["index"], now[name])
                with silent():
                    interpreter.allocate_tensors()
                shapes.clear()
                shapes.update(now)
            for name, detail in inputs.items():
                interpreter.set_tensor(detail["index"], feeds[name].astype(detail["dtype"], copy=False))
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            shapes.clear()
            sizes = ", ".join(f"{name} {list(shape)}" for name, shape in now.items())
            raise ModelError(f"LiteRT cannot run the model on {sizes}: {first_line(error)}") from error
        return {name: interpreter.get_tensor(detail["index"]) for name, detail in outputs.items()}

    return call


def precision(path: Path) -> str:
    """What most of a file's weights are stored in: fp32, fp16 or int8. Raises as ``open_runner``.

    Beside a narrow weight stands its float32 copy, filled when the model runs; so the narrowest common type counts.
    """
    sizes = {"int8": 0, "fp16": 0, "fp32": 0}
    kinds = {np.float32: "fp32", np.float16: "fp16", np.int8: "int8"}
    for detail in _open(path, 1).get_tensor_details():
        dynamic = -1 in detail["shape_signature"] or not len(detail["shape_signature"])  # it depends on the inputs' sizes
        count = int(np.prod(detail["shape"], dtype=np.int64))
        if detail["dtype"] in kinds and count >= WEIGHT and not dynamic:
            sizes[kinds[detail["dtype"]]] += count
    return next(name for name, size in sizes.items() if 2 * size >= max(sizes.values()))


def _open(path: Path, threads: int) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError("running LiteRT models", "litert") from error
    require_file(path)
    try:
        with silent():
            return Interpreter(model_path=str(path), num_threads=threads)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"LiteRT cannot open {path}: {first_line(error)}; convert it again with: onnxfuse export --format tflite"
        ) from error


LITERT = Runtime("litert", "LiteRT", open_runner, suffixes=(".tflite",), stored=precision)
