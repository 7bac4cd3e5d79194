"""Ray Data: an actor for each session, on this machine or on a cluster's.

Parts go out by number and place, never by their rows: each actor reads its rows and writes its part itself, so that the input,
the model and the output must lie where every node finds them under the same path, and onnxfuse with the extra ``ray`` must be
installed on each. An actor or a node that dies gives its part to another; one that was written meanwhile is found and not made
again.

Source: Ray Data's map_batches with a class (actors restart, and their tasks are tried again, without limit).
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from onnxfuse import errors
from onnxfuse.bulk import parts
from onnxfuse.bulk.data import Part, Place
from onnxfuse.bulk.engine import Engine
from onnxfuse.bulk.job import Job
from onnxfuse.bulk.parts import KEPT, Done
from onnxfuse.bulk.work import Tell, Worker
from onnxfuse.errors import MissingExtraError, OnnxfuseError, StorageError, UsageError, one_line
from onnxfuse.io.quiet import silent
from onnxfuse.runtime.cores import cores

PATIENCE = 10.0
"""Seconds that a cluster has to answer a connection."""

BLOCKS = 10_000
"""Into so many pieces the list of parts goes at most."""

PART, OUTCOME, ERROR = "part", "outcome", "error"
"""The columns of what goes to actors, and of what comes back; and the key of an error in there."""


def require(job: Job) -> None:
    """Raises MissingExtraError."""
    _library()


def _library() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would be sent to Ray's authors
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("--engine ray", "ray") from error
    return ray


def run(job: Job, remaining: Iterator[Part], tell: Tell) -> Iterator[Done]:
    """Raises OnnxfuseError: an actor's own, or the cluster fails."""
    given = [{PART: json.dumps(asdict(part))} for part in remaining]
    if not given:
        return
    ray = _library()
    with _blamed(), _cluster(ray, job.plan.address):
        actors, threads = _room(ray, job)
        job = _anywhere(job, threads)
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        data = ray.data.from_items(given, override_num_blocks=min(len(given), BLOCKS))
        pool = ray.data.ActorPoolStrategy(size=min(actors, len(given)))
        made = data.map_batches(Actor, fn_constructor_args=(job,), batch_size=1, compute=pool, num_cpus=threads)
        for row in _quietly(iter(made.iter_rows())):
            said = json.loads(row[OUTCOME])
            if ERROR in said:
                raise _raised(*said[ERROR])
            outcome = Done(**said | {PART: _part(said[PART])})
            tell(outcome.part, outcome.part.rows, outcome.tokens, outcome.part.end)
            yield outcome


class Actor:
    """A session in a process of its own."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.worker: Worker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {OUTCOME: [json.dumps(self._made(_part(json.loads(text)))) for text in batch[PART]]}

    def _made(self, part: Part) -> dict[str, Any]:
        """What was made, as JSON has it; or an error's class and text, as those that Ray carries itself are wrapped in others."""
        try:
            known = parts.found_one(self.job, part.number)  # of an actor that died when it had written it
            if known is not None:
                return asdict(known)
            if self.worker is None:
                self.worker = Worker(self.job)
            return asdict(self.worker.part(part))
        except OnnxfuseError as error:
            return {ERROR: (type(error).__name__, str(error))}


def _quietly(rows: Iterator[Any]) -> Iterator[Any]:
    """Rows, without what Ray's C++ code writes meanwhile: what matters comes as an exception."""
    while True:
        with silent():
            row = next(rows, None)
        if row is None:
            return
        yield row


def _part(said: dict[str, Any]) -> Part:
    """A part, of what ``asdict`` gives."""
    return Part(said["number"], Place(**said["begin"]), said["rows"], Place(**said["end"]))


def _raised(kind: str, text: str) -> OnnxfuseError:
    """An actor's error, as this process raises it."""
    known = getattr(errors, kind, OnnxfuseError)
    error: OnnxfuseError = known.__new__(known)
    error.args = (text,)
    return error


@contextmanager
def _cluster(ray: Any, address: str) -> Iterator[None]:
    """A connection to a cluster; where there is none, this machine is one for as long as the block runs. Raises UsageError."""
    if ray.is_initialized():
        yield
        return
    _require_reachable(address)
    own = {} if address or os.environ.get("RAY_ADDRESS") else {"num_cpus": cores(), "include_dashboard": False}
    try:
        ray.init(address or None, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"--address {address}: no cluster of Ray can be reached ({one_line(error, 120)})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Raises UsageError where nobody listens: Ray would wait for minutes, and then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--address {address}: no cluster of Ray can be reached ({one_line(error, 120)})") from error


def _room(ray: Any, job: Job) -> tuple[int, int]:
    """Actors, and threads of each. Raises UsageError: there is no room for so many."""
    sizes = [size for node in ray.nodes() if node["Alive"] and (size := int(node["Resources"].get("CPU", 0)))]
    threads = job.plan.threads or min(sizes, default=1)
    most = sum(size // threads for size in sizes)
    if (job.plan.actors or 1) > most:
        there = ", ".join(map(str, sizes))
        wanted = f"{job.plan.actors or 1} actors of {threads} threads"
        raise UsageError(
            f"{wanted} are asked for, and nodes of {there} cores have room for {most}; ask for fewer, or smaller ones"
        )
    return job.plan.actors or most, threads


def _anywhere(job: Job, threads: int) -> Job:
    """A job by paths that do not depend on where a process began."""

    def absolute(path: Path) -> Path:
        return path.absolute()

    plan = replace(job.plan, source=absolute(job.plan.source), out=absolute(job.plan.out), threads=threads)
    data = replace(job.data, root=absolute(job.data.root), files=tuple(map(absolute, job.data.files)))
    return replace(job, plan=plan, data=data)


@contextmanager
def _blamed() -> Iterator[None]:
    """What Ray raises is one line. Raises StorageError."""
    try:
        yield
    except OnnxfuseError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith("ray."):
            raise
        raise StorageError(f"Ray failed ({type(error).__name__}: {one_line(error, 200)}); {KEPT}") from error


ENGINE = Engine("ray", run, require)
