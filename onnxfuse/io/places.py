"""How files that others may read name places: from the folder that they lie in, never by a path of this machine."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from onnxfuse.errors import UsageError
from onnxfuse.io import atomic

ELSEWHERE = "..."
"""Stands before the name of what shares nothing but the root with the folder: the way there would be a path of the machine."""

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
"""What a field that libraries fill with a hub id or a path holds where it may stay."""

FIELDS = ("_name_or_path", "name_or_path", "tokenizer_file", "special_tokens_map_file")
"""In these, libraries write down where a checkpoint lay."""


def way(path: str | Path, home: Path) -> str:
    """A path as a file in the folder ``home`` names it; what is still being made goes by its later place."""
    there, here = (Path(os.path.abspath(atomic.shown(Path(each)))) for each in (path, home))
    try:
        shared = Path(os.path.commonpath([there, here]))
    except ValueError:  # on another drive
        shared = Path(there.anchor)
    return PurePath(os.path.relpath(there, here)).as_posix() if shared.name else f"{ELSEWHERE}/{there.name}"


def origin(source: str, home: Path) -> str:
    """A checkpoint as a file in ``home`` names it: a hub id as it is, what is here by its way, which begins with a dot."""
    if not os.path.lexists(source):
        return source
    named = way(source, home)
    return named if named.startswith(".") else f"./{named}"


def found(named: str, home: Path) -> str:
    """What ``origin`` named in a file in ``home``: a hub id as it is, or a path that is there.

    Raises:
        UsageError: it lay elsewhere or was moved, and nothing of its name is in the current folder.
    """
    if not named.startswith("."):
        return named
    name = PurePath(named).name
    ways = [Path(os.path.normpath(each / named)) for each in (home.absolute(), home.resolve())]  # a link may lead to the folder
    ways = [Path.cwd() / name] if named.startswith(f"{ELSEWHERE}/") else [*ways, Path.cwd() / name]
    for place in ways:
        if place.exists() and not (home.exists() and place.samefile(home)):  # an export often has its checkpoint's name
            return str(place)
    raise UsageError(f"what is in {home} came from {name}, which is not where it was; run this in the folder that holds {name}")


def portable(value: Any, home: Path, near: Sequence[Path] = ()) -> Any:
    """A value as JSON in ``home`` may hold it: paths by their way, texts without the folders of this machine (see ``told``).

    Args:
        near: what the work was given, by whose folders a text may name something.
    """
    if isinstance(value, dict):
        return {str(key): portable(each, home, near) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [portable(each, home, near) for each in value]
    if isinstance(value, Path) or (isinstance(value, str) and os.path.isabs(value) and os.path.lexists(value)):
        return way(value, home)
    return told(value, home, *near) if isinstance(value, str) else value


def told(text: str, *near: Path) -> str:
    """A text for others: of what lies in the folders of ``near``, the current one, home or a temporary one, the names stay."""
    if "/" not in text and os.sep not in text:
        return text
    places = {*_folders((*near, Path.cwd() / "x", Path.home() / "x", Path(tempfile.gettempdir()) / "x"))}
    ordered = sorted(map(str, places), key=len, reverse=True)
    begins = "|".join(re.escape(f"{place}{os.sep}") for place in ordered)
    return re.sub(rf"(?<![\w./\\-])(?:{begins})", "", text)


def paths(value: Any) -> Iterator[Path]:
    """The paths in a plan."""
    if isinstance(value, Path):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from paths(each)


def cleaned(value: Any) -> Any:
    """JSON without the paths that libraries write down in ``FIELDS``; hub ids stay."""
    if isinstance(value, list):
        return [cleaned(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: cleaned(each) for name, each in value.items() if name not in FIELDS or HUB_ID.fullmatch(str(each))}


def _folders(given: Iterable[Path]) -> Iterator[Path]:
    """All folders above what was given, however it is written, the root apart."""
    for path in given:
        for spelled in (Path(os.path.abspath(path)), path.resolve()):
            yield from (folder for folder in spelled.parents if folder.name)
