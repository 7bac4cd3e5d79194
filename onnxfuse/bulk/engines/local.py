"""This process: one session, as many calls of it at a time as there are threads, and a reader beside them."""

from __future__ import annotations

from collections.abc import Iterator

from onnxfuse import cluster
from onnxfuse.bulk.data import Part
from onnxfuse.bulk.engine import Engine
from onnxfuse.bulk.job import Job
from onnxfuse.bulk.parts import Done
from onnxfuse.bulk.work import Tell, Worker
from onnxfuse.cluster import Cluster
from onnxfuse.io.progress import Progress


def require(job: Job) -> None:
    """Raises UsageError for what only a cluster has."""
    cluster.chosen(job.plan.engine, Cluster(job.plan.address, job.plan.actors))


def run(job: Job, parts: Iterator[Part], tell: Tell, progress: Progress) -> Iterator[Done]:
    with Worker(job) as worker:
        for part in parts:
            yield worker.part(part, tell)


ENGINE = Engine("local", run, require)
