"""How models are held against each other: the one rule, for every verb.

    float     on the grid of random inputs, by the row of ``tolerances.TOLERANCES`` that is asked
    int8      where it was calibrated with real inputs: on those, since random ids lie outside the ranges that it was made for;
              on the grid it must only be finite. Where it was not calibrated: on the grid

What an int8 file was calibrated with, ``evaluation.calibrated`` finds again.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.architecture import MASK
from onnxfuse.errors import ModelError, OnnxfuseError, ParityError
from onnxfuse.io.progress import Share, counted, untold
from onnxfuse.runtime import Feeds, Outputs, Runner, Settings, declared
from onnxfuse.verify import parity
from onnxfuse.verify.arrays import is_discrete
from onnxfuse.verify.expected import Expected, expect
from onnxfuse.verify.grid import Case, grid
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.meaning import understood
from onnxfuse.verify.opened import PLAIN, Opened, opened
from onnxfuse.verify.parity import Parity
from onnxfuse.verify.profile import BATCH, LENGTH, Profile

HALF = 0.5
"""The share of a comparison that the reference's runs are."""


@dataclass(frozen=True)
class Real:
    """Real inputs to judge a model on, and what they are."""

    name: str
    cases: tuple[Case, ...]


def judge(random: Sequence[Expected], real: Sequence[Expected], run: Runner, kind: str, name: str = "") -> Parity:
    """Compare a model with a reference's outputs on random and, for one that was calibrated, on real inputs.

    Args:
        random: the reference's outputs on the grid.
        real: the same on the real inputs that the model was calibrated with; empty where it was not.
        kind: a row of ``tolerances.TOLERANCES``.
        name: what the real inputs are.

    Raises:
        ParityError: see ``parity.compare``.
    """
    if not real:
        return parity.compare(random, run, kind)
    finite = parity.compare(random, run, "finite")
    return finite if finite.failures else replace(parity.compare(real, run, kind), real=name)


def compare_files(
    first: Path | Opened,
    second: Path | Opened,
    kind: str,
    *,
    real: Real | None = None,
    zeros: Sequence[str] = (),
    settings: Settings = PLAIN,
    tell: Share = untold,
) -> Parity:
    """Compare two files on the grid of the first's inputs, in the sizes that both take.

    One of them is in memory at a time, where they do not ``keep`` their runners.

    Args:
        first: the reference.
        kind: a row of ``tolerances.TOLERANCES``.
        real: what the second was calibrated with.
        zeros: outputs that are wanted to be zero at padding.
        tell: is told how much is done.

    Raises:
        ModelError: one of them cannot run.
        ParityError: other inputs or outputs, or see ``parity.compare``.
    """
    first, second = opened(first), opened(second)
    _require_alike(first, second)
    run = first.runner(settings)
    profile = profile_of_both(first, second.declared, run)
    random = expect(run, counted(list(grid(profile)), tell, end=HALF))
    require_numbers(random, first.declared, str(first))
    for expected in random:
        for name in zeros:
            keep, output = _tokens(profile, expected.case), expected.outputs[name]
            expected.outputs[name] = np.where(keep.reshape(keep.shape + (1,) * (output.ndim - 2)), output, 0)
    known = [] if real is None else expect(run, real.cases)
    del run
    if not first.keep:
        first.close()
        gc.collect()
    calls = counted(range(len(random) + len(known)), tell, begin=HALF)

    def told(feeds: Feeds) -> Outputs:
        next(calls, None)
        return judged(feeds)

    judged = second.runner(settings)
    return judge(random, known, told, kind, "" if real is None else real.name)


def require_numbers(expected: Sequence[Expected], model: ir.Model, name: str, error: type[OnnxfuseError] = ModelError) -> None:
    """Raises ``error`` where a model computes NaN and one of its weights holds some, or where it computes nothing finite at all.

    (A row without a token may be NaN in a model that is whole.)
    """
    outputs = [array for entry in expected for array in entry.outputs.values()]
    numbers = [array.astype(np.float64) for array in outputs if not is_discrete(array)]
    if not any(np.isnan(array).any() for array in numbers):
        return
    for weight, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype.is_floating_point() and tensor.size > 1 and np.isnan(tensor.numpy()).any():
            raise error(f"{name}: weight {weight} holds NaN; save the model again")
    if not any(np.isfinite(array).any() for array in numbers):
        raise error(
            f"{name} computes from all random inputs NaN or infinity; a number in its config.json or its weights is wrong"
        )


def _tokens(profile: Profile, case: Case) -> np.ndarray:
    """Where there is no padding [B,S]: by the mask of the usual name, else by the only one of that shape."""
    masks = {value.name: value for value in profile.inputs if value.role == "mask" and len(value.shape) == 2}
    mask = masks.get(MASK) or next(iter(masks.values()))
    return np.asarray(case.feeds[mask.name] != mask.meaning[1])


def profile_of_both(first: Opened, second: ir.Model, run: Runner) -> Profile:
    """The first's inputs in the sizes that the second takes, too; ``run`` is the first's. Raises as ``understood``."""
    fixed = profile_of(second, first.config)
    return understood(first.inputs.fixed(fixed.only(BATCH), fixed.only(LENGTH)), run)


def _require_alike(first: Opened, second: Opened) -> None:
    """Raises ParityError when two models take or give other things by name, or inputs of another type."""
    names = [str(first.path), str(second)]
    graphs = [model.declared.graph for model in (first, second)]
    inputs = [{value.name or "": value.dtype for value in graph.inputs if value.const_value is None} for graph in graphs]
    outputs = [{value.name or "" for value in graph.outputs} for graph in graphs]
    _require_same_names("input", dict(zip(names, map(set, inputs), strict=True)))
    _require_same_names("output", dict(zip(names, outputs, strict=True)))
    for name, dtype in inputs[0].items():
        if dtype != inputs[1][name]:
            raise ParityError(
                f"input {name} is {dtype} in {names[0]} and {inputs[1][name]} in {names[1]}; models are compared "
                "on the same inputs"
            )


def _require_same_names(kind: str, models: Mapping[str, set[str]]) -> None:
    for (owner, mine), (other, theirs) in itertools.permutations(models.items(), 2):
        if missing := sorted(mine - theirs):
            raise ParityError(
                f"{other} has no {kind} {', '.join(missing)}, which {owner} has; {other} has "
                f"{', '.join(sorted(theirs)) or 'none'}"
            )


def grid_of(path: Path, config: Mapping[str, Any]) -> list[Case]:
    """The parity grid of a model file."""
    return list(grid(profile_of(declared(path), config)))


def profile_of_file(path: Path, config: Mapping[str, Any], run: Runner) -> Profile:
    """What a model file takes, with its masks as ``run`` means them."""
    return understood(profile_of(declared(path), config), run)
