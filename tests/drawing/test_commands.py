"""The commands that a report gives: whatever a record may hold is an option of its verb, or said to be none."""

from dataclasses import asdict, fields

import pytest
import typer

from onnxfuse.cli.app import app
from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig, Scheme, Thresholds
from onnxfuse.pipeline.commands import NO_OPTIONS, _options, commands

COMMANDS = typer.main.get_command(app).commands
CONFIGS = {"export": ExportConfig, "optimize": OptimizeConfig, "quantize": QuantizeConfig, "run": BenchmarkConfig}
ELSEWHERE = {"run": {"real", "seconds"}}
"""Of a plan that another verb makes, too: what ``run`` never records."""


def changed(config, name):
    """A value of a field that is not its default."""
    value = next(each for each in fields(config) if each.name == name).default
    return (
        {True: False, False: True}[value]
        if isinstance(value, bool)
        else ["a", "b"]
        if isinstance(value, tuple | frozenset)
        else 7
    )


@pytest.mark.parametrize("verb", CONFIGS)
def test_every_field_is_an_option_of_its_verb(verb):
    there = {option for each in COMMANDS[verb].params for option in (*each.opts, *each.secondary_opts)}
    nested = (Scheme, Thresholds) if verb == "quantize" else ()
    for config in (CONFIGS[verb], *nested):
        for name in (each.name for each in fields(config)):
            if name in (*NO_OPTIONS, "scheme", "thresholds") or name in ELSEWHERE.get(verb, ()):
                continue
            told = _options(config, {name: changed(config, name)})
            assert told and set(told[::2] if len(told) > 1 else told) <= there, (verb, name, told)


def test_a_run_is_one_line(tmp_path):
    export = asdict(ExportConfig("google-bert/bert-base-cased", tmp_path, opset=18)) | {"out": ".", "outputs": ["all"]}
    record = {
        "export": {"plan": export},
        "optimize": {"plan": {"target": "openvino"}},
        "benchmark": {"plan": asdict(BenchmarkConfig(1, 128, 2))},
    }
    (tmp_path / "mine").mkdir()
    options = "--opset 18 --outputs all --target openvino --batch 1 --length 128 --threads 2"
    assert commands(tmp_path / "mine", record) == [f"onnxfuse run google-bert/bert-base-cased -o mine {options}"]
    export["source"] = ".../checkpoint"
    assert commands(tmp_path / "mine", record)[0].startswith("onnxfuse run checkpoint -o mine")
