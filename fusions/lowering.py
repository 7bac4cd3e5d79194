"""Lowering for targets that lack an operator of the normal form: the same equation read from right to left.

Seen in:   targets ``standard`` (no Attention, below opset 20 no Gelu), ``openvino`` (attention as products, which OpenVINO
           makes one kernel of) and ``ort-contrib`` (com.microsoft operators).
Computes:  what ``attention``, ``gelu`` and ``residual`` compute.
Numerics:  rounding only (tolerance row "reassociate").
Source:    ONNX operators Attention and Gelu (their function bodies); com.microsoft.MultiHeadAttention and BiasGelu.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.fusions.gelu import CUBIC, INVERSE_SQRT2, SQRT_2_OVER_PI
from onnxfuse.fusions.query_scale import SCALE_IN_QUERY, scores_of
from onnxfuse.rewrite import Alone, Dim, Learned, Lowering, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE

KERNELS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
"""The types that ONNX Runtime's MultiHeadAttention and BiasGelu take on CPU (float16 as float32, between two casts)."""


def need_kernel(match: Match, name: str, types: frozenset[ir.DataType] = KERNELS) -> None:
    """Refuses unless the operator that is written takes the value's type."""
    dtype = match.need_type(name)
    match.need(dtype in types, f"the type is {dtype}, wanted {' or '.join(sorted(str(known) for known in types))}", match[name])


def attention(op: Pattern, q: Var, k: Var, v: Var, n: Var, n_kv: Var, scale: Var, mask: Var | None = None) -> Term:
    return op.Attention(q, k, v, mask, q_num_heads=n, kv_num_heads=n_kv, scale=scale)


def attention_expanded(op: Pattern, q: Var, k: Var, v: Var, n: Var, n_kv: Var, scale: Var, mask: Var, sizes: Var) -> Term:
    """The operator asks for a mask of scores' own sizes; an addition does not."""
    return op.Attention(q, k, v, op.Expand(mask, sizes), q_num_heads=n, kv_num_heads=n_kv, scale=scale)


def guard_heads(match: Match) -> Learned:
    match.need_single_output()
    n = match["n"]
    match.need(match["n_kv"] == n, f"query has {n} heads, key and value {match['n_kv']}", match.output)
    sizes = {name: match.need_number(match.need_shape(name, rank=3)[2], f"the width of {name}") // n for name in ("q", "v")}
    learned: Learned = scores_of(match, sizes["q"])
    return {"size": sizes["q"], "v_size": sizes["v"]} | learned


def decomposed(
    op: Op,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    mask: ir.Value | None,
    n: int,
    size: int,
    v_size: int,
    factor: float,
    dtype: ir.DataType,
    **_: Any,
) -> ir.Value:
    split, split_v = op.constant([0, 0, n, size], "split"), op.constant([0, 0, n, v_size], "split-v")
    query, value = (op.Transpose(op.Reshape(x, to), perm=[0, 2, 1, 3]) for x, to in ((q, split), (v, split_v)))
    key = op.Transpose(
        op.Transpose(op.Reshape(k, split), perm=[0, 2, 1, 3]), perm=[0, 1, 3, 2]
    )  # OpenVINO's product does the last
    context = op.Transpose(weighted(op, query, key, value, mask, factor, dtype), perm=[0, 2, 1, 3])
    return op.Reshape(context, op.constant([0, 0, n * v_size], "merge"))


def weighted(
    op: Op, query: ir.Value, key: ir.Value, value: ir.Value, mask: ir.Value | None, factor: float, dtype: ir.DataType
) -> ir.Value:
    """Values by their weights, [B,N,S,H], of heads that stand apart; the key is [B,N,H,T]."""
    scores = op.MatMul(query, key)
    scores = scores if factor == 1 else op.Mul(scores, op.constant(np.array(factor, dtype=dtype.numpy()), "scale"))
    scores = scores if mask is None else op.Add(scores, mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def attention_on_heads(op: Pattern, q: Var, k: Var, v: Var, scale: Var, mask: Var | None = None) -> Term:
    return op.Attention(q, k, v, mask, scale=scale)


def guard_on_heads(match: Match) -> Learned:
    """The operator on heads that stand apart: q [B,N,S,H], k and v [B,N,T,H]."""
    match.need_single_output()
    heads = {name: match.need_number(match.need_shape(name, rank=4)[1], f"the number of heads of {name}") for name in "qkv"}
    match.need(len(set(heads.values())) == 1, f"query has {heads['q']} heads, key {heads['k']}, value {heads['v']}", match.output)
    size = match.need_number(match.need_shape("q")[3], "the head size")
    learned: Learned = scores_of(match, size)
    return learned


def decomposed_on_heads(
    op: Op, q: ir.Value, k: ir.Value, v: ir.Value, mask: ir.Value | None, factor: float, dtype: ir.DataType, **_: Any
) -> ir.Value:
    return weighted(op, q, op.Transpose(k, perm=[0, 1, 3, 2]), v, mask, factor, dtype)


def guard_multi_head(match: Match) -> Learned:
    """The operator's mask is [B or 1, N or 1, S, T]: no smaller one is broadcast, but [S,T] gets its two dimensions."""
    learned = guard_heads(match)
    need_kernel(match, "q")
    match.need(learned["factor"] > 0, f"the scale is {learned['factor']}; the operator takes its own for 0", match.output)
    if match["mask"] is None:
        return learned | {"lift": False}
    mask = match.need_shape("mask")
    match.need(len(mask) in (2, 4), f"the mask has rank {len(mask)}, wanted 2 or 4", match["mask"])
    (b, s, _), (_, t, _) = match.need_shape("q"), match.need_shape("k", rank=3)
    match.need(mask[-2:] == (s, t), f"the mask ends in [{mask[-2]},{mask[-1]}], wanted [{s},{t}]", match["mask"])
    for dim, wanted, what in zip(mask[:-2], (b, Dim(match["n"])), ("batch", "heads"), strict=False):
        match.need(dim in (ONE, wanted), f"the mask's {what} is {dim}, wanted 1 or {wanted}", match["mask"])
    return learned | {"lift": len(mask) == 2}


def multi_head(
    op: Op, q: ir.Value, k: ir.Value, v: ir.Value, mask: ir.Value | None, n: int, factor: float, lift: bool, **_: Any
) -> ir.Value:
    mask = op.Unsqueeze(mask, op.constant([0, 1], "lead")) if lift else mask
    return op.MultiHeadAttention(q, k, v, None, None, mask, num_heads=n, scale=factor, _domain="com.microsoft")


def gelu(op: Pattern, x: Var, approximate: Var) -> Term:
    return op.Gelu(x, approximate=approximate)


def guard_gelu(match: Match) -> Learned:
    """Never refuses: below opset 20 nothing else is left."""
    return {"dtype": match.info("x").dtype}


def elementwise_gelu(op: Op, x: ir.Value, approximate: str, dtype: ir.DataType | None) -> ir.Value:
    def number(value: float, name: str) -> ir.Value:
        if dtype is None:
            return op.CastLike(op.constant(value, name), x)
        return op.constant(np.array(value, dtype=dtype.numpy()), name)

    if approximate == "tanh":
        bent = op.Add(x, op.Mul(op.Pow(x, number(3.0, "three")), number(CUBIC, "cubic")))
        bend = op.Tanh(op.Mul(bent, number(SQRT_2_OVER_PI, "inner")))
    else:
        bend = op.Erf(op.Mul(x, number(INVERSE_SQRT2, "inner")))
    return op.Mul(op.Mul(x, op.Add(bend, number(1.0, "one"))), number(0.5, "half"))


def biased_gelu(op: Pattern, x: Var, bias: Var) -> Term:
    return op.Gelu(op.Add(x, bias))


def guard_bias(match: Match) -> None:
    need_kernel(match, "x")
    match.need_constant("bias")
    match.need(match.need_shape("bias") == match.need_shape("x")[-1:], "the bias is not one row", match["bias"])


def bias_gelu(op: Op, x: ir.Value, bias: ir.Value) -> ir.Value:
    return op.BiasGelu(x, bias, _domain="com.microsoft")


def linear(op: Pattern, x: Var, weight: Var, bias: Var) -> Term:
    return op.Add(op.MatMul(x, weight), bias)


def guard_linear(match: Match) -> Learned:
    match.need_shape("x", rank=3)
    match.need_constant("weight")
    match.need_constant("bias")
    rows, width = match.need_shape("weight", rank=2)
    match.need(match.need_shape("bias") == (width,), "the bias is not one row", match["bias"])
    numbers = [match.need_number(size, "a width") for size in (rows, width)]
    return {"depth": numbers[0], "width": numbers[1]}


def gemm(op: Op, x: ir.Value, weight: ir.Value, bias: ir.Value, depth: int, width: int) -> ir.Value:
    """Gemm takes two dimensions; the first two come back from the input's own shape. (ONNX Runtime 1.31 infers a wrong one from
    Shape with an end, so that a Slice cuts it.)"""
    flat = op.Gemm(op.Reshape(x, op.constant([-1, depth], "rows")), weight, bias)
    lead = op.Slice(op.Shape(x), op.constant([0], "first"), op.constant([2], "second"))
    return op.Reshape(flat, op.Concat(lead, op.constant([width], "width"), axis=0))


BIAS_IN_LINEAR = (Rule("bias-in-linear", linear, guard_linear, gemm),)
DECOMPOSED = (
    Rule("attention-decomposed-expanded", attention_expanded, guard_heads, decomposed, shared=True),
    Rule("attention-decomposed", attention, guard_heads, decomposed),
    Rule("attention-on-heads-decomposed", attention_on_heads, guard_on_heads, decomposed_on_heads),
)
MULTI_HEAD = (Rule("attention-multi-head", attention, guard_multi_head, multi_head),)
ELEMENTWISE_GELU = (Rule("gelu-elementwise", gelu, guard_gelu, elementwise_gelu),)
BIAS_GELU = (Rule("gelu-bias", biased_gelu, guard_bias, bias_gelu),)

LOWERINGS = (
    Lowering("attention", "Attention"),
    Lowering("attention", "decomposed", DECOMPOSED, below=23, before=SCALE_IN_QUERY),
    # On heads not as MultiHeadAttention: its query must be [B,S,D], swapped there and back. Against ModernBERT unfused (base
    # width, 4 layers, one run) it had 1.01 (0.99 to 1.04) times the speed at 1 x 128, 1.00 (0.96 to 1.19) at 8: nothing to gain.
    Lowering("attention", "MultiHeadAttention", MULTI_HEAD),
    Lowering("gelu", "Gelu"),
    Lowering("gelu", "BiasGelu", BIAS_GELU),
    Lowering("gelu", "elementwise", ELEMENTWISE_GELU, below=20, tuned=False),
    Lowering("linear", "MatMul"),
    Lowering("linear", "Gemm", BIAS_IN_LINEAR, alone=Alone("bias-in-linear", target={"linear": "Gemm"}), tuned=False),
)
