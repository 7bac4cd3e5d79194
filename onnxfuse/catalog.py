"""The one place that knows both the rules and the architectures."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

import onnxfuse.fusions as fusions
from onnxfuse import normalize, plugins
from onnxfuse.architecture import Architecture
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.fusions.unpad import NAME as UNPAD
from onnxfuse.fusions.unpad import Padding, unpad
from onnxfuse.rewrite import Rule
from onnxfuse.targets import Target

REMOVE_DROPOUT = "remove-dropout"
"""The one step of ``normalize.structure`` that can be left out by name."""

__all__ = ["REMOVE_DROPOUT", "UNPAD", "Padding", "Selection", "architecture", "checkpoint", "rule_names", "select", "unpad"]


@dataclass(frozen=True)
class Selection:
    """The rules to run: the normal form, the fusions, what moves work across layers, and the forms of the target.

    ``dropout``: leave Dropout nodes where they are. ``unpad``: run on real tokens only, where the outputs cannot tell.
    """

    normal: tuple[Rule, ...]
    fusions: tuple[Rule, ...]
    whole_graph: tuple[Rule, ...]
    forms: tuple[Rule, ...]
    dropout: bool = False
    unpad: bool = True

    @property
    def rewrites(self) -> tuple[Rule, ...]:
        """Every rule beyond the normal form."""
        return self.fusions + self.whole_graph + self.forms

    def forms_at(self, opset: int) -> tuple[Rule, ...]:
        """The form rules for a model of that opset, which take apart what it lacks and no form has taken."""
        return self.forms + tuple(rule for first, rules in fusions.BELOW.items() if opset < first for rule in rules)


def select(target: Target, only: frozenset[str], without: frozenset[str]) -> Selection:
    """The rules for a target, less those left out. Raises UsageError on an unknown name."""
    known = rule_names()
    unknown = sorted((only | without) - set(known))
    if unknown:
        raise UsageError(f"no rule named {', '.join(unknown)}; the rules are {', '.join(known)}")
    without |= {rule.name for rule in fusions.qkv.RULES} if target.qkv == "separate" else set()
    without |= {UNPAD} if target.padding == "kept" else set()

    def keep(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(rule for rule in rules if rule.name not in without and (not only or rule.name in only))

    normal = tuple(rule for rule in normalize.RULES if rule.name not in without)
    forms = tuple(rule for thing, form in target.forms.items() for rule in fusions.FORMS[thing][form])
    return Selection(
        normal,
        keep(fusions.FUSIONS),
        keep(fusions.WHOLE_GRAPH),
        keep(forms),
        REMOVE_DROPOUT in without,
        UNPAD not in without and (not only or UNPAD in only),
    )


def rule_names() -> list[str]:
    """Every rule's name, in order, once."""
    forms = tuple(rule for thing in fusions.FORMS.values() for form in thing.values() for rule in form)
    rules = (*normalize.RULES, *fusions.FUSIONS, *fusions.WHOLE_GRAPH, *forms)
    return list(dict.fromkeys([*(rule.name for rule in rules), REMOVE_DROPOUT, UNPAD]))


def architecture(model_type: str) -> Architecture:
    """The family of that type. Raises ModelError, which names those that are called nearly so."""
    known = families()
    if not isinstance(model_type, str) or model_type not in known:
        near = difflib.get_close_matches(str(model_type).lower(), known, cutoff=0.5)
        beside = f" ({' and '.join(near)} {'are' if len(near) > 1 else 'is'} near)" if near else ""
        raise ModelError(f"model type {model_type!r} is not supported{beside}; onnxfuse knows {', '.join(known)}")
    return known[model_type]


def families() -> dict[str, Architecture]:
    """Every family by its model type: those of ``models/``, and those that others bring."""
    return plugins.find(Architecture, "onnxfuse.models")


def checkpoint(name: str) -> tuple[Architecture, dict[str, Any]]:
    """The family and config fields of a hub id that needs no download. Raises UsageError."""
    known = families().values()
    for family in known:
        if name in family.checkpoints:
            return family, dict(family.checkpoints[name])
    names = ", ".join(name for family in known for name in family.checkpoints)
    raise UsageError(f"--random-weights knows no architecture named {name!r}; it knows {names}")


def model_type(model: ir.Model, config: dict[str, Any], override: str | None) -> str:
    """The family a model belongs to: as asked, as config.json says, or as its inputs show.

    Raises:
        ModelError: a family that onnxfuse does not know.
    """
    named = override or config.get("model_type")
    if named is None:
        return shown_by(value.name or "" for value in model.graph.inputs).model_type
    return architecture(named).model_type


def shown_by(inputs: Iterable[str]) -> Architecture:
    """The family whose ``shown_by`` is among the names of a model's inputs; of several the one that asks for most of them."""
    given = set(inputs)
    shown = [family for family in families().values() if family.shown_by is not None and family.shown_by <= given]
    return max(shown, key=lambda family: len(family.shown_by or ()))
