"""How long work says where it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told what happens next, in a few words, and how much of it is done (0 to 1) where that is known."""

    def __call__(self, text: str, done: float | None = None) -> None: ...


def silent(text: str, done: float | None = None) -> None:
    """A Progress that says nothing."""
