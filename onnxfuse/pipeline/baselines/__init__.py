"""What users have without onnxfuse: other tools' ways from the same checkpoint or export, as candidates for one stopwatch.

A file a tool: a file that defines a ``Baseline`` here is found (``onnxfuse.plugins``). Each runs as its tool's own defaults have
it. What it needs is made in a scratch folder, once for all baselines that share it.
"""

from __future__ import annotations

from onnxfuse import plugins
from onnxfuse.errors import UsageError
from onnxfuse.pipeline.baselines.api import Baseline, Context, Made, calibration_rows, checkpoint_of

__all__ = ["Baseline", "Context", "Made", "calibration_rows", "checkpoint_of", "choose", "known"]


def known() -> dict[str, Baseline]:
    """Every baseline by the name that ``--against`` takes: those of this package, and those that others bring."""
    return plugins.find(Baseline, "onnxfuse.pipeline.baselines")


def choose(names: str) -> list[Baseline]:
    """The baselines of a comma-separated list, each once, or all of them. Raises UsageError."""
    found = known()
    chosen = list(found) if names == "all" else list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    unknown = [name for name in chosen if name not in {*found, "all"}] or [name for name in chosen if name not in found]
    if unknown or not chosen:
        wrong = ", ".join(unknown) or repr(names)
        raise UsageError(f"--against {names}: no baseline named {wrong}; choose all alone, or some of {', '.join(found)}")
    return [found[name] for name in chosen]
