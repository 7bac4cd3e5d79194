"""Before anything else is imported: each worker of pytest-xdist gets a core of its own.

Two workers whose runtimes take all cores would only wait for each other; and where OpenBLAS has started a thread for each core
of the machine (it counts them when numpy is imported), these spin in turn on the one that is left.
"""

import os


def _one_core_each() -> None:
    worker, cores = os.environ.get("PYTEST_XDIST_WORKER", ""), sorted(os.sched_getaffinity(0))
    if worker and int(os.environ["PYTEST_XDIST_WORKER_COUNT"]) > 1:
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


_one_core_each()
