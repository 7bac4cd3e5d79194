"""Normalize, fuse, and lower a model for its target. This is where the rules are put in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxfuse import catalog, normalize, targets
from onnxfuse.errors import UsageError
from onnxfuse.fusions.unpad import NAME as UNPAD
from onnxfuse.fusions.unpad import Padding, unpad
from onnxfuse.normalize import structure
from onnxfuse.rewrite import Analysis, Fusion, Lowering, Prover, Rule, Trace, rewrite
from onnxfuse.rewrite.driver import Listener
from onnxfuse.rewrite.fusion import FUSE, HOIST
from onnxfuse.runtime.sessions import compute, infer
from onnxfuse.targets import Target

LOWEST_OPSET = 17
"""LayerNormalization needs it; models below are raised to it."""

REMOVE_DROPOUT = "remove-dropout"
"""The one step of ``normalize.structure`` that can be left out by name."""


@dataclass(frozen=True)
class Selection:
    """The rules to run: the normal form, the fusions, what moves work across layers, and the lowerings of the target.

    ``dropout``: leave Dropout nodes where they are. ``unpad``: run on real tokens only, where the outputs cannot tell.
    """

    normal: tuple[Rule, ...]
    fusions: tuple[Rule, ...]
    hoisting: tuple[Rule, ...]
    lowerings: tuple[Rule, ...]
    dropout: bool = False
    unpad: bool = True

    def lowerings_at(self, opset: int) -> tuple[Rule, ...]:
        """The lowerings of a model of that opset: also of operators that it lacks, where the target chose nothing else."""
        needed = (each for thing in targets.lowerings().values() for each in thing.values() if opset < each.below)
        return self.lowerings + tuple(rule for lowering in needed for rule in lowering.rules)


def select(target: Target, only: frozenset[str], without: frozenset[str]) -> Selection:
    """The rules for a target, less those left out. Raises UsageError on an unknown name."""
    known = rule_names()
    unknown = sorted((only | without) - set(known))
    if unknown:
        raise UsageError(f"no rule named {', '.join(unknown)}; the rules are {', '.join(known)}")
    without |= {UNPAD} if target["padding"] == "kept" else set()

    def keep(chosen: Iterable[Fusion | Lowering]) -> tuple[Rule, ...]:
        rules = (rule for each in chosen for rule in each.rules)
        return tuple(rule for rule in rules if rule.name not in without and (not only or rule.name in only))

    normal = tuple(rule for rule in normalize.RULES if rule.name not in without)
    fusions = [fusion for fusion in ordered(catalog.fusions().values()) if not left_out(fusion, target)]
    return Selection(
        normal,
        keep(fusion for fusion in fusions if fusion.stage == FUSE),
        keep(fusion for fusion in fusions if fusion.stage == HOIST),
        keep(lowerings(target)),
        REMOVE_DROPOUT in without,
        UNPAD not in without and (not only or UNPAD in only),
    )


def left_out(fusion: Fusion, target: Target) -> bool:
    """Whether a target does without a fusion."""
    thing, choice = fusion.unless or ("", "")
    return bool(thing) and target[thing] == choice


def lowerings(target: Target) -> list[Lowering]:
    """The lowerings that a target chooses."""
    return [variants[target[thing]] for thing, variants in targets.lowerings().items() if thing in target.chosen]


def normal_measured() -> list[str]:
    """The steps of the normal form that ``ablate`` leaves out one by one."""
    return [*dict.fromkeys(rule.name for rule in normalize.RULES if rule.measured), REMOVE_DROPOUT]


def rule_names() -> list[str]:
    """Every rule's name, in order, once."""
    fusions = ordered(catalog.fusions().values())
    fused = [rule for stage in (FUSE, HOIST) for fusion in fusions if fusion.stage == stage for rule in fusion.rules]
    lowered = [rule for thing in targets.lowerings().values() for lowering in thing.values() for rule in lowering.rules]
    return list(dict.fromkeys([*(rule.name for rule in (*normalize.RULES, *fused, *lowered)), REMOVE_DROPOUT, UNPAD]))


@dataclass
class Fused:
    """What fusing did: the counts of each fused thing in the model, what became of padding, and the trace behind them."""

    counts: dict[str, int]
    padding: Padding
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
    with target.in_use():
        return _fuse(model, target, select(target, only, without), Trace(listener=listener), zeros=zeros, prove=prove)


def _fuse(model: ir.Model, target: Target, chosen: Selection, trace: Trace, *, zeros: bool, prove: bool) -> Fused:
    analysis = canonical(model, target, chosen, trace, prove=prove)
    prover = Prover(analysis, compute) if prove else None
    counts = count(model)
    while rewrite(model, chosen.hoisting, analysis, trace, prover):
        structure.merge_duplicates(model)
    rewrite(model, chosen.lowerings_at(analysis.opset), analysis, trace, prover)
    structure.merge_duplicates(model)
    padding = unpad(model, analysis, zeros=zeros) if chosen.unpad else Padding("left out")
    structure.merge_duplicates(model)
    moved = Analysis(analysis.opsets, infer)  # what was known of values that padding removal moved is no longer so
    moved.scan(model.graph)
    rewrite(model, chosen.normal, moved, trace, Prover(moved, compute) if prove else None)
    structure.merge_duplicates(model)
    structure.tidy(model)
    return Fused(counts, padding, trace)


def canonical(model: ir.Model, target: Target, chosen: Selection, trace: Trace, *, prove: bool = False) -> Analysis:
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
    analysis = normalize.normalize(
        model, trace, opset=max(target.opset, LOWEST_OPSET), rules=chosen.normal, prove=prove, dropout=chosen.dropout
    )
    rewrite(model, chosen.fusions, analysis, trace, Prover(analysis, compute) if prove else None)
    structure.merge_duplicates(model)
    return analysis


def count(model: ir.Model) -> dict[str, int]:
    """How many of each thing a graph of standard operators holds, by the names that ``models/`` uses.

    ``unfused``: operators that nothing else in an encoder uses, and a runtime's own that could not be taken apart.
    """
    known = [fusion for fusion in ordered(catalog.fusions().values()) if fusion.operator]
    leftovers = {name for fusion in known for name in fusion.leftovers}
    counts = {fusion.name: sum(map(fusion.made, model.graph)) for fusion in known}
    left = sum(not node.domain and node.op_type in leftovers for node in model.graph)
    own = sum(stands_for(node, known) is not None for node in model.graph)
    return counts | {"unfused": left + own}


def stands_for(node: ir.Node, known: Iterable[Fusion]) -> Fusion | None:
    """The fusion whose operator's work a runtime's own operator does, by its name: com.microsoft's BiasGelu is a Gelu."""
    return next((fusion for fusion in known if node.domain and fusion.operator and fusion.operator in node.op_type), None)


def ordered(fusions: Iterable[Fusion]) -> list[Fusion]:
    """Fusions in the order given, but each behind those that it comes after.

    Raises:
        UsageError: one comes after itself, or after one that is not there.
    """
    waiting, placed = list(fusions), dict[str, Fusion]()
    while waiting:
        free = next((fusion for fusion in waiting if placed.keys() >= set(fusion.after)), None)
        if free is None:
            stuck = waiting[0]
            missing = ", ".join(name for name in stuck.after if name not in placed)
            raise UsageError(
                f"fusion {stuck.name!r} comes after {missing}, which is not there or comes after it; correct ``after``"
            )
        placed[free.name] = free
        waiting.remove(free)
    return list(placed.values())
