"""Why a row has no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 1 << 18
"""Characters of a text; one that is longer is a mistake more likely than a text, and holds up all others."""


def flaw(values: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Why the texts in some columns have no answer; empty where they can have one."""
    for column in columns:
        value = values.get(column)
        said = "" if len(columns) == 1 else f"{column} "
        if value is None:
            return f"{said}is null" if column in values else f"has no {column}"
        if not isinstance(value, str):
            return f"{said}is {type(value).__name__}, wanted a text"
        if not value.strip():
            return f"{said}is empty"
        if len(value) > LONGEST:
            return f"{said}has {len(value)} characters, at most {LONGEST} are read"
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return f"{said}holds half a character (a lone surrogate)"
    return ""
