"""Several files that take their places together. What a killed run left between two renames can be told, and is finished.

A run stages its files in a folder of its own beside their places, ``STAGING`` in its name and a lock on it. Before the first
rename it lays second names of what was there into ``old/``, and writes down what it is about to do (``MARKER``). Whoever comes to
a folder with such a note, and nobody holding it, does the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from onnxfuse.errors import ModelError, StorageError
from onnxfuse.io import door, locks
from onnxfuse.io.signals import undisturbed

STAGING = ".onnxfuse-staging-"
"""How the folders are called in which files are made, until they are whole; ``locks.new_folder`` adds to it."""

NEW, OLD = "new", "old"
MARKER, UNDO = "moves.json", "undo.json"
"""Notes in a staging folder: its files are on their way to their places; or, after one could not be moved, on the way back."""


@dataclass(frozen=True)
class Moves:
    """Files on their way from a staging folder into ``home``.

    Args:
        folder: the staging folder, in ``home`` itself.
        names: of the files, relative to ``folder/new`` and to ``home``.
        had: those of them that ``home`` had before, with second names in ``folder/old``.
        made: folders that ``home`` had not, the outer ones first.
        gone: files that go from ``home`` as the others come.
    """

    folder: Path
    home: Path
    names: tuple[str, ...]
    had: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def forward(self) -> None:
        """Move what has not been moved. Raises OSError."""
        for name in self.made:
            (self.home / name).mkdir(exist_ok=True)
        for name in self.names:
            if os.path.lexists(self.folder / NEW / name):
                os.replace(self.folder / NEW / name, self.home / name)
        for name in self.gone:
            (self.home / name).unlink(missing_ok=True)

    def back(self) -> None:
        """Put what was there into its place again. Raises OSError."""
        if not (self.folder / UNDO).exists():
            os.replace(self.folder / MARKER, self.folder / UNDO)
        moved = [name for name in self.names if not os.path.lexists(self.folder / NEW / name)]
        for name in moved:
            if name not in self.had:
                (self.home / name).unlink(missing_ok=True)
            elif os.path.lexists(self.folder / OLD / name):
                os.replace(self.folder / OLD / name, self.home / name)
        for name in self.gone:
            if not os.path.lexists(self.home / name):
                os.replace(self.folder / OLD / name, self.home / name)
        for name in reversed(self.made):
            with contextlib.suppress(FileNotFoundError):
                (self.home / name).rmdir()

    def note(self) -> None:
        """Write down what is about to be done, on the disk itself. Raises OSError."""
        draft = self.folder / (MARKER + ".draft")
        with draft.open("w", encoding="utf-8") as file:
            parts = {"names": self.names, "had": self.had, "made": self.made, "gone": self.gone}
            json.dump({"folder": identity(self.folder), **parts}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.folder / MARKER)
        sync_folder(self.folder)

    def forget(self) -> None:
        """Nothing is left to be done."""
        for note in (MARKER, UNDO):
            with contextlib.suppress(OSError):  # the moves are done: who finds the note finds nothing to move
                (self.folder / note).unlink(missing_ok=True)


UNTOUCHED = "what was there is untouched"
"""Said of a run that ended before its files took their places; true of no other."""


class HalfMovedError(StorageError):
    """Files could be moved neither forward nor back; the staging folder must stay."""


def place(folder: Path, home: Path, names: list[str], gone: Sequence[str] = ()) -> None:
    """Move the files ``names`` from ``folder/new`` into ``home``, and the files ``gone`` out of it: all of them, or none.

    Raises:
        OSError: it cannot be done; ``home`` is as it was. HalfMovedError: nor can it be undone, until the folder can be written.
    """
    made = require_real(home, names)
    gone = [name for name in gone if os.path.lexists(home / name)]
    if len(names) == 1 and not made and not gone:
        os.replace(folder / NEW / names[0], home / names[0])
        sync_folder(home)
        return
    had = [name for name in (*names, *gone) if os.path.lexists(home / name)]
    for name in had:
        (folder / OLD / name).parent.mkdir(parents=True, exist_ok=True)
        _name_again(home / name, folder / OLD / name)
    moves = Moves(folder, home, tuple(names), tuple(had), tuple(made), tuple(gone))
    moves.note()
    try:
        moves.forward()
    except OSError as error:
        try:
            moves.back()
        except OSError:
            some = not all((folder / NEW / name).exists() for name in names)
            has, rest = (
                ("files of this run and of an earlier one", "the others") if some else ("what it had", "those of this run")
            )
            raise HalfMovedError(
                f"{home} has {has} ({error.strerror}); make it writable, and the next command of onnxfuse there moves {rest}"
            ) from error
        moves.forget()
        raise
    sync_folder(home)
    moves.forget()


def require_real(home: Path, names: list[str]) -> list[str]:
    """The folders that ``names`` need and ``home`` lacks. Raises StorageError where a link or another thing is in the way."""
    missing: dict[str, None] = {}
    for name in names:
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            there = home / parent
            if there.is_symlink() or (there.exists() and not there.is_dir()):
                raise StorageError(
                    f"{there} is {_kind(there)}, and a folder of that name belongs there; move it away; {UNTOUCHED}"
                )
            if not there.exists():
                missing[str(parent)] = None
        if os.path.lexists(home / name) and not (home / name).is_symlink() and not (home / name).is_file():
            raise StorageError(
                f"{home / name} is {_kind(home / name)}, and a file of that name belongs there; move it away; {UNTOUCHED}"
            )
    return list(missing)


def _kind(path: Path) -> str:
    return "a link" if path.is_symlink() else "a folder" if path.is_dir() else "a file" if path.is_file() else "no file"


def _name_again(path: Path, copy: Path) -> None:
    """A second name for a file or link, or a copy of it where the file system has no such names."""
    try:
        os.link(path, copy, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copyfile(path, copy, follow_symlinks=False)


def sync_folder(folder: Path) -> None:
    """Push the names in a folder to the disk, where the file system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def identity(folder: Path) -> list[int]:
    """What a folder keeps when it is renamed, and a copy of it has not."""
    found = folder.stat()
    return [found.st_dev, found.st_ino]


# What others left ----------------------------------------------------------------------------------------------------


def settle(home: Path) -> None:
    """Finish what a killed run left half-done in a folder; every reader of a folder asks for that. Does nothing else.

    Raises:
        ModelError: it cannot be finished: the folder is not writable, or a copy of such a one.
    """
    if not any(_note(folder) for folder in _leftovers(home)):
        return
    try:
        with undisturbed(), locks.held(home):
            put_right(home)
    except OSError as error:
        raise ModelError(
            f"{home} has files of two runs, since one was killed between them, and this cannot be put right "
            f"({error.strerror}); make the folder writable"
        ) from error


def put_right(home: Path) -> None:
    """``settle`` for who holds the folder. Raises OSError, ModelError."""
    for folder in _leftovers(home):
        if note := _note(folder):
            _finish(folder, home, note)


def _finish(folder: Path, home: Path, note: Path) -> None:
    moves = _read(folder, home, note)
    if moves is None:
        raise ModelError(
            f"{home} may have files of two runs: {folder.name} in it is damaged, or of another folder; remove that, and make "
            "the models here again"
        )
    lock = locks.take(folder)
    if lock is None:
        raise ModelError(f"{home} is being changed by another run of onnxfuse; wait until that has ended")
    try:
        if note.name == MARKER:
            moves.forward()
        else:
            moves.back()
        sync_folder(home)
        moves.forget()
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()


def _read(folder: Path, home: Path, note: Path) -> Moves | None:
    """What a note says; None for one that was not written in this very folder, or names a place outside."""
    try:
        said: dict[str, Any] = door.read_json(note)
        parts = (tuple(map(_inside, said.get(part, ()))) for part in ("names", "had", "made", "gone"))
        moves = Moves(folder, home, *parts)
        require_real(home, [*moves.names, *moves.gone])
        return moves if said["folder"] == identity(folder) else None
    except (ValueError, KeyError, TypeError, ModelError, StorageError):
        return None


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(name)
    return name


def sweep(home: Path) -> None:
    """Remove what killed runs left in a folder: staging folders that nobody holds. Raises ModelError as ``settle``."""
    settle(home)
    remove_unused(home, STAGING)


def remove_unused(home: Path, prefix: str) -> None:
    """Remove the folders in ``home`` that ``locks.new_folder`` gave such names, and which no process holds."""
    for folder in _leftovers(home, prefix):
        with contextlib.suppress(OSError):
            lock = locks.take(folder)
            if lock is not None:
                if lock.certain and not _note(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                lock.release()


def _leftovers(home: Path, prefix: str = STAGING) -> Iterator[Path]:
    """The folders in a folder that ``locks.new_folder`` gave such names, and that are this user's."""
    try:
        with os.scandir(home) as entries:
            found = [entry for entry in entries if locks.is_named(entry.name, prefix) and entry.is_dir(follow_symlinks=False)]
            yield from [home / entry.name for entry in found if _is_mine(entry)]
    except OSError:
        return


def _is_mine(entry: os.DirEntry[str]) -> bool:
    return not hasattr(os, "geteuid") or entry.stat(follow_symlinks=False).st_uid == os.geteuid()


def _note(folder: Path) -> Path | None:
    for name in (MARKER, UNDO):
        if (folder / name).is_file():
            return folder / name
    return None
