"""What keeps a file from being read, in one line. Knows nothing of ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onnxfuse.errors import ModelError, UsageError, one_line


def require_file(path: Path) -> Path:
    """``path`` itself when it is a file with content. Raises UsageError or ModelError."""
    if not path.is_file():
        raise UsageError(f"{path} is not there; give an .onnx file, or a folder that holds model.onnx")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty; export the model again")
    return path


LFS_POINTER = b"version https://git-lfs"
"""How a file begins that git left in the place of a large one."""


def flaw(path: Path) -> str:
    """What keeps a file from being read, whatever its kind; empty when nothing does."""
    if not path.exists():
        return "is a link to what is not there" if path.is_symlink() else "is not there"
    if not path.is_file():
        return "is a folder, not a file"
    with path.open("rb") as file:
        begin = file.read(len(LFS_POINTER))
    if not begin:
        return "is empty; copy or download it again"
    return "is a git-lfs pointer, not the file itself; fetch it with: git lfs pull" if begin == LFS_POINTER else ""


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises ModelError, which says what is wrong with the file."""
    wrong = flaw(path)
    if wrong:
        raise ModelError(f"{path} {wrong}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({one_line(error)}); save or download it again") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file. Raises ModelError."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a JSON {type(found).__name__}, wanted an object: {{...}}; save or download it again")
    return found
