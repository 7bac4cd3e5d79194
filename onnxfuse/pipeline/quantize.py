"""Quantize a float model to int8, and save it if it passes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import onnx_ir as ir

from onnxfuse.config import QuantizeConfig
from onnxfuse.errors import UncalibratedError, UsageError
from onnxfuse.evaluate import calibrated
from onnxfuse.evaluate.dataset import Dataset
from onnxfuse.evaluate.sources import dataset_for, default_calibration
from onnxfuse.io import atomic, folders, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.pipeline.step import Clock, Step, unwritten
from onnxfuse.quantize.description import Description
from onnxfuse.quantize.formats import choose_format
from onnxfuse.quantize.gate import meet_thresholds
from onnxfuse.quantize.prepare import prepare
from onnxfuse.quantize.write import write
from onnxfuse.verify.verdict import compare_files


def quantize(plan: QuantizeConfig, progress: Progress = silent) -> Step:
    """Quantize a float model to int8 and save it if it passes the int8 tolerance, and the thresholds that the plan sets.

    Raises:
        UsageError, ModelError; ParityError when the outputs are too far away; RequirementError when thresholds cannot be met.
    """
    clock = Clock()
    model = onnx_file.load(plan.source)
    calibration, uncalibrated = _calibration(plan, model)
    data = calibration if plan.data is None else dataset_for(plan.data, plan.source, model)
    if plan.thresholds and data is None:
        raise UsageError(f"the thresholds need inputs to be measured on; give --data FILE ({uncalibrated})")
    if plan.scheme.static and calibration is None:
        raise UsageError(f"static int8 needs calibration data; give --calibration FILE, or leave --static out ({uncalibrated})")
    clock.lap("load")
    prepared = prepare(model, plan.scheme, None if calibration is None else partial(calibration.batches, plan.batch), progress)
    clock.lap("prepare")
    choice = choose_format(prepared, plan.batch, calibration, progress)
    trade_off = None
    if plan.thresholds:
        assert data is not None
        progress("comparing with float on the data")
        trade_off = meet_thresholds(prepared, plan.source, choice.format, data, plan.batch, plan.thresholds, progress)
        clock.lap("gate")
    kept = () if trade_off is None else trade_off.kept
    description = Description.of(prepared, choice, kept, calibration, plan.batch)
    details = description.to_json()
    with atomic.replacing(plan.out) as staged:
        quantized = write(prepared, kept, choice.format)
        quantized.metadata_props[calibrated.METADATA] = description.metadata()
        onnx_file.save(quantized, staged)
        del model, prepared, quantized
        clock.lap("save")
        progress("comparing with float")
        real = None if calibration is None else calibrated.real_of(calibration, plan.batch)
        result = compare_files(plan.source, staged, "finite" if plan.thresholds else "int8", real=real)
        result.require("the int8 model is not close enough to float", unwritten(plan.out))
        clock.lap("verify")
    details["uncalibrated"] = uncalibrated
    details["size_ratio"] = round(onnx_file.model_bytes(plan.out) / onnx_file.model_bytes(plan.source), 4)
    if trade_off is not None:
        details["gate"] = trade_off.to_json()
    step = Step(plan.out, onnx_file.model_bytes(plan.out), clock.seconds, result, details)
    folders.record(plan.out.parent, "quantize", plan, step.to_json())
    return step


def _calibration(plan: QuantizeConfig, model: ir.Model) -> tuple[Dataset | None, str]:
    """What to calibrate with, or why there is nothing. Raises UsageError, ModelError where it was asked for."""
    if plan.calibration is not None:
        asked = plan.calibration != "none"
        return (dataset_for(Path(plan.calibration), plan.source, model), "") if asked else (None, "as asked")
    try:
        return default_calibration(plan.source, model), ""
    except UncalibratedError as error:
        return None, str(error)
