"""Fuse a model for its target, and prove that it computes the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse import catalog, targets
from onnxfuse.choice import METADATA
from onnxfuse.config import OptimizeConfig
from onnxfuse.errors import RequirementError, UsageError
from onnxfuse.fusions.unpad import NAME as UNPAD
from onnxfuse.fusions.unpad import Padding
from onnxfuse.io import atomic, external, folders, onnx_file
from onnxfuse.io.ours import Replaceable, inputs_of
from onnxfuse.io.progress import Progress, Share, silent
from onnxfuse.optimizer import Fused, fuse, left_out
from onnxfuse.pipeline.explain import explain_file
from onnxfuse.pipeline.halve import KIND, PRECISIONS, Half, compare_taking_float32, halve, require_halvable
from onnxfuse.pipeline.step import Clock, Step, unwritten
from onnxfuse.quantization.linears import stored_in
from onnxfuse.quantization.retype import slow_matmuls
from onnxfuse.rewrite import Trace
from onnxfuse.rewrite.dump import Dump
from onnxfuse.runtime.probes import slow_factor
from onnxfuse.targets import Target
from onnxfuse.verify.opened import Opened, blaming
from onnxfuse.verify.parity import Parity
from onnxfuse.verify.verdict import compare_files

VERIFY = ("off", "final", "each")

FLOAT = "fp32"

KINDS = {FLOAT: "reassociate", **KIND, "int8": "int8"}
"""The row of ``TOLERANCES`` of a rewrite, by what a model is stored in. (A rounding step before int8 is a code behind it.)"""

STEPS = {name: f"optimize-{precision}" for precision, name in PRECISIONS.items()}
"""What the record calls the step that makes a file, where it lies beside the one of ``optimize``."""


@dataclass(frozen=True)
class SlowTypes:
    """8-bit matmuls whose weights are u8: how many, and how many times as long each takes here as one with s8 weights."""

    matmuls: int
    factor: float


@dataclass(frozen=True)
class Optimized(Step):
    """An optimized model.

    Args:
        model_type: the family it was taken for; what config.json says where onnxfuse has no such family.
        target: the name of its target.
        fused: how many of each fused thing it holds.
        expected: how many it should hold; empty where nothing says how many layers it has.
        padding: what became of padding.
        nodes: how many nodes its graph has.
        trace: every rewrite.
        slow_types: 8-bit matmuls that would run faster in other types.
        half: what became of it in half precision; None where that was not asked for.
    """

    model_type: str
    target: str
    fused: Mapping[str, int]
    expected: Mapping[str, int]
    padding: Padding
    nodes: int
    trace: Trace = field(repr=False)
    slow_types: SlowTypes | None = None
    half: Half | None = None

    def details(self) -> dict[str, Any]:
        return {
            "model_type": self.model_type,
            "target": self.target,
            "fused": dict(self.fused),
            "expected": dict(self.expected),
            "padding": str(self.padding),
            "nodes": self.nodes,
            "trace": self.trace.to_json(),
            **({} if self.slow_types is None else {"slow_types": asdict(self.slow_types)}),
            **({} if self.half is None else {"half": self.half.to_json()}),
        }


def optimize(plan: OptimizeConfig, progress: Progress = silent, source: Opened | None = None) -> Optimized:
    """Fuse a model for its target, check the counts and the outputs, and save it.

    Args:
        source: ``plan.source``, where it is opened already; the result is kept open as it is.

    Raises:
        UsageError, ModelError, ParityError; RequirementError when ``plan.require`` is not met.
    """
    if plan.verify not in VERIFY:
        raise UsageError(f"--verify {plan.verify}: wanted one of {', '.join(VERIFY)}")
    if plan.precision not in (None, FLOAT, *PRECISIONS):
        raise UsageError(f"--precision {plan.precision:.40}: wanted one of {', '.join((FLOAT, *PRECISIONS))}")
    with targets.use(plan.target) as target, blaming(plan.source):
        require_countable(plan.require)  # of the target's fusions, too
        return _optimize(plan, target.choosing(padding="removed") if plan.unpad else target, progress, source)


def write_for(target: str, source: Opened, out: Path) -> Opened:
    """A model fused for another target and written to ``out``, no more: whoever makes something of it holds that to the original.

    Raises:
        UsageError, ModelError: as ``fuse``.
    """
    with targets.use(target) as chosen:
        model = source.model.clone()
        catalog.architecture(catalog.model_type(model, source.config, None)).name_inputs(model)
        fused = fuse(model, chosen)
        model.metadata_props[METADATA] = _note(chosen, fused.counts)
        return Opened(out, onnx_file.save(model, out), source.config)


def require_countable(needs: Sequence[str]) -> None:
    """Raises UsageError for what ``--require`` cannot ask for: to be asked before the work."""
    counted = [*(name for name, fusion in catalog.fusions().items() if fusion.operator), "unfused"]
    for item in needs:
        name, _, number = item.partition("=")
        if item != "all" and not (name in counted and number.isdigit()):
            raise UsageError(f"--require {item}: wanted all, or NAME=NUMBER with NAME one of {', '.join(counted)}")


def _optimize(plan: OptimizeConfig, target: Target, progress: Progress, source: Opened | None) -> Optimized:
    clock = Clock()
    source = source or Opened(plan.source)
    guard = Replaceable(inputs_of(plan.source, external.weight_files(source.model)), plan.overwrite)
    guard.require(plan.out, plan.out.with_name(folders.RECORD))
    source.inputs.require_asked(plan.batch or 0, plan.length or 0)
    model, half, precision = source.model.clone(), None, plan.precision or _kept(source.model) or target["precision"]
    slow = slow_matmuls(model)
    _require_halvable(plan, precision, source, target)
    family = catalog.model_type(model, source.config, plan.model_type)
    unknown = _unknown(source.config, plan, progress)
    catalog.architecture(family).name_inputs(model, plan.sizes)
    clock.lap("load")
    fused = _fused(model, target, plan, partial(progress, f"fusing for {target.name}"))
    clock.lap("fuse")
    clock.split("fuse", "prove", fused.trace.proof_seconds)
    expected = {} if unknown else _expected(family, source.config, target)
    _require(plan, fused.counts, expected, catalog.architecture(family).layers)
    if precision in PRECISIONS:
        model, half = halve(source, model, precision, fused.padding.zeros, progress, io=plan.half_io)
        clock.lap("halve")
    model.metadata_props[METADATA] = _note(target if half is None else target.choosing(precision=precision), fused.counts)
    nodes, result = len(model.graph), None
    slow_types = SlowTypes(slow, round(slow_factor(), 2)) if slow else None
    with atomic.replacing(plan.out, guard) as staged:
        saved = Opened(staged, onnx_file.save(model, staged), keep=source.keep)
        clock.lap("save")
        if plan.verify != "off":
            result = _compared(plan, source, saved, half, fused.padding.zeros, progress)
            result.require("optimizing changed the outputs", unwritten(plan.out))
            clock.lap("verify")
        step = Optimized(
            plan.out,
            saved.size,
            clock.seconds,
            result,
            saved,
            unknown or family,
            target.name,
            fused.counts,
            expected,
            fused.padding,
            nodes,
            fused.trace,
            slow_types,
            half,
        )
        folders.record(plan.out.parent, STEPS.get(plan.out.name, "optimize"), plan, step.to_json(), staged=staged)
    saved.move(plan.out)
    return step


def _kept(model: ir.Model) -> str:
    """The precision that a model keeps, where folding the casts of its weights would lose it."""
    return "bf16" if stored_in(model) == "bf16" else ""


def _require_halvable(plan: OptimizeConfig, precision: str, source: Opened, target: Target) -> None:
    """Raises UsageError, ModelError: the model cannot be brought to what was asked for, or ``--half-io`` means nothing."""
    target.require_precision(precision)
    if precision in PRECISIONS:
        require_halvable(source.model, precision, source)
    if plan.half_io and precision != "fp16":
        raise UsageError(f"--half-io is of --precision fp16, and this is {precision}; add that, or leave it out")


def _compared(
    plan: OptimizeConfig, source: Opened, saved: Opened, half: Half | None, zeros: Sequence[str], progress: Progress
) -> Parity:
    """What was saved against the original."""
    if plan.half_io:
        return compare_taking_float32(source, saved)
    kind = kind_of(source.model) if half is None else KIND[half.precision]
    return compare_files(source, saved, kind, zeros=zeros, tell=partial(progress, "comparing with the original"))


def _unknown(config: Mapping[str, Any], plan: OptimizeConfig, progress: Progress) -> str:
    """The model type that no family has: it is fused by what its graph shows. Raises UsageError: its counts are required."""
    unknown = catalog.unknown(config, plan.model_type)
    if unknown and "all" in plan.require:
        raise UsageError(
            f"--require all: onnxfuse has no counts of model type {unknown!r}; say which family's with --model-type, or ask for "
            "NAME=NUMBER"
        )
    if unknown:
        progress(f"going by what the graph shows: model type {unknown!r} is none that onnxfuse knows")
    return unknown


def _fused(model: ir.Model, target: Target, plan: OptimizeConfig, tell: Share) -> Fused:
    """The model fused in place. Raises UsageError, ModelError; RequirementError when padding was to go and stays."""
    listener = None if plan.dump is None else Dump(model, plan.dump)
    without = plan.without | ({UNPAD} if plan.unpad is False else set())
    prove, zeros = plan.verify == "each", plan.unpad is True
    fused = fuse(model, target, only=plan.only, without=without, zeros=zeros, prove=prove, listener=listener, tell=tell)
    if plan.unpad and fused.padding.kept and not fused.padding.earlier:
        raise RequirementError(f"--unpad: padding stays, {fused.padding.kept}; leave --unpad out to optimize with padding")
    return fused


def _note(target: Target, counts: Mapping[str, int]) -> str:
    """The metadata of an optimized model: what ``load`` opens it with, and how it was made."""
    session = asdict(target.session)
    chosen = {"target": target.name, "precision": target["precision"], "session": session}
    note = chosen | {"fused": counts, "versions": folders.versions()}
    return json.dumps(note | ({"libraries": target.libraries} if target.libraries else {}))


def kind_of(model: ir.Model) -> str:
    """The row of ``TOLERANCES`` that a rewrite of the model is held to: by the coarsest numbers that it computes with."""
    return KINDS[stored_in(model)]


def _expected(family: str, config: Mapping[str, Any], target: Target) -> dict[str, int]:
    """What ``models/`` says the model must hold for a target; empty when there is no config.json to say how many layers."""
    architecture = catalog.architecture(family)
    if architecture.layers not in config:
        return {}
    expected = architecture.expected(config, config.get("onnxfuse_task"))
    absent = {fusion.name for fusion in catalog.fusions().values() if left_out(fusion, target)}
    return {name: count for name, count in expected.items() if name not in absent}


def _require(plan: OptimizeConfig, counts: Mapping[str, int], expected: Mapping[str, int], layers: str) -> None:
    """Hold the counts against ``--require``: "all", which is at least what the family counts (a head may add to it), or
    NAME=NUMBER, which is that number. What is missing is explained.

    ``layers``: what the family calls the number of layers in config.json.
    """
    needs: dict[str, int] = {}
    for item in plan.require:
        name, _, number = item.partition("=")
        if item == "all":
            if not expected:
                raise UsageError(
                    f"--require all needs the number of layers, {layers} in config.json beside the model's file; without it, ask "
                    "for NAME=NUMBER"
                )
            if unknown := sorted(set(expected) - set(counts)):
                raise UsageError(f"the model's family counts {', '.join(unknown)}, which no fusion makes; correct its file")
            needs |= {name: max(needed, counts[name]) for name, needed in expected.items()}
        else:
            needs[name] = int(number)
    cases = [(f"{name}={needed}", _missed(plan, name, counts[name], needed)) for name, needed in needs.items()]
    if failed := [why for _, why in cases if why]:
        raise RequirementError(failed[0], cases)


def _missed(plan: OptimizeConfig, name: str, count: int, needed: int) -> str:
    """Why a thing was not fused as often as it must be; empty where it was."""
    if count == needed:
        return ""
    findings = explain_file(plan.source, plan.target, plan.model_type)
    missed = [str(finding) for finding in findings if finding.fusion == name and not finding.done]
    why = missed[0] if missed else "see what is there with: onnxfuse explain MODEL"
    return f"{name} fused {count} times, required {needed}; {why}"


def required(step: Optimized, require: Sequence[str]) -> list[tuple[str, str]]:
    """The cases of requirements that a step met, as ``RequirementError`` has them."""
    items = [f"{name}={count}" for name, count in step.expected.items()] if "all" in require else []
    return [(name, "") for name in dict.fromkeys([*items, *(item for item in require if item != "all")])]
