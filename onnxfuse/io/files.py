"""What keeps a file from being read, in one line. Knows nothing of ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxfuse.errors import ModelError, UsageError
from onnxfuse.io import commit, door

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""How names of images end."""


def require_file(path: Path) -> Path:
    """``path`` itself when it is a file with content, and its folder of one run. Raises UsageError or ModelError."""
    commit.settle(path.parent)
    if wrong := door.oddity(path):
        raise UsageError(f"{path} {wrong}; give an .onnx file, or a folder that holds model.onnx")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty; export the model again")
    return path


LFS_POINTER = b"version https://git-lfs"
"""How a file begins that git left in the place of a large one."""


def flaw(path: Path) -> str:
    """What keeps a file from being read, whatever its kind; empty when nothing does."""
    if wrong := door.oddity(path):
        return wrong
    with path.open("rb") as file:
        begin = file.read(len(LFS_POINTER))
    if not begin:
        return "is empty; copy or download it again"
    return "is a git-lfs pointer, not the file itself; fetch it with: git lfs pull" if begin == LFS_POINTER else ""


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises ModelError, which says what is wrong with the file."""
    commit.settle(path.parent)
    wrong = flaw(path)
    if wrong:
        raise ModelError(f"{path} {wrong}")
    return door.read_json(path)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file. Raises ModelError."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a JSON {type(found).__name__}, wanted an object: {{...}}; save or download it again")
    return found
