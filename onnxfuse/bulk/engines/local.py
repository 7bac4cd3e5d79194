"""This process: one session, as many calls of it at a time as there are threads, and a reader beside them."""

from __future__ import annotations

from collections.abc import Iterator

from onnxfuse.bulk.data import Part
from onnxfuse.bulk.engine import Engine
from onnxfuse.bulk.job import Job
from onnxfuse.bulk.parts import Done
from onnxfuse.bulk.work import Tell, Worker
from onnxfuse.errors import UsageError


def require(job: Job) -> None:
    """Raises UsageError for what only a cluster has."""
    for name in ("address", "actors"):
        if value := getattr(job.plan, name):
            raise UsageError(f"--{name} {value} is of --engine ray; add that, or leave it out")


def run(job: Job, parts: Iterator[Part], tell: Tell) -> Iterator[Done]:
    with Worker(job) as worker:
        for part in parts:
            yield worker.part(part, tell)


ENGINE = Engine("local", run, require)
