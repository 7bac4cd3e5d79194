"""docs/json.md against what --json prints: the keys of an answer as paths, and those that the page lists."""

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "json.md"


ENDS = {"target.*"}
"""Keys below which the page lists nothing: a target's file."""


def listed(verb: str) -> dict[str, str]:
    """The keys of a verb's section, each with its meaning; a key of another section's that it refers to included."""
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    keys = {}
    for key, meaning in re.findall(r"^\| `([^`]+)` \| (.*) \|$", sections[verb], re.MULTILINE):
        part = re.search(r"an? \*(\w+)\*", meaning)
        keys |= {key: meaning} | {key[: at.start()]: meaning for at in re.finditer(r"\.(?!\*)|\[\]|\.(?=\*)", key)}
        if part:
            keys |= {f"{key}.{inner}": f"{meaning}; {what}" for inner, what in listed(part[1]).items()}
    return keys


def paths(value: Any, free: set[str], at: str = "") -> set[str]:
    """The paths of all keys; ``[]`` stands for the items of a list, ``*`` for keys that are names (those of ``free``)."""
    if isinstance(value, dict):
        found = set()
        for key, item in value.items():
            named = f"{at}.*".lstrip(".")
            path = named if named in free else f"{at}.{key}".lstrip(".")
            found |= {path} | paths(item, free, path)
        return found
    if isinstance(value, list):
        return {f"{at}[]" for _ in value} | {path for item in value for path in paths(item, free, f"{at}[]")}
    return set()


def require(verb: str, answer: dict[str, Any]) -> None:
    """The answer has the keys that the page lists and no other; those that it calls optional may be absent."""
    keys = {"schema": ""} | listed(verb)
    free = {key for key in keys if key.endswith(".*")}
    seen = {path for path in paths(answer, free) if not any(path.startswith(f"{key}.") for key in ENDS & free)}
    assert answer["schema"] == 1
    assert seen <= set(keys), f"not on the page: {sorted(seen - set(keys))}"
    optional = {key for key, meaning in keys.items() if "optional" in meaning}
    lacking = {key for key in set(keys) - seen - optional if not key.endswith(("*", "[]")) and _there(answer, key)}
    assert not lacking, f"on the page and not in the answer: {sorted(lacking)}"


def _there(answer: Any, key: str) -> bool:
    """Whether what holds a key is there: null, an empty list and an empty object hold none."""
    for part in key.split(".")[:-1]:
        name, listed_ = part.removesuffix("[]"), part.endswith("[]")
        if name == "*":
            values = list(answer.values())
            answer = values[0] if values else None
        else:
            answer = answer.get(name) if isinstance(answer, dict) else None
        if listed_:
            answer = answer[0] if answer else None
        if answer is None:
            return False
    return isinstance(answer, dict)
