"""Bring any exporter's graph to one spelling, so that a fusion needs one pattern.

In order: structure (functions inlined, constants lifted, Identity and Dropout gone), one opset, ONNX Runtime's fused
operators taken apart, constants folded, then the rules of the modules below, in the order of ``RULES``, until none fires.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxfuse.normalize import (
    arithmetic,
    batch_merge,
    batch_swap,
    contrib,
    einsum,
    folding,
    indices,
    linear,
    masks,
    projections,
    scale,
    shapes,
    softmax,
    structure,
)
from onnxfuse.rewrite import Analysis, Prover, Rule, Trace, rewrite
from onnxfuse.runtime.sessions import compute, infer

RULES: tuple[Rule, ...] = (
    *shapes.RULES,
    *batch_swap.RULES,
    *batch_merge.RULES,
    *indices.RULES,
    *masks.RULES,
    *softmax.RULES,
    *scale.RULES,
    *arithmetic.RULES,
    *linear.RULES,
    *projections.RULES,
    *einsum.RULES,
)


def normalize(
    model: ir.Model, trace: Trace, *, opset: int, rules: tuple[Rule, ...] = RULES, prove: bool = False, dropout: bool = False
) -> Analysis:
    """Bring ``model`` to normal form, in place.

    Args:
        trace: receives every rewrite.
        opset: the opset to work in; the graph's own when that is higher.
        rules: the normal-form rules to use, in order.
        prove: whether to prove each rewrite before it is made.
        dropout: whether to leave Dropout nodes where they are.

    Returns:
        Analysis of the normalized graph.

    Raises:
        ModelError: the graph cannot be brought to ``opset``.
    """
    structure.simplify(model, dropout=dropout)
    structure.convert(model, opset)
    analysis = Analysis(model.opset_imports, infer)
    contrib.take_apart(model, analysis)
    analysis.scan(model.graph)
    prover = Prover(analysis, compute) if prove else None
    changed = True
    while changed:  # some rules ask that a value be read once, which merging brings about
        while folding.fold(model, analysis, trace) + rewrite(model, rules, analysis, trace, prover):
            pass
        changed = structure.merge_duplicates(model)
    return analysis
