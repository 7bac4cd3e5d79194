"""Which files a result may replace: those that onnxfuse made, and no source of the run itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxfuse.errors import ModelError, OnnxfuseError, UsageError
from onnxfuse.io import atomic, files, folders, onnx_file


@dataclass(frozen=True)
class Replaceable:
    """Says of a file that is to be replaced whether it may: a guard for ``atomic.replacing``.

    Args:
        sources: what the run reads; never replaced.
        overwrite: whether files of others may go too.
        option: what names the place on the command line.
        ours: what tells, instead of ``is_ours``, that a file is one of onnxfuse's.
    """

    sources: tuple[Path, ...] = ()
    overwrite: bool = False
    ours: Callable[[Path], bool] | None = None
    option: str = "--output"

    def __call__(self, home: Path, name: str) -> None:
        """Raises UsageError: the file ``name`` in ``home`` must stay."""
        place = home / name
        if place.exists() and any(source.exists() and place.samefile(source) for source in self.sources):
            raise UsageError(f"the output {place} is the input itself; choose another with --output")
        if place.is_dir():
            if self.ours is None:
                return  # no result is a folder: who moves files there says what is in the way
            raise UsageError(f"the output {place} is a folder, wanted a file; name one in it")
        if self.overwrite or (is_ours(home, name) if self.ours is None else self.ours(place)):
            return
        seen = "there" if place.exists() else "a link to what is not there"
        raise UsageError(
            f"{place} is {seen}, and onnxfuse did not make it; choose another place with {self.option}, or add --overwrite"
        )

    def require(self, *paths: Path) -> None:
        """Ask before the work begins. Raises UsageError where one of ``paths`` is there and must stay, or can not come to be."""
        for path in paths:
            self.require_in(path.parent, path.name)

    def require_in(self, home: Path, *names: str) -> None:
        """The same of files in a folder that has the record of them, by names that may lie deeper."""
        for name in names:
            require_room((home / name).parent)
            if os.path.lexists(home / name):
                self(home, name)


def require_room(folder: Path) -> None:
    """Raises UsageError where a folder is not there and cannot come to be: something else has its name, or that of one above."""
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    if os.path.lexists(there) and not there.is_dir():
        what = "a link to what is not there" if there.is_symlink() and not there.exists() else "no folder"
        raise UsageError(f"the output goes to {folder}, and {there} is {what}; name a folder with --output, or a new one")


def is_ours(home: Path, name: str) -> bool:
    """Whether onnxfuse made the file ``name`` in a folder, as it is: the folder's record says so, or the model's own metadata."""
    if (home / name).is_symlink() and not (home / name).exists():
        return False
    known = folders.recorded(home)
    if name == folders.RECORD:
        return _is_record(home / name)
    if any(_wrote(step, home, name, entry) for step, entry in known.items() if isinstance(entry, dict)):
        return True
    if name.endswith(".onnx.data"):
        return is_ours(home, name.removesuffix(".data"))
    return name.endswith(".onnx") and _says_so(home / name)


def _wrote(step: str, home: Path, name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a step of a record wrote a file, and nobody has changed it since. Earlier versions named their files alone."""
    made = entry.get("made")
    if isinstance(made, dict):
        return name in made and (home / name).is_file() and made[name] == folders.fingerprint(home / name)
    written = entry.get("files")
    if Path(str(entry.get("path", ""))).name == name or (isinstance(written, list) and name in written):
        return True
    return step.startswith("export") and written is None and not name.endswith((".onnx", ".tflite", ".data"))


def _is_record(path: Path) -> bool:
    try:
        return all(isinstance(entry, dict) and "plan" in entry for entry in files.read_object(path).values())
    except ModelError:
        return False


def _says_so(path: Path) -> bool:
    """Whether a model's metadata says that onnxfuse made it."""
    try:
        return any(key.split(".")[0] == "onnxfuse" for key in onnx_file.metadata(path))
    except OnnxfuseError:
        return False


def inputs_of(model: Path, weights: Iterable[Path]) -> tuple[Path, ...]:
    """What a verb reads of a model: its file, ``weights``, and what lies beside it: config.json, tokenizer, exports."""
    names = {"config.json", *folders.PROCESSOR_FILES}
    home = folders.home_of(model)
    for step, entry in folders.recorded(home).items():
        written = (entry.get("made") or entry.get("files")) if step.startswith("export") and isinstance(entry, dict) else ()
        names |= {str(name) for name in written if not str(name).endswith(RESULTS)} if isinstance(written, dict | list) else set()
    return (model, *weights, *(home / name for name in sorted(names)))


RESULTS = (".onnx", ".onnx.data", ".tflite")
"""How files with models are called."""


def stale(step: str, staged: Path, names: Iterable[str], source: str) -> tuple[dict[str, None], list[str]]:
    """What has lost its source once an export takes its place: results of the model that was there, files of another checkpoint.

    Args:
        step: what the record calls the export.
        staged: its model.
        names: of the other files that it writes.
        source: the checkpoint; other exports of the same stay.

    Returns:
        The steps of the record that no longer hold, and the files that go: those that onnxfuse made, as it made them.
    """
    home = atomic.shown(staged).parent
    old = {each: entry for each, entry in folders.recorded(home).items() if isinstance(entry, dict)}
    made = list(_made(home))
    same = (staged.name, folders.fingerprint(staged)) in {(name, digest) for _, name, digest in made}
    lost = set() if same else {staged.name}
    gone = {each for each, entry in old.items() if each.startswith("export") and _plan(entry).get("source") != source} - {step}
    lost |= {name for each, name, _ in made if each in gone}
    while more := {each for each, entry in old.items() if each not in gone and _works_here_on(entry, lost)}:
        gone |= more
        lost |= {Path(str(old[each]["path"])).name for each in more}
    files = {name for each, name, _ in made if each in gone | {step} and is_ours(home, name)}
    return dict.fromkeys(gone), sorted(files - {staged.name, *names, folders.RECORD})


def _plan(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    plan = entry.get("plan")
    return plan if isinstance(plan, dict) else {}


def _works_here_on(entry: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether a step read one of these files where its own result lies."""
    source, path = Path(str(_plan(entry).get("source", ""))), Path(str(entry.get("path", "")))
    return source.name in names and source.parent == path.parent and path.name != ""


def _made(home: Path) -> Iterator[tuple[str, str, str]]:
    """Step, name and fingerprint of each file that a folder's record says was made there."""
    for step, entry in folders.recorded(home).items():
        made = entry.get("made") if isinstance(entry, dict) else None
        if isinstance(made, dict):
            yield from ((step, str(name), str(digest)) for name, digest in made.items())


def require_elsewhere(out: Path, sources: Iterable[Path]) -> None:
    """Raises UsageError when an output folder is one of ``sources``."""
    for source in sources:
        if out.exists() and source.exists() and out.samefile(source):
            raise UsageError(f"the output {out} is the input itself; choose another folder with --output")
