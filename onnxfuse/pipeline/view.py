"""Show a model's graph in Netron."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from onnxfuse.errors import MissingExtraError
from onnxfuse.io.files import require_file


def serve(path: Path, *, port: int, browser: bool) -> str:
    """Serve a model's graph on this machine and return the address; it stays until ``stop`` or the process ends.

    Args:
        port: 0 lets Netron choose one that is free.
        browser: whether to open it there.

    Raises:
        MissingExtraError: netron is not installed. UsageError: no such file.
    """
    netron = _netron()
    host, number = netron.start(str(require_file(path)), address=("localhost", port) if port else None, browse=browser)
    return f"http://{host}:{number}"


def wait() -> None:
    """Block until the server is stopped (Ctrl-C)."""
    _netron().wait()


def stop() -> None:
    """Stop every server that ``serve`` started."""
    _netron().stop()


def _netron() -> Any:
    try:
        return importlib.import_module("netron")
    except ImportError as error:
        raise MissingExtraError("viewing a graph", "view") from error
