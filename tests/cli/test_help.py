"""What the command line says of itself, and how much it says."""

import importlib.metadata
import json
import shlex

import pytest
import typer

from onnxfuse.cli.app import VERBS, app
from onnxfuse.pipeline import compare
from tests.cli import outcomes

COMMANDS = typer.main.get_command(app).commands


def test_without_a_command_it_is_wrong_usage_and_says_what_there_is(process):
    result = process()
    assert (result.returncode, result.stdout) == (2, "")
    asked = process("--help")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert result.stderr.strip() == asked.stdout.strip()
    for word in ("Usage: onnxfuse", "--version", "--quiet", "--debug", "--install-completion", *COMMANDS):
        assert word in asked.stdout


@pytest.mark.parametrize("verb", COMMANDS)
def test_short_help_is_help_and_has_two_examples_that_parse(cli, verb):
    short = cli(verb, "-h")
    assert short.returncode == 0
    assert short.stdout == cli(verb, "--help").stdout
    lines = [line.strip() for line in short.stdout.partition("Examples:")[2].splitlines() if line.strip()]
    assert len(lines) >= 2
    for line in lines:
        program, command, *arguments = shlex.split(line)
        assert (program, command) == ("onnxfuse", verb)
        assert COMMANDS[verb].make_context(verb, arguments).params


def test_version(cli):
    result = cli("--version")
    assert (result.returncode, result.stdout) == (0, f"onnxfuse {importlib.metadata.version('onnxfuse')}\n")


@pytest.mark.parametrize("option", ["--quiet", "-q"])
@pytest.mark.parametrize("first", [True, False])
def test_quiet_leaves_progress_out_and_results_in(cli, monkeypatch, tmp_path, option, first):
    def measured(*given, progress, **named):
        progress("measuring")
        return outcomes.comparison(outcomes.SHORT)

    monkeypatch.setattr(compare, "compare_models", measured)
    (tmp_path / "model.onnx").write_bytes(b"not read here")
    command = ["benchmark", "model.onnx", "--json"]
    assert cli(*command).stderr == "  measuring\n"
    result = cli(*([option, *command] if first else [*command, option]))
    assert (result.returncode, result.stderr) == (0, "")
    assert len(json.loads(result.stdout)["results"]) == 3
    assert cli("optimize", "nowhere", option).stderr.startswith("onnxfuse: nowhere is not there")


def test_completion_offers_commands_and_options(process, monkeypatch):
    monkeypatch.setenv("_ONNXFUSE_COMPLETE", "complete_bash")
    for words, at, wanted in (("onnxfuse opt", 1, ["optimize"]), ("onnxfuse optimize --req", 2, ["--require"])):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(at))
        assert process().stdout.split() == wanted


def test_verbs_are_the_commands():
    assert list(COMMANDS) == [verb.__name__ for verb in VERBS]
