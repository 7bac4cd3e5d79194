"""Files that are whole or not there: staged beside their places, and renamed together. Knows nothing of ONNX."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxfuse.errors import ModelError, OnnxfuseError, StorageError, first_line
from onnxfuse.io import commit, files, locks
from onnxfuse.io.commit import NEW, STAGING, UNTOUCHED
from onnxfuse.io.signals import undisturbed

Guard = Callable[[Path, str], None]
"""Asked of each file that is about to be replaced, by its folder and its name in there. Raises UsageError where it must stay."""

SCRATCH = ".onnxfuse-scratch-"
"""How folders begin that hold what is needed on the way."""

WRITTEN: list[Path] = []
"""The files that this process has put into their places, as they were asked for: what is said after an interruption."""


def save_text(text: str, path: Path, guard: Guard | None = None) -> None:
    """Write a text file atomically. Raises StorageError; UsageError of ``guard``."""
    with replacing(path, guard) as staged:
        staged.write_text(text, encoding="utf-8")


def save_json(value: object, path: Path, guard: Guard | None = None) -> None:
    """Write ``value`` as indented JSON, atomically. Raises as ``save_text``."""
    save_text(_as_json(value), path, guard)


def _as_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def shown(path: Path) -> Path:
    """``path`` as messages name it: a file or folder that is still being made goes by the name that it will have."""
    for folder in (path, *path.parents):
        if folder in _LIVE:
            return _LIVE[folder].home / path.relative_to(folder)
    return path


def named(text: str) -> str:
    """A text that names what is staged, with the names that it will have."""
    for staging in _LIVE.values():
        text = staging.named(text)
    return text


@contextlib.contextmanager
def replacing(path: Path, guard: Guard | None = None, kept: str = UNTOUCHED) -> Iterator[Path]:
    """A staging file that takes ``path``'s place when the block ends well, and vanishes when it does not.

    What else the block lays beside the staging file, in folders too, goes to the same place under ``path``'s folder: all of it,
    or nothing, whatever happens; ``commit`` says how. Folders that ``path`` needs come to be with it. Links that lie there are
    replaced, never followed. Inside a block for the same folder, what is staged in an inner one waits for the outer one's end.

    Args:
        guard: asked of each file that would be replaced.
        kept: what is true of the folder when nothing can be written, for the message.

    Raises:
        StorageError: nothing can be written there; what was there is whole. An error that names a staged file names its place.
    """
    if any(folder in _LIVE or folder in _PRIVATE for folder in path.parents):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a model that is read from there keeps its weights
        yield path
        return
    staging = _Staging(path, guard)
    try:
        staging.open()
        yield staging.root / path.name
        staging.commit()
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or first_line(error)}; {_way_out(error)}choose another folder with --output; "
            f"{kept}"
        ) from error
    except OnnxfuseError as error:
        error.args = tuple(staging.named(str(part)) for part in error.args)
        raise
    finally:
        staging.close()


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _way_out(error: OSError) -> str:
    return "free some space or " if error.errno in FULL else ""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder in the system's place for such, gone when the block has ended; those of killed runs go first.

    Nothing in it is staged: nobody else reads it. Raises OSError: there is no room for it.
    """
    parent = Path(tempfile.gettempdir())
    commit.remove_unused(parent, SCRATCH)
    lock: locks.Lock | None = None
    try:
        with undisturbed():
            folder, lock = locks.new_folder(parent, SCRATCH)
            _PRIVATE.add(folder)
        yield folder
    finally:
        with undisturbed():
            if lock is not None:
                _PRIVATE.discard(folder)
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()


def merge(path: Path, entries: Mapping[str, Any]) -> None:
    """Have a staged JSON file hold what its place holds when the block of ``replacing`` ends, and ``entries``; None takes one."""
    staging = next((_LIVE[folder] for folder in path.parents if folder in _LIVE), None)
    if staging is None:  # in a folder of ``scratch`` this is the place itself
        path.write_text(_as_json(_known(path) | dict(entries)), encoding="utf-8")
    else:
        staging.merges.setdefault(path, {}).update(entries)


def drop(staged: Path, names: Iterable[str]) -> None:
    """Have files go from the folder that ``staged`` is on its way into, as its files come; what is staged itself stays."""
    staging = next((_LIVE[folder] for folder in staged.parents if folder in _LIVE), None)
    if staging is not None:
        staging.gone.update(names)
        return
    for name in names:  # in a folder of ``scratch`` this is the place itself
        (staged.parent / name).unlink(missing_ok=True)


class _Staging:
    """A folder in which files are made for ``home``, until ``commit`` or ``close``.

    It lies in ``home``; or, where that is not there, in the nearest folder above, and holds the missing ones.
    """

    def __init__(self, path: Path, guard: Guard | None) -> None:
        self.path, self.home, self.guard = path, path.parent, guard
        self.base = self.home
        while not os.path.lexists(self.base) and self.base.parent != self.base:
            self.base = self.base.parent
        self.inner = self.home.relative_to(self.base)
        self.folder = self.root = self.base
        self.merges: dict[Path, dict[str, Any]] = {}
        self.gone: set[str] = set()
        self._lock: locks.Lock | None = None
        self._keep = False

    def open(self) -> None:
        """Make the folder. Raises OSError, ModelError (see ``commit.settle``)."""
        if ".." in self.inner.parts:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        commit.sweep(self.base)
        with undisturbed():
            folder, self._lock = locks.new_folder(self.base, STAGING)
            self.folder = self.base / folder.name
            self.root = self.folder / NEW / self.inner
            self.root.mkdir(parents=True)
            _LIVE[self.root] = self

    def named(self, text: str) -> str:
        """A text that names what is staged, with the names that it will have."""
        if self._lock is None:
            return text
        for root in (self.root, self.root.resolve(), self.folder):
            text = text.replace(str(root), str(self.home))
        return text

    def commit(self) -> None:
        """Move all files to their places. Raises OSError, StorageError, UsageError of ``guard``: nothing was moved."""
        for file in self._files():
            _sync(file)
        with undisturbed(), locks.held(self.base):
            commit.put_right(self.base)
            for path, entries in self.merges.items():
                merged = _known(self.home / path.relative_to(self.root)) | entries
                path.write_text(_as_json({name: entry for name, entry in merged.items() if entry is not None}), encoding="utf-8")
                _sync(path)
            files = sorted(
                self._files(), key=lambda file: (file == self.root / self.path.name, file)
            )  # last: it names the others
            names = [str(file.relative_to(self.root)) for file in files]
            if self.guard is not None:
                for name in names:
                    if os.path.lexists(self.home / name):
                        self.guard(self.home, name)
            try:
                self._move(names)
            except commit.HalfMovedError:
                self._keep = True
                raise
            WRITTEN.append(self.path)

    def _move(self, names: list[str]) -> None:
        if not self.inner.parts:
            commit.place(self.folder, self.home, names, sorted(self.gone - set(names)))
            return
        top = self.inner.parts[0]
        if os.path.lexists(self.base / top):
            raise StorageError(f"{self.base / top} came to be while this ran; {UNTOUCHED}: run this again")
        os.rename(self.folder / NEW / top, self.base / top)
        commit.sync_folder(self.base)

    def _files(self) -> list[Path]:
        return [file for file in self.root.rglob("*") if file.is_file()]

    def close(self) -> None:
        """Remove the folder and what is still in it."""
        with undisturbed():
            _LIVE.pop(self.root, None)
            if self._lock is not None:
                if not self._keep:
                    shutil.rmtree(self.folder, ignore_errors=True)
                self._lock.release()


_PRIVATE: set[Path] = set()
"""The folders of ``scratch``."""

_LIVE: dict[Path, _Staging] = {}
"""What is being made in this process, by the folder that becomes its home."""


def _known(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none, or a link to one."""
    try:
        return files.read_object(path) if path.is_file() and not path.is_symlink() else {}
    except ModelError:
        return {}


def _sync(path: Path) -> None:
    """Push a file to the disk itself, so that a rename cannot outrun its content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
