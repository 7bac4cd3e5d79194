"""LayerNormalization: mean, variance, division, gain and bias become one operator.

Seen in:   torch.onnx.export below opset 17, TensorFlow, hand-written graphs.
Computes:  y = (x - mean(x)) / sqrt(mean((x - mean(x))**2) + epsilon) * gain + bias, over the last dimension;
           in normal form squares are products, and reciprocals divisions.
Shapes:    x [..., D], gain and bias [D] or [1, ..., D], y as x. Where there is no bias, it is zero.
Numerics:  rounding only (tolerance row "reassociate").
Refuses:   other axes, keepdims=0, an exponent other than 2, an epsilon that is not a positive constant, a gain or bias
           that is not [D], a mean or variance read elsewhere.
Source:    ONNX operator LayerNormalization, opset 17.
"""

from __future__ import annotations

import numpy as np

from onnxfuse.rewrite import Match, Op, Rule
from onnxfuse.rewrite.facts import ONE


def parts(op, x, axes, axes2, epsilon):
    """The mean, the centred x and the standard deviation."""
    mean = op.ReduceMean(x, axes)
    d = op.Sub(x, mean)
    return mean, d, op.Sqrt(op.Add(op.ReduceMean(op.Mul(d, d), axes2), epsilon))


def division_first(op, x, axes, axes2, epsilon, gain, bias):
    _, d, deviation = parts(op, x, axes, axes2, epsilon)
    return op.Add(op.Mul(op.Div(d, deviation), gain), bias)


def gain_first(op, x, axes, axes2, epsilon, gain, bias):
    _, d, deviation = parts(op, x, axes, axes2, epsilon)
    return op.Add(op.Mul(d, op.Div(gain, deviation)), bias)


def mean_in_bias(op, x, axes, axes2, epsilon, gain, bias):
    mean, _, deviation = parts(op, x, axes, axes2, epsilon)
    factor = op.Div(gain, deviation)
    return op.Add(op.Mul(x, factor), op.Sub(bias, op.Mul(mean, factor)))


def mean_apart(op, x, axes, axes2, epsilon, gain):
    mean, _, deviation = parts(op, x, axes, axes2, epsilon)
    factor = op.Div(gain, deviation)
    return op.Sub(op.Mul(x, factor), op.Mul(mean, factor))


def guard(match: Match) -> dict:
    shape = match.need_shape("x")
    for name in ("axes", "axes2"):
        axes = match.fact(name).data
        match.need(axes is not None and len(axes) == 1 and axes[0].number in (-1, len(shape) - 1),
                   f"{name} is not the last dimension", match[name])
    vectors = [name for name in ("gain", "bias") if name in match.bindings]
    for name in vectors:
        given = match.need_shape(name)
        flat = given[-1:] == shape[-1:] and set(given[:-1]) <= {ONE} and len(given) <= len(shape)
        match.need(flat, f"{name} is not [{shape[-1]}]", match[name])
    epsilon = match.scalar("epsilon")
    match.need(epsilon > 0, f"epsilon is {epsilon}, wanted above zero", match["epsilon"])
    width = match.need_number(shape[-1], "the width")
    wide = {name for name in vectors if len(match.need_shape(name)) > 1}
    return {"learned_epsilon": epsilon, "width": width, "wide": wide, "dtype": match.facts[match["gain"]].dtype}


def layer_norm(op: Op, x, gain, learned_epsilon, width, wide, dtype, bias=None, **_):
    if bias is None:
        bias = op.constant(np.zeros(width, dtype=dtype.numpy()), "bias")
    gain, bias = (op.Reshape(value, op.constant([width], "width")) if name in wide else value
                  for name, value in (("gain", gain), ("bias", bias)))
    return op.LayerNormalization(x, gain, bias, axis=-1, epsilon=learned_epsilon)


RULES = (
    Rule("layer-norm", division_first, guard, layer_norm),
    Rule("layer-norm", gain_first, guard, layer_norm),
    Rule("layer-norm", mean_in_bias, guard, layer_norm),  # TensorFlow's batch-norm form
    Rule("layer-norm", mean_apart, guard, layer_norm),  # the same where the bias is zero
)
