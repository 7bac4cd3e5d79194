"""Lines of files from any place in these on, and the records of .csv and .tsv that they make."""

from __future__ import annotations

import csv
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from onnxfuse.errors import UsageError

LINE = 16 << 20
"""Bytes of a line, or of a record over several, that are read: what is longer is a row that cannot be."""

TOO_LONG = f"a line of more than {LINE >> 20} MiB"


CARRIAGE = "a carriage return inside a line"

WIDE = re.compile(rb"(?P<wider>\xff\xfe\0\0|\0\0\xfe\xff)|\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]", re.DOTALL)
"""How UTF-32 and UTF-16 begin, the latter without a byte order mark, too, where the first two letters are Latin."""


def begun(path: Path, at: int) -> BinaryIO:
    """A file from a place on, behind its byte order mark. Raises UsageError: it begins as UTF-16 or UTF-32 does."""
    file = path.open("rb")
    mark = file.read(4)
    if wide := WIDE.match(mark):
        file.close()
        raise UsageError(f"{path} is in {'UTF-32' if wide['wider'] else 'UTF-16'}; save it as UTF-8")
    file.seek(3 if at == 0 and mark[:3] == b"\xef\xbb\xbf" else at)
    return file


def lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Where the next line begins, and this one with its end; None for one that is longer than ``LINE``."""
    while line := file.readline(LINE + 1):
        whole = len(line) <= LINE or line.endswith(b"\n")
        while not line.endswith(b"\n") and (more := file.readline(LINE)):
            line, whole = more, False
        yield file.tell(), line if whole else None


def records(path: Path, at: int, delimiter: str, quoting: Any) -> Iterator[tuple[int, list[str], str]]:
    """Where the next record begins, this one's fields, and why it cannot be split: then it is its first line alone."""
    form = csv.reader((), delimiter=delimiter, quoting=quoting, strict=True).dialect
    with begun(path, at) as file:
        told = _Told(file)
        while True:
            try:
                fields = _next(csv.reader(told, form))
            except StopIteration:
                return
            except csv.Error as error:
                told.known = max(told.known, told.last)
                told.begin_at(told.first)
                why = CARRIAGE if "new-line character" in str(error) else error
                yield told.begin, [], f"cannot be split into columns ({why})"
                continue
            if told.skipped:  # it ends, so what was skipped is its own
                told.known = 0
                told.begin_at(told.begin)
                continue
            told.begin_here()
            yield told.begin, fields, ""


class _Told:
    """Lines as texts for csv, which asks for more of them while a quote is open. A byte that is no UTF-8 is half a character.

    The lines behind the first of a record that failed are read anew. If one of these leaves a quote open, csv would go through
    the same lines in the same state again: they are skipped up to ``known``, so that many stray quotes stay cheap.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.known = file, 0
        self.begin_at(file.tell())

    def begin_at(self, place: int) -> None:
        """The next record begins at a place."""
        self.after = self.file.seek(place)
        self.lines = lines(self.file)
        self.begin_here()

    def begin_here(self) -> None:
        """The next record begins behind the last line."""
        self.begin = self.first = self.last = self.after
        self.skipped = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Raises csv.Error: a line is too long, or a quote is not closed, or only far behind."""
        is_open = self.first > self.begin
        if is_open and self.after < self.known:
            self.after, self.skipped = self.file.seek(self.known), True
        self.last = self.after
        self.after, line = next(self.lines, (self.last, None))
        if self.after == self.last:
            if is_open:
                raise csv.Error("a quote is never closed")
            raise StopIteration
        if not is_open:
            self.first = self.after
        elif self.after - self.begin > LINE:
            raise csv.Error(f"a quote is not closed within {LINE >> 20} MiB")
        if line is None:
            raise csv.Error(TOO_LONG)
        return line.decode(errors="surrogateescape")


_LIMIT = threading.Lock()
"""Held while the limit of a field is ours: csv has one for all threads."""


def _next(reader: Iterator[list[str]]) -> list[str]:
    with _LIMIT:
        before = csv.field_size_limit(LINE)
        try:
            return next(reader)
        finally:
            csv.field_size_limit(before)
