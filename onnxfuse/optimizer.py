"""The order of everything that is done to a model: normal form, fusions, hoisting, padding, lowering.

``normal_form``, ``fusing`` and ``finishing`` are the order, here and nowhere else; fusions stand in the order of their names,
each behind those that it comes ``after``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxfuse import catalog, targets
from onnxfuse.errors import UsageError
from onnxfuse.fusions.native_layers import BringFunctions, JoinLayers
from onnxfuse.fusions.unpad import NAME as UNPAD
from onnxfuse.fusions.unpad import Padding, PaddingResult, RemovePadding
from onnxfuse.io.progress import Share, counted, untold
from onnxfuse.native import functions
from onnxfuse.normalize import (
    arithmetic,
    batch_merge,
    batch_swap,
    einsum,
    indices,
    linear,
    masks,
    projections,
    scale,
    shapes,
    softmax,
)
from onnxfuse.normalize.branches import InlineBranches
from onnxfuse.normalize.contrib import TakeContribApart
from onnxfuse.normalize.duplicates import MergeDuplicates
from onnxfuse.normalize.folding import FoldConstants
from onnxfuse.normalize.opset import ConvertOpset
from onnxfuse.normalize.structure import Inline, LiftConstants, NameApart, RemoveDropout, RemoveIdentities, RemoveUnused, Tidy
from onnxfuse.rewrite import Fusion, Lowering, Rule, Trace
from onnxfuse.rewrite.driver import Listener
from onnxfuse.rewrite.fusion import FUSE, HOIST, ordered
from onnxfuse.rewrite.passes import Context, Pass, Repeat, Rules, names, require_apart
from onnxfuse.runtime.sessions import compute, infer
from onnxfuse.targets import NATIVE, Target

RuleList = tuple[Rule, ...]

LOWEST_OPSET = 17
"""LayerNormalization needs it; models below are raised to it."""


def clean_up(*, own: bool = False) -> tuple[Pass, ...]:
    """What needs no pattern comes first: rules see one graph of plain nodes. ``own``: see ``Inline``."""
    return (Inline(own), LiftConstants(), RemoveDropout(), RemoveIdentities(), RemoveUnused(), NameApart())


NORMAL_RULES: tuple[Rule, ...] = (
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
"""Rules of the normal form, in the order in which they are tried at a node."""

CANONICAL = 0.6  # of the time of all passes
NEEDED = frozenset({"inline", "name-apart", "convert-opset", "lowering", "native-functions", "tidy"})
"""Passes that cannot be left out: the model would not be one that its target runs."""


def normal_form(opset: int, rules: RuleList = NORMAL_RULES, *, own: bool = False) -> tuple[Pass, ...]:
    """Bring any exporter's graph to one form, so that a fusion needs one pattern. ``own``: see ``Inline``."""
    clean = clean_up(own=own)
    return (
        *clean,
        ConvertOpset(opset),
        TakeContribApart(),
        Repeat(
            (  # some rules ask that a value be read once, which merging brings about
                Repeat((FoldConstants(), Rules("normal-form", rules))),
                InlineBranches((*clean, TakeContribApart())),  # whose conditions folding knows
                MergeDuplicates(),
            )
        ),
    )


def fusing(rules: RuleList) -> tuple[Pass, ...]:
    """From the normal form to one standard operator for each thing an encoder does: here things are counted."""
    return (Rules("fusions", rules), MergeDuplicates())


def finishing(
    before: RuleList, hoisting: RuleList, lowering: RuleList, normal: RuleList, *, zeros: bool, bounds: bool = False
) -> tuple[Pass, ...]:
    """From standard operators to what the target runs fastest. Padding goes while attention is one operator."""
    return (
        Rules("preparing", before),
        Repeat((Rules("hoisting", hoisting), MergeDuplicates())),  # merging lets the next rule fire
        RemovePadding(zeros, bounds),
        MergeDuplicates(),
        Rules("normal-form", normal),  # what padding removal wrote
        MergeDuplicates(),
        Rules("lowering", lowering),
        JoinLayers(),
        MergeDuplicates(),
        BringFunctions(),
        Tidy(),
    )


@dataclass(frozen=True)
class Selection:
    """The rules to run: the normal form, the fusions, what moves work across layers, and the lowerings of the target.

    ``only``: of rules, those alone; all where empty. ``without``: names of rules and passes to leave out.
    """

    normal: tuple[Rule, ...]
    fusions: tuple[Rule, ...]
    hoisting: tuple[Rule, ...]
    lowerings: tuple[Lowering, ...]
    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()

    def lowerings_at(self, opset: int) -> tuple[RuleList, RuleList]:
        """What makes way for the lowerings of a model of that opset, and these: also of operators that it lacks, where the target
        chose nothing else."""
        needed = [each for thing in targets.lowerings().values() for each in thing.values() if opset < each.below]
        before = [rule for each in (*self.lowerings, *needed) for rule in each.before]
        chosen = kept((rule for each in self.lowerings for rule in each.rules), self.only, self.without)
        return kept(before, self.only, self.without), chosen + tuple(rule for each in needed for rule in each.rules)


def kept(rules: Iterable[Rule], only: frozenset[str], without: frozenset[str]) -> tuple[Rule, ...]:
    return tuple(rule for rule in dict.fromkeys(rules) if rule.name not in without and (not only or rule.name in only))


def select(target: Target, only: frozenset[str], without: frozenset[str]) -> Selection:
    """The rules and passes for a target, less those left out.

    Raises:
        UsageError: an unknown name, or a pass that cannot be left out.
    """
    if needed := sorted(without & NEEDED):
        raise UsageError(f"{', '.join(needed)} cannot be left out: the model would not be one that target {target.name!r} runs")
    known = rule_names()
    if unknown := sorted((only | without) - set(known)):
        raise UsageError(f"no rule named {', '.join(unknown)}; the rules are {', '.join(known)}")
    if both := sorted(only & without):
        raise UsageError(f"{', '.join(both)} cannot be used alone and left out at once; name it in one of only and without")
    without |= {UNPAD} if target["padding"] == "kept" or (only and UNPAD not in only) else set()

    def stage(name: str) -> tuple[Rule, ...]:
        fusions = (
            fusion for fusion in ordered(catalog.fusions().values()) if fusion.stage == name and not left_out(fusion, target)
        )
        return kept((rule for fusion in fusions for rule in fusion.rules), only, without)

    normal = tuple(rule for rule in NORMAL_RULES if rule.name not in without)
    return Selection(normal, stage(FUSE), stage(HOIST), tuple(lowerings(target)), only, without)


def left_out(fusion: Fusion, target: Target) -> bool:
    """Whether a target does without a fusion."""
    thing, choice = fusion.unless or ("", "")
    return bool(thing) and target[thing] == choice


def lowerings(target: Target) -> list[Lowering]:
    """The lowerings that a target chooses, early ones first."""
    chosen = [variants[target[thing]] for thing, variants in targets.lowerings().items() if thing in target.chosen]
    return sorted(chosen, key=lambda each: not each.early)


def rule_names() -> list[str]:
    """The name of every rule, and of every pass that can be left out, in order, once. Raises UsageError: two of one name."""
    fusions = ordered(catalog.fusions().values())
    lowered = [lowering for thing in targets.lowerings().values() for lowering in thing.values()]
    fused, hoisted = (tuple(rule for each in fusions if each.stage == stage for rule in each.rules) for stage in (FUSE, HOIST))
    before, lowering = (tuple(rule for each in lowered for rule in getattr(each, part)) for part in ("before", "rules"))
    passes = (*normal_form(0), *fusing(fused), *finishing(before, hoisted, lowering, (), zeros=False))
    empty = names((*normal_form(0, ()), *fusing(()), *finishing((), (), (), (), zeros=False)))
    owners = {"a pass": empty, "the normal form": [rule.name for rule in NORMAL_RULES]}
    owners |= {each.name: [rule.name for rule in each.rules] for each in fusions}
    owners |= {each.name: [rule.name for rule in (*each.before, *each.rules)] for each in lowered}
    require_apart(owners)
    return [name for name in names(passes) if name not in NEEDED]


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
    tell: Share = untold,
) -> Fused:
    """Rewrite ``model`` in place for ``target``.

    Args:
        only: names of the rules to use; empty for all. The normal form always runs unless one of its rules is named in
            ``without``.
        without: names of rules and passes to leave out.
        zeros: whether outputs may show zeros at padded positions, so that padding can be removed there too.
        prove: whether to prove each rewrite before it is made; what fails is left as it was and named in the trace.
        listener: is told of each rewrite after it is made.
        tell: is told how much is done.

    Raises:
        UsageError: an unknown rule, or a model whose opset the target's runtimes do not read.
        ModelError: the model cannot be raised to the target's opset.
    """
    with target.in_use():
        chosen = select(target, only, without)
        context = Context(compute, infer, Trace(listener=listener), prove, chosen.without)
        return _fuse(model, target, chosen, context, tell, zeros=zeros)


def _fuse(model: ir.Model, target: Target, chosen: Selection, context: Context, tell: Share, *, zeros: bool) -> Fused:
    canonical(model, target, chosen, context, tell)
    counts = count(model)
    before, lowered = chosen.lowerings_at(model.opset_imports[""])
    passes = finishing(before, chosen.hoisting, lowered, chosen.normal, zeros=zeros, bounds=target["attention"] == NATIVE)
    why = f"as target {target.name} has it" if target["padding"] == "kept" else "left out"
    results = [context.apply(each, model) for each in counted(passes, tell, begin=CANONICAL)]
    padding = next((result.padding for result in results if isinstance(result, PaddingResult)), Padding(why))
    return Fused(counts, padding, context.trace)


def canonical(model: ir.Model, target: Target, chosen: Selection, context: Context, tell: Share = untold) -> None:
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
    own = target["attention"] == NATIVE
    passes = (*normal_form(max(target.opset, LOWEST_OPSET), chosen.normal, own=own), *fusing(chosen.fusions))
    for each in counted(passes, tell, end=CANONICAL):
        context.apply(each, model)


def count(model: ir.Model) -> dict[str, int]:
    """How many of each thing a graph of standard operators holds, by the names that ``models/`` uses.

    ``unfused``: operators that stand for nothing else in an encoder, and a runtime's own that could not be taken apart.
    """
    if any(functions.is_ours(node) for node in model.graph):
        model = model.clone()
        functions.apart(model)
    known = [fusion for fusion in ordered(catalog.fusions().values()) if fusion.operator]
    counts = {fusion.name: sum(map(fusion.made, model.graph)) for fusion in known}
    left = sum(any(fusion.left(node) for fusion in known) for node in model.graph)
    own = sum(stands_for(node, known) is not None for node in model.graph)
    return counts | {"unfused": left + own}


def stands_for(node: ir.Node, known: Iterable[Fusion]) -> Fusion | None:
    """The fusion whose operator's work a runtime's own operator does, by its name: com.microsoft's BiasGelu is a Gelu."""
    return next(
        (fusion for fusion in known if node.domain and fusion.operator and fusion.operator in node.op_type),
        None,
    )
