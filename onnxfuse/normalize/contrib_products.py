"""The parts of ONNX Runtime's products: transpositions and a factor around MatMul, activations behind Gemm and Conv."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxfuse.normalize.contrib_site import Parts, Site, Stays


def fused_mat_mul(
    site: Site,
    a: ir.Value,
    b: ir.Value,
    *,
    alpha: float = 1.0,
    trans_a: int = 0,
    trans_b: int = 0,
    trans_batch_a: int = 0,
    trans_batch_b: int = 0,
) -> dict[int, ir.Value]:
    """alpha * a @ b; the batch is last but one where it is transposed: [M,...,K], or [K,...,M] for both."""
    product = site.op.MatMul(_turned(site, a, "a", trans_a, trans_batch_a), _turned(site, b, "b", trans_b, trans_batch_b))
    return {0: product if alpha == 1 else site.op.Mul(product, site.number(alpha, a, "alpha"))}


def _turned(site: Site, x: ir.Value, name: str, swap: int, batch: int) -> ir.Value:
    """An operand as MatMul wants it. One of a single dimension is never transposed."""
    if not swap and not batch:
        return x
    rank = len(site.shape(x, name))
    if rank == 1:
        return x
    if not batch:
        return site.op.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])
    last = (rank - 1, 0) if swap else (0, rank - 1)
    return site.op.Transpose(x, perm=[*range(1, rank - 1), *last])


GEMM_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}
"""What may follow Gemm, and its parameters."""

CONV_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
"""What may follow Conv, and its parameters, in the order of ``activation_params``."""


def fused_gemm(
    site: Site,
    a: ir.Value,
    b: ir.Value,
    c: ir.Value | None = None,
    *,
    activation: str,
    alpha: float = 1.0,
    beta: float = 1.0,
    trans_a: int = 0,
    trans_b: int = 0,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
) -> dict[int, ir.Value]:
    given = {"alpha": activation_alpha, "beta": activation_beta, "gamma": activation_gamma}
    parameters = {name: value for name, value in given.items() if value is not None}
    product = site.op.Gemm(a, b, c, alpha=alpha, beta=beta, transA=trans_a, transB=trans_b)
    return {0: _activated(site, product, a, activation, GEMM_ACTIVATIONS, parameters)}


def fused_conv(
    site: Site,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None = None,
    z: ir.Value | None = None,
    *,
    activation: str | None = None,
    activation_params: list[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> dict[int, ir.Value]:
    """activation(conv(x) + z)"""
    made = site.op.Conv(
        x,
        weight,
        bias,
        auto_pad=auto_pad,
        group=group,
        dilations=dilations,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    made = made if z is None else site.op.Add(made, z)
    if activation is None:
        return {0: made}
    names, given = CONV_ACTIVATIONS.get(activation, ()), activation_params or []
    if len(names) != len(given):
        raise Stays(f"its activation {activation!r} has {len(given)} parameters, wanted {len(names)}")
    return {0: _activated(site, made, x, activation, CONV_ACTIVATIONS, dict(zip(names, given, strict=True)))}


def _activated(
    site: Site, y: ir.Value, like: ir.Value, activation: str, known: dict[str, tuple[str, ...]], parameters: dict[str, Any]
) -> ir.Value:
    if activation not in known or set(known[activation]) != set(parameters):
        raise Stays(f"its activation {activation!r} with parameters {', '.join(parameters) or 'none'} is not understood")
    if activation == "Clip":
        return site.op.Clip(y, *(site.number(parameters[name], like, name) for name in known[activation]))
    return site.op.named(activation)(y, **parameters)


PARTS: dict[str, Parts] = {
    "FusedMatMul": fused_mat_mul,
    "TransposeMatMul": fused_mat_mul,
    "FusedGemm": fused_gemm,
    "FusedConv": fused_conv,
}
