"""How models are held against each other: the one rule, for every verb.

    float     on the grid of random inputs, by the row of ``parity.TOLERANCES`` that is asked
    int8      where it was calibrated with real inputs: on those, since random ids lie outside the ranges that it was made for;
              on the grid it must only be finite. Where it was not calibrated: on the grid

What an int8 file was calibrated with stands in its metadata; the inputs themselves are had again, from the tokenizer beside it or
from the data that ``onnxfuse.json`` names.
"""

from __future__ import annotations

import gc
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse import files, parity, samples, storage
from onnxfuse import plan as plans
from onnxfuse.architecture import MASK
from onnxfuse.errors import ModelError, OnnxfuseError, ParityError, UsageError
from onnxfuse.evaluate import sources
from onnxfuse.evaluate.dataset import Dataset
from onnxfuse.parity import Expected, Parity
from onnxfuse.runtime import Runner, Settings, open_runner
from onnxfuse.samples import Case

METADATA = "onnxfuse.int8"
"""The key of an int8 model's metadata that says how it was made."""

REAL, ROWS = 8, 8
"""Calibration batches that a calibrated int8 model is compared on, and the rows of each where its metadata does not tell."""


@dataclass(frozen=True)
class Real:
    """Real inputs to judge a model on, and what they are."""

    name: str
    cases: tuple[Case, ...]

    @classmethod
    def of(cls, data: Dataset, rows: int) -> Real:
        """The first ``REAL`` batches of ``rows`` samples."""
        batches = itertools.islice(data.batches(rows), REAL)
        return cls(data.name, tuple(Case(f"batch {at} of {data.name}", feeds) for at, feeds in enumerate(batches)))


def note(details: Mapping[str, Any], rows: int) -> str:
    """The metadata of an int8 model. Data go by their last name: a path would tell whose machine it was.

    Args:
        rows: in a batch of the calibration data.
    """
    said = details["calibration"]
    return json.dumps({**details, "calibration": None if said is None else Path(said).name, "rows": rows})


def real_inputs(path: Path, *beside: Path) -> Real | None:
    """The real inputs that the int8 model in ``path`` was calibrated with; None where it is no int8 model, or was not calibrated.

    Args:
        beside: other files in whose folders the tokenizer or the data may lie.

    Raises:
        UsageError: it was, and the inputs cannot be had again.
        ModelError: its metadata is not what ``note`` writes.
    """
    model = storage.load(path)
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
            return Real.of(data, rows)
    raise UsageError(f"{path} was calibrated on {name} and must be judged on it, but {why}; put it back, or compare on other "
                     "inputs with: onnxfuse check --data")


def _again(name: str, source: Path, model: ir.Model) -> Dataset | None:
    """The data of that name for a model, looked for from ``source``; None where it is not there."""
    if name == sources.SAID:
        return sources.default_calibration(source, model)
    asked = _asked(plans.recorded(source.parent))
    places = [asked, source.parent / asked] if asked.name == name else []
    found = next((place for place in (*places, source.parent / name) if place.exists()), None)
    return None if found is None else sources.dataset_for(found, source, model)


def _asked(record: Any) -> Path:
    """The calibration data that a folder's record names; an empty path where it names none."""
    for key in ("quantize", "plan", "calibration"):
        record = record.get(key) if isinstance(record, dict) else None
    return Path(record) if isinstance(record, str) else Path()


def judge(random: Sequence[Expected], real: Sequence[Expected], run: Runner, kind: str, name: str = "") -> Parity:
    """Compare a model with a reference's outputs on random and, for one that was calibrated, on real inputs.

    Args:
        random: the reference's outputs on the grid.
        real: the same on the real inputs that the model was calibrated with; empty where it was not.
        kind: a row of ``parity.TOLERANCES``.
        name: what the real inputs are.

    Raises:
        ParityError: see ``parity.compare``.
    """
    if not real:
        return parity.compare(random, run, kind)
    finite = parity.compare(random, run, "bars")
    return finite if finite.failures else replace(parity.compare(real, run, kind), real=name)


def compare_files(first: Path, second: Path, kind: str, *, real: Real | None = None, zeros: Sequence[str] = (),
                  settings: Settings = Settings()) -> Parity:  # noqa: B008 - frozen
    """Compare two files on the grid of the first's inputs, in the sizes that both take, holding one of them in memory at a time.

    Args:
        first: the reference.
        kind: a row of ``parity.TOLERANCES``.
        real: what the second was calibrated with.
        zeros: outputs that are wanted to be zero at padding.

    Raises:
        ModelError: one of them cannot run.
        ParityError: other inputs or outputs, or see ``parity.compare``.
    """
    model, other = storage.load(first), storage.load(second)
    _require_alike(model, other, first, files.shown(second))
    config = plans.read_config(first)
    fixed = samples.profile_of(other, config)
    run = open_runner(first, settings)
    profile = samples.profile_of(model, config).fixed(fixed.only(samples.BATCH), fixed.only(samples.LENGTH))
    profile = samples.understood(profile, run)
    random = parity.reference(run, samples.grid(profile))
    require_numbers(random, model, str(files.shown(first)))
    for expected in random:
        for name in zeros:
            keep, output = _tokens(profile, expected.case), expected.outputs[name]
            expected.outputs[name] = np.where(keep.reshape(keep.shape + (1,) * (output.ndim - 2)), output, 0)
    known = [] if real is None else parity.reference(run, real.cases)
    del run
    gc.collect()
    return judge(random, known, open_runner(second, settings), kind, "" if real is None else real.name)


def require_numbers(expected: Sequence[Expected], model: ir.Model, name: str, error: type[OnnxfuseError] = ModelError) -> None:
    """Raises ``error`` where a model answers NaN and one of its weights holds some, or where it answers nothing finite at all.

    (A row without a token may be NaN in a model that is whole.)
    """
    outputs = [array for entry in expected for array in entry.outputs.values()]
    answers = [array.astype(np.float64) for array in outputs if not parity.is_discrete(array)]
    if not any(np.isnan(array).any() for array in answers):
        return
    for weight, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_floating_point() and tensor.size > 1 and np.isnan(tensor.numpy()).any():
            raise error(f"{name}: weight {weight} holds NaN; save the model again")
    if not any(np.isfinite(array).any() for array in answers):
        raise error(f"{name} answers all random inputs with NaN or infinity; a number in its config.json or its weights is wrong")


def _tokens(profile: samples.Profile, case: Case) -> np.ndarray:
    """Where there is no padding [B,S]: by the mask of the usual name, else by the only one of that shape."""
    masks = {value.name: value for value in profile.inputs if value.role == "mask" and len(value.shape) == 2}
    mask = masks.get(MASK) or next(iter(masks.values()))
    return case.feeds[mask.name] != mask.meaning[1]


def _require_alike(first: ir.Model, second: ir.Model, *names: Path) -> None:
    """Raises ParityError when two models take or give other things by name, or inputs of another type."""
    inputs = [{value.name or "": value.dtype for value in model.graph.inputs if value.const_value is None}
              for model in (first, second)]
    outputs = [{value.name or "" for value in model.graph.outputs} for model in (first, second)]
    _require_same_names("input", dict(zip(names, map(set, inputs), strict=True)))
    _require_same_names("output", dict(zip(names, outputs, strict=True)))
    for name, dtype in inputs[0].items():
        if dtype != inputs[1][name]:
            raise ParityError(f"input {name} is {dtype} in {names[0]} and {inputs[1][name]} in {names[1]}; models are compared "
                              "on the same inputs")


def _require_same_names(kind: str, models: Mapping[Path, set[str]]) -> None:
    for (owner, mine), (other, theirs) in itertools.permutations(models.items(), 2):
        if missing := sorted(mine - theirs):
            raise ParityError(f"{other} has no {kind} {', '.join(missing)}, which {owner} has; {other} has "
                              f"{', '.join(sorted(theirs)) or 'none'}")


def grid(path: Path, config: Mapping[str, Any]) -> list[Case]:
    """The parity grid of a model file."""
    return list(samples.grid(samples.profile_of(storage.load(path), config)))


def understood(path: Path, config: Mapping[str, Any], run: Runner) -> samples.Profile:
    """What a model file takes, with its masks as ``run`` means them."""
    return samples.understood(samples.profile_of(storage.load(path), config), run)
