import json
import os
import socket
import zipfile
from pathlib import Path

import pytest

from onnxfuse.errors import ExportError, ModelError, StorageError, UsageError
from onnxfuse.io import door


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.bin").write_bytes(b"a")
    (tmp_path / "secret.bin").write_bytes(b"s")
    return tmp_path / "model"


@pytest.fixture
def snapshot(tmp_path):
    """A snapshot of the hub's cache, its one file a link into blobs."""
    repository = tmp_path / "hub" / "models--owner--name"
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs" / "123").write_bytes(b"{}")
    snapshot = repository / "snapshots" / "one"
    (snapshot / "onnx").mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/123")
    (snapshot / "onnx" / "model.data").symlink_to("../../../blobs/123")
    return snapshot


# Which files are read --------------------------------------------------------------------------------------------


def test_files_of_the_folder_are_read_by_their_real_path(folder, tmp_path):
    (folder / "link").symlink_to("a.bin")
    os.link(folder / "a.bin", folder / "second name")
    (tmp_path / "elsewhere").symlink_to(folder)
    for path in (folder / "a.bin", folder / "link", tmp_path / "elsewhere" / "a.bin", folder / ".." / "model" / "a.bin"):
        assert door.within(path, folder) == folder / "a.bin"
    assert door.within(folder / "second name", folder) == folder / "second name"
    assert door.within(tmp_path / "elsewhere" / "link", tmp_path / "elsewhere") == folder / "a.bin"


@pytest.mark.parametrize("name", ["../secret.bin", "link", "folder/secret.bin", "absolute"])
def test_what_lies_outside_is_refused(folder, tmp_path, name):
    (folder / "link").symlink_to("../secret.bin")
    (folder / "folder").symlink_to("..")
    path = folder / (str(tmp_path / "secret.bin") if name == "absolute" else name)
    with pytest.raises(ModelError, match="lies outside") as refused:
        door.within(path, folder)
    assert name == "absolute" or f"points to {tmp_path / 'secret.bin'}" in str(refused.value)
    with pytest.raises(ExportError):
        door.within(path, folder, ExportError)


def test_a_folder_whose_name_begins_alike_is_another(folder, tmp_path):
    (tmp_path / "model2").mkdir()
    (tmp_path / "model2" / "a.bin").write_bytes(b"a")
    with pytest.raises(ModelError, match="lies outside"):
        door.within(folder / ".." / "model2" / "a.bin", folder)


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "loop"])
def test_names_that_no_file_can_have_are_refused(folder, name):
    (folder / "loop").symlink_to("loop")
    with pytest.raises(ModelError) as refused:
        door.within(folder / name, folder)
    assert len(str(refused.value).splitlines()) == 1


def test_links_of_the_hubs_cache_lead_into_its_blobs(snapshot, tmp_path):
    blob = snapshot.parent.parent / "blobs" / "123"
    assert door.within(snapshot / "config.json", snapshot) == blob
    assert door.within(snapshot / "onnx" / "model.data", snapshot / "onnx") == blob
    (tmp_path / "mine").symlink_to(snapshot)
    assert door.within(tmp_path / "mine" / "config.json", tmp_path / "mine") == blob


def test_the_hubs_cache_ends_at_its_repository(snapshot, tmp_path):
    other = tmp_path / "hub" / "models--other--name" / "blobs"
    other.mkdir(parents=True)
    (other / "456").write_bytes(b"{}")
    (snapshot / "other").symlink_to(other / "456")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("one")
    (snapshot / "refs").symlink_to("../../refs/main")
    for name in ("other", "refs"):
        with pytest.raises(ModelError, match="lies outside"):
            door.within(snapshot / name, snapshot)


def test_a_cache_whose_blobs_are_a_link_is_none(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("secret")
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "one"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "blobs").symlink_to(tmp_path / "etc")
    (snapshot / "config.json").symlink_to("../../blobs/passwd")
    with pytest.raises(ModelError, match="lies outside"):
        door.within(snapshot / "config.json", snapshot)


def test_blobs_beside_any_folder_are_outside(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_bytes(b"1")
    snapshot = tmp_path / "snapshots" / "one"
    snapshot.mkdir(parents=True)
    (snapshot / "a").symlink_to(tmp_path / "blobs" / "1")
    with pytest.raises(ModelError, match="lies outside"):
        door.within(snapshot / "a", snapshot)


@pytest.mark.parametrize("made", ["a folder", "a named pipe", "a socket", "is not there", "is a link to what is not there"])
def test_only_regular_files_are_read_and_nothing_is_opened(tmp_path, monkeypatch, made):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "it"
    if made == "a folder":
        path.mkdir()
    elif made == "a named pipe":
        os.mkfifo(path)  # opening one for reading waits for a writer
    elif made == "a socket":
        with socket.socket(socket.AF_UNIX) as made_here:
            made_here.bind("it")
    elif "link" in made:
        path.symlink_to("nowhere")
    assert made in door.oddity(path)
    with pytest.raises(ModelError, match=made):
        door.within(path, tmp_path)
    with pytest.raises(UsageError, match=made):
        door.require_regular(path)


def test_a_device_is_no_file(tmp_path):
    assert "a device" in door.oddity(Path("/dev/null"))
    (tmp_path / "zeros").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="a device, not a file"):
        door.require_regular(tmp_path / "zeros")
    assert door.require_regular(Path(__file__)) == Path(__file__)


# What readers make of them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raised", [ValueError("one\ntwo"), KeyError("name"), OSError("truncated file"), AssertionError(), StopIteration()]
)
def test_whatever_a_reader_raises_is_one_line(raised):
    with pytest.raises(ExportError) as refused, door.reading("a.h5", "an HDF5 file", ExportError):
        raise raised
    assert str(refused.value).startswith("a.h5 cannot be read as an HDF5 file (")
    assert str(refused.value).endswith("; save or download it again") and "\n" not in str(refused.value)
    assert refused.value.__cause__ is raised


def test_too_large_and_too_deep_say_so():
    with (
        pytest.raises(ModelError, match="too large to be read as a model in this machine's memory"),
        door.reading("a", "a model"),
    ):
        raise MemoryError
    with pytest.raises(ModelError, match="nested too deep"), door.reading("a", "a model"):
        raise RecursionError


def test_errors_of_ours_interrupts_and_the_systems_refusals_are_what_they_are():
    for error in (UsageError("ours"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as passed, door.reading("a", "a model"):
            raise error
        assert passed.value is error
    with pytest.raises(StorageError, match="cannot read a: Permission denied"), door.reading("a", "a model"):
        raise PermissionError(13, "Permission denied")


def test_a_panic_of_rust_is_one_line_too():
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    with pytest.raises(ModelError, match="gave up"), door.reading("a", "a tokenizer"):
        raise panic("gave up")


def test_archives_are_measured_before_they_are_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"0" * 100)
        archive.writestr("b", b"0" * 100)
    door.require_unpackable(path)
    monkeypatch.setattr(door, "ARCHIVE_BYTES", 199)
    with pytest.raises(ModelError, match="when unpacked"):
        door.require_unpackable(path)
    path.write_bytes(b"no zip")
    with pytest.raises(UsageError, match="cannot be read as an archive"):
        door.require_unpackable(path, UsageError)


# JSON ------------------------------------------------------------------------------------------------------------


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("text", ["{", "", "\ufeff{}", '{"a": 1} x', "9" * 5000])
def test_what_is_no_json_is_named(text):
    with pytest.raises(ModelError, match=r"^c\.json is not JSON \(.*\); save or download it again$"):
        door.parse_json(text, "c.json")
    with pytest.raises(ModelError, match="is not JSON"):
        door.parse_json(b'"\xff"', "c.json")


def test_json_has_a_depth():
    assert door.parse_json(nested(door.JSON_DEPTH), "c.json")
    for depth in (door.JSON_DEPTH + 1, 900, 100_000):
        with pytest.raises(UsageError, match="nested deeper than 64"):
            door.parse_json(nested(depth), "c.json", UsageError)
    with pytest.raises(ModelError, match="nested deeper"):
        door.parse_json('{"a":' * 65 + "1" + "}" * 65, "c.json")


def test_json_has_a_size(tmp_path, monkeypatch):
    path = tmp_path / "c.json"
    path.write_text('{"a": "bc"}')
    assert door.read_json(path) == {"a": "bc"}
    monkeypatch.setattr(door, "JSON_BYTES", 10)
    for read in (lambda: door.read_json(path), lambda: door.parse_json(path.read_bytes(), path)):
        with pytest.raises(ModelError, match="MiB of JSON, at most"):
            read()


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udfff": 1}', '[[{"a": ["\\ud800"]}]]'])
def test_texts_that_no_file_can_hold_are_refused(text):
    with pytest.raises(ModelError, match="half a character"):
        door.parse_json(text, "c.json")
    assert door.parse_json(json.dumps(["\U0001f600", "é"]), "c.json") == ["\U0001f600", "é"]


def test_a_folder_is_whole_when_all_in_it_is(folder, tmp_path, snapshot):
    (folder / "inner").mkdir()
    (folder / "inner" / "link").symlink_to("../a.bin")
    assert door.whole(folder) == folder
    assert door.whole(snapshot) == snapshot
    (folder / "inner" / "out").symlink_to("../../secret.bin")
    with pytest.raises(ModelError, match="out lies outside"):
        door.whole(folder)
    (folder / "inner" / "out").unlink()
    (folder / "inner" / "away").symlink_to(tmp_path)
    with pytest.raises(ModelError, match="away lies outside"):
        door.whole(folder)
