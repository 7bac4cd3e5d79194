"""The one contract of everything that changes a model: a pass has a name, and ``apply`` says whether it modified the model.

A pass is a frozen dataclass whose other fields are its options. What passes share while they work on one model is the Context:
the trace, what is known of the model's values, how proofs are made and run, and which passes are left out.

    for each in (LIFT_CONSTANTS, ConvertOpset(20), Repeat((FOLD, Rules("normal-form", RULES)))):
        context.apply(each, model)

Source: the contract of onnx/ir-py's passes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import onnx_ir as ir

from onnxfuse.errors import UsageError
from onnxfuse.rewrite.analysis import Analysis
from onnxfuse.rewrite.driver import Trace, rewrite
from onnxfuse.rewrite.inference import Infer
from onnxfuse.rewrite.proof import Compute, Prover
from onnxfuse.rewrite.rule import Rule


@dataclass(frozen=True)
class Result:
    """What a pass did. ``modified``: whether the model is another one now."""

    modified: bool


class Pass(Protocol):
    """One step of optimization."""

    @property
    def name(self) -> str:
        """What the trace and ``--without`` call it."""
        ...

    def apply(self, model: ir.Model, context: Context) -> Result:
        """Change ``model`` in place. What cannot be proven wrong may be done; what is proven wrong is undone."""
        ...


@dataclass
class Context:
    """What the passes over one model share.

    Args:
        compute: runs nodes: for folding, and for proofs.
        infer: a runtime's shape inference for operators that ONNX does not know.
        trace: receives what happens.
        prove: whether each rewrite is proven before it is made.
        without: names of passes and rules to leave out.
    """

    compute: Compute
    infer: Infer | None = None
    trace: Trace = field(default_factory=Trace)
    prove: bool = False
    without: frozenset[str] = frozenset()
    _analysis: Analysis | None = field(default=None, init=False, repr=False)
    _prover: Prover | None = field(default=None, init=False, repr=False)

    def apply(self, each: Pass, model: ir.Model) -> Result:
        """Apply a pass, unless it is left out, and count it in the trace if it modified the model."""
        if each.name in self.without:
            return Result(False)
        result = each.apply(model, self)
        if result.modified and not isinstance(each, Repeat):
            self.trace.passes[each.name] += 1
        return result

    def analysis(self, model: ir.Model) -> Analysis:
        """What is known of the model's values; it stays true while passes keep what values mean."""
        if self._analysis is None:
            self._analysis = Analysis(model.opset_imports, self.infer)
        return self._analysis

    def prover(self, model: ir.Model) -> Prover | None:
        """What proves rewrites of the model; None where nothing is proven."""
        if self.prove and self._prover is None:
            self._prover = Prover(self.analysis(model), self.compute)
        return self._prover

    def forget(self) -> None:
        """Drop what is known of values: they mean something else from now on."""
        self._analysis = self._prover = None


@dataclass(frozen=True)
class Rules:
    """Rules at every node, until none fires."""

    name: str
    rules: tuple[Rule, ...]

    def apply(self, model: ir.Model, context: Context) -> Result:
        roots = {(rule.pattern.type, rule.pattern.domain) for rule in self.rules}
        if not any((node.op_type, node.domain) in roots for node in model.graph):
            return Result(False)
        analysis = context.analysis(model)
        analysis.scan(model.graph)
        return Result(rewrite(model, self.rules, analysis, context.trace, context.prover(model)) > 0)


@dataclass(frozen=True)
class Repeat:
    """Passes one after another, again and again until each has nothing left to do."""

    passes: tuple[Pass, ...]
    name: str = "repeat"

    def apply(self, model: ir.Model, context: Context) -> Result:
        modified, idle = False, 0
        for each in itertools.cycle(self.passes):
            if context.apply(each, model).modified:
                modified = True
                idle = int(isinstance(each, Repeat))  # which has nothing left to do by itself
            else:
                idle += 1
            if idle == len(self.passes):
                break
        return Result(modified)


def require_apart(owners: Mapping[str, Iterable[str]]) -> None:
    """Raises UsageError for a name that two owners of rules or passes use."""
    known: dict[str, str] = {}
    for owner, own in owners.items():
        for name in own:
            if (other := known.setdefault(name, owner)) != owner:
                raise UsageError(f"rule {name!r} of {owner} is called as one of {other}; give it another name")


def names(passes: Sequence[Pass]) -> list[str]:
    """The names of passes and of their rules, once each."""
    found: list[str] = []
    for each in passes:
        if isinstance(each, Repeat):
            found += names(each.passes)
        else:
            found += [each.name, *((rule.name for rule in each.rules) if isinstance(each, Rules) else ())]
    return list(dict.fromkeys(found))
