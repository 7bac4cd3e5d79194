"""Results for people: tables on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from onnxfuse import files
from onnxfuse import plan as plans
from onnxfuse.ablate import Result
from onnxfuse.benchmark import Timing, ratio
from onnxfuse.contest import Contest, Row
from onnxfuse.explain import Finding
from onnxfuse.parity import Parity
from onnxfuse.pipeline import PYTORCH, VARIANTS, Run
from onnxfuse.targets import CHOICES
from onnxfuse.tune import Tuned


def megabytes(size: int) -> str:
    """Bytes as megabytes of 10^6 bytes."""
    return f"{size / 1e6:.1f} MB"


def fused_text(counts: Mapping[str, int], expected: Mapping[str, int]) -> str:
    """The counts of what was fused, each with the expected number where it differs or is known."""
    parts = []
    for name, count in counts.items():
        if name != "unfused":
            wanted = expected.get(name)
            parts.append(f"{name} {count}" + (f"/{wanted}" if wanted is not None else ""))
    return ", ".join(parts)


def int8_text(details: Mapping[str, Any]) -> str:
    """What was quantized, and why weights are coarser where they are."""
    coarse = ", weights in 7 bits: this machine clips products of 8" if details["bits"] == 7 else ""
    return f"{details['matmuls']} products, {details['embeddings']} tables in int8{coarse}"


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """One line for each layer with what is done, and one for each thing that is not."""
    lines = []
    for layer in dict.fromkeys(finding.layer for finding in findings):
        done = Counter(finding.fusion for finding in findings if finding.layer == layer and finding.done)
        counted = ", ".join(name if count == 1 else f"{count} {name}" for name, count in done.items())
        lines.append(f"  {layer}: {counted or 'nothing'} done")
        lines += [f"    {finding}" for finding in findings if finding.layer == layer and not finding.done]
    return lines


def ablation_table(results: Sequence[Result], title: str) -> Table:
    """One row for each choice of rewrites."""
    table = Table(title=title, title_justify="left")
    table.add_column("rewrites", no_wrap=True)
    for column in ("made", "nodes", "error", "p50 ms", "95 % interval", "speed-up", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        timing, speed = result.timing, result.speed
        table.add_row(result.name, str(result.rewrites), str(result.nodes), f"{result.error:.1e}", f"{timing.p50:.2f}",
                      f"{timing.low:.2f} - {timing.high:.2f}", f"{speed.value:.3f}x", f"{speed.low:.3f} - {speed.high:.3f}")
    return table


def parity_text(result: Parity | None) -> str:
    """A parity result in a few characters."""
    if result is None:
        return "not checked"
    return f"cosine {result.cosine:.4f}" if result.kind == "int8" else f"max diff {result.error:.1e}"


def timing_table(timings: Mapping[str, Timing], title: str, extra: Mapping[str, Mapping[str, str]] | None = None) -> Table:
    """Latencies with the speed-up against the first row; ``extra`` adds columns by name and row."""
    extra = extra or {}
    table = Table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    for column in (*extra, "p50 ms", "95 % interval", "p90", "p99", "speed-up"):
        table.add_column(column, justify="right", no_wrap=True)
    first = next(iter(timings.values()))
    for name, timing in timings.items():
        table.add_row(name, *(values.get(name, "") for values in extra.values()), f"{timing.p50:.2f}",
                      f"{timing.low:.2f} - {timing.high:.2f}", f"{timing.p90:.2f}", f"{timing.p99:.2f}",
                      f"{ratio(first, timing).value:.2f}x")
    return table


def contest_table(outcome: Contest, title: str) -> Table:
    """One row for each candidate: size, memory, parity with the first, latency."""
    rows = outcome.rows
    reference = next(iter(rows))
    shown = {"size": {name: megabytes(row.size) for name, row in rows.items() if row.size is not None},
             "peak memory": {name: megabytes(row.peak_memory) for name, row in rows.items() if row.peak_memory is not None},
             "against the first": {name: agreement_text(row) for name, row in rows.items()} | {reference: "reference"}}
    return timing_table({name: row.timing for name, row in rows.items()}, title, shown)


def agreement_text(row: Row) -> str:
    """A candidate's parity in a few characters, and whether it is outside the tolerance of its precision."""
    if row.parity is None:
        return ""
    return parity_text(row.parity) + ("" if row.parity.passed else ", too far")


def tune_lines(outcome: Tuned) -> list[str]:
    """One line for each alternative: how fast it is beside the choice of its time; then the choices."""
    lines = []
    for trial in outcome.trials:
        result = trial.refused or ""
        if trial.speed is not None:
            result = f"{trial.p50:.2f} ms, {trial.speed.value:.3f} times as fast ({trial.speed.low:.3f} - {trial.speed.high:.3f})"
        lines.append(f"  {trial.thing}: {trial.option}: {result}")
    target = outcome.target
    chosen = ", ".join(f"{thing} {getattr(target, thing)}" for thing in CHOICES)
    return [*lines, f"chosen: {chosen}; opened with {target.session}"]


def run_table(outcome: Run, title: str) -> Table:
    """The table at the end of ``run``: size, latency, speed-up, parity with PyTorch, and what was fused."""
    folder = outcome.export.path.parent
    sizes = {name: megabytes(files.model_bytes(folder / file)) for name, file in VARIANTS.items()}
    agrees = {PYTORCH: "reference"} | {name: parity_text(result) for name, result in outcome.parity.items()}
    fused = fused_text(outcome.optimize.details["fused"], outcome.optimize.details["expected"])
    steps = {"optimized": fused, "int8": int8_text(outcome.quantize.details)}
    table = timing_table(outcome.timings, title, {"size": sizes, "against PyTorch": agrees})
    table.caption = "\n".join(f"{name}: {text}" for name, text in steps.items()) + f"\nfiles and record: {folder}/{plans.RECORD}"
    table.caption_justify = "left"
    return table
