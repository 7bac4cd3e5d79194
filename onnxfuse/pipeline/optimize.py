"""Fuse a model for its target, and prove that it computes the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import onnx_ir as ir

from onnxfuse import catalog, targets
from onnxfuse.catalog import model_type
from onnxfuse.config import OptimizeConfig
from onnxfuse.errors import RequirementError, UsageError
from onnxfuse.io import atomic, folders, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.model import METADATA
from onnxfuse.optimizer import UNPAD, fuse, left_out
from onnxfuse.pipeline.explain import explain_file
from onnxfuse.pipeline.step import Clock, Step, unwritten
from onnxfuse.quantize.linears import integer_node
from onnxfuse.quantize.retype import slow_matmuls
from onnxfuse.rewrite.dump import Dump
from onnxfuse.runtime.probes import slow_factor
from onnxfuse.targets import Target
from onnxfuse.verify import tolerances
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.verdict import compare_files

VERIFY = ("off", "final", "each")


def optimize(plan: OptimizeConfig, progress: Progress = silent) -> Step:
    """Fuse a model for its target, check the counts and the outputs, and save it.

    Raises:
        UsageError, ModelError, ParityError; RequirementError when ``plan.require`` is not met.
    """
    clock = Clock()
    target = targets.find(plan.target)
    config = folders.read_config(plan.source)
    model = onnx_file.load(plan.source)
    kind = _kind(model)
    slow = slow_matmuls(model)
    profile_of(model, config).require_length(plan.length or 0)
    family = model_type(model, config, plan.model_type)
    catalog.architecture(family).name_inputs(model, plan.sizes)
    clock.lap("load")
    progress(f"fusing for {target.name}")
    if plan.verify not in VERIFY:
        raise UsageError(f"--verify {plan.verify}: wanted one of {', '.join(VERIFY)}")
    listener = None if plan.dump is None else Dump(model, plan.dump)
    without = plan.without | ({UNPAD} if plan.unpad is False else set())
    fused = fuse(
        model, target, only=plan.only, without=without, zeros=plan.unpad is True, prove=plan.verify == "each", listener=listener
    )
    if plan.unpad and fused.padding.kept:
        raise RequirementError(f"--unpad: padding stays, {fused.padding.kept}; leave --unpad out to optimize with padding")
    clock.lap("fuse")
    clock.split("fuse", "prove", fused.trace.proof_seconds)
    expected = _expected(family, config, target)
    _require(plan, fused.counts, expected)
    details = {
        "model_type": family,
        "target": target.name,
        "fused": fused.counts,
        "expected": expected,
        "padding": str(fused.padding),
        "nodes": len(model.graph),
        "trace": fused.trace.to_json(),
    }
    if slow:
        details["slow_types"] = {"matmuls": slow, "factor": round(slow_factor(), 2)}
    model.metadata_props[METADATA] = json.dumps(
        {"target": target.name, "session": asdict(target.session), "fused": fused.counts, "versions": folders.versions()}
    )
    result = None
    with atomic.replacing(plan.out) as staged:
        onnx_file.save(model, staged)
        clock.lap("save")
        if plan.verify != "off":
            progress("comparing with the original")
            result = compare_files(plan.source, staged, kind, zeros=fused.padding.zeros)
            result.require("optimizing changed the outputs", unwritten(plan.out))
            clock.lap("verify")
    step = Step(plan.out, onnx_file.model_bytes(plan.out), clock.seconds, result, details)
    folders.record(plan.out.parent, "optimize", plan, step.to_json())
    return step


def _kind(model: ir.Model) -> str:
    """The row of ``TOLERANCES`` that a rewrite of the model is held to: by the coarsest numbers that it computes with."""
    if integer_node(model) is not None:
        return "int8"  # a rounding step before int8 is a whole code behind it
    held = {value.dtype for value in (*model.graph.initializers.values(), *model.graph.inputs)}
    return next((kind for dtype, kind in reversed(tolerances.OF_TYPE.items()) if dtype in held), "reassociate")


def _expected(family: str, config: dict[str, Any], target: Target) -> dict[str, int]:
    """What ``models/`` says the model must hold for a target; empty when there is no config.json to say how many layers."""
    architecture = catalog.architecture(family)
    if architecture.layers not in config:
        return {}
    expected = architecture.expected(config, config.get("onnxfuse_task"))
    absent = {fusion.name for fusion in catalog.fusions().values() if left_out(fusion, target)}
    return {name: count for name, count in expected.items() if name not in absent}


def _require(plan: OptimizeConfig, counts: dict[str, int], expected: dict[str, int]) -> None:
    """Hold the counts against ``--require``: "all", or NAME=NUMBER. What is missing is explained."""
    needs: dict[str, int] = {}
    for item in plan.require:
        name, _, number = item.partition("=")
        if item == "all":
            if not expected:
                raise UsageError("--require all needs config.json beside the model, to know how many layers it has")
            needs |= expected
        elif name in counts and number.isdigit():
            needs[name] = int(number)
        else:
            raise UsageError(f"--require {item}: wanted all, or NAME=NUMBER with NAME one of {', '.join(counts)}")
    for name, needed in needs.items():
        if counts[name] != needed:
            missed = [
                str(finding)
                for finding in explain_file(plan.source, plan.target, plan.model_type)
                if finding.fusion == name and not finding.done
            ]
            raise RequirementError("; ".join([f"{name} fused {counts[name]} times, required {needed}", *missed[:1]]))
