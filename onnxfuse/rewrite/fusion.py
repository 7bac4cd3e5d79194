"""What a file in fusions/ defines: a Fusion, which makes one thing, or a Lowering, which writes one as a target runs it.

Both are data. Whoever counts, explains, measures or orders fusions reads it here and keeps no list of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxfuse.errors import UsageError
from onnxfuse.rewrite.rule import Rule

FUSE, HOIST = "fuse", "hoist"
"""Stages: from the normal form to standard operators; then moving work across layers, repeated until nothing moves."""


@dataclass(frozen=True)
class Alone:
    """How ``ablate`` measures rules by themselves.

    Args:
        name: what it calls all of them together; "" takes each rule as one, by its own name.
        needs: names of other rules without which they find nothing.
        target: variants other than the target's that they are measured with, by thing.
    """

    name: str = ""
    needs: frozenset[str] = frozenset()
    target: Mapping[str, str] = field(default_factory=dict)


BY_RULE = Alone()


@dataclass(frozen=True)
class Fusion:
    """Rules that make one thing.

    Args:
        name: what models/ and reports call the thing.
        rules: tried in this order at a node.
        stage: FUSE or HOIST.
        after: names of the fusions that must come before.
        operator: the standard operator that the thing becomes; "" where it is nothing to count.
        condition: what a node of that operator must meet besides; None asks nothing more.
        anchors: operators by which ``explain`` finds a thing that was not fused.
        otherwise: of an anchor that computes another thing on purpose, the value that shows it and what it is; None of others.
        leftovers: operators that stand for nothing else in an encoder: each one left counts as not fused.
        left_if: what such an operator must meet besides; None asks nothing more.
        unless: a thing of a target and the choice that leaves this fusion out.
        alone: how ``ablate`` measures it.
    """

    name: str
    rules: tuple[Rule, ...]
    stage: str = FUSE
    after: tuple[str, ...] = ()
    operator: str = ""
    condition: Callable[[ir.Node], bool] | None = None
    anchors: tuple[str, ...] = ()
    otherwise: Callable[[ir.Node], tuple[str, str] | None] | None = None
    leftovers: tuple[str, ...] = ()
    left_if: Callable[[ir.Node], bool] | None = None
    unless: tuple[str, str] | None = None
    alone: Alone = BY_RULE

    def __post_init__(self) -> None:
        _require_rules(self.name, self.rules)

    def made(self, node: ir.Node) -> bool:
        """Whether a node is what this fusion makes."""
        of_operator = bool(self.operator) and node.op_type == self.operator and not node.domain
        return of_operator and (self.condition is None or self.condition(node))

    def left(self, node: ir.Node) -> bool:
        """Whether a node is a part of what this fusion did not make."""
        return node.op_type in self.leftovers and not node.domain and (self.left_if is None or self.left_if(node))


@dataclass(frozen=True)
class Lowering:
    """Rules that write a thing as one of the variants that a target may choose.

    Args:
        thing: the field of a target that chooses.
        variant: the choice, by the operator that it ends in or what it is called.
        rules: none where the normal form is that already.
        below: whatever a target chooses, a model of a lower opset than this one is written so: it lacks the operator.
        before: rules that make way for ``rules`` while each linear layer is one of its own, before work moves across layers.
        alone: how ``ablate`` measures it.
        early: whether its rules are tried before those of other lowerings.
        tuned: whether ``tune`` tries it; not where it is for old opsets, or for comparison.
    """

    thing: str
    variant: str
    rules: tuple[Rule, ...] = ()
    below: int = 0
    before: tuple[Rule, ...] = ()
    alone: Alone = BY_RULE
    early: bool = False
    tuned: bool = True

    def __post_init__(self) -> None:
        _require_rules(self.name, self.rules)
        _require_rules(self.name, self.before)

    @property
    def name(self) -> str:
        return f"{self.thing} {self.variant}"


def _require_rules(name: str, rules: object) -> None:
    """Raises UsageError for what is no tuple of rules, as where the comma of a tuple of one is forgotten."""
    if not isinstance(rules, tuple) or not all(isinstance(rule, Rule) for rule in rules):
        raise UsageError(f"{name} has a {type(rules).__name__} as its rules, wanted a tuple of Rule: (Rule(...),)")


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
