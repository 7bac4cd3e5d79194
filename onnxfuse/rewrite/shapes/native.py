"""Shape functions of the operators of our own library, which computes token by token: leading dimensions stay."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxfuse.rewrite.analysis import Analysis, Dim, ValueInfo
from onnxfuse.rewrite.shapes import shape_function

DOMAIN = "com.onnxfuse"
"""Of our own operators."""


@shape_function("Linear", domain=DOMAIN)
def _linear(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    x, weight = (analysis[value] for value in node.inputs[:2])
    if x.shape is None or weight.shape is None:
        return ValueInfo(x.dtype)
    return ValueInfo(x.dtype, (*x.shape[:-1], weight.shape[-1]))


@shape_function("Attention", domain=DOMAIN)
def _attention(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    q = analysis[node.inputs[0]]
    values = node.inputs[2] if len(node.inputs) > 2 else None
    if q.shape is None:
        return ValueInfo(q.dtype)
    width = q.shape[-1].divide(Dim(3)) if values is None else (analysis[values].shape or (None,))[-1]
    return ValueInfo(q.dtype, (*q.shape[:-1], analysis.size() if width is None else width))


@shape_function("Encoder", domain=DOMAIN)
def _encoder(analysis: Analysis, node: ir.Node, output: int) -> ValueInfo:
    x = analysis[node.inputs[0]]
    return replace(ValueInfo(x.dtype), shape=x.shape)


BOUNDS = {"Attention": 3, "Encoder": 1}
"""The input that holds where sequences begin, [B+1] from 0 to the number of tokens, by operator."""


def tokens_between(value: ir.Value | None) -> ir.Value | None:
    """What a value holds the bounds of, [...,D] of so many tokens; None where no operator reads it so."""
    for node, at in () if value is None else value.uses():
        if node.domain == DOMAIN and BOUNDS.get(node.op_type) == at:
            keys = node.inputs[1] if node.op_type == "Attention" else None
            return keys or node.inputs[0]
    return None
