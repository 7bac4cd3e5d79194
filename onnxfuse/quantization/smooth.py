"""SmoothQuant: outliers of activations move into the weights, where each output channel has a scale of its own.

    x @ W  =  (x / s) @ (s * W)          s [K] > 0

is exact in real numbers and changes what 8 bits lose: one channel of x that is fifty times as large as the others sets the step
for all. Where linear layers alone read a LayerNormalization, 1/s goes into the norm's scale and bias and costs nothing; where
they alone read attention, into the columns that make its values (``value_columns``); elsewhere it is one multiplication.

s_j = max|x_j| ** alpha. ``auto`` takes for each linear layer the alpha whose predicted error is lowest: x rounded in steps of its
range / 255 against every row of W, and W rounded in steps of its columns' largest / levels against every channel of x. Ranges and
s come from different halves of the calibration batches, so that a channel that was quiet by chance is not trusted.

Source: Xiao et al., SmoothQuant, 2023 (without its weight term: a second exponent, searched as well, was nearly always 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxfuse.quantization.calibration import Activations
from onnxfuse.quantization.linears import Linear
from onnxfuse.quantization.value_columns import value_columns
from onnxfuse.rewrite import Op

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

WORTH = 0.5
"""A multiplication is added where it predicts at most this part of the error; a free one wherever it predicts less."""

QUIET = 0.01
"""A channel counts as at least this part of the median channel."""


class Smoothing(NamedTuple):
    """What an input was divided by: s [K] = max|x| ** alpha, with a median of one."""

    alpha: float
    scale: np.ndarray


def smooth(
    graph: ir.Graph,
    linears: list[Linear],
    seen: Mapping[str, Activations],
    *,
    levels: int,
    compensated: bool,
    alpha: float | None,
) -> dict[str, Smoothing]:
    """Rescale the inputs of linear layers in place. The function stays the same; only rounding differs.

    Args:
        seen: what calibration saw of the linear layers' inputs, by name.
        levels: the largest int8 value of a weight.
        compensated: weights will be rounded by GPTQ, which leaves about a quarter of the error.
        alpha: 0 to 1 for all; None chooses for each.

    Returns:
        For each linear layer that changed, by name, what its input was divided by.
    """
    changed: dict[str, Smoothing] = {}
    for value, group in _by_input(linears).items():
        activations = seen.get(value.name or "")
        if activations is None or any(linear.shared for linear in group):
            continue
        weight = np.concatenate([linear.matrix() for linear in group], axis=1)
        norm, columns = _private_norm(value, group), value_columns(value, group, linears)
        free = norm is not None or columns is not None
        before, after, chosen = choose(weight, activations, levels, 0.25 if compensated else 1.0, alpha)
        if alpha is None and after > before * (1.0 if free else WORTH):
            continue
        scale = scale_of(activations.largest, chosen)
        for linear in group:
            _scale_weight(graph, linear, scale)
        if norm is not None:
            _scale_norm(graph, norm, scale)
        elif columns is not None:
            columns.divide(graph, scale)
        else:
            _insert_division(graph, value, group, scale)
        changed |= {linear.name: Smoothing(chosen, scale) for linear in group}
    return changed


def scale_of(largest: np.ndarray, alpha: float) -> np.ndarray:
    """s [K], float32, with a median of one."""
    floor = max(float(np.median(largest)) * QUIET, 1e-20)
    scale = np.maximum(largest.astype(np.float64), floor) ** alpha
    return (scale / np.median(scale)).astype(np.float32)


def choose(
    weight: np.ndarray, seen: Activations, levels: int, rounding: float, alpha: float | None
) -> tuple[float, float, float]:
    """(error without, error with, alpha): predicted mean squares of a layer's error, for the best alpha or the given one."""
    candidates = ALPHAS if alpha is None else (alpha,)
    errors = {candidate: predicted(weight, seen, levels, rounding, candidate) for candidate in (0.0, *candidates)}
    best = min(candidates, key=errors.__getitem__)
    return errors[0.0], errors[best], best


def predicted(weight: np.ndarray, seen: Activations, levels: int, rounding: float, alpha: float) -> float:
    """The mean square of what rounding adds to each row of x @ weight, for s of one half of the batches and ranges of the other.

    Rounding in steps of d adds d**2 / 12; ``rounding`` is the part of the weights' error that is left.
    """
    halves = np.arange(len(seen.batch_low)) % 2
    absolute, rows = np.abs(weight), (weight.astype(np.float64) ** 2).sum(axis=1)
    total = 0.0
    for half in (0, 1) if len(halves) > 1 else (0,):
        known, other = halves != half, halves == half
        known = known if known.any() else other
        scale = scale_of(np.maximum(-seen.batch_low[known], seen.batch_high[known]).max(axis=0), alpha).astype(np.float64)
        low, high = (seen.batch_low[other] / scale).min(axis=1), (seen.batch_high[other] / scale).max(axis=1)
        step = (high.clip(min=0) - low.clip(max=0)) / 255
        columns = (absolute * scale[:, None].astype(np.float32)).max(axis=0).astype(np.float64) / levels
        total += (step**2).mean() * (scale**2 * rows).sum() / 12
        total += rounding * (columns**2).sum() * (seen.square / scale**2).sum() / 12
    return total


def _by_input(linears: list[Linear]) -> dict[ir.Value, list[Linear]]:
    groups: dict[ir.Value, list[Linear]] = {}
    for linear in linears:
        groups.setdefault(linear.input, []).append(linear)
    return groups


def _private_norm(value: ir.Value, group: list[Linear]) -> ir.Node | None:
    """The LayerNormalization that computes ``value``, when these linear layers alone read it."""
    node = value.producer()
    if node is None or node.op_type != "LayerNormalization" or value.is_graph_output() or len(node.inputs) < 3:
        return None
    readers = {user for user, _ in value.uses()}
    constants = all(part is not None and part.const_value is not None and not part.is_graph_input() for part in node.inputs[1:3])
    return node if constants and readers == {linear.node for linear in group} else None


def _scale_weight(graph: ir.Graph, linear: Linear, scale: np.ndarray) -> None:
    """s * W in the stored order; the stored matrix keeps its place, so that ``linear`` stays true."""
    weight = linear.matrix() * scale[:, None]
    stored = np.ascontiguousarray(weight.T if linear.swapped else weight)
    linear.weight.const_value = ir.tensor(stored, name=linear.weight.name)


def _scale_norm(graph: ir.Graph, node: ir.Node, scale: np.ndarray) -> None:
    for at in (1, 2):
        part = node.inputs[at]
        assert part is not None and part.const_value is not None
        smoothed = Op(graph, part.name or "norm").constant(part.const_value.numpy() / scale, "smoothed")
        graph.register_initializer(smoothed)
        node.replace_input_with(at, smoothed)


def _insert_division(graph: ir.Graph, value: ir.Value, group: list[Linear], scale: np.ndarray) -> None:
    op = Op(graph, value.name or "smooth")
    factor = op.constant((1 / scale).astype(np.float32), "smoothing")
    graph.register_initializer(factor)
    smoothed = op.Mul(value, factor)
    graph.insert_before(group[0].node, op.nodes)
    smoothed.type = value.type
    for linear in group:
        linear.node.replace_input_with(0, smoothed)
