"""What an engine is to bulk inference: who makes the parts of a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from onnxfuse.bulk.data import Part
from onnxfuse.bulk.job import Job
from onnxfuse.bulk.parts import Done
from onnxfuse.bulk.work import Tell
from onnxfuse.io.progress import Progress


@dataclass(frozen=True)
class Engine:
    """One way to make parts.

    Args:
        name: as ``--engine`` takes it.
        run: makes parts, in any order, and tells of those that are made, and of what it waits for. Raises OnnxfuseError.
        require: raises MissingExtraError or UsageError where it cannot be used, or not so.
    """

    name: str
    run: Callable[[Job, Iterator[Part], Tell, Progress], Iterator[Done]]
    require: Callable[[Job], object] = lambda job: None
