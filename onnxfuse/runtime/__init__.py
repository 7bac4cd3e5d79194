"""Runtimes that execute models, a file each: a file that defines a ``Runtime`` here is found (``onnxfuse.plugins``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from onnxfuse import plugins
from onnxfuse.errors import ModelError, OnnxfuseError, UsageError, one_line
from onnxfuse.io import onnx_file
from onnxfuse.runtime.api import Feeds, Outputs, Runner, Runtime, Settings
from onnxfuse.runtime.probes import matmul_saturates, slow_factor
from onnxfuse.runtime.sessions import open_session, run

__all__ = [
    "USUAL",
    "Feeds",
    "Outputs",
    "Runner",
    "Runtime",
    "Settings",
    "asked",
    "declared",
    "matmul_saturates",
    "open_runner",
    "open_session",
    "require",
    "run",
    "runtime_of",
    "runtimes",
    "slow_factor",
]


def runtimes(suffix: str = "") -> dict[str, Runtime]:
    """Every runtime by its name, or those that take files of a suffix: those of this package, and those that others bring."""
    return {name: known for name, known in plugins.find(Runtime, "onnxfuse.runtime").items() if suffix in ("", *known.suffixes)}


USUAL = Settings().runtime
"""The runtime of whoever asks for none."""


def asked(name: str, *paths: Path) -> Runtime:
    """The runtime of that name, for files that a user named.

    Raises:
        UsageError: there is none, or it takes no file of their kinds.
    """
    known = runtimes()
    takes = dict[str, Runtime]()
    for path in paths:
        takes |= runtimes(path.suffix)
    if name not in known:
        raise UsageError(f"no runtime named {name!r}; choose one of {', '.join(takes or known)}")
    if takes and name not in takes:
        kinds = " and ".join(known[name].suffixes)
        raise UsageError(f"runtime {name} takes {kinds} files, and {paths[0]} is none; choose one of {', '.join(takes)}")
    return known[name]


def runtime_of(path: Path, name: str) -> Runtime:
    """What a file runs in: the runtime of that name; where that is the usual one and does not take such files, one that does.

    Raises:
        UsageError: as ``asked``.
    """
    takes = runtimes(path.suffix)
    return next(iter(takes.values())) if name == USUAL and takes and name not in takes else asked(name, path)


def declared(path: Path) -> ir.Model:
    """What a file takes and gives: an ONNX model itself; of another format inputs, outputs and metadata, without nodes.

    Raises:
        UsageError: no such file, or of a format that no runtime tells this of.
        MissingExtraError, ModelError: its runtime is not installed, or cannot read it.
    """
    known = [] if path.suffix == ".onnx" else [each.declares for each in runtimes(path.suffix).values() if each.declares]
    return (known or [onnx_file.load])[0](path)


def open_runner(path: Path, settings: Settings = Settings(), calls: int = 1) -> Runner:  # noqa: B008 - frozen
    """A model file as a function from feeds to outputs, in the runtime of the settings or in the one that takes such a file.

    Args:
        calls: how many are made at a time, by threads. More than 1 is for runtimes that have ``many``.

    Raises:
        UsageError: no runtime of that name.
        MissingExtraError, ModelError: the runtime is not installed, or cannot open the file; or, called, cannot run on it.
    """
    runtime = runtime_of(path, settings.runtime)
    require(runtime)
    with _blamed(runtime, f"open {path}"):
        run = runtime.many(path, settings, calls) if calls > 1 and runtime.many else runtime.open(path, settings)

    def checked(feeds: Feeds) -> Outputs:
        with _blamed(runtime, f"run {path}"):
            outputs = run(feeds)
        if not isinstance(outputs, dict):
            raise ModelError(
                f"runtime {runtime.name} gives a {type(outputs).__name__} for {path}, wanted a dict of arrays by name"
            )
        return outputs

    return checked


def require(runtime: Runtime) -> None:
    """Raises MissingExtraError or ModelError where this machine or environment has it not."""
    with _blamed(runtime, "be used here"):
        runtime.require()


@contextmanager
def _blamed(runtime: Runtime, doing: str) -> Iterator[None]:
    """What a runtime raises that is no error of ours names it. Raises ModelError."""
    try:
        yield
    except (OnnxfuseError, OSError):
        raise
    except Exception as error:
        raise ModelError(f"runtime {runtime.name} cannot {doing}: {type(error).__name__}: {one_line(error)}") from error
