"""Whether two models compute the same: one grid of inputs, one table of tolerances, one verdict.

Outputs may have any rank, type and order of axes. Nothing here has a default tolerance. A comparison that could not have failed
(no outputs, nothing compared, no output that varies) is an error, not a pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import ModelError, ParityError
from onnxfuse.runtime import Feeds, Outputs, Runner
from onnxfuse.verify.inputs import Case
from onnxfuse.verify.opened import afresh
from onnxfuse.verify.profile import differs


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may differ, and why. None does not ask.

    Args:
        relative: largest difference of a number, as a part of the reference's largest absolute value over the grid.
        element: the same as a part of the number itself, or of the output's typical number where that is larger.
        cosine: lowest cosine between an output and its reference over the whole grid, centred on the reference's mean; of all
            numbers, and of those that are ordinary beside a few huge ones.
        equal: lowest share of whole numbers, truth values and texts that are equal.
    """

    relative: float | None
    element: float | None
    cosine: float | None
    equal: float
    reason: str


TOLERANCES = {
    "exact": Tolerance(0.0, None, None, 1.0, "the same operations in the same order"),
    "reassociate": Tolerance(
        1e-5,
        1e-3,
        None,
        1.0,
        "float32 sums in another order: 12 to 24 layers of rounding at 6e-8 each; measured 1e-6 to 3e-6 of "
        "the largest number, and up to 5e-5 of a typical one where some channels are 70 times as large",
    ),
    "half": Tolerance(
        1e-2,
        0.25,
        None,
        1.0,
        "weights rounded to float16, 5e-4 of each: 12 layers of them; measured 4e-4 to 2.7e-3 of the largest "
        "number, and up to 6e-2 of a typical one where some channels are 70 times as large",
    ),
    "bfloat16": Tolerance(
        8e-2,
        0.5,
        None,
        1.0,
        "sums in another order, each number rounded to bfloat16, 4e-3 of it: over 12 layers, measured 4e-3 to "
        "1.9e-2 of the largest number, and up to 1.1e-1 of a typical one",
    ),
    "int8": Tolerance(
        None,
        None,
        0.98,
        0.9,
        "8 bits for weights and activations; per-tensor activation scales cost about 0.007 of cosine on trained "
        "sentence encoders, and a dropped bias or swapped scale costs more than 0.05; of classes that are near "
        "each other some change",
    ),
    "finite": Tolerance(
        None, None, None, 0.0, "int8 that is judged on real inputs, or by the user's thresholds: on these it must only be finite"
    ),
}


OF_TYPE = {ir.DataType.FLOAT16: "half", ir.DataType.BFLOAT16: "bfloat16"}
"""The row that two models are held to which compute in a type narrower than float32."""

OF_PRECISION = {"fp32": "reassociate", "fp16": "half", "bf16": "int8", "int8": "int8"}
"""The row that a model of each precision is held to when it is compared with float32."""

STEADY = 1e-5
"""An output whose numbers lie within this part of its largest counts as constant, where no smaller difference is asked."""

HUGE = 100
"""Numbers so many times as large as an output's typical one are not ordinary: fillers at padding, channels with outliers."""

SAMPLED = 1 << 20
"""Numbers of an output that its typical one is read off."""


@dataclass(frozen=True)
class Expected:
    """The reference's outputs on a case. ``free``: by output, which of its numbers need not be equal, only finite."""

    case: Case
    outputs: Outputs
    free: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """How one output differs over the whole grid.

    Args:
        error: largest difference, relative to the reference's largest absolute value.
        element: largest difference, relative to the number itself or to a typical one, whichever is larger.
        cosine: with the reference, centred; 1 for what does not vary.
        agreement: share of the rows whose largest number stays in its place.
        equal: share of the numbers that are equal.
        worst: the case of ``error``.
        compared: how many numbers.
        free: how many others belong to rows or queries without a token: they must be finite, and are not compared.
        varies: whether the reference's numbers differ by more than the tolerance, so that the comparison could have failed.
        discrete: whether these are whole numbers, truth values or texts.

    Of what is discrete, ``error`` and ``element`` are the share that differs, ``cosine`` is ``equal``.
    """

    output: str
    error: float
    element: float
    cosine: float
    agreement: float
    equal: float
    worst: str
    compared: int
    varies: bool
    discrete: bool
    free: int


@dataclass(frozen=True)
class Parity:
    """The outcome of a comparison: every output's difference, and the tolerance it was judged by.

    ``real``: what the inputs are, where they are not random.
    """

    differences: tuple[Difference, ...]
    cases: int
    kind: str
    failures: tuple[str, ...] = field(default=())
    real: str = ""

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def error(self) -> float:
        return max(difference.error for difference in self.differences)

    @property
    def cosine(self) -> float:
        return min(difference.cosine for difference in self.differences)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "passed": self.passed,
            "error": self.error,
            "cosine": self.cosine,
            "tolerance": asdict(TOLERANCES[self.kind]),
        }

    def require(self, what: str, then: str = "") -> Parity:
        """Itself, or a ParityError that says where it failed, and ``then`` what became of the files."""
        if self.failures:
            raise ParityError(f"{what}: {self.failures[0]}" + (f"; {then}" if then else ""))
        return self


def reference(run: Runner, cases: Iterable[Case]) -> list[Expected]:
    """Run the model that others are compared with, once for every case, and again where padding leaves something free.

    Raises:
        ModelError: it cannot run, an output is not a tensor, or it gives other outputs for the same inputs.
    """
    found: list[Expected] = []
    for case in cases:
        outputs = _outputs(run, case.feeds)
        if not found:
            _require_steady(outputs, _outputs(afresh(run), case.feeds))
        free: Mapping[str, np.ndarray] = {}
        if case.twins:
            free = _free(outputs, *(_outputs(run, feeds) for feeds in case.twins))
        if case.sides:
            free = _without_key(outputs, *(_outputs(run, feeds) for feeds in case.sides))
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


def _outputs(run: Runner, feeds: Feeds) -> Outputs:
    outputs = run(feeds)
    for name, array in outputs.items():
        if isinstance(array, (list, tuple, dict)):
            raise ModelError(f"output {name!r} is a {type(array).__name__}, wanted a tensor; leave it out of the model")
    return {name: np.asarray(array) for name, array in outputs.items()}


def compare(expected: Sequence[Expected], run: Runner, kind: str) -> Parity:
    """Compare a model with reference outputs on every case.

    Args:
        expected: from ``reference``.
        run: the model in question.
        kind: a row of ``TOLERANCES``.

    Raises:
        ParityError: the comparison could not have failed, or the outputs have other names or shapes.
    """
    if not expected:
        raise ParityError("nothing was compared: the grid is empty")
    if not expected[0].outputs:
        raise ParityError("nothing was compared: the reference has no outputs")
    tolerance = TOLERANCES[kind]
    outputs = {
        name: (_Items if is_discrete(array) else _Numbers)(name, expected, tolerance)
        for name, array in expected[0].outputs.items()
    }
    for entry in expected:
        got = _outputs(run, entry.case.feeds)
        _require_names(set(entry.outputs), set(got))
        for name, output in outputs.items():
            output.add(entry, got[name])
    differences = tuple(output.difference() for output in outputs.values())
    if not any(difference.varies for difference in differences):
        raise ParityError(
            f"nothing can be compared: none of the reference's outputs varies over the inputs ({', '.join(outputs)})"
        )
    return Parity(differences, len(expected), kind, tuple(text for output in outputs.values() for text in output.failures()))


def _require_names(wanted: set[str], got: set[str]) -> None:
    if missing := sorted(wanted - got):
        raise ParityError(
            f"there is no output {', '.join(map(repr, missing))}, which the reference has; there is "
            f"{', '.join(map(repr, sorted(got))) or 'none'}"
        )
    if more := sorted(got - wanted):
        raise ParityError(f"there is an output {', '.join(map(repr, more))}, which the reference has not")


def is_discrete(array: np.ndarray) -> bool:
    """Whether an output holds whole numbers, truth values or texts."""
    return array.dtype.kind in "biuOSU"


def _bound(entry: Expected, name: str) -> np.ndarray:
    """Which numbers of an output must agree."""
    free = entry.free.get(name)
    return np.ones(entry.outputs[name].shape, dtype=bool) if free is None else ~free


class _Output(ABC):
    """One output, compared case by case; of the cases only sums and extremes are kept."""

    def __init__(self, name: str, expected: Sequence[Expected], tolerance: Tolerance) -> None:
        self.name, self.tolerance = name, tolerance
        self.wrong: list[str] = []
        self.compared = self.same = self.free = 0

    def add(self, entry: Expected, got: np.ndarray) -> None:
        """Compare on one case. Raises ParityError when the shape is another."""
        wanted, case = entry.outputs[self.name], entry.case.name
        if got.shape != wanted.shape:
            raise ParityError(f"output {self.name!r} has shape {list(got.shape)} on {case}, wanted {list(wanted.shape)}")
        if got.dtype != wanted.dtype:
            self._refuse(f"has type {got.dtype}, wanted {wanted.dtype}")
        bound = _bound(entry, self.name)
        self.free += int((~bound).sum())
        if is_discrete(got) == is_discrete(wanted):
            self._measure(wanted, got, bound, case)

    @abstractmethod
    def _measure(self, wanted: np.ndarray, got: np.ndarray, bound: np.ndarray, case: str) -> None:
        """Take in the numbers of a case, of which those that are ``bound`` must agree."""

    @abstractmethod
    def difference(self) -> Difference:
        """What came out."""

    def failures(self) -> list[str]:
        """Where the tolerance is not kept."""
        return self.wrong

    def _count(self, equal: np.ndarray) -> None:
        self.compared += equal.size
        self.same += int(equal.sum())

    def _refuse(self, text: str) -> None:
        text = f"output {self.name!r} {text}"
        if text not in self.wrong:
            self.wrong.append(text)

    @property
    def equal(self) -> float:
        return self.same / self.compared if self.compared else 1.0


class _Items(_Output):
    """Whole numbers, truth values or texts: equal or not."""

    def __init__(self, name: str, expected: Sequence[Expected], tolerance: Tolerance) -> None:
        super().__init__(name, expected, tolerance)
        self.worst, self.unequal = "", -1
        self.items = {item for entry in expected for item in entry.outputs[name][_bound(entry, name)].tolist()[: 1 << 16]}

    def _measure(self, wanted: np.ndarray, got: np.ndarray, bound: np.ndarray, case: str) -> None:
        equal = np.asarray(wanted == got)[bound]
        self._count(equal)
        if (unequal := int((~equal).sum())) > self.unequal:
            self.worst, self.unequal = case, unequal

    def difference(self) -> Difference:
        share = self.equal
        return Difference(
            self.name,
            1 - share,
            1 - share,
            share,
            share,
            share,
            self.worst,
            self.compared,
            len(self.items) > 1,
            discrete=True,
            free=self.free,
        )

    def failures(self) -> list[str]:
        if self.equal >= self.tolerance.equal:
            return self.wrong
        return [
            *self.wrong,
            f"output {self.name!r} is equal in {self.equal:.2%} of {self.compared}, wanted "
            f"{self.tolerance.equal:.0%}; most differ on {self.worst}",
        ]


class _Numbers(_Output):
    """Real numbers: near or far."""

    def __init__(self, name: str, expected: Sequence[Expected], tolerance: Tolerance) -> None:
        super().__init__(name, expected, tolerance)
        known = [array[_bound(entry, name) & np.isfinite(array)] for entry in expected for array in (entry.outputs[name],)]
        self.typical = _typical(known)
        self.parts = [_Part(known, limit) for limit in (np.inf, HUGE * self.typical)]
        self.error, self.element, self.worst, self.numbers = -1.0, -1.0, "", ""
        self.rows = self.kept = 0

    def _measure(self, wanted: np.ndarray, got: np.ndarray, bound: np.ndarray, case: str) -> None:
        a, b = wanted.astype(np.float64), got.astype(np.float64)
        finite = np.isfinite(a), np.isfinite(b)
        if (~finite[1] & (finite[0] | bound & differs(a, b))).any():
            self._refuse(f"is not finite on {case}")
        if (bound & finite[1] & ~finite[0]).any():
            self._refuse(f"is finite on {case} where the reference is not")
        known = bound & finite[0] & finite[1]
        if a.ndim > 1 and a.shape[-1] > 1:
            whole = known.all(axis=-1)
            self.rows += int(whole.sum())
            self.kept += int((a.argmax(-1) == b.argmax(-1))[whole].sum())
        a, b = a[known], b[known]
        self._count(a == b)
        if not a.size:
            return
        off = np.abs(a - b)
        if off.max() > self.error:
            self.error, self.worst = float(off.max()), case
        own = off / np.maximum(np.abs(a), self.typical)
        if own.max() > self.element:
            at = int(own.argmax())
            self.element, self.numbers = float(own[at]), f"{b[at]:.6g} where the reference is {a[at]:.6g} on {case}"
        for part in self.parts:
            part.add(a, b)

    def difference(self) -> Difference:
        asked = STEADY if self.tolerance.relative is None else self.tolerance.relative
        varying = [part for part in self.parts if part.spread > asked * part.largest]
        largest = self.parts[0].largest or 1.0
        return Difference(
            self.name,
            max(self.error, 0.0) / largest,
            max(self.element, 0.0),
            min((part.cosine for part in varying), default=1.0),
            self.kept / self.rows if self.rows else 1.0,
            self.equal,
            self.worst,
            self.compared,
            self.parts[0] in varying,
            discrete=False,
            free=self.free,
        )

    def failures(self) -> list[str]:
        found, seen, tolerance = list(self.wrong), self.difference(), self.tolerance
        has_direction = tolerance.cosine is None or seen.varies
        relative = tolerance.relative if has_direction else STEADY
        if relative is not None and not seen.error <= relative:
            found.append(
                f"output {self.name!r} is off by {seen.error:.2e} of its largest number on {self.worst}, allowed {relative:.0e}"
            )
        if tolerance.element is not None and not seen.element <= tolerance.element:
            found.append(
                f"output {self.name!r} is {self.numbers}, which is {seen.element:.2e} of a typical number or of itself, "
                f"allowed {tolerance.element:.0e}"
            )
        if tolerance.cosine is not None and not seen.cosine >= tolerance.cosine:
            found.append(f"output {self.name!r} has cosine {seen.cosine:.4f}, wanted at least {tolerance.cosine}")
        return found


def _typical(arrays: Sequence[np.ndarray]) -> float:
    """The median absolute value of what is not zero, read off at most ``SAMPLED`` numbers; 1 where all are zero."""
    step = 1 + sum(array.size for array in arrays) // SAMPLED
    sample = np.abs(np.concatenate([array[::step] for array in arrays]).astype(np.float64))
    sample = sample[sample > 0]
    return max(float(np.quantile(sample, 0.5, method="lower")), float(np.finfo(np.float32).tiny)) if sample.size else 1.0


class _Part:
    """The numbers of an output whose reference is not larger than ``limit``: their extremes, and the cosine of both sides."""

    def __init__(self, arrays: Sequence[np.ndarray], limit: float) -> None:
        self.limit = limit
        self.largest, low, high, total, count = 0.0, np.inf, -np.inf, 0.0, 0
        for array in arrays:
            chosen = array.astype(np.float64)
            chosen = chosen[np.abs(chosen) <= limit]
            self.largest = max(self.largest, float(np.abs(chosen).max(initial=0.0)))
            low, high = min(low, float(chosen.min(initial=np.inf))), max(high, float(chosen.max(initial=-np.inf)))
            total, count = total + float(chosen.sum()), count + chosen.size
        self.spread = max(high - low, 0.0)
        self.centre = total / max(count, 1)
        self.dot = self.wanted = self.got = 0.0

    def add(self, wanted: np.ndarray, got: np.ndarray) -> None:
        """Take in the numbers of a case, centred, so that a common offset cannot hide a difference."""
        chosen = np.abs(wanted) <= self.limit
        a, b = wanted[chosen] - self.centre, got[chosen] - self.centre
        self.dot, self.wanted, self.got = self.dot + float(a @ b), self.wanted + float(a @ a), self.got + float(b @ b)

    @property
    def cosine(self) -> float:
        norms = float(np.sqrt(self.wanted) * np.sqrt(self.got))
        return self.dot / norms if norms and np.isfinite(norms) else 0.0
