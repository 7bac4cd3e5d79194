"""The parts of ONNX Runtime's attention: projections, heads, masks as one additive bias, softmax, the way back.

Computes:  y = merge(softmax(scale * split(q) @ split(k)^T + bias) @ split(v)). ``bias`` is ``mask_filter_value`` at masked keys,
           the lowest number at those behind the query where ``unidirectional`` is set, and the sum of such.
Shapes:    x [B,S,D], q [B,S,N*H], k and v [B,T,N*H] or [B,N,T,H]; masks are int32: [B,T], [B,S,T], lengths [B], or [2*B]: where
           rows end, then where they start.
Refuses:   a past, a present that is read, packed heads (ONNX Runtime has no CPU kernel for them either), other masks.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import onnx_ir as ir

from onnxfuse.normalize.contrib_site import Parts, Site, Stays
from onnxfuse.rewrite.analysis import ONE, Dim

FILTER = -10000.0
"""The default of ``mask_filter_value``."""


def attention(
    site: Site,
    x: ir.Value,
    weights: ir.Value,
    bias: ir.Value | None = None,
    mask_index: ir.Value | None = None,
    past: ir.Value | None = None,
    attention_bias: ir.Value | None = None,
    past_sequence_length: ir.Value | None = None,
    *,
    num_heads: int,
    unidirectional: int = 0,
    mask_filter_value: float = FILTER,
    scale: float = 0.0,
    qkv_hidden_sizes: list[int] | None = None,
    do_rotary: int = 0,
    rotary_embedding_dim: int = 0,
    past_present_share_buffer: int = 0,
) -> dict[int, ir.Value]:
    """Outputs: y, the present."""
    if past is not None or past_sequence_length is not None or past_present_share_buffer:
        raise Stays("it has a past, as in a decoder")
    if do_rotary or rotary_embedding_dim:
        raise Stays("it turns queries and keys by their positions (do_rotary)")
    op = site.op
    site.shape(x, "x", 3)
    widths = qkv_hidden_sizes or [site.width(weights, "weights", 2) // 3] * 3
    product = op.MatMul(x, weights)
    product = product if bias is None else op.Add(product, bias)
    q, k, v = op.many("Split", 3, product, op.constant(widths, "widths"), axis=-1)
    added = [_bias(site, mask_index, "mask_index", x, x, mask_filter_value), attention_bias]
    added += [_causal(site, x)] if unidirectional else []
    return {
        0: _attend(
            site,
            _heads(site, q, num_heads, widths[0]),
            _keys(site, k, num_heads, widths[1]),
            _heads(site, v, num_heads, widths[2]),
            scale or 1 / math.sqrt(widths[0] // num_heads),
            added,
            widths[2],
        )
    }


def multi_head_attention(
    site: Site,
    query: ir.Value,
    key: ir.Value | None = None,
    value: ir.Value | None = None,
    bias: ir.Value | None = None,
    key_padding_mask: ir.Value | None = None,
    attention_bias: ir.Value | None = None,
    past_key: ir.Value | None = None,
    past_value: ir.Value | None = None,
    past_sequence_length: ir.Value | None = None,
    cache_indirection: ir.Value | None = None,
    *,
    num_heads: int,
    unidirectional: int = 0,
    mask_filter_value: float = FILTER,
    scale: float = 0.0,
) -> dict[int, ir.Value]:
    """Outputs: y, the present key, the present value, the scores."""
    if any(state is not None for state in (past_key, past_value, past_sequence_length, cache_indirection)):
        raise Stays("it has a past, as in a decoder")
    if key is None or value is None:
        raise Stays("query, key and value are packed in one input, which ONNX Runtime's own CPU kernel does not take either")
    width, length = site.width(query, "query", 3), site.shape(query, "query", 3)[1]
    keys = site.shape(key, "key", 3, 4)
    split = len(keys) == 4
    v_width = site.width(value, "value", len(keys)) * (num_heads if split else 1)
    if unidirectional and keys[-2] != length:
        raise Stays(f"it is unidirectional over {keys[-2]} keys for {length} queries")
    if bias is not None:  # of all three, also where key and value have theirs already
        query = site.op.Add(query, _part(site, bias, 0, width))
        key = key if split else site.op.Add(key, _part(site, bias, width, 2 * width))
        value = value if split else site.op.Add(value, _part(site, bias, 2 * width, 2 * width + v_width))
    added = [_bias(site, key_padding_mask, "key_padding_mask", query, key, mask_filter_value), attention_bias]
    added += [_causal(site, query)] if unidirectional else []
    turned = site.op.Transpose(key, perm=[0, 1, 3, 2]) if split else _keys(site, key, num_heads, width)
    values = value if split else _heads(site, value, num_heads, v_width)
    return {
        0: _attend(
            site,
            _heads(site, query, num_heads, width),
            turned,
            values,
            scale or 1 / math.sqrt(width // num_heads),
            added,
            v_width,
        )
    }


def _part(site: Site, bias: ir.Value, start: int, end: int) -> ir.Value:
    return site.op.Slice(bias, site.op.constant([start], "start"), site.op.constant([end], "end"))


def _heads(site: Site, x: ir.Value, heads: int, width: int, perm: tuple[int, ...] = (0, 2, 1, 3)) -> ir.Value:
    if width % heads:
        raise Stays(f"{heads} heads do not divide the width {width}")
    return site.op.Transpose(site.op.Reshape(x, site.op.constant([0, 0, heads, width // heads], "heads")), perm=list(perm))


def _keys(site: Site, x: ir.Value, heads: int, width: int) -> ir.Value:
    return _heads(site, x, heads, width, (0, 2, 3, 1))


def _attend(
    site: Site, q: ir.Value, k: ir.Value, v: ir.Value, scale: float, added: list[ir.Value | None], width: int
) -> ir.Value:
    """From the heads [B,N,S,H], [B,N,H,T], [B,N,T,H'] to [B,S,``width``]."""
    op = site.op
    scores = op.MatMul(q, k)
    scores = op.Mul(scores, site.number(scale, site.node.inputs[0], "scale"))
    biases = [bias for bias in added if bias is not None]
    scores = op.Add(scores, reduce(op.Add, biases)) if biases else scores
    context = op.Transpose(op.MatMul(op.Softmax(scores, axis=-1), v), perm=[0, 2, 1, 3])
    return op.Reshape(context, op.constant([0, 0, width], "merge"))


def _bias(site: Site, mask: ir.Value | None, name: str, query: ir.Value, key: ir.Value, closed: float) -> ir.Value | None:
    """0 where a key may be seen, ``closed`` where not: [B,1,1,T] or [B,1,S,T]. None where all keys are seen, or none."""
    if mask is None:
        return None
    op, shape = site.op, site.shape(mask, name, 1, 2, 3)
    if len(shape) == 2 and shape[1] == ONE:
        return None
    nothing = op.constant(np.array(0, dtype=np.int32), "nothing")
    keep = _within(site, mask, name, key) if len(shape) == 1 else op.Greater(mask, nothing)
    keep = op.Unsqueeze(keep, op.constant([1] if len(shape) == 3 else [1, 2], "lead"))
    return op.Where(keep, site.number(0.0, query, "open"), site.number(closed, query, "closed"))


def _within(site: Site, mask: ir.Value, name: str, key: ir.Value) -> ir.Value:
    """Whether a key stands before its row's end, and not before its start: [B,T]."""
    op, count, batch = site.op, site.shape(mask, name, 1)[0], site.shape(key, "key")[0]
    columns = _columns(site, key, "key")
    column = op.constant([-1, 1], "column")
    if count == batch:
        return op.Less(columns, op.Reshape(op.Cast(mask, to=ir.DataType.INT64), column))
    if count != Dim(2) * batch:
        raise Stays(f"its input {name!r} has size {count}, wanted {batch} (lengths) or {Dim(2) * batch} (ends and starts)")
    halves = op.Reshape(op.Cast(mask, to=ir.DataType.INT64), op.constant([2, -1, 1], "halves"))
    ends, starts = (op.Gather(halves, op.constant(np.array(at), part), axis=0) for at, part in enumerate(("ends", "starts")))
    return op.And(op.Less(columns, ends), op.GreaterOrEqual(columns, starts))


def _causal(site: Site, query: ir.Value) -> ir.Value:
    """0 where a key does not stand behind the query, the lowest number where it does: [S,S]."""
    op, columns = site.op, _columns(site, query, "query")
    keep = op.LessOrEqual(columns, op.Reshape(columns, op.constant([-1, 1], "rows")))
    return op.Where(keep, site.number(0.0, query, "open"), site.number(-math.inf, query, "behind"))


def _columns(site: Site, source: ir.Value, name: str) -> ir.Value:
    """0, 1, 2, ... over the second-last dimension."""
    op = site.op
    return op.Range(op.constant(np.array(0), "first"), op.Squeeze(site.size(source, name, -2)), op.constant(np.array(1), "step"))


PARTS: dict[str, Parts] = {"Attention": attention, "MultiHeadAttention": multi_head_attention}
