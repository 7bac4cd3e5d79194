"""Several files take their places together: killed between two renames, half undone, swept up, taking turns, never through links."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from onnxfuse.errors import ModelError, StorageError
from onnxfuse.io import atomic, commit, files, folders, locks


def stage(home: Path, text: str, *names: str) -> None:
    with atomic.replacing(home / names[-1]) as staged:
        for name in names:
            (staged.parent / name).parent.mkdir(exist_ok=True)
            (staged.parent / name).write_text(text)


def there(home: Path) -> dict[str, str]:
    return {str(file.relative_to(home)): file.read_text() for file in sorted(home.rglob("*")) if file.is_file()}


def die_at(number: int, event: str) -> None:
    """Kill this process when it is about to do a thing for the ``number``th time."""
    import sys

    seen = [0]

    def kill(name: str, _: object) -> None:
        seen[0] += name == event
        if name == event and seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)


def in_child(function, *arguments) -> int:
    child = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    child.start()
    child.join()
    return child.exitcode


NAMES = ("a.json", "in/b.txt", "m.onnx")


def _killed(home: Path, number: int, names: tuple[str, ...]) -> None:
    die_at(number, "os.rename")
    stage(home, "new", *names)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_run_killed_between_its_renames_is_finished_by_the_next_reader(tmp_path, number):
    """The first rename is that of the note: before it all is old. After it, all is new for whoever asks."""
    stage(tmp_path, "old", *NAMES)
    assert in_child(_killed, tmp_path, number, NAMES) == -signal.SIGKILL
    commit.settle(tmp_path)
    new = number > 1
    assert {name: text for name, text in there(tmp_path).items() if name in NAMES} == dict.fromkeys(
        NAMES, "new" if new else "old"
    )
    assert bool(list(tmp_path.glob(".onnxfuse-*"))) != new  # what has no note is for the next writer
    stage(tmp_path, "newer", *NAMES)
    assert there(tmp_path) == dict.fromkeys(NAMES, "newer")


def replace_and_drop(home: Path, text: str) -> None:
    with atomic.replacing(home / "model.onnx") as staged:
        for name in ("config.json", "model.onnx"):
            (staged.parent / name).write_text(text)
        atomic.drop(staged, ["vocab.txt", "config.json", "never.txt"])


def _killed_dropping(home: Path, number: int, event: str) -> None:
    die_at(number, event)
    replace_and_drop(home, "new")


@pytest.mark.parametrize(
    ("number", "event"), [(1, "os.rename"), (2, "os.rename"), (3, "os.rename"), (1, "os.remove"), (2, "os.remove")]
)
def test_files_go_as_others_come(tmp_path, number, event):
    """What is staged itself comes. Killed anywhere, all is old or all is new."""
    stage(tmp_path, "old", "config.json", "vocab.txt", "model.onnx")
    assert in_child(_killed_dropping, tmp_path, number, event) == -signal.SIGKILL
    commit.settle(tmp_path)
    old = dict.fromkeys(("config.json", "model.onnx", "vocab.txt"), "old")
    assert {name: text for name, text in there(tmp_path).items() if "staging" not in name} == (
        old if (number, event) == (1, "os.rename") else {"config.json": "new", "model.onnx": "new"}
    )
    stage(tmp_path, "newer", "a.txt")
    assert not list(tmp_path.glob(".onnxfuse-*"))


def test_files_that_were_to_go_stay_where_the_others_cannot_come(tmp_path, monkeypatch):
    stage(tmp_path, "old", "config.json", "vocab.txt", "model.onnx")
    monkeypatch.setattr(Path, "unlink", _refuse_vocabulary(Path.unlink))
    with pytest.raises(StorageError, match="what was there is untouched"):
        replace_and_drop(tmp_path, "new")
    assert there(tmp_path) == dict.fromkeys(("config.json", "model.onnx", "vocab.txt"), "old")


def _refuse_vocabulary(unlink):
    def refusing(path, **options):
        if path.name == "vocab.txt" and "staging" not in str(path):
            raise PermissionError(13, "Permission denied")
        unlink(path, **options)

    return refusing


@pytest.mark.parametrize("reader", [files.require_file, lambda path: folders.source_file(path.parent, "model.onnx")])
def test_readers_of_models_and_folders_finish_it(tmp_path, reader):
    stage(tmp_path, "old", "config.json", "model.onnx")
    assert in_child(_killed, tmp_path, 3, ("config.json", "model.onnx")) == -signal.SIGKILL
    assert (tmp_path / "model.onnx").read_text() == "old"
    reader(tmp_path / "model.onnx")
    assert there(tmp_path) == {"config.json": "new", "model.onnx": "new"}


def test_a_reader_of_config_json_finishes_it(tmp_path):
    stage(tmp_path, "{}", "config.json", "model.onnx")
    assert in_child(_killed, tmp_path, 2, ("config.json", "model.onnx")) == -signal.SIGKILL
    with pytest.raises(ModelError, match="is not JSON"):
        folders.read_config(tmp_path / "model.onnx")
    assert there(tmp_path) == {"config.json": "new", "model.onnx": "new"}


def test_a_reader_finds_a_config_json_that_was_on_its_way(tmp_path):
    stage(tmp_path, "{}", "model.onnx")
    assert in_child(_killed, tmp_path, 2, ("config.json", "model.onnx")) == -signal.SIGKILL
    assert not (tmp_path / "config.json").exists()
    with pytest.raises(ModelError, match="is not JSON"):
        folders.read_config(tmp_path / "model.onnx")


def test_a_copy_of_a_half_renamed_folder_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    stage(tmp_path / "a", "old", *NAMES)
    assert in_child(_killed, tmp_path / "a", 3, NAMES) == -signal.SIGKILL
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    before = there(tmp_path / "b")
    for ask in (commit.settle, lambda home: stage(home, "newer", *NAMES)):
        with pytest.raises(ModelError, match=r"may have files of two runs: \.onnxfuse-.* remove that"):
            ask(tmp_path / "b")
    assert there(tmp_path / "b") == before


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "in/../../out.txt", "link/out.txt"])
def test_a_note_that_names_a_place_outside_moves_nothing(tmp_path, name):
    home, outside = tmp_path / "home", tmp_path / "outside"
    folder = home / ".onnxfuse-staging-evil0000"
    (folder / "new" / "link").mkdir(parents=True)
    outside.mkdir()
    (home / "link").symlink_to(outside)
    (folder / "new" / "link" / "out.txt").write_text("evil")
    (home / "out.txt").write_text("evil")
    said = {"folder": commit.identity(folder), "names": [name], "had": [], "made": []}
    (folder / commit.MARKER).write_text(json.dumps(said))
    with pytest.raises(ModelError, match="may have files of two runs"):
        commit.settle(home)
    assert not list(outside.iterdir())
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize(("moved", "has"), [(1, "files of this run and of an earlier one"), (0, "what it had")])
def test_what_can_be_moved_neither_forward_nor_back_waits_and_says_so(tmp_path, monkeypatch, moved, has):
    stage(tmp_path, "old", *NAMES)
    moves, calls = os.replace, []

    def fail(source, target):
        calls.append(target)
        if len(calls) > 1 + moved:  # the first is the note
            raise OSError(13, "Permission denied")
        moves(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError, match=rf"has {has} \(Permission denied\)") as raised:
        stage(tmp_path, "new", *NAMES)
    assert "untouched" not in str(raised.value)
    with pytest.raises(ModelError, match=r"cannot be put right \(Permission denied\); make the folder writable"):
        commit.settle(tmp_path)
    monkeypatch.setattr(os, "replace", moves)
    commit.settle(tmp_path)
    assert there(tmp_path) == dict.fromkeys(NAMES, "new")


def test_a_run_killed_on_the_way_back_is_taken_back(tmp_path, monkeypatch):
    stage(tmp_path, "old", *NAMES)
    moves = os.replace

    def fail(source, target):
        if target == tmp_path / "m.onnx" or str(source).endswith("old/in/b.txt"):
            raise OSError(28, "No space left on device")
        moves(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError, match="has files of this run and of an earlier one"):
        stage(tmp_path, "new", *NAMES)
    monkeypatch.setattr(os, "replace", moves)
    commit.settle(tmp_path)
    assert there(tmp_path) == dict.fromkeys(NAMES, "old")


def test_new_folders_go_when_it_is_undone(tmp_path, monkeypatch):
    stage(tmp_path, "old", "m.onnx")
    moves = os.replace

    def fail(source, target):
        if target == tmp_path / "m.onnx":
            raise OSError(28, "No space left on device")
        moves(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError, match="what was there is untouched"):
        stage(tmp_path, "new", *NAMES)
    assert sorted(os.listdir(tmp_path)) == ["m.onnx"]


def test_a_folder_that_is_not_there_comes_whole(tmp_path, monkeypatch):
    """One rename: not even its parents are there before."""
    seen = []
    monkeypatch.setattr(os, "rename", lambda source, target: seen.append((target, os.listdir(tmp_path))))
    stage(tmp_path / "onnx" / "org" / "name", "new", *NAMES)
    assert [(target, len(before)) for target, before in seen] == [(tmp_path / "onnx", 1)]
    monkeypatch.undo()
    stage(tmp_path / "onnx" / "org" / "name", "new", *NAMES)
    assert there(tmp_path / "onnx") == {f"org/name/{name}": "new" for name in NAMES}
    with pytest.raises(RuntimeError), atomic.replacing(tmp_path / "other" / "a.txt"):
        raise RuntimeError
    assert os.listdir(tmp_path) == ["onnx"]


def test_a_folder_that_comes_meanwhile_stays(tmp_path):
    def late() -> None:
        with atomic.replacing(tmp_path / "out" / "a.txt") as staged:
            staged.write_text("new")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "a.txt").write_text("theirs")

    with pytest.raises(StorageError, match="came to be while this ran; what was there is untouched"):
        late()
    assert there(tmp_path) == {"out/a.txt": "theirs"}


def test_leftovers_go_and_what_is_in_use_stays(tmp_path):
    (tmp_path / ".onnxfuse-staging-dead0000" / "new").mkdir(parents=True)
    (tmp_path / ".onnxfuse-staging-dead0000" / "new" / "half").write_text("x")
    (tmp_path / ".onnxfuse-staging-file0000").write_text("no folder")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".onnxfuse-staging-link0000").symlink_to(tmp_path / "elsewhere")
    with atomic.replacing(tmp_path / "a.txt") as first:
        first.write_text("first")
        stage(tmp_path, "second", "b.txt")
        assert first.read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == [
        ".onnxfuse-staging-file0000",
        ".onnxfuse-staging-link0000",
        "a.txt",
        "b.txt",
        "elsewhere",
    ]


@pytest.mark.parametrize(
    "name", ["onnxfuse-results", ".onnxfuse-results", ".onnxfuse-scratch-results", ".onnxfuse-staging-of the week"]
)
def test_folders_that_only_sound_like_ours_stay(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("mine")
    with atomic.scratch():
        pass
    stage(tmp_path, "new", "a.txt")
    assert there(tmp_path) == {"a.txt": "new", f"{name}/thesis.txt": "mine"}


def test_a_file_system_without_locks_keeps_what_may_be_in_use(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    (tmp_path / ".onnxfuse-staging-perhaps_").mkdir()
    stage(tmp_path, "new", *NAMES)
    assert there(tmp_path) == dict.fromkeys(NAMES, "new")
    assert (tmp_path / ".onnxfuse-staging-perhaps_").is_dir()


def test_two_runs_put_their_files_into_a_folder_one_after_the_other(tmp_path, monkeypatch):
    """And a third that waits too long is refused, and says why."""
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    with locks.held(tmp_path), pytest.raises(StorageError, match="is in use by another run of onnxfuse"):
        stage(tmp_path, "new", "a.txt")
    assert there(tmp_path) == {}
    monkeypatch.setattr(locks, "PATIENCE", 60.0)
    with locks.held(tmp_path):
        waiting = threading.Thread(target=stage, args=(tmp_path, "new", "a.txt"))
        waiting.start()
        assert there(tmp_path).get("a.txt") is None
    waiting.join()
    assert there(tmp_path) == {"a.txt": "new"}


def test_two_records_of_one_folder_keep_both_steps(tmp_path):
    with atomic.replacing(tmp_path / "a.onnx") as staged:
        staged.write_text("a")
        folders.record(tmp_path, "optimize", {"a": 1}, {}, staged=staged)
        folders.record(tmp_path, "quantize", {"b": 2}, {})  # another run ends meanwhile
    assert {step: entry["plan"] for step, entry in folders.recorded(tmp_path).items()} == {
        "optimize": {"a": 1},
        "quantize": {"b": 2},
    }


def test_links_in_the_output_folder_are_replaced_or_refused_and_never_followed(tmp_path):
    home, outside = tmp_path / "home", tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    home.mkdir()
    (outside / "a.txt").write_text("theirs")
    (outside / "onnxfuse.json").write_text('{"secret": {"plan": {}}}')
    (home / "a.txt").symlink_to(outside / "a.txt")
    (home / "b.txt").symlink_to(outside / "not there")
    (home / "onnxfuse.json").symlink_to(outside / "onnxfuse.json")
    stage(home, "new", "b.txt", "a.txt")
    folders.record(home, "step", {}, {})
    assert list(folders.recorded(home)) == ["step"]
    (home / "in").symlink_to(outside / "in")
    with pytest.raises(StorageError, match="in is a link, and a folder of that name belongs there"):
        stage(home, "new", "in/c.txt", "a.txt")
    assert there(outside) == {"a.txt": "theirs", "onnxfuse.json": '{"secret": {"plan": {}}}'}
    assert (home / "a.txt").read_text() == (home / "b.txt").read_text() == "new"
    assert not (home / "a.txt").is_symlink()


SIGNALLED = """
import os, signal
from onnxfuse.io.signals import undisturbed
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started with it ignored
seen = []
try:
    with undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        with undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            seen.append("inner")
        seen.append("outer")
except KeyboardInterrupt:
    seen.append("interrupted")
before = signal.getsignal(signal.SIGINT)
with undisturbed():
    pass
print(*seen, signal.getsignal(signal.SIGINT) is before)
"""
"""In a process of its own: in one where libraries have run, some of these fail on signals."""


def test_a_signal_waits_for_what_belongs_together():
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stdout == "inner outer interrupted True\n", done.stderr


def test_what_has_been_put_into_place_is_known(tmp_path):
    atomic.WRITTEN.clear()
    with atomic.replacing(tmp_path / "a.txt") as staged:
        staged.write_text("a")
        atomic.save_text("b", staged.with_name("b.txt"))
        assert not atomic.WRITTEN
    assert list(atomic.WRITTEN) == [tmp_path / "a.txt"]


def _die_in_scratch() -> None:
    with atomic.scratch() as folder:
        (folder / "weights").write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)


def test_scratch_folders_of_killed_runs_go_at_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    atomic.WRITTEN.clear()
    with atomic.scratch() as used:
        assert in_child(_die_in_scratch) == -signal.SIGKILL
        assert len(list(tmp_path.iterdir())) == 2
        with atomic.scratch() as other:
            atomic.save_text("x", other / "a.txt")
            assert sorted(tmp_path.iterdir()) == sorted([used, other])
            assert list(other.iterdir()) == [other / "a.txt"]
    assert not list(tmp_path.iterdir())
    assert not atomic.WRITTEN


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free some space or choose another folder"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system; choose another folder"),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied; choose another folder"),
    ],
)
def test_space_is_advised_where_it_lacks(tmp_path, error, advice):
    with pytest.raises(StorageError, match=advice), atomic.replacing(tmp_path / "a"):
        raise error
