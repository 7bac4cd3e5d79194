"""What a result may replace: what onnxfuse made, never a source of the run, other files with --overwrite alone."""

from __future__ import annotations

import json
import os

import onnx
import onnx_ir as ir
import pytest

from onnxfuse.errors import UsageError
from onnxfuse.io import atomic, folders
from onnxfuse.io.ours import Replaceable, inputs_of, is_ours, stale
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


# What is in a folder, and what an export leaves there ------------------------------------------------------------------


def written(home, step, text, *names, source="one"):
    """What a step writes: files with this text, and its record; the last is its model."""
    with atomic.replacing(home / names[-1]) as staged:
        for name in names:
            (staged.parent / name).parent.mkdir(exist_ok=True)
            (staged.parent / name).write_text(f"{text} of {name}")
        if step.startswith("export"):
            steps, gone = stale(step, staged, names[:-1], source)
            atomic.merge(staged.with_name(folders.RECORD), steps)
            atomic.drop(staged, gone)
        folders.record(home, step, {"source": source}, {"path": str(home / names[-1])}, staged=staged)


EXPORTED = ("config.json", "vocab.txt", "model.onnx")


@pytest.fixture
def results(tmp_path):
    """A folder with an export, and what was made from it."""
    written(tmp_path, "export", "old", *EXPORTED)
    written(tmp_path, "optimize", "old", "model_optimized.onnx", source=str(tmp_path / "model.onnx"))
    written(tmp_path, "quantize", "old", "model_quantized.onnx", source=str(tmp_path / "model_optimized.onnx"))
    return tmp_path


def names(home):
    return sorted(path.name for path in home.iterdir())


def test_a_file_that_somebody_changed_is_no_longer_ours(results):
    assert is_ours(results, "model_optimized.onnx") and is_ours(results, "config.json")
    (results / "config.json").write_text("precious notes")
    (results / "model_optimized.onnx").write_text("old of model_optimized.onnY")
    assert not is_ours(results, "model_optimized.onnx") and not is_ours(results, "config.json")
    assert is_ours(results, "vocab.txt")


def test_fingerprints_see_both_ends(tmp_path):
    path, found = tmp_path / "a", set()
    for content in (b"", b"a", b"b", *(bytes([first]) + bytes(3 << 20) + bytes([last]) for first in (0, 1) for last in (0, 1))):
        path.write_bytes(content)
        found.add(folders.fingerprint(path))
    assert len(found) == 7


def test_an_export_takes_the_results_of_the_model_before_it_away(results):
    (results / "notes.txt").write_text("mine")
    written(results, "export", "new", "config.json", "model.onnx")  # of a checkpoint that has no vocabulary
    assert names(results) == ["config.json", "model.onnx", "notes.txt", "onnxfuse.json"]
    assert list(folders.recorded(results)) == ["export"]


def test_an_export_of_the_same_keeps_its_results(results):
    written(results, "export", "old", *EXPORTED)
    assert len(names(results)) == 6 and list(folders.recorded(results)) == ["export", "optimize", "quantize"]


def test_results_that_are_not_of_this_folder_or_were_changed_stay(results):
    written(results, "tune", "old", "elsewhere.onnx", source="other/model.onnx")
    (results / "model_optimized.onnx").write_text("mine")
    written(results, "export", "new", *EXPORTED)
    assert names(results) == ["config.json", "elsewhere.onnx", "model.onnx", "model_optimized.onnx", "onnxfuse.json", "vocab.txt"]


def test_exports_in_other_formats_stay_when_they_are_of_the_same_checkpoint(results):
    written(results, "export tflite fp32", "old", "config.json", "vocab.txt", "model.tflite")
    assert len(names(results)) == 7
    written(results, "export tflite fp16", "old", "config.json", "vocab.txt", "model_fp16.tflite", source="two")
    assert names(results) == ["config.json", "model_fp16.tflite", "onnxfuse.json", "vocab.txt"]


def test_what_is_read_beside_a_model_is_a_source(results):
    def beside():
        return {path.relative_to(results).as_posix() for path in inputs_of(results / "model.onnx", []) if path.exists()}

    assert beside() == {"model.onnx", "config.json", "vocab.txt"}
    written(results, "export", "new", *EXPORTED[:2], "1_Pooling/config.json", EXPORTED[2])
    assert beside() == {"model.onnx", "config.json", "vocab.txt", "1_Pooling/config.json"}
    record = json.loads((results / "onnxfuse.json").read_text())
    record["export"] = {"plan": {}, "files": ["2_Dense/config.json", "model.onnx", "notes.txt"]}  # as earlier versions wrote it
    (results / "onnxfuse.json").write_text(json.dumps(record))
    for name in ("tokenizer.json", "notes.txt", "other.txt"):
        (results / name).write_text("x")
    assert beside() == {"model.onnx", "config.json", "vocab.txt", "tokenizer.json", "notes.txt"}


def test_tune_replaces_a_target_alone(cli, results):
    model(results / "model.onnx")
    for name in ("config.json", "vocab.txt"):
        for more in ((), ("--overwrite",)):
            expect_one_line(cli("tune", results / "model.onnx", "-o", results / name, *more), 2, f"{name} is the input itself")
    (results / "folder").mkdir()
    expect_one_line(cli("tune", results / "model.onnx", "-o", results / "folder"), 2, "folder is a folder, wanted a file")
