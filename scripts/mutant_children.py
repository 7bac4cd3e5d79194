"""Tests in forked children of this process, which has everything imported."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

SURVIVED, KILLED, BROKEN = 0, 1, 70


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a program's result


def fork(work: Callable[[], int], folder: str, seconds: float) -> int:
    """Run ``work`` in a child that is quiet, writes under ``folder``, and ends; its result is the exit code. Returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = BROKEN
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (2**33, 2**33))
        signal.alarm(int(20 * seconds))  # one that waits uses no processor
        os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = tempfile.tempdir = folder
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        code = work()
    except BaseException:  # noqa: BLE001 - told to the parent, which ends
        (Path(folder) / "killer").write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(code)


def said_in(folder: str) -> str:
    """What a child left to say."""
    note = Path(folder) / "killer"
    return note.read_text(encoding="utf-8") if note.is_file() else "it did not end"


def run(items: list[pytest.Item]) -> pytest.Item | None:
    """Run tests until one fails, and return it."""
    for item, following in zip(items, [*items[1:], None], strict=False):
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
            return item
    return None
