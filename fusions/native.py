"""Linear layers and attention as operators of our own library, each with what stands around it.

Seen in:   target ``native``.
Computes:  Linear: norm(activation(x W + b) + r), one part after another, each put into the operator by a rule of its own.
           Attention: softmax(scale Q K^T + bias) V for each sequence by itself, of q, k and v apart or side by side.
Shapes:    x [...,K], W [K,N], b [N], r [...,N]; q, k, v [B,S,D], bias a number for each key.
Numerics:  rounding only (tolerance row "reassociate").
Refuses:   weights that are no constant matrices of floats, a norm over more than the last dimension, a sum read elsewhere,
           heads that share keys, a mask that differs from query to query or from head to head.
Source:    native/README.md.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxfuse.native.bodies import SHUT
from onnxfuse.rewrite import Learned, Lowering, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE
from onnxfuse.rewrite.shapes.native import DOMAIN

ACTIVATIONS = {"none": "Gelu", "tanh": "GeluTanh"}
"""As ``Linear`` calls them, by the attribute of Gelu."""


def product(op: Pattern, x: Var, weight: Var) -> Term:
    return op.MatMul(x, weight)


OPSET = 23
"""Below it the functions that stand for our operators have no words: Gelu, Attention."""


def need_functions(match: Match) -> None:
    match.need(match.analysis.opset >= OPSET, f"the model has opset {match.analysis.opset}, wanted {OPSET}", match.output)


def guard_product(match: Match) -> None:
    need_functions(match)
    match.need_constant("weight")
    match.need_shape("weight", rank=2)
    for name in ("x", "weight"):
        match.need(match.need_type(name) == ir.DataType.FLOAT, f"{name} is no float32", match[name])
    match.need(len(match.need_shape("x")) > 1, "x has one dimension", match["x"])


def linear(op: Op, x: ir.Value, weight: ir.Value, **parts: Any) -> ir.Value:
    """The operator with the parts that are named."""
    inputs = (parts.get(name) for name in ("scale", "rows", "bias", "residual", "gamma", "beta"))
    norm = {} if parts.get("gamma") is None else {"epsilon": parts["epsilon"]}
    y: ir.Value = op.Linear(x, weight, *inputs, activation=parts.get("activation") or "", _domain=DOMAIN, **norm)
    return y


def biased(op: Pattern, x: Var, weight: Var, bias: Var, scale: Var | None = None, rows: Var | None = None) -> Term:
    return op.Add(op.Linear(x, weight, scale, rows, activation="", _domain=DOMAIN), bias)


def _need_row(match: Match, name: str) -> None:
    """Refuses unless this is a constant of as many numbers as the layer has columns, in one dimension."""
    match.need_constant(name)
    columns = match.need_shape("weight", rank=2)[-1:]
    match.need(match.need_shape(name) == columns, f"{name} is not [{columns[0]}]", match[name])


def guard_bias(match: Match) -> None:
    _need_row(match, "bias")


def activated(
    op: Pattern, x: Var, weight: Var, approximate: Var, scale: Var | None = None, rows: Var | None = None, bias: Var | None = None
) -> Term:
    return op.Gelu(op.Linear(x, weight, scale, rows, bias, activation="", _domain=DOMAIN), approximate=approximate)


def guard_activation(match: Match) -> Learned:
    return {"activation": ACTIVATIONS[match["approximate"]]}


def added(operator: str) -> Any:
    def before(
        op: Pattern,
        x: Var,
        weight: Var,
        residual: Var,
        activation: Var,
        scale: Var | None = None,
        rows: Var | None = None,
        bias: Var | None = None,
    ) -> Term:
        layer = op.Linear(x, weight, scale, rows, bias, activation=activation, _domain=DOMAIN)
        return op.named(operator)(layer, residual)

    return before


def guard_residual(match: Match) -> None:
    match.need(match.need_shape("residual") == match.need_shape(match.output), "the residual broadcasts", match["residual"])


def normed(
    op: Pattern,
    x: Var,
    weight: Var,
    activation: Var,
    gamma: Var,
    epsilon: Var,
    axis: Var,
    scale: Var | None = None,
    rows: Var | None = None,
    bias: Var | None = None,
    residual: Var | None = None,
    beta: Var | None = None,
) -> Term:
    layer = op.Linear(x, weight, scale, rows, bias, residual, activation=activation, _domain=DOMAIN)
    return op.LayerNormalization(layer, gamma, beta, epsilon=epsilon, axis=axis)


def guard_norm(match: Match) -> None:
    match.need_single_output()
    match.need(match["axis"] in (-1, len(match.need_shape(match.output)) - 1), "the norm is not over the last dimension")
    for name in ("gamma", "beta"):
        if match[name] is not None:
            _need_row(match, name)


LINEAR = (
    Rule("native-linear", product, guard_product, linear),
    Rule("native-bias", biased, guard_bias, linear),
    Rule("native-activation", activated, guard_activation, linear),
    Rule("native-residual", added("Add"), guard_residual, linear),
    Rule("native-residual", added("Sum"), guard_residual, linear),
    Rule("native-norm", normed, guard_norm, linear),
)


# Attention -------------------------------------------------------------------------------------------------------


def attention(op: Pattern, q: Var, k: Var, v: Var, n: Var, n_kv: Var, scale: Var) -> Term:
    return op.Attention(q, k, v, q_num_heads=n, kv_num_heads=n_kv, scale=scale)


def attention_to_keys(op: Pattern, q: Var, k: Var, v: Var, n: Var, n_kv: Var, scale: Var, mask: Var, sizes: Var) -> Term:
    """The operator asks for a mask of scores' own sizes: one that all queries share is expanded."""
    return op.Attention(q, k, v, op.Expand(mask, sizes), q_num_heads=n, kv_num_heads=n_kv, scale=scale)


def attention_of_one(op: Pattern, q: Var, k: Var, v: Var, n: Var, n_kv: Var, scale: Var, mask: Var) -> Term:
    """Where one token of each row asks, the mask is of scores' own sizes as it is."""
    return op.Attention(q, k, v, mask, q_num_heads=n, kv_num_heads=n_kv, scale=scale)


def guard_heads(match: Match) -> None:
    """Queries and keys of as many rows."""
    need_functions(match)
    match.need_single_output()
    scale = match["scale"]
    match.need(scale is None or scale > 0, f"the scale is {scale}; the operator takes its own for 0", match.output)
    match.need(match["n_kv"] == match["n"], f"query has {match['n']} heads, key and value {match['n_kv']}", match.output)
    for name in "qkv":
        match.need(match.need_type(name) == ir.DataType.FLOAT, f"{name} is no float32", match[name])
        width = match.need_number(match.need_shape(name, rank=3)[2], f"the width of {name}")
        match.need(width % match["n"] == 0, f"{match['n']} heads do not share {width} columns", match[name])
    (b, *_), (b_k, *_) = match.need_shape("q"), match.need_shape("k")
    match.need(b == b_k, f"the queries are of {b} rows, the keys of {b_k}", match["q"])


def guard_keys(match: Match) -> Learned:
    """The mask is [B,1,1,T]."""
    guard_heads(match)
    b, t, _ = match.need_shape("k")
    match.need(match.need_shape("mask") == (b, ONE, ONE, t), "the mask is not one number for each key", match["mask"])
    kind = match.need_type("mask")
    match.need(kind in (ir.DataType.FLOAT, ir.DataType.BOOL), f"the mask is {kind}", match["mask"])
    return {"switched": kind == ir.DataType.BOOL}


def own_attention(
    op: Op, q: ir.Value, k: ir.Value, v: ir.Value, n: int, scale: float | None, mask: ir.Value | None = None, **of: Any
) -> ir.Value:
    bias = mask
    if mask is not None and of.get("switched"):
        bias = op.Where(mask, op.constant(0.0, "open"), op.constant(SHUT, "shut"))
    return attend(op, q, k, v, None, bias, n, scale)


def attend(
    op: Op,
    q: ir.Value,
    k: ir.Value | None,
    v: ir.Value | None,
    bounds: ir.Value | None,
    bias: ir.Value | None,
    n: int,
    scale: float | None,
    precision: str = "float32",
) -> ir.Value:
    """Our operator; a scale of 0 or None is that of the head size."""
    heads = {"num_heads": n, "scale": float(scale or 0), "precision": precision}
    y: ir.Value = op.Attention(q, k, v, bounds, bias, _domain=DOMAIN, **heads)
    return y


def split(
    op: Pattern,
    merged: Var,
    n: Var,
    scale: Var,
    precision: Var,
    parts: Var,
    sizes: Var | None = None,
    bounds: Var | None = None,
    bias: Var | None = None,
) -> Term:
    q, k, v = (op.Split(merged, sizes, axis=-1, num_outputs=parts, _output=at) for at in range(3))
    return op.Attention(q, k, v, bounds, bias, num_heads=n, scale=scale, precision=precision, _domain=DOMAIN)


def guard_split(match: Match) -> None:
    if match["sizes"] is None:
        width = match.need_number(match.need_shape("merged")[-1], "the width of query, key and value")
        match.need(match["parts"] == 3 and width % 3 == 0, f"{width} columns in {match['parts']} parts", match["merged"])
        return
    sizes = match.info("sizes").data or ()
    match.need(len(sizes) == 3 and len(set(sizes)) == 1, "query, key and value differ in width", match["sizes"])


def side_by_side(
    op: Op,
    merged: ir.Value,
    n: int,
    scale: float,
    precision: str,
    bounds: ir.Value | None = None,
    bias: ir.Value | None = None,
    **_: Any,
) -> ir.Value:
    return attend(op, merged, None, None, bounds, bias, n, scale, precision)


ATTENTION = (
    Rule("native-attention", attention, guard_heads, own_attention),
    Rule("native-attention", attention_to_keys, guard_keys, own_attention, shared=True),
    Rule("native-attention", attention_of_one, guard_keys, own_attention),
    Rule("native-attention-merged", split, guard_split, side_by_side),
)

LOWERINGS = (
    Lowering("linear", "native", LINEAR, tuned=False),
    Lowering("attention", "native", ATTENTION, tuned=False),
)
