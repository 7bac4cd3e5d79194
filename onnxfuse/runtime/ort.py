"""ONNX Runtime as a runtime."""

from __future__ import annotations

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


ORT = Runtime("ort", "ONNX Runtime", open_runner)
