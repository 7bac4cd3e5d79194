"""What is wrong with how a verb ended whose changing calls were broken: see ``faults.py``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

CODES = {"kill": {-signal.SIGKILL}, "int": {0, 130}, "term": {0, 143}, "full-once": {0, 8}, "full": {0, 8}, "denied": {0, 8}}
"""What a child may end with: a signal may come when all is done, and a failure where it does not matter."""


def content(folder: Path) -> dict[str, str]:
    """What lies in a folder, by name: a digest of each file."""
    files = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass
class Judge:
    """Knows what a verb's folder holds before and after, and what may be said when it holds which."""

    place: Path
    old: dict[str, str]
    new: dict[str, str]
    inodes: dict[str, int] = field(default_factory=dict)
    """Of the files there, since ``begin``: which are of this run where both runs write the same."""

    def begin(self) -> None:
        """Look at a folder as the verb will find it."""
        self.inodes = self._inodes()

    def _inodes(self) -> dict[str, int]:
        out = self.place / "out"
        return {name: (out / name).lstat().st_ino for name in self.old if os.path.lexists(out / name)}

    def sides(self, found: dict[str, str]) -> set[str]:
        """Which runs the files of a folder are of: "old", "new", or "torn" for one that is of neither."""
        return {side for name in self.old.keys() | self.new.keys() if (side := self._side(name, found.get(name)))}

    def _side(self, name: str, digest: str | None) -> str:
        was, becomes = self.old.get(name), self.new.get(name)
        if was == becomes:
            return "" if digest == was else "torn"
        if digest == was:
            return "old"
        timed = name.endswith("onnxfuse.json") and digest is not None and self._is_whole(name)  # its seconds differ each time
        return "new" if digest == becomes or timed else "torn"

    def _is_whole(self, name: str) -> bool:
        try:
            return isinstance(json.loads((self.place / "out" / name).read_text()), dict)
        except ValueError:
            return False

    def faults(self, kind: str, code: int, said: str) -> dict[str, str]:
        """What is wrong with how a run ended, by the names of ``COUNTED``."""
        from onnxfuse.errors import OnnxfuseError
        from onnxfuse.io import atomic, commit

        out, wrong = self.place / "out", {}
        before = self.sides(content_of(out))
        alike = {name for name, digest in self.old.items() if self.new.get(name) == digest}
        moved = any(self.inodes.get(name) != inode for name, inode in self._inodes().items() if name in alike)
        with contextlib.suppress(OnnxfuseError):
            for folder in (path for path in (out, *out.rglob("*")) if path.is_dir()):
                commit.settle(folder)
        after = self.sides(content_of(out))
        if "torn" in before | after:
            wrong["torn"] = f"{before} {after}"
        if len(after) > 1:
            wrong["mixed"] = f"{after}"
        if untruth := self._untruth(kind, code, said, before | ({"new"} if moved and "old" in before else set())):
            wrong["untrue"] = untruth
        atomic.save_text("next run", out / "model" / "probe.txt")
        atomic.save_text("next run", self.place / "probe.txt")
        atomic.save_text("next run", out / "probe.txt")
        tempfile.tempdir = str(self.place / "tmp")
        with atomic.scratch():
            pass
        tempfile.tempdir = None
        known = self.old.keys() | self.new.keys()
        left = [name for name in content_of(self.place) if "probe.txt" not in name and name.removeprefix("out/") not in known]
        left = [name for name in left if not name.endswith(".partial")]  # what tune has measured, for its next run
        if left or os.listdir(self.place / "tmp"):
            wrong["leftovers"] = f"{left} {os.listdir(self.place / 'tmp')}"
        return wrong

    def _untruth(self, kind: str, code: int, said: str, sides: set[str]) -> str:
        """What does not hold of what was said; ``sides``: of which runs the files were that lay there when it was said."""
        if code not in CODES[kind]:
            return f"exit code {code}: {said}"
        if code == 0:
            return "" if sides == {"new"} else f"exit code 0, and there is {sides}"
        if kind != "kill" and (said.count("\n") or not said.startswith("onnxfuse: ")):
            return f"no single line: {said!r}"
        claims = {"untouched": {"old"}, "nothing was saved": {"old"}, "saved before that": {"new"}, "go on where it was": {"old"}}
        claims |= {"of this run and of an earlier one": {"old", "new"}, "has what it had": {"old"}}
        false = [claim for claim, wanted in claims.items() if claim in said and sides != wanted]
        return f"{sides}: {said}" if false else ""


def content_of(folder: Path) -> dict[str, str]:
    """``content`` without what is staged."""
    return {name: digest for name, digest in content(folder).items() if ".onnxfuse-" not in name}
