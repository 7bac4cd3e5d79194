"""Our own CPU kernels: where the library of our operators is, and what it takes on this machine.

    options.register_custom_ops_library(onnxfuse.native.path())

``make native`` builds it from native/ with the machine's compiler. Without it everything else works, and a model of target native
runs by the functions of standard operators that it holds.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path

from onnxfuse.errors import NotBuiltError

ENDING = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

LIBRARY = Path(__file__).with_name(f"libonnxfuse{ENDING}")


def is_built() -> bool:
    """Whether the library is there."""
    return LIBRARY.is_file()


def path() -> str:
    """The library, for ``SessionOptions.register_custom_ops_library``. Raises NotBuiltError: it is not there."""
    if not is_built():
        raise NotBuiltError(
            f"the library of our own kernels is not built ({LIBRARY.name}); in a clone of onnxfuse, with a C++17 compiler, run: "
            "make native"
        )
    return str(LIBRARY)


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(path())
    for name in ("onnxfuse_kernels", "onnxfuse_selftest", "onnxfuse_instruction_sets"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


def kernels() -> str:
    """The instruction set that the kernels use here: that of ONNXFUSE_NATIVE, or the CPU's best. Raises NotBuiltError."""
    return str(_library().onnxfuse_kernels().decode())


def instruction_sets() -> tuple[str, ...]:
    """Those that the library has kernels for and this CPU runs. Raises NotBuiltError."""
    return tuple(_library().onnxfuse_instruction_sets().decode().split(","))


def fault() -> str:
    """What a kernel computes wrong here, each tried against plain C++; empty where none does. Raises NotBuiltError."""
    return str(_library().onnxfuse_selftest().decode())
