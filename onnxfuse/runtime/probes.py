"""What this machine does with 8-bit matmuls, measured."""

from __future__ import annotations

import functools
import time

import numpy as np
import onnx.parser

from onnxfuse.runtime.sessions import open_session, run


@functools.cache
def slow_factor() -> float:
    """How many times as long a matmul of u8 activations with u8 weights takes here as one with s8 weights."""
    seconds = {}
    for dtype in ("uint8", "int8"):
        text = f"""<ir_version: 8, opset_import: ["": 17]> g (uint8[128,768] x) => (int32[128,768] y)
            <{dtype}[1] code = {{3}}, int64[2] shape = {{768, 768}}> {{ w = Expand(code, shape)  y = MatMulInteger(x, w) }}"""
        session = open_session(onnx.parser.parse_model(text).SerializeToString())
        feeds = {"x": np.full((128, 768), 3, np.uint8)}
        times = []
        for _ in range(20):
            start = time.perf_counter()
            run(session, feeds)
            times.append(time.perf_counter() - start)
        seconds[dtype] = float(np.median(times))
    return seconds["uint8"] / seconds["int8"]


@functools.cache
def matmul_saturates() -> bool:
    """Whether u8 x s8 matmuls are clipped on this machine.

    x86 without VNNI adds two products in 16 bits: 255 * 127 twice does not fit, 255 * 64 twice does.
    Measured, not read off the CPU's flags, so that it holds for the kernel that is really taken.
    """
    depth = 64
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (uint8[1,{depth}] x) => (int32[1,{depth}] y)
        <int8[1] code = {{127}}, int64[2] shape = {{{depth}, {depth}}}> {{ w = Expand(code, shape)  y = MatMulInteger(x, w) }}"""
    session = open_session(onnx.parser.parse_model(text).SerializeToString())
    result = run(session, {"x": np.full((1, depth), 255, np.uint8)})["y"]
    return bool((result != 255 * 127 * depth).any())
