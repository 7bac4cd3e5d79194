"""The one door for what strangers wrote: which files are read, how much of them, and what happens when a reader breaks on one.

A model, a checkpoint, a data set or a target may name other files, and any of them may be a link: ``within`` says which may be
read. ``reading`` makes one line of whatever a library raises on a stranger's content. The limits keep that content from asking
for more than it brings.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnxfuse.errors import ModelError, OnnxfuseError, StorageError, UsageError, one_line

JSON_BYTES = 64 << 20
"""Of one JSON text: the largest tokenizer.json have 33 MB, and Python's objects take up to 24 times the text's size."""

JSON_DEPTH = 64
"""Of lists and objects in each other: files have five, and what reads them calls itself once for each."""

ARCHIVE_BYTES = 1 << 30
"""Of everything in one archive, unpacked: zeros pack a thousandfold."""

HUB_KINDS = ("models--", "datasets--", "spaces--")
"""How folders of the Hugging Face cache begin. Source: huggingface_hub (``snapshots/COMMIT/NAME`` links to ``blobs/HASH``)."""

AGAIN = "save or download it again"


# Which files -----------------------------------------------------------------------------------------------------


def within(path: Path, root: Path, kind: type[OnnxfuseError] = ModelError) -> Path:
    """The file that ``path`` is, links followed, if it lies in the folder ``root`` or in the same repository of the hub's cache.

    Args:
        path: of a file that another file, or a folder, named; the name may be any text.
        root: the folder that the user named; it may be a link, or lie in a snapshot of the hub's cache.

    Raises:
        OnnxfuseError: of ``kind``: it is outside, not there, or no regular file.
    """
    try:
        real = path.resolve()
        inside = any(real.is_relative_to(place) for place in _places(root.resolve()))
        wrong = "" if not inside else oddity(path)
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, links in a circle
        raise kind(f"{str(path)!r} cannot be the name of a file ({one_line(error, 80)}); {AGAIN}") from error
    if not inside:
        points = "" if real == path.absolute() else f": it points to {real}"
        raise kind(f"{path} lies outside {root}{points}; refused: copy the file itself there if you trust it")
    if wrong:
        raise kind(f"{path} {wrong}")
    return real


def linked(path: Path, root: Path, kind: type[OnnxfuseError] = ModelError) -> Path:
    """``path`` itself, under its own name for messages, once ``within`` has let it pass; what is not there passes too."""
    if os.path.lexists(path):
        within(path, root, kind)
    return path


def whole(folder: Path, kind: type[OnnxfuseError] = ModelError) -> Path:
    """``folder`` itself, for a library that opens the files in there by itself, once ``within`` has let each of them pass."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            within(path, folder, kind)
    return folder


def _places(root: Path) -> list[Path]:
    """The folders whose files belong to ``root``: itself, and the blobs of a snapshot in the hub's cache."""
    for snapshots in root.parents:
        repository = snapshots.parent
        if snapshots.name == "snapshots" and repository.name.startswith(HUB_KINDS):
            return [root, repository / "blobs"]
    return [root]


KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def oddity(path: Path) -> str:
    """Why a path is no regular file, for a message that begins with it; empty when it is one. Opens nothing."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "is a link to what is not there" if path.is_symlink() else "is not there"
    except ValueError:
        return "cannot be the name of a file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if stat.S_ISREG(mode):
        return ""
    return f"is {next((words for is_kind, words in KINDS.items() if is_kind(mode)), 'something else')}, not a file"


def require_regular(path: Path) -> Path:
    """``path`` as the user typed it: a file anywhere, or a link to one. Opens nothing. Raises UsageError for anything else."""
    if wrong := oddity(path):
        raise UsageError(f"{path} {wrong}; give the path of a file")
    return path


# What readers make of them ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(path: Path | str, what: str, kind: type[OnnxfuseError] = ModelError, advice: str = AGAIN) -> Iterator[None]:
    """Whatever a library raises inside on a stranger's content becomes one line of ``kind``; errors of ours pass.

    For calls of libraries, with the content that they read: an error in our own code would be hidden here.

    Args:
        path: what is read, for people.
        what: what it was taken for, with its article: "an ONNX model".

    Raises:
        OnnxfuseError: of ``kind``. StorageError where the system itself could not read.
    """
    try:
        yield
    except OnnxfuseError:
        raise
    except MemoryError as error:
        raise kind(f"{path} is too large to be read as {what} in this machine's memory") from error
    except RecursionError as error:
        raise kind(f"{path} is nested too deep to be read as {what}; {advice}") from error
    except PermissionError as error:
        raise StorageError(f"cannot read {error.filename or path}: {error.strerror or one_line(error)}") from error
    except Exception as error:
        raise kind(f"{path} cannot be read as {what} ({_said(error)}); {advice}") from error
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise kind(f"{path} cannot be read as {what} ({_said(error)}); {advice}") from error


def _said(error: BaseException) -> str:
    """A library's words. A KeyError's are the key alone, a StopIteration's nothing."""
    said = one_line(error, 160)
    return said if type(error) not in (KeyError, IndexError, StopIteration) else f"{type(error).__name__} {said}"


def _is_panic(error: BaseException) -> bool:
    """Whether code in Rust (tokenizers, safetensors) gave up, which Python sees as an exception beside Exception."""
    return type(error).__module__ == "pyo3_runtime"


def require_unpackable(path: Path, kind: type[OnnxfuseError] = ModelError) -> None:
    """Refuse a zip archive (an .npz file) that would be more than ``ARCHIVE_BYTES`` unpacked, or is none. Raises ``kind``."""
    with reading(path, "an archive", kind), zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > ARCHIVE_BYTES:
        raise kind(f"{path} has {size >> 20} MiB when unpacked, at most {ARCHIVE_BYTES >> 20} are read; save it unpacked")


# JSON ------------------------------------------------------------------------------------------------------------


def parse_json(text: bytes | str, path: Path | str, kind: type[OnnxfuseError] = ModelError) -> Any:
    """What a JSON text holds: UTF-8, within ``JSON_BYTES`` and ``JSON_DEPTH``, and such that it can be written again.

    Raises:
        OnnxfuseError: of ``kind``; the message says what is wrong with ``path``.
    """
    if len(text) > JSON_BYTES:
        raise kind(f"{path} has {len(text) >> 20} MiB of JSON, at most {JSON_BYTES >> 20} are read")
    try:
        value = json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError as error:
        raise _too_deep(path, kind) from error
    except ValueError as error:
        raise kind(f"{path} is not JSON ({one_line(error, 160)}); {AGAIN}") from error
    _require_flat(value, path, kind)
    return value


def read_json(path: Path, kind: type[OnnxfuseError] = ModelError) -> Any:
    """What the JSON file ``path`` holds; a regular file already. Raises as ``parse_json``."""
    return parse_json(json_bytes(path, kind), path, kind)


def json_bytes(path: Path, kind: type[OnnxfuseError] = ModelError) -> bytes:
    """The JSON file ``path`` unread, for a library that reads it itself. Raises ``kind`` for one larger than ``JSON_BYTES``."""
    size = path.stat().st_size
    if size > JSON_BYTES:
        raise kind(f"{path} has {size >> 20} MiB of JSON, at most {JSON_BYTES >> 20} are read")
    return path.read_bytes()


def _require_flat(value: Any, path: Path | str, kind: type[OnnxfuseError]) -> None:
    """Refuse what is nested deeper than ``JSON_DEPTH``, and texts that no file can hold: half of a surrogate pair."""
    level, depth = [value], 0
    while level:
        parts = [part for each in level for part in _parts(each)]
        if any(type(part) is str and not part.isascii() and not _is_text(part) for part in (*level, *parts)):
            raise kind(f"{path} holds a text with half a character (a lone surrogate); {AGAIN}")
        level = [part for part in parts if isinstance(part, list | dict)]
        depth += bool(level)
        if depth >= JSON_DEPTH:
            raise _too_deep(path, kind)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_deep(path: Path | str, kind: type[OnnxfuseError]) -> OnnxfuseError:
    return kind(f"{path} holds JSON nested deeper than {JSON_DEPTH}; {AGAIN}")
