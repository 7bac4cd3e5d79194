"""The program of a trial (``trial``): a model, opened and run as it is written and as users open it, within a limit of memory.

    python -P trial_child.py MODEL BYTES

It imports nothing of onnxfuse. Exit codes: 0 for a model that ran, or that ONNX Runtime refused in words; 77 when memory ran out.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

ROWS, TOKENS, QUIET, MEMORY = 2, 8, 4, 77


def main() -> None:
    import resource  # not on every system

    path, most = sys.argv[1], int(sys.argv[2])
    limit = _held() + most
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
            with _words_pass():
                _use(path, level)
    except MemoryError:
        raise SystemExit(MEMORY) from None


def _held() -> int:
    """Bytes of data that the process has now."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))


@contextlib.contextmanager
def _words_pass() -> Iterator[None]:
    """ONNX Runtime's refusals pass; where memory was what it lacked, raises MemoryError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # whoever opens the model after this hears the same
        if any(words in str(error) for words in ("bad_alloc", "Failed to allocate memory", "bad allocation", "length_error")):
            raise MemoryError from error


def _use(path: str, level: ort.GraphOptimizationLevel) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    options.graph_optimization_level = level
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {value.name: _ones(value) for value in session.get_inputs()})


def _ones(value: ort.NodeArg) -> np.ndarray:
    """Ones of an input's type; dynamic axes in the order of rows and tokens."""
    dynamic = iter((ROWS, *[TOKENS] * 64))
    shape = [dim if isinstance(dim, int) else next(dynamic) for dim in value.shape]
    if np.prod([float(dim) for dim in shape]) > 1 << 26:
        raise ValueError("inputs of fixed sizes that are refused elsewhere")
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    names = {"float": "float32", "double": "float64", "string": "object"}
    return np.ones(shape, names.get(kind, kind))


if __name__ == "__main__":
    main()
