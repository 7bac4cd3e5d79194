"""What is printed is text alone: a stranger's names reach no terminal as commands."""

import json

import pytest
from rich.table import Table

from onnxfuse.cli import console

ODD = "a\x1b[31m\x9b2J\x07‮b"
SAFE = r"a\x1b[31m\x9b2J\x07\u202eb"


def table():
    shown = Table(title=ODD)
    shown.add_column(ODD, no_wrap=True)
    shown.add_row(ODD)
    shown.caption = ODD
    return shown


@pytest.mark.parametrize("shown", [ODD, table()], ids=["line", "table"])
def test_lines_and_tables(capsys, shown):
    console.show(False, None, shown)
    out = capsys.readouterr().out
    assert out.count(SAFE) == (1 if isinstance(shown, str) else 4)
    assert all(each.isprintable() for each in out.splitlines())


def test_a_line_stays_one(capsys):
    console.show(False, None, "a\nonnxfuse: done")
    assert capsys.readouterr().out == "a\\nonnxfuse: done\n"


def test_json_holds_the_same_text(capsys):
    console.show(True, {"name": ODD})
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": ODD}
    assert all(each.isprintable() for each in out.splitlines())


def test_progress(capsys):
    with console.progress() as tell:
        tell(ODD)
    assert capsys.readouterr().err == f"  {SAFE}\n"
