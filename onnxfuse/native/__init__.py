"""Our own CPU kernels: where the library of our operators is, and what it takes on this machine.

    options.register_custom_ops_library(onnxfuse.native.path())

``make native`` builds it from native/ with the machine's compiler. Without it everything else works, and a model of target native
runs by the functions of standard operators that it holds.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import sys
from pathlib import Path

from onnxfuse.errors import NotBuiltError, first_line

ENDING = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

LIBRARY = Path(__file__).with_name(f"libonnxfuse{ENDING}")


def is_built() -> bool:
    """Whether the library is there."""
    return LIBRARY.is_file()


def path() -> str:
    """The library, for ``SessionOptions.register_custom_ops_library``. Raises NotBuiltError: it is not there, or not whole."""
    if not is_built():
        raise NotBuiltError(
            f"the library of our own kernels is not built ({LIBRARY.name}); in a clone of onnxfuse, with a C++17 compiler, run: "
            "make native"
        )
    if (size := LIBRARY.stat().st_size) < (wanted := _extent(LIBRARY)):
        raise NotBuiltError(f"{LIBRARY} is cut off: it has {size} bytes, wanted {wanted}; build it again: make native")
    return str(LIBRARY)


def _extent(library: Path) -> int:
    """The bytes that a library of ELF's kind must have, whose table of sections stands last; 0 of another kind. A process that
    loads a shorter one dies of SIGBUS."""
    with library.open("rb") as file:
        head = file.read(ELF.size)
    if ENDING == ".so" and len(head) < ELF.size:
        return ELF.size
    if head[:5] != b"\x7fELF\x02":
        return 0
    sections, size, count = ELF.unpack(head)
    return int(sections + size * count)


ELF = struct.Struct("<40xQ10xHH2x")
"""Of the header of a 64-bit ELF file: where the table of sections is, the size of an entry, and their number."""


def trouble() -> str:
    """Why the library cannot be used here, and what to do; empty where it can."""
    try:
        path()  # of the file that is there now
        wrong = fault()
    except NotBuiltError as error:
        return str(error)
    if not wrong:
        return ""
    way = "unset it, or take one of these" if wrong.startswith(CHOSEN_BY) else "build it again: make native"
    return f"our own kernels cannot be used: {wrong}; {way}"


CHOSEN_BY = "ONNXFUSE_NATIVE"
"""The environment variable that takes another instruction set."""


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(path())
        for name in ("onnxfuse_kernels", "onnxfuse_selftest", "onnxfuse_instruction_sets"):
            getattr(library, name).restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        raise NotBuiltError(f"{LIBRARY} cannot be loaded: {first_line(error)}; build it for this machine: make native") from error
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
