"""LayerNormalization: mean, variance, division, gain and bias become one operator.

Seen in:   torch.onnx.export below opset 17, TensorFlow, hand-written graphs.
Computes:  y = (x - mean(x)) / sqrt(mean((x - mean(x))**2) + epsilon) * gain + bias, over the last dimension;
           in normal form squares are products, and reciprocals divisions. The axes are an input from opset 18 on, an
           attribute before.
Shapes:    x [..., D], gain and bias [D] or [1, ..., D], y as x. Where there is no gain it is one, where no bias zero.
Numerics:  rounding only (tolerance row "reassociate").
Refuses:   other axes, keepdims=0, an exponent other than 2, an epsilon that is not a positive constant, a gain or bias
           that is not [D], a mean or variance read elsewhere; without gain or bias also where one follows.
Source:    ONNX operator LayerNormalization, opset 17.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Fusion, Learned, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE, Shape
from onnxfuse.rewrite.shapes.axes import axes_of


def parts(
    op: Pattern, x: Var, epsilon: Var, listed: Var, listed2: Var, axes: Var | None, axes2: Var | None
) -> tuple[Term, Term, Term]:
    """The mean, the centred x and the standard deviation."""
    mean = op.ReduceMean(x, axes, axes=listed)
    d = op.Sub(x, mean)
    return mean, d, op.Sqrt(op.Add(op.ReduceMean(op.Mul(d, d), axes2, axes=listed2), epsilon))


def division_first(
    op: Pattern,
    x: Var,
    epsilon: Var,
    gain: Var,
    bias: Var,
    listed: Var,
    listed2: Var,
    axes: Var | None = None,
    axes2: Var | None = None,
) -> Term:
    _, d, deviation = parts(op, x, epsilon, listed, listed2, axes, axes2)
    return op.Add(op.Mul(op.Div(d, deviation), gain), bias)


def gain_first(
    op: Pattern,
    x: Var,
    epsilon: Var,
    gain: Var,
    bias: Var,
    listed: Var,
    listed2: Var,
    axes: Var | None = None,
    axes2: Var | None = None,
) -> Term:
    _, d, deviation = parts(op, x, epsilon, listed, listed2, axes, axes2)
    return op.Add(op.Mul(d, op.Div(gain, deviation)), bias)


def mean_in_bias(
    op: Pattern,
    x: Var,
    epsilon: Var,
    gain: Var,
    bias: Var,
    listed: Var,
    listed2: Var,
    axes: Var | None = None,
    axes2: Var | None = None,
) -> Term:
    mean, _, deviation = parts(op, x, epsilon, listed, listed2, axes, axes2)
    factor = op.Div(gain, deviation)
    return op.Add(op.Mul(x, factor), op.Sub(bias, op.Mul(mean, factor)))


def mean_apart(
    op: Pattern, x: Var, epsilon: Var, gain: Var, listed: Var, listed2: Var, axes: Var | None = None, axes2: Var | None = None
) -> Term:
    mean, _, deviation = parts(op, x, epsilon, listed, listed2, axes, axes2)
    factor = op.Div(gain, deviation)
    return op.Sub(op.Mul(x, factor), op.Mul(mean, factor))


def division_without_bias(
    op: Pattern, x: Var, epsilon: Var, gain: Var, listed: Var, listed2: Var, axes: Var | None = None, axes2: Var | None = None
) -> Term:
    _, d, deviation = parts(op, x, epsilon, listed, listed2, axes, axes2)
    return op.Mul(op.Div(d, deviation), gain)


def gain_without_bias(
    op: Pattern, x: Var, epsilon: Var, gain: Var, listed: Var, listed2: Var, axes: Var | None = None, axes2: Var | None = None
) -> Term:
    _, d, deviation = parts(op, x, epsilon, listed, listed2, axes, axes2)
    return op.Mul(d, op.Div(gain, deviation))


def without_gain(
    op: Pattern, x: Var, epsilon: Var, bias: Var, listed: Var, listed2: Var, axes: Var | None = None, axes2: Var | None = None
) -> Term:
    _, d, deviation = parts(op, x, epsilon, listed, listed2, axes, axes2)
    return op.Add(op.Div(d, deviation), bias)


def bare(op: Pattern, x: Var, epsilon: Var, listed: Var, listed2: Var, axes: Var | None = None, axes2: Var | None = None) -> Term:
    _, d, deviation = parts(op, x, epsilon, listed, listed2, axes, axes2)
    return op.Div(d, deviation)


def guard(match: Match) -> Learned:
    shape = match.need_shape("x")
    for node in match.nodes:
        if node.op_type == "ReduceMean":
            axes = axes_of(match.analysis, node)
            match.need(axes in ([-1], [len(shape) - 1]), f"the axes are {axes}, wanted the last dimension", node.outputs[0])
    vectors = [name for name in ("gain", "bias") if name in match.bindings]
    for name in vectors:
        match.need(_is_vector(match.need_shape(name), shape), f"{name} is not [{shape[-1]}]", match[name])
    epsilon = match.scalar("epsilon")
    match.need(epsilon > 0, f"epsilon is {epsilon}, wanted above zero", match["epsilon"])
    dtype = match.info("epsilon").dtype
    width = match.need_number(shape[-1], "the width")
    wide = {name for name in vectors if len(match.need_shape(name)) > 1}
    return {"learned_epsilon": epsilon, "width": width, "wide": wide, "dtype": dtype}


def _is_vector(given: Shape | None, shape: Shape) -> bool:
    """Whether ``given`` is [D] or [1, ..., D] for a value of ``shape`` [..., D]."""
    return given is not None and given[-1:] == shape[-1:] and set(given[:-1]) <= {ONE} and len(given) <= len(shape)


def guard_unless(*followers: str) -> Callable[[Match], Learned]:
    """``guard``, which refuses too where one of those operators brings the gain or bias that the pattern has not."""

    def guard_end(match: Match) -> Learned:
        learned = guard(match)
        shape, uses = match.need_shape("x"), list(match.output.uses())
        user = uses[0].node if len(uses) == 1 and not match.output.is_graph_output() else None
        if user is not None and not user.domain and user.op_type in followers:
            (other,) = (value for value in user.inputs if value is not match.output)
            match.need(not _is_vector(match.analysis.shape(other), shape), "a gain or bias follows", match.output)
        return learned

    return guard_end


def layer_norm(
    op: Op,
    x: ir.Value,
    learned_epsilon: float,
    width: int,
    wide: set[str],
    dtype: ir.DataType,
    gain: ir.Value | None = None,
    bias: ir.Value | None = None,
    **_: Any,
) -> ir.Value:
    gain, bias = (
        op.constant(np.full(width, default, dtype=dtype.numpy()), name)
        if value is None
        else op.Reshape(value, op.constant([width], "width"))
        if name in wide
        else value
        for name, value, default in (("gain", gain, 1), ("bias", bias, 0))
    )
    return op.LayerNormalization(x, gain, bias, axis=-1, epsilon=learned_epsilon)


def keeps_axis(mean: ir.Node) -> bool:
    """Whether what was averaged can be taken from what it was averaged of, as in a norm; pooling drops the axis."""
    return mean.attributes.get_int("keepdims", 1) == 1


RULES = (
    Rule("layer-norm", division_first, guard, layer_norm),
    Rule("layer-norm", gain_first, guard, layer_norm),
    Rule("layer-norm", mean_in_bias, guard, layer_norm),  # TensorFlow's batch-norm form
    Rule("layer-norm", mean_apart, guard, layer_norm),  # the same where the bias is zero
    Rule("layer-norm", division_without_bias, guard_unless("Add"), layer_norm),
    Rule("layer-norm", gain_without_bias, guard_unless("Add"), layer_norm),
    Rule("layer-norm", without_gain, guard, layer_norm),
    Rule("layer-norm", bare, guard_unless("Add", "Mul"), layer_norm),
)
FUSION = Fusion(
    "layer_norm",
    RULES,
    operator="LayerNormalization",
    anchors=("ReduceMean",),
    leftovers=("ReduceMean",),
    left_if=keeps_axis,
)
