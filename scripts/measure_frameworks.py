"""Measure one model in every framework side by side, and write docs/frameworks.md: PyTorch, TorchScript, TensorFlow, LiteRT and
ONNX, float32 and int8; size, latency, and latency relative to PyTorch. ``make frameworks`` runs it, in TensorFlow's environment.

All rows of a table come from the same random weights: TensorFlow's model is saved, and PyTorch reads it. Milliseconds are of this
machine, and only their ratios within a table count.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from onnxfuse import catalog
from onnxfuse.config import ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.exporters import Checkpoint, checkpoint_runner, open_checkpoint
from onnxfuse.exporters.tasks import classification
from onnxfuse.exporters.tensorflow import require_tensorflow
from onnxfuse.exporters.tf_transformers import random_model
from onnxfuse.exporters.torch import sample
from onnxfuse.io import atomic, folders, onnx_file
from onnxfuse.io.quiet import quiet, silent
from onnxfuse.measure import benchmark, machine
from onnxfuse.pipeline import compare
from onnxfuse.pipeline.compare import Candidate, Row
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.export_tflite import export_tflite
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.runtime import Feeds, Outputs, Runner, Settings, litert, open_runner
from onnxfuse.runtime.cores import cores
from onnxfuse.verify.inputs import profile_of_family

NAMES = ("bert-base-cased", "distilbert-base-cased", "google/vit-base-patch16-224")
LENGTH = 128
PRECISIONS = {"fp32": "float32", "fp16": "float16 weights", "int8": "int8, dynamic"}


def save(name: str, folder: Path) -> None:
    """A TensorFlow checkpoint with random weights, as ``save_pretrained`` writes it."""
    family, _ = catalog.checkpoint(name)
    with silent():
        require_tensorflow()
        random_model(name, classification(family)).save_pretrained(folder)


def torch_forms(checkpoint: Checkpoint, threads: int, scratch: Path) -> dict[tuple[str, str], tuple[Runner, int]]:
    """PyTorch and TorchScript, in float32 and with its dynamic int8; each with the bytes of its file."""
    import torch

    torch.set_num_threads(threads)
    module, example = checkpoint.module, sample(checkpoint)
    with quiet(), torch.inference_mode():
        small = torch.ao.quantization.quantize_dynamic(module, {torch.nn.Linear}, dtype=torch.qint8)
        scripts = {
            kind: torch.jit.freeze(torch.jit.trace(made, example, check_trace=False))
            for kind, made in (("fp32", module), ("int8", small))
        }
    forms: dict[tuple[str, str], tuple[Runner, int]] = {}
    for kind, made in (("fp32", module), ("int8", small)):
        torch.save(made.state_dict(), scratch / kind)
        torch.jit.save(scripts[kind], scratch / f"{kind}.pt")
        forms["PyTorch", kind] = _torch_runner(checkpoint, made), (scratch / kind).stat().st_size
        forms["TorchScript", kind] = _torch_runner(checkpoint, scripts[kind]), (scratch / f"{kind}.pt").stat().st_size
    return forms


def _torch_runner(checkpoint: Checkpoint, module: Any) -> Runner:
    import torch

    def call(feeds: Feeds) -> Outputs:
        with torch.inference_mode():
            results = module(*(torch.from_numpy(feeds[name]) for name in checkpoint.inputs))
        return {name: value.numpy() for name, value in zip(checkpoint.outputs, results, strict=True)}

    return call


def onnx_forms(source: Path, framework: str, home: Path, threads: int) -> tuple[dict[tuple[str, str], tuple[Runner, int]], dict]:
    """The export of a framework, plain, optimized and int8, and what was fused."""
    exporter = "torchscript" if framework == "pt" else "tf2onnx"
    step = export(ExportConfig(str(source), home, exporter=exporter, framework=framework))
    optimized = optimize(OptimizeConfig(step.path, home / folders.OPTIMIZED, require=("all",)))
    quantized = quantize(QuantizeConfig(optimized.path, home / folders.QUANTIZED))
    label = {"pt": "PyTorch", "tf": "TensorFlow"}[framework]
    paths = {
        (f"ONNX from {label}, as exported", "fp32"): step.path,
        (f"ONNX from {label}, onnxfuse", "fp32"): optimized.path,
        (f"ONNX from {label}, onnxfuse", "int8"): quantized.path,
    }
    settings = Settings(threads=threads)
    made = {key: (open_runner(path, settings), onnx_file.model_bytes(path)) for key, path in paths.items()}
    return made, optimized.fused


def measure(name: str, rounds: int, threads: int, folder: Path, tell: Callable[[str], None]) -> str:
    """The table of one model."""
    source = folder / "source"
    tell("saving")
    save(name, source)
    forms: dict[tuple[str, str], tuple[Runner, int]] = {}
    tell("PyTorch")
    torch_checkpoint = open_checkpoint(source, framework="pt")
    forms |= torch_forms(torch_checkpoint, threads, folder)
    tell("TensorFlow")
    tensorflow = open_checkpoint(source, framework="tf")
    forms["TensorFlow", "fp32"] = checkpoint_runner(tensorflow, threads), (source / "tf_model.h5").stat().st_size
    for precision in ("fp32", "fp16", "int8"):
        tell(f"LiteRT {precision}")
        step = export_tflite(ExportConfig(str(source), folder / "lite", format="tflite", precision=precision))
        forms["LiteRT", precision] = litert.open_runner(step.path, Settings(threads=threads)), step.size
    fused = {}
    for framework in ("pt", "tf"):
        tell(f"ONNX from {framework}")
        found, fused[framework] = onnx_forms(source, framework, folder / framework, threads)
        forms |= found
    tell("measuring")
    profile = profile_of_family(torch_checkpoint.family, torch_checkpoint.config, torch_checkpoint.task)
    inputs = [profile.feeds(1, LENGTH, seed=seed) for seed in range(compare.COMPARED)]
    entries = [Candidate("/".join(key), key[1], run) for key, (run, _) in forms.items()]
    failed: dict[str, str] = {}
    rows = compare.measure(entries, inputs, rounds, failed)
    assert not failed, failed
    assert fused["pt"] == fused["tf"], fused
    shape = "batch 1" + (f", {LENGTH} tokens" if profile.sequences else "")
    counts = ", ".join(f"{thing} {count}" for thing, count in fused["tf"].items() if count)
    return f"## {name}, {shape}\n\n{table(forms, rows)}\n\nFused, from either framework: {counts}.\n"


def table(forms: dict[tuple[str, str], tuple[Runner, int]], rows: dict[str, Row]) -> str:
    first = rows["PyTorch/fp32"].timing
    columns = [
        "framework",
        "precision",
        "size, MiB",
        "p50 ms",
        "95 % interval",
        "times as fast as PyTorch",
        "outputs against PyTorch's",
    ]
    lines = [f"| {' | '.join(columns)} |", "| " + " | ".join(["---"] * len(columns)) + " |"]
    for key, (_, size) in forms.items():
        row = rows["/".join(key)]
        seen, timing = row.parity, row.timing
        agrees = "reference"
        if seen is not None:
            agrees = f"cosine {seen.cosine:.5f}" if key[1] == "int8" else f"max diff {seen.error:.1e}"
        interval = f"{timing.low:.1f} - {timing.high:.1f}"
        lines.append(
            f"| {key[0]} | {PRECISIONS[key[1]]} | {size / 2**20:.1f} | {timing.p50:.1f} | {interval} "
            f"| {benchmark.ratio(first, timing).value:.2f} | {agrees} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("docs/frameworks.md"))
    parser.add_argument("names", nargs="*", default=NAMES)
    arguments = parser.parse_args()
    threads, log = cores(), Console(stderr=True)
    parts = []
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            parts.append(measure(name, arguments.rounds, threads, Path(folder), partial(log.print, f"{name}:")))
    versions = folders.versions()
    names = ("torch", "tensorflow", "transformers", "tf2onnx", "ai-edge-litert", "onnxruntime")
    packages = ", ".join(f"{name} {versions[name]}" for name in names)
    arguments.out.parent.mkdir(exist_ok=True)
    atomic.save_text(
        f"""# One model in every framework

Written by `make frameworks` (scripts/measure_frameworks.py) on {machine.cpu()}, {threads} threads, with
{packages}.

Each table is one interleaved run over the same random weights: TensorFlow's checkpoint, which PyTorch reads too. Milliseconds
are this machine's; ratios are within a table. int8 is each framework's own dynamic quantization: PyTorch's
`quantize_dynamic` of linear layers, LiteRT's dynamic range, onnxfuse's u8 x s8. TensorFlow itself has no int8 on CPUs
besides LiteRT. Sizes are of the files that hold the weights.

{chr(10).join(parts)}""",
        arguments.out,
    )


if __name__ == "__main__":
    main()
