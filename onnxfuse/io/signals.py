"""Ctrl-C and SIGTERM, and the few steps that neither may come between."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

HELD = (signal.SIGINT, signal.SIGTERM)


class _Terminations:
    """How often this process was told to end."""

    count = 0


def end_on_sigterm() -> None:
    """From now on SIGTERM ends the process as Ctrl-C does: what is being made goes, and one line is said."""

    def end(number: int, frame: FrameType | None) -> None:
        _Terminations.count += 1
        raise KeyboardInterrupt

    _Terminations.count = 0
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


def was_terminated() -> bool:
    """Whether SIGTERM came."""
    return _Terminations.count > 0


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come while the block runs take effect when it has ended.

    For steps that take moments and belong together. In other threads than the main one Python handles no signals anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before: dict[signal.Signals, Any] = {}
    try:
        for each in HELD:
            handler = signal.getsignal(each)
            if handler not in (None, signal.SIG_IGN):  # None: not set from Python, and not to be put back from here
                before[each] = handler
                signal.signal(each, wait)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in came[:1]:
            signal.raise_signal(number)
