"""The outputs of the model that others are compared with, and which of their numbers need not be equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxfuse.errors import ModelError
from onnxfuse.runtime import Feeds, Outputs, Runner
from onnxfuse.verify.arrays import differs, is_discrete
from onnxfuse.verify.grid import Case
from onnxfuse.verify.opened import afresh

STEADY = 1e-5
"""An output whose numbers lie within this part of its largest counts as constant, where no smaller difference is asked."""


@dataclass(frozen=True)
class Expected:
    """The reference's outputs on a case. ``free``: by output, which of its numbers need not be equal, only finite."""

    case: Case
    outputs: Outputs
    free: Mapping[str, np.ndarray] = field(default_factory=dict)


def expect(run: Runner, cases: Iterable[Case]) -> list[Expected]:
    """Run the model that others are compared with, once for every case, and again where padding leaves something free.

    Raises:
        ModelError: it cannot run, an output is not a tensor, or it gives other outputs for the same inputs.
    """
    found: list[Expected] = []
    for case in cases:
        outputs = outputs_of(run, case.feeds)
        if not found:
            _require_steady(outputs, outputs_of(afresh(run), case.feeds))
        free: Mapping[str, np.ndarray] = {}
        if case.twins:
            free = _free(outputs, *(outputs_of(run, feeds) for feeds in case.twins))
        if case.sides:
            free = _without_key(outputs, *(outputs_of(run, feeds) for feeds in case.sides))
        found.append(Expected(case, outputs, free))
    return found


def _require_steady(first: Outputs, second: Outputs) -> None:
    """Raises ModelError where a model's outputs for the same inputs differ by more than rounding."""
    for name, array in first.items():
        if is_discrete(array) or array.shape != second[name].shape:
            moved = bool(differs(array, second[name]).any())
        else:
            a, b = (np.nan_to_num(output.astype(np.float64), posinf=0.0, neginf=0.0) for output in (array, second[name]))
            moved = bool(np.abs(a - b).max(initial=0.0) > STEADY * np.abs(a).max(initial=0.0))
        if moved:
            raise ModelError(
                f"output {name!r} of the original is another each time for the same inputs, so that nothing can be "
                "compared with it; take its random operators out"
            )


def _free(outputs: Outputs, first: Outputs, second: Outputs) -> dict[str, np.ndarray]:
    """Which numbers of ``outputs`` belong to the row that the twins differ in.

    Where whole slices of an output differ, those do; where nothing differs in an array of real numbers, none does. One number
    for all rows, and whole numbers or texts that differ in parts or nowhere, may still hang on that row (the largest number, the
    largest class): all of such an output is free.
    """
    found = {}
    for name, array in outputs.items():
        free = np.ones(array.shape, dtype=bool)
        if first[name].shape == second[name].shape == array.shape:
            different = differs(first[name], second[name])
            if _whole_slices(different) or (array.ndim and not is_discrete(array)):
                free = different
        found[name] = free
    return found


def _without_key(outputs: Outputs, one: Outputs, other_real: Outputs, other_padding: Outputs) -> dict[str, np.ndarray]:
    """Which numbers of ``outputs`` no real token reaches, but padding does, even in a model's outputs without any padding."""
    unpadded = (one, other_real, other_padding)
    return {
        name: differs(one[name], other_padding[name]) & ~differs(one[name], other_real[name])
        for name, array in outputs.items()
        if all(outputs[name].shape == array.shape for outputs in unpadded)
    }


def _whole_slices(different: np.ndarray) -> bool:
    """Whether ``different`` is whole slices of one axis."""
    for axis in range(different.ndim):
        along = different.any(axis=tuple(other for other in range(different.ndim) if other != axis), keepdims=True)
        if along.any() and np.array_equal(np.broadcast_to(along, different.shape), different):
            return True
    return False


def outputs_of(run: Runner, feeds: Feeds) -> Outputs:
    outputs = run(feeds)
    for name, array in outputs.items():
        if isinstance(array, (list, tuple, dict)):
            raise ModelError(f"output {name!r} is a {type(array).__name__}, wanted a tensor; leave it out of the model")
    return {name: np.asarray(array) for name, array in outputs.items()}
