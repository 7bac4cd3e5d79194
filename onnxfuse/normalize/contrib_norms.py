"""The parts of ONNX Runtime's norms: residual and bias before them, BERT's embeddings."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxfuse.normalize.contrib_site import Parts, Site, Stays
from onnxfuse.rewrite.analysis import ONE

EPSILON = float(np.float32(1e-12))
"""The default of these operators."""

RMS_OPSET = 23
"""The first opset with RMSNormalization."""


def skip_layer_normalization(
    site: Site,
    x: ir.Value,
    skip: ir.Value,
    gain: ir.Value,
    beta: ir.Value | None = None,
    bias: ir.Value | None = None,
    *,
    epsilon: float = EPSILON,
) -> dict[int, ir.Value]:
    """Outputs: y, mean, inverse deviation, the sum."""
    total = _sum(site, x, skip, bias)
    return {0: _norm(site, total, gain, beta, epsilon), 3: total}


def skip_simplified_layer_normalization(
    site: Site, x: ir.Value, skip: ir.Value, gain: ir.Value, bias: ir.Value | None = None, *, epsilon: float = EPSILON
) -> dict[int, ir.Value]:
    """y = z / sqrt(mean(z**2) + epsilon) * gain of the sum z; the same outputs."""
    op, total = site.op, _sum(site, x, skip, bias)
    if site.analysis.opset >= RMS_OPSET:
        return {0: op.RMSNormalization(total, gain, axis=-1, epsilon=epsilon), 3: total}
    last = op.constant([-1], "last")
    square = op.Mul(total, total)
    mean = op.ReduceMean(square, axes=[-1]) if site.analysis.opset < 18 else op.ReduceMean(square, last)
    deviation = op.Sqrt(op.Add(mean, site.number(epsilon, x, "epsilon")))
    return {0: op.Mul(op.Div(total, deviation), gain), 3: total}


def _sum(site: Site, x: ir.Value, skip: ir.Value, bias: ir.Value | None) -> ir.Value:
    """x + skip + bias, in the shape of x."""
    op, sizes, added = site.op, site.analysis.shape(x), site.analysis.shape(skip)
    if sizes is not None and added is not None:
        wider = len(added) > len(sizes) or any(size == ONE != more for size, more in zip(sizes[::-1], added[::-1], strict=False))
        if wider:
            raise Stays("its input 'skip' is wider than x")
    if bias is not None:  # it belongs to the linear layer
        maker = skip.producer()
        x, skip = (skip, x) if maker is not None and maker.op_type == "MatMul" else (x, skip)
        x = op.Add(x, bias)
    return op.Add(x, skip)


def _norm(site: Site, x: ir.Value, gain: ir.Value, bias: ir.Value | None, epsilon: float) -> ir.Value:
    return site.op.LayerNormalization(x, gain, bias, axis=-1, epsilon=epsilon)


def embed_layer_normalization(
    site: Site,
    ids: ir.Value,
    segment_ids: ir.Value | None,
    words: ir.Value,
    places: ir.Value,
    segments: ir.Value | None,
    gain: ir.Value,
    bias: ir.Value,
    mask: ir.Value | None = None,
    position_ids: ir.Value | None = None,
    *,
    epsilon: float = EPSILON,
    mask_index_type: int | None = None,
) -> dict[int, ir.Value]:
    """Outputs: y, the number of ones in each row of the mask, the sum.

    ``mask_index_type`` tells ONNX Runtime's shape inference alone.
    """
    op = site.op
    if position_ids is not None:
        positions = op.Gather(places, position_ids)
    else:
        length = op.Shape(ids, start=1, end=2)
        positions = op.Slice(places, op.constant([0], "start"), length, op.constant([0], "axis"))
    total = op.Add(op.Gather(words, ids), positions)
    if segment_ids is not None:
        if segments is None:
            raise Stays("it has segment ids, but no input 'segments'")
        total = op.Add(total, op.Gather(segments, segment_ids))
    made = {0: _norm(site, total, gain, bias, epsilon), 2: total}
    if site.read(1):
        made[1] = _ones(site, ids, mask)
    return made


def _ones(site: Site, ids: ir.Value, mask: ir.Value | None) -> ir.Value:
    """How many ones each row of the mask has, none without a mask: int32 [B]."""
    op = site.op
    if mask is None:
        return op.ConstantOfShape(op.Shape(ids, start=0, end=1), value=ir.tensor(np.zeros(1, dtype=np.int32)))
    ones = op.Cast(op.Equal(mask, op.constant(np.array(1, dtype=np.int32), "one")), to=ir.DataType.INT32)
    return op.ReduceSum(ones, op.constant([1], "axis"), keepdims=0)


PARTS: dict[str, Parts] = {
    "SkipLayerNormalization": skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": skip_simplified_layer_normalization,
    "EmbedLayerNormalization": embed_layer_normalization,
}
