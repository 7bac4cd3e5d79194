"""What each rewrite does to a model's figures on real samples: no rewrite, the normal form, each alone, and all.

Each choice is judged on all samples and timed beside the original, whose own latency is that beside the last, which is all.
One is open at a time, so that memory does not grow with their number; what the original answers, which each is held against, is
kept in files meanwhile. Interrupted on many samples, it goes on with the choice where it was when it is called again.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from onnxfuse import targets
from onnxfuse.config import BenchmarkConfig
from onnxfuse.errors import InterruptedWorkError, UsageError
from onnxfuse.io import atomic, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.pipeline import ablation
from onnxfuse.pipeline.begun import Begun
from onnxfuse.pipeline.evaluate import GO_ON, ROWS, Evaluated, Evaluation, Way, Work, rows_of
from onnxfuse.runtime import Feeds, Outputs, Runner, Settings, open_runner
from onnxfuse.scoring.source import Source
from onnxfuse.targets import Target
from onnxfuse.verify.opened import blaming


def evaluate_rewrites(
    path: Path, data: Path, plan: BenchmarkConfig, target_name: str = "cpu", progress: Progress = silent, split: str = ""
) -> Evaluation:
    """Measure how good and how fast a model is with each choice of rewrites for a target, beside none.

    Raises:
        UsageError, ModelError, MissingExtraError: as ``evaluate`` and ``ablate``.
        InterruptedWorkError: what was done is kept.
    """
    if path.suffix != ".onnx":
        raise UsageError(f"{path} is no ONNX model, and rewrites are of these alone; give the .onnx file that it was made from")
    plan = plan if plan.batch else replace(plan, batch=ROWS)
    held = list[Begun]()
    try:
        with targets.use(target_name) as target, blaming(path), atomic.scratch() as folder:
            found = _each(path, rows_of(data, split), data, plan, target, folder, held, progress)
    except KeyboardInterrupt as error:
        if held:
            raise InterruptedWorkError(GO_ON) from error
        raise
    for begun in held:
        begun.forget()
    return found


def _each(
    path: Path,
    source: Source | None,
    data: Path,
    plan: BenchmarkConfig,
    target: Target,
    folder: Path,
    held: list[Begun],
    progress: Progress,
) -> Evaluation:
    """One choice after another. ``held``: as of ``Work``."""
    chosen = list(ablation.variants(target, all_but=False))
    first = Way(open_runner(path, Settings(threads=plan.threads)), path, onnx_file.model_bytes(path))
    known, rows, failed = remembered(first.run, folder), dict[str, Evaluated](), dict[str, str]()
    for number, variant in enumerate(chosen):
        tell = partial(_tell, progress, number / len(chosen), variant.name)
        tell("fusing")
        _, file, rewrites = ablation.made(path, variant, folder / "variant.onnx")
        ways = {variant.name: first}
        if not variant.original:
            run = open_runner(file, Settings(threads=plan.threads))
            none = next(iter(rows))
            ways = {none: replace(first, known=known), variant.name: Way(run, None, onnx_file.model_bytes(file))}
        found = Work(ways, [path], plan, tell, failed, repr(target), held).on(data, source)
        if variant.name in found:
            none, original = next(iter(found.items()))
            rows[variant.name] = replace(found[variant.name], rewrites=rewrites, beside=found[variant.name].speed(original))
            rows[none] = replace(rows[none], timing=original.timing)  # two that take turns are slower than one alone
    return Evaluation(rows, failed)


def _tell(progress: Progress, share: float, variant: str, text: str, done: float | None = None, step: str = "") -> None:
    """A choice's own progress, as a step of all."""
    progress(f"judging {variant}", share, f"{text}, {step}" if step else text)


def remembered(run: Runner, folder: Path) -> Runner:
    """A runner that runs each input once, and finds what it gave in ``folder`` when the same comes again."""

    def call(feeds: Feeds) -> Outputs:
        digest = hashlib.sha256()
        for name, array in sorted(feeds.items()):
            digest.update(f"{name} {array.dtype} {array.shape} ".encode())
            digest.update(array.tobytes())
        path = folder / f"{digest.hexdigest()}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as found:
                return dict(found)
        outputs = run(feeds)
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **outputs)
        return outputs

    return call
