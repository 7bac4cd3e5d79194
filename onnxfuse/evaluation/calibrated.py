"""The real inputs that an int8 model was calibrated with, found again.

What they were stands in its metadata; they come from the tokenizer beside it, or from the data that its record names.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse.errors import ModelError, OnnxfuseError, UsageError
from onnxfuse.evaluation import sources
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.io import folders, onnx_file
from onnxfuse.verify.grid import Case
from onnxfuse.verify.verdict import Real

METADATA = "onnxfuse.int8"
"""The key of an int8 model's metadata that says how it was made."""

REAL, ROWS = 8, 8
"""Calibration batches that a calibrated int8 model is compared on, and the rows of each where its metadata does not tell."""


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
    model = onnx_file.load(path)
    try:
        known = json.loads(model.metadata_props.get(METADATA, "{}"))
        name, rows = known.get("calibration"), int(known.get("rows", ROWS))
        if rows < 1 or not isinstance(name, str | None):
            raise ValueError(f"calibration is {name!r}, in rows of {rows}")
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: its metadata {METADATA!r} is not what onnxfuse writes ({error}); quantize it again") from error
    if name is None:
        return None
    why = f"{name} is not there any more"
    for source in (path, *beside):
        try:
            data = _again(name, source, model)
        except OnnxfuseError as error:
            why = str(error).partition("; ")[0]
            continue
        if data is not None:
            return real_of(data, rows)
    raise UsageError(
        f"{path} was calibrated on {name} and must be judged on it, but {why}; put it back, or compare on other "
        "inputs with: onnxfuse check --data"
    )


def _again(name: str, source: Path, model: ir.Model) -> Dataset | None:
    """The data of that name for a model, looked for from ``source``; None where it is not there."""
    if name == sources.DEFAULT_DATA:
        return sources.default_calibration(source, model)
    asked = _asked(folders.recorded(source.parent))
    places = [asked, source.parent / asked] if asked.name == name else []
    found = next((place for place in (*places, source.parent / name) if place.exists()), None)
    return None if found is None else sources.dataset_for(found, source, model)


def _asked(record: Any) -> Path:
    """The calibration data that a folder's record names; an empty path where it names none."""
    for key in ("quantize", "plan", "calibration"):
        record = record.get(key) if isinstance(record, dict) else None
    return Path(record) if isinstance(record, str) else Path()
