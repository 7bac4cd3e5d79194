"""Proof of a pass that changes a whole graph: its outputs before and after, on small random inputs.

Sizes and contents are the Prover's. Rows hold padding and at least one token each; outputs that may differ at padding are
compared where tokens are. A graph that cannot be run so says why, and the check of the whole model remains.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import ModelError
from onnxfuse.rewrite.analysis import stored
from onnxfuse.rewrite.proof import Prover, Verdict, judge

LAYERS = 10.0
"""How many times the tolerance of one region the whole graph may be off: a rounding step of one layer goes through all others."""

WEIGHT = 1 << 14
"""Elements from which a constant of floats is a weight. What moves tokens treats all weights alike, so others stand in for them:
nothing is read from the file, and those of one shape share their memory."""

PERIOD = 65521
"""After so many numbers those of a stand-in repeat: a prime, so that no two rows are equal."""

MOST = 1024
"""Positions up to which a graph of fixed sizes is run: more would take seconds."""


@dataclass(frozen=True)
class Observed:
    """What a graph computes.

    Args:
        feeds: on what, by the values that it reads and does not make.
        outputs: in the graph's order.
        real: [B,S], where tokens are.
    """

    feeds: dict[ir.Value, np.ndarray]
    outputs: list[np.ndarray]
    real: np.ndarray


def observe(graph: ir.Graph, prover: Prover, mask: ir.Value, padding: int) -> Observed | Verdict:
    """Run a graph as it is; a Verdict says why that cannot be.

    Args:
        mask: [B,S], of the graph, which is ``padding`` where there is some.
    """
    try:
        feeds = _feeds(graph, prover, {})
        *outputs, shown = prover.outputs(list(graph), [*graph.outputs, mask], feeds)
    except (ValueError, ModelError) as reason:
        return Verdict(None, f"the graph cannot be run by itself: {reason}")
    real = shown != padding
    if not real.any(axis=-1).all() or real.all():
        return Verdict(None, "random inputs give rows without a token, or none with padding")
    return Observed(feeds, outputs, real)


def compare(graph: ir.Graph, prover: Prover, before: Observed, shown: Collection[int]) -> Verdict:
    """Whether a graph still computes what was observed before.

    Args:
        shown: numbers of the outputs that are compared at tokens alone.
    """
    try:
        got = prover.outputs(list(graph), graph.outputs, _feeds(graph, prover, before.feeds))
    except ModelError as reason:
        return Verdict(False, f"ONNX Runtime cannot run the graph afterwards: {reason}")
    verdicts = [
        judge(wanted[before.real], now[before.real], slack=LAYERS)
        if at in shown and wanted.shape == now.shape
        else judge(wanted, now, slack=LAYERS)
        for at, (wanted, now) in enumerate(zip(before.outputs, got, strict=True))
    ]
    return min(verdicts, key=lambda verdict: (False, None, True).index(verdict.proven))


def _feeds(graph: ir.Graph, prover: Prover, known: dict[ir.Value, np.ndarray]) -> dict[ir.Value, np.ndarray]:
    """Content for all that a graph reads and does not make. Raises ValueError where there is none."""
    made = {value for node in graph for value in node.outputs}
    read = dict.fromkeys(
        [*graph.inputs, *graph.outputs, *(value for node in graph for value in node.inputs if value is not None)]
    )
    outside = [value for value in read if value not in made]
    stand_in = functools.cache(_weight)  # for this call: they are as large as the weights
    feeds = {
        value: known[value] if value in known else stand_in(*_form(value)) if _is_weight(value) else prover.content(value, at)
        for at, value in enumerate(outside)
    }
    sizes = [array.shape for value, array in feeds.items() if value in set(graph.inputs)]
    if any(np.prod(shape[:2]) > MOST for shape in sizes):
        raise ValueError(f"its fixed sizes {list(max(sizes))} are more than a proof should take")
    return feeds


def _is_weight(value: ir.Value) -> bool:
    tensor = stored(value)
    return tensor is not None and tensor.size >= WEIGHT and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def _form(value: ir.Value) -> tuple[tuple[int, ...], np.dtype]:
    assert value.const_value is not None  # it is a weight
    return tuple(value.const_value.shape.numpy()), value.const_value.dtype.numpy()


def _weight(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Numbers that keep sums of products near one."""
    width = math.prod(shape[:-1]) if len(shape) > 1 else 1
    numbers = np.random.default_rng(0).standard_normal(PERIOD).astype(dtype) / np.sqrt(dtype.type(width))
    return np.resize(numbers, shape)
