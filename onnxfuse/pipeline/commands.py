"""The commands that repeat what a folder's record holds."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig, Scheme, Thresholds
from onnxfuse.io import folders, places

COMMAS, SWITCHES = ("outputs",), {"random_weights": "--random-weights", "overwrite": "--overwrite"}
"""Options whose names stand with commas between, and those that say yes by being there."""

EITHER = {
    "unpad": ("--unpad", "--no-unpad"),
    "static": ("--static", "--dynamic"),
    "reduce_range": ("--reduce-range", "--no-reduce-range"),
    "embeddings": ("", "--keep-embeddings"),
}
"""Options that say yes or no by their names."""

NO_OPTIONS = ("source", "out", "seed", "dump")
"""Fields that no option sets, or that change nothing of the result."""


def commands(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """One line for all of it where ``run`` made it, else one for each step, to be run beside the folder.

    Raises:
        KeyError, TypeError: it is no record of ours.
    """
    name = folder.resolve().name

    def place(named: str) -> str:
        """A path from beside the folder, as the record names it from within: what is elsewhere by its name alone."""
        if named.startswith(f"{places.ELSEWHERE}/"):
            return named.removeprefix(f"{places.ELSEWHERE}/")
        return Path(os.path.normpath(Path(name) / named)).as_posix()

    export = record.get("export", {}).get("plan")
    if export is not None and "benchmark" in record and "optimize" in record:
        target = record["optimize"]["plan"]["target"]
        options = [*_options(ExportConfig, export), *(["--target", target] if target != "cpu" else [])]
        options += _options(BenchmarkConfig, record["benchmark"]["plan"])
        return [_line("run", _source(export["source"], place), "-o", place(export["out"]), *options)]
    return [*_steps(record, place)]


def _source(named: str, place: Callable[[str], str]) -> str:
    """A checkpoint: a hub id as it is."""
    return place(named) if named.startswith(".") else named


def _steps(record: Mapping[str, Any], place: Callable[[str], str]) -> Iterator[str]:
    kinds: dict[str, type] = {"export": ExportConfig, "optimize": OptimizeConfig, "quantize": QuantizeConfig}
    for name, config in kinds.items():
        if name not in record:
            continue
        plan = record[name]["plan"]
        usual = {"optimize": folders.OPTIMIZED, "quantize": folders.QUANTIZED}.get(name)
        out = [] if plan["out"] == usual else ["-o", place(plan["out"])]
        source = _source(plan["source"], place) if name == "export" else place(plan["source"])
        yield _line(name, source, *out, *_options(config, plan))


def _options(config: type, plan: Mapping[str, Any]) -> list[str]:
    """What differs from the defaults, as options."""
    found: list[str] = []
    for each in fields(config):
        if each.name in NO_OPTIONS or each.name not in plan:
            continue
        value = plan[each.name]
        if each.name in ("scheme", "thresholds"):
            found += _options(Scheme if each.name == "scheme" else Thresholds, value)
            continue
        default = (
            each.default if each.default is not MISSING else each.default_factory() if callable(each.default_factory) else None
        )
        if value == (sorted(default) if isinstance(default, frozenset | tuple) else default):
            continue
        found += _option(each.name, value)
    return found


def _option(name: str, value: Any) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if name in EITHER:
        chosen = EITHER[name][0 if value else 1]
        return [chosen] if chosen else []
    if name in SWITCHES:
        return [SWITCHES[name]] if value else []
    if name in COMMAS:
        return [option, ",".join(value)]
    if isinstance(value, list):
        return [part for each in value for part in (option, str(each))]
    return [option, str(value)]


def _line(verb: str, *parts: Any) -> str:
    return shlex.join(["onnxfuse", verb, *map(str, parts)])
