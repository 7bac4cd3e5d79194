"""Work spread over a Ray cluster: an actor for each session, on this machine or on many.

What goes out is small (which rows, which choice), never the rows themselves: actors read and write files, which must lie under
the same path on every node, and onnxfuse with the extra ``ray`` must be installed there. An actor or a node that dies gives its
work to another, so that work is done once or more, and must be such that this does not matter.

Source: Ray Data's map_batches with a class (actors restart, and their tasks are tried again, without limit).
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from onnxfuse import errors
from onnxfuse.errors import MissingExtraError, OnnxfuseError, StorageError, UsageError, one_line
from onnxfuse.io.quiet import silent
from onnxfuse.runtime.cores import cores

PATIENCE = 10.0
"""Seconds that a cluster has to answer a connection."""

ENGINES = ("local", "ray")
"""As ``--engine`` takes them."""

BLOCKS = 10_000
"""Into so many pieces a list of work goes at most."""

GIVEN, OUTCOME = "given", "outcome"
"""The columns of what goes to actors, and of what comes back."""

T = TypeVar("T")

Make = Callable[[int], Callable[[Any], Any]]
"""Called in an actor, once, with its threads: gives what does one piece of work. It goes there as a pickle, as all work does."""


@dataclass(frozen=True)
class Cluster:
    """Where work is spread.

    Args:
        address: of a running cluster; without one this machine becomes one for as long as the work takes.
        actors, threads: how many, and of each; 0 takes what there is room for.
        apart: whether no two may be on one node, as what they do is timed.
    """

    address: str = ""
    actors: int = 0
    threads: int = 0
    apart: bool = False


def chosen(engine: str, cluster: Cluster) -> Cluster | None:
    """The cluster where one is asked for; None where this process does the work.

    Raises:
        UsageError: no such engine, or options of a cluster without one. MissingExtraError: Ray is not installed.
    """
    if engine not in ENGINES:
        raise UsageError(f"no engine named {engine!r:.80}; choose one of {', '.join(ENGINES)}")
    if engine == ENGINES[0]:
        for name, value in (("address", cluster.address), ("actors", cluster.actors)):
            if value:
                raise UsageError(f"--{name} {value} is of --engine ray; add that, or leave it out")
        return None
    library()
    return cluster


def library() -> Any:
    """Ray. Raises MissingExtraError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would be sent to Ray's authors
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("--engine ray", "ray") from error
    return ray


def spread(make: Make, given: Sequence[Any], cluster: Cluster) -> Iterator[Any]:
    """The answers to all pieces of work, as they come.

    Raises:
        OnnxfuseError: an actor's own. UsageError: the cluster cannot be reached, or has not such room. StorageError: it fails.
    """
    ray = library()
    with connected(cluster):
        actors, threads = _room(ray, cluster)
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        ray.data.DataContext.get_current().enable_progress_bars = False
        data = ray.data.from_items([{GIVEN: pickle.dumps(each)} for each in given], override_num_blocks=min(len(given), BLOCKS))
        pool = ray.data.ActorPoolStrategy(size=min(actors, len(given)))
        made = data.map_batches(Actor, fn_constructor_args=(make, threads), batch_size=1, compute=pool, num_cpus=threads)
        for row in _quietly(iter(made.iter_rows())):
            kind, outcome = pickle.loads(row[OUTCOME])
            if kind:
                raise _raised(kind, outcome)
            yield outcome


def on_each_node(ask: Callable[[], T]) -> list[T]:
    """What a function gives on every node that does work; to be called while ``connected``. Raises StorageError: a node fails."""
    ray = library()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    task = ray.remote(ask)
    with silent():
        on = [On(node["NodeID"], soft=False) for node in _nodes(ray)]
        found: list[T] = ray.get([task.options(num_cpus=0, scheduling_strategy=each).remote() for each in on])
    return found


class Actor:
    """A process that does pieces of work, one after another."""

    def __init__(self, make: Make, threads: int) -> None:
        self.make, self.threads = make, threads
        self.work: Callable[[Any], Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {OUTCOME: [pickle.dumps(self._done(pickle.loads(each))) for each in batch[GIVEN]]}

    def _done(self, given: Any) -> tuple[str, Any]:
        """ "" and the answer; or an error's class and text, as those that Ray carries itself are wrapped in others."""
        try:
            if self.work is None:
                self.work = self.make(self.threads)
            return "", self.work(given)
        except OnnxfuseError as error:
            return type(error).__name__, str(error)
        except Exception:  # noqa: BLE001 - a fault of ours, which this process raises as it is
            return RuntimeError.__name__, f"an actor failed:\n{traceback.format_exc()}"


def _raised(kind: str, text: str) -> Exception:
    """An actor's error, as this process raises it: one of ours, or what is a fault of ours."""
    known = getattr(errors, kind, RuntimeError)
    error: Exception = known.__new__(known)
    error.args = (text,)
    return error


def _quietly(rows: Iterator[Any]) -> Iterator[Any]:
    """Rows, without what Ray's C++ code writes meanwhile: what matters comes as an exception."""
    while True:
        with silent():
            row = next(rows, None)
        if row is None:
            return
        yield row


@contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """A connection to a cluster; where there is none, this machine is one for as long as the block runs.

    Raises:
        UsageError: it cannot be reached. StorageError: Ray fails inside.
    """
    ray, address = library(), cluster.address
    if ray.is_initialized():
        with _blamed():
            yield
        return
    _require_reachable(address)
    own = {} if address or os.environ.get("RAY_ADDRESS") else {"num_cpus": cores(), "include_dashboard": False}
    try:
        ray.init(address or None, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"--address {address}: no cluster of Ray can be reached ({one_line(error, 120)})") from error
    try:
        with _blamed():
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


def _nodes(ray: Any) -> list[dict[str, Any]]:
    """Those that are there and have cores for work."""
    return [node for node in ray.nodes() if node["Alive"] and int(node["Resources"].get("CPU", 0))]


def _room(ray: Any, cluster: Cluster) -> tuple[int, int]:
    """Actors, and threads of each. Raises UsageError: there is no room for so many, or they would meet on a node."""
    sizes = [int(node["Resources"]["CPU"]) for node in _nodes(ray)]
    if cluster.apart and len(set(sizes)) > 1:
        told = ", ".join(map(str, sizes))
        raise UsageError(f"nodes of {told} cores are not alike, and a node of its own is needed for each; give like ones")
    threads = cluster.threads or min(sizes, default=1)
    most = sum(size // threads for size in sizes)
    if (cluster.actors or 1) > most:
        there = ", ".join(map(str, sizes))
        wanted = f"{cluster.actors or 1} actors of {threads} threads"
        raise UsageError(
            f"{wanted} are asked for, and nodes of {there} cores have room for {most}; ask for fewer, or smaller ones"
        )
    return cluster.actors or most, threads


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
        raise StorageError(f"Ray failed ({type(error).__name__}: {one_line(error, 200)}); run the same command again") from error
