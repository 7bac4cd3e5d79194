"""What the functions of ``onnxfuse.api`` are given, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnxfuse.config import names
from onnxfuse.errors import UsageError
from onnxfuse.io import folders
from onnxfuse.io.progress import require_callable
from onnxfuse.pipeline import baselines, in_memory
from onnxfuse.pipeline.baselines import Baseline

Source = str | PathLike[str]

NAME_BYTES = 255
"""Of one name of a path, at most. Source: NAME_MAX of Linux and macOS."""


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
    if "\0" in os.fspath(given):
        raise UsageError(f"{what} is {os.fspath(given)!r:.80}, and no path has a null character")
    if too_long := next((name for name in Path(given).parts if len(os.fsencode(name)) > NAME_BYTES), ""):
        raise UsageError(f"{what} is called {too_long:.40}..., and no file's name has more than {NAME_BYTES} bytes")
    return Path(given)


def files_of(given: Any) -> list[Path]:
    """The files that are meant: each itself, or the export in a folder. Raises UsageError for what are no paths, or none."""
    several = list(given) if isinstance(given, list | tuple) else [given]
    if not several:
        raise UsageError("no models are given; give the path of one, or a list of paths")
    return [folders.source_file(path_of(path), *folders.RUN) for path in several]


def runtimes_of(given: Sequence[str]) -> Sequence[str]:
    """Names of runtimes. Raises UsageError where there are none."""
    if not (found := names(given, "runtimes")):
        raise UsageError("no runtimes are given; leave them out for ONNX Runtime")
    return found


def baselines_of(given: Sequence[str]) -> list[Baseline]:
    """Other tools by their names. Raises UsageError."""
    chosen = names(given, "against")
    return baselines.choose(",".join(chosen)) if chosen else []


def on_file_or_model(run: Any, model: Any, output: str | PathLike[str] | None, sought: tuple[str, ...], made: str) -> Any:
    """What ``run`` makes of a file, or of a model in memory."""
    if isinstance(model, str | PathLike):
        out = None if output is None else path_of(output, "output")
        source = folders.source_file(path_of(model), *sought)
        return run(source, folders.output_file(source, out, made))
    if not isinstance(model, onnx.ModelProto | ir.Model):
        raise UsageError(f"the model is a {type(model).__name__}, wanted a path, an onnx.ModelProto or an onnx_ir.Model")
    if output is not None:
        raise UsageError("output is for files; a model in memory comes back as the result")
    with in_memory.as_file(model) as path:
        return in_memory.read(run(path, path.with_name(made)).path, model)
