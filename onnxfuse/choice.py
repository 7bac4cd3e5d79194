"""Which file of a folder is opened, and with what: what measured best, or else what its target says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from onnxfuse import plugins, targets
from onnxfuse.errors import MissingExtraError, ModelError, UsageError, first_line, reason
from onnxfuse.evaluation import calibrated
from onnxfuse.io import door, folders
from onnxfuse.measure import fastest
from onnxfuse.runtime import USUAL, Settings, asked, declared, require, runtime_of, runtimes

BEST = (*folders.OPENED, folders.IR_QUANTIZED, folders.IR)
"""The files of a folder, of which the first that is there is opened."""

METADATA = "onnxfuse"
"""The key of a model's metadata that says what it was optimized for."""


@dataclass(frozen=True)
class Choice:
    """What ``load`` opens: a file, what it declares, with what; and why it is this one, where ``run`` measured several."""

    path: Path
    graph: ir.Model
    settings: Settings
    why: str = ""


def choose(model: Path | str, threads: int | None = None, runtime: str | None = None) -> Choice:
    """What ``load`` opens for the same. Raises as ``load``, but for what only opening tells."""
    known, why = fastest.found(Path(model)) if runtime is None else (None, "")
    if known is not None:
        try:
            require(asked(known.settings.runtime))
        except (MissingExtraError, ModelError) as error:
            why = f"{why}, and {first_line(error)}"
        else:
            path = Path(model) / known.file
            settings = known.settings if threads is None else replace(known.settings, threads=threads)
            graph = declared(path)
            settings_of(graph, path)  # its target's operators must be here
            return Choice(path, graph, settings, why)
    return replace(_usual(model, threads, runtime), why=why)


def _usual(model: Path | str, threads: int | None, runtime: str | None) -> Choice:
    """What is opened where nothing is known of this kind of machine. Raises as ``load``."""
    path, graph = _best_for(Path(model), runtime)
    settings = settings_of(graph, path)
    if runtime is None and settings.runtime not in (known := runtimes()):
        raise ModelError(
            f"{path}: its metadata {METADATA!r} has {settings.runtime!r:.80} as runtime, and there is none of that name; choose "
            f"one with: onnxfuse.load(..., runtime=NAME), of {', '.join(known)}"
        )
    its = settings.runtime if settings.runtime in runtimes(path.suffix) else USUAL
    name = (runtime_of(path, its) if runtime is None else asked(runtime, path)).name
    settings = replace(settings, threads=settings.threads if threads is None else threads, runtime=name)
    return Choice(path, graph, settings)


def _best_for(model: Path, runtime: str | None) -> tuple[Path, ir.Model]:
    """The file that is opened where none is named, and what it declares: of a folder the best, for a runtime that was asked for
    of those that it computes as they are meant. Raises UsageError: nothing is there."""
    first = folders.source_file(model, *BEST)
    if runtime is not None and model.is_dir():
        known = asked(runtime)
        names = [name for name in (folders.QUANTIZED, folders.STATIC, *BEST[1:]) if name.endswith(known.suffixes)]
        for path in folders.models_in(model, names):
            graph = declared(path)
            if calibrated.scheme(graph) in ("", *known.integers):
                return path, graph
    return first, declared(first)


def settings_of(model: ir.Model, path: Path) -> Settings:
    """What the model's target opens it with; target cpu's for a model that onnxfuse did not optimize. Raises ModelError."""
    wrong = f"its metadata {METADATA!r}"
    try:
        known = door.parse_json(model.metadata_props.get(METADATA, "{}"), wrong)
        settings = Settings(**known["session"]) if "session" in known else targets.find("cpu").session
        libraries = known.get("libraries", [])
        if not isinstance(libraries, list) or not all(isinstance(name, str) for name in libraries):
            raise TypeError(f"libraries are {libraries!r:.80}, wanted a list of names")
    except (ValueError, TypeError, AttributeError, UsageError, ModelError) as error:
        raise ModelError(f"{path}: {wrong} is not what onnxfuse writes ({reason(error, wrong)}); optimize it again") from error
    _require_libraries(libraries, known.get("target"), path)
    return settings


def _require_libraries(names: Sequence[str], target: str, path: Path) -> None:
    """Raises ModelError when a library with operators of the model's target is in no folder that was given."""
    here = {library.name for library in plugins.libraries()}
    for name in names:
        if name not in here:
            raise ModelError(
                f"{path} has operators of target {target!r}, which are in {name}; give that target's folder: "
                f"onnxfuse.load(..., target=FOLDER), or name it in {plugins.VARIABLE}"
            )
