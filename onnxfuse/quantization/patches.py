"""Patch embedding: a convolution whose kernel is its stride sees each pixel once, so it is a matrix product of patches.

Seen in:   ViT and its relatives.
Computes:  Conv [B,C,H,W] -> [B,D,H/p,W/q]  =  patches [B, H/p * W/q, C*p*q] @ W [C*p*q, D], moved back.
Numerics:  rounding only (tolerance row "reassociate").
Refuses:   patches that overlap, pads, dilations, groups, images or kernels of unknown size, other types than float32.
Source:    ONNX operator Conv. Quantized, a Conv becomes ConvInteger, which is slow everywhere; the product is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Learned, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.passes import Rules


def convolution(
    op: Pattern,
    image: Var,
    weight: Var,
    strides: Var,
    group: Var,
    pads: Var,
    dilations: Var,
    auto_pad: Var,
    kernel_shape: Var,
    bias: Var | None = None,
) -> Term:
    return op.Conv(
        image,
        weight,
        bias,
        strides=strides,
        group=group,
        pads=pads,
        dilations=dilations,
        auto_pad=auto_pad,
        kernel_shape=kernel_shape,
    )


def guard(match: Match) -> Learned:
    match.need_constant("weight")
    if match["bias"] is not None:
        match.need_constant("bias")
    _depth, _channels, *kernel = (match.need_number(size, "a size of the kernel") for size in match.need_shape("weight", rank=4))
    channels, height, width = (match.need_number(size, "a size of the image") for size in match.need_shape("image", rank=4)[1:])
    match.need(not (height % kernel[0] or width % kernel[1]), "patches do not fill the image", match["image"])
    match.need(match["strides"] == kernel, f"the strides are {match['strides']}, wanted the kernel's {kernel}", match.output)
    match.need(match["group"] == 1, "channels are in groups", match.output)
    match.need(not any(match["pads"] or ()), "the image is padded", match.output)
    match.need(set(match["dilations"] or (1,)) == {1}, "the kernel is dilated", match.output)
    match.need(match["auto_pad"] in ("NOTSET", "VALID"), "the image is padded", match.output)
    match.need(match.need_type("weight") == ir.DataType.FLOAT, "the type is not float32", match["weight"])
    return {"channels": channels, "grid": (height // kernel[0], width // kernel[1])}


def product(
    op: Op, image: ir.Value, weight: ir.Value, bias: ir.Value | None, channels: int, grid: tuple[int, int], **_: Any
) -> ir.Value:
    assert weight.const_value is not None  # the guard asks for a constant
    depth, _channels, height, width = weight.const_value.shape.numpy()
    rows, columns = grid
    split = op.Reshape(image, op.constant([0, channels, rows, height, columns, width], "split"))
    shape = op.constant([0, rows * columns, channels * height * width], "rows")
    made = op.MatMul(
        op.Reshape(op.Transpose(split, perm=[0, 2, 4, 1, 3, 5]), shape),
        op.constant(np.ascontiguousarray(weight.const_value.numpy().reshape(depth, -1).T), "weight"),
    )
    if bias is not None:
        made = op.Add(made, bias)
    return op.Reshape(op.Transpose(made, perm=[0, 2, 1]), op.constant([0, depth, rows, columns], "grid"))


PATCH_EMBEDDING = Rules("patch-embedding", (Rule("patch-embedding", convolution, guard, product),))
