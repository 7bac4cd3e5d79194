"""The table of docs/commands.md names what the commands take."""

import re
from pathlib import Path

import pytest
import typer

from onnxfuse.cli.app import VERBS, app

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `onnxfuse ")]
ALWAYS = {"--json", "--output", "--dynamic"}
"""Said once for all commands, or the default of a switch."""

commands = typer.main.get_command(app).commands


@pytest.mark.parametrize("verb", [verb.__name__ for verb in VERBS])
def test_every_option_of_a_command_stands_in_its_row(verb):
    row = " ".join(line for line in ROWS if line.startswith(f"| `onnxfuse {verb} "))
    row += " ".join(line for line in ROWS if verb == "run" and line.startswith("| `onnxfuse export "))
    options = {option for each in commands[verb].params for option in each.opts if option.startswith("--")} - ALWAYS
    assert options <= set(re.findall(r"--[a-z-]+", row)), row
    named = set(re.findall(r"--[a-z-]+", row)) if verb != "run" else set()
    every = {option for each in commands[verb].params for option in (*each.opts, *each.secondary_opts)}
    assert named <= every
