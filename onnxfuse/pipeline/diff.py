"""One layer of a model before and after: which rule took each node, and which one made what stands there now.

Where the second model is what the rules make of the first, they are applied again and their trace tells; else nodes are held
against each other by their operator, their attributes and the names of what they write.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onnxfuse.drawing import pages
from onnxfuse.drawing.layout import lay_out
from onnxfuse.drawing.picture import Picture, picture
from onnxfuse.errors import UsageError
from onnxfuse.io import atomic, places
from onnxfuse.io.ours import Replaceable
from onnxfuse.io.progress import Progress, silent
from onnxfuse.pipeline.layers import BEFORE, in_order, within
from onnxfuse.pipeline.sides import Side, made_by
from onnxfuse.rewrite.lines import Line

HERE = "only here"
"""What stands in a rule's place where no rules are known."""


@dataclass(frozen=True)
class Count:
    """What a rule did in a part: the nodes that it took, and those that it made."""

    rule: str
    before: int
    after: int


@dataclass(frozen=True)
class Difference:
    """A part of two models.

    Args:
        first, second: the files.
        layer: the part's name; ``layers`` are those of all parts.
        how: what the colours rest on, in words.
    """

    first: Path
    second: Path
    layer: str
    layers: list[str]
    how: str
    before: Picture = field(repr=False)
    after: Picture = field(repr=False)

    @property
    def rules(self) -> list[str]:
        """In the order of the result, then what only the source shows."""
        return list(dict.fromkeys([*self.after.rules, *self.before.rules]))

    @property
    def counts(self) -> list[Count]:
        taken, made = (Counter(box.rule for box in part.boxes for _ in box.rows) for part in (self.before, self.after))
        return [Count(rule, taken[rule], made[rule]) for rule in self.rules]

    @property
    def slug(self) -> str:
        """A name for drawings in a page, unlike that of the same layer of other files."""
        return re.sub(r"\W+", "-", f"{self.layer}-{self.second.stem}")

    def drawings(self) -> list[Any]:
        """Both pictures as SVG, for a page. Raises MissingExtraError."""
        parts = (("before", self.before), ("after", self.after))
        return [pages.svg(lay_out(part), self.rules, f"{self.slug}-{name}") for name, part in parts]

    def to_json(self) -> dict[str, Any]:
        return {
            "first": str(self.first),
            "second": str(self.second),
            "layer": self.layer,
            "layers": self.layers,
            "how": self.how,
            "nodes": [self.before.nodes, self.after.nodes],
            "rules": [asdict(each) for each in self.counts],
        }


NAME = "diff.html"


def diff(
    first: Path, second: Path, out: Path, layer: str = "", progress: Progress = silent, *, overwrite: bool = False
) -> Difference:
    """Draw a layer of two models beside each other into one HTML file.

    Args:
        layer: as of ``compare``.

    Raises:
        UsageError: there is no such layer, or ``out`` is taken. ModelError: a model is broken.
        MissingExtraError: jinja2 or pygraphviz is not installed.
    """
    guard = Replaceable((first, second), overwrite, is_page)
    require_place(out, guard)
    progress(f"reading {first} and {second}")
    found = compare(first, second, layer)
    progress("drawing")
    told = _told(first, second)
    title = f"{found.layer} of {told[0]} and {told[1]}"
    names = {name: places.way(path, out.parent) for name, path in (("first", first), ("second", second))}
    content = {"title": title, "difference": found, "drawings": found.drawings(), "classes": pages.classes(found.rules)}
    atomic.save_text(pages.page("diff.html", **content, **names), out, guard)
    return found


def require_place(out: Path, guard: Replaceable) -> None:
    """To be asked before the work. Raises UsageError: ``out`` is no .html file, or is taken."""
    if out.suffix not in (".html", ".htm"):
        raise UsageError(f"--output {out}: wanted a file ending in .html")
    guard.require(out)


def is_page(path: Path) -> bool:
    """Whether a file is a page that onnxfuse wrote."""
    return path.is_file() and b'<meta name="generator" content="onnxfuse">' in path.read_bytes()[:1000]


def compare(first: Path, second: Path, layer: str = "") -> Difference:
    """What became of a layer.

    Args:
        layer: "embeddings", "head" or a number; empty takes the first layer, or what there is where none is found.

    Raises:
        UsageError: there is no such layer. ModelError: a model is broken.
    """
    before, after = (Side.of(path) for path in (first, second))
    found, how = made_by(before, after, first, second)
    together = {*before.layers.values(), *after.layers.values()}
    for side in (before, after):
        side.gather(together)
    before.follow(after, found)
    layers = in_order(after.layers.values())
    name = _chosen(layer, layers, second)
    left, right = before.lines(name), after.lines(name)
    if found is None:
        taken, made = _only(left, after.all, HERE), _only(right, before.all, HERE)
    else:
        taken, made = _only(left, after.all, pages.GONE) | found.taken, found.made
    told = _told(first, second)
    return Difference(
        first,
        second,
        name,
        layers,
        how,
        picture(f"before: {told[0]}", left, before.shapes, taken, before.shown(left)),
        picture(f"after: {told[1]}", right, after.shapes, made, after.shown(right)),
    )


def _only(part: Iterable[Line], other: Iterable[Line], said: str) -> dict[str, str]:
    """What is said of nodes whose like the other graph has not: one that computes the same and is called the same."""
    there = {(line.op, line.outputs, line.attributes) for line in other}
    return {name: said for line in part if (line.op, line.outputs, line.attributes) not in there for name in line.outputs}


def _told(first: Path, second: Path) -> tuple[str, str]:
    """The names of two files, with their folders where they are called the same."""
    if first.name != second.name:
        return first.name, second.name
    return f"{first.resolve().parent.name}/{first.name}", f"{second.resolve().parent.name}/{second.name}"


def _chosen(layer: str, layers: list[str], path: Path) -> str:
    wanted = f"layer {layer}" if re.fullmatch("[0-9]+", layer) else layer.casefold()
    if not wanted:
        return next((name for name in layers if name.startswith("layer")), layers[0] if layers else BEFORE)
    found = within(wanted, layers)
    if found not in layers:
        raise UsageError(f"{path} has no {wanted!r}; choose one of {', '.join(name.removeprefix('layer ') for name in layers)}")
    return found
