"""What is printed is text alone: a stranger's names reach no terminal as commands."""

import json

import pytest

from onnxfuse.cli import console
from onnxfuse.cli.grid import Grid

ODD = "a\x1b[31m\x9b2J\x07‮b"
SAFE = r"a\x1b[31m\x9b2J\x07\u202eb"


TABLE = Grid(ODD, (ODD, "number"), [(ODD, "1")], (ODD,))


def test_names_are_printed_as_they_are(capsys):
    """Rich would make pictures of them: a path could not be copied."""
    console.show(False, None, "logs:x:smile.txt [b]", Grid(":x:", (":smile:",), [(":x:",)], (":x:",)))
    console.err.print("127.0.0.1:x: no", markup=False, highlight=False, soft_wrap=True)
    shown = capsys.readouterr()
    assert "logs:x:smile.txt [b]" in shown.out and shown.out.count(":x:") == 4 and ":smile:" in shown.out
    assert shown.err == "127.0.0.1:x: no\n"


@pytest.mark.parametrize("shown", [ODD, TABLE], ids=["line", "table"])
def test_lines_and_tables(capsys, shown):
    console.show(False, None, shown)
    out = capsys.readouterr().out
    assert out.count(SAFE) == (1 if isinstance(shown, str) else 4)
    assert all(each.isprintable() for each in out.splitlines())


def test_a_line_stays_one(capsys):
    console.show(False, None, "a\nonnxfuse: done")
    console.show(False, None, Grid("a\nb", ("c",), [("d\ne",)], ("f\ng",)))
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["a\\nonnxfuse: done", "a\\nb"]
    assert "d\\ne" in out[5] and out[-1] == "f\\ng"


def test_json_holds_the_same_text(capsys):
    console.show(True, {"name": ODD})
    out = capsys.readouterr().out
    assert json.loads(out) == {"schema": 1, "name": ODD}
    assert all(each.isprintable() for each in out.splitlines())


def test_progress(capsys):
    console.begin(quiet=False)
    with console.progress() as tell:
        tell(ODD)
    assert capsys.readouterr().err == f"  {SAFE}\n"
