"""Who works in a folder: locks on the folders themselves, which leave no file behind and go with the process that holds them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from onnxfuse.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

PATIENCE = 60.0
"""Seconds for which a run waits for another that is putting its files into the same folder, which takes it moments."""

RANDOM = re.compile(r"[a-z0-9_]{8}")
"""What ``tempfile.mkdtemp`` adds to a prefix. Source: tempfile's _RandomNameSequence."""

NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS, errno.EINVAL}
"""What a file system says that has no locks, or none for folders."""


class Lock:
    """A folder held by this process, until ``release`` or its end."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @property
    def certain(self) -> bool:
        """Whether nobody else can hold the folder too: False where the file system has no locks."""
        return self._descriptor is not None

    def release(self) -> None:
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # for children too that were forked meanwhile
            os.close(self._descriptor)
            self._descriptor = None


def take(folder: Path) -> Lock | None:
    """A lock on a folder; None while another process or thread has it. Raises OSError: it is not there, or a link."""
    if fcntl is None:
        return Lock(None)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        if error.errno in NO_LOCKS:
            return Lock(None)
        raise
    return Lock(descriptor)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs, after whoever has it now.

    Raises:
        StorageError: another has it for longer than ``PATIENCE``. OSError: it cannot be opened.
    """
    folder, until = folder.resolve(), time.monotonic() + PATIENCE
    while (lock := take(folder)) is None:
        if time.monotonic() > until:
            raise StorageError(f"{folder} is in use by another run of onnxfuse; wait until it has ended, and run this again")
        time.sleep(0.02)
    try:
        yield
    finally:
        lock.release()


def is_named(name: str, prefix: str) -> bool:
    """Whether a folder's name is one that ``new_folder`` gives: nobody gives it by hand."""
    return name.startswith(prefix) and RANDOM.fullmatch(name, len(prefix)) is not None


def new_folder(parent: Path, prefix: str) -> tuple[Path, Lock]:
    """A new folder in ``parent`` that this process holds, so that others can tell that it is in use. Raises OSError."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = take(folder)
            if lock is not None and folder.is_dir():
                return folder, lock
            if lock is not None:
                lock.release()
        except FileNotFoundError:
            continue  # another process took it for a leftover before it was held
        except BaseException:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
