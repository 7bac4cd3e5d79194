"""What attention's scores are scaled with, in the layer that makes the query: for lowerings that multiply scores themselves.

Seen in:   targets ``standard`` and ``openvino``, whose attention is products; projections merged or not.
Computes:  (x @ W + b) K^T * s  =  (x @ sW + sb) K^T
Shapes:    x [B,S,D], W [D, D'], b [D'], scores [B,N,S,T]; of merged projections W [D, 3D'], whose first part is the query's.
Numerics:  exact where s is a power of two, as for heads of 64; rounding only otherwise (tolerance row "reassociate").
Refuses:   a weight or bias that is not a constant, a weight that is read by something else than such products: it would be
           stored twice. Layers that share their weight share the scaled one.
Source:    the product is linear. OpenVINO 2026.4 moves the factor to the keys, and transposes these by themselves for it.
"""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakValueDictionary

import onnx_ir as ir

from onnxfuse.rewrite import Learned, Match, Op, Pattern, Rule, Term, Var


def scores_of(match: Match, size: int) -> Learned:
    """The type of all, and what scores are multiplied with: by default one over the root of the head size."""
    dtype = match.need_type("q")
    mask = match["mask"] and match.need_type("mask")
    match.need(mask in (None, dtype), f"the mask is {mask}, the scores are {dtype}", match["mask"])
    return {"factor": factor_of(match, size), "dtype": dtype}


def factor_of(match: Match, size: int) -> float:
    scale = match["scale"]
    return 1 / math.sqrt(size) if scale is None else float(scale)


def separate(op: Pattern, x: Var, w: Var, b: Var, k: Var, v: Var, n: Var, n_kv: Var, scale: Var, mask: Var | None = None) -> Term:
    return op.Attention(op.Add(op.MatMul(x, w), b), k, v, mask, q_num_heads=n, kv_num_heads=n_kv, scale=scale)


def merged(
    op: Pattern, x: Var, w: Var, b: Var, sizes: Var, axis: Var, n: Var, n_kv: Var, scale: Var, mask: Var | None = None
) -> Term:
    parts = (op.Add(op.MatMul(x, w), b), sizes)
    q, k, v = (op.Split(*parts, axis=axis, _output=at) for at in range(3))
    return op.Attention(q, k, v, mask, q_num_heads=n, kv_num_heads=n_kv, scale=scale)


def guard(match: Match) -> Learned:
    match.need_single_output()
    weight, bias = (match.need_constant(name) for name in ("w", "b"))
    columns = match.need_shape("w", rank=2)[1]
    match.need(match.need_shape("b") == (columns,), "the bias is not one row", bias)
    alone = all(node.op_type == "MatMul" and not node.domain and at == 1 for node, at in weight.uses())
    match.need(alone and not weight.is_graph_output(), "the query's weight is read elsewhere", weight)
    width = match.need_number(columns, "the width of the query")
    if "sizes" in match.bindings:
        match.need(match["axis"] in (-1, 2), "the split is over another dimension", match.output)
        width = match.need_number((match.info("sizes").data or (columns,))[0], "the width of the query")
    factor = factor_of(match, width // match["n"])
    match.need(factor != 1, "scores are not scaled", match.output)
    return {"factor": factor, "width": width}


def scaled_query(
    op: Op,
    x: ir.Value,
    w: ir.Value,
    b: ir.Value,
    n: int,
    n_kv: int,
    factor: float,
    width: int,
    sizes: ir.Value | None = None,
    k: ir.Value | None = None,
    v: ir.Value | None = None,
    mask: ir.Value | None = None,
    **_: Any,
) -> ir.Value:
    weight, bias = (op.constant(scaled(value, factor, width), name) for value, name in ((w, "weight"), (b, "bias")))
    q = op.Add(op.MatMul(x, weight), bias)
    if sizes is not None:
        q, k, v = op.many("Split", 3, q, sizes, axis=-1)
    return op.Attention(*((q, k, v) if mask is None else (q, k, v, mask)), q_num_heads=n, kv_num_heads=n_kv, scale=1.0)


SCALED: WeakValueDictionary[tuple[int, float, int], ir.LazyTensor] = WeakValueDictionary()
"""Scaled constants by the identity of what they are made from, which they hold."""


def scaled(value: ir.Value, factor: float, width: int) -> ir.LazyTensor:
    """A constant whose first columns are multiplied with a number, read from the file when needed."""
    tensor = value.const_value
    assert tensor is not None
    key = (id(tensor), factor, width)
    if (known := SCALED.get(key)) is not None:
        return known

    def times() -> ir.TensorProtocol:
        array = tensor.numpy().copy()
        array[..., :width] *= array.dtype.type(factor)
        return ir.tensor(array)

    SCALED[key] = made = ir.LazyTensor(times, tensor.dtype, ir.Shape(tensor.shape.numpy()))
    return made


SCALE_IN_QUERY = tuple(Rule("scale-in-query", pattern, guard, scaled_query) for pattern in (separate, merged))
