"""Normalize, fuse, and spell a model in its target's forms. This is where the rules are put in order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxfuse import catalog
from onnxfuse.errors import UsageError
from onnxfuse.normalize import normalize, structure
from onnxfuse.rewrite import Analysis, Prover, Trace, rewrite
from onnxfuse.rewrite.driver import Listener
from onnxfuse.runtime.sessions import compute, infer
from onnxfuse.targets import Target

LOWEST_OPSET = 17
"""LayerNormalization needs it; models below are raised to it."""


@dataclass
class Fused:
    """What fusing did: the counts of each fused thing in the model, what became of padding, and the trace behind them."""

    counts: dict[str, int]
    padding: catalog.Padding
    trace: Trace = field(repr=False)


def fuse(
    model: ir.Model,
    target: Target,
    *,
    only: frozenset[str] = frozenset(),
    without: frozenset[str] = frozenset(),
    zeros: bool = False,
    prove: bool = False,
    listener: Listener | None = None,
) -> Fused:
    """Rewrite ``model`` in place for ``target``.

    Args:
        only: names of the rules to use; empty for all. The normal form always runs unless one of its rules is named in
            ``without``.
        without: names of rules to leave out.
        zeros: whether outputs may show zeros at padded positions, so that padding can be removed there too.
        prove: whether to prove each rewrite before it is made; what fails is left as it was and named in the trace.
        listener: is told of each rewrite after it is made.

    Raises:
        UsageError: an unknown rule, or a model whose opset the target's runtimes do not read.
        ModelError: the model cannot be raised to the target's opset.
    """
    chosen = catalog.select(target, only, without)
    trace = Trace(listener=listener)
    analysis = canonical(model, target, chosen, trace, prove=prove)
    prover = Prover(analysis, compute) if prove else None
    counts = census(model)
    while rewrite(model, chosen.whole_graph, analysis, trace, prover):
        structure.merge_duplicates(model)
    rewrite(model, chosen.forms_at(analysis.opset), analysis, trace, prover)
    structure.merge_duplicates(model)
    padding = catalog.unpad(model, analysis, zeros=zeros) if chosen.unpad else catalog.Padding("left out")
    structure.merge_duplicates(model)
    moved = Analysis(analysis.opsets, infer)  # what was known of values that padding removal moved is no longer so
    moved.scan(model.graph)
    rewrite(model, chosen.normal, moved, trace, Prover(moved, compute) if prove else None)
    structure.merge_duplicates(model)
    structure.tidy(model)
    return Fused(counts, padding, trace)


def canonical(model: ir.Model, target: Target, chosen: catalog.Selection, trace: Trace, *, prove: bool = False) -> Analysis:
    """Bring ``model`` to normal form and fuse it, in place: one standard operator for each thing an encoder does.

    Raises:
        UsageError, ModelError: as ``fuse``.
    """
    source = model.opset_imports.get("", 0)
    if source > target.highest:
        raise UsageError(
            f"the model has opset {source}, target {target.name!r} reads up to {target.highest}; "
            f"export it again with --opset {target.highest}"
        )
    analysis = normalize(
        model, trace, opset=max(target.opset, LOWEST_OPSET), rules=chosen.normal, prove=prove, dropout=chosen.dropout
    )
    rewrite(model, chosen.fusions, analysis, trace, Prover(analysis, compute) if prove else None)
    structure.merge_duplicates(model)
    return analysis


def census(model: ir.Model) -> dict[str, int]:
    """How many of each thing a graph of standard operators holds, by the names that ``models/`` uses.

    ``unfused``: operators that nothing else in an encoder uses, and a runtime's own that could not be taken apart.
    """
    ops = Counter(node.op_type for node in model.graph if not node.domain)
    attentions = [node for node in model.graph if node.op_type == "Attention" and not node.domain]
    own = sum(stands_for(node) is not None for node in model.graph)
    merged = [node for node in attentions if one_split(node)]
    return {
        "attention": len(attentions),
        "qkv": len(merged),
        "layer_norm": ops["LayerNormalization"],
        "gelu": ops["Gelu"],
        "unfused": own + sum(ops[name] for name in ("Softmax", "Erf", "IsNaN", "ReduceMean")),
    }


def stands_for(node: ir.Node) -> str | None:
    """The standard operator whose work a runtime's own operator does, by its name: com.microsoft's BiasGelu is a Gelu."""
    return next((name for name in ("Attention", "LayerNormalization", "Gelu") if node.domain and name in node.op_type), None)


def one_split(node: ir.Node) -> bool:
    """Whether query, key and value are parts of one value: of one Split, or rows of one projection without padding."""
    sources = {_behind_rearranging(value) for value in node.inputs[:3]}
    source = sources.pop() if len(sources) == 1 else None
    return source is not None and (source.op_type == "Split" or len(set(node.inputs[:3])) == 3)


def _behind_rearranging(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    while node is not None and node.op_type in ("Gather", "Reshape", "Transpose") and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node
