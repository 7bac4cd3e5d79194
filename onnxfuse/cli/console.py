"""What is printed: one result on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from onnxfuse.cli.grid import Grid
from onnxfuse.errors import CONTROLS, printable
from onnxfuse.io import folders
from onnxfuse.io.progress import Lines, Progress, silent

if TYPE_CHECKING:
    from onnxfuse.config import BenchmarkConfig
    from onnxfuse.pipeline.step import Step

WIDTH = 160
"""Columns of a table that goes to a file or a pipe, where COLUMNS says nothing."""


SCHEMA = 1
"""The number of what --json prints (docs/json.md): it rises when a key goes or changes its meaning, not when one comes."""


class _State:
    """Of this run of the command line: whether progress is wanted, and whether JSON stands on stdout already."""

    quiet = False
    shown = False


def begin(*, quiet: bool) -> None:
    """A run begins: nothing has been shown yet."""
    _State.quiet, _State.shown = quiet, False


class _Printer(Console):
    """A console that obeys nothing in what it is given to print: lines, the cells of tables, titles."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def _columns() -> int | None:
    """How wide stdout is; None leaves it to rich, which asks the terminal, or COLUMNS."""
    return None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else WIDTH


out, err = _Printer(width=_columns(), emoji=False), _Printer(stderr=True, emoji=False)


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar on stderr while the block runs; where stderr is no terminal, a line for each phase; with --quiet nothing."""
    if _State.quiet:
        yield silent
        return
    if not err.is_terminal:
        yield Lines(lambda line: err.print(line, markup=False, highlight=False, soft_wrap=True))
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bar(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def tell(text: str, done: float | None = None, step: str = "") -> None:
            description = f"{text}, {step}" if step else text
            bar.update(task, description=printable(description), total=None if done is None else 1.0, completed=done or 0.0)

        yield tell


def show(as_json: bool, value: Mapping[str, Any], *lines: str | Grid) -> None:
    """Print a result: ``value`` as JSON, or ``lines`` of text and tables."""
    if as_json:
        text = json.dumps({"schema": SCHEMA, **folders.plain(value)}, indent=2, ensure_ascii=False)
        sys.stdout.write(CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
        sys.stdout.flush()
        _State.shown = True
        return
    for line in lines:
        if isinstance(line, str):
            out.print(line.replace("\n", "\\n"), markup=False, highlight=False, soft_wrap=True)
        else:
            line.print(out)


def error_json(kind: str, message: str, code: int) -> dict[str, Any]:
    """What went wrong, for JSON; the next step is what stands behind the message's last semicolon."""
    _, _, then = message.rpartition("; ")
    return {"code": code, "kind": kind, "message": message, "next": then if "; " in message else None}


def show_error(kind: str, message: str, code: int) -> None:
    """Print an error as the one JSON object of a run; one that follows a result stands in that already.

    Where stdout takes nothing, as on a full disk, the line on stderr has said it.
    """
    if not _State.shown:
        with suppress(OSError):
            show(True, {"error": error_json(kind, message, code)})


def step_lines(step: Step, *parts: str) -> list[str]:
    """What a verb made, in lines: the file, ``parts``, parity and seconds."""
    from onnxfuse.cli import tables

    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in step.seconds.items())
    return [
        f"{step.path}  {tables.megabytes(step.size)}",
        *(f"  {part}" for part in parts),
        f"  parity: {tables.parity_text(step.parity)}",
        f"  {times}",
    ]


def pace_text(plan: BenchmarkConfig) -> str:
    """How long is measured, for titles."""
    return f"{plan.seconds:g} seconds each" if plan.seconds else f"{plan.rounds} rounds"


def threads_text(threads: int) -> str:
    """How many threads a measurement runs on, for titles."""
    from onnxfuse.runtime.cores import cores

    return f"{threads or cores()} threads"
