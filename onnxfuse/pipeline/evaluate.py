"""Measure on real samples how good models are, and how fast."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse import catalog
from onnxfuse.architecture import IDS, PIXELS
from onnxfuse.config import BenchmarkConfig
from onnxfuse.errors import InterruptedWorkError, OnnxfuseError, UsageError, first_line
from onnxfuse.evaluation.collate import Sizes
from onnxfuse.evaluation.columns import is_arrays
from onnxfuse.evaluation.dataset import TEXT
from onnxfuse.evaluation.quality import LOGITS, Predictions, judge, predict
from onnxfuse.evaluation.sources import datasets_for
from onnxfuse.inference.serving import Serving
from onnxfuse.io import atomic, door, folders, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.pipeline import baselines, compare
from onnxfuse.pipeline.baselines import Baseline
from onnxfuse.runtime import USUAL, Feeds, Outputs, Runner, Settings, declared, open_runner
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
    def of(cls, scored: Scored, timing: benchmark.Timing, size: int, batch: int) -> Evaluated:
        return cls(**vars(scored), timing=timing, size=size, batch=batch)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"latency": self.timing.to_json(), "size": self.size, "batch": self.batch}


@dataclass(frozen=True)
class Evaluation:
    """What came out: the models and other tools by name, and why others could not take part."""

    rows: dict[str, Evaluated]
    failed: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The rows as a list, with the speed against the first."""
        first = next(iter(self.rows.values()))
        return {
            "results": [
                {"name": name, **result.to_json(), "speed": asdict(benchmark.ratio(first.timing, result.timing))}
                for name, result in self.rows.items()
            ],
            "failed": [{"name": name, "why": why} for name, why in self.failed.items()],
        }


@dataclass(frozen=True)
class _Way:
    """One way to run a model: its file in a runtime, or another tool's, whose ``path`` is None; ``size`` in bytes."""

    run: Runner
    path: Path | None
    size: int


def evaluate(
    paths: list[Path],
    data: Path,
    plan: BenchmarkConfig,
    progress: Progress = silent,
    split: str = "",
    *,
    runtimes: Sequence[str] = (USUAL,),
    against: Sequence[Baseline] = (),
) -> Evaluation:
    """Measure on real samples how good models are, beside the first of them, and how fast, beside each other.

    Interrupted on many samples, it goes on where it was when it is called again.

    Args:
        data: of any form that ``scoring.rows`` and ``evaluation.columns`` read.
        split: of a folder of several, or of a data set of the hub.
        runtimes, against: as of ``compare.compare_models``.

    Raises:
        UsageError, ModelError, MissingExtraError: see these, and ``scoring.task``. Another tool that fails is named instead.
        InterruptedWorkError: what was done is kept.
    """
    compare.require_takers(paths, runtimes)
    plan, source = plan if plan.batch else replace(plan, batch=ROWS), _rows_of(data, split)
    with atomic.scratch() as folder:
        ways, failed = _ways(paths, runtimes, against, plan, folder, progress)
        work = _Work(ways, paths, plan, progress, failed)
        return Evaluation(work.on_arrays(data) if source is None else work.on_rows(source), failed)


def _rows_of(data: Path, split: str) -> Source | None:
    """Data of a published form; None for a model's own inputs, and for texts without labels."""
    if is_arrays(data):
        return None
    try:
        source = open_source(str(data), split)
    except UsageError:
        if data.suffix == ".txt" and data.is_file():
            return None
        raise
    unlabelled = len(source.columns) == 1 and set(TEXT) & set(source.columns)
    return None if unlabelled or {IDS, PIXELS} & set(source.columns) else source


def _ways(
    paths: Sequence[Path],
    runtimes: Sequence[str],
    against: Sequence[Baseline],
    plan: BenchmarkConfig,
    folder: Path,
    progress: Progress,
) -> tuple[dict[str, _Way], dict[str, str]]:
    """Every file in each runtime that takes it, and other tools' by their names; and why some of these could not be made."""
    ways = {}
    for path in paths:
        for runtime in compare.takers(path, runtimes):
            run = open_runner(path, Settings(runtime.name, plan.threads))
            ways[compare.label(path, runtime.name, runtimes)] = _Way(run, path, onnx_file.model_bytes(path))
    family = catalog.model_type(declared(paths[0]), folders.read_config(paths[0]), None) if against else ""
    others, failed = compare.made(against, baselines.Context(paths[0], family, folder, plan.threads), progress)
    return ways | {other.name: _Way(other.run, None, other.stored or 0) for other in others}, failed


@dataclass(frozen=True)
class _Work:
    """Several ways beside each other on one data set.

    Args:
        paths: the files; the first is the reference.
        failed: receives why another tool could not answer; it is then left out.
    """

    ways: dict[str, _Way]
    paths: Sequence[Path]
    plan: BenchmarkConfig
    progress: Progress
    failed: dict[str, str]

    def on_rows(self, source: Source) -> dict[str, Evaluated]:
        """Labelled data of a published form."""
        alone = {name: _serving(way, self.paths) for name, way in self.ways.items()}
        sizes = Sizes.common([serving.collator for serving in alone.values()])
        models = {name: replace(serving, within=sizes) for name, serving in alone.items()}
        first = next(iter(models.values()))
        task, begun = task_of(first), _Begun(self.ways, self.paths, source, self.plan)
        tallies = begun.tallies(list(models))
        others = {name for name, way in self.ways.items() if way.path is None}
        try:
            tallied(models, task, source, self.plan.batch, self.progress, tallies, self.failed, others)
        except KeyboardInterrupt as error:
            if begun.keep(tallies):
                raise InterruptedWorkError("interrupted; run the same command to go on where it was") from error
            raise
        models = {name: serving for name, serving in models.items() if name not in self.failed}
        samples, inputs = samples_of(source, task, first, self.plan.batch), {}
        for name, serving in models.items():
            fed = list[Feeds]()
            task.answers(_recording(first if name in others else serving, fed), samples, self.plan.batch)
            inputs[name] = fed[0]
        timings, found = self._timed(inputs), scores(models, task, tallies)
        begun.forget()
        rows = sizes.batch or self.plan.batch
        return {name: Evaluated.of(found[name], timings[name], self.ways[name].size, rows) for name in models}

    def on_arrays(self, data: Path) -> dict[str, Evaluated]:
        """The models' own inputs, or texts, with or without classes."""
        sets = dict(zip(self.ways, datasets_for(data, [way.path or self.paths[0] for way in self.ways.values()]), strict=True))
        predictions = {}
        for number, (name, way) in enumerate(self.ways.items()):
            begin, part = number / len(self.ways), 1 / len(self.ways)

            def tell(
                done: float, step: str, begin: float = begin, part: float = part, text: str = f"predicting with {name}"
            ) -> None:
                self.progress(text, begin + part * done, step)

            try:
                predictions[name] = predict(way.run, sets[name], self.plan.batch, tell)
            except OnnxfuseError as error:
                if way.path is not None:
                    raise
                self.failed[name] = first_line(error)
        timings = self._timed({name: next(sets[name].batches(self.plan.batch)) for name in predictions})
        reference, first = next(iter(predictions.items()))
        found = {}
        for name, given in predictions.items():
            quality = judge(given, first, sets[name])
            metrics, p_value = _figures(given, first, sets[name].labels)
            scored = Scored(metrics, quality.cosine, quality.agreement, quality.count, None if name == reference else p_value)
            found[name] = Evaluated.of(scored, timings[name], self.ways[name].size, sets[name].rows(self.plan.batch))
        return found

    def _timed(self, inputs: Mapping[str, Feeds]) -> dict[str, benchmark.Timing]:
        """The ways side by side, each on inputs of its own: models call theirs differently."""
        calls = {name: partial(lambda run, feeds, _: run(feeds), self.ways[name].run, feeds) for name, feeds in inputs.items()}
        return benchmark.measure(calls, [{}], rounds=self.plan.rounds, seconds=self.plan.seconds, progress=self.progress)


def _serving(way: _Way, paths: Sequence[Path]) -> Serving:
    """A model as it is used; one that does not tell what it takes is used as the first of the others that does."""
    path = way.path or paths[0]
    like = path if path.suffix == ".onnx" else next((other for other in paths if other.suffix == ".onnx"), path)
    graph = declared(like).graph
    inputs, outputs = (tuple(value.name or "" for value in values) for values in (graph.inputs, graph.outputs))
    home = next((other for other in (like, *paths) if any((folders.home_of(other) / name).is_file() for name in READERS)), like)
    return Serving(like, way.run, inputs, outputs, home)


def _recording(serving: Serving, feeds: list[Feeds]) -> Serving:
    def run(given: Feeds) -> Outputs:
        feeds.append(given)
        return serving.run(given)

    return replace(serving, run=run)


class _Begun:
    """What was tallied before an interruption, in a file beside the first model, for the same models, data and versions."""

    def __init__(self, ways: Iterable[str], paths: Sequence[Path], source: Source, plan: BenchmarkConfig) -> None:
        models = [(str(path), folders.fingerprint(path)) for path in paths]
        key = [folders.versions(), list(ways), models, _stamp(source.name), plan.batch]
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        self.path = folders.home_of(paths[0]) / f".evaluate-{digest}.npz"

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


def _figures(got: Predictions, first: Predictions, labels: np.ndarray | None) -> tuple[dict[str, Any], float | None]:
    """What is said of classes, and McNemar's test beside the first model; nothing where there are none."""
    if labels is None or any(LOGITS not in each or each[LOGITS].ndim != 2 for each in (got.batches[0][0], first.batches[0][0])):
        return {}, None
    wanted, logits, other = np.asarray(labels).astype(np.int64), got.joined(LOGITS), first.joined(LOGITS)
    right, before = (each.argmax(axis=1) == wanted for each in (logits, other))
    return of_classes(logits.shape[1], wanted, logits.argmax(axis=1)), mcnemar(before, right)
