"""How one output differs from its reference over the whole grid; of the cases only sums and extremes are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxfuse.errors import ParityError
from onnxfuse.verify.arrays import differs, is_discrete
from onnxfuse.verify.expected import STEADY, Expected
from onnxfuse.verify.tolerances import Tolerance

HUGE = 100
"""Numbers so many times as large as an output's typical one are not ordinary: fillers at padding, channels with outliers."""

SAMPLED = 1 << 20
"""Numbers of an output that its typical one is read off."""


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


def _bound(entry: Expected, name: str) -> np.ndarray:
    """Which numbers of an output must agree."""
    free = entry.free.get(name)
    return np.ones(entry.outputs[name].shape, dtype=bool) if free is None else ~free


class Output(ABC):
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


class Items(Output):
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


class Numbers(Output):
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
