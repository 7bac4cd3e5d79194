"""How long work says where it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from onnxfuse.errors import UsageError


class Progress(Protocol):
    """Told what happens next.

    Args of a call: ``text`` names a phase in a few words, the same throughout; ``done`` is how much of it is done (0 to 1), and
    ``step`` where in it the work is, where these are known.
    """

    def __call__(self, text: str, done: float | None = None, step: str = "") -> None: ...


Share = Callable[[float, str], None]
"""Told how much of one phase is done (0 to 1), and where in it the work is: ``partial(progress, text)``."""

T = TypeVar("T")


def untold(done: float, step: str = "") -> None:
    """A Share that says nothing."""


def counted(items: Sequence[T], tell: Share, begin: float = 0.0, end: float = 1.0) -> Iterator[T]:
    """The items one after another, each told of before it: as much of the phase as lies from ``begin`` to ``end``."""
    for at, item in enumerate(items):
        tell(begin + (end - begin) * at / len(items), f"{at + 1} of {len(items)}")
        yield item


def silent(text: str, done: float | None = None, step: str = "") -> None:
    """A Progress that says nothing."""


def require_callable(progress: object) -> None:
    """Raises UsageError for what cannot be told where work is."""
    if not callable(progress):
        raise UsageError(f"progress is a {type(progress).__name__}, wanted a function: see onnxfuse.io.progress")


class Lines:
    """A Progress for a log: one line for each phase, indented, whatever the number of its steps."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write, self.last = write, ""

    def __call__(self, text: str, done: float | None = None, step: str = "") -> None:
        if text != self.last:
            self.last = text
            self.write(f"  {text}")
