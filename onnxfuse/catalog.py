"""The one place that knows both the rules and the architectures."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfuse import fusions, normalize
from onnxfuse.errors import UsageError
from onnxfuse.rewrite import Rule
from onnxfuse.targets import Target

ALWAYS = frozenset(rule.name for rule in normalize.RULES)


@dataclass(frozen=True)
class Selection:
    """The rules to run: the normal form, the fusions, and for each thing the rules of its form."""

    normal: tuple[Rule, ...]
    fusions: tuple[Rule, ...]
    forms: tuple[Rule, ...]
    below_gelu: tuple[Rule, ...]

    def forms_at(self, opset: int) -> tuple[Rule, ...]:
        """The form rules for a model of that opset: without Gelu below 20."""
        return self.forms if opset >= 20 else self.forms + self.below_gelu


def select(target: Target, only: frozenset[str], without: frozenset[str]) -> Selection:
    """The rules for a target, less those left out. Raises UsageError on an unknown name."""
    known = rule_names()
    unknown = sorted((only | without) - set(known))
    if unknown:
        raise UsageError(f"no rule named {', '.join(unknown)}; the rules are {', '.join(known)}")

    def keep(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(rule for rule in rules if rule.name not in without and (not only or rule.name in only))

    normal = tuple(rule for rule in normalize.RULES if rule.name not in without)
    forms = tuple(rule for thing, form in target.forms.items() for rule in fusions.FORMS[thing][form])
    return Selection(normal, keep(fusions.FUSIONS), keep(forms), fusions.FORMS["gelu"]["elementwise"])


def rule_names() -> list[str]:
    """Every rule's name, in order, once."""
    forms = tuple(rule for thing in fusions.FORMS.values() for form in thing.values() for rule in form)
    return list(dict.fromkeys(rule.name for rule in (*normalize.RULES, *fusions.FUSIONS, *forms)))
