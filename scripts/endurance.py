"""Use one process for long, and say whether it stays as it was.

    python scripts/endurance.py [--cycles 200] [--minutes 10] [--threads 8] [--forks 50]

    cycles     optimize a model and load the result, again and again: the most memory in the last quarter within 5 %
               of the most in the first
    threads    one loaded model called by so many threads, each with inputs of its own sizes: every answer equal to the bit to
               the one that the model gave alone, memory as above
    forks      a loaded model used in so many forked children, while two threads of the parent use it: same answers, no hang
    pickle     a pickled model gives the same answers in a process of its own

With --model FILE only the threads run, and call that model, of token ids.

Exit code 1 when one of them does not hold.
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnx_ir as ir  # noqa: E402

import onnxfuse  # noqa: E402
from onnxfuse.io import folders  # noqa: E402
from onnxfuse.runtime import open_runner  # noqa: E402
from onnxfuse.verify.verdict import profile_of_file  # noqa: E402
from tests.layer import SPELLINGS  # noqa: E402

SLACK = 1.05
"""How much memory may grow."""

HANG = 60
"""Seconds that a forked child may take for one call, on however busy a machine."""

SIZES = ((1, 1), (1, 64), (2, 32), (3, 17), (4, 128), (8, 5), (2, 256), (16, 16))
"""Rows and tokens of each thread's inputs."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=200, help="of optimizing and loading")
    parser.add_argument("--minutes", type=float, default=10, help="of calls by many threads")
    parser.add_argument("--threads", type=int, default=8, help="that call one model")
    parser.add_argument("--forks", type=int, default=50, help="children that use a loaded model")
    parser.add_argument("--model", type=Path, help="a model of token ids to call from threads, and no more")
    arguments = parser.parse_args()
    if arguments.model is not None:
        return 0 if called(arguments.model, arguments.threads, arguments.minutes * 60) else 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(ir.to_proto(SPELLINGS[0].build()), path)
        held = [
            cycles(path, arguments.cycles),
            threads(path, arguments.threads, arguments.minutes * 60),
            forks(path, arguments.forks),
            pickled(path),
        ]
    return 0 if all(held) else 1


def cycles(path: Path, count: int) -> bool:
    """Optimize and load ``count`` times in this process."""
    memory = []
    for _ in range(count):
        model = onnxfuse.load(onnxfuse.optimize(path))
        model(**feeds(2, 16))
        memory.append(resident())
    return _flat(f"{count} cycles", memory)


def threads(path: Path, count: int, seconds: float) -> bool:
    """Call one model from ``count`` threads."""
    given = [feeds(*SIZES[number % len(SIZES)], seed=number) for number in range(count)]
    return _called(onnxfuse.load(onnxfuse.optimize(path)), given, seconds)


def called(path: Path, count: int, seconds: float) -> bool:
    """Call a model of token ids from ``count`` threads."""
    profile = profile_of_file(path, folders.read_config(path), open_runner(path))
    given = [profile.feeds(*SIZES[number % len(SIZES)], seed=number, real=0.7) for number in range(count)]
    return _called(onnxfuse.load(path), given, seconds)


def _called(model: onnxfuse.Model, given: Sequence[Mapping[str, np.ndarray]], seconds: float) -> bool:
    """Call a model from a thread for each of some inputs."""
    count = len(given)
    wanted = [model.run(each) for each in given]
    calls, wrong, end = [0] * count, [0] * count, time.monotonic() + seconds

    def work(number: int) -> None:
        while time.monotonic() < end:
            calls[number] += 1
            got = model.run(given[number])
            wrong[number] += not all(np.array_equal(got[name], array) for name, array in wanted[number].items())

    workers = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for worker in workers:
        worker.start()
    memory = []
    while any(worker.is_alive() for worker in workers):
        memory.append(resident())
        time.sleep(seconds / 400)
    flat = _flat(f"{count} threads, {seconds / 60:g} minutes", memory)
    same = not sum(wrong) and min(calls) > 0
    return say(f"{count} threads: {sum(calls)} calls, {min(calls)} at least by each, {sum(wrong)} answers differ", same) and flat


def forks(path: Path, count: int) -> bool:
    """Use one model in ``count`` children, while threads of the parent are in the middle of calls."""
    model = onnxfuse.load(onnxfuse.optimize(path), threads=2)
    given = feeds(4, 128)
    wanted, busy = model(**given)["y"], threading.Event()

    def work() -> None:
        while not busy.is_set():
            model(**given)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    codes = [_forked(lambda: np.array_equal(model(**given)["y"], wanted)) for _ in range(count)]
    busy.set()
    for worker in workers:
        worker.join()
    same, hung = codes.count(0), codes.count(-signal.SIGALRM)
    return say(f"{count} forks: {same} with the same answer, {hung} hang, {count - same - hung} others", same == count)


def _forked(holds: Callable[[], bool]) -> int:
    """What a forked child ends with: 0 where it holds."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(HANG)
        os._exit(0 if holds() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def pickled(path: Path) -> bool:
    """Open a pickled model in another process."""
    model = onnxfuse.load(onnxfuse.optimize(path))
    given = feeds(2, 16)
    content = pickle.dumps((model, given, model(**given)["y"]))
    code = "import pickle, sys; model, given, y = pickle.load(sys.stdin.buffer); sys.exit(int((model(**given)['y'] != y).any()))"
    ended = subprocess.run([sys.executable, "-c", code], input=content, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return say(f"pickle: {len(content)} bytes with the inputs and outputs", ended.returncode == 0)


def feeds(rows: int, tokens: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs, the last tokens of each row padding."""
    mask = np.ones((rows, tokens), np.int64)
    mask[:, tokens - tokens // 3 :] = 0
    return {"x": np.random.default_rng(seed).standard_normal((rows, tokens, 16)).astype(np.float32), "mask": mask}


def resident() -> float:
    """MiB of memory that the process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _flat(what: str, memory: list[float]) -> bool:
    """Whether the most memory in the last quarter is that of the first; single moments differ by what the allocator keeps."""
    quarter = max(1, len(memory) // 4)
    early, late = max(memory[:quarter]), max(memory[-quarter:])
    return say(f"{what}: at most {early:.1f} MiB in the first quarter, {late:.1f} in the last", late <= early * SLACK)


def say(text: str, held: bool) -> bool:
    print(f"{text}: {'holds' if held else 'DOES NOT HOLD'}", flush=True)  # noqa: T201 - a program's result
    return held


if __name__ == "__main__":
    sys.exit(main())
