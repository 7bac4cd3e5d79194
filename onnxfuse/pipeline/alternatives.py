"""What ``tune`` measures beside each other: things that a target decides, each with its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxfuse import native, targets
from onnxfuse.config import TuneConfig
from onnxfuse.errors import UsageError
from onnxfuse.pipeline import forms
from onnxfuse.runtime import USUAL, Settings, runtimes
from onnxfuse.targets import Target

FORM, IN, WITH = "form", " in ", ", "
"""What is decided first: a precision in a runtime, together, as text with ``IN`` between them, and ``WITH`` our own operators."""


OWN_PRECISIONS = ("fp32", "bf16", "int8")
"""What our own operators compute in."""


def forms_of(plan: TuneConfig) -> tuple[str, ...]:
    """Each precision in each runtime that computes it as it is meant. Raises UsageError: none of those that the plan asks for."""
    known = runtimes()
    found = [
        f"{precision}{IN}{name}" for precision in plan.precisions for name in plan.runtimes if forms.meant(precision, known[name])
    ]
    if not native.trouble() and USUAL in plan.runtimes:
        found += [f"{precision}{IN}{USUAL}{WITH}{targets.NATIVE}" for precision in plan.precisions if precision in OWN_PRECISIONS]
    if not found:
        raise UsageError(
            f"{plan.runtimes[0]} computes {plan.precisions[0]} in float32, right but slow; choose another of --precision or "
            "--runtime"
        )
    return tuple(found)


def alternatives(base: Target, plan: TuneConfig, cores: int) -> Sequence[tuple[str, tuple[str, ...]]]:
    """What is measured on a machine of so many cores: each thing with its options, the one of ``base`` among them."""
    things = [(FORM, forms_of(plan))]
    lowered = targets.lowerings()
    things += [(thing, tuple(name for name, each in variants.items() if each.tuned)) for thing, variants in lowered.items()]
    things += [(thing, variants) for thing, variants in targets.SWITCHES.items() if thing != "precision"]  # that is half of FORM
    things += [("denormals_as_zero", ("True", "False")), ("spinning", ("True", "False"))]
    if not plan.threads:
        things.append(("threads", ("0", *(str(count) for count in range(1, cores + 1)))))
    return [(thing, options) for thing, options in things if set(options) - {value_of(base, thing)}]


def value_of(target: Target, thing: str) -> str:
    """What a target chooses for a thing, as text."""
    if thing == FORM:
        own = f"{WITH}{targets.NATIVE}" if target.is_own else ""
        return f"{target['precision']}{IN}{target.session.runtime}{own}"
    return str(getattr(target.session, thing) if hasattr(target.session, thing) else target[thing])


def chosen_with(target: Target, thing: str, option: str) -> Target:
    """The target with another option for one thing."""
    if thing == FORM:
        precision, _, place = option.partition(IN)
        runtime, _, own = place.partition(WITH)
        return chosen_with(_with_own(target, own=bool(own)).choosing(precision=precision), "runtime", runtime)
    if not hasattr(target.session, thing):
        return target.choosing(**{thing: option})
    kind = type(getattr(target.session, thing))
    value = option == "True" if kind is bool else kind(option)
    return replace(target, session=Settings(**vars(target.session) | {thing: value}))


def _with_own(target: Target, *, own: bool) -> Target:
    """The target with our own operators, or with the normal form's in their place."""
    if own == target.is_own:
        return target
    if own:
        return target.choosing(
            **{thing: each for thing, each in targets.find(targets.NATIVE).chosen.items() if thing != "precision"}
        )
    plain = targets.plain()
    return target.choosing(**{thing: plain[thing] for thing, each in target.chosen.items() if each == targets.NATIVE})
