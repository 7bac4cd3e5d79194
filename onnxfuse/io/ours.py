"""Which files a result may replace: those that onnxfuse made, and no source of the run itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxfuse.errors import ModelError, OnnxfuseError, UsageError
from onnxfuse.io import files, folders, onnx_file


@dataclass(frozen=True)
class Replaceable:
    """Says of a file that is to be replaced whether it may: a guard for ``atomic.replacing``.

    Args:
        sources: what the run reads; never replaced.
        overwrite: whether files of others may go too.
        ours: what else than ``is_ours`` tells that a file is one of onnxfuse's.
    """

    sources: tuple[Path, ...] = ()
    overwrite: bool = False
    ours: Callable[[Path], bool] | None = None

    def __call__(self, home: Path, name: str) -> None:
        """Raises UsageError: the file ``name`` in ``home`` must stay."""
        place = home / name
        if place.exists() and any(source.exists() and place.samefile(source) for source in self.sources):
            raise UsageError(f"the output {place} is the input itself; choose another with --output")
        if self.overwrite or is_ours(home, name) or (self.ours is not None and self.ours(place)):
            return
        raise UsageError(
            f"{place} is there, and onnxfuse did not make it; choose another place with --output, or add --overwrite"
        )

    def require(self, *paths: Path) -> None:
        """Ask before the work begins. Raises UsageError where one of ``paths`` is there and must stay."""
        for path in paths:
            if os.path.lexists(path):
                self(path.parent, path.name)


def is_ours(home: Path, name: str) -> bool:
    """Whether onnxfuse made the file ``name`` in a folder: the folder's record says so, or the model's own metadata."""
    if (home / name).is_symlink() and not (home / name).exists():
        return False
    known = folders.recorded(home)
    if name == folders.RECORD:
        return _is_record(home / name)
    if any(_wrote(step, name, entry) for step, entry in known.items() if isinstance(entry, dict)):
        return True
    if name.endswith(".onnx.data"):
        return is_ours(home, name.removesuffix(".data"))
    return name.endswith(".onnx") and _says_so(home / name)


def _wrote(step: str, name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a step of a record wrote a file. Exports of earlier versions named the model alone."""
    written = entry.get("files")
    if Path(str(entry.get("path", ""))).name == name or (isinstance(written, list) and name in written):
        return True
    return step.startswith("export") and written is None and not name.endswith((".onnx", ".tflite", ".data"))


def _is_record(path: Path) -> bool:
    try:
        return all(isinstance(entry, dict) and "plan" in entry for entry in files.read_object(path).values())
    except ModelError:
        return False


def _says_so(path: Path) -> bool:
    """Whether a model's metadata says that onnxfuse made it."""
    try:
        return any(key.split(".")[0] == "onnxfuse" for key in onnx_file.metadata(path))
    except OnnxfuseError:
        return False


def require_elsewhere(out: Path, sources: Iterable[Path]) -> None:
    """Raises UsageError when an output folder is one of ``sources``."""
    for source in sources:
        if out.exists() and source.exists() and out.samefile(source):
            raise UsageError(f"the output {out} is the input itself; choose another folder with --output")
