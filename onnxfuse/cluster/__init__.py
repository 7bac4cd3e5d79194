"""Work spread over a Ray cluster: an actor for each session, on this machine or on many.

What goes out is small (which rows, which choice), never the rows themselves: actors read and write files, which must lie under
the same path on every node, and onnxfuse with the extra ``ray`` must be installed there. An actor or a node that dies gives its
work to another, so that work is done once or more, and must be such that this does not matter.

Ray ends the process that is connected to it when the node below it dies, takes its signals, and writes where it likes. So that is
a process of its own, the driver (``driver.py``); it and this one tell each other pickles, through its standard input and output.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from onnxfuse import errors
from onnxfuse.errors import MissingExtraError, StorageError, UsageError

ENGINES = ("local", "ray")
"""As ``--engine`` takes them."""

ENDING = 15.0
"""Seconds that the driver has to leave the cluster."""

CONNECTING = 60.0
"""Seconds that a cluster has to take a connection: Ray itself waits on and on."""

OWN = "local"
"""Ray's address of a cluster that it starts for its driver alone."""

T = TypeVar("T")

Make = Callable[[int], Callable[[Any], Any]]
"""Called in an actor, once, with its threads: gives what does one piece of work. It goes there as a pickle, as all work does."""

Said = Callable[[str], None]
"""Told what is waited for."""


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
    require()
    return cluster


def require() -> None:
    """Raises MissingExtraError: Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("--engine ray", "ray")


def spread(make: Make, given: Sequence[Any], cluster: Cluster, said: Said = lambda text: None) -> Iterator[Any]:
    """The answers to all pieces of work, as they come.

    Raises:
        OnnxfuseError: an actor's own. UsageError: the cluster cannot be reached, or has not such room. StorageError: it fails.
    """
    with connected(cluster, said) as driver:
        yield from driver.spread(make, given, cluster, said)


@contextmanager
def connected(cluster: Cluster, said: Said = lambda text: None) -> Iterator[Driver]:
    """A connection to a cluster; where there is none, this machine is one for as long as the block runs.

    Raises:
        UsageError: it cannot be reached. StorageError: Ray fails inside.
    """
    require()
    address, named = _address(cluster.address)
    command = [sys.executable, "-P", "-c", "from onnxfuse.cluster.driver import main; main()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, start_new_session=True, env=_environment(), **pipes)  # type: ignore[call-overload]
    driver = Driver(process)
    try:
        if named:
            said(f"connecting to {named}")
        with _in_time(process, named):
            list(driver.ask("connect", (address, named)))
        yield driver
        with contextlib.suppress(StorageError):  # all work is done
            list(driver.ask("leave", None))
    finally:
        process.terminate()
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def _environment() -> dict[str, str]:
    """Ours, with the places where this process finds its modules."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def _address(asked: str) -> tuple[str, str]:
    """Where to connect, and how messages name it: "" of a cluster of our own, which it also is where others run here."""
    if asked:
        return asked, f"--address {asked}"
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():  # this very program is connected
        return (known := str(ray.get_runtime_context().gcs_address)), f"the cluster at {known}"
    if known := os.environ.get("RAY_ADDRESS", ""):
        return known, f"the environment's RAY_ADDRESS={known}"
    return OWN, ""


@contextmanager
def _in_time(process: subprocess.Popen[bytes], named: str) -> Iterator[None]:
    """Ends the driver where a named cluster takes too long, as nothing else stops Ray from waiting. Raises UsageError then."""
    timer = threading.Timer(CONNECTING, process.kill)
    timer.daemon = True
    if named:
        timer.start()
    try:
        yield
    except StorageError as error:
        if not timer.finished.is_set():
            raise
        why = f"something listens, and gives no answer of Ray's within {CONNECTING:.0f} s"
        raise unreachable(named, why, "give the port that `ray start` printed, or try again if its head is busy") from error
    finally:
        timer.cancel()


def unreachable(named: str, why: str, step: str) -> UsageError:
    """What is said of an address."""
    return UsageError(f"{named}: no cluster of Ray can be reached ({why}); {step}")


class Driver:
    """The process that is connected to Ray."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def spread(self, make: Make, given: Sequence[Any], cluster: Cluster, said: Said = lambda text: None) -> Iterator[Any]:
        """As the function of that name."""
        yield from self.ask("spread", (make, list(given), cluster), said)

    def on_each_node(self, ask: Callable[[], T]) -> list[T]:
        """What a function gives on every node that does work. Raises StorageError: a node fails."""
        return list(self.ask("on_each_node", ask))

    def ask(self, what: str, given: Any, said: Said = lambda text: None) -> Iterator[Any]:
        """All answers of the driver to a question. Raises OnnxfuseError: one of its, or StorageError where it died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            pickle.dump((what, given), self.process.stdin)
            self.process.stdin.flush()
            while True:
                kind, answer = pickle.load(self.process.stdout)
                if kind == "answer":
                    yield answer
                elif kind == "said":
                    said(answer)
                elif kind == "end":
                    return
                else:
                    raise _raised(kind, answer)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:  # it died, perhaps in the middle of an answer
            raise StorageError(
                "Ray's driver has ended: it, the node below it, or the cluster is gone; run the same command again"
            ) from error


def _raised(kind: str, text: str) -> Exception:
    """The driver's or an actor's error, as this process raises it: one of ours, or what is a fault of ours."""
    known = getattr(errors, kind, RuntimeError)
    error: Exception = known.__new__(known)
    error.args = (text,)
    return error
