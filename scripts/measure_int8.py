"""Measure what int8 keeps and costs, and write docs/int8.md: accuracy of trained classifiers, embeddings of real sentences,
outliers, rows that disturb each other, and speed at full size. ``make int8`` runs it.

Accuracy and closeness are properties of the files; milliseconds are of this machine, and only their ratios within a table count.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from onnxfuse.config import ExportConfig, OptimizeConfig, QuantizeConfig, Scheme, Thresholds
from onnxfuse.errors import RequirementError
from onnxfuse.evaluation import embeddings
from onnxfuse.evaluation.quality import judge, predict
from onnxfuse.evaluation.sentences import docstring_sentences, reference_sentences
from onnxfuse.evaluation.sources import dataset_for
from onnxfuse.evaluation.text import tokenizer
from onnxfuse.exporters import open_checkpoint
from onnxfuse.exporters.run_pytorch import torch_runner
from onnxfuse.io import atomic, folders, onnx_file
from onnxfuse.measure import benchmark, machine
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import Quantized, quantize
from onnxfuse.runtime import Feeds, Runner, Settings, open_runner
from onnxfuse.verify.inputs import profile_of

sys.path.insert(0, str(Path(__file__).parent))
from demo import minilm

BATCH, SENTENCES = 8, 800
DROP, BOTH = Thresholds(max_drop=0.005), Thresholds(max_drop=0.005, min_cosine=0.995)
PAGE = Path(__file__).with_name("int8_page.md")
"""The page, with a place for each table."""

CHOICES = {
    "plain: not calibrated": Scheme(),
    "default": Scheme(),
    "--smooth off": Scheme(smooth="off"),
    "--smooth 0.5": Scheme(smooth=0.5),
    "--rounding nearest": Scheme(rounding="nearest"),
    "--static": Scheme(static=True),
    "--static --ranges percentile": Scheme(static=True, ranges="percentile"),
    "--static --ranges entropy": Scheme(static=True, ranges="entropy"),
}
Tell = Callable[[str], None]


def table(columns: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *rows])


def speeds(runners: dict[str, Runner], inputs: list[Feeds], rounds: int) -> dict[str, tuple[str, str]]:
    """Each runner's milliseconds, and how many times as fast as the first it is."""
    timings = benchmark.measure(runners, inputs, rounds=rounds)
    first = next(iter(timings.values()))
    return {name: (f"{timing.p50:.2f}", f"{benchmark.ratio(first, timing).value:.2f}") for name, timing in timings.items()}


def quantized(source: Path, name: str, **plan) -> tuple[Path, Quantized]:
    path = source.with_name(f"{name}.onnx")
    return path, quantize(QuantizeConfig(source, path, **plan))


def float_models(checkpoint: str, home: Path, **plan) -> tuple[Path, Path]:
    """model.onnx and model_optimized.onnx in ``home``."""
    step = export(ExportConfig(checkpoint, home, **plan))
    return step.path, optimize(OptimizeConfig(step.path, home / folders.OPTIMIZED)).path


def outcome(step: Quantized, static: bool) -> str:
    """What became of a quantized model, in words."""
    kept = f"the gate keeps {', '.join(step.description.kept)} in float" if step.description.kept else "the gate passes at once"
    return f"{step.description.matmuls} linear layers in int8, {kept}" + f", format {step.description.format}" * static


def classifier(folder: Path, home: Path, rounds: int) -> str:
    """Accuracy and the rest of one trained classifier in every form."""
    plain, optimized = float_models(str(folder), home)
    data, calibration = dataset_for(folder / "test", plain), str(folder / "calibration")
    entries: dict[str, tuple[Runner, int]] = {
        "PyTorch fp32": (torch_runner(open_checkpoint(str(folder))), (folder / "model.safetensors").stat().st_size)
    }
    entries |= {
        name: (open_runner(path), onnx_file.model_bytes(path)) for name, path in (("ONNX", plain), ("optimized", optimized))
    }
    notes = []
    for static in (False, True):
        name = "static int8" if static else "dynamic int8"
        try:
            path, step = quantized(
                optimized,
                name.replace(" ", "_"),
                scheme=Scheme(static=static),
                calibration=calibration,
                data=folder / "test",
                thresholds=DROP,
            )
            entries[name] = open_runner(path), onnx_file.model_bytes(path)
            notes.append(f"{name}: {outcome(step, static)}")
        except RequirementError as error:
            notes.append(f"{name}: {error}")
    predictions = {name: predict(run, data, BATCH) for name, (run, _) in entries.items()}
    inputs = [feeds for feeds, _ in zip(data.batches(BATCH), range(4), strict=False)]
    timed = speeds({name: run for name, (run, _) in entries.items()}, inputs, rounds)
    qualities = {name: judge(found, predictions["PyTorch fp32"], data) for name, found in predictions.items()}
    first = qualities["PyTorch fp32"].accuracy or 0.0
    rows = [
        [
            name,
            f"{quality.accuracy:.2%}",
            f"{quality.f1:.4f}",
            f"{(first - (quality.accuracy or 0.0)) * 100:.2f}",
            f"{quality.cosine:.5f}",
            f"{entries[name][1] / 1e6:.1f}",
            *timed[name],
        ]
        for name, quality in qualities.items()
    ]
    columns = ["", "accuracy", "F1", "drop, points", "cosine", "MB", "p50 ms", "times as fast"]
    said = "\n".join(f"- {note}" for note in notes)
    return f"{len(data)} test samples, batches of {BATCH}.\n\n{table(columns, rows)}\n\n{said}"


def sentences(home: Path, rounds: int) -> str:
    """all-MiniLM-L6-v2 under every choice: closeness on two kinds of text, and speed."""
    _, optimized = float_models(str(minilm()), home)
    tokenize = tokenizer(home)
    texts = {"docstrings": docstring_sentences(SENTENCES), "reference": reference_sentences(SENTENCES)}
    wanted = {kind: embeddings.embed(open_runner(optimized), tokenize, found, BATCH) for kind, found in texts.items()}
    judged = home / "texts.txt"
    judged.write_text("\n".join(texts["docstrings"]))
    kept, runners, rows = {}, {}, []
    for number, (name, scheme) in enumerate(CHOICES.items()):
        path, _ = quantized(
            optimized,
            f"q{number}",
            scheme=scheme,
            calibration="none" if number == 0 else None,
            data=judged,
            thresholds=Thresholds(min_cosine=0.9),
        )
        runners[name] = open_runner(path, Settings(denormals_as_zero=True))
        kept[name] = {
            kind: embeddings.compare(wanted[kind], embeddings.embed(runners[name], tokenize, found, BATCH))
            for kind, found in texts.items()
        }
    again = open_runner(home / "q0.onnx", Settings(denormals_as_zero=True))
    inputs = [tokenize(texts["docstrings"][at : at + BATCH]) for at in range(0, 6 * BATCH, BATCH)]
    chosen = {name: runners[name] for name in ("plain: not calibrated", "default", "--static")} | {"plain again (noise)": again}
    timed = speeds(chosen, inputs, rounds)
    for name, found in kept.items():
        rows.append(
            [
                name,
                *(f"{found[kind].cosine:.4f}" for kind in texts),
                *(f"{found[kind].neighbours:.1%}" for kind in texts),
                *timed.get(name, ("", "")),
            ]
        )
    rows.append(["plain again (noise)", "", "", "", "", *timed["plain again (noise)"]])
    return (
        table(["", "cosine", "other text", "neighbours", "other text", "p50 ms", "times as fast"], rows)
        + "\n\n"
        + neighbours(home, tokenize, texts["docstrings"])
    )


def neighbours(home: Path, tokenize: embeddings.Tokenize, texts: list[str]) -> str:
    """How far a sentence's embedding moves when it is embedded alone and not in its batch."""
    rows = []
    for name, file in (("float32", folders.OPTIMIZED), ("dynamic", "q1.onnx"), ("static", "q5.onnx")):
        run = open_runner(home / file)
        batched, alone = (embeddings.embed(run, tokenize, texts[:160], size) for size in (BATCH, 1))
        moved = 1 - (batched * alone).sum(axis=1) / np.linalg.norm(batched, axis=1) / np.linalg.norm(alone, axis=1)
        rows.append([name, f"{moved.mean():.1e}", f"{moved.max():.1e}"])
    return table(["the same sentence alone and in a batch of 8", "1 - cosine, mean", "largest"], rows)


def outliers(folder: Path, home: Path) -> str:
    """The gate on a layer whose outliers no 8 bits hold."""
    _, optimized = float_models(str(folder), home)
    rows = []
    off = Scheme(smooth="off")
    for name, scheme, thresholds in (
        ("--smooth off, no gate", off, Thresholds(min_cosine=0.0)),
        ("--smooth off", off, BOTH),
        ("default", Scheme(), BOTH),
    ):
        path, step = quantized(
            optimized, "q", scheme=scheme, calibration=str(folder / "calibration"), data=folder / "test", thresholds=thresholds
        )
        data = dataset_for(folder / "test", optimized)
        expected = predict(open_runner(optimized), data, BATCH)
        quality, reference = (judge(found, expected, data) for found in (predict(open_runner(path), data, BATCH), expected))
        drop = ((reference.accuracy or 0.0) - (quality.accuracy or 0.0)) * 100
        rows.append(
            [
                name,
                f"{quality.cosine:.5f}",
                f"{drop:.2f}",
                ", ".join(step.description.kept) or "none",
                "yes" if "layer 2 attention out" in step.description.smoothed else "no",
            ]
        )
    return table(["", "cosine", "drop, points", "kept in float", "layer 2 attention out smoothed"], rows)


def full_size(home: Path, rounds: int) -> str:
    """Sizes, and static beside dynamic, at full size with random weights."""
    rows = []
    for name in ("bert-base-uncased", "distilbert-base-uncased", "google/vit-base-patch16-224"):
        _, optimized = float_models(name, home / name.rpartition("/")[2], random_weights=True)
        profile = profile_of(onnx_file.load(optimized), folders.read_config(optimized))
        calibration = optimized.with_name("calibration.npz")
        np.savez(calibration, **profile.feeds(32, 128))
        paths = {"dynamic": quantized(optimized, "dynamic", calibration="none")[0]}
        for format in ("qdq", "qoperator"):
            paths[format] = quantized(
                optimized, format, scheme=Scheme(static=True, format=format, rounding="nearest"), calibration=str(calibration)
            )[0]
        timed = speeds(
            {format: open_runner(path, Settings(denormals_as_zero=True)) for format, path in paths.items()},
            [profile.feeds(1, 128)],
            rounds,
        )
        size, small = (onnx_file.model_bytes(path) / 2**20 for path in (optimized, paths["dynamic"]))
        rows.append([name, f"{size:.1f}", f"{small:.1f}", *(f"{timed[format][0]} ({timed[format][1]})" for format in paths)])
    return table(["", "float32, MiB", "int8, MiB", "dynamic, ms", "static qdq (times as fast)", "static operator"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, help="what make_checkpoints.py wrote")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/int8.md"))
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    log = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        home, found, parts = Path(folder), arguments.checkpoints, {}
        for title, make in (
            ("digits-vit", lambda at: classifier(found / "digits-vit", at, arguments.rounds)),
            ("docs-bert", lambda at: classifier(found / "docs-bert", at, arguments.rounds)),
            ("outliers", lambda at: outliers(found / "docs-bert-outliers", at)),
            ("sentences", lambda at: sentences(at, arguments.rounds)),
            ("full size", lambda at: full_size(at, arguments.rounds)),
        ):
            log.print(f"measuring {title}")
            parts[title] = make(home / title.replace(" ", "-"))
    named = {title.replace(" ", "_").replace("-", "_"): part for title, part in parts.items()}
    content = PAGE.read_text(encoding="utf-8").format(machine=machine.cpu(), threads=os.cpu_count(), **named)
    atomic.save_text(content, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
