"""Who opens or changes files of a folder, whichever library does it: the kernel tells (inotify)."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path

OPEN, WRITTEN = 0x20, 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
"""IN_OPEN; IN_MODIFY, IN_ATTRIB, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF."""
FOLDER = 0x40000000
"""IN_ISDIR: listing a folder is not reading a file of it."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Touched:
    """Names of files that were opened, and of those that were changed, made or removed."""

    opened: frozenset[str]
    written: frozenset[str]


class Watch:
    """Watches a folder and those in it from now on."""

    def __init__(self, folder: Path) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        for each in (folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())):
            if _libc.inotify_add_watch(self._fd, os.fsencode(each), OPEN | WRITTEN) < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch", str(each))

    def close(self) -> Touched:
        """What happened since; ends the watch."""
        opened, written = set(), set()
        try:
            while True:
                data = os.read(self._fd, 1 << 16)
                while data:
                    _, mask, _, size = struct.unpack_from("iIII", data)
                    name = data[16 : 16 + size].rstrip(b"\0").decode(errors="replace")
                    data = data[16 + size :]
                    if mask & OPEN and not mask & FOLDER:
                        opened.add(name)
                    if mask & WRITTEN:
                        written.add(name)
        except BlockingIOError:
            pass
        finally:
            os.close(self._fd)
        return Touched(frozenset(opened), frozenset(written))
