"""Measure on real samples how good models are, and how fast."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.architecture import IDS, PIXELS
from onnxfuse.config import BenchmarkConfig
from onnxfuse.errors import InterruptedWorkError, OnnxfuseError, UsageError
from onnxfuse.evaluation.collate import Sizes
from onnxfuse.evaluation.columns import is_arrays
from onnxfuse.evaluation.dataset import LABELS, TEXT
from onnxfuse.evaluation.quality import LOGITS, Predictions, judge, predict
from onnxfuse.evaluation.sources import datasets_for
from onnxfuse.inference.serving import Serving
from onnxfuse.io import atomic, door, folders, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.runtime import Feeds, Outputs, Runner, Settings, declared, open_runner
from onnxfuse.scoring.judge import Scored, Tally, opened, samples_of, saved, scores, tallied
from onnxfuse.scoring.metrics import mcnemar, of_classes
from onnxfuse.scoring.rows import open_source
from onnxfuse.scoring.source import Source
from onnxfuse.scoring.tasks import task_of

ROWS = 8
"""Of a batch where none are asked for."""

READERS = ("tokenizer.json", "preprocessor_config.json")
"""What reads texts or images, beside one of the models."""

FEWEST = 4096
"""Samples from which an interrupted evaluation is kept: fewer take seconds."""


@dataclass(frozen=True)
class Evaluated(Scored):
    """One model: how good it is on a data set, its latency on the set's first batch, its size in bytes, and a batch's rows."""

    timing: benchmark.Timing
    size: int
    batch: int

    @classmethod
    def of(cls, scored: Scored, timing: benchmark.Timing, path: Path, batch: int) -> Evaluated:
        return cls(**vars(scored), timing=timing, size=onnx_file.model_bytes(path), batch=batch)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"latency": self.timing.to_json(), "size": self.size, "batch": self.batch}


def evaluate(
    paths: list[Path], data: Path, plan: BenchmarkConfig, progress: Progress = silent, split: str = ""
) -> dict[str, Evaluated]:
    """Measure on real samples how good models are, beside the first of them, and how fast, beside each other.

    Interrupted on many samples, it goes on where it was when it is called again.

    Args:
        data: of any form that ``scoring.rows`` and ``evaluation.columns`` read.
        split: of a data set of the hub.

    Raises:
        UsageError, ModelError, MissingExtraError: see these, and ``scoring.task``.
        InterruptedWorkError: what was done is kept.
    """
    plan = plan if plan.batch else replace(plan, batch=ROWS)
    if is_arrays(data):
        return _on_arrays(paths, data, plan, progress)
    try:
        source = open_source(str(data), split)
    except UsageError:
        if data.suffix == ".txt" and data.is_file():
            return _on_arrays(paths, data, plan, progress)
        raise
    unlabelled = set(TEXT) & set(source.columns) and not set(LABELS) & set(source.columns) and len(source.columns) == 1
    if unlabelled or {IDS, PIXELS} & set(source.columns):
        return _on_arrays(paths, data, plan, progress)
    return _on_rows(paths, source, plan, progress)


def _on_rows(paths: Sequence[Path], source: Source, plan: BenchmarkConfig, progress: Progress) -> dict[str, Evaluated]:
    """Labelled data of a published form."""
    alone = {str(path): _serving(path, paths, Settings(threads=plan.threads)) for path in paths}
    sizes = Sizes.common([serving.collator for serving in alone.values()])
    models = {name: replace(serving, within=sizes) for name, serving in alone.items()}
    first = next(iter(models.values()))
    task = task_of(first)
    begun = _Begun(paths, source, plan)
    tallies = begun.tallies(list(models))
    try:
        tallied(models, task, source, plan.batch, progress, tallies)
    except KeyboardInterrupt as error:
        if begun.keep(tallies):
            raise InterruptedWorkError("interrupted; run the same command to go on where it was") from error
        raise
    samples = samples_of(source, task, first, plan.batch)
    timed = {}
    for name, serving in models.items():
        feeds = list[Feeds]()
        task.answers(_recording(serving, feeds), samples, plan.batch)
        timed[name] = _on(serving.run, feeds[0])
    timings = benchmark.measure(timed, [{}], rounds=plan.rounds, progress=progress)
    found = scores(models, task, tallies)
    begun.forget()
    rows = sizes.batch or plan.batch
    return {str(path): Evaluated.of(found[str(path)], timings[str(path)], path, rows) for path in paths}


def _serving(path: Path, paths: Sequence[Path], settings: Settings) -> Serving:
    """A model as it is used; one that does not tell what it takes is used as the first of the others that does."""
    like = path if path.suffix == ".onnx" else next((other for other in paths if other.suffix == ".onnx"), path)
    graph = declared(like).graph
    inputs, outputs = (tuple(value.name or "" for value in values) for values in (graph.inputs, graph.outputs))
    home = next((other for other in (like, *paths) if any((folders.home_of(other) / name).is_file() for name in READERS)), like)
    return Serving(like, open_runner(path, settings), inputs, outputs, home)


def _recording(serving: Serving, feeds: list[Feeds]) -> Serving:
    def run(given: Feeds) -> Outputs:
        feeds.append(given)
        return serving.run(given)

    return replace(serving, run=run)


class _Begun:
    """What was tallied before an interruption, in a file beside the first model, for the same models, data and versions."""

    def __init__(self, paths: Sequence[Path], source: Source, plan: BenchmarkConfig) -> None:
        key = [folders.versions(), [(str(path), folders.fingerprint(path)) for path in paths], _stamp(source.name), plan.batch]
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        self.path, self.source = folders.home_of(paths[0]) / f".evaluate-{digest}.npz", source

    def tallies(self, names: Sequence[str]) -> dict[str, Tally]:
        if not self.path.is_file():
            return opened(names, {})
        try:
            with door.reading(self.path, "what was evaluated", UsageError), self.path.open("rb") as file:
                found = opened(names, np.load(file, allow_pickle=False))
        except UsageError:
            return opened(names, {})
        return found if len({tally.count for tally in found.values()}) == 1 else opened(names, {})

    def keep(self, tallies: Mapping[str, Tally]) -> bool:
        """Whether it could be kept, and was worth it."""
        if min(tally.count for tally in tallies.values()) < FEWEST:
            return False
        try:
            with atomic.replacing(self.path) as staged, staged.open("wb") as file:
                np.savez(file, allow_pickle=False, **saved(tallies))
        except OnnxfuseError:
            return False
        return True

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def _stamp(data: str) -> tuple[str, int, int]:
    """A file's place, size and time; of what is none, its name."""
    path = Path(data)
    return (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else (data, 0, 0)


def _on_arrays(paths: Sequence[Path], data: Path, plan: BenchmarkConfig, progress: Progress) -> dict[str, Evaluated]:
    """The models' own inputs, or texts, with or without classes."""
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
    first = predictions[str(paths[0])]
    found = {}
    for path in paths:
        name = str(path)
        quality = judge(predictions[name], first, sets[name])
        metrics, chance = _figures(predictions[name], first, sets[name].labels)
        scored = Scored(metrics, quality.cosine, quality.agreement, quality.count, None if name == str(paths[0]) else chance)
        found[name] = Evaluated.of(scored, timings[name], path, sets[name].rows(plan.batch))
    return found


def _figures(got: Predictions, first: Predictions, labels: np.ndarray | None) -> tuple[dict[str, Any], float | None]:
    """What is said of classes, and McNemar's test beside the first model; nothing where there are none."""
    if labels is None or any(LOGITS not in each or each[LOGITS].ndim != 2 for each in (got.batches[0][0], first.batches[0][0])):
        return {}, None
    wanted, logits, other = np.asarray(labels).astype(np.int64), got.joined(LOGITS), first.joined(LOGITS)
    right, before = (each.argmax(axis=1) == wanted for each in (logits, other))
    return of_classes(logits.shape[1], wanted, logits.argmax(axis=1)), mcnemar(before, right)


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
