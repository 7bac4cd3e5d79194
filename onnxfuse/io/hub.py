"""Whether the hub can be asked, found out in a second: its own client would try again for a minute."""

from __future__ import annotations

import importlib
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from onnxfuse.errors import ExportError, UsageError

WAIT = 1.0
"""Seconds that a connection may take before the hub's client is left to try."""

FILE = ".keras"
"""How the one kind of checkpoint ends that is a file, and so is no hub id."""

FIRST = ("config.json", "modules.json")
"""One of these is in the cache where a checkpoint is."""


def unreachable() -> str:
    """Why the hub cannot be asked; empty where it may be: behind a proxy, or where nothing answers in time."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if set(urllib.request.getproxies()) & {"http", "https", "all"}:
        return ""
    place = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((place.hostname or "", place.port or (80 if place.scheme == "http" else 443)), WAIT).close()
    except TimeoutError:
        return ""
    except OSError as error:
        return f"no connection to {place.hostname}: {error.strerror or error}"
    return ""


def require_there(source: str) -> None:
    """Refuse a path that is not there, and a hub id that is not in the cache while the hub cannot be asked.

    Raises:
        UsageError, ExportError.
    """
    if Path(source).exists():
        return
    if not _may_be_id(source):
        raise UsageError(f"{source} is not there; give a checkpoint's folder or a hub id")
    if (why := unreachable()) and not _cached(source):
        raise absent(source, why)


def absent(source: str, why: str) -> ExportError:
    """The error for a hub id that cannot be had."""
    return ExportError(
        f"cannot load {source!r} from the hub or its cache ({why}); check the name and the connection, give a local folder, or "
        "add --random-weights to try the architecture"
    )


@contextmanager
def settled(source: Any) -> Iterator[None]:
    """Inside, a hub id that is in the cache is read from there alone where the hub cannot be asked.

    One that is not is left to ``require_there``: an extra that is missing is told first.
    """
    why = "" if not isinstance(source, str | Path) or Path(source).exists() or not _may_be_id(str(source)) else unreachable()
    if not why or not _cached(str(source)):
        yield
        return
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _may_be_id(source: str) -> bool:
    if Path(source).suffix == FILE:
        return False
    hub: Any = importlib.import_module("huggingface_hub.utils")
    try:
        hub.validate_repo_id(source)
    except hub.HFValidationError:
        return False
    return True


def _cached(source: str) -> bool:
    hub: Any = importlib.import_module("huggingface_hub")
    return any(isinstance(hub.try_to_load_from_cache(source, name), str) for name in FIRST)
