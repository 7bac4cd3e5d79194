"""How much memory a model takes: of a process of its own that loads and runs it."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

from onnxfuse.errors import ModelError

_CHILD = """
import json, sys
from pathlib import Path
from onnxfuse.io import folders
from onnxfuse.pipeline.memory import peak_so_far
from onnxfuse.verify.inputs import profile_of
from onnxfuse.runtime import Settings, declared, open_runner
path, like, runtime = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
batch, length, threads = map(int, sys.argv[4:])
profile = profile_of(declared(like), folders.read_config(like))
before = peak_so_far()
run = open_runner(path, Settings(runtime, threads))
for seed in range(3):
    run(profile.feeds(batch, length, seed=seed))
json.dump(peak_so_far() - before, sys.stdout)
"""


def peak_memory(path: Path, *, batch: int, length: int, threads: int, runtime: str = "ort", like: Path | None = None) -> int:
    """Peak resident bytes of a process of its own that loads a model and runs it three times, less what it held before.

    Args:
        like: a file that says what it takes, where the file itself does not.

    Raises:
        ModelError: the process failed.
    """
    command = [sys.executable, "-c", _CHILD, str(path), str(like or path), runtime, str(batch), str(length), str(threads)]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or [f"it left with code {result.returncode}"])[-1]
        raise ModelError(f"{path} failed while its memory was measured: {re.sub(r'^[a-z._]+[A-Za-z]*Error: ', '', last)}")
    return int(json.loads(result.stdout))


def peak_so_far() -> int:
    """Largest resident size in bytes that this process ever had.

    Linux tells it in /proc; ``getrusage`` there starts from the parent's, so it serves only where /proc is missing.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
