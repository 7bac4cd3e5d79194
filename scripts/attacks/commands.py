"""Wrong command lines: options that no verb has, values out of range, paths that are none, targets that do not describe one."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attacks import configs
from attacks.child import Case, Command, Room
from attacks.escapes import furnish
from attacks.sources import Sources
from onnxfuse.cli import app

VERBS = tuple(verb.__name__ for verb in app.VERBS)
SERVES = {"view ''", "view checkpoint/vocab.txt"}
"""Lines that are not wrong: the current folder has a model, and Netron shows any file."""

QUICK = "--rounds 1 --batch 1 --length 8 --threads 1"
WORDS = {"HUGE": "9" * 400, "LONG": "a/" * 3000, "NAME": "x" * 300, "QUICK": QUICK}

TARGETS: tuple[Any, ...] = (
    *(configs.WHOLE[name] for name in ("empty", "list", "null", "text", "cut", "deep", "deep-list", "latin", "digits", "surrogate", "wide")),
    {}, {"name": 1, "opset": 0, "why": ""}, *({"name": "x", "opset": value, "why": ""} for value in (-1, 1, 99, 2**70, "17", None, [], True, 1e400)),
    *({"name": "x", "opset": 0, "why": "", "highest": value} for value in (-1, 0, "x", None, 10**9)),
    *({"name": "x", "opset": 0, "why": "", "session": value} for value in (
        [], "x", None, {"threads": "x"}, {"threads": -1}, {"threads": 10**9}, {"threads": None}, {"runtime": "evil"}, {"runtime": 3}, {"spinning": "no"}, {"evil": 1}, {"denormals_as_zero": []})),
    *({"name": "x", "opset": 0, "why": "", "qkv": value} for value in ("evil", 1, [], {}, None)),
    {"name": "x", "opset": 0, "why": "", "evil": "x"}, {"name": "x", "opset": 0, "why": "", "measured": 5}, {"name": "../x", "opset": 0, "why": 3},
)  # fmt: skip


def cases(sources: Sources, _: int) -> list[Case]:
    """Every line, and every target with the verbs that take one."""
    found = [Case("commands", name, name.split()[0], _builder(sources, line)) for name, line in _named()]
    for number, content in enumerate(TARGETS):
        for verb in ("optimize", "tune"):
            line = f"{verb} model.onnx --target target.json" + (f" {QUICK}" if verb == "tune" else " -o made.onnx")
            found.append(Case("commands", f"target-{number}", verb, _builder(sources, line, content)))
    return found


def _named() -> Iterator[tuple[str, str]]:
    """The lines of commands.txt, by what is written there."""
    for row in Path(__file__).with_name("commands.txt").read_text(encoding="utf-8").splitlines():
        begin, there, ends = row.partition(" ::")
        for verb in VERBS if begin == "VERB" else (begin,) if there else ():
            for end in ends.split("|"):
                name = f"{verb} {end.strip()}".strip()
                if name not in SERVES:
                    yield name, re.sub("|".join(WORDS), lambda word: WORDS[word[0]], name)


def _builder(sources: Sources, line: str, target: Any = None) -> Callable[[Room], Command]:
    def build(room: Room) -> Command:
        furnish(room, sources)
        _odd(room.work)
        if target is not None:
            (room.work / "target.json").write_bytes(target if isinstance(target, bytes) else json.dumps(target).encode())
        return shlex.split(line)

    return build


def _odd(folder: Path) -> None:
    """What lines name: a pipe, links in a circle, and a folder that nobody may write to (root may)."""
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "socket.onnx")
    (folder / "circle").symlink_to("circle")
    (folder / "locked").mkdir()
    (folder / "locked" / "model.onnx").write_bytes(b"")
    (folder / "locked").chmod(0o500)
