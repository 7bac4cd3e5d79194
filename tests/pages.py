"""The pages of the documentation, block by block, and whether what a command prints is what its page shows.

Every block is fenced, and says what it is: ``sh`` has a command in each line; ``console`` has commands after ``$``, each with what
it prints on stdout; ``python`` goes on where the page's last one ended, and what it prints may stand behind ``# prints:``. A
comment in front keeps a block from being run by the tests: ``<!-- not run: why -->``, or, where scripts/newcomer.py runs it,
``<!-- newcomer: why -->``. ``# exit code 5`` behind a command is the one that it ends with.

Two machines print the same but for what they measure. Numbers with a decimal point or an exponent (times, sizes, speeds, rounding,
versions) stand for any such number, and so does the number of threads or cores; other whole numbers and all words are the same.
``...`` alone stands for any lines, ``…`` for the rest of one. Blanks and the lines of tables, as wide as their numbers, do not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = tuple(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))))

BLOCK = re.compile(r"(?:^ *<!-- ((?:not run|newcomer): [^\n]+) -->\n)?^( *)```(\S*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n) {4,}(?! *[-*|]).+")

MEASURED = re.compile(r"\d+(?:\.\d+)+(?:e[-+]?\d+)?%?|\d+e[-+]?\d+|\d+(?= threads\b| cores\b| of \d+ cores\b)")
WHOLE = re.compile(r"#|\d+")
REST = "…"
FRAME = re.compile(r"[\s\u2500-\u257f]+")


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Args:
        page: the file, from the repository's root.
        line: where it begins.
        kind: what stands behind its fence.
        text: what stands in it.
        mark: the comment in front of it; empty where there is none.
    """

    page: str
    line: int
    kind: str
    text: str
    mark: str

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """The commands of ``sh`` and ``console``, each with the lines that the page shows; ``...`` where it shows none."""
        if self.kind == "sh":
            return [(line, ["..."]) for line in self.text.splitlines() if line]
        found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", self.text, re.MULTILINE)
        return [(command, printed.splitlines()) for command, printed in found]

    @property
    def prints(self) -> list[str]:
        """What ``python`` prints as its comments say: ``...`` where none does."""
        return re.findall(r"# prints: (.*)$", self.text, re.MULTILINE) or ["..."]


def exit_code(command: str) -> int:
    """The one that a command of a page ends with."""
    said = re.search(r"# exit code (\d+)$", command)
    return int(said[1]) if said else 0


def blocks(page: str, root: Path = ROOT) -> list[Block]:
    """The blocks of a page, in order; of another clone's with its ``root``."""
    text = (root / page).read_text()
    return [
        Block(
            page,
            text[: found.start()].count("\n") + 1,
            found[3],
            re.sub(f"^{found[2]}", "", found[4], flags=re.MULTILINE),
            found[1] or "",
        )
        for found in BLOCK.finditer(text)
    ]


def indented(text: str) -> list[str]:
    """Lines that Markdown takes for code without a fence."""
    return INDENTED.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def essence(line: str, *, exact: bool) -> str:
    """A line without what differs from machine to machine; without ``exact``, from model to model: all numbers."""
    plain = MEASURED.sub("#", FRAME.sub(" ", line).strip())
    return plain if exact else WHOLE.sub("#", plain)


def same(wanted: str, line: str, *, exact: bool) -> bool:
    """Whether a printed line is what a page shows."""
    beginning = essence(wanted.removesuffix(REST), exact=exact)
    found = essence(line, exact=exact)
    return found.startswith(beginning) if wanted.endswith(REST) else found == beginning


def difference(shown: Sequence[str], printed: Sequence[str], *, exact: bool = True) -> str:
    """The first line in which what was printed is not what a page shows; empty where all are the same."""
    lines = [line for line in printed if essence(line, exact=exact)]
    at, skipping = 0, False
    for wanted in filter(lambda line: essence(line.removesuffix(REST), exact=exact), shown):
        if wanted.strip() == "...":
            skipping = True
            continue
        while skipping and at < len(lines) and not same(wanted, lines[at], exact=exact):
            at += 1
        if at == len(lines) or not same(wanted, lines[at], exact=exact):
            return f"the page shows {wanted!r}, printed is {lines[at] if at < len(lines) else 'nothing more'!r}"
        at, skipping = at + 1, False
    return "" if skipping or at == len(lines) else f"the page ends, and there is {lines[at]!r}"
