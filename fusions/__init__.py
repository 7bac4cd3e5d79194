"""The library of fusions: the ordered list of rules, and for each target the forms they end in.

``FUSIONS`` bring a graph in normal form to standard operators, one for each thing an encoder does; ``FORMS`` then spell a
thing as the target runs it fastest. The order matters once: merged QKV reads what attention wrote. ``unpad`` is a step of its
own, not a rule: it changes what stands at padded positions, for the whole graph at once.
"""

from __future__ import annotations

from onnxfuse.fusions import attention, embeddings, gelu, layer_norm, lowering, pooled_token, qkv, residual
from onnxfuse.rewrite import Rule

FUSIONS: tuple[Rule, ...] = (
    *layer_norm.RULES,
    *gelu.RULES,
    *attention.RULES,
    *qkv.RULES,  # after attention: it matches the Attention operator
    *embeddings.RULES,
)

WHOLE_GRAPH: tuple[Rule, ...] = pooled_token.RULES
"""Rules that move work across layers; each pass is followed by merging duplicates, which lets the next one fire."""

FORMS: dict[str, dict[str, tuple[Rule, ...]]] = {
    "attention": {"Attention": (), "decomposed": lowering.DECOMPOSED, "MultiHeadAttention": lowering.MULTI_HEAD},
    "gelu": {"Gelu": (), "elementwise": lowering.ELEMENTWISE_GELU, "BiasGelu": lowering.BIAS_GELU},
    "linear": {"MatMul": (), "Gemm": lowering.BIAS_IN_LINEAR},
    "residual": {"Add": (), "Sum": residual.SUM, "SkipLayerNormalization": residual.SKIP},
}
"""For each thing, the rules that bring it from the normal form to each form a target may prefer."""

BELOW: dict[int, tuple[Rule, ...]] = {20: lowering.ELEMENTWISE_GELU, 23: lowering.DECOMPOSED}
"""By the opset that brought an operator of the normal form: how it is spelled in a model below, whatever the target prefers."""

__all__ = ["BELOW", "FORMS", "FUSIONS", "WHOLE_GRAPH"]
