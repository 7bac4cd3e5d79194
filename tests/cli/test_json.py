"""--json: one object on stdout, as docs/json.md has it, of results and of errors alike."""

import json
import subprocess
import sys

import pytest
import typer

from onnxfuse import targets
from onnxfuse.cli import console
from onnxfuse.cli.app import app
from onnxfuse.errors import ParityError
from onnxfuse.pipeline import ablation, compare, doctor, evaluate, package, profiling, retype, tune, view
from onnxfuse.pipeline.retype import Retyped
from tests.cli import documented, outcomes

COMMANDS = typer.main.get_command(app).commands

MADE = {
    "benchmark": (compare, "compare_models", outcomes.comparison(outcomes.SHORT), ()),
    "evaluate": (evaluate, "evaluate", outcomes.evaluated(outcomes.SHORT), ("--data", "d.csv")),
    "ablate": (ablation, "ablate", ablation.Ablation(outcomes.ablated(), "batch 1"), ()),
    "profile": (profiling, "profile", outcomes.profiled(outcomes.SHORT), ("--against", "model.onnx")),
    "tune": (tune, "tune", tune.Tuned(targets.find("cpu"), ()), ()),
    "doctor": (doctor, "examine", outcomes.health(), ()),
    "view": (view, "serve", "http://localhost:8080", ()),
}


def test_packaged_is_as_the_page_says(cli, monkeypatch, tmp_path):
    whole = {"fp32": tmp_path / "model.onnx"}
    made = package.Packaged(tmp_path, "openvino", whole, {"fp32": 1}, ("model.onnx",), {"fp32": "x"}, {"fp32": outcomes.parity()})
    monkeypatch.setattr(package, "package", lambda *given: made)
    (tmp_path / "model.onnx").write_bytes(b"not read here")
    documented.require("package", json.loads(cli("package", "--for", "openvino", "--json").stdout))


@pytest.mark.parametrize("verb", MADE)
def test_results_are_as_the_page_says(cli, monkeypatch, tmp_path, verb):
    module, name, outcome, options = MADE[verb]
    monkeypatch.setattr(module, name, lambda *given, **named: outcome)
    monkeypatch.setattr(view, "wait", lambda: None)
    (tmp_path / "model.onnx").write_bytes(b"not read here")
    result = cli(verb, *([] if verb == "doctor" else ["model.onnx"]), *options, "--json")
    assert result.returncode == 0, result.stderr
    documented.require(verb, json.loads(result.stdout))


def test_retyped_is_as_the_page_says(cli, monkeypatch, tmp_path):
    made = Retyped(tmp_path / "a.onnx", 1, {"load": 0.1}, outcomes.parity(), None, 2, 3, 4, outcomes.ablated()[0].speed)
    monkeypatch.setattr(retype, "retype", lambda *given, **named: made)
    (tmp_path / "model.onnx").write_bytes(b"not read here")
    documented.require("retype", json.loads(cli("quantize", "--retype", "model.onnx", "--json").stdout))


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_has_json_and_its_section(verb):
    assert "--json" in {option for each in COMMANDS[verb].params for option in each.opts}
    assert documented.listed(verb)


def test_the_page_is_held_to_both_sides():
    whole = {"schema": 1, "path": "a", "address": "b"}
    documented.require("view", whole)
    with pytest.raises(AssertionError, match=r"not on the page: .'port'"):
        documented.require("view", whole | {"port": 1})
    with pytest.raises(AssertionError, match=r"not in the answer: .'address'"):
        documented.require("view", {"schema": 1, "path": "a"})


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "then"),
    [
        (["optimize", "nowhere"], 2, "UsageError", "give an .onnx file, or a folder that holds model.onnx"),
        (["optimize", "--no-such-option"], 2, "UsageError", "see: onnxfuse optimize --help"),
        (["optimize", "text.onnx"], 3, "ModelError", "export it again or copy it again"),
        (["export", ""], 2, "UsageError", "give it a value, or leave it out"),
    ],
)
def test_errors(cli, tmp_path, arguments, code, kind, then):
    (tmp_path / "text.onnx").write_text("not a model\n" * 100)
    result = cli(*arguments, "--json")
    answer = json.loads(result.stdout)
    documented.require("error", answer)
    assert result.returncode == code
    assert answer["error"]["code"] == code
    assert answer["error"]["kind"] == kind
    assert result.stderr.splitlines()[-1] == f"onnxfuse: {answer['error']['message']}"
    assert answer["error"]["next"] == then
    assert not cli(*arguments).stdout


def test_a_fault_of_ours_is_an_error_too(cli, monkeypatch, tmp_path, capsys):
    def fault(*given, **named):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(compare, "compare_models", fault)
    (tmp_path / "model.onnx").write_bytes(b"not read here")
    with pytest.raises(ZeroDivisionError):
        cli("benchmark", "model.onnx", "--json")
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "ZeroDivisionError"


def test_ctrl_c_is_an_error_too(cli, monkeypatch, tmp_path):
    def stop(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "compare_models", stop)
    (tmp_path / "model.onnx").write_bytes(b"not read here")
    result = cli("benchmark", "model.onnx", "--json")
    assert (result.returncode, json.loads(result.stdout)["error"]["code"]) == (130, 130)


def test_one_object_a_run(capsys):
    console.begin(quiet=False)
    console.show(True, {"a": 1})
    console.show_error("ParityError", "no; then", ParityError.exit_code)
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "a": 1}
    console.begin(quiet=False)
    console.show_error("ParityError", "no: a; b; then", ParityError.exit_code)
    assert json.loads(capsys.readouterr().out)["error"]["next"] == "then"


def test_an_error_where_stdout_takes_nothing_is_still_one_line(cli):
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "onnxfuse", "check", "--json", "nowhere.onnx", "b.onnx"], stdout=full, stderr=subprocess.PIPE
        )
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1 and b"nowhere.onnx is not there" in run.stderr
