"""What lays the files of a hostile checkpoint into its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attacks.child import Room

Lay = Callable[[Room, Path], None]


def write(file: str, data: bytes) -> Lay:
    return lambda room, folder: ignore((folder / file).write_bytes(data))


def ignore(_: object) -> None:
    return None


def fields(file: str, **fields: Any) -> Lay:
    """A JSON file with some fields changed; with those alone where it is not there."""

    def lay(room: Room, folder: Path) -> None:
        known = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
        (folder / file).write_text(json.dumps(known | fields))

    return lay


def link(file: str, points: str) -> Lay:
    def lay(room: Room, folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(points.format(outside=room.outside))

    return lay


def pipe(file: str) -> Lay:
    def lay(room: Room, folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return lay


def then(*steps: Lay) -> Lay:
    def lay(room: Room, folder: Path) -> None:
        for step in steps:
            step(room, folder)

    return lay
