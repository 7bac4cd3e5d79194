"""The real inputs that an int8 model was calibrated with, found again.

What they were stands in its metadata; they come from the tokenizer beside it, or from the data that its record names, where
these lie in its folder.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse.errors import ModelError, OnnxfuseError, UsageError, one_line
from onnxfuse.evaluation import sources
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.io import door, folders
from onnxfuse.runtime import declared
from onnxfuse.verify.grid import Case
from onnxfuse.verify.verdict import Real

METADATA = "onnxfuse.int8"
"""The key of an int8 model's metadata that says how it was made."""

REAL, ROWS = 8, 8
"""Calibration batches that a calibrated int8 model is compared on, and the rows of each where its metadata does not tell."""


def scheme(model: ir.Model) -> str:
    """Of an int8 model whether its activations' scales are "dynamic" or "static"; "" of another, or where nothing tells."""
    try:
        known = door.parse_json(model.metadata_props.get(METADATA, "{}"), METADATA)
    except ModelError:
        return ""
    return str(known.get("scheme", "")) if isinstance(known, dict) else ""


def real_of(data: Dataset, rows: int) -> Real:
    """The first ``REAL`` batches of ``rows`` samples."""
    batches = itertools.islice(data.batches(rows), REAL)
    return Real(data.name, tuple(Case(f"batch {at} of {data.name}", feeds) for at, feeds in enumerate(batches)))


def real_inputs(path: Path, *beside: Path) -> Real | None:
    """The real inputs that the int8 model in ``path`` was calibrated with; None where it is no int8 model, or was not calibrated.

    Args:
        beside: other files in whose folders the tokenizer or the data may lie.

    Raises:
        UsageError: it was, and the inputs cannot be had again.
        ModelError: its metadata is not what onnxfuse writes.
    """
    model = declared(path)
    wrong = f"{path}: its metadata {METADATA!r}"
    known = door.parse_json(model.metadata_props.get(METADATA, "{}"), wrong)
    try:
        name, rows = known.get("calibration"), int(known.get("rows", ROWS))
        if rows < 1 or not isinstance(name, str | None):
            raise ValueError(f"calibration is {name!r}, in rows of {rows}")
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError(f"{wrong} is not what onnxfuse writes ({one_line(error, 160)}); quantize it again") from error
    if name is None:
        return None
    why = f"{name} is not in {path.parent}"
    for source in (path, *beside):
        try:
            data = _again(name, source, model)
        except OnnxfuseError as error:
            why = str(error).partition("; ")[0]
            continue
        if data is not None:
            return real_of(data, rows)
    raise UsageError(
        f"{path} was calibrated on {name} and must be judged on it, but {why}; put it beside the model, or compare on other "
        "inputs with: onnxfuse check --data"
    )


def _again(name: str, source: Path, model: ir.Model) -> Dataset | None:
    """The data of that name for a model, looked for in the folder of ``source``; None where it is not there.

    Raises:
        UsageError: the model, or its record, names what lies outside that folder: strangers could have us read any file so.
    """
    if name == sources.DEFAULT_DATA:
        return sources.default_calibration(source, model)
    asked, home = _asked(folders.recorded(source.parent)), source.parent.resolve()
    places = [source.parent / name, *([source.parent / asked] if asked.name == name else [])]
    found = [place for place in places if os.path.lexists(place)]
    inside = [place for place in found if place.resolve().is_relative_to(home)]
    if found and not inside:
        raise UsageError(f"{found[0]} lies outside {source.parent}, where a model may not lead")
    return sources.dataset_for(inside[0], source, model) if inside else None


def _asked(record: Any) -> Path:
    """The calibration data that a folder's record names; an empty path where it names none."""
    for key in ("quantize", "plan", "calibration"):
        record = record.get(key) if isinstance(record, dict) else None
    return Path(record) if isinstance(record, str) else Path()
