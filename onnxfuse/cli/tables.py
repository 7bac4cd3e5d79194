"""Results for people: tables on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from onnxfuse.cli.grid import Grid
from onnxfuse.io import folders
from onnxfuse.measure.benchmark import Timing, ratio
from onnxfuse.measure.fastest import Fastest
from onnxfuse.pipeline.ablation import Result
from onnxfuse.pipeline.compare import Comparison, Row
from onnxfuse.pipeline.evaluate import Evaluated
from onnxfuse.pipeline.explain import Finding
from onnxfuse.pipeline.quantize import Quantized
from onnxfuse.pipeline.run import Run
from onnxfuse.pipeline.tune import Tuned
from onnxfuse.quantization.gate import TradeOff
from onnxfuse.scoring.judge import Scored
from onnxfuse.scoring.metrics import Metric
from onnxfuse.verify.parity import Parity


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


def int8_text(step: Quantized) -> str:
    """What was quantized and how, in a line."""
    int8 = step.description
    form = "" if int8.scheme == int8.format else f", {int8.format}"
    parts = [f"{int8.scheme}{form}: {int8.matmuls} linear layers, {int8.embeddings} embedding tables in int8"]
    if int8.kept:
        parts.append(f"{len(int8.kept)} linear layers float")
    if step.gate is not None and step.gate.missed:
        parts.append(f"{step.gate.missed[0]} (--min-agreement 99% lets more layers stay float)")
    parts.append(
        f"calibrated on {int8.calibration}, {len(int8.smoothed)} linear layers smoothed"
        if int8.calibration
        else f"not calibrated ({step.uncalibrated})"
    )
    parts += int8.notes
    if int8.reduce_range:
        parts.append("weights that no CPU clips")
    return ", ".join(parts)


SPEED = "speed-up: the median over rounds of the first row's call by the one beside it; the ratio of the p50s may differ a little"
"""What a column of ``ratio`` holds."""

SAMPLES = "samples/s: of all samples, with what reads them into the model and its answers off it; p50: of the first batch alone"

SPEED_ALONE = "speed-up: beside the original, measured anew with each row; the p50s of different rows are of different times"


def gate_table(trade_off: TradeOff, batch: int) -> Grid:
    """What keeping linear layers in float brought and cost: one row for each model that was judged."""
    rows = [
        (
            str(len(candidate.kept)),
            f"{candidate.quality.cosine:.5f}",
            f"{candidate.quality.agreement:.2%}",
            "" if candidate.quality.accuracy is None else f"{candidate.quality.accuracy:.2%}",
            "" if candidate.p50 is None else f"{candidate.p50:.2f}",
        )
        for candidate in trade_off.candidates
    ]
    headers = ("float", "cosine", "agreement", "accuracy", "p50 ms")
    return Grid(f"linear layers kept in float, batches of {batch} and one by one", headers, rows)


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """One line for each layer with what is done, and one for each thing that is not."""
    lines = []
    for layer in dict.fromkeys(finding.layer for finding in findings):
        done = Counter(finding.fusion for finding in findings if finding.layer == layer and finding.done)
        counted = ", ".join(name if count == 1 else f"{count} {name}" for name, count in done.items())
        lines.append(f"  {layer}: {counted or 'nothing'} done")
        lines += [f"    {finding}" for finding in findings if finding.layer == layer and not finding.done]
    return lines


def ablation_table(results: Sequence[Result], title: str) -> Grid:
    """One row for each choice of rewrites."""
    rows = [
        (
            result.name,
            str(result.rewrites),
            str(result.nodes),
            f"{result.error:.1e}",
            f"{result.timing.p50:.2f}",
            f"{result.timing.low:.2f} - {result.timing.high:.2f}",
            f"{result.speed.value:.3f}x",
            f"{result.speed.low:.3f} - {result.speed.high:.3f}",
        )
        for result in results
    ]
    headers = ("rewrites", "made", "nodes", "error", "p50 ms", "95 % interval", "speed-up", "95 % interval")
    return Grid(title, headers, rows, (SPEED_ALONE,))


def parity_text(result: Parity | None) -> str:
    """A parity result in a few characters."""
    return "not checked" if result is None else result.brief


def parity_lines(result: Parity) -> list[str]:
    """What ``check`` found: a line for each output, and the verdict."""
    lines = []
    for seen in result.differences:
        where = f" (worst on {seen.worst})" if seen.worst else ""
        near = (
            f"{seen.equal:.2%} equal{where}"
            if seen.discrete
            else f"max diff {seen.error:.2e}{where}, cosine {seen.cosine:.5f}, largest class kept {seen.agreement:.1%}"
        )
        count = f"{seen.compared} {'value' if seen.discrete else 'number'}{'s' if seen.compared != 1 else ''}"
        steady = "" if seen.varies else f", which do{'es' if seen.compared == 1 else ''} not vary"
        free = f"; {seen.free} more, of rows or queries without a token, are finite" if seen.free else ""
        lines.append(f"{seen.output}: {near}, {count}{steady}{free}")
    on = f"{result.cases} batches of {result.real}, and finite on random inputs" if result.real else f"{result.cases} inputs"
    return [*lines, f"{'equal' if result.passed else 'different'} within {result.kind!r} on {on}"]


def timing_table(
    timings: Mapping[str, Timing], title: str, extra: Mapping[str, Mapping[str, str]], notes: Sequence[str] = ()
) -> Grid:
    """Latencies with the speed-up against the first row; ``extra`` adds columns by name and row, ``notes`` lines below."""
    first = next(iter(timings.values()))
    rows = [
        (
            name,
            *(values.get(name, "") for values in extra.values()),
            f"{timing.p50:.2f}",
            f"{timing.low:.2f} - {timing.high:.2f}",
            f"{timing.p90:.2f}",
            f"{timing.p99:.2f}",
            f"{ratio(first, timing).value:.2f}x",
        )
        for name, timing in timings.items()
    ]
    headers = ("model", *extra, "p50 ms", "95 % interval", "p90", "p99", "speed-up")
    return Grid(title, headers, rows, (SPEED, *notes))


def comparison_table(outcome: Comparison, title: str) -> Grid:
    """One row for each candidate: size, memory, parity with the first, latency."""
    rows = outcome.rows
    reference = next(iter(rows))
    shown = {
        "size": {name: megabytes(row.size) for name, row in rows.items() if row.size is not None},
        "peak memory": {name: megabytes(row.peak_memory) for name, row in rows.items() if row.peak_memory is not None},
        "against the first": {name: agreement_text(row) for name, row in rows.items()} | {reference: "reference"},
    }
    notes = [f"{name}: {row.candidate.unjudged}" for name, row in rows.items() if row.candidate.unjudged]
    return timing_table({name: row.timing for name, row in rows.items()}, title, shown, notes)


def agreement_text(row: Row) -> str:
    """A candidate's parity in a few characters, and whether it is outside the tolerance of its precision."""
    if row.parity is None:
        return "not compared" if row.candidate.unjudged else ""
    return near_text(row.parity)


def near_text(parity: Parity) -> str:
    """How near one is, and what it fails in: its type, where that is all."""
    if parity.passed:
        return parity_text(parity)
    typed = all(" has type " in failure for failure in parity.failures)
    return parity_text(parity) + (", of another type" if typed else ", too far")


def evaluation_table(results: Mapping[str, Evaluated], title: str) -> Grid:
    """One row for each model: the figures of its task, closeness to the first model, size and latency; below, whether the first
    figure's difference from that of the first model says anything."""
    first = next(iter(results.values()))
    names = list(first.metrics)
    made = first.rewrites is not None
    close = {name: form for name, form in (("cosine", ".5f"), ("agreement", ".2%")) if getattr(first, name) is not None}
    rows, notes = [], []
    for name, result in results.items():
        rows.append(
            (
                name,
                *((str(result.rewrites),) if made else ()),
                *(figure_text(result.metrics[each]) for each in names),
                *(close_text(getattr(result, each), form) for each, form in close.items()),
                megabytes(result.size),
                f"{result.count / result.seconds:.1f}",
                f"{result.timing.p50:.2f}",
                f"{result.speed(first).value:.2f}x",
            )
        )
        if names and result is not first and not (made and result.metrics == first.metrics):
            notes.append(f"{name}: {difference_text(names[0], result, first)}")
    interval = (f"behind ±: half of the 95 % interval that {first.count:,} samples leave",) if names else ()
    if made and names and len(notes) < len(rows) - 1:
        notes.append(f"{'the others' if notes else 'all'}: the figures of {next(iter(results))}, to the last sample")
    headers = ("rewrites", "made") if made else ("model",)
    headers = (*headers, *names, *close, "size", "samples/s", "p50 ms", "speed-up")
    return Grid(title, headers, rows, (*interval, *notes, SAMPLES, SPEED_ALONE if made else SPEED))


def close_text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def figure_text(metric: Metric) -> str:
    """A figure of 0 to 1 in hundredths, as papers print it, with half of its interval."""
    value, half = metric.value * 100, (metric.high - metric.low) * 50
    return "" if value != value else f"{value:.2f}" + ("" if half != half else f" ± {half:.1f}")


def difference_text(name: str, scored: Scored, first: Scored) -> str:
    """How far a model's figure is from the first model's, and how likely that much is by chance."""
    points = (scored.metrics[name].value - first.metrics[name].value) * 100
    if scored.p_value is None:
        return f"{points:+.2f} points of {name}"
    says = "more than chance" if scored.p_value < 0.05 else "no more than chance"
    return f"{points:+.2f} points of {name}, {says} (McNemar's test of what is right: p = {scored.p_value:.2g})"


def tune_lines(outcome: Tuned) -> list[str]:
    """One line for each alternative: how fast it is beside the choice of its time; then the choices."""
    lines = []
    for trial in outcome.trials:
        result = trial.refused or ""
        if trial.speed is not None:
            result = f"{trial.p50:.2f} ms, {trial.speed.value:.3f} times as fast ({trial.speed.low:.3f} - {trial.speed.high:.3f})"
        lines.append(f"  {trial.thing}: {trial.option}: {result}")
    target = outcome.target
    chosen = ", ".join(f"{thing} {variant}" for thing, variant in target.chosen.items())
    return [*lines, f"chosen: {chosen}; opened with {target.session}"]


MAKERS = ("torch", "tensorflow", "transformers", "onnxruntime")


def made_with() -> str:
    """The versions here of what decides most; ``onnxfuse.json`` holds all."""
    return ", ".join(f"{name} {version}" for name, version in folders.versions().items() if name in MAKERS)


def fastest_text(fastest: Fastest) -> str:
    """The form that is the fastest on this machine, and by how much."""
    if fastest.speed is None:
        return f"{fastest.name}, the usual one: none is faster by its whole 95 % interval, of six rounds at least"
    return f"{fastest.name}, {fastest.speed.value:.2f} times as fast as what is opened elsewhere"


def run_table(outcome: Run, title: str) -> Grid:
    """The table at the end of ``run``: size, latency, speed-up, parity with the model's own framework, and what was fused."""
    folder = outcome.export.path.parent
    steps = [*outcome.steps.values(), *(each for each in (outcome.half, outcome.static) if each is not None)]
    bytes_of = {step.path: step.size for step in steps}
    bytes_of |= {} if outcome.elsewhere is None else {folder / folders.FUSED: outcome.elsewhere}
    sizes = {name: megabytes(bytes_of[path]) for name, path in outcome.paths.items()}
    agrees = {outcome.framework: "reference"} | {name: parity_text(result) for name, result in outcome.parity.items()}
    fused = fused_text(outcome.optimize.fused, outcome.optimize.expected)
    int8 = outcome.unquantized if outcome.quantize is None else int8_text(outcome.quantize)
    static = outcome.unstatic if outcome.static is None else int8_text(outcome.static)
    notes = (
        f"optimized: {fused}",
        f"int8: {int8}",
        *(() if outcome.quantize is None else (f"static int8: {static}",)),
        *outcome.others.refused,
        *outcome.dropped,
        f"fastest here, which onnxfuse.load opens: {fastest_text(outcome.fastest)}",
        f"made with {made_with()}",
        f"files and record: {folder}/{folders.RECORD}",
    )
    return timing_table(outcome.timings, title, {"size": sizes, f"against {outcome.framework}": agrees}, notes)
