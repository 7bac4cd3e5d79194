"""Which model of a folder, in which runtime, is the fastest on a kind of machine: as ``run`` measured it and wrote it down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxfuse.errors import UsageError
from onnxfuse.io import folders
from onnxfuse.measure import machine
from onnxfuse.measure.benchmark import Ratio, Timing, ratio
from onnxfuse.runtime import Settings, runtimes

STEP, KEY = "benchmark", "fastest"
"""Where a folder's record holds it."""

FILES = {
    folders.OPTIMIZED: "optimized",
    folders.FUSED: "optimized",
    folders.FP16: "fp16",
    folders.BF16: "bf16",
    folders.QUANTIZED: "int8",
    folders.STATIC: "static int8",
}
"""The files that it may name, and their names for people: a record may come from a stranger. A runtime takes one of each name."""

RULE = (
    "Another form takes the place of the one that load opens elsewhere when its parity passed and the 95 % interval of its "
    "speed, as a multiple of that one's, lies above 1; of several, the largest median."
)


FEWEST = 6
"""Calls without which a median has no interval of 95 %: all of five lie on one side of it once in 16 times."""


@dataclass(frozen=True)
class Fastest:
    """A file of a folder and what it is opened with, on machines of a kind.

    Args:
        file: its name; ``fingerprint``: of the file that was measured.
        settings: what it is opened with; ``threads``: what it was measured with, where that is not what these say.
        machine: the kind of machine, see ``machine.kind``.
        speed: how many times as fast it is as what is opened elsewhere; None where it is that.
    """

    file: str
    fingerprint: str
    settings: Settings
    machine: tuple[str, ...]
    speed: Ratio | None = None
    threads: int = 0

    @property
    def name(self) -> str:
        return name_of(self.file, self.settings.runtime)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"name": self.name, "machine": list(self.machine), "rule": RULE}


def name_of(file: str, runtime: str) -> str:
    """A form's name for people."""
    return FILES[file] + ("" if runtime == Settings().runtime else f" in {runtimes()[runtime].label}")


def choose(timings: Mapping[str, Timing], usual: str, others: Sequence[str]) -> tuple[str, Ratio | None]:
    """The name that ``RULE`` takes, and its speed beside the usual one's; None for the usual one itself."""
    ratios = {name: ratio(timings[usual], timings[name]) for name in others if timings[name].samples >= FEWEST}
    faster = [name for name, each in ratios.items() if each.low > 1]
    best = max(faster, key=lambda name: ratios[name].value, default=usual)
    return best, ratios.get(best)


def found(folder: Path) -> tuple[Fastest | None, str]:
    """The fastest form of a folder's models here, or None; and what people should know of it: nothing where none was measured."""
    step = folders.recorded(folder).get(STEP)
    if not isinstance(step, dict) or KEY not in step:
        return None, ""
    known = _read(step[KEY])
    if known is None:
        return None, f"what {folders.RECORD} has as the fastest is not what this onnxfuse writes; onnxfuse run here finds it"
    path = folder / known.file
    if not path.is_file() or folders.fingerprint(path) != known.fingerprint:
        return None, f"{known.name} was measured as the fastest, and {known.file} is not that file any more"
    if known.machine != machine.kind():
        there = ", ".join(known.machine) or "none of the instructions that decide"
        return None, f"{known.name} was the fastest on another kind of machine ({there}); onnxfuse run here finds this one's"
    return known, f"{known.name} was measured as the fastest here"


def _read(content: Any) -> Fastest | None:
    """What a record holds; None where this onnxfuse could not have written it."""
    if not isinstance(content, dict) or content.get("file") not in list(FILES):
        return None
    try:
        settings = Settings(**content["settings"])
        kind = tuple(flag for flag in machine.DECISIVE if flag in content["machine"])
    except (KeyError, TypeError, UsageError):
        return None
    if settings.runtime not in runtimes(Path(content["file"]).suffix):
        return None
    found = Fastest(content["file"], content.get("fingerprint", ""), settings, kind)
    return found if content.get("name") == found.name else None
