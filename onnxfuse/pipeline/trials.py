"""What ``tune`` measured, and keeps in a file beside its result until it is done: an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxfuse.config import TuneConfig
from onnxfuse.io import atomic, folders, places
from onnxfuse.io.ours import Replaceable
from onnxfuse.measure.benchmark import Ratio
from onnxfuse.measure.machine import Machine


@dataclass(frozen=True)
class Trial:
    """One alternative: ``speed`` is how many times as fast as the choice so far; ``refused`` why it could not run."""

    thing: str
    option: str
    p50: float | None = None
    speed: Ratio | None = None
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


def partial_of(plan: TuneConfig) -> Path:
    """Where ``tune`` keeps what it measured until it is done."""
    return plan.out.with_name(plan.out.name + ".partial")


def _is_partial(path: Path) -> bool:
    return set(folders.read_json(path)) == {"key", "done"}


class Known:
    """What was measured already, in a file beside the result, for the same model, machine, versions and plan."""

    def __init__(self, plan: TuneConfig, on: Machine) -> None:
        """``on``: what it is measured on. Raises UsageError: a file of that name is none of these."""
        self.path, self.source = partial_of(plan), plan.source
        Replaceable((plan.source,), ours=_is_partial).require(self.path)
        self.key = places.portable(
            {
                "machine": on.cpu,
                "cores": on.cores,
                "versions": folders.versions(),
                "model": plan.source.name,
                "sha256": _digest(plan.source),
                "batch": plan.batch,
                "length": plan.length,
                "real": plan.real,
                "rounds": plan.rounds,
                "threads": plan.threads,
                "target": plan.target,
                "precisions": plan.precisions,
                "runtimes": plan.runtimes,
            },
            plan.out.parent,
        )
        content = folders.read_json(self.path)
        self.done: dict[str, Any] = content.get("done", {}) if content.get("key") == self.key else {}

    def trials(self, thing: str) -> list[Trial]:
        items = self.done.get(thing, [])
        return [Trial(**item | {"speed": Ratio(**item["speed"]) if "speed" in item else None}) for item in items]

    def add(self, thing: str, trials: Sequence[Trial]) -> None:
        self.done[thing] = places.portable([trial.to_json() for trial in trials], self.path.parent, (self.source,))
        atomic.save_json({"key": self.key, "done": self.done}, self.path)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
