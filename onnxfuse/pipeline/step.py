"""What each verb returns, and how it counts its seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onnxfuse.config import BenchmarkConfig, TuneConfig
from onnxfuse.io import atomic
from onnxfuse.verify.inputs import profile_of_family
from onnxfuse.verify.opened import Opened
from onnxfuse.verify.parity import Parity
from onnxfuse.verify.profile import Profile

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint

P = TypeVar("P", BenchmarkConfig, TuneConfig)


@dataclass(frozen=True)
class Step:
    """What a verb made; usable as the path of its file.

    Args:
        path: the file.
        size: in bytes, with the files that hold its weights.
        seconds: spent on each part.
        parity: with what it came from; None where that was not asked.
        model: the file as it was read back when it was saved.
    """

    path: Path
    size: int
    seconds: dict[str, float]
    parity: Parity | None
    model: Opened = field(repr=False, compare=False)

    def __fspath__(self) -> str:
        return str(self.path)

    def details(self) -> dict[str, Any]:
        """What else JSON tells of it."""
        return {}

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(atomic.shown(self.path)),
            "size": self.size,
            "seconds": self.seconds,
            "parity": None if self.parity is None else self.parity.to_json(),
            **self.details(),
        }


class Clock:
    """Seconds by part: ``with``-less, since parts follow each other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._at = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = round(now - self._at, 3)
        self._at = now

    def split(self, part: str, inner: str, seconds: float) -> None:
        """Count ``seconds`` of ``part`` as ``inner``."""
        self.seconds[part] = round(self.seconds[part] - seconds, 3)
        self.seconds[inner] = round(seconds, 3)


def fitted(plan: P, profile: Profile) -> P:
    """The plan with the rows and tokens that a model takes. Raises UsageError: it does not take those of the plan."""
    rows, columns = profile.measured(plan.batch, plan.length)
    return replace(plan, batch=rows, length=columns)


def require_measurable(plan: BenchmarkConfig, checkpoint: Checkpoint) -> None:
    """Raises UsageError: what the checkpoint is exported to will not take the rows or tokens of the plan."""
    fitted(plan, profile_of_family(checkpoint.family, checkpoint.config, checkpoint.task))


def unwritten(path: Path) -> str:
    return f"{atomic.shown(path)} was not written"
