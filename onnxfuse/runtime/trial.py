"""A trial of a model in a process of its own, where its graph is worth one (``io.screen``): it may loop, take all memory, or die.

ONNX Runtime traps on a division by zero and fills any tensor that a graph asks for: nothing in this process could stop it.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

from onnxfuse.errors import ModelError
from onnxfuse.io import onnx_file, screen
from onnxfuse.io.atomic import shown

SECONDS, RATE = 15.0, 50 << 20
"""For opening the model and running it on two rows of few tokens, twice: half of what a verb may take, and longer for weights, so
many bytes a second."""

BYTES = 3 << 29
"""What it may take beside three times its file: its weights as read, as laid out for a kernel, and a copy."""

CHILD = Path(__file__).with_name("trial_child.py")
"""The program of the trial. It imports nothing of ours, so that it starts fast."""

MEMORY = 77
"""The child's exit code where memory ran out."""

KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "VIRTUAL_ENV")
"""What the child gets of this process's environment."""


def require_harmless(path: Path) -> None:
    """Refuse a model that does not end, takes too much memory or kills its process on the smallest inputs; once for a file.

    A model that ONNX Runtime refuses in words passes: whoever opens it hears them.

    Raises:
        ModelError: what it did.
    """
    found = _identity(path)
    if found in _OURS:
        return
    harm = _harm(*found)
    if harm:
        raise ModelError(f"{shown(path)} {harm}; it is refused, as it would do so here")


_OURS: set[tuple[Path, int, int]] = set()


def trust(path: Path) -> None:
    """Say that this process wrote a file, of a model that had its trial: it needs none of its own, until it changes."""
    _OURS.add(_identity(path))


def _identity(path: Path) -> tuple[Path, int, int]:
    stat = path.stat()
    return path.resolve(), stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=64)
def _harm(path: Path, changed: int, size: int) -> str:
    """What a model did in its trial, in words that follow its name; empty when nothing. ``changed``: of another file, anew."""
    why = screen.suspicion(onnx_file.skim(path))
    return f"{done} (it {why})" if why and (done := _tried(path)) else ""


def _tried(path: Path) -> str:
    size = onnx_file.model_bytes(path)
    limit, seconds = BYTES + 3 * size, SECONDS + size / RATE
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    command = [sys.executable, "-P", str(CHILD), str(path), str(limit)]
    try:
        ended = subprocess.run(command, timeout=seconds, capture_output=True, env=environment, check=False).returncode
    except subprocess.TimeoutExpired:
        return f"does not end within {seconds:.0f} seconds on two rows of eight tokens"
    if ended == MEMORY:
        return f"takes more than {limit >> 20} MiB on two rows of eight tokens"
    if ended < 0:
        return f"kills its process ({signal.Signals(-ended).name})"
    return ""
