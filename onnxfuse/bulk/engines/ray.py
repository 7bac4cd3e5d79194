"""Ray: an actor for each session, which reads its rows and writes its part itself. A part that is there is not made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from onnxfuse import cluster
from onnxfuse.bulk import parts
from onnxfuse.bulk.data import Part
from onnxfuse.bulk.engine import Engine
from onnxfuse.bulk.job import Job
from onnxfuse.bulk.parts import Done
from onnxfuse.bulk.work import Tell, Worker
from onnxfuse.cluster import Cluster
from onnxfuse.io.progress import Progress


def require(job: Job) -> None:
    """Raises MissingExtraError."""
    cluster.require()


def run(job: Job, remaining: Iterator[Part], tell: Tell, progress: Progress) -> Iterator[Done]:
    """Raises OnnxfuseError: see ``cluster.spread``."""
    given = list(remaining)
    if not given:
        return
    where = Cluster(job.plan.address, job.plan.actors, job.plan.threads)
    for done in cluster.spread(partial(_maker, _anywhere(job)), given, where, progress):
        tell(done.part, done.part.rows, done.tokens, done.part.end)
        yield done


def _maker(job: Job, threads: int) -> Callable[[Part], Done]:
    """In an actor: what makes parts."""
    workers: list[Worker] = []

    def make(part: Part) -> Done:
        known = parts.found_one(job, part.number)  # of an actor that died when it had written it
        if known is not None:
            return known
        if not workers:
            workers.append(Worker(replace(job, plan=replace(job.plan, threads=threads))))
        return workers[0].part(part)

    return make


def _anywhere(job: Job) -> Job:
    """A job by paths that do not depend on where a process began."""
    plan = replace(job.plan, source=job.plan.source.absolute(), out=job.plan.out.absolute())
    data = replace(job.data, root=job.data.root.absolute(), files=tuple(path.absolute() for path in job.data.files))
    return replace(job, plan=plan, data=data)


ENGINE = Engine("ray", run, require)
