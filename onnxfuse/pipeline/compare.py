"""Models, runtimes and other tools side by side: each one's speed beside its parity, from one interleaved run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxfuse import catalog
from onnxfuse.choice import METADATA
from onnxfuse.config import BenchmarkConfig, shape_text
from onnxfuse.errors import OnnxfuseError, UsageError, first_line
from onnxfuse.evaluation import calibrated
from onnxfuse.io import folders, onnx_file
from onnxfuse.io.atomic import scratch
from onnxfuse.io.progress import Progress, Share, counted, silent, untold
from onnxfuse.measure import benchmark
from onnxfuse.measure.benchmark import Timing
from onnxfuse.pipeline import baselines, memory
from onnxfuse.pipeline.baselines import Baseline
from onnxfuse.pipeline.step import fitted
from onnxfuse.quantization.linears import stored_in
from onnxfuse.runtime import USUAL, Feeds, Outputs, Runner, Runtime, Settings, asked, declared, open_runner, runtime_of
from onnxfuse.runtime import runtimes as known_runtimes
from onnxfuse.verify import tolerances, verdict
from onnxfuse.verify.expected import Expected, expect
from onnxfuse.verify.grid import Case
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.meaning import understood
from onnxfuse.verify.parity import Parity

COMPARED = 8
"""Inputs that parity is measured on, of the very shape that is timed: what compiles for each shape need not do so again."""


@dataclass(frozen=True)
class Candidate:
    """One way to run the model.

    Args:
        kind: a key of ``tolerances.OF_PRECISION``.
        path: its file.
        ours: made by onnxfuse.
        real: what it was calibrated with, if it is int8 and was.
        unjudged: why it cannot be compared.
        stored: bytes of its weights, where it has no file of its own.
    """

    name: str
    kind: str
    run: Runner
    path: Path | None = None
    runtime: str = "ort"
    ours: bool = False
    real: verdict.Real | None = None
    unjudged: str = ""
    stored: int | None = None


@dataclass(frozen=True)
class Row:
    """One candidate, measured. Sizes are in bytes; ``parity`` is with the first candidate, None for itself."""

    candidate: Candidate
    timing: Timing
    parity: Parity | None
    peak_memory: int | None = None

    @property
    def size(self) -> int | None:
        return self.candidate.stored if self.candidate.path is None else onnx_file.model_bytes(self.candidate.path)

    def to_json(self) -> dict[str, Any]:
        seen, entry = self.parity, self.candidate
        agrees = None if seen is None else {"error": seen.error, "cosine": seen.cosine, "passed": seen.passed, "real": seen.real}
        return {
            "name": entry.name,
            "path": None if entry.path is None else str(entry.path),
            "kind": entry.kind,
            "runtime": entry.runtime,
            "size": self.size,
            "peak_memory": self.peak_memory,
            "parity": agrees,
            "unjudged": entry.unjudged or None,
            "latency": self.timing.to_json(),
        }


@dataclass(frozen=True)
class Comparison:
    """What came out: the rows by name, why the others could not take part, and what was measured on, for people."""

    rows: dict[str, Row]
    failed: dict[str, str] = field(default_factory=dict)
    shape: str = ""

    def to_json(self) -> dict[str, Any]:
        first = next(iter(self.rows.values()), None)
        return {
            "shape": self.shape,
            "results": [
                row.to_json() | {"speed": asdict(benchmark.ratio(first.timing, row.timing))}
                for row in self.rows.values()
                if first is not None
            ],
            "failed": [{"name": name, "why": why} for name, why in self.failed.items()],
        }


def compare_models(
    models: Sequence[Path],
    plan: BenchmarkConfig,
    *,
    runtimes: Sequence[str] = ("ort",),
    against: Sequence[Baseline] = (),
    progress: Progress = silent,
) -> Comparison:
    """Measure model files in each of the runtimes, and baselines of the first file, in one interleaved run.

    Args:
        models: the first is the reference; baselines are made from it.
        runtimes: their names; a file that none of them takes runs in one that does.
        against: other tools' ways: see ``baselines.choose``.

    Raises:
        UsageError: they take other rows or tokens than those of the plan.
        OnnxfuseError: one of the files cannot be measured. A baseline that fails is named in the result instead.
    """
    require_takers(models, runtimes)
    first = takers(models[0], runtimes)[0]
    if first.stored is not None and first.declares is None:
        raise UsageError(
            f"{models[0]} is a {first.label} model; give an ONNX model first, as the reference that tells the inputs"
        )
    config = folders.read_config(models[0])
    model = declared(models[0])
    profile = profile_of(model, config)
    plan = fitted(plan, profile)
    entries = [
        from_file(path, label(path, runtime.name, runtimes), Settings(runtime.name, plan.threads), models[0])
        for path in models
        for runtime in takers(path, runtimes)
    ]
    peaks = {}
    for entry in counted(entries, partial(progress, "measuring memory")):
        if entry.path:
            peaks[entry.name] = memory.peak_memory(
                entry.path, batch=plan.batch, length=plan.length, threads=plan.threads, runtime=entry.runtime, like=models[0]
            )
    with scratch() as folder:
        context = baselines.Context(models[0], catalog.model_type(model, config, None), folder, plan.threads)
        others, failed = made(against, context, progress)
        entries += others
        profile = understood(profile, entries[0].run)
        inputs = [profile.feeds(plan.batch, plan.length, seed=plan.seed + seed, real=plan.real) for seed in range(COMPARED)]
        rows = measure(entries, inputs, plan.rounds, failed, progress, seconds=plan.seconds)
    return Comparison({name: replace(row, peak_memory=peaks.get(name)) for name, row in rows.items()}, failed, shape_text(plan))


def made(chosen: Sequence[Baseline], context: baselines.Context, progress: Progress) -> tuple[list[Candidate], dict[str, str]]:
    """Other tools' ways, and why some of them could not be made."""
    found, failed = [], {}
    for number, baseline in enumerate(chosen):
        progress(f"making {baseline.name}", number / len(chosen))
        try:
            found.append(from_baseline(baseline, context))
        except OnnxfuseError as error:
            failed[baseline.name] = str(error)
    return found, failed


def measure(
    entries: Sequence[Candidate],
    inputs: Sequence[Feeds],
    rounds: int,
    failed: dict[str, str],
    progress: Progress = silent,
    *,
    seconds: float = 0.0,
) -> dict[str, Row]:
    """Compare candidates with the first on all ``inputs`` and time them on the first of these.

    Args:
        rounds, seconds: as of ``benchmark.measure``.
        failed: receives why a candidate could not run; it is then left out.
    """
    agrees = compare_outputs(entries, inputs, failed, partial(progress, "comparing outputs"))
    running = [entry for entry in entries if entry.name not in failed]
    runners = {entry.name: entry.run for entry in running}
    timings = benchmark.measure(runners, inputs[:1], rounds=rounds, seconds=seconds, progress=progress)
    return {entry.name: Row(entry, timings[entry.name], agrees.get(entry.name)) for entry in running}


def compare_outputs(
    entries: Sequence[Candidate], inputs: Sequence[Feeds], failed: dict[str, str], tell: Share = untold
) -> dict[str, Parity]:
    """Parity of each candidate with the first, by name (see ``verdict``); ``failed`` receives why one could not be compared."""
    expected = expect(entries[0].run, [Case(f"input {number}", feeds) for number, feeds in enumerate(inputs)])
    names = tuple(expected[0].outputs)
    agrees, known = {}, dict[str, list[Expected]]()
    for entry in counted(entries[1:], tell):
        if entry.unjudged:
            continue
        try:
            if entry.real is not None and entry.real.name not in known:
                known[entry.real.name] = expect(entries[0].run, entry.real.cases)
            name = "" if entry.real is None else entry.real.name
            agrees[entry.name] = verdict.judge(
                expected, known.get(name, []), _only(entry.run, names), tolerances.OF_PRECISION[entry.kind], name
            )
        except OnnxfuseError as error:
            failed[entry.name] = first_line(error)
    return agrees


def _only(run: Runner, names: tuple[str, ...]) -> Runner:
    """The outputs of these names: other tools show more."""

    def call(feeds: Feeds) -> Outputs:
        return {name: array for name, array in run(feeds).items() if name in names}

    return call


def require_takers(models: Sequence[Path], names: Sequence[str]) -> None:
    """Raises UsageError: no runtime of one of these names, or it takes none of the files."""
    for name in names:
        if name != USUAL:
            asked(name, *models)


def takers(path: Path, names: Sequence[str]) -> list[Runtime]:
    """Those of the runtimes of these names that take a file, or one that does where none of them takes it."""
    takes = known_runtimes(path.suffix)
    return [takes[name] for name in dict.fromkeys(names) if name in takes] or [runtime_of(path, USUAL)]


def label(path: Path, runtime: str, runtimes: Sequence[str]) -> str:
    """A file's row, with its runtime where several are asked for."""
    return str(path) if tuple(runtimes) == ("ort",) or runtime not in runtimes else f"{path} in {runtime}"


def from_baseline(baseline: Baseline, context: baselines.Context) -> Candidate:
    """Another tool's way. Raises OnnxfuseError: it is not installed, or cannot take the model."""
    made = baseline.open(context)
    return Candidate(baseline.name, baseline.kind, made.run, stored=made.size)


def from_file(path: Path, name: str, settings: Settings, beside: Path | None = None) -> Candidate:
    """A model file in a runtime; its precision, who made it and what it was calibrated with are read off the file.

    Args:
        beside: another file in whose folder its tokenizer or calibration data may lie.

    Raises:
        ModelError, MissingExtraError: see ``open_runner``.
    """
    runtime = runtime_of(path, settings.runtime)
    if runtime.stored is not None and runtime.declares is None:
        return Candidate(name, runtime.precision(runtime.stored(path)), open_runner(path, settings), path, runtime.name)
    model = declared(path)
    told = runtime.stored is not None and path.suffix != ".onnx"
    kind = runtime.precision(runtime.stored(path) if told and runtime.stored is not None else stored_in(model))
    real, unjudged = None, ""
    try:
        real = calibrated.real_inputs(path, *([] if beside is None else [beside]))
    except UsageError as error:
        unjudged = str(error)
    return Candidate(
        name, kind, open_runner(path, settings), path, runtime.name, METADATA in model.metadata_props, real, unjudged
    )
