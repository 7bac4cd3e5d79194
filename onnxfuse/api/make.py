"""The verbs that make models, and what opens one.

``optimize`` and ``quantize`` also take a model in memory (``onnx.ModelProto`` or ``onnx_ir.Model``), and give one of the same
kind: what was done stands in its metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, cast, overload

import onnx
import onnx_ir as ir

from onnxfuse import model as models
from onnxfuse.config import (
    ExportConfig,
    OptimizeConfig,
    PackageConfig,
    QuantizeConfig,
    Scheme,
    Thresholds,
    names,
)
from onnxfuse.errors import UsageError
from onnxfuse.io import folders
from onnxfuse.io.progress import Progress, require_callable, silent
from onnxfuse.pipeline import export as exporting
from onnxfuse.pipeline import in_memory
from onnxfuse.pipeline import optimize as optimizing
from onnxfuse.pipeline import package as packaging
from onnxfuse.pipeline import push as pushing
from onnxfuse.pipeline import quantize as quantizing
from onnxfuse.pipeline.arguments import Source, on_file_or_model, path_of, require_known, taken
from onnxfuse.pipeline.export_tflite import export_tflite
from onnxfuse.runtime import Settings

M = TypeVar("M", onnx.ModelProto, ir.Model)


class ExportOptions(TypedDict, total=False):
    """Options of ``export``: see ``ExportConfig``."""

    task: str | None
    framework: str | None
    exporter: str | None
    opset: int | None
    model_type: str | None
    random_weights: bool
    seed: int
    format: str
    precision: str
    overwrite: bool
    outputs: Sequence[str]


def export(
    source: Any, output: Source | None = None, *, progress: Progress = silent, **options: Unpack[ExportOptions]
) -> exporting.Exported:
    """Export a checkpoint to ``output/model.onnx``, and prove it against its own framework.

    Args:
        source: a hub id, a checkpoint's folder, or a loaded model of transformers or KerasHub.
        output: a folder; ``onnx/NAME`` when not given.
        options: the fields of ``ExportConfig``.

    Raises:
        OnnxfuseError: the checkpoint cannot be loaded or exported (ExportError), or the graph computes something else
            (ParityError).
    """
    require_known("export", options, ExportOptions, progress)
    given = str(source) if isinstance(source, str | PathLike) else None
    if given == "":
        raise UsageError("the source is an empty text, wanted a hub id, a checkpoint's folder or a loaded model")
    if given is None and output is None:
        raise UsageError("a loaded model has no name to export it under; give output, a folder")
    out = folders.export_folder(given or "model", None if output is None else path_of(output, "output"))
    named = cast(dict[str, Any], options | {"outputs": names(options.get("outputs", ()), "outputs")})
    plan = ExportConfig(given or type(source).__name__, out, **named)
    if plan.format not in exporting.FORMATS:
        raise UsageError(f"format {plan.format!r}: wanted one of {', '.join(exporting.FORMATS)}")
    if plan.format == "tflite":
        return export_tflite(plan, progress)
    with in_memory.mode_kept(source):
        return exporting.export(plan, progress, None if given else source)


class OptimizeOptions(TypedDict, total=False):
    """Options of ``optimize``: see ``OptimizeConfig``."""

    target: str
    model_type: str | None
    only: Iterable[str]
    without: Iterable[str]
    require: Iterable[str]
    verify: str
    dump: Source | None
    unpad: bool | None
    batch: int | None
    length: int | None
    overwrite: bool
    precision: str | None
    half_io: bool
    progress: Progress


@overload
def optimize(model: Source, output: Source | None = None, **options: Unpack[OptimizeOptions]) -> optimizing.Optimized: ...
@overload
def optimize(model: M, output: None = None, **options: Unpack[OptimizeOptions]) -> M: ...


def optimize(model: Any, output: Source | None = None, **options: Unpack[OptimizeOptions]) -> Any:
    """Fuse a model for a target, prove that it computes the same, and save it.

    Args:
        model: an .onnx file, a folder, or a model in memory, which stays as it is.
        output: a file or folder; ``model_optimized.onnx`` (``model_fp16.onnx``) beside the model when not given.
        options: the fields of ``OptimizeConfig``, and ``progress``.

    Returns:
        What was made, usable as its path; for a model in memory, the optimized one, of the same kind.

    Raises:
        OnnxfuseError: the model is broken (ModelError), computes something else when fused (ParityError), or lacks what is
            required (RequirementError).
    """
    given = cast(dict[str, Any], options)
    progress = given.pop("progress", silent)
    require_known("optimize", given, OptimizeOptions, progress)
    kinds: dict[str, type] = {"only": frozenset, "without": frozenset, "require": tuple}
    given |= {name: kind(names(given[name], name)) for name, kind in kinds.items() if name in given}
    given |= {"dump": path_of(given["dump"], "dump")} if given.get("dump") is not None else {}

    def run(source: Path, out: Path) -> optimizing.Optimized:
        return optimizing.optimize(OptimizeConfig(source, out, **given), progress)

    made = folders.HALVED.get(str(given.get("precision")), folders.OPTIMIZED)
    return on_file_or_model(run, model, output, (folders.MODEL,), made)


class QuantizeOptions(TypedDict, total=False):
    """Options of ``quantize``: see ``Scheme``, ``Thresholds`` and ``QuantizeConfig``."""

    static: bool | None
    embeddings: bool
    reduce_range: bool | None
    smooth: str | float
    rounding: str
    ranges: str
    format: str
    attention: str
    max_drop: float | None
    min_cosine: float | None
    min_agreement: float | None
    calibration: Source | None
    data: Source | None
    batch: int
    overwrite: bool
    progress: Progress


@overload
def quantize(model: Source, output: Source | None = None, **options: Unpack[QuantizeOptions]) -> quantizing.Quantized: ...
@overload
def quantize(model: M, output: None = None, **options: Unpack[QuantizeOptions]) -> M: ...


def quantize(model: Any, output: Source | None = None, **options: Unpack[QuantizeOptions]) -> Any:
    """Quantize a float model to int8, and save it if it passes the int8 tolerance and the thresholds.

    Args:
        model: an .onnx file, a folder, or a model in memory, which stays as it is.
        output: a file or folder; ``model_quantized.onnx`` beside the model when not given.
        options: the fields of ``Scheme``, ``Thresholds`` and ``QuantizeConfig``, and ``progress``.

    Returns:
        What was made, usable as its path; for a model in memory, the int8 one, of the same kind.

    Raises:
        OnnxfuseError: the model is broken (ModelError), int8 is too far away (ParityError), or misses a threshold
            (RequirementError).
    """
    given = cast(dict[str, Any], options)
    progress = given.pop("progress", silent)
    require_known("quantize", given, QuantizeOptions, progress)
    scheme = Scheme(**taken(given, Scheme))
    thresholds = Thresholds(**taken(given, Thresholds))
    given |= {"data": path_of(given["data"], "data")} if given.get("data") is not None else {}
    given |= {"calibration": str(given["calibration"])} if given.get("calibration") is not None else {}

    def run(source: Path, out: Path) -> quantizing.Quantized:
        return quantizing.quantize(QuantizeConfig(source, out, scheme, thresholds=thresholds, **given), progress)

    return on_file_or_model(run, model, output, (folders.OPTIMIZED, folders.MODEL), folders.QUANTIZED)


def package(
    model: Source, layout: str, output: Source | None = None, *, overwrite: bool = False, progress: Progress = silent
) -> packaging.Packaged:
    """Lay a model, and what belongs to it, into a folder that another library opens. Raises as ``pipeline.package``.

    Args:
        model: a folder, or an .onnx file.
        layout: a name of ``onnxfuse.layouts.layouts``, such as optimum or sentence-transformers.
        output: the folder; ``packages/NAME-LAYOUT`` when not given.
    """
    require_callable(progress)
    source = folders.source_file(path_of(model), *packaging.MODELS)
    out = packaging.package_folder(source, layout, None if output is None else path_of(output, "output"))
    return packaging.package(PackageConfig(source, layout, out, overwrite), progress)


def push(
    folder: Source, repository: str, *, private: bool = False, overwrite: bool = False, progress: Progress = silent
) -> pushing.Pushed:
    """Put what ``package`` wrote into a repository of the hub, with a model card. Raises as ``pipeline.push``."""
    require_callable(progress)
    return pushing.push(path_of(folder, "the folder"), repository, progress, private=private, overwrite=overwrite)


def load(model: Source, *, threads: int | None = None, runtime: str | None = None, target: Source | None = None) -> models.Model:
    """Open a model, or the best one of a folder, with the options that measured best for its target: see ``model.load``."""
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 0):
        raise UsageError(f"threads is {threads!r}, wanted a whole number: 0 leaves the choice to the runtime")
    Settings(threads=threads or 0)  # refuses what no machine has
    if runtime is not None and not isinstance(runtime, str):
        raise UsageError(f"runtime is {runtime!r}, wanted a name")
    return models.load(
        path_of(model), threads=threads, runtime=runtime, target=None if target is None else path_of(target, "target")
    )
