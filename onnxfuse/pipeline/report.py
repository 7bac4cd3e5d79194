"""Everything that is known of a folder's models, as one HTML file: what was done, why not, how fast, how good, and drawings."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxfuse.config import BenchmarkConfig
from onnxfuse.drawing import pages
from onnxfuse.errors import ModelError, OnnxfuseError, UsageError, first_line
from onnxfuse.io import atomic, folders, places
from onnxfuse.io.ours import Replaceable
from onnxfuse.io.progress import Progress, silent
from onnxfuse.pipeline import diff
from onnxfuse.pipeline.commands import commands
from onnxfuse.pipeline.diff import Difference
from onnxfuse.pipeline.evaluate import Evaluation, evaluate
from onnxfuse.pipeline.explain import Finding, explain_file, padding_of
from onnxfuse.scoring.metrics import Metric

NAME = "report.html"

MADE = ("export", "optimize", "quantize", "quantize-static")
"""Steps of the record that made a model, in their order."""

PAIRS = ((folders.MODEL, folders.OPTIMIZED), (folders.OPTIMIZED, folders.QUANTIZED))
"""What is drawn side by side, where both are there."""


@dataclass(frozen=True)
class Made:
    """A step that made a model, as the record tells it. ``size`` is in bytes; ``changed``: the file is another one by now."""

    step: str
    file: str
    size: int
    seconds: float
    about: str
    parity: Mapping[str, Any] | None
    versions: Mapping[str, str]
    changed: bool


@dataclass(frozen=True)
class Latency:
    """A row of what ``run`` measured: milliseconds, and how many times as fast as the first row it is."""

    name: str
    p50: float
    low: float
    high: float
    speed: str
    parity: str
    ours: bool
    fastest: bool


@dataclass(frozen=True)
class Report:
    """What the page says; ``missing``: what it cannot say, and why.

    Args:
        measured: what was measured on, for people.
        choice: by which rule ``load`` opens one of the forms.
        evaluation: on the data that were given; None where none were.
    """

    folder: Path
    name: str
    task: str
    cpu: str
    measured: str
    steps: list[Made]
    fused: list[tuple[str, int, int | None]]
    rules: list[tuple[str, int]]
    proof: list[str]
    findings: list[Finding]
    padding: str
    latencies: list[Latency]
    choice: str
    data: str
    evaluation: Evaluation | None
    differences: list[Difference] = field(repr=False)
    commands: list[str]
    missing: list[str]

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "name": self.name,
            "task": self.task,
            "commands": self.commands,
            "steps": [asdict(each) for each in self.steps],
            "fused": [{"name": name, "count": count, "expected": wanted} for name, count, wanted in self.fused],
            "findings": [each.to_json() for each in self.findings],
            "padding": self.padding,
            "latencies": [asdict(each) for each in self.latencies],
            "evaluation": None if self.evaluation is None else self.evaluation.to_json(),
            "differences": [each.to_json() for each in self.differences],
            "missing": self.missing,
        }


def report(
    folder: Path,
    out: Path | None = None,
    data: Path | None = None,
    layer: str = "",
    progress: Progress = silent,
    *,
    split: str = "",
    overwrite: bool = False,
) -> Report:
    """Write one HTML file about the models of a folder.

    Args:
        out: the file; ``report.html`` in the folder when None.
        data: labelled samples, on which the folder's models are evaluated as ``evaluate`` does it.
        layer: which one is drawn: see ``diff.compare``.

    Raises:
        UsageError: the folder holds nothing that onnxfuse made; there is no such layer; the place is taken.
        ModelError: the record is none that onnxfuse writes, or a model is broken. MissingExtraError: an extra is not installed.
    """
    if not folder.is_dir():
        seen = "is a file" if folder.exists() else "is not there"
        raise UsageError(f"{folder} {seen}, wanted a folder that run, export or optimize wrote")
    out = folder / NAME if out is None else out
    if split and data is None:
        raise UsageError(f"--split {split} is of labelled data; give them with --data, or leave it out")
    guard = Replaceable(overwrite=overwrite, ours=diff.is_page)
    diff.require_place(out, guard)
    found = gather(folder, data, layer, split, progress)
    progress("drawing")
    drawings = [each.drawings() for each in found.differences]
    colours = [pages.classes(each.rules) for each in found.differences]
    content = {"title": f"onnxfuse: {found.name}", "report": found, "drawings": drawings, "colours": colours}
    longest = max((each.high for each in found.latencies), default=1.0)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    metrics = [] if found.evaluation is None else named(found.evaluation)
    page = pages.page(
        "report.html", **content, longest=longest, now=now, versions=folders.versions(), metrics=metrics, figure=figure
    )
    atomic.save_text(page, out, guard)
    return found


def gather(folder: Path, data: Path | None, layer: str, split: str, progress: Progress = silent) -> Report:
    """What the page says. Raises as ``report``."""
    where, record = folder / folders.RECORD, folders.recorded(folder)
    if where.is_file() and not record:
        raise ModelError(f"{where} holds no JSON object; make it anew with: onnxfuse run")
    if not any(step in record for step in MADE):
        raise UsageError(
            f"{folder} has no {folders.RECORD} that says what onnxfuse made; give a folder of run, export or optimize"
        )
    try:
        told = _told(folder, record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{where} is not as onnxfuse writes it; make it anew with: onnxfuse run") from error
    missing, findings, padding = list[str](), list[Finding](), ""
    evaluation = None
    models = folders.models_in(folder, folders.MADE)
    if data is not None:
        found = evaluate(models, data, BenchmarkConfig(8), progress, split)
        evaluation = replace(found, rows={Path(name).name: row for name, row in found.rows.items()})
    elif told["task"] != "feature-extraction":
        missing.append("accuracy: give labelled samples with --data")
    source = folder / folders.MODEL
    if source.is_file():
        progress("asking why not")
        target = record.get("optimize", {}).get("plan", {}).get("target", "cpu")
        try:
            findings = explain_file(source, target)
            padding = record.get("optimize", {}).get("padding") or str(padding_of(source, target))
        except OnnxfuseError as error:
            missing.append(places.told(f"why something is not fused: {first_line(error)}", source))
    differences = [*_differences(folder, layer, missing, progress)]
    if not told["latencies"]:
        missing.append("latency: onnxfuse run measures it, or onnxfuse benchmark")
    return Report(
        folder,
        **told,
        findings=findings,
        padding=padding,
        data="" if data is None else data.name,
        evaluation=evaluation,
        differences=differences,
        missing=missing,
    )


def _differences(folder: Path, layer: str, missing: list[str], progress: Progress) -> Iterator[Difference]:
    """A layer of each pair that is there; ``missing`` receives why one cannot be drawn."""
    for before, after in ((folder / each, folder / other) for each, other in PAIRS):
        if not (before.is_file() and after.is_file()):
            missing.append(f"a drawing of {before.name} beside {after.name}: both must be in the folder")
            continue
        progress(f"comparing {before.name} and {after.name}")
        yield diff.compare(before, after, layer)


def _told(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the record tells. Raises KeyError and the like where it is none that onnxfuse writes."""
    config, optimized = folders.read_config(folder / folders.MODEL), record.get("optimize", {})
    trace, expected = optimized.get("trace", {}), optimized.get("expected", {})
    fused = [(name, int(count), expected.get(name)) for name, count in optimized.get("fused", {}).items() if name != "unfused"]
    measured = record.get("benchmark", {})
    return {
        "name": folder.resolve().name,
        "task": str(record.get("export", {}).get("task") or config.get("onnxfuse_task", "")),
        "cpu": str(measured.get("cpu", "")),
        "measured": _shape(measured.get("plan", {})),
        "steps": [_made(folder, step, record[step]) for step in MADE if step in record],
        "fused": fused,
        "rules": [(name, int(count)) for name, count in trace.get("rules", {}).items()],
        "proof": [*_proof(trace)],
        "latencies": [*_latencies(measured)],
        "choice": str(measured.get("fastest", {}).get("rule", "")),
        "commands": commands(folder, record),
    }


def _made(folder: Path, step: str, entry: Mapping[str, Any]) -> Made:
    file = Path(entry["path"]).name
    known = entry.get("made", {}).get(file)
    there = folder / file
    changed = known is not None and (not there.is_file() or folders.fingerprint(there) != known)
    parity = None if entry["parity"] is None else dict(entry["parity"])
    about = {
        "export": lambda: f"{entry['task']}, from {entry['from']} by {entry['exporter']}",
        "optimize": lambda: (
            f"family {entry['model_type']}, target {entry['target']}, {entry['nodes']} nodes, padding {entry['padding']}"
        ),
    }.get(step, lambda: _int8(entry))()
    return Made(
        step, file, int(entry["size"]), sum(map(float, entry["seconds"].values())), about, parity, entry["versions"], changed
    )


def _int8(entry: Mapping[str, Any]) -> str:
    kept = f", in float: {', '.join(entry['float'])}" if entry["float"] else ""
    calibrated = f"calibrated on {entry['calibration']}" if entry["calibration"] else "not calibrated"
    return f"{entry['scheme']} int8, {entry['matmuls']} linear layers, {entry['embeddings']} embedding tables, {calibrated}{kept}"


def _proof(trace: Mapping[str, Any]) -> Iterator[str]:
    """What became of the proofs of single rewrites."""
    if trace:
        yield f"{trace['proven']} rewrites proven one by one"
    for kind, said in (
        ("unproven", "could not be proven"),
        ("rejected", "was proven wrong and left out"),
        ("unfolded", "was not folded"),
    ):
        yield from (f"{name} {said}: {why}" for name, why in trace.get(kind, {}).items())
    yield from (f"{name} did not come to an end, and was stopped" for name in trace.get("endless", ()))


def _latencies(measured: Mapping[str, Any]) -> Iterator[Latency]:
    timings, rows = measured.get("timings", {}), measured.get("rows", {})
    fastest = measured.get("fastest", {}).get("name", "")
    for name, each in timings.items():
        row = rows.get(name)
        speed = each.get("speed")
        ratio = "" if speed is None else f"{speed['value']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})"
        agrees = "" if row is None else str(row["parity"])
        yield Latency(
            name, float(each["p50"]), float(each["low"]), float(each["high"]), ratio, agrees, row is not None, name == fastest
        )


def _shape(plan: Mapping[str, Any]) -> str:
    if not plan:
        return ""
    threads = f"{plan['threads']} threads" if plan["threads"] else "all cores"
    length = f", length {plan['length']}" if plan["length"] else ""
    return f"batch {plan['batch']}{length}, {threads}, {plan['rounds']} rounds"


def figure(metric: Metric) -> str:
    """A metric with its interval."""
    return f"{metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f})"


def named(evaluation: Evaluation) -> Sequence[str]:
    """The names of all metrics, once."""
    return list(dict.fromkeys(name for row in evaluation.rows.values() for name in row.metrics))
