"""What a checkpoint's files point to: its own folder, or the hub's cache; and no sizes but those that it holds."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest

from onnxfuse.errors import ExportError, ModelError
from onnxfuse.exporters import bounds, description, open_checkpoint, tf_weights, weights
from onnxfuse.exporters.home import Home
from onnxfuse.io import door, folders
from tests.conftest import small_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    small_model("bert", "AutoModel", layers=1).save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


@pytest.fixture
def source(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "source")


def link_outside(path, content=None):
    """Put a link in the place of a file; the file itself goes out of its folder."""
    there = path.parent.parent / f"outside-{path.name}"
    there.write_bytes(path.read_bytes() if content is None else content)
    path.unlink(missing_ok=True)
    path.symlink_to(there)


@pytest.mark.parametrize(
    "name", ["config.json", "vocab.txt", "tokenizer_config.json", "tokenizer.json", "model.safetensors", "modules.json"]
)
def test_a_link_out_of_the_checkpoint_is_refused(source, name):
    link_outside(source / name, None if (source / name).exists() else b"[]")
    with pytest.raises(ExportError, match=r"lies outside .* points to .*; refused"):
        open_checkpoint(str(source))


def test_a_folder_of_a_module_that_is_a_link_out_is_refused(source, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (source / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    modules += [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
    (source / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ExportError, match="lies outside"):
        open_checkpoint(str(source))


@pytest.mark.parametrize("name", ["../outside.safetensors", "link.safetensors", "a\0b", "/etc/hostname", ".."])
def test_shards_outside_are_refused(source, tmp_path, name):
    (source / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (source / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(ExportError, match=r"not beside it|lies outside"):
        open_checkpoint(str(source))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt", "tf_model.h5"])
def test_a_pipe_is_not_opened(source, name):
    (source / name).unlink(missing_ok=True)
    if name == "tf_model.h5":
        (source / "model.safetensors").unlink()
    os.mkfifo(source / name)
    with pytest.raises((ModelError, ExportError), match="is a named pipe, not a file"):
        open_checkpoint(str(source))


def test_a_folder_of_the_hubs_cache_is_read_through_its_links(source, tmp_path):
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / "one"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for at, path in enumerate(sorted(source.iterdir())):
        path.rename(repository / "blobs" / str(at))
        (snapshot / path.name).symlink_to(f"../../blobs/{at}")
    found = open_checkpoint(str(snapshot))
    assert found.files["vocab.txt"].read_text() == "[PAD]\n[UNK]\n"
    (snapshot / "vocab.txt").unlink()
    (snapshot / "vocab.txt").symlink_to("../../../source")
    with pytest.raises(ExportError, match="lies outside"):
        open_checkpoint(str(snapshot))


def test_broken_json_of_the_hubs_cache_is_named_though_blobs_have_no_suffix(source, tmp_path):
    (source / "blob").write_text("{")
    (source / "tokenizer.json").symlink_to("blob")
    with pytest.raises(ModelError, match=r"tokenizer.json is not JSON"):
        open_checkpoint(str(source))


def test_hard_links_are_files(source):
    os.link(source / "model.safetensors", source / "second")
    assert Home(str(source)).find("second") == source / "second"
    assert weights.find(Home(str(source))).paths == (source / "model.safetensors",)


def test_the_config_and_the_record_beside_a_model_do_not_come_from_elsewhere(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.json").write_text('{"secret": {"a": 1}}')
    for name in ("config.json", folders.RECORD):
        (folder / name).symlink_to("../secret.json")
    with pytest.raises(ModelError, match="lies outside"):
        folders.read_config(folder / "model.onnx")
    assert folders.recorded(folder) == {}
    (folder / "own.json").write_text("{}")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("own.json")
    assert folders.read_config(folder / "model.onnx") == {}
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("nowhere")
    with pytest.raises(ModelError, match="is a link to what is not there"):
        folders.read_config(folder / "model.onnx")


# tf_model.h5 -----------------------------------------------------------------------------------------------------


def h5(path, put):
    with h5py.File(path, "w") as file:
        put(file)
    return path


NAME = "bert/tf_bert_model/bert/embeddings/weight:0"


def test_numbers_that_lie_in_another_file_are_not_read(tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    other = h5(tmp_path / "other.h5", lambda file: file.create_dataset("a", data=np.ones(4, np.float32)))

    def external(file):
        file.create_dataset(NAME, (4,), np.float32, external=[(str(tmp_path / "secret"), 0, 16)])

    def virtual(file):
        layout = h5py.VirtualLayout((4,), np.float32)
        layout[:] = h5py.VirtualSource(str(other), "a", (4,))
        file.create_virtual_dataset(NAME, layout)

    for put in (external, virtual):
        with pytest.raises(ExportError, match="points to another file for its numbers; refused"):
            tf_weights.read(h5(tmp_path / "tf_model.h5", put))


def test_links_out_of_the_file_are_no_weights(tmp_path):
    other = h5(tmp_path / "other.h5", lambda file: file.create_dataset("a", data=np.ones(4, np.float32)))

    def put(file):
        file["bert/x/y/weight:0"] = np.ones(2, np.float32)
        file[NAME] = h5py.ExternalLink(str(other), "a")

    assert list(tf_weights.read(h5(tmp_path / "tf_model.h5", put))) == ["y.weight"]


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_that_the_file_does_not_hold_are_not_made(tmp_path, compressed):
    options = (
        {"compression": "gzip", "data": np.zeros(1 << 20, np.float32)} if compressed else {"shape": (1 << 40,), "dtype": "f4"}
    )
    path = h5(tmp_path / "tf_model.h5", lambda file: file.create_dataset(NAME, **options))
    with pytest.raises(ExportError, match=r"its arrays want .* bytes, the file has"):
        tf_weights.read(path)


# Sizes in config.json --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 10**6},
        {"vocab_size": 10**9},
        {"max_position_embeddings": 10**8},
        {"hidden_size": 10**6},
        {"intermediate_size": 10**12},
        {"type_vocab_size": 2**40},
        {"hidden_size": 65536, "intermediate_size": 65536},
        {"chunk_size_feed_forward": 10**9, "vocab_size": 10**10},
    ],
)
def test_sizes_that_the_weights_do_not_have_are_not_made(source, fields):
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(ExportError, match=r"config.json"):
        open_checkpoint(str(source))


@pytest.mark.parametrize(
    "field", ["num_attention_heads", "num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings"]
)
def test_a_negative_size_is_the_configs_fault(source, field):
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: -4}))
    with pytest.raises(ExportError, match=rf"config\.json has -4 as {field}, wanted 1 or more; correct it"):
        open_checkpoint(str(source))


def test_ids_may_be_negative():
    assert not bounds.is_size("pad_token_id", 1)
    assert not bounds.is_size("tie_word_embeddings", True)
    assert bounds.is_size("hidden_size", 768)


@pytest.mark.parametrize("nested", [False, True])
def test_a_config_has_few_entries(source, monkeypatch, nested):
    monkeypatch.setattr(bounds, "ENTRIES", 100)
    path, classes = source / "config.json", {str(number): "a" for number in range(101)}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": {"a": [classes]} if nested else classes}))
    monkeypatch.setattr(description, "config_object", None)  # transformers, which would take long, is not asked
    with pytest.raises(ExportError, match=r"config\.json has 1\d\d entries, .*at most 100 are read; correct it"):
        open_checkpoint(str(source))


def test_the_door_knows_what_is_no_link(source):
    assert door.linked(source / "nothing", source) == source / "nothing"
