"""Measure on real samples how good models are, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxfuse.config import BenchmarkConfig
from onnxfuse.evaluation.quality import Quality, judge, predict
from onnxfuse.evaluation.sources import datasets_for
from onnxfuse.io import onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.runtime import Feeds, Runner, Settings, open_runner


def evaluate(paths: list[Path], data: Path, plan: BenchmarkConfig, progress: Progress = silent) -> dict[str, Evaluated]:
    """Measure on real samples how good models are, beside the first of them, and how fast, beside each other.

    Raises:
        UsageError, ModelError: see ``evaluation.dataset.read`` and ``evaluation.quality.judge``.
    """
    sets = dict(zip(map(str, paths), datasets_for(data, paths), strict=True))
    runners = {str(path): open_runner(path, Settings(threads=plan.threads)) for path in paths}
    predictions = {}
    for number, (name, run) in enumerate(runners.items()):
        begin, part = number / len(runners), 1 / len(runners)

        def tell(done: float, step: str, begin: float = begin, part: float = part, text: str = f"predicting with {name}") -> None:
            progress(text, begin + part * done, step)

        predictions[name] = predict(run, sets[name], plan.batch, tell)
    timed = {name: _on(run, next(sets[name].batches(plan.batch))) for name, run in runners.items()}
    timings = benchmark.measure(timed, [{}], rounds=plan.rounds, progress=progress)
    return {
        str(path): Evaluated(
            judge(predictions[str(path)], predictions[str(paths[0])], sets[str(path)]),
            timings[str(path)],
            onnx_file.model_bytes(path),
            sets[str(path)].rows(plan.batch),
        )
        for path in paths
    }


def _on(run: Runner, feeds: Feeds) -> Runner:
    """A runner for one input of its own: models that call their inputs differently are timed side by side."""
    return lambda _: run(feeds)


def to_json(results: Mapping[str, Evaluated]) -> dict[str, Any]:
    """The results of ``evaluate`` as a list, with the speed against the first."""
    first = next(iter(results.values()))
    return {
        "results": [
            {"name": name, **result.to_json(), "speed": asdict(benchmark.ratio(first.timing, result.timing))}
            for name, result in results.items()
        ]
    }


@dataclass(frozen=True)
class Evaluated:
    """One model's quality on a data set, its latency on the set's first batch, its size in bytes, and the rows in a batch."""

    quality: Quality
    timing: benchmark.Timing
    size: int
    batch: int

    def to_json(self) -> dict[str, Any]:
        return self.quality.to_json() | {"latency": self.timing.to_json(), "size": self.size, "batch": self.batch}
