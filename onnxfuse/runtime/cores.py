"""How many threads the work of one call is divided among."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """The threads of a session that says nothing of them: 0, the runtime's own choice, where the process may use every core.

    Where it may not (taskset, a container), ONNX Runtime would still start a thread for each core of the machine; two that wait
    for each other awake on one core make a call take ten times as long.
    """
    return 0 if cores() == os.cpu_count() else cores()
