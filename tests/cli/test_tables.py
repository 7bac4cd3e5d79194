"""Each verb's tables are read at 80, 100 and 160 columns: every name and number is whole, and no table is wider."""

import io
import re

import pytest
from rich.console import Console

from onnxfuse.cli import console, profiles, tables
from onnxfuse.cli.app import VERBS
from onnxfuse.cli.grid import Grid
from onnxfuse.cli.health import health_lines
from tests.cli import outcomes

LONG, SHORT = outcomes.NAMES, outcomes.SHORT
WIDTHS = [60, 80, 100, 160]

TABLES = {
    "benchmark": lambda: tables.comparison_table(outcomes.comparison(LONG), f"{LONG[0]}, batch 128, 2 threads"),
    "benchmark, short names": lambda: tables.comparison_table(outcomes.comparison(SHORT), "batch 1, length 128"),
    "evaluate": lambda: tables.evaluation_table(outcomes.evaluated(LONG).rows, f"{outcomes.FOLDER}/test.csv, batches of 8"),
    "evaluate, short names": lambda: tables.evaluation_table(outcomes.evaluated(SHORT).rows, "test.csv, batches of 8"),
    "ablate": lambda: tables.ablation_table(outcomes.ablated(), f"{LONG[0]} for target cpu, batch 1, length 128"),
    "profile": lambda: profiles.profile_tables(outcomes.profiled(SHORT), "batch 128, length 512, 2 threads, 20 rounds")[0],
    "profile, by layer": lambda: profiles.profile_tables(outcomes.profiled(LONG), "batch 128")[1],
    "quantize": lambda: tables.gate_table(outcomes.trade_off(), 8),
    "doctor": lambda: next(each for each in health_lines(outcomes.health()) if isinstance(each, Grid)),
    "run": lambda: tables.run_table(outcomes.ran(outcomes.FOLDER), f"{outcomes.FOLDER}, batch 1, length 128"),
}

LINES = {"export", "optimize", "explain", "check", "tune", "view", "diff", "report", "map", "package", "push"}
"""Verbs whose results are lines, which no width breaks."""


def test_every_verb_is_read():
    with_tables = {name.partition(",")[0] for name in TABLES}
    assert with_tables | LINES == {verb.__name__ for verb in VERBS}
    assert not with_tables & LINES
    makers = {name for name, each in vars(tables).items() if getattr(each, "__annotations__", {}).get("return") == "Grid"}
    read = {name for make in TABLES.values() for name in make.__code__.co_names}
    assert makers - read == {"timing_table"}  # which two of the others are


@pytest.mark.parametrize("width", WIDTHS)
def test_lines_are_whole(capsys, monkeypatch, width):
    monkeypatch.setattr(console, "out", console._Printer(width=width))
    lines = [f"{name}  1112345678.9 MB" for name in LONG] + tables.parity_lines(outcomes.parity())
    console.show(False, {}, *lines)
    assert capsys.readouterr().out.splitlines() == lines


def shown(table: Grid, width: int, **options) -> str:
    printer = Console(file=io.StringIO(), width=width, _environ={}, **options)
    table.print(printer)
    return printer.file.getvalue()


def framed(text: str) -> list[list[str]]:
    """The cells of the lines that belong to a table."""
    return [[cell.strip() for cell in re.split("[┃│|]", line)[1:-1]] for line in text.splitlines() if line[0] in "┃│|"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("verb", TABLES)
def test_every_name_and_number_is_whole(verb, width):
    table = TABLES[verb]()
    text = shown(table, width)
    for line in (table.title, *table.notes, *(row[0] for row in table.rows)):
        assert line in text
    cells = framed(text)
    for column, header in enumerate(table.headers[1:], 1):
        for row in table.rows:
            assert any(row[column] in line for line in cells), (header, row[column])
        assert sum(header in line for line in cells) >= 1
    assert "…" not in text
    assert max(len(line) for line in text.splitlines() if line[0] in "┏┃┡│└+|") <= width


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("verb", TABLES)
def test_a_number_stands_under_its_header_in_the_row_of_its_name(verb, width):
    table = TABLES[verb]()
    cells, found = framed(shown(table, width)), {}
    headers: list[str] = []
    for line in cells:
        if line[0] == table.headers[0]:
            headers = line
        else:
            for header, cell in zip(headers[1:], line[1:], strict=True):
                found.setdefault((line[0], header), []).append(cell)
    legend = {row[0]: str(number) for number, row in enumerate(table.rows, 1)}
    for row in table.rows:
        for header, cell in zip(table.headers[1:], row[1:], strict=True):
            assert cell in (found.get((row[0], header)) or found[legend[row[0]], header])


def test_what_fits_is_one_table_with_its_names():
    wide = shown(TABLES["benchmark, short names"](), 200)
    assert wide.count("model ") == 1
    assert [line[0] for line in framed(wide)] == ["model", *SHORT]
    narrow = shown(TABLES["benchmark, short names"](), 120)
    assert [line[0] for line in framed(narrow)] == ["model", *SHORT] * 2


def test_long_names_stand_above_with_numbers():
    text = shown(TABLES["benchmark"](), 80)
    assert [line[0] for line in framed(text)[:4]] == ["model", "1", "2", "3"]
    assert text.splitlines()[2] == f"  2  {LONG[1]}"
    short = shown(TABLES["benchmark, short names"](), 80)  # beside them there is room, for one or two columns
    assert short.splitlines()[1] == f"  1  {SHORT[0]}"
    assert short.count("┏") == 2


def test_a_column_wider_than_the_terminal_is_left_to_it():
    table = Grid("t", ("name", "what"), [("a", "x" * 50), ("b", "")])
    assert "x" * 50 in shown(table, 30)


@pytest.mark.parametrize("verb", TABLES)
def test_a_dumb_terminal_gets_plain_characters(verb, monkeypatch):
    printer = Console(file=io.StringIO(), _environ={"TERM": "dumb"}, force_terminal=True)
    assert printer.width == 80
    TABLES[verb]().print(printer)
    text = printer.file.getvalue()
    assert not set(text) & set("┏┃┡│└━─\x1b…")
    assert all(row[0] in text for row in TABLES[verb]().rows)


@pytest.mark.parametrize("verb", TABLES)
def test_a_speed_up_says_what_it_is(verb):
    table = TABLES[verb]()
    assert ("speed-up" in table.headers) == any(note.startswith("speed-up: ") for note in table.notes)


def test_doctor_says_all_that_it_found():
    text = "\n".join(each for each in health_lines(outcomes.health()) if isinstance(each, str))
    for words in (
        "2 of 64 cores",
        "VNNI: no; AMX: no",
        "clipped: yes",
        "int8 in ort: 4.90 (3.20 - 8.30)",
        "bf16 in openvino-bf16: this CPU has no bfloat16",
        "known to fail: onnxruntime 1.31",
        "tensorflow, keras-hub; run: pip install 'onnxfuse[tf]'",
        "telemetry: none",
    ):
        assert words in text
