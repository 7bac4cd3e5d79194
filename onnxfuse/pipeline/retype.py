"""Bring an int8 model to the types that run fast, without loss."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from onnxfuse.io import atomic, folders, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.pipeline.step import Clock, Step, unwritten
from onnxfuse.quantize.retype import retype as retype_weights
from onnxfuse.quantize.retype import slow_matmuls
from onnxfuse.runtime import Settings, open_runner
from onnxfuse.runtime.probes import product_saturates
from onnxfuse.verify import verdict
from onnxfuse.verify.verdict import compare_files


def retype(source: Path, out: Path, progress: Progress = silent, *, elsewhere: bool = False) -> Step:
    """Bring an int8 model to u8 activations and s8 weights, and save it if its outputs are equal to the bit.

    Args:
        elsewhere: it will run on a machine that does not clip sums of u8 x s8 products, and is compared as it computes there.

    Raises:
        UsageError, ModelError; ParityError when they are not, as on a machine that clips sums of u8 x s8 products.
    """
    clock = Clock()
    model = onnx_file.load(source)
    slow = slow_matmuls(model)
    counts = retype_weights(model)
    with atomic.replacing(out) as staged:
        onnx_file.save(model, staged)
        clock.lap("retype")
        progress("comparing with the original")
        result = compare_files(source, staged, "exact", settings=Settings(unclipped=elsewhere))
        clips = "this machine clips sums of u8 x s8 products: keep u8 x u8 here, or retype for another with --no-reduce-range"
        result.require(clips if product_saturates() else "retyping changed the outputs", unwritten(out))
        clock.lap("verify")
        progress("measuring")
        runners = {"before": open_runner(source), "after": open_runner(staged)}
        profile = verdict.profile_of_file(source, folders.read_config(source), runners["before"])
        timings = benchmark.measure(runners, [profile.feeds(1, min(128, profile.longest))], rounds=10, progress=progress)
    details = {
        "weights": counts.weights,
        "activations": counts.activations,
        "slow": slow,
        "speed": asdict(benchmark.ratio(timings["before"], timings["after"])),
    }
    step = Step(out, onnx_file.model_bytes(out), clock.seconds, result, details)
    folders.record(out.parent, "retype", {"source": source, "out": out}, step.to_json())
    return step
