"""Why a row has no answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 1 << 18
"""Characters of a text; one that is longer is a mistake more likely than a text, and holds up all others."""

DEEP = "is JSON nested too deeply"

TORN = "holds half a character (a lone surrogate)"


def is_torn(text: str) -> bool:
    """Whether a text holds half a character: it has no UTF-8."""
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def written(value: Any) -> str:
    """A value of a row as text. Raises ValueError: why it has none."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise ValueError(DEEP) from None
    if is_torn(text):
        raise ValueError(TORN)
    return text


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
        if is_torn(value):
            return f"{said}{TORN}"
    return ""
