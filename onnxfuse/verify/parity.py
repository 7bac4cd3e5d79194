"""Whether two models compute the same: one grid of inputs, one table of tolerances, one verdict.

Outputs may have any rank, type and order of axes. Nothing here has a default tolerance. A comparison that could not have failed
(no outputs, nothing compared, no output that varies) is an error, not a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from onnxfuse.errors import ParityError
from onnxfuse.runtime import Runner
from onnxfuse.verify.arrays import is_discrete
from onnxfuse.verify.difference import Difference, Items, Numbers
from onnxfuse.verify.expected import Expected, outputs_of
from onnxfuse.verify.tolerances import TOLERANCES


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

    def failures_of(self, output: str) -> list[str]:
        """What is outside the tolerance of one output."""
        return [text for text in self.failures if text.startswith(f"output {output!r} ")]

    @property
    def error(self) -> float:
        return max(difference.error for difference in self.differences)

    @property
    def cosine(self) -> float:
        return min(difference.cosine for difference in self.differences)

    @property
    def brief(self) -> str:
        """The outcome in a few characters."""
        near = f"cosine {self.cosine:.4f}" if self.kind in ("int8", "finite") else f"max diff {self.error:.1e}"
        return near + (", real inputs" if self.real else "")

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


def compare(expected: Sequence[Expected], run: Runner, kind: str) -> Parity:
    """Compare a model with reference outputs on every case.

    Args:
        expected: from ``expected.expect``.
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
        name: (Items if is_discrete(array) else Numbers)(name, expected, tolerance) for name, array in expected[0].outputs.items()
    }
    for entry in expected:
        got = outputs_of(run, entry.case.feeds)
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
