"""Where boxes and arrows are: Graphviz's dot decides, from sizes that are known before.

Text is monospaced, so that a row's width follows from its characters on every machine. All numbers are CSS pixels.
Source: Graphviz, "dot language" and "splineType".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnxfuse.drawing.picture import Box, Picture, Row, short
from onnxfuse.errors import MissingExtraError

CHARACTER, LINE, PAD = 6.7, 17.0, 7.0
"""Of text of 11 pixels: the width of a character (monospaced fonts have 0.6 of their size), the height of a row; around it."""

CAPTION = 13.0
"""Height of the line that names a box's rule."""

MARGIN = 4.0
POINT = 72.0
"""Graphviz's sizes are inches of 72 points; a point is a pixel here."""

NAME = 34
"""Characters of a value's name that are shown, its end."""


@dataclass(frozen=True)
class Placed:
    """A box and the place of its left upper corner."""

    box: Box
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Drawing:
    """All boxes and arrows; ``arrows`` as SVG path data, which end where their heads begin to point."""

    picture: Picture
    width: float
    height: float
    boxes: tuple[Placed, ...]
    arrows: tuple[str, ...]


def row_text(row: Row) -> str:
    """As long as what a row shows."""
    return "  ".join(part for part in (row.op, row.notes, row.shape) if part)


def end_text(box: Box) -> str:
    """What stands in the box of a value that comes from elsewhere, or goes there."""
    name = box.end.rsplit("/", 1)[-1]
    return "  ".join(part for part in (name if len(name) <= NAME else f"…{name[1 - NAME :]}", short(box.shape, NAME)) if part)


def _size(box: Box) -> tuple[float, float]:
    if box.end:
        return len(end_text(box)) * CHARACTER + 3 * PAD, LINE + PAD
    texts = [*map(row_text, box.rows), box.rule]
    return max(map(len, texts)) * CHARACTER + 2 * PAD, len(box.rows) * LINE + PAD + (CAPTION if box.rule else 0)


def lay_out(picture: Picture) -> Drawing:
    """Place a picture's boxes from top to bottom, and lead its arrows around them.

    Raises:
        MissingExtraError: pygraphviz is not installed.
    """
    graph = _graphviz()(directed=True, strict=True)
    graph.graph_attr.update(rankdir="TB", nodesep=f"{14 / POINT}", ranksep=f"{20 / POINT}", splines="spline")
    sizes = [_size(box) for box in picture.boxes]
    for number, (width, height) in enumerate(sizes):
        graph.add_node(number, shape="box", fixedsize="true", width=width / POINT, height=height / POINT, label="")
    for begin, end in picture.arrows:
        graph.add_edge(begin, end, tailport="s", headport="n")
    graph.layout(prog="dot")
    right, top = (float(part) for part in graph.graph_attr["bb"].split(",")[2:]) if picture.boxes else (0.0, 0.0)

    def point(text: str) -> str:
        x, y = (float(part) for part in text.split(","))
        return f"{x + MARGIN:.1f},{top - y + MARGIN:.1f}"

    boxes = []
    for number, (box, (width, height)) in enumerate(zip(picture.boxes, sizes, strict=True)):
        x, y = (float(part) for part in graph.get_node(number).attr["pos"].split(","))
        boxes.append(Placed(box, x - width / 2 + MARGIN, top - y - height / 2 + MARGIN, width, height))
    arrows = tuple(_path(graph.get_edge(*arrow).attr["pos"], point) for arrow in picture.arrows)
    return Drawing(picture, right + 2 * MARGIN, top + 2 * MARGIN, tuple(boxes), arrows)


def _path(position: str, point: Any) -> str:
    """Graphviz's spline, "e,END START C1 C2 P ...", as path data; the arrow's head begins where the curve ends."""
    parts = position.replace("\\\n", "").split()
    ends = [part[2:] for part in parts if part.startswith("e,")]
    first, *rest = [part for part in parts if part[1] != ","]
    curve = " ".join(point(each) for each in rest)
    return f"M{point(first)} C{curve} L{point(ends[0])}" if ends else f"M{point(first)} C{curve}"


def _graphviz() -> Any:
    try:
        from pygraphviz import AGraph
    except ImportError as error:
        raise MissingExtraError("drawing graphs", "report") from error
    return AGraph
