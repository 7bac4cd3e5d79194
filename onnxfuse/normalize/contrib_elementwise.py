"""The parts of ONNX Runtime's Gelus."""

from __future__ import annotations

import onnx_ir as ir

from onnxfuse.normalize.contrib_site import Parts, Site


def gelu(site: Site, x: ir.Value) -> dict[int, ir.Value]:
    return {0: site.op.Gelu(x, approximate="none")}


def bias_gelu(site: Site, x: ir.Value, bias: ir.Value) -> dict[int, ir.Value]:
    return {0: site.op.Gelu(site.op.Add(x, bias), approximate="none")}


def fast_gelu(site: Site, x: ir.Value, bias: ir.Value | None = None) -> dict[int, ir.Value]:
    return {0: site.op.Gelu(x if bias is None else site.op.Add(x, bias), approximate="tanh")}


def quick_gelu(site: Site, x: ir.Value, *, alpha: float = 1.702) -> dict[int, ir.Value]:
    """x * sigmoid(alpha * x)"""
    scaled = x if alpha == 1 else site.op.Mul(x, site.number(alpha, x, "alpha"))
    return {0: site.op.Mul(x, site.op.Sigmoid(scaled))}


PARTS: dict[str, Parts] = {"Gelu": gelu, "BiasGelu": bias_gelu, "FastGelu": fast_gelu, "QuickGelu": quick_gelu}
