"""What continuous integration reads: JUnit XML, and annotations of GitHub's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from onnxfuse.errors import OnnxfuseError, RequirementError, printable
from onnxfuse.io import atomic, places

SUITE = "onnxfuse"
"""What the names of our suites begin with."""


@dataclass
class Report:
    """The cases of a verb, as it finds them: names, each with why it fails, "" where it does not."""

    cases: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def report(verb: str, path: Path | None, *, overwrite: bool, sources: Sequence[Path] = ()) -> Iterator[Report]:
    """Write the cases that the block adds into ``path`` as JUnit XML, also where it ends with an OnnxfuseError; paths go.

    An error that names cases (``RequirementError.cases``) adds these; another one is a case of its own, unless one fails already.

    Args:
        path: None writes nothing.
        sources: what the verb reads and writes; no file of them is replaced.

    Raises:
        UsageError: another file is in the way, before the block runs.
    """
    found = Report()
    if path is None:
        yield found
        return
    from onnxfuse.io.ours import Replaceable  # it reads models' metadata, and this is imported for --help

    guard = Replaceable(tuple(sources), overwrite, is_report, "--junit")
    guard.require(path)
    try:
        yield found
    except OnnxfuseError as error:
        found.cases += error.cases if isinstance(error, RequirementError) else ()
        if not any(why for _, why in found.cases):
            found.cases.append((verb, str(error)))
        raise
    finally:
        if found.cases:
            with atomic.replacing(path, guard) as staged:
                near = (path, *sources)
                staged.write_bytes(_xml(verb, [(places.told(name, *near), places.told(why, *near)) for name, why in found.cases]))


def is_report(path: Path) -> bool:
    """Whether a file is a report that ``report`` wrote."""
    return path.is_file() and f'<testsuite name="{SUITE} '.encode() in path.read_bytes()[:1000]


def _xml(verb: str, cases: Sequence[tuple[str, str]]) -> bytes:
    failures = sum(1 for _, why in cases if why)
    suites = ElementTree.Element("testsuites")
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0", "skipped": "0"}
    suite = ElementTree.SubElement(suites, "testsuite", {"name": f"{SUITE} {verb}", **counts})
    for name, why in cases:
        case = ElementTree.SubElement(suite, "testcase", {"classname": f"{SUITE}.{verb}", "name": printable(name)})
        if why:
            text = printable(why).replace("\n", " ")
            ElementTree.SubElement(case, "failure", {"message": text}).text = text
    ElementTree.indent(suites)
    content: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def annotate(message: str) -> None:
    """In GitHub's Actions, show an error beside the run; its runner reads such lines on stderr too.

    Source: GitHub's documentation of workflow commands; what is escaped, its toolkit's package core.
    """
    if os.environ.get("GITHUB_ACTIONS") == "true":
        text = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        sys.stderr.write(f"::error title=onnxfuse::{text}\n")
