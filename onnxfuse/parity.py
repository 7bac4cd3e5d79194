"""Whether two models compute the same: one grid of inputs, one table of tolerances, one answer.

Nothing here has a default tolerance. A comparison that could not have failed (nothing compared, outputs that are constant
or not finite) is an error, not a pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from onnxfuse.errors import ParityError
from onnxfuse.runtime import Outputs, Runner
from onnxfuse.samples import Case


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may differ, and why.

    Args:
        relative: largest difference allowed, as a part of the reference's largest absolute value over the grid; None asks
            for ``cosine`` alone.
        cosine: lowest cosine allowed between an output and its reference over the whole grid, centred on the reference's
            mean; None does not ask.
        agreement: lowest part of the rows whose largest class stays the same; None does not ask.
    """

    relative: float | None
    cosine: float | None
    agreement: float | None
    reason: str


TOLERANCES = {
    "exact": Tolerance(0.0, None, None, "the same operations in the same order"),
    "reassociate": Tolerance(1e-5, None, None,
                             "float32 sums in another order: 12 to 24 layers of rounding at 6e-8 each; measured 1e-6 to 3e-6"),
    "half": Tolerance(1e-2, None, None,
                      "weights rounded to float16, 5e-4 of each: 12 layers of them; measured 4e-4 to 2.7e-3"),
    "int8": Tolerance(None, 0.98, None,
                      "8 bits for weights and activations; per-tensor activation scales cost about 0.007 of cosine on trained "
                      "sentence encoders, and a dropped bias or swapped scale costs more than 0.05"),
    "bars": Tolerance(None, None, None, "int8 that has passed the user's bars on real inputs: on these it must only be finite"),
}


OF_PRECISION = {"fp32": "reassociate", "fp16": "half", "bf16": "int8", "int8": "int8"}
"""The row that a model of each precision is held to when it is compared with float32."""


@dataclass(frozen=True)
class Difference:
    """How one output differs over the whole grid. ``error`` is relative to the reference's largest absolute value."""

    output: str
    error: float
    cosine: float
    agreement: float
    worst: str
    compared: int


@dataclass(frozen=True)
class Parity:
    """The outcome of a comparison: every output's difference, and the tolerance it was judged by."""

    differences: tuple[Difference, ...]
    cases: int
    kind: str
    failures: tuple[str, ...] = field(default=())

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
        return asdict(self) | {"passed": self.passed, "error": self.error, "cosine": self.cosine,
                               "tolerance": asdict(TOLERANCES[self.kind])}

    def require(self, what: str) -> Parity:
        """Itself, or a ParityError that says where it failed."""
        if self.failures:
            raise ParityError(f"{what}: {self.failures[0]}; nothing was saved")
        return self


def reference(run: Runner, cases: Iterable[Case]) -> list[tuple[Case, Outputs]]:
    """Run the model that others are compared with, once for every case."""
    return [(case, run(case.feeds)) for case in cases]


def compare(expected: list[tuple[Case, Outputs]], run: Runner, kind: str) -> Parity:
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
    tolerance = TOLERANCES[kind]
    pairs: dict[str, list[tuple[str, np.ndarray, np.ndarray]]] = {}
    failures: list[str] = []
    for case, wanted in expected:
        got = run(case.feeds)
        if set(got) != set(wanted):
            raise ParityError(f"the outputs are {sorted(got)}, wanted {sorted(wanted)}")
        for name, array in wanted.items():
            if got[name].shape != array.shape:
                raise ParityError(f"output {name!r} has shape {list(got[name].shape)} on {case.name}, wanted {list(array.shape)}")
            if not np.isfinite(got[name]).all():
                failures.append(f"output {name!r} is not finite on {case.name}")
            keep = np.arange(len(array)) != case.finite_only
            pairs.setdefault(name, []).append((case.name, array[keep].astype(np.float64), got[name][keep].astype(np.float64)))
    differences = tuple(_difference(name, entries) for name, entries in pairs.items())
    failures += [text for difference in differences for text in _judge(difference, tolerance)]
    return Parity(differences, len(expected), kind, tuple(failures))


def _difference(name: str, entries: list[tuple[str, np.ndarray, np.ndarray]]) -> Difference:
    wanted = np.concatenate([array.reshape(-1) for _, array, _ in entries])
    got = np.concatenate([array.reshape(-1) for _, _, array in entries])
    if wanted.size == 0:
        raise ParityError(f"nothing was compared of output {name!r}: it is empty on every input")
    if not np.isfinite(wanted).all():
        raise ParityError(f"the reference's output {name!r} is not finite; nothing can be compared with it")
    if np.ptp(wanted) == 0:
        raise ParityError(f"the reference's output {name!r} is constant on every input; a comparison with it cannot fail")
    largest = np.abs(wanted).max()
    errors = [(np.abs(a - b).max(initial=0.0), case) for case, a, b in entries]
    worst, where = max(errors)
    same, rows = 0, 0
    for _, a, b in entries:
        if a.ndim > 1 and a.shape[-1] > 1:
            same += int((a.argmax(-1) == b.argmax(-1)).sum())
            rows += a[..., 0].size
    return Difference(name, float(worst / largest), _cosine(wanted, got), same / rows if rows else 1.0, where, wanted.size)


def _cosine(wanted: np.ndarray, got: np.ndarray) -> float:
    """Cosine after taking away the reference's mean, so that a common offset cannot hide a difference."""
    centre = wanted.mean()
    a, b = wanted - centre, got - centre
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms and np.isfinite(norms) else 0.0


def _judge(difference: Difference, tolerance: Tolerance) -> list[str]:
    found = []
    if tolerance.relative is not None and not difference.error <= tolerance.relative:
        found.append(f"output {difference.output!r} is off by {difference.error:.2e} of its largest value on {difference.worst}, "
                     f"allowed {tolerance.relative:.0e}")
    if tolerance.cosine is not None and not difference.cosine >= tolerance.cosine:
        found.append(f"output {difference.output!r} has cosine {difference.cosine:.4f}, wanted at least {tolerance.cosine}")
    if tolerance.agreement is not None and not difference.agreement >= tolerance.agreement:
        found.append(f"output {difference.output!r} keeps the largest class in {difference.agreement:.1%} of the rows, wanted "
                     f"{tolerance.agreement:.0%}")
    return found
