"""What the functions of ``onnxfuse.api`` are given, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from onnxfuse.errors import UsageError
from onnxfuse.io import folders
from onnxfuse.io.progress import require_callable


def require_known(verb: str, options: Mapping[str, Any], known: Any, progress: Any) -> None:
    """Raises UsageError for an option that a verb does not have, and as ``require_callable``."""
    if unknown := sorted(set(options) - set(known.__annotations__)):
        raise UsageError(f"{verb} has no option {', '.join(unknown)}; it has {', '.join(known.__annotations__)}")
    require_callable(progress)


def taken(options: dict[str, Any], config: type) -> dict[str, Any]:
    """The options that are fields of a config, taken out."""
    return {name: options.pop(name) for name in config.__dataclass_fields__ if name in options}  # type: ignore[attr-defined]


def path_of(given: Any, what: str = "the model") -> Path:
    """A path. Raises UsageError for anything else."""
    if not isinstance(given, str | PathLike) or isinstance(os.fspath(given), bytes):
        raise UsageError(f"{what} is a {type(given).__name__}, wanted a path")
    if os.fspath(given) == "":
        raise UsageError(f"{what} is an empty text, wanted a path")
    return Path(given)


def files_of(given: Any) -> list[Path]:
    """The files that are meant: each itself, or the export in a folder. Raises UsageError for what are no paths, or none."""
    several = list(given) if isinstance(given, list | tuple) else [given]
    if not several:
        raise UsageError("no models are given; give the path of one, or a list of paths")
    return [folders.source_file(path_of(path), folders.MODEL) for path in several]
