"""One line in place of a model of ``transformers``: exported, optimized, proven, and wrapped as what it was."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse import api, catalog
from onnxfuse.architecture import ALL
from onnxfuse.choice import BEST
from onnxfuse.config import BenchmarkConfig, ExportConfig
from onnxfuse.errors import ExportError, MissingExtraError, UsageError, one_line
from onnxfuse.exporters.description import class_task
from onnxfuse.exporters.tasks import auto_classes, class_for, task_of
from onnxfuse.io import atomic, folders
from onnxfuse.io.progress import Progress, silent
from onnxfuse.pipeline import in_memory
from onnxfuse.pipeline.arguments import path_of, require_known
from onnxfuse.pipeline.check import check_runtime
from onnxfuse.pipeline.run import run_all
from onnxfuse.runtime import Settings, asked, require, runtimes

if TYPE_CHECKING:
    from onnxfuse.integrations.module import Accelerated

FASTEST = "fastest"

PRECISIONS: Mapping[str, str | None] = {"fp32": None, "fp16": None, "bf16": "openvino-bf16", "int8": None, FASTEST: None}
"""The precisions, and the runtime of each that only one has. ``FASTEST`` leaves precision and runtime to a measurement."""

FILES = {"int8": folders.QUANTIZED, "fp16": folders.FP16}
"""What is opened of a precision, where it is not the optimized model."""

SHOWN = ("output_attentions", "output_hidden_states")
"""What a config may ask for, and only the original gives."""

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
        precision: ``fp32``; ``fp16``, half the size; ``bf16``, which OpenVINO computes in on CPUs that have it; or ``int8``,
            which must pass its gate;
            ``fastest`` measures what ``run`` does, every precision in every runtime that is installed, and takes the fastest
            sound one.
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
    _require_plain(model, fallback)
    if stored and fallback is not None:
        raise UsageError(f"fallback {fallback!r} is for a model in memory; load {model} with transformers, and accelerate that")
    if task is None and stored:
        task = class_task(str(model))
    with contextlib.ExitStack() as kept:
        place = kept.enter_context(atomic.scratch()) / "model" if folder is None else Path(folder)
        if precision == FASTEST:
            _measured(model, place, task, threads, progress)
            path = place
        else:
            _made(model, place, task, runtime, _meant_for(runtime) | int8 if precision == "int8" else None, precision, progress)
            path = place / FILES.get(precision, folders.OPTIMIZED)
        made = _opened(path, runtime, threads, kept.pop_all() if folder is None else None)
        made.stand_by(None if fallback is None else model)
        return made


def _require_plain(model: Any, fallback: str | None) -> None:
    """Raises UsageError for what is optimized already, and where a config asks for what an optimized model does not give."""
    if isinstance(model, str | PathLike):
        place = Path(model)
        weights = not place.is_dir() or any(path.suffix in (".safetensors", ".h5", ".keras") for path in place.iterdir())
        if not weights and folders.models_in(place, BEST):
            raise UsageError(f"{model} holds an exported model; open it with onnxfuse.load_torch({str(model)!r})")
        return
    if hasattr(model, "runtime_model"):
        raise UsageError(f"{type(model).__name__} is optimized already")
    config = getattr(model, "config", None)
    if fallback is None and (shown := [name for name in SHOWN if getattr(config, name, False) is True]):
        raise UsageError(
            f"the model's config asks for {shown[0]}, which an optimized model does not give; set config.{shown[0]} = False, or "
            f"give fallback={ORIGINAL!r}"
        )


def runtime_for(
    precision: str, runtime: str | None, fallback: str | None, int8: Mapping[str, Any], progress: Progress
) -> str | None:
    """The runtime that ``accelerate`` opens a model with; None leaves it to the target.

    Raises:
        UsageError: for what it refuses. MissingExtraError, ModelError: the runtime is not to be had here.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}: wanted one of {', '.join(PRECISIONS)}")
    if fallback not in (None, ORIGINAL):
        raise UsageError(f"fallback {fallback!r}: wanted {ORIGINAL!r}, or None")
    if precision == FASTEST and runtime is not None:
        raise UsageError(f"precision {FASTEST!r} finds the runtime too; leave out runtime {runtime!r}")
    runtime = runtime or PRECISIONS[precision]
    require_known("quantize", int8, api.QuantizeOptions, progress)
    if int8 and precision != "int8":
        raise UsageError(f"{next(iter(int8))} is an option of int8, and precision is {precision!r}; leave it out, or choose int8")
    if runtime is not None:
        require(asked(runtime, Path(folders.MODEL)))
    computes = runtimes()[runtime or Settings().runtime].precision("fp32")
    if precision == "bf16" and computes != "bf16":
        raise UsageError(f"runtime {runtime!r} does not compute in bf16; leave it out for {PRECISIONS[precision]}")
    if precision == "fp32" and computes != "fp32":
        raise UsageError(f"runtime {runtime!r} computes in {computes}; leave it out, or choose precision {computes!r}")
    return runtime


def _made(
    model: Any,
    place: Path,
    task: str | None,
    runtime: str | None,
    int8: Mapping[str, Any] | None,
    precision: str,
    progress: Progress,
) -> None:
    """The optimized model, and where ``int8`` holds options the quantized one. Raises as ``accelerate``."""
    api.export(model, place, task=task, outputs=[ALL], progress=progress)
    known = runtimes()[runtime or Settings().runtime]
    half = precision if precision == "fp16" else "fp32"
    optimized = api.optimize(place, target=known.target, precision=half, progress=progress)
    if runtime is not None and runtime != Settings().runtime:
        check_runtime(optimized.path, runtime).require(f"the model in {runtime}")
    if int8 is not None:
        api.quantize(place, progress=progress, **dict(int8))


def _meant_for(runtime: str | None) -> dict[str, Any]:
    """The int8 that a runtime multiplies in whole numbers, where it is not the usual one."""
    known = runtimes()[runtime or Settings().runtime]
    return {} if "dynamic" in known.integers else {"static": True, "format": known.static}


def _measured(model: Any, place: Path, task: str | None, threads: int | None, progress: Progress) -> None:
    """Every form of a model, measured as ``run`` does it: loading the folder opens the fastest. Raises as ``run_all``."""
    import torch

    given = str(model) if isinstance(model, str | PathLike) else None
    plan = ExportConfig(given or type(model).__name__, place, task, outputs=(ALL,))
    before = torch.get_num_threads()
    try:
        with in_memory.mode_kept(model):
            run_all(plan, "cpu", BenchmarkConfig(threads=threads or 0), progress, source=None if given else model)
    finally:
        torch.set_num_threads(before)


def load_torch(folder: str | PathLike[str], *, runtime: str | None = None, threads: int | None = None) -> Accelerated:
    """A folder that ``export``, ``run``, ``optimize`` or ``Accelerated.save`` wrote, as a torch module; of a file, that one.

    Raises:
        OnnxfuseError: nothing is there, or it cannot be opened.
    """
    place = path_of(folder, "the folder")
    if not place.exists():
        raise UsageError(f"{place} is no folder and no file; give the folder that holds model.onnx and config.json")
    return _opened(place, runtime, threads)


def _opened(path: Path, runtime: str | None, threads: int | None, kept: contextlib.ExitStack | None = None) -> Accelerated:
    """The model of a folder, or a file in one, as a module."""
    folder = path if path.is_dir() else folders.home_of(path)
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
    model = api.load(path, runtime=runtime, threads=threads)
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


def _reduce(self: Accelerated) -> tuple[Any, tuple[Path, str, int, str]]:
    """A pickle holds the path of the file, no weights. Raises UsageError where the file goes with the module."""
    if self.kept is not None:
        raise UsageError("its files go with it; save(folder) it, or accelerate it with folder=, and pickle what load_torch gives")
    path, settings = self.runtime_model.path.absolute(), self.runtime_model.settings
    return _reloaded, (path, settings.runtime, settings.threads, self.fingerprint)


def _reloaded(path: Path, runtime: str, threads: int, fingerprint: str) -> Accelerated:
    """Raises UsageError where another model lies there now."""
    if path.is_file() and folders.fingerprint(path) != fingerprint:
        raise UsageError(f"{path} is another model than the one that was pickled; give each model a folder of its own")
    return load_torch(path, runtime=runtime, threads=threads)
