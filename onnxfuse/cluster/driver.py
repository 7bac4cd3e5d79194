"""The process that is connected to Ray: it answers what ``onnxfuse.cluster`` asks, and ends when that ends.

Source: Ray Data's map_batches with a class (actors restart, and their tasks are tried again, without limit).
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from onnxfuse.cluster import OWN, Cluster, Make, unreachable
from onnxfuse.errors import MissingExtraError, OnnxfuseError, StorageError, UsageError, one_line
from onnxfuse.runtime.cores import cores

PATIENCE = 10.0
"""Seconds that a cluster has to answer a connection."""

BUSY = 2.0
"""Seconds between two looks at whether cores have become free."""

BLOCKS = 10_000
"""Into so many pieces a list of work goes at most."""

GIVEN, OUTCOME = "given", "outcome"
"""The columns of what goes to actors, and of what comes back."""

NOBODY = "is the cluster started, and the port the one that `ray start` printed?"

FORMAT = "give HOST:PORT, as `ray start` prints it"

TOKEN = "a cluster that asks for a token wants RAY_AUTH_MODE=token and the token here, too"

Say = Callable[[str, Any], None]


def main() -> None:
    """Answer until there are no more questions, or nobody is there to ask them."""
    out = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)  # what Ray writes is no pickle
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks is told, and ends us

    def say(kind: str, what: Any) -> None:
        pickle.dump((kind, what), out)
        out.flush()

    for what, given in _questions(sys.stdin.buffer):
        try:
            for kind, answer in ANSWERS[what](given):
                say(kind, answer)
            say("end", None)
        except OnnxfuseError as error:
            say(type(error).__name__, str(error))
        except Exception as error:  # noqa: BLE001 - whoever asks raises it
            if type(error).__module__.startswith("ray."):
                told = f"Ray failed ({type(error).__name__}: {one_line(error, 200)}); run the same command again"
                say(StorageError.__name__, told)
            else:
                say(RuntimeError.__name__, f"the driver failed:\n{traceback.format_exc()}")
        if what == "leave":
            return


def _questions(source: BinaryIO) -> Iterator[tuple[str, Any]]:
    """One after another. When their pipe closes, nobody waits for what is being done, and the process ends at once."""
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue()

    def read() -> None:
        try:
            while True:
                waiting.put(pickle.load(source))
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()


def _library() -> Any:
    """Raises MissingExtraError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would be sent to Ray's authors
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("--engine ray", "ray") from error
    return ray


def _connect(given: tuple[str, str]) -> Iterator[tuple[str, Any]]:
    """To the cluster at an address, which messages name so. Raises UsageError: there is none."""
    ray, (address, named) = _library(), given
    _require_reachable(address, named)
    own = {"num_cpus": cores(), "include_dashboard": False} if address == OWN else {}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address == OWN:
            raise StorageError(f"Ray does not start on this machine ({one_line(error, 200)})") from error
        raise unreachable(named, one_line(error, 120), FORMAT if isinstance(error, ValueError) else TOKEN) from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield from ()


def _require_reachable(address: str, named: str) -> None:
    """Raises UsageError where nobody listens: Ray would wait for minutes, and then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if "://" in host or (port.isdigit() and int(port) >= 1 << 16):
        raise unreachable(named, f"{address:.80} is no such address", FORMAT)
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise unreachable(named, one_line(error, 120), NOBODY) from error


def _leave(_: None) -> Iterator[tuple[str, Any]]:
    _library().shutdown()
    yield from ()


def _on_each_node(ask: Callable[[], Any]) -> Iterator[tuple[str, Any]]:
    ray = _library()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    task = ray.remote(ask)
    on = [On(node["NodeID"], soft=False) for node in _nodes(ray)]
    found = ray.get([task.options(num_cpus=0, scheduling_strategy=each).remote() for each in on])
    yield from (("answer", each) for each in found)


def _spread(given: tuple[Make, Sequence[Any], Cluster]) -> Iterator[tuple[str, Any]]:
    """Raises OnnxfuseError: an actor's own. UsageError: there is no such room."""
    make, pieces, cluster = given
    ray = _library()
    actors, threads = _room(ray, cluster)
    yield from _waiting(ray, threads)
    data = ray.data.from_items([{GIVEN: pickle.dumps(each)} for each in pieces], override_num_blocks=min(len(pieces), BLOCKS))
    pool = ray.data.ActorPoolStrategy(size=min(actors, len(pieces)))
    made = data.map_batches(Actor, fn_constructor_args=(make, threads), batch_size=1, compute=pool, num_cpus=threads)
    for row in made.iter_rows():
        kind, outcome = pickle.loads(row[OUTCOME])
        yield (kind or "answer"), outcome
        if kind:
            return


def _waiting(ray: Any, threads: int) -> Iterator[tuple[str, Any]]:
    """Until as many cores are free as an actor takes."""
    while (free := int(ray.available_resources().get("CPU", 0))) < threads:
        total = int(ray.cluster_resources().get("CPU", 0))
        yield "said", f"waiting for the cluster: {free} of its {total} cores are free, and an actor takes {threads}"
        time.sleep(BUSY)


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
        except Exception:  # noqa: BLE001 - a fault of ours, which whoever asks raises as it is
            return RuntimeError.__name__, f"an actor failed:\n{traceback.format_exc()}"


def _nodes(ray: Any) -> list[dict[str, Any]]:
    """Those that are there and have cores for work."""
    return [node for node in ray.nodes() if node["Alive"] and int(node["Resources"].get("CPU", 0))]


def _room(ray: Any, cluster: Cluster) -> tuple[int, int]:
    """Actors, and threads of each. Raises UsageError: there is no room for so many, or they would meet on a node."""
    sizes = [int(node["Resources"]["CPU"]) for node in _nodes(ray)]
    there = ", ".join(map(str, sizes))
    if cluster.apart and len(set(sizes)) > 1:
        raise UsageError(f"nodes of {there} cores are not alike, and a node of its own is needed for each; give like ones")
    threads = cluster.threads or min(sizes, default=1)
    most = sum(size // threads for size in sizes)
    if (cluster.actors or 1) > most:
        wanted = f"{cluster.actors or 1} actors of {threads} threads"
        raise UsageError(
            f"{wanted} are asked for, and nodes of {there} cores have room for {most}; ask for fewer, or smaller ones"
        )
    return cluster.actors or most, threads


ANSWERS: dict[str, Callable[[Any], Iterator[tuple[str, Any]]]] = {
    "connect": _connect,
    "leave": _leave,
    "on_each_node": _on_each_node,
    "spread": _spread,
}
