"""Real English sentences that every Python has: the docstrings of the standard library."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("", "asyncio", "concurrent/futures", "email", "http", "importlib", "json", "logging", "multiprocessing", "unittest",
           "urllib", "wsgiref", "xml/dom", "xml/etree", "xml/sax")
WORDS = range(5, 60)
"""Sentences of fewer words are headings, of more are lists run together."""


def docstring_sentences(count: int) -> list[str]:
    """The first ``count`` distinct sentences of the standard library's docstrings, in a fixed order of modules."""
    found: dict[str, None] = {}
    for text in _docstrings():
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(text.split())):
            words = sentence.split()
            if len(words) in WORDS and sentence[0].isupper() and sentence.endswith((".", "!", "?")) and sentence.isascii():
                found.setdefault(sentence)
            if len(found) == count:
                return list(found)
    return list(found)


def _docstrings() -> Iterator[str]:
    root = Path(sysconfig.get_path("stdlib"))
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("*.py")):
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield ast.get_docstring(node) or ""
