"""docs/verbs/ has a page for each verb, which has each of its options, and nothing that the verb has not."""

import re

import pytest
import typer

from onnxfuse.cli.app import VERBS, app
from tests.pages import PAGES, ROOT, blocks

FOLDER = ROOT / "docs" / "verbs"
COMMANDS = typer.main.get_command(app).commands


def test_there_is_a_page_for_each_verb_and_commands_md_links_to_it():
    names = {verb.__name__ for verb in VERBS}
    assert {path.stem for path in FOLDER.iterdir()} == names
    assert set(re.findall(r"\(verbs/(\w+)\.md\)", (ROOT / "docs" / "commands.md").read_text())) == names


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_has_its_line(verb):
    text = (FOLDER / f"{verb}.md").read_text()
    rows = [row for row in re.findall(r"^\| (`-.*?) \| (.*) \|$", text, re.MULTILINE) if row[1].strip()]
    listed = [option for names, _ in rows for option in re.findall(r"`(--?[\w-]+)`", names)]
    taken = [name for each in COMMANDS[verb].params if each.opts[0][0] == "-" for name in (*each.opts, *each.secondary_opts)]
    assert sorted(listed) == sorted(taken)


@pytest.mark.parametrize("verb", COMMANDS)
def test_its_parts(verb):
    text = (FOLDER / f"{verb}.md").read_text()
    assert text.startswith(f"# onnxfuse {verb}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Options", "How it ends", "From Python", "Next"]
    assert len(text.splitlines()) <= 80
    commands = [command for block in blocks(f"docs/verbs/{verb}.md") for command, _ in block.commands]
    assert [command for command in commands if command.startswith(f"onnxfuse {verb}")]


@pytest.mark.parametrize("page", PAGES)
def test_what_the_text_names_is_there(page):
    """Of commands within a line, which nobody runs."""
    for verb, rest in re.findall(r"`onnxfuse ([a-z]+)( [^`]*)?`", (ROOT / page).read_text()):
        named = set(re.findall(r"(?<!\S)--[a-z-]+", rest))
        there = {option for each in COMMANDS[verb].params for option in (*each.opts, *each.secondary_opts)}
        assert named <= there | {"--help", "--debug", "--quiet"}, f"{page}: onnxfuse {verb}{rest}"
