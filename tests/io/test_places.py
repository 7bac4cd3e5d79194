"""How files that others may read name places: from their own folder, never by a path of the machine."""

import json
import tempfile
from pathlib import Path

import pytest

from onnxfuse.errors import UsageError
from onnxfuse.io import atomic, folders, places


@pytest.mark.parametrize(
    ("path", "home", "named"),
    [
        ("/a/b/model.onnx", "/a/b", "model.onnx"),
        ("/a/b/c/model.onnx", "/a/b", "c/model.onnx"),
        ("/a/b/model.onnx", "/a/c/d", "../../b/model.onnx"),
        ("/a/b", "/a/b", "."),
        ("/data/secret/model.onnx", "/home/me/onnx", ".../model.onnx"),
        ("model.onnx", "onnx", "../model.onnx"),
    ],
)
def test_a_path_is_told_from_the_folder(path, home, named):
    assert places.way(path, Path(home)) == named


def test_a_checkpoint_is_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside, beside, home = (tmp_path / name for name in ("out/mine", "org/mine", "out"))
    inside.mkdir(parents=True)
    beside.mkdir(parents=True)
    for source, named in (
        ("org/mine", "../org/mine"),
        (str(beside), "../org/mine"),
        ("out/mine", "./mine"),
        ("org/hub-id", "org/hub-id"),
    ):
        assert places.origin(source, home) == named
    monkeypatch.chdir(inside)
    assert places.found("../org/mine", home) == str(beside)
    assert places.found("./mine", Path("..")) == str(inside)
    assert places.found("org/mine", home) == "org/mine"  # a hub id
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "link").symlink_to(home.resolve())
    assert places.found("../org/mine", tmp_path / "deep" / "er" / "link") == str(beside)


def test_what_lies_elsewhere_is_looked_for_by_its_name(tmp_path, monkeypatch):
    home, work = tmp_path / "onnx" / "mine", tmp_path / "work"
    home.mkdir(parents=True)
    (work / "mine").mkdir(parents=True)
    monkeypatch.chdir(work)
    assert places.found(".../mine", home) == str(work / "mine")
    with pytest.raises(UsageError, match="came from other, which is not where it was; run this in the folder that holds other"):
        places.found(".../other", home)
    monkeypatch.chdir(home.parent)
    assert places.found("../../work/mine", home) == str(work / "mine")
    assert places.found("../moved/mine", work) == str(home)
    with pytest.raises(UsageError, match="not where it was"):
        places.found(".../mine", home)


def test_texts_keep_names_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, scratch = Path("/srv/odd place/models/a.onnx"), Path(tempfile.gettempdir()) / "x" / "b.onnx"
    for text, kept in (
        (f"{model} differs from {scratch}", "a.onnx differs from x/b.onnx"),
        (f"no tokenizer beside {model.parent}: stop", "no tokenizer beside models: stop"),
        (f"{tmp_path}/c.onnx, {Path.home()}/d", "c.onnx, d"),
        ("/encoder/layer.0/MatMul and org/name", "/encoder/layer.0/MatMul and org/name"),
        ("see https://huggingface.co/srv/models", "see https://huggingface.co/srv/models"),
    ):
        assert places.told(text, model) == kept


def test_a_record_holds_no_path_of_the_machine(tmp_path):
    home = tmp_path / "onnx"
    plan = {"source": tmp_path / "in" / "a.onnx", "target": str(tmp_path / "t.json"), "data": None, "names": ("a/b", "/v/add")}
    (tmp_path / "t.json").touch()
    with atomic.replacing(home / "model.onnx") as staged:
        staged.touch()
        results = {"path": str(home / "model.onnx"), "why": f"{tmp_path}/in/a.onnx is odd", "parts": [{"at": staged}]}
        folders.record(staged.parent, "step", plan, results, staged=staged)
    text = (home / folders.RECORD).read_text()
    assert tmp_path.name not in text
    entry = json.loads(text)["step"]
    assert entry["plan"] == {"source": "../in/a.onnx", "target": "../t.json", "data": None, "names": ["a/b", "/v/add"]}
    assert (entry["path"], entry["why"], entry["parts"]) == ("model.onnx", "a.onnx is odd", [{"at": "model.onnx"}])


def test_json_of_libraries_loses_their_paths_and_keeps_hub_ids():
    inner = {
        "_name_or_path": "/a/b",
        "text": {"_name_or_path": "org/name", "sizes": [{"name_or_path": "./c"}]},
        "tokenizer_file": "C:\\d",
    }
    assert places.cleaned(inner) == {"text": {"_name_or_path": "org/name", "sizes": [{}]}}
    assert places.cleaned({"name_or_path": "bert-base-cased"}) == {"name_or_path": "bert-base-cased"}
    assert places.cleaned({"name_or_path": "runs/1/final"}) == {}
