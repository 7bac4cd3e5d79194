"""What an interrupted evaluation answered, kept for the same command to go on with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxfuse.config import BenchmarkConfig
from onnxfuse.errors import OnnxfuseError, UsageError
from onnxfuse.io import atomic, door, folders
from onnxfuse.scoring.judge import Tally, opened, saved
from onnxfuse.scoring.source import Source

FEWEST = 4096
"""Samples from which an interrupted evaluation is kept: fewer take seconds."""


class Begun:
    """What was tallied before an interruption, in a file beside the first model, for the same models, data and versions."""

    def __init__(self, ways: Iterable[str], paths: Sequence[Path], source: Source, plan: BenchmarkConfig) -> None:
        models = [(str(path), folders.fingerprint(path)) for path in paths]
        key = [folders.versions(), list(ways), models, _stamp(source.name), plan.batch]
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        self.path = folders.home_of(paths[0]) / f".evaluate-{digest}.npz"

    def tallies(self, names: Sequence[str]) -> dict[str, Tally]:
        if not self.path.is_file():
            return opened(names, {})
        try:
            with door.reading(self.path, "what was evaluated", UsageError), self.path.open("rb") as file:
                found = opened(names, np.load(file, allow_pickle=False))
        except UsageError:
            return opened(names, {})
        return found if len({tally.count for tally in found.values()}) == 1 else opened(names, {})

    def keep(self, tallies: Mapping[str, Tally]) -> bool:
        """Whether it could be kept, and was worth it."""
        if min(tally.count for tally in tallies.values()) < FEWEST:
            return False
        try:
            with atomic.replacing(self.path) as staged, staged.open("wb") as file:
                np.savez(file, allow_pickle=False, **saved(tallies))
        except OnnxfuseError:
            return False
        return True

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def _stamp(data: str) -> tuple[str, int, int]:
    """A file's place, size and time; of what is none, its name."""
    path = Path(data)
    return (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else (data, 0, 0)
