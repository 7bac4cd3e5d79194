"""A table whose names and numbers are whole in any width: what does not fit beside the names goes below, with the names again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import ASCII, HEAVY_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from onnxfuse.errors import printable

FRAME = 3
"""Columns of the screen that a column of a table takes beside its text: a line, and a space on both sides."""


@dataclass(frozen=True)
class Grid:
    """Rows of text under headers; the first column names the rows.

    Args:
        title: above it; ``notes``: below it, a line each.
        headers: one for each column.
        rows: a text for each column; "" leaves a cell empty.
    """

    title: str
    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def print(self, console: Console) -> None:
        """Print it in the console's width: as one table, or as several below each other, all with the names.

        Names that leave little room beside them stand in a list above, and their numbers there in the tables. A column that is
        wider than the console is printed as it is: the terminal breaks its lines, and nothing is left out.
        """
        headers, *rows = [tuple(_one_line(cell) for cell in row) for row in (self.headers, *self.rows)]
        widths = [max(map(cell_len, column)) for column in zip(headers, *rows, strict=True)]
        numbers = [str(number) for number in range(1, len(rows) + 1)]
        narrow = [max(map(cell_len, (headers[0], *numbers))), *widths[1:]]
        room = console.width - 1  # the line at the right end
        groups, fewer = list(_groups(widths, room)), list(_groups(narrow, room))
        _print_lines(console, (self.title,))
        if len(groups) > 1 and (len(groups) > len(fewer) + 1 or _widest(widths, groups) > room >= _widest(narrow, fewer)):
            _print_lines(console, [f"  {number}  {row[0]}" for number, row in zip(numbers, rows, strict=True)])
            rows = [(number, *row[1:]) for number, row in zip(numbers, rows, strict=True)]
            widths, groups = narrow, fewer
        for columns in groups:
            table = Table(width=_widest(widths, [columns]) + 1, box=ASCII if console.is_dumb_terminal else HEAVY_HEAD)
            for at in columns:
                table.add_column(headers[at], justify="right" if at else "left", no_wrap=True, min_width=widths[at])
            for row in rows:
                table.add_row(*(row[at] for at in columns))
            console.print(table, crop=False)
        _print_lines(console, self.notes)


def _widest(widths: Sequence[int], groups: Sequence[Sequence[int]]) -> int:
    """The columns of the screen that the widest of several tables takes, without the line at its right end."""
    return max(sum(widths[at] + FRAME for at in columns) for columns in groups)


def _groups(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """The columns of each table that fits into ``room``: the first, and as many others as there is room for, one at least."""
    group, used = [0], widths[0] + FRAME
    for at in range(1, len(widths)):
        if len(group) > 1 and used + widths[at] + FRAME > room:
            yield group
            group, used = [0], widths[0] + FRAME
        group.append(at)
        used += widths[at] + FRAME
    yield group


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(_one_line(line), markup=False, highlight=False, soft_wrap=True)


def _one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n")
