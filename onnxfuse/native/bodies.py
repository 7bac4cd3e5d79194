"""What our own operators compute, in standard operators: the body of each one's function in a model, and what takes one apart.

    Linear      y = norm(activation(x W + b) + r)
    Attention   y = softmax(scale q k^T + bias) v, each sequence by itself
    Encoder     layers of both

The attributes of a node choose the body, and so do the inputs that it has and the type of its weights; shapes do not. Sums come
in another order than in the library, and attention is in float32 whatever a node's ``precision`` says.

Source: native/README.md (the operators); ONNX operators Attention, Gelu and LayerNormalization, opset 23.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Op
from onnxfuse.rewrite.shapes.native import DOMAIN

LEVELS = 255.0
"""Steps of an unsigned byte."""

FAR = 0.75
"""The part of a row's range that the others' is at most where its largest element is kept apart."""

TINY = float(np.finfo(np.float32).tiny)

SHUT = float(np.finfo(np.float32).min)
"""The score of a token of another sequence."""

PARTS = ("weight", "scale", "rows", "bias")
"""Of a linear layer, as ``Linear`` and ``Encoder`` take them."""

LAYER = (
    *(f"{linear}_{part}" for linear in ("qkv", "out") for part in PARTS),
    "norm1_gamma",
    "norm1_beta",
    *(f"{linear}_{part}" for linear in ("up", "down") for part in PARTS),
    "norm2_gamma",
    "norm2_beta",
)
"""The inputs of an ``Encoder`` for each layer, behind x, bounds and bias."""

INPUTS = {
    "Linear": ("x", *PARTS, "residual", "gamma", "beta"),
    "Attention": ("q", "k", "v", "bounds", "bias"),
    "Encoder": ("x", "bounds", "bias"),
}
"""By operator, in order; an Encoder's layers follow."""


Call = Callable[[Op, str, Sequence["ir.Value | None"], Mapping[str, Any]], ir.Value]
"""How the operators inside an Encoder are written."""


def node(op: Op, operator: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> ir.Value:
    """A node of one of our operators."""
    y: ir.Value = op.named(operator)(*inputs, _domain=DOMAIN, **attributes)
    return y


def body(op: Op, operator: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> ir.Value:
    """What an operator gives, written with ``op`` in standard operators alone.

    Args:
        inputs: as the node has them; those of weights know their types.
        attributes: the node's, as ``plain`` has them.
    """
    return BODIES[operator](op, inputs, attributes)


def layers(op: Op, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any], call: Call = node) -> ir.Value:
    """What an Encoder gives, written with ``op`` in our other two operators."""
    given = inputs_of("Encoder", inputs)
    x = given["x"]
    assert x is not None
    for layer in layers_of(inputs):
        x = _layer(op, x, layer, given["bounds"], given["bias"], attributes, call)
    return x


def inputs_of(operator: str, inputs: Sequence[ir.Value | None]) -> dict[str, ir.Value | None]:
    """A node's inputs by name; None where one is absent. Those of an Encoder's layers are not among them."""
    names = INPUTS[operator]
    return dict(zip(names, [*inputs[: len(names)], *[None] * (len(names) - len(inputs))], strict=True))


def layers_of(inputs: Sequence[ir.Value | None]) -> list[dict[str, ir.Value | None]]:
    """The inputs of each layer of an Encoder, by name; None for one that is absent."""
    rest = [None if is_absent(value) else value for value in inputs[len(INPUTS["Encoder"]) :]]
    rest += [None] * (-len(rest) % len(LAYER))
    return [dict(zip(LAYER, rest[at : at + len(LAYER)], strict=True)) for at in range(0, len(rest), len(LAYER))]


def is_absent(value: ir.Value | None) -> bool:
    """Whether an input stands for none: among an Encoder's layers, where ONNX Runtime allows no gaps, one of no elements does."""
    return value is None or (value.shape is not None and 0 in value.shape)


# Linear ----------------------------------------------------------------------------------------------------------


def _linear(op: Op, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> ir.Value:
    given = inputs_of("Linear", inputs)
    y = product(op, *(given[name] for name in ("x", "weight", "scale", "rows")))  # type: ignore[arg-type]
    y = y if given["bias"] is None else op.Add(y, given["bias"])
    if activation := attributes.get("activation"):
        y = op.Gelu(y, approximate="tanh" if activation == "GeluTanh" else "none")
    y = y if given["residual"] is None else op.Add(y, given["residual"])
    return y if given["gamma"] is None else norm(op, y, given["gamma"], given["beta"], attributes["epsilon"])


def norm(op: Op, x: ir.Value, gamma: ir.Value, beta: ir.Value | None, epsilon: float) -> ir.Value:
    """LayerNormalization over the last dimension."""
    y: ir.Value = op.LayerNormalization(x, gamma, beta, axis=-1, epsilon=epsilon)
    return y


def product(op: Op, x: ir.Value, weight: ir.Value, scale: ir.Value | None, rows: ir.Value | None) -> ir.Value:
    """x W of a weight of any of its types, [...,N]."""
    y: ir.Value
    if weight.dtype == ir.DataType.INT8:
        assert scale is not None
        x = quantized(op, x if rows is None else op.Mul(x, rows))
        y = op.Mul(op.MatMul(x, op.Cast(weight, to=ir.DataType.FLOAT)), scale)
    elif weight.dtype == ir.DataType.BFLOAT16:
        x = op.Cast(op.Cast(x, to=ir.DataType.BFLOAT16), to=ir.DataType.FLOAT)
        y = op.MatMul(x, op.Cast(weight, to=ir.DataType.FLOAT))
    else:
        y = op.MatMul(x, weight)
    return y


def quantized(op: Op, x: ir.Value) -> ir.Value:
    """The numbers that the bytes of rows [...,K] stand for, each row with a scale and a zero point of its own.

    The largest element of a row stays as it is where the others have at most ``FAR`` of the range: see native/kernels.h.
    """
    last, zero = op.constant([-1], "last"), op.constant(0.0, "zero")
    place = op.ArgMax(op.Abs(x), axis=-1, keepdims=1)
    width = op.Squeeze(_size(op, x, -1))
    columns = op.Range(op.constant(np.array(0), "from"), width, op.constant(np.array(1), "step"))
    largest = op.Equal(columns, place)

    def ends(rows: ir.Value) -> tuple[ir.Value, ir.Value]:
        return op.Min(op.ReduceMin(rows, last, keepdims=1), zero), op.Max(op.ReduceMax(rows, last, keepdims=1), zero)

    low, high = ends(x)
    low_else, high_else = ends(op.Where(largest, zero, x))
    apart = op.LessOrEqual(op.Sub(high_else, low_else), op.Mul(op.Sub(high, low), op.constant(FAR, "far")))
    low, high = op.Where(apart, low_else, low), op.Where(apart, high_else, high)
    levels, one = op.constant(LEVELS, "levels"), op.constant(1.0, "one")
    step = op.Sub(op.Div(high, levels), op.Div(low, levels))
    step = op.Where(op.Less(step, op.constant(TINY, "tiny")), one, step)
    inverse = op.Div(one, step)
    middle = op.Clip(op.Round(op.Mul(op.Neg(low), inverse)), zero, levels)
    byte = op.Clip(op.Add(op.Round(op.Mul(x, inverse)), middle), zero, levels)
    kept: ir.Value = op.Where(op.And(largest, apart), x, op.Mul(step, op.Sub(byte, middle)))
    return kept


def _size(op: Op, x: ir.Value, axis: int) -> ir.Value:
    """The length of an axis, [1]. (ONNX Runtime infers a wrong one from Shape with an end.)"""
    length: ir.Value = op.Gather(op.Shape(x), op.constant([axis], "axis"))
    return length


# Attention -------------------------------------------------------------------------------------------------------


def _attention(op: Op, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> ir.Value:
    given = inputs_of("Attention", inputs)
    q, k, v = (given[name] for name in "qkv")
    assert q is not None
    if k is None or v is None:
        q, k, v = op.many("Split", 3, q, axis=-1, num_outputs=3)
    if given["bounds"] is not None:
        return _of_sequences(op, q, k, v, given["bounds"], given["bias"], attributes)
    bias = given["bias"]
    if bias is not None:  # a number for each key, [B,1,S,T]
        batch, asking, asked = _size(op, q, 0), _size(op, q, 1), _size(op, k, 1)
        one = op.constant([1], "one")
        bias = op.Reshape(bias, op.Concat(batch, one, one, asked, axis=0))
        bias = op.Expand(bias, op.Concat(batch, one, asking, asked, axis=0))
    return _attend(op, q, k, v, bias, attributes)


def _attend(op: Op, q: ir.Value, k: ir.Value, v: ir.Value, mask: ir.Value | None, attributes: Mapping[str, Any]) -> ir.Value:
    heads, scale = attributes["num_heads"], attributes["scale"]
    factor = {"scale": scale} if scale else {}
    y: ir.Value = op.Attention(q, k, v, mask, q_num_heads=heads, kv_num_heads=heads, **factor)
    return y


def _of_sequences(
    op: Op,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    bounds: ir.Value,
    bias: ir.Value | None,
    attributes: Mapping[str, Any],
) -> ir.Value:
    """Tokens behind each other; a query and a key of one sequence have one number. q has a token for each of k, or one for each
    sequence."""
    lead, last, one = op.constant([1, -1], "lead"), op.constant([-1], "last"), op.constant(np.array(1), "one")
    rows, keys, values = (op.Reshape(x, op.Concat(lead, _size(op, x, -1), axis=0)) for x in (q, k, v))
    asking, asked = (op.Range(op.constant(np.array(0), "from"), op.Squeeze(_size(op, x, 1)), one) for x in (rows, keys))
    ends = op.Unsqueeze(bounds, last)  # [B+1,1]

    def begun(tokens: ir.Value) -> ir.Value:
        """How many bounds lie up to each token."""
        return op.ReduceSum(op.Cast(op.LessOrEqual(ends, tokens), to=ir.DataType.INT64), op.constant([0], "down"), keepdims=0)

    number = op.Add(asking, one)
    each = op.Equal(_size(op, rows, 1), _size(op, keys, 1))
    number = op.Where(each, begun(asking), number)
    same = op.Equal(op.Unsqueeze(number, last), op.Unsqueeze(begun(asked), op.constant([0], "across")))  # [S,T]
    inside = op.Less(number, op.Squeeze(op.Shape(bounds)))
    found = op.ReduceMax(op.Cast(same, to=ir.DataType.INT64), op.constant([-1], "keys"), keepdims=0)
    some = op.And(inside, op.Cast(found, to=ir.DataType.BOOL))  # [S]
    zero, shut = op.constant(0.0, "zero"), op.constant(SHUT, "shut")
    mask = op.Where(same, zero if bias is None else op.Reshape(bias, last), shut)
    y = _attend(op, rows, keys, values, op.Unsqueeze(mask, op.constant([0, 1], "heads")), attributes)
    y = op.Where(op.Unsqueeze(some, last), y, zero)
    leading = op.Slice(op.Shape(q), op.constant([0], "first"), op.constant([-1], "last"))
    shaped: ir.Value = op.Reshape(y, op.Concat(leading, _size(op, y, -1), axis=0))
    return shaped


# Encoder ---------------------------------------------------------------------------------------------------------


def _encoder(op: Op, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> ir.Value:
    return layers(op, inputs, attributes, body)


def _layer(
    op: Op,
    x: ir.Value,
    layer: Mapping[str, Any],
    bounds: ir.Value | None,
    bias: ir.Value | None,
    attributes: Mapping[str, Any],
    call: Call,
) -> ir.Value:
    first, second = ((layer[f"{name}_gamma"], layer[f"{name}_beta"]) for name in ("norm1", "norm2"))
    before, epsilon = attributes["order"] == "pre", attributes["epsilon"]

    def linear(
        name: str, of: ir.Value, residual: ir.Value | None = None, after: Sequence[ir.Value | None] = (), act: str = ""
    ) -> ir.Value:
        parts = (layer[f"{name}_{part}"] for part in PARTS)
        chosen = {"activation": act} | ({"epsilon": epsilon} if after else {})
        return call(op, "Linear", [of, *parts, residual, *after], chosen)

    heads = {name: attributes[name] for name in ("num_heads", "scale", "precision")}
    merged = linear("qkv", norm(op, x, *first, epsilon) if before else x)
    mixed = call(op, "Attention", [merged, None, None, bounds, bias], heads)
    x = linear("out", mixed, x, () if before else first)
    wide = linear("up", norm(op, x, *second, epsilon) if before else x, act=attributes["activation"])
    return linear("down", wide, x, () if before else second)


BODIES: Mapping[str, Callable[[Op, Sequence[ir.Value | None], Mapping[str, Any]], ir.Value]] = {
    "Linear": _linear,
    "Attention": _attention,
    "Encoder": _encoder,
}
