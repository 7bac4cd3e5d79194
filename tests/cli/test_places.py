"""No file that a verb writes says where on this machine anything lay."""

import json
import shutil
import tempfile

import numpy as np
import pytest
import typer

from onnxfuse import layouts
from onnxfuse.cli import plots
from onnxfuse.cli.app import app
from onnxfuse.io import folders
from onnxfuse.pipeline import ablation, compare, tune
from tests.cli import outcomes
from tests.conftest import save_tokenizer
from tests.marks import OPENVINO

COMMANDS = typer.main.get_command(app).commands

ODD = "Sonderbar"
"""Part of the name of every folder that a verb is given."""

SHORT = ("--length", "8", "--rounds", "1")

VERBS = {
    "run": lambda at: [
        ("run", at / "checkpoint", "-o", at / "run", "--exporter", "torchscript", *SHORT, "--junit", at / "run.xml")
    ],
    "export": lambda at: [("export", at / "checkpoint", "-o", at / "export", "--exporter", "torchscript")],
    "optimize": lambda at: [
        ("optimize", at / "run", "-o", at / "other", "--dump", at / "dump", "--only", "gelu", "--junit", at / "o.xml"),
        ("optimize", at / "run", "-o", at / "failed", "--require", "gelu=7", "--junit", at / "failed.xml"),
    ],
    "quantize": lambda at: [("quantize", at / "run", "-o", at / "other", "--min-cosine", "0.5", "--plot", at / "q.svg")],
    "tune": lambda at: [("tune", at / "run", "-o", at / "tuned.json", *SHORT)],
    "check": lambda at: [("check", at / "run", at / "run" / folders.QUANTIZED, "--kind", "exact", "--junit", at / "c.xml")],
    "benchmark": lambda at: [("benchmark", at / "run", "--plot", at / "b.svg")],
    "ablate": lambda at: [("ablate", at / "run", "--plot", at / "a.svg")],
    "diff": lambda at: [("diff", at / "run", "-o", at / "d.html")],
    "report": lambda at: [("report", at / "run", "-o", at / "r.html", "--data", at / "data.npz")],
    "profile": lambda at: [("profile", at / "run", "--against", at / "run" / folders.MODEL, "--plot", at / "p.svg", *SHORT)],
    "map": lambda at: [
        ("export", at / "checkpoint", "-o", at / "encoder", "--task", "sentence-similarity", "--exporter", "torchscript"),
        ("map", at / "encoder", "--input", at / "rows.txt", "-o", at / "mapped"),
    ],
    "package": lambda at: [
        ("package", at / ("encoder" if name == "ray-serve" else "run"), "--for", name, "-o", at / "packages" / name)
        for name in layouts.layouts()
    ],
}
READERS = {"explain", "evaluate", "doctor", "view", "push"}
"""They write no file; what push sends is made by package, and its card of names that package chose."""


@pytest.fixture
def odd(bert_export, tmp_path, monkeypatch):
    """A checkpoint in an oddly named folder, which its own files name too; temporary files lie in another such folder."""
    at, scratch = tmp_path / f"{ODD} é" / "deep", tmp_path / f"{ODD}-scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    shutil.copytree(bert_export / "checkpoint", at / "checkpoint")
    save_tokenizer(at / "checkpoint", 500, ("input_ids", "attention_mask", "token_type_ids"))
    for name in ("config.json", "tokenizer_config.json"):
        path = at / "checkpoint" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"_name_or_path": str(at), "name_or_path": str(at)}))
    ids = np.arange(5, 45).reshape(4, 10)
    (at / "rows.txt").write_text("a first text\nand another\n")
    np.savez(at / "data.npz", input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids))
    return at


def test_every_verb_is_tried():
    assert set(COMMANDS) == set(VERBS) | READERS


@OPENVINO
def test_what_verbs_write_holds_no_path_of_this_machine(cli, odd, tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "alternatives", lambda base, plan, cores: [("gelu", ("Gelu", "BiasGelu"))])
    models = [str(odd / "run" / name) for name in (folders.MODEL, folders.OPTIMIZED, folders.QUANTIZED)]
    monkeypatch.setattr(compare, "compare_models", lambda *given, **named: outcomes.comparison(models))
    monkeypatch.setattr(ablation, "ablate", lambda *given: ablation.Ablation(outcomes.ablated(), "batch 1"))
    codes = {}
    for verb, commands in VERBS.items():
        for command in commands(odd):
            codes.setdefault(verb, []).append(cli(*command, at=odd.parent).returncode)
    assert codes == {verb: [0] for verb in VERBS} | {
        "optimize": [0, 6],
        "check": [5],
        "map": [0, 0],
        "package": [0] * len(layouts.layouts()),
    }
    written = [path for path in odd.rglob("*") if path.is_file() and odd / "checkpoint" not in path.parents]
    names = {path.relative_to(odd).as_posix() for path in written}
    pages = {"d.html", "r.html", "q.svg", "b.svg", "a.svg", "p.svg"}
    assert pages | {"run/onnxfuse.json", "failed.xml", "c.xml", "tuned.json"} <= names
    assert any(name.startswith("dump/") for name in names)
    marks = [mark.encode() for mark in (ODD, tmp_path.name, json.dumps(str(odd))[1:-1])]
    assert not [path for path in written if any(mark in path.read_bytes() for mark in marks)]


def test_plots_tell_their_rows_apart():
    same = ["/x/a/model.onnx", "/x/b/model.onnx", "torch", "c/model.onnx"]
    assert plots.tails(same) == ["a/model.onnx", "b/model.onnx", "torch", "c/model.onnx"]
    assert plots.tails(["/x/a.onnx", "/x/b.onnx"]) == ["a.onnx", "b.onnx"]
    assert plots.tails([]) == []
