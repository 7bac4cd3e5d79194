"""``run --dry-run``: what would be done and written is said, what would stop the run stops it, and nothing is written."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from onnxfuse.io import hub
from tests.cli import documented
from tests.cli.test_cli import expect_one_line
from tests.conftest import small_model


def files_in(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_it_says_what_a_run_writes(cli, bert_export, tmp_path):
    shutil.copytree(bert_export / "export", tmp_path / "out")
    (tmp_path / "out" / "model_optimized.onnx").write_bytes(b"of others")
    before = files_in(tmp_path)
    source = bert_export / "checkpoint"
    expect_one_line(
        cli("run", source, "-o", "out", "--dry-run"), 2, "model_optimized.onnx is there, and onnxfuse did not make it"
    )
    result = cli("run", source, "-o", "out", "--dry-run", "--overwrite", "--exporter", "torchscript", "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    documented.require("dry_run", answer)
    seen = {key: answer[key] for key in ("framework", "model_type", "task", "exporter", "opset", "target", "require")}
    assert seen == {
        "framework": "PyTorch",
        "model_type": "bert",
        "task": "text-classification",
        "exporter": "torchscript",
        "opset": 17,
        "target": "cpu",
        "require": [],
    }
    assert {Path(each["path"]).name: each["there"] for each in answer["files"]} == {
        "model.onnx": "ours",
        "model_optimized.onnx": "others",
        "model_quantized.onnx": "nothing",
        **({"model_quantized_static.onnx": "nothing"} if importlib.util.find_spec("openvino") else {}),
        "config.json": "ours",
        "onnxfuse.json": "ours",
    }
    static = tmp_path / "static" / "model_quantized_static.onnx"
    static.parent.mkdir()
    static.write_bytes(b"of others")
    expect_one_line(cli("run", source, "-o", "static", "--dry-run"), 2, f"{static.name} is there, and onnxfuse did not make it")
    shutil.rmtree(static.parent)
    text = cli("run", source, "-o", "new", "--dry-run", "--require", "all").stdout
    assert "new/model_quantized.onnx: new" in text and "must have fused all" in text
    assert text.splitlines()[-1] == "nothing was done or written"
    if importlib.util.find_spec("openvino"):
        assert "model_quantized_static.onnx: new, if inputs to calibrate it with are there" in text
    static = cli("run", source, "-o", "new", "--dry-run", "--target", "openvino").stdout
    assert "model_quantized.onnx: new, if inputs to calibrate it with are there" in static
    assert "model_quantized_static.onnx" not in static
    assert files_in(tmp_path) == before


def test_a_hub_id_is_not_looked_up(cli, tmp_path, monkeypatch):
    expect_one_line(cli("run", "nobody/has-this-model", "--dry-run"), 4, "cannot load 'nobody/has-this-model'")
    monkeypatch.setattr(hub, "unreachable", lambda: "")
    result = cli("run", "nobody/has-this-model", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "family: as the checkpoint says, which is read when the run begins" in result.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["./nowhere"], 2, "./nowhere is not there"),
        (["bert-base-cased", "--random-weights", "--task", "poetry"], 2, "no task 'poetry'"),
        (["bert-base-cased", "--random-weights", "--target", "abacus"], 2, "no target named 'abacus'"),
        (["bert-base-cased", "--exporter", "magic"], 2, "no exporter named 'magic'"),
        (["empty"], 4, "empty"),
        (["short", "--length", "65"], 2, "--length 65: the model has positions for 64 tokens; give at most that"),
        (
            ["bert-base-cased", "--random-weights", "--require", "attentoin=2"],
            2,
            "--require attentoin=2: wanted all, or NAME=NUMBER",
        ),
        (["bert-base-cased", "--random-weights", "--require", "gelu"], 2, "--require gelu: wanted all, or NAME=NUMBER"),
    ],
)
def test_what_would_stop_the_run_stops_it(cli, tmp_path, arguments, code, words):
    (tmp_path / "empty").mkdir()
    small_model("bert", "AutoModelForSequenceClassification").save_pretrained(tmp_path / "short")
    expect_one_line(cli("run", *arguments, "--dry-run"), code, words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "short"]


def test_what_cannot_be_measured_is_not_exported(cli, tmp_path):
    small_model("bert", "AutoModelForSequenceClassification").save_pretrained(tmp_path / "short")
    expect_one_line(cli("run", "short", "-o", "out", "--length", "65"), 2, "the model has positions for 64 tokens")
    assert not (tmp_path / "out").exists()
