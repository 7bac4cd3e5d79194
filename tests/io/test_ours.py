"""What a result may replace: what onnxfuse made, never a source of the run, other files with --overwrite alone."""

from __future__ import annotations

import json
import os

import onnx
import onnx_ir as ir
import pytest

from onnxfuse.errors import UsageError
from onnxfuse.io import folders
from onnxfuse.io.ours import Replaceable, is_ours
from tests.cli.test_cli import expect_one_line
from tests.conftest import fill, parse


def model(path, **metadata):
    proto = ir.to_proto(fill(parse("g (float[B,8] x, float[8,8] w) => (float[B,8] y) { y = MatMul(x, w) }"), w=(8, 8)))
    onnx.helper.set_model_props(proto, metadata)
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize(
    ("metadata", "ours"), [({"onnxfuse": "{}"}, True), ({"onnxfuse.int8": "{}"}, True), ({"onnxfused": "1"}, False), ({}, False)]
)
def test_a_model_is_ours_by_its_metadata(tmp_path, metadata, ours):
    model(tmp_path / "a.onnx", **metadata)
    (tmp_path / "a.onnx.data").touch()
    assert is_ours(tmp_path, "a.onnx") is is_ours(tmp_path, "a.onnx.data") is ours


def test_files_are_ours_by_the_record_of_their_folder(tmp_path):
    for name in ("model.onnx", "config.json", "vocab.txt", "model.tflite", "model.onnx.data"):
        (tmp_path / name).write_text("x")
    assert not is_ours(tmp_path, "model.onnx")
    folders.record(tmp_path, "export", {}, {"path": str(tmp_path / "model.onnx")}, files=["model.onnx", "config.json"])
    names = ("model.onnx", "model.onnx.data", "config.json", "vocab.txt", "model.tflite", "onnxfuse.json")
    assert [name for name in names if is_ours(tmp_path, name)] == [
        "model.onnx",
        "model.onnx.data",
        "config.json",
        "onnxfuse.json",
    ]
    folders.record(tmp_path, "export", {}, {"path": str(tmp_path / "model.onnx")})  # as earlier versions wrote it
    assert [name for name in names if is_ours(tmp_path, name)] == [name for name in names if name != "model.tflite"]


@pytest.mark.parametrize("text", ["[]", "not JSON", '{"mine": 1}', '{"a": {"b": 1}}'])
def test_another_file_of_the_records_name_is_not_ours(tmp_path, text):
    (tmp_path / "onnxfuse.json").write_text(text)
    assert not is_ours(tmp_path, "onnxfuse.json")


def test_what_is_no_model_is_not_ours(tmp_path):
    (tmp_path / "a.onnx").write_text("no model")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "link.onnx").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.onnx")
    assert not any(is_ours(tmp_path, path.name) for path in tmp_path.iterdir())


def test_a_source_is_never_replaced(tmp_path):
    source = model(tmp_path / "a.onnx", onnxfuse="{}")
    os.link(source, tmp_path / "again.onnx")
    (tmp_path / "link.onnx").symlink_to(source)
    for name in ("a.onnx", "again.onnx", "link.onnx"):
        with pytest.raises(UsageError, match=f"{name} is the input itself"):
            Replaceable((source,), overwrite=True).require(tmp_path / name)
    Replaceable((source,)).require(tmp_path / "b.onnx")


VERBS = {
    "optimize": ("optimize", "model.onnx", "--model-type", "bert", "--verify", "off"),
    "quantize": ("quantize", "model.onnx", "--calibration", "none"),
    "retype": ("quantize", "--retype", "model.onnx"),
    "tune": ("tune", "model.onnx"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_replace_neither_their_source_nor_what_others_made(cli, tmp_path, verb):
    source = model(tmp_path / "model.onnx")
    before = source.read_bytes()
    (tmp_path / "link.onnx").symlink_to("model.onnx")
    (tmp_path / "mine.onnx").write_text("mine")
    for name in ("model.onnx", "./model.onnx", "link.onnx"):
        for more in ((), ("--overwrite",)):
            expect_one_line(cli(*VERBS[verb], "-o", name, *more), 2, f"{name.removeprefix('./')} is the input itself")
    expect_one_line(cli(*VERBS[verb], "-o", "mine.onnx"), 2, "mine.onnx is there, and onnxfuse did not make it", "--overwrite")
    assert source.read_bytes() == before
    assert (tmp_path / "mine.onnx").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["link.onnx", "mine.onnx", "model.onnx"]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "tune"])
def test_another_file_of_the_records_name_is_told_of_before_the_work(cli, tmp_path, verb):
    model(tmp_path / "model.onnx")
    (tmp_path / "onnxfuse.json").write_text("mine")
    result = cli(*VERBS[verb])
    expect_one_line(result, 2, "onnxfuse.json is there, and onnxfuse did not make it")
    assert (tmp_path / "onnxfuse.json").read_text() == "mine"


def test_optimize_replaces_its_own_result_and_others_when_told(cli, tmp_path):
    model(tmp_path / "model.onnx")
    (tmp_path / "model_optimized.onnx").write_text("mine")
    assert cli(*VERBS["optimize"], "--overwrite").returncode == 0
    assert cli(*VERBS["optimize"]).returncode == 0
    record = json.loads((tmp_path / "onnxfuse.json").read_text())
    assert record["optimize"]["path"] == "model_optimized.onnx"


def test_weights_of_the_source_are_its_own_too(cli, tmp_path):
    """An output whose file of weights would have the name of the source's."""
    proto = ir.to_proto(fill(parse("g (float[B,64] x, float[64,64] w) => (float[B,64] y) { y = MatMul(x, w) }"), w=(64, 64)))
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, location="other.onnx", size_threshold=0)
    before = (tmp_path / "other.onnx").read_bytes()
    expect_one_line(cli(*VERBS["optimize"], "-o", "other.onnx", "--overwrite"), 2, "other.onnx is the input itself")
    assert (tmp_path / "other.onnx").read_bytes() == before


@pytest.mark.parametrize("verb", ["export", "run"])
def test_an_export_replaces_neither_its_checkpoint_nor_a_folder_of_others(cli, bert_export, tmp_path, verb):
    source = bert_export / "checkpoint"
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    for more in ((), ("--overwrite",)):
        expect_one_line(cli(verb, source, "-o", source, *more), 2, f"the output {source} is the input itself")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    expect_one_line(cli(verb, source, "-o", "mine"), 2, "config.json is there, and onnxfuse did not make it")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert os.listdir(tmp_path / "mine") == ["config.json"]


def test_a_file_of_that_name_that_tune_keeps_nothing_in_is_left_alone(cli, bert_export, tmp_path):
    (tmp_path / "t.json.partial").write_text('{"mine": 1}')
    expect_one_line(cli("tune", bert_export / "export", "-o", "t.json"), 2, "t.json.partial is there")
    assert (tmp_path / "t.json.partial").read_text() == '{"mine": 1}'
