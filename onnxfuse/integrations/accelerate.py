"""One line in place of a model of ``transformers``: exported, optimized, proven, and wrapped as what it was."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse import api, catalog
from onnxfuse.architecture import ALL
from onnxfuse.errors import ExportError, MissingExtraError, UsageError, one_line
from onnxfuse.exporters.description import class_task
from onnxfuse.exporters.tasks import auto_classes, class_for, task_of
from onnxfuse.io import atomic, folders
from onnxfuse.io.progress import Progress, silent
from onnxfuse.pipeline.arguments import require_known
from onnxfuse.pipeline.check import check_runtime
from onnxfuse.runtime import Settings, runtimes

if TYPE_CHECKING:
    from onnxfuse.integrations.module import Accelerated

PRECISIONS: Mapping[str, str | None] = {"fp32": None, "bf16": "openvino-bf16", "int8": None}
"""The precisions, and the runtime of each that only one has."""

ORIGINAL = "original"
"""What ``fallback`` may be."""


def accelerate(
    model: Any,
    *,
    task: str | None = None,
    precision: str = "fp32",
    runtime: str | None = None,
    threads: int | None = None,
    folder: str | PathLike[str] | None = None,
    fallback: str | None = None,
    progress: Progress = silent,
    **int8: Any,
) -> Accelerated:
    """Put an optimized model in the place of one of ``transformers``: the same call, the same output classes.

    Args:
        model: a model of ``transformers``, a checkpoint's folder, or a hub id. A model in memory stays as it is.
        task: of a checkpoint; what it was saved for when not given.
        precision: ``fp32``; ``bf16``, which OpenVINO computes in on CPUs that have it; or ``int8``, which must pass its gate.
        runtime: of ``onnxfuse.load``; another than ONNX Runtime must give what that gives.
        threads: of one call; 0 leaves the choice to the runtime.
        folder: where its files go, to be used again with ``load_torch``; gone with the module when not given.
        fallback: ``original``: a model in memory answers itself what the optimized one refuses (labels, attentions, gradients),
            and every call once it was moved or trained.
        int8: options of ``onnxfuse.quantize``: ``calibration``, ``data``, ``min_agreement``, ``max_drop`` and others.

    Raises:
        OnnxfuseError: the model cannot be exported (ExportError), or what was made computes something else (ParityError).
    """
    runtime = runtime_for(precision, runtime, fallback, int8, progress)
    stored = isinstance(model, str | PathLike)
    if stored and fallback is not None:
        raise UsageError(f"fallback {fallback!r} is for a model in memory; load {model} with transformers, and accelerate that")
    if task is None and stored:
        task = class_task(str(model))
    with contextlib.ExitStack() as kept:
        place = kept.enter_context(atomic.scratch()) / "model" if folder is None else Path(folder)
        api.export(model, place, task=task, outputs=[ALL], progress=progress)
        optimized = api.optimize(place, progress=progress)
        if runtime is not None and runtime != Settings().runtime:
            check_runtime(optimized.path, runtime).require(f"the model in {runtime}")
        if precision == "int8":
            api.quantize(place, progress=progress, **int8)
        made = _opened(place, runtime, threads, kept.pop_all() if folder is None else None)
        made.stand_by(None if fallback is None else model)
        return made


def runtime_for(
    precision: str, runtime: str | None, fallback: str | None, int8: Mapping[str, Any], progress: Progress
) -> str | None:
    """The runtime that ``accelerate`` opens a model with; None leaves it to the target. Raises UsageError for what it refuses."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}: wanted one of {', '.join(PRECISIONS)}")
    if fallback not in (None, ORIGINAL):
        raise UsageError(f"fallback {fallback!r}: wanted {ORIGINAL!r}, or None")
    runtime = runtime or PRECISIONS[precision]
    require_known("quantize", int8, api.QuantizeOptions, progress)
    if int8 and precision != "int8":
        raise UsageError(f"{next(iter(int8))} is an option of int8, and precision is {precision!r}; leave it out, or choose int8")
    if precision == "bf16" and runtime != PRECISIONS[precision]:
        raise UsageError(f"runtime {runtime!r} does not compute in bf16; leave it out for {PRECISIONS[precision]}")
    if runtime is not None and runtime not in runtimes():
        raise UsageError(f"no runtime named {runtime!r}; choose one of {', '.join(runtimes())}")
    return runtime


def load_torch(folder: str | PathLike[str], *, runtime: str | None = None, threads: int | None = None) -> Accelerated:
    """A folder that ``export``, ``run``, ``optimize`` or ``Accelerated.save`` wrote, as a torch module. Raises OnnxfuseError."""
    place = Path(folder)
    if not place.is_dir():
        raise UsageError(f"{place} is no folder; give the one that holds model.onnx and config.json")
    return _opened(place, runtime, threads)


def _opened(folder: Path, runtime: str | None, threads: int | None, kept: contextlib.ExitStack | None = None) -> Accelerated:
    fields = folders.read_config(folder / folders.MODEL)
    try:
        import transformers

        from onnxfuse.integrations.module import Accelerated, Interface
    except ImportError as error:
        raise MissingExtraError("a model as a torch module", "torch") from error
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
    except Exception as error:
        raise ExportError(f"{folder}: transformers cannot read config.json ({one_line(error)}); export it again") from error
    model = api.load(folder, runtime=runtime, threads=threads)
    interface = Interface.of(_class_name(fields, config, folder))
    if foreign := [name for name in model.outputs if name not in interface.outputs]:
        raise ExportError(
            f"{model.path} has the output {foreign[0]!r}, and {interface.name} gives {', '.join(interface.outputs)}; "
            "export it with --outputs all, or load the folder with onnxfuse.load"
        )
    # libraries look at a model's class by its name
    kind = type(interface.name, (Accelerated,), {"__module__": Accelerated.__module__, "__reduce__": _reduce})
    made: Accelerated = kind(folder, model, interface, config, kept)
    return made


def _class_name(fields: Mapping[str, Any], config: Any, folder: Path) -> str:
    """The class that an exported model stands for: the one that it was saved as, or the one of the task that it was exported for.

    Raises:
        ExportError: config.json names none.
    """
    named = fields.get("architectures") or [""]
    saved_as = str(named[0] if isinstance(named, list) else named).removeprefix("TF")
    task, model_type = fields.get("onnxfuse_task"), fields.get("model_type")
    family = catalog.families().get(model_type) if isinstance(model_type, str) else None
    if family is not None and isinstance(task, str) and task in family.tasks and task_of(saved_as, family) != task:
        return str(class_for(task, family, auto_classes(config, "AutoModel", family)).__name__)
    if not saved_as:
        raise ExportError(f"{folder}: config.json does not name a class in architectures; load the folder with onnxfuse.load")
    return saved_as


def _reduce(self: Accelerated) -> tuple[Any, tuple[Path, str, int]]:
    """A pickle holds the path of the folder, no weights. Raises UsageError where the folder goes with the module."""
    if self.kept is not None:
        raise UsageError("its files go with it; save(folder) it, or accelerate it with folder=, and pickle what load_torch gives")
    settings = self.runtime_model.settings
    return _reloaded, (self.folder.absolute(), settings.runtime, settings.threads)


def _reloaded(folder: Path, runtime: str, threads: int) -> Accelerated:
    return load_torch(folder, runtime=runtime, threads=threads)
