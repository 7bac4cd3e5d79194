"""Quantize a float model to int8, and save it if it passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse.choice import METADATA
from onnxfuse.config import QuantizeConfig, Scheme
from onnxfuse.errors import ModelError, UncalibratedError, UsageError
from onnxfuse.evaluation import calibrated
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.evaluation.sources import ADVICE, dataset_for, default_calibration
from onnxfuse.io import atomic, door, external, folders, onnx_file
from onnxfuse.io.ours import Replaceable, inputs_of
from onnxfuse.io.progress import Progress, silent
from onnxfuse.pipeline.step import Clock, Step, unwritten
from onnxfuse.quantization.description import Description
from onnxfuse.quantization.formats import choose_format
from onnxfuse.quantization.gate import USUAL, USUAL_PART, TradeOff, meet_thresholds, usual
from onnxfuse.quantization.prepare import UNCALIBRATED, Prepared, prepare, require_worth
from onnxfuse.quantization.write import write
from onnxfuse.runtime import Outputs, runtimes
from onnxfuse.targets import PRECISIONS
from onnxfuse.verify.opened import Opened, blaming
from onnxfuse.verify.verdict import Real, compare_files

STEPS = {folders.STATIC: "quantize-static"}
"""What the record calls the step that makes a file, where it lies beside the one of ``quantize``."""


@dataclass(frozen=True)
class Quantized(Step):
    """An int8 model.

    Args:
        description: what it is, for people and for its own metadata.
        uncalibrated: why it was not calibrated; empty when it was.
        size_ratio: its size, as a part of the float model's.
        gate: what it took to meet the thresholds; None where none were set and it is no classifier, or nothing is there to
            measure it on.
        real: the calibration inputs that it is judged on.
    """

    description: Description
    uncalibrated: str
    size_ratio: float
    gate: TradeOff | None = None
    real: Real | None = field(default=None, repr=False, compare=False)

    @property
    def precision(self) -> str:
        """One of ``targets.PRECISIONS``."""
        return next(name for name, (_, scheme) in PRECISIONS.items() if scheme == self.description.scheme)

    def details(self) -> dict[str, Any]:
        gate = {} if self.gate is None else {"gate": self.gate.to_json()}
        return {**self.description.to_json(), "uncalibrated": self.uncalibrated, "size_ratio": self.size_ratio, **gate}


def quantize(plan: QuantizeConfig, progress: Progress = silent, source: Opened | None = None) -> Quantized:
    """Quantize a float model to int8 and save it if it passes the int8 tolerance, and the thresholds that the plan sets.

    Args:
        source: ``plan.source``, where it is opened already; the result is kept open as it is.

    Raises:
        UsageError, ModelError; ParityError when the outputs are too far away; RequirementError when thresholds cannot be met.
    """
    with blaming(plan.source):
        return _quantize(plan, progress, source or Opened(plan.source))


def _quantize(plan: QuantizeConfig, progress: Progress, source: Opened) -> Quantized:
    clock = Clock()
    guard = Replaceable(inputs_of(plan.source, external.weight_files(source.model)), plan.overwrite)
    guard.require(plan.out, plan.out.with_name(folders.RECORD))
    require_worth(source.model.clone())
    asked, plan = plan.scheme.static, replace(plan, scheme=_settled(plan.scheme, source.model))
    calibration, uncalibrated = _calibration(plan, source.model)
    data = calibration if plan.data is None else dataset_for(plan.data, plan.source, source.model)
    if plan.thresholds and data is None:
        raise UsageError(f"the thresholds need inputs to be measured on; give --data FILE ({uncalibrated.removesuffix(ADVICE)})")
    if plan.scheme.static and calibration is None:
        raise (UsageError if asked else UncalibratedError)(f"{UNCALIBRATED} ({uncalibrated.removesuffix(ADVICE)})")
    clock.lap("load")
    batches = None if calibration is None else partial(calibration.batches, plan.batch)
    count = 0 if calibration is None else -(-len(calibration) // calibration.rows(plan.batch))
    judged = data is not None and bool(plan.thresholds or usual(folders.read_config(plan.source)))
    answers: list[Outputs] | None = [] if judged and data is calibration else None
    prepared = prepare(source.model.clone(), plan.scheme, batches, progress, count, answers)
    clock.lap("prepare")
    choice = choose_format(prepared, plan.batch, calibration, progress)
    gate = None
    if judged and data is not None:
        progress("comparing with float on the data")
        gate = _gate(plan, prepared, choice.format, data, answers or (), progress)
        clock.lap("gate")
    kept = () if gate is None else gate.kept
    description = Description.of(prepared, choice, kept, calibration, plan.batch)
    real = None if calibration is None else calibrated.real_of(calibration, plan.batch)
    with atomic.replacing(plan.out, guard) as staged:
        quantized = write(prepared, kept, choice.format)
        quantized.metadata_props[calibrated.METADATA] = description.metadata()
        saved = Opened(staged, onnx_file.save(quantized, staged), keep=source.keep)
        del prepared, quantized
        clock.lap("save")
        kind, tell = "finite" if plan.thresholds else "int8", partial(progress, "comparing with float")
        result = compare_files(source, saved, kind, real=real, tell=tell)
        result.require("the int8 model is not close enough to float", unwritten(plan.out))
        clock.lap("verify")
        ratio = round(saved.size / source.size, 4)
        step = Quantized(plan.out, saved.size, clock.seconds, result, saved, description, uncalibrated, ratio, gate, real)
        folders.record(plan.out.parent, STEPS.get(plan.out.name, "quantize"), _asked(plan), step.to_json(), staged=staged)
    saved.move(plan.out)
    return step


def _gate(
    plan: QuantizeConfig, prepared: Prepared, format: str, data: Dataset, answers: Sequence[Outputs], progress: Progress
) -> TradeOff:
    """What it takes to keep what the plan asks for, or else what a classifier keeps by itself, which no labels are needed for."""
    wanted, most = plan.thresholds, None
    if not wanted:
        wanted, data, most = USUAL, replace(data, labels=None), len(prepared.linears) // USUAL_PART
    return meet_thresholds(prepared, plan.source, format, data, plan.batch, wanted, progress, most, answers)


def _asked(plan: QuantizeConfig) -> dict[str, Any]:
    """The plan as the record holds it: its calibration data is a path."""
    named = plan.calibration in (None, "none")
    return asdict(plan) | ({} if named else {"calibration": Path(str(plan.calibration))})


def _settled(scheme: Scheme, model: ir.Model) -> Scheme:
    """The scheme as the model's target has it, where it leaves that open: static if that was chosen, in its runtime's format."""
    try:
        note = door.parse_json(model.metadata_props.get(METADATA, "{}"), METADATA)
    except ModelError:
        note = {}
    note = note if isinstance(note, dict) else {}
    if scheme.static is None:
        scheme = replace(scheme, static=PRECISIONS.get(str(note.get("precision")), ("", ""))[1] == "static")
    session = note.get("session")
    runtime = runtimes().get(str(session.get("runtime"))) if isinstance(session, dict) else None
    if scheme.static and scheme.format == "auto" and runtime is not None:
        scheme = replace(scheme, format=runtime.static)
    return scheme


def _calibration(plan: QuantizeConfig, model: ir.Model) -> tuple[Dataset | None, str]:
    """What to calibrate with, or why there is nothing. Raises UsageError, ModelError where it was asked for."""
    if plan.calibration is not None:
        asked = plan.calibration != "none"
        return (dataset_for(Path(plan.calibration), plan.source, model), "") if asked else (None, "as asked")
    try:
        return default_calibration(plan.source, model), ""
    except UncalibratedError as error:
        return None, str(error)
