"""What this machine and this environment can do: read, and measured in seconds."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse import native
from onnxfuse.config import Scheme
from onnxfuse.errors import OnnxfuseError
from onnxfuse.io import onnx_file
from onnxfuse.io.atomic import scratch
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark, machine
from onnxfuse.measure.benchmark import Ratio
from onnxfuse.pipeline import versions
from onnxfuse.quantization.prepare import prepare
from onnxfuse.quantization.write import write
from onnxfuse.runtime import Runner, Settings, open_runner
from onnxfuse.runtime.cores import cores
from onnxfuse.runtime.probes import matmul_saturates

ROWS, WIDTH, LAYERS = 128, 768, 3
"""The model that is measured: 128 tokens through three pairs of bert-base's feed-forward products."""

ROUNDS = 10

OFF = "ORT_DISABLE_TELEMETRY"
"""The environment variable that onnxruntime 1.29 and later read, where their binary holds its name."""


@dataclass(frozen=True)
class Speed:
    """How many times as fast as float32 in ONNX Runtime a precision is here; ``why`` where it could not be measured."""

    name: str
    runtime: str
    speed: Ratio | None
    why: str = ""


@dataclass(frozen=True)
class Health:
    """What was found. ``clips``: whether products of u8 x s8 are clipped; ``kernels``: what our own use, "" where they are not
    built; ``telemetry``: ONNX Runtime's, for people."""

    cpu: str
    cores: int
    all_cores: int
    vnni: bool
    amx: bool
    clips: bool
    kernels: str
    kernels_trouble: str
    packages: tuple[versions.Package, ...]
    known_bad: tuple[str, ...]
    missing: tuple[versions.Missing, ...]
    speeds: tuple[Speed, ...]
    telemetry: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(progress: Progress = silent) -> Health:
    """Look at this machine and environment; takes some seconds, and writes nothing that stays."""
    progress("looking at the machine and the packages")
    flags = machine.flags()
    return Health(
        cpu=machine.cpu(),
        cores=cores(),
        all_cores=os.cpu_count() or 1,
        vnni=bool(flags & {"avx512_vnni", "avx_vnni"}),
        amx="amx_int8" in flags,
        clips=matmul_saturates(),
        kernels="" if (trouble := native.trouble()) else native.kernels(),
        kernels_trouble=trouble,
        packages=tuple(versions.packages()),
        known_bad=tuple(versions.bad_pairs()),
        missing=tuple(versions.missing()),
        speeds=tuple(speeds(progress)),
        telemetry=telemetry(_binary(), os.environ, sys.platform),
    )


def speeds(progress: Progress = silent) -> list[Speed]:
    """Measure int8 and bfloat16 beside float32 on a small model of products, all in one interleaved run."""
    with scratch() as folder:
        plain, small = folder / "float.onnx", folder / "int8.onnx"
        onnx_file.save(_model(), plain)
        onnx_file.save(write(prepare(_model(), Scheme())), small)
        wanted: dict[tuple[str, str], Callable[[], Runner]] = {
            ("int8", "ort"): lambda: open_runner(small),
            ("fp32", "openvino"): lambda: open_runner(plain, Settings("openvino")),
            ("bf16", "openvino-bf16"): lambda: open_runner(plain, Settings("openvino-bf16")),
        }
        runners, why = {("fp32", "ort"): open_runner(plain)}, {}
        for key, opened in wanted.items():
            try:
                runners[key] = opened()
            except OnnxfuseError as error:
                why[key] = str(error).replace(str(plain), "the model")
        feeds = {"x": np.random.default_rng(0).standard_normal((ROWS, WIDTH), np.float32)}
        named = {" in ".join(key): run for key, run in runners.items()}
        timings = benchmark.measure(named, [feeds], rounds=ROUNDS, progress=progress)
    first = timings["fp32 in ort"]
    found = {key: Speed(*key, benchmark.ratio(first, timings[" in ".join(key)])) for key in runners if key in wanted}
    return [found.get(key) or Speed(*key, None, why[key]) for key in wanted]


def _model() -> ir.Model:
    """``LAYERS`` pairs of products [D, 4 D] and [4 D, D] behind each other, with Relu between."""
    random, last = (
        np.random.default_rng(0),
        ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["B", WIDTH])),
    )
    x, nodes, weights = last, [], []
    for at in range(2 * LAYERS):
        rows, columns = (WIDTH, 4 * WIDTH) if at % 2 == 0 else (4 * WIDTH, WIDTH)
        weight = ir.tensor((random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32), name=f"w{at}")
        weights.append(
            ir.Value(name=f"w{at}", const_value=weight, type=ir.TensorType(weight.dtype), shape=ir.Shape([rows, columns]))
        )
        product = ir.node("MatMul", [last, weights[-1]])
        bent = ir.node("Relu", [product.outputs[0]])
        nodes += [product, bent]
        last = bent.outputs[0]
    last.name, last.type, last.shape = "y", x.type, x.shape
    graph = ir.Graph([x], [last], nodes=nodes, initializers=weights, opset_imports={"": 21}, name="products")
    return ir.Model(graph, ir_version=10)


def telemetry(binary: bytes, environment: Mapping[str, str], platform: str) -> str:
    """What ONNX Runtime's build here does about telemetry, by its binary and the environment."""
    if environment.get(OFF, "") not in ("", "0"):
        return f"off: {OFF} is set"
    if platform == "win32":
        return "on in official builds for Windows; onnxruntime.disable_telemetry_events() ends it"
    if OFF.encode() in binary:
        return f"this build of ONNX Runtime can send it, and does unless {OFF}=1 is set"
    return "this build of ONNX Runtime has none"


def _binary() -> bytes:
    place = importlib.util.find_spec("onnxruntime")
    found = sorted(Path(place.origin).parent.glob("capi/*pybind11_state*")) if place is not None and place.origin else []
    return found[0].read_bytes() if found else b""
