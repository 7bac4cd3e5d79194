"""Denormals as zero in the calling thread, for as long as a call lasts.

ONNX Runtime's own option reaches the threads of its pool, but the thread that calls (and computes its share) only when the
session is the first of the process, and then it stays so for whatever that thread does next. Here the caller's state is set
around each call and given back.

Source: Intel SDM, MXCSR bits 6 (DAZ) and 15 (FTZ); glibc's fenv_t on x86-64, whose last word is MXCSR. Elsewhere nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import platform
import sys
from collections.abc import Iterator

BITS = 1 << 6 | 1 << 15
WORDS, MXCSR = 8, 7
"""fenv_t on x86-64: eight words of 32 bits, the last one MXCSR."""


def _library() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        return None
    name = ctypes.util.find_library("m")
    return ctypes.CDLL(name) if name else None


_LIBM = _library()


@contextlib.contextmanager
def as_zero(wanted: bool) -> Iterator[None]:
    """Denormals count as zero in this thread (or do not) inside the block; afterwards as before. Costs some microseconds."""
    if _LIBM is None:
        yield
        return
    before = (ctypes.c_uint32 * WORDS)()
    _LIBM.fegetenv(before)
    inside = (ctypes.c_uint32 * WORDS)(*before)
    inside[MXCSR] = inside[MXCSR] | BITS if wanted else inside[MXCSR] & ~BITS
    _LIBM.fesetenv(inside)
    try:
        yield
    finally:
        _LIBM.fesetenv(before)
