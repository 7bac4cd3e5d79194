"""Merged QKV: the three projections of one input become one matrix product and a split.

Seen in:   every encoder; after the attention fusion.
Computes:  q, k, v = split(x @ [Wq | Wk | Wv] + [bq | bk | bv])
Shapes:    x [B,S,D], each W [D, D'], each b [D'], q, k, v [B,S,D'].
Numerics:  rounding only (tolerance row "reassociate"): a wider product may sum in another order.
Refuses:   different inputs, a weight or bias that is not a constant, a weight that is read elsewhere; layers that
           share their weights share the merged one. A projection without a bias gets zeros.
Source:    the sum of products is the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Alone, Fusion, Learned, Match, Op, Pattern, Rule, Term, Var

NAMES = ("q", "k", "v")


def projections(biased: frozenset[str]) -> Callable[..., Term]:
    """The pattern with a bias on those of q, k and v."""

    def before(
        op: Pattern,
        x: Var,
        wq: Var,
        wk: Var,
        wv: Var,
        bq: Var,
        bk: Var,
        bv: Var,
        n: Var,
        n_kv: Var,
        scale: Var,
        mask: Var | None = None,
    ) -> Term:
        weights, biases = {"q": wq, "k": wk, "v": wv}, {"q": bq, "k": bk, "v": bv}
        products = {name: op.MatMul(x, weights[name]) for name in NAMES}
        q, k, v = (op.Add(products[name], biases[name]) if name in biased else products[name] for name in NAMES)
        return op.Attention(q, k, v, mask, q_num_heads=n, kv_num_heads=n_kv, scale=scale)

    return before


def packed(
    op: Pattern,
    x: Var,
    weight: Var,
    sizes: Var,
    axis: Var,
    bq: Var,
    bk: Var,
    bv: Var,
    n: Var,
    n_kv: Var,
    scale: Var,
    mask: Var | None = None,
) -> Term:
    parts = (op.MatMul(x, weight), sizes)
    q, k, v = (op.Add(op.Split(*parts, axis=axis, _output=at), bias) for at, bias in enumerate((bq, bk, bv)))
    return op.Attention(q, k, v, mask, q_num_heads=n, kv_num_heads=n_kv, scale=scale)


def guard_packed(match: Match) -> Learned:
    match.need(match["axis"] in (-1, 2), "the split is over another dimension", match.output)
    sizes = match.info("sizes").data or ()
    widths = [match.need_number(size, "the width of a part") for size in sizes]
    match.need(len(widths) == len(NAMES), f"the split has {len(widths)} parts, wanted 3", match["sizes"])
    match.need(sum(widths) == match.need_shape(match.need_constant("weight"), rank=2)[1].number, "the widths do not add up")
    for name, width in zip(NAMES, sizes, strict=True):
        match.need(match.need_shape(match.need_constant(f"b{name}")) == (width,), f"b{name} is not [{width}]", match[f"b{name}"])
    return {"widths": widths}


def bias_before_split(
    op: Op, x: ir.Value, weight: ir.Value, bq: ir.Value, bk: ir.Value, bv: ir.Value, widths: list[int], **attributes: Any
) -> ir.Value:
    product = op.Add(op.MatMul(x, weight), op.constant(joined([bq, bk, bv]), "bias"))
    return attend(op, product, widths, **attributes)


def guard(match: Match) -> Learned:
    widths = []
    for name in NAMES:
        weight = match.need_constant(f"w{name}")
        readers = _readers(weight)
        match.need(readers and readers == _readers(match["wq"]), f"w{name} is read elsewhere", weight)
        _, columns = match.need_shape(f"w{name}", rank=2)
        widths.append(match.need_number(columns, f"the width of w{name}"))
        if f"b{name}" in match.bindings:
            match.need(match.need_shape(match.need_constant(f"b{name}")) == (columns,), f"b{name} is not [{columns}]")
    return {"widths": widths}


def _readers(weight: ir.Value) -> set[ir.Value | None]:
    """What a weight is multiplied with, once in each layer that has it; nothing where it is read otherwise."""
    whole = all(node.op_type == "MatMul" and not node.domain and at == 1 for node, at in weight.uses())
    return {node.inputs[0] for node, _ in weight.uses()} if whole and not weight.is_graph_output() else set()


JOINED: WeakValueDictionary[tuple[int, ...], ir.LazyTensor] = WeakValueDictionary()
"""Joined constants by the identity of their parts, which they hold: layers that share weights share the joined ones."""


def joined(values: list[ir.Value]) -> ir.LazyTensor:
    """Constants side by side along their last dimension, read from the file when needed."""
    tensors: list[ir.TensorProtocol] = [value.const_value for value in values]  # type: ignore[misc]
    key = tuple(map(id, tensors))
    if (known := JOINED.get(key)) is not None:
        return known
    *lead, _ = tensors[0].shape.numpy()
    width = sum(tensor.shape.numpy()[-1] for tensor in tensors)
    JOINED[key] = made = ir.LazyTensor(
        lambda: ir.tensor(np.concatenate([tensor.numpy() for tensor in tensors], axis=-1)),
        tensors[0].dtype,
        ir.Shape([*lead, width]),
    )
    return made


def attention(
    op: Op,
    x: ir.Value,
    wq: ir.Value,
    wk: ir.Value,
    wv: ir.Value,
    n: int,
    n_kv: int,
    scale: float | None,
    mask: ir.Value | None,
    widths: list[int],
    **biases: ir.Value,
) -> ir.Value:
    weight = joined([wq, wk, wv])
    product = op.MatMul(x, op.constant(weight, "weight"))
    if biases:
        given = [
            biases.get(f"b{name}") or op.constant(np.zeros(width, dtype=weight.dtype.numpy()), f"no-b{name}")
            for name, width in zip(NAMES, widths, strict=True)
        ]
        product = op.Add(product, op.constant(joined(given), "bias"))
    return attend(op, product, widths, n, n_kv, scale, mask)


def attend(
    op: Op, product: ir.Value, widths: list[int], n: int, n_kv: int, scale: float | None, mask: ir.Value | None, **_: Any
) -> ir.Value:
    q, k, v = op.many("Split", 3, product, op.constant(widths, "widths"), axis=-1)
    inputs = (q, k, v) if mask is None else (q, k, v, mask)
    return op.Attention(*inputs, q_num_heads=n, kv_num_heads=n_kv, scale=scale)


EACH = [frozenset(names) for count in (3, 2, 1, 0) for names in itertools.combinations(NAMES, count)]
RULES = (
    *(Rule("merged-qkv", projections(biased), guard, attention) for biased in EACH),
    Rule("merged-qkv", packed, guard_packed, bias_before_split),
)


PROJECTION = ("MatMul", "Add")
"""What a linear layer ends in."""


def one_source(attention: ir.Node) -> bool:
    """Whether query, key and value are parts of one value: of one Split, or rows of one projection without padding, of which
    the query's may be taken beside a Split."""
    operands = attention.inputs[:3]
    sources = dict.fromkeys(_behind_rearranging(value) for value in operands)
    splits = [node for node in sources if node is not None and node.op_type == "Split"]
    if len(sources) == 2 and len(splits) == 1:
        behind = _behind_rearranging(splits[0].inputs[0])
        return behind in sources and behind is not None and behind.op_type in PROJECTION and len(set(operands)) == 3
    source = sources.popitem()[0] if len(sources) == 1 else None
    return source is not None and (source.op_type == "Split" or len(set(operands)) == 3)


def _behind_rearranging(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    while node is not None and node.op_type in ("Gather", "Reshape", "Transpose") and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


FUSION = Fusion(
    "qkv",
    RULES,
    after=("attention",),  # it reads the operator
    operator="Attention",
    condition=one_source,
    unless=("qkv", "separate"),
    alone=Alone(
        "merge-linears",
        frozenset({"attention", "attention-decomposed", "attention-decomposed-expanded"}),
        {"attention": "decomposed"},
    ),
)
