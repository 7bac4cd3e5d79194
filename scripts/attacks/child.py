"""One attack in a forked child of a process that has everything imported: how it ended, and what it touched outside."""

from __future__ import annotations

import faulthandler
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attacks.watch import Watch

SECONDS, BYTES, NET = 30.0, 2 << 30, 16 << 30
"""A call may take so long, and so much more memory than the process had at its start; ``NET`` of address space protects the
machine from what is faster than the watch."""

CODES = frozenset({0, 2, 3, 4, 5, 6, 7, 8, 130, 143})
"""What onnxfuse/cli/app.py says that it ends with."""

DIFFERS = 99
"""The code of a call whose fellows said something else."""

GOOD = ("done", "refused")
BAD = ("traceback", "lines", "code", "hang", "memory", "signal", "outside read", "outside write", "differs")
"""``lines``: not exactly one line of ours on stderr. ``code``: not a documented one. ``differs``: not the same as its fellows."""

Command = Sequence[str] | Callable[[], None]


@dataclass(frozen=True)
class Case:
    """One attack.

    Args:
        part, name: what is attacked, and how.
        verb: what reads it.
        build: lays files into the case's folders and gives the command line, or a call that ends as a verb does.
        allowed: whether the file outside may be read (a control: what is inside, or what the user typed himself).
        refuse: whether to end well is to have read what must not be read (a device, a file that no watch sees).
    """

    part: str
    name: str
    verb: str
    build: Callable[[Room], Command]
    allowed: bool = False
    refuse: bool = False

    def __str__(self) -> str:
        return f"{self.part}: {self.verb} on {self.name}"


@dataclass(frozen=True)
class Room:
    """The folders of a case: ``work``, where it runs, and ``outside``, which nothing may read or write."""

    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def outside(self) -> Path:
        return self.folder / "outside"


@dataclass(frozen=True)
class Outcome:
    """How a case ended: one of ``GOOD`` and ``BAD``; ``opened``: files outside that were opened, whatever came of it."""

    case: Case
    kind: str
    code: int
    seconds: float
    peak: int
    text: str
    opened: tuple[str, ...] = field(default=())

    @property
    def bad(self) -> bool:
        return self.kind in BAD


SECRET = b"a secret of the folder outside"
"""Stands in every file outside; where it comes out, that file was copied."""


def attempt(case: Case, folder: Path, run: Callable[[Sequence[str]], None]) -> Outcome:
    """Build a case in ``folder``, run it in a child, and judge it. ``run``: a command line, ending with SystemExit."""
    room = Room(folder)
    room.work.mkdir(parents=True)
    room.outside.mkdir()
    command = case.build(room)
    watch, before = Watch(room.outside), _inside(room.work)
    pid = os.fork()
    if not pid:
        _child(room, command, run)
    status, seconds, peak, killed = _wait(pid)
    touched = watch.close()
    text = (folder / "stderr").read_text(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    read = code == 0 and (bool(touched.opened) or case.refuse)
    leaked = not case.allowed and (read or SECRET.decode() in text or _leaks(room, before))
    kind = "outside write" if touched.written else "outside read" if leaked else killed or _kind(code, text)
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(case, kind, code, seconds, peak, text, tuple(sorted(touched.opened)))


def _child(room: Room, command: Command, run: Callable[[Sequence[str]], None]) -> None:
    """Never returns."""
    code = 70
    try:
        os.setsid()
        faulthandler.disable()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + NET, used + NET))
        temporary = room.folder / "tmp"
        temporary.mkdir()
        os.environ["TMPDIR"] = str(temporary)
        os.chdir(room.work)
        for stream, name, flags in ((0, os.devnull, os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY)):
            os.dup2(os.open(room.folder / name, flags | os.O_CREAT), stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", encoding="utf-8", closefd=False) for stream in (1, 2))
        try:
            command() if callable(command) else run(command)
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the parent counts it
        traceback.print_exc()
        sys.stderr.flush()
        code = 1
    finally:
        os._exit(code)


def _wait(pid: int) -> tuple[int, float, int, str]:
    """The child's status, seconds, most memory over its start, and ``hang`` or ``memory`` when it had to be killed."""
    begin, start, peak, killed = time.monotonic(), memory(pid), 0, ""
    while True:
        done, status, _ = os.wait4(pid, os.WNOHANG)
        seconds = time.monotonic() - begin
        if done:
            _kill(pid)
            return status, seconds, peak, killed
        peak = max(peak, sum(memory(each) for each in family(pid)) - start)
        if not killed and (seconds > SECONDS or peak > BYTES):
            killed = "hang" if seconds > SECONDS else "memory"
            _kill(pid)
        time.sleep(0.002 if seconds < 0.1 else 0.02)


def _kill(pid: int) -> None:
    """End a case's process and what it started, which are a session of their own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def memory(pid: int) -> int:
    """Bytes that a process holds for itself, without files that it maps; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def family(pid: int) -> list[int]:
    """A process and what it started."""
    found = [pid]
    for each in found:
        try:
            for thread in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue
    return found


def _kind(code: int, text: str) -> str:
    if "Traceback (most recent call last)" in text:
        return "traceback"
    if code < 0:
        return "signal"
    if code == DIFFERS:
        return "differs"
    if code not in CODES:
        return "code"
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("  ")]
    if code == 0:
        return "lines" if lines else "done"
    return "refused" if len(lines) == 1 and lines[0].startswith("onnxfuse: ") else "lines"


def _inside(folder: Path) -> set[Path]:
    """Files of a folder that themselves hold the secret: given, not leaked."""
    return {path for path in _files(folder) if SECRET in path.read_bytes()}


def _leaks(room: Room, before: set[Path]) -> bool:
    return any(SECRET in path.read_bytes() for path in (*_files(room.work), room.folder / "stdout") if path not in before)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 26]
