"""What ``map`` is asked to do, as data, and what decides its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from onnxfuse.bulk.data import Data
from onnxfuse.config import THREADS, Bounds, Config
from onnxfuse.errors import UsageError

TOKENS, PART = 768, 32_768
"""Tokens of a batch, and rows of a part, where nobody says."""

LARGEST = 1 << 24

ID = "id"
"""The column of rows' ids in what comes out."""


@dataclass(frozen=True)
class MapConfig(Config):
    """Which model to run on which rows, and where the answers go.

    Args:
        source: the model: a file or folder, as ``load`` takes it.
        data: a file, a folder or a pattern.
        out: the folder of the parts.
        columns: those of the texts; none takes the model's usual one.
        id: the column that tells rows apart; none takes their numbers.
        keep: columns that are written beside the answers.
        batch_tokens: of a batch, padding included.
        part_rows: of a part, which is written as a whole.
        threads: of a session; 0 takes all cores.
        runtime: instead of the target's.
        prompt_name: as of ``Model.encode``.
        max_bad: rows that may be bad: a whole number of them, or a share of all as a fraction.
        engine: what runs it, a name of ``bulk.engines``.
        address: of a running cluster, for an engine that knows such.
        actors: sessions of such an engine; 0 takes as many as there is room for.
    """

    within: ClassVar[Bounds] = {
        "batch_tokens": (1, LARGEST),
        "part_rows": (1, LARGEST),
        "threads": (0, THREADS),
        "actors": (0, LARGEST),
    }

    source: Path
    data: str
    out: Path
    columns: tuple[str, ...] = ()
    id: str = ""
    keep: tuple[str, ...] = ()
    batch_tokens: int = TOKENS
    part_rows: int = PART
    threads: int = 0
    runtime: str | None = None
    prompt_name: str | None = None
    max_bad: int | float = 0
    engine: str = "local"
    address: str = ""
    actors: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_bad < 0 or (isinstance(self.max_bad, float) and not self.max_bad <= 1):
            raise UsageError(f"max_bad is {self.max_bad}, wanted how many rows may be bad, or a share of all from 0.0 to 1.0")


@dataclass(frozen=True)
class Job:
    """All that a process needs to make parts.

    Args:
        columns: those that hold the inputs.
        front: what stands in front of every text.
        facts: what decides the result; equal facts make equal parts.
    """

    plan: MapConfig
    data: Data
    columns: tuple[str, ...]
    front: str
    facts: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A digest of the facts."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(dict.fromkeys((*self.columns, *([self.plan.id] if self.plan.id else []), *self.plan.keep)))
