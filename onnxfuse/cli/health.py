"""The verb that looks at the machine and the environment: doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxfuse.cli import options
from onnxfuse.cli.console import progress, show
from onnxfuse.cli.grid import Grid

if TYPE_CHECKING:
    from onnxfuse.pipeline.doctor import Health

STATES = {
    "tried": "tried",
    "oldest": "tried, as the oldest",
    "untried": "allowed, not tried",
    "outside": "outside of what is wanted",
}


@options.examples("onnxfuse doctor", "onnxfuse doctor --json")
def doctor(as_json: options.Json = False) -> None:
    """Say what this machine and environment can do: CPU, packages, what int8 and bf16 bring, what is missing for which verb."""
    from onnxfuse.pipeline.doctor import examine

    with progress() as tell:
        found = examine(tell)
    show(as_json, found.to_json(), *health_lines(found))


def health_lines(found: Health) -> list[str | Grid]:
    """What ``doctor`` found, for people."""
    has = {True: "yes", False: "no"}
    lines: list[str | Grid] = [
        f"CPU: {found.cpu}",
        f"  {found.cores} of {found.all_cores} cores for this process; VNNI: {has[found.vnni]}; AMX: {has[found.amx]}",
        f"  products of u8 x s8 are clipped: {'yes, quantize holds weights small (--reduce-range)' if found.clips else 'no'}",
        f"  our own kernels: {found.kernels or found.kernels_trouble}",
        "speed of products of bert-base's size, 128 tokens, as a multiple of float32 in ONNX Runtime:",
    ]
    for each in found.speeds:
        speed = each.why if each.speed is None else f"{each.speed.value:.2f} ({each.speed.low:.2f} - {each.speed.high:.2f})"
        lines.append(f"  {each.name} in {each.runtime}: {speed}")
    rows = [(each.name, each.version, each.wanted, STATES[each.state]) for each in found.packages]
    lines.append(Grid("packages", ("package", "version", "wanted", "state"), rows))
    lines += [f"known to fail: {each}" for each in found.known_bad] or ["known to fail: nothing of this"]
    lines += [
        f"missing for {each.purpose}: {', '.join(each.packages)}; run: pip install 'onnxfuse[{each.extra}]'"
        for each in found.missing
    ]
    return [*lines, f"telemetry: {found.telemetry}"]
