"""Files that are whole or not there: staged beside their place, and renamed. Knows nothing of ONNX."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from onnxfuse.errors import OnnxfuseError, StorageError, first_line


def save_text(text: str, path: Path) -> None:
    """Write a text file atomically. Raises StorageError."""
    with replacing(path) as staged, staged.open("w", encoding="utf-8") as file:
        file.write(text)
        sync(file)


def save_json(value: object, path: Path) -> None:
    """Write ``value`` as indented JSON, atomically. Raises StorageError."""
    save_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", path)


STAGING = ".onnxfuse-"
"""What the folders are called in which files are made, until they are whole."""


def shown(path: Path) -> Path:
    """``path`` as messages name it: a file that is still being made goes by the name that it will have."""
    while path.parent.name.startswith(STAGING):
        path = path.parent.parent / path.name
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A staging file in ``path``'s folder that takes its place when the block ends well, and vanishes when it does not.

    What else the block lays beside the staging file, in folders too, goes to the same place under ``path``'s folder: all of it,
    or nothing. An error that names a staged file names its place instead.

    Raises:
        StorageError: nothing can be written there; what was there is whole.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=path.parent))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; choose another folder with --output") from error
    try:
        staged = folder / path.name
        yield staged
        _move(sorted(folder.rglob("*"), key=lambda file: file == staged), folder, path.parent)  # last: it names the others
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or first_line(error)}; free some space or choose another "
            "folder with --output; what was there is untouched"
        ) from error
    except OnnxfuseError as error:
        error.args = tuple(str(part).replace(str(folder), str(path.parent)) for part in error.args)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(staged: list[Path], folder: Path, home: Path) -> None:
    """Move files from ``folder`` to the same places under ``home``. When one cannot be moved, ``home`` is as it was before."""
    moves = [(file, home / file.relative_to(folder)) for file in staged if file.is_file()]
    with tempfile.TemporaryDirectory(prefix=".onnxfuse-", dir=home) as aside:
        kept = {place: Path(aside) / str(at) for at, (_, place) in enumerate(moves) if place.exists()}
        for place, copy in kept.items():
            _keep(place, copy)
        done: list[Path] = []
        try:
            for file, place in moves:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
                done.append(place)
        except BaseException:
            for place in done:
                if place in kept:
                    os.replace(kept[place], place)
                else:
                    place.unlink()
            raise


def _keep(path: Path, copy: Path) -> None:
    """A second name for a file, or a copy of it where the file system has no such names."""
    try:
        os.link(path, copy)
    except OSError:
        shutil.copyfile(path, copy)


def sync(file: IO[Any]) -> None:
    """Push an open file to the disk itself, so that a rename cannot outrun its content."""
    file.flush()
    os.fsync(file.fileno())
