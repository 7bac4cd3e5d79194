"""Real English sentences that every Python has: the docstrings of the standard library."""

from __future__ import annotations

import ast
import functools
import re
import sys
import sysconfig
from collections import deque
from collections.abc import Iterator
from pathlib import Path

FOLDERS = (
    "",
    "asyncio",
    "concurrent/futures",
    "email",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "unittest",
    "urllib",
    "wsgiref",
    "xml/dom",
    "xml/etree",
    "xml/sax",
)
WORDS = range(5, 60)
"""Sentences of fewer words are headings, of more are lists run together."""


def docstring_sentences(count: int) -> list[str]:
    """The first ``count`` distinct sentences of the standard library's docstrings, in a fixed order of modules."""
    found: dict[str, None] = {}
    for _, _, text in _docstrings():
        for sentence in _sentences(text):
            found.setdefault(sentence)
            if len(found) == count:
                return list(found)
    return list(found)


def calibration_sentences(count: int) -> list[str]:
    """``count`` sentences spread over the second half of all: none of those that ``docstring_sentences`` gives first."""
    every = _every()
    half = every[len(every) // 2 :]
    return list(half[:: max(1, len(half) // count)][:count])


@functools.cache
def _every() -> tuple[str, ...]:
    """All sentences: to parse the whole library takes seconds, and a chain asks for them at each of its steps."""
    return tuple(docstring_sentences(sys.maxsize))


def reference_sentences(count: int) -> list[str]:
    """The first ``count`` distinct sentences of the language reference that Python's help() shows: another kind of prose."""
    from pydoc_data.topics import topics

    found = dict.fromkeys(sentence for name in sorted(topics) for sentence in _sentences(" ".join(topics[name].split())))
    return list(found)[:count]


def sentences_by_module() -> dict[str, list[str]]:
    """All distinct sentences of each module's docstrings; one that several modules hold counts for the first."""
    owner: dict[str, str] = {}
    for module, _, text in _docstrings():
        for sentence in _sentences(text):
            owner.setdefault(sentence, module)
    return {module: [text for text, name in owner.items() if name == module] for module in dict.fromkeys(owner.values())}


def named_sentences() -> Iterator[tuple[str, str, str]]:
    """(module, name, sentence): of each class and function that says what it does, the first sentence; none twice."""
    seen = set()
    for module, name, text in _docstrings():
        sentence = next(_sentences(text), None)
        if name and sentence is not None and sentence not in seen:
            seen.add(sentence)
            yield module, name, sentence


def _sentences(text: str) -> Iterator[str]:
    for sentence in re.split(r"(?<=[.!?])\s+", " ".join(text.split())):
        whole = sentence[:1].isupper() and sentence.endswith((".", "!", "?")) and sentence.isascii()
        if whole and len(sentence.split()) in WORDS:
            yield sentence


def _docstrings() -> Iterator[tuple[str, str, str]]:
    """(module, name of the class or function or nothing, docstring), in a fixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    for folder in FOLDERS:
        for path in sorted((root / folder).glob("*.py")):
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                continue
            for node in _statements(tree):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield ".".join((*Path(folder).parts, path.stem)), getattr(node, "name", ""), ast.get_docstring(node) or ""


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """What ``ast.walk`` gives, in its order, but for expressions: most of a tree, and nothing in them has a docstring."""
    waiting = deque[ast.AST]([tree])
    while waiting:
        node = waiting.popleft()
        for block in ("body", "handlers", "orelse", "finalbody", "cases"):
            waiting.extend(getattr(node, block, ()))
        yield node
