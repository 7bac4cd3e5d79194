"""The errors a user can meet, each with its exit code.

Every message is one line: what went wrong, where, what was seen, what was wanted, and the next step. The command line
prints that line and leaves with the code; a traceback appears only with ``--debug``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""Characters that a terminal obeys, or that turn the direction of a text: all but tabs and line ends. Half characters, which are
none, stand in the names of files that are no UTF-8."""


COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""What exporters put into their messages to colour them in a terminal."""

ADDRESS = re.compile(r"<([\w.]+) object at 0x[0-9a-f]+>")
"""What Python shows of an object that has no text: its class, which may tell something, and its address, which does not."""


def printable(text: str) -> str:
    r"""A text with \x1b and the like in the place of what a terminal would obey: names in a stranger's file may be any text."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class OnnxfuseError(Exception):
    """Base of every error that onnxfuse raises on purpose. ``exit_code`` is what the command line leaves with."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(OnnxfuseError):
    """The call itself is wrong: an unknown name, a missing path, an output that is its own input."""

    exit_code = 2


class ModelError(OnnxfuseError):
    """The model is broken, unsafe, or not of a kind that onnxfuse handles."""

    exit_code = 3


class NothingToQuantizeError(ModelError):
    """A model has no matrix product that int8 would make faster."""


class UncalibratedError(OnnxfuseError):
    """There is nothing to calibrate with, and nobody asked for it; the text says why."""

    exit_code = 3


class ExportError(OnnxfuseError):
    """The checkpoint could not be loaded or exported."""

    exit_code = 4


class ParityError(OnnxfuseError):
    """Two models that must agree do not, or a comparison could not have failed."""

    exit_code = 5


class RequirementError(OnnxfuseError):
    """What the caller asked for with ``--require`` or a threshold was not reached.

    ``cases``: what was asked for, each with why it is not met, "" where it is.
    """

    exit_code = 6

    def __init__(self, message: str, cases: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.cases = tuple(cases)


class MissingExtraError(OnnxfuseError):
    """A feature needs packages that are not installed."""

    exit_code = 7

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs packages that are not installed; run: pip install 'onnxfuse[{extra}]'")


class NotBuiltError(OnnxfuseError):
    """A feature needs the library of our own kernels, which is built with a compiler."""

    exit_code = 7


class StorageError(OnnxfuseError):
    """Reading or writing a file failed (disk full, no permission); the old file is whole."""

    exit_code = 8


class BadRowsError(OnnxfuseError):
    """More rows of a data set are bad than may be; the answers to all others are written."""

    exit_code = 9


TERMINATED = 143
"""Exit code after SIGTERM, which ends a run as Ctrl-C does (128 + SIGTERM)."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells define it (128 + SIGINT)."""


class InterruptedWorkError(OnnxfuseError):
    """Ctrl-C where something worth keeping was kept."""

    exit_code = INTERRUPTED


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for messages of one line."""
    return (printable(COLOUR.sub("", str(error))).strip().splitlines() or [type(error).__name__])[0]


def reason(error: BaseException, name: object = "") -> str:
    """What is wrong, for a message with its own place and next step: an error without ``name`` in front, and without advice."""
    return one_line(error).removeprefix(str(name)).lstrip(": ").partition("; ")[0]


def one_line(error: BaseException, limit: int = 300) -> str:
    """An error's whole text as one line, cut at ``limit`` characters."""
    text = ADDRESS.sub(r"\1", " ".join(printable(COLOUR.sub("", str(error))).split())) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
