"""Measure on real samples how good models are, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
from onnxfuse.io import atomic, folders, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.pipeline import baselines, compare
from onnxfuse.pipeline.baselines import Baseline
from onnxfuse.pipeline.begun import Begun
from onnxfuse.runtime import USUAL, Feeds, Outputs, Runner, Settings, declared, open_runner
from onnxfuse.scoring.judge import Scored, samples_of, scores, tallied
from onnxfuse.scoring.metrics import mcnemar, of_classes
from onnxfuse.scoring.rows import open_source
from onnxfuse.scoring.source import Source
from onnxfuse.scoring.tasks import task_of

ROWS = 8
"""Of a batch where none are asked for."""

GO_ON = "interrupted; run the same command to go on where it was"

READERS = ("tokenizer.json", "preprocessor_config.json")


@dataclass(frozen=True)
class Evaluated(Scored):
    """One model: how good it is on a data set, its latency on the set's first batch, its size in bytes, and a batch's rows.

    Args:
        rewrites: how many were made, of a choice of rewrites.
        beside: the speed against the first where both were timed in a run of their own; None where all were in one.
    """

    timing: benchmark.Timing
    size: int
    batch: int
    rewrites: int | None = None
    beside: benchmark.Ratio | None = None

    def speed(self, first: Evaluated) -> benchmark.Ratio:
        """How many times as fast as the first."""
        return self.beside or benchmark.ratio(first.timing, self.timing)

    def to_json(self) -> dict[str, Any]:
        made = {} if self.rewrites is None else {"rewrites": self.rewrites}
        return super().to_json() | {"latency": self.timing.to_json(), "size": self.size, "batch": self.batch} | made


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
                {"name": name, **result.to_json(), "speed": asdict(result.speed(first))} for name, result in self.rows.items()
            ],
            "failed": [{"name": name, "why": why} for name, why in self.failed.items()],
        }


@dataclass(frozen=True)
class Way:
    """One way to run a model.

    Args:
        path: its file; None of another tool's, and of a rewritten model.
        size: in bytes.
        known: what answers the data in its place: it remembers the answers. Latency is that of ``run``.
    """

    run: Runner
    path: Path | None
    size: int
    known: Runner | None = None

    @property
    def answers(self) -> Runner:
        return self.known or self.run


def evaluate(
    paths: list[Path],
    data: Path,
    plan: BenchmarkConfig,
    progress: Progress = silent,
    split: str = "",
    *,
    runtimes: Sequence[str] = (USUAL,),
    against: Sequence[Baseline] = (),
    tally: Callable[..., None] = tallied,
) -> Evaluation:
    """Measure on real samples how good models are, beside the first of them, and how fast, beside each other.

    Interrupted on many samples, it goes on where it was when it is called again.

    Args:
        data: of any form that ``scoring.rows`` and ``evaluation.columns`` read.
        split: of a folder of several, or of a data set of the hub.
        runtimes, against: as of ``compare.compare_models``.
        tally: what has the models answer, as ``tallied``: see ``evaluate_shards``.

    Raises:
        UsageError, ModelError, MissingExtraError: see these, and ``scoring.task``. Another tool that fails is named instead.
        InterruptedWorkError: what was done is kept.
    """
    compare.require_takers(paths, runtimes)
    plan, source = plan if plan.batch else replace(plan, batch=ROWS), rows_of(data, split)
    with atomic.scratch() as folder:
        ways, failed = _ways(paths, runtimes, against, plan, folder, progress)
        return Evaluation(Work(ways, paths, plan, progress, failed, tally=tally).on(data, source), failed)


def rows_of(data: Path, split: str) -> Source | None:
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
) -> tuple[dict[str, Way], dict[str, str]]:
    """Every file in each runtime that takes it, and other tools' by their names; and why some of these could not be made."""
    ways = ways_of(paths, runtimes, plan)
    family = catalog.model_type(declared(paths[0]), folders.read_config(paths[0]), None) if against else ""
    others, failed = compare.made(against, baselines.Context(paths[0], family, folder, plan.threads), progress)
    return ways | {other.name: Way(other.run, None, other.stored or 0) for other in others}, failed


def ways_of(paths: Sequence[Path], runtimes: Sequence[str], plan: BenchmarkConfig) -> dict[str, Way]:
    """Every file in each runtime that takes it."""
    ways = {}
    for path in paths:
        for runtime in compare.takers(path, runtimes):
            run = open_runner(path, Settings(runtime.name, plan.threads))
            ways[compare.label(path, runtime.name, runtimes)] = Way(run, path, onnx_file.model_bytes(path))
    return ways


def models_of(ways: Mapping[str, Way], paths: Sequence[Path]) -> dict[str, Serving]:
    """Models as they are used, held to sizes that all take. Raises ModelError."""
    alone = {name: _serving(way, paths) for name, way in ways.items()}
    sizes = Sizes.common([serving.collator for serving in alone.values()])
    return {name: replace(serving, within=sizes) for name, serving in alone.items()}


@dataclass(frozen=True)
class Work:
    """Several ways beside each other on one data set.

    Args:
        paths: the files; the first is the reference.
        failed: receives why another tool could not answer; it is then left out.
        about: what else the answers depend on, of one that an interrupted one goes on with.
        tally: what has the models answer, as ``tallied``.
        held: receives what was kept of the answers, for whoever forgets it; None forgets it once they are judged.
    """

    ways: dict[str, Way]
    paths: Sequence[Path]
    plan: BenchmarkConfig
    progress: Progress
    failed: dict[str, str]
    about: str = ""
    held: list[Begun] | None = None
    tally: Callable[..., None] = tallied

    def on(self, data: Path, source: Source | None) -> dict[str, Evaluated]:
        """``source``: what ``rows_of`` gives of the data."""
        return self.on_arrays(data) if source is None else self.on_rows(source)

    def on_rows(self, source: Source) -> dict[str, Evaluated]:
        """Labelled data of a published form."""
        models = models_of(self.ways, self.paths)
        first = next(iter(models.values()))
        task, begun = task_of(first), Begun([*self.ways, self.about], self.paths, source, self.plan)
        tallies = begun.tallies(list(models))
        others = {name for name, way in self.ways.items() if way.path is None}
        try:
            self.tally(models, task, source, self.plan.batch, self.progress, tallies, self.failed, others)
        except KeyboardInterrupt as error:
            if begun.keep(tallies):
                raise InterruptedWorkError(GO_ON) from error
            raise
        if self.held is not None and begun.keep(tallies):
            self.held.append(begun)
        models = {name: serving for name, serving in models.items() if name not in self.failed}
        samples, inputs = samples_of(source, task, first, self.plan.batch), {}
        for name, serving in models.items():
            fed = list[Feeds]()
            task.answers(_recording(first if name in others else serving, fed), samples, self.plan.batch)
            inputs[name] = fed[0]
        timings, found = self._timed(inputs), scores(models, task, tallies)
        if self.held is None:
            begun.forget()
        rows, sizes = first.sizes.batch or self.plan.batch, {name: way.size for name, way in self.ways.items()}
        return {name: Evaluated(**vars(found[name]), timing=timings[name], size=sizes[name], batch=rows) for name in models}

    def on_arrays(self, data: Path) -> dict[str, Evaluated]:
        """The models' own inputs, or texts, with or without classes."""
        sets = dict(zip(self.ways, datasets_for(data, [way.path or self.paths[0] for way in self.ways.values()]), strict=True))
        predictions, seconds = {}, {}
        for number, (name, way) in enumerate(self.ways.items()):
            begin, part = number / len(self.ways), 1 / len(self.ways)

            def tell(
                done: float, step: str, begin: float = begin, part: float = part, text: str = f"predicting with {name}"
            ) -> None:
                self.progress(text, begin + part * done, step)

            start = time.monotonic()
            try:
                predictions[name] = predict(way.answers, sets[name], self.plan.batch, tell)
            except OnnxfuseError as error:
                if way.path is not None:
                    raise
                self.failed[name] = first_line(error)
            seconds[name] = time.monotonic() - start
        timings = self._timed({name: next(sets[name].batches(self.plan.batch)) for name in predictions})
        reference, first = next(iter(predictions.items()))
        found = {}
        for name, given in predictions.items():
            quality = judge(given, first, sets[name])
            metrics, p_value = _figures(given, first, sets[name].labels)
            chance = None if name == reference else p_value
            scored = Scored(metrics, quality.cosine, quality.agreement, quality.count, chance, seconds[name])
            rows, size = sets[name].rows(self.plan.batch), self.ways[name].size
            found[name] = Evaluated(**vars(scored), timing=timings[name], size=size, batch=rows)
        return found

    def _timed(self, inputs: Mapping[str, Feeds]) -> dict[str, benchmark.Timing]:
        """The ways side by side, each on inputs of its own: models call theirs differently."""
        calls = {name: partial(lambda run, feeds, _: run(feeds), self.ways[name].run, feeds) for name, feeds in inputs.items()}
        return benchmark.measure(calls, [{}], rounds=self.plan.rounds, seconds=self.plan.seconds, progress=self.progress)


def _serving(way: Way, paths: Sequence[Path]) -> Serving:
    """A model as it is used; one that does not tell what it takes is used as the first of the others that does."""
    path = way.path or paths[0]
    like = path if path.suffix == ".onnx" else next((other for other in paths if other.suffix == ".onnx"), path)
    graph = declared(like).graph
    inputs, outputs = (tuple(value.name or "" for value in values) for values in (graph.inputs, graph.outputs))
    home = next((other for other in (like, *paths) if any((folders.home_of(other) / name).is_file() for name in READERS)), like)
    return Serving(like, way.answers, inputs, outputs, home)


def _recording(serving: Serving, feeds: list[Feeds]) -> Serving:
    def run(given: Feeds) -> Outputs:
        feeds.append(given)
        return serving.run(given)

    return replace(serving, run=run)


def _figures(got: Predictions, first: Predictions, labels: np.ndarray | None) -> tuple[dict[str, Any], float | None]:
    """What is said of classes, and McNemar's test beside the first model; nothing where there are none."""
    if labels is None or any(LOGITS not in each or each[LOGITS].ndim != 2 for each in (got.batches[0][0], first.batches[0][0])):
        return {}, None
    wanted, logits, other = np.asarray(labels).astype(np.int64), got.joined(LOGITS), first.joined(LOGITS)
    right, before = (each.argmax(axis=1) == wanted for each in (logits, other))
    return of_classes(logits.shape[1], wanted, logits.argmax(axis=1)), mcnemar(before, right)
