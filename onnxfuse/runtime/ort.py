"""ONNX Runtime as a runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnxfuse.io.atomic import shown
from onnxfuse.runtime import denormals
from onnxfuse.runtime.api import Feeds, Outputs, Runner, Runtime, Settings
from onnxfuse.runtime.sessions import Session, open_session, run


def open_runner(path: Path, settings: Settings) -> Runner:
    """A model file as a function from feeds to outputs. Raises ModelError."""
    return runner_of(open_session(path, settings), path, settings)


def runner_of(session: Session, path: Path, settings: Settings) -> Runner:
    """A session as such a function. Raises ModelError, called."""
    path = shown(path)
    if not settings.denormals_as_zero:
        return lambda feeds: run(session, feeds, path)

    def call(feeds: Feeds) -> Outputs:
        with denormals.as_zero(True):
            return run(session, feeds, path)

    return call


def open_many(path: Path, settings: Settings, calls: int) -> Runner:
    """The same for many calls at a time: each is computed in the thread that makes it. Raises ModelError."""
    return open_runner(path, replace(settings, threads=1))


ORT = Runtime("ort", "ONNX Runtime", open_runner, many=open_many)
