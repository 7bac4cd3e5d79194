"""Bring an int8 model to the types that run fast, without loss."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from onnxfuse.io import atomic, external, folders, onnx_file
from onnxfuse.io.ours import Replaceable, inputs_of
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.measure.benchmark import Ratio
from onnxfuse.pipeline.step import Clock, Step, unwritten
from onnxfuse.quantization.retype import retype as retype_weights
from onnxfuse.quantization.retype import slow_matmuls
from onnxfuse.runtime import Settings
from onnxfuse.runtime.probes import matmul_saturates
from onnxfuse.verify.opened import Opened, blaming
from onnxfuse.verify.verdict import compare_files

CLIPS = "this machine clips sums of u8 x s8 products: keep u8 x u8 here, or retype for another with --no-reduce-range"

ROUNDS = 10


@dataclass(frozen=True)
class Retyped(Step):
    """An int8 model of other types.

    Args:
        weights, activations: how many were changed.
        slow: how many matmuls had slow types.
        speed: how many times as fast it is as before.
    """

    weights: int
    activations: int
    slow: int
    speed: Ratio

    def details(self) -> dict[str, Any]:
        return {"weights": self.weights, "activations": self.activations, "slow": self.slow, "speed": asdict(self.speed)}


def retype(source: Path, out: Path, progress: Progress = silent, *, elsewhere: bool = False, overwrite: bool = False) -> Retyped:
    """Bring an int8 model to u8 activations and s8 weights, and save it if its outputs are equal to the bit.

    Args:
        elsewhere: it will run on a machine that does not clip sums of u8 x s8 products, and is compared as it computes there.
        overwrite: ``out`` may replace a file that onnxfuse did not make.

    Raises:
        UsageError, ModelError; ParityError when they are not, as on a machine that clips sums of u8 x s8 products.
    """
    with blaming(source):
        return _retype(Opened(source), out, progress, elsewhere=elsewhere, overwrite=overwrite)


def _retype(before: Opened, out: Path, progress: Progress, *, elsewhere: bool, overwrite: bool) -> Retyped:
    clock = Clock()
    source = before.path
    guard = Replaceable(inputs_of(source, external.weight_files(before.model)), overwrite)
    guard.require(out, out.with_name(folders.RECORD))
    model = before.model.clone()
    slow = slow_matmuls(model)
    counts = retype_weights(model)
    with atomic.replacing(out, guard) as staged:
        after = Opened(staged, onnx_file.save(model, staged))
        clock.lap("retype")
        tell = partial(progress, "comparing with the original")
        result = compare_files(before, after, "exact", settings=Settings(unclipped=elsewhere), tell=tell)
        result.require(CLIPS if matmul_saturates() else "retyping changed the outputs", unwritten(out))
        clock.lap("verify")
        progress("measuring")
        feeds = before.profile.feeds(1, min(128, before.profile.longest))
        runners = {"before": before.runner(), "after": after.runner()}
        timings = benchmark.measure(runners, [feeds], rounds=ROUNDS, progress=progress)
        speed = benchmark.ratio(timings["before"], timings["after"])
        step = Retyped(out, after.size, clock.seconds, result, after, counts.weights, counts.activations, slow, speed)
        folders.record(out.parent, "retype", {"source": source, "out": out}, step.to_json(), staged=staged)
    after.move(out)
    return step
