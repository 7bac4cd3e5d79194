"""Files that are whole or not there: replaced atomically, and refused in one line. Knows nothing of ONNX."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from onnxfuse.errors import ModelError, StorageError, UsageError


def save_text(text: str, path: Path) -> None:
    """Write a text file atomically. Raises StorageError."""
    with replacing(path) as staged, staged.open("w", encoding="utf-8") as file:
        file.write(text)
        sync(file)


def save_json(value: object, path: Path) -> None:
    """Write ``value`` as indented JSON, atomically. Raises StorageError."""
    save_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", path)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A staging file in ``path``'s folder that takes its place when the block ends well, and vanishes when it does not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".onnxfuse-", dir=path.parent))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; choose another folder with -o") from error
    try:
        staged = folder / path.name
        yield staged
        for side in sorted(folder.iterdir(), key=lambda file: file == staged):  # the model last: it names the others
            os.replace(side, path.parent / side.name)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; free some space or choose another folder with -o; "
                           "the old file is untouched") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync(file: IO[Any]) -> None:
    """Push an open file to the disk itself, so that a rename cannot outrun its content."""
    file.flush()
    os.fsync(file.fileno())


def require_file(path: Path) -> Path:
    """``path`` itself when it is a file with content. Raises UsageError or ModelError."""
    if not path.is_file():
        raise UsageError(f"{path} is not there; give an .onnx file, or a folder that holds model.onnx")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty; export the model again")
    return path


def model_bytes(path: Path) -> int:
    """Size in bytes of a model on disk, external data included."""
    side = path.with_name(path.name + ".data")
    return path.stat().st_size + (side.stat().st_size if side.is_file() else 0)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for messages of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
