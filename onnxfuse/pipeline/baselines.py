"""What users have without onnxfuse: other tools' ways from the same checkpoint or export, as candidates for one stopwatch.

Each baseline runs with its own defaults. What it needs is made in a scratch folder, once for all baselines that share it.

Source: the tools' own documentation; ``onnxruntime.transformers.optimizer``, ``onnxruntime.quantization``,
``onnxscript.rewriter.ort_fusions``, ``transformers.exporters`` (transformers 5), ``torch.compile``, OpenVINO and NNCF.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxfuse import catalog
from onnxfuse.errors import MissingExtraError, ModelError, UsageError, first_line
from onnxfuse.exporters.run_pytorch import torch_runner
from onnxfuse.io import folders, onnx_file, places
from onnxfuse.io.quiet import quiet
from onnxfuse.runtime import Runner, Settings, open_runner
from onnxfuse.verify.inputs import profile_of

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint

CALIBRATION = (16, 32, 64, 96, 128)
"""Lengths of the random rows that NNCF calibrates with, where the model is not shorter."""


@dataclass
class Context:
    """What baselines are made from and with.

    Args:
        model: the plain export.
        family: its model type.
        folder: for what is made on the way.
        threads: for every runtime; 0 takes its default.
        checkpoint: what the export came from; opened from the export's record when None.
    """

    model: Path
    family: str
    folder: Path
    threads: int = 0
    checkpoint: Checkpoint | None = None
    _made: dict[str, Path] = field(default_factory=dict)

    def torch(self) -> Checkpoint:
        """The checkpoint. Raises UsageError when the export's record does not lead to it."""
        if self.checkpoint is None:
            self.checkpoint = checkpoint_of(self.model)
        return self.checkpoint

    def made(self, name: str, make: Callable[[Context, Path], None]) -> Path:
        """The file that ``make`` writes, made once. Raises ModelError with the tool's own words when it fails."""
        if name not in self._made:
            path = self.folder / name / folders.MODEL
            path.parent.mkdir(parents=True, exist_ok=True)
            with quiet():
                try:
                    make(self, path)
                except ImportError as error:
                    raise MissingExtraError(f"measuring against {name}", "baselines") from error
                except Exception as error:
                    raise ModelError(f"{name} failed: {first_line(error)[:200]}") from error
            self._made[name] = path
        return self._made[name]

    def session(self, path: Path, runtime: str = "ort") -> Runner:
        return open_runner(path, Settings(runtime, self.threads))


def checkpoint_of(model: Path) -> Checkpoint:
    """The checkpoint that ``onnxfuse export`` made a model from, by the record beside it. Raises UsageError, ExportError."""
    from onnxfuse.exporters import open_checkpoint

    export = folders.recorded(model.parent).get("export", {})
    plan = export.get("plan")
    if plan is None or export.get("framework") != "pt":
        raise UsageError(
            f"{model.with_name(folders.RECORD)} does not say which PyTorch checkpoint {model.name} came from; "
            "PyTorch can be measured beside what onnxfuse export wrote from it"
        )
    return open_checkpoint(
        places.found(plan["source"], model.parent),
        task=plan["task"],
        model_type=plan["model_type"],
        random_weights=plan["random_weights"],
        seed=plan["seed"],
        framework="pt",
        outputs=tuple(plan.get("outputs", ())),
    )


# What the tools write --------------------------------------------------------------------------------------------


def _ort_optimized(context: Context, path: Path) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    kind = catalog.architecture(context.family).ort_optimizer
    optimize_model(str(context.model), model_type=kind).save_model_to_file(str(path))


def _onnxscript(context: Context, path: Path) -> None:
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    model, _ = optimize_for_ort(ir.load(context.model))
    ir.save(model, path)


def _transformers(context: Context, path: Path, **options: Any) -> None:
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    from onnxfuse.exporters.torch import sample

    checkpoint = context.torch()
    feeds: dict[str, Any] = dict(zip(checkpoint.inputs, sample(checkpoint), strict=True))
    model: Any = checkpoint.module.model
    exporter = OnnxExporter()  # type: ignore[no-untyped-call]
    ir.save(exporter.export(model, feeds, config=OnnxConfig(dynamic=True, **options)).program, path)


def _transformers_fused(context: Context, path: Path) -> None:
    _transformers(context, path, ort_fusions="cpu")


def _transformers_int8(context: Context, path: Path) -> None:
    from transformers.exporters.quantizers.quantizer_onnxruntime import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    _transformers(context, path, ort_fusions="cpu", quantizer=OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig()))


def _quantized(source: Callable[[Context], Path]) -> Callable[[Context, Path], None]:
    def make(context: Context, path: Path) -> None:
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(source(context), path)

    return make


def _nncf(context: Context, path: Path) -> None:
    import nncf
    import openvino

    profile = profile_of(onnx_file.load(context.model), folders.read_config(context.model))
    rows = [profile.feeds(1, min(length, profile.longest), seed=seed) for seed in range(4) for length in CALIBRATION]
    model = nncf.quantize(
        openvino.Core().read_model(context.model),
        nncf.Dataset(rows),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(rows),
    )
    openvino.save_model(model, path.with_suffix(".xml"))


# The baselines -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Baseline:
    """One way to run the model without onnxfuse; ``kind``: fp32, bf16 or int8."""

    kind: str
    open: Callable[[Context], Runner]


def _plain(context: Context) -> Path:
    return context.model


def _ort_optimized_file(context: Context) -> Path:
    return context.made("ort-optimizer", _ort_optimized)


def _from_file(name: str, make: Callable[[Context, Path], None]) -> Callable[[Context], Runner]:
    return lambda context: context.session(context.made(name, make))


def _from_nncf(context: Context) -> Runner:
    return context.session(context.made("openvino-int8", _nncf).with_suffix(".xml"), "openvino")


BASELINES: dict[str, Baseline] = {
    "torch": Baseline("fp32", lambda context: torch_runner(context.torch(), context.threads)),
    "torch-compile": Baseline("fp32", lambda context: torch_runner(context.torch(), context.threads, compiled=True)),
    "torch-bf16": Baseline("bf16", lambda context: torch_runner(context.torch(), context.threads, compiled=True, bfloat16=True)),
    "ort": Baseline("fp32", lambda context: context.session(context.model)),
    "ort-optimizer": Baseline("fp32", _from_file("ort-optimizer", _ort_optimized)),
    "onnxscript": Baseline("fp32", _from_file("onnxscript", _onnxscript)),
    "transformers": Baseline("fp32", _from_file("transformers", _transformers_fused)),
    "quantize-dynamic": Baseline("int8", _from_file("quantize-dynamic", _quantized(_plain))),
    "ort-optimizer-int8": Baseline("int8", _from_file("ort-optimizer-int8", _quantized(_ort_optimized_file))),
    "transformers-int8": Baseline("int8", _from_file("transformers-int8", _transformers_int8)),
    "openvino": Baseline("fp32", lambda context: context.session(context.model, "openvino")),
    "openvino-bf16": Baseline("bf16", lambda context: context.session(context.model, "openvino-bf16")),
    "openvino-int8": Baseline("int8", _from_nncf),
}
"""By the name that ``--against`` takes. Quantized ones follow what they are made from."""


def choose(names: str) -> list[str]:
    """The baselines of a comma-separated list, or all of them. Raises UsageError."""
    chosen = list(BASELINES) if names == "all" else [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in BASELINES]
    if unknown or not chosen:
        raise UsageError(
            f"--against {names}: no baseline named {', '.join(unknown) or repr(names)}; "
            f"choose all, or some of {', '.join(BASELINES)}"
        )
    return chosen
