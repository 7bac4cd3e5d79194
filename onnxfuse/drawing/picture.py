"""Which nodes stand in which box, and what leads from box to box.

Nodes that follow each other and nothing else, made or taken by one rule, share a box, a row each: a layer is then twenty boxes
and not seventy. Constants are no boxes but part of what reads them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from onnxfuse.rewrite.lines import Line

NOTES = 30
"""Characters of constants and attributes that a row shows; its tooltip has all."""


@dataclass(frozen=True)
class Row:
    """A node: its operator, its constants and attributes in short, the shape of its first output, and all of it in words."""

    op: str
    notes: str
    shape: str
    said: str


@dataclass(frozen=True)
class Box:
    """Some nodes in their order.

    Args:
        rule: what made them, or took them; empty where they are in both graphs.
        end: the name of a value that comes from elsewhere, or goes there; it has no rows.
    """

    rows: tuple[Row, ...]
    rule: str = ""
    end: str = ""
    shape: str = ""


@dataclass(frozen=True)
class Picture:
    """Boxes, and the arrows between them by their numbers."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[int, int], ...]

    @property
    def nodes(self) -> int:
        return sum(len(box.rows) for box in self.boxes)

    @property
    def rules(self) -> list[str]:
        return list(dict.fromkeys(box.rule for box in self.boxes if box.rule))


@dataclass
class _Chains:
    """The lines, and which of them stand together."""

    lines: Sequence[Line]
    rules: Mapping[str, str]
    shown: Collection[str]
    constants: Mapping[str, str]
    makers: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.makers = {name: at for at, line in enumerate(self.lines) for name in line.outputs}

    def reads(self, at: int) -> list[str]:
        """What a node reads, without constants."""
        return [name for name in dict.fromkeys(self.lines[at].inputs) if name not in self.constants]

    def rule(self, at: int) -> str:
        return next((self.rules[name] for name in self.lines[at].outputs if name in self.rules), "")

    def heads(self) -> list[int]:
        """Of each node, the number of the first one in its box."""
        readers: dict[int, set[int]] = {at: set() for at in range(len(self.lines))}
        for at in range(len(self.lines)):
            for name in self.reads(at):
                if name in self.makers:
                    readers[self.makers[name]].add(at)
        heads = list(range(len(self.lines)))
        for at in range(len(self.lines)):
            makers = {self.makers.get(name, -1) for name in self.reads(at)}
            before = makers.pop() if len(makers) == 1 else -1
            if before < 0 or readers[before] != {at} or self.rule(before) != self.rule(at):
                continue
            if not any(name in self.shown for name in self.lines[before].outputs):
                heads[at] = heads[before]
        return heads


def picture(
    title: str,
    lines: Iterable[Line],
    shapes: Mapping[str, str] | None = None,
    rules: Mapping[str, str] | None = None,
    shown: Collection[str] = (),
) -> Picture:
    """A part of a graph as boxes and arrows.

    Args:
        lines: its nodes, in an order in which each stands behind what it reads.
        shapes: of values, by name.
        rules: by the name of an output, what made or took its node.
        shown: names of values that somebody else reads.
    """
    shapes, every = shapes or {}, list(lines)
    constants = {name: text for line in every for name, text in line.constants}
    kept = [line for line in every if not (line.op == "Constant" and all(name in constants for name in line.outputs))]
    chains = _Chains(kept, rules or {}, shown, constants)
    heads = chains.heads()
    groups: dict[int, list[int]] = {}
    for at, head in enumerate(heads):
        groups.setdefault(head, []).append(at)
    number = {head: place for place, head in enumerate(groups)}
    boxes = [Box(tuple(_row(kept[at], constants, shapes) for at in group), chains.rule(head)) for head, group in groups.items()]
    arrows, ends = list[tuple[int, int]](), dict[str, int]()
    for at, head in enumerate(heads):
        for name in chains.reads(at):
            maker = chains.makers.get(name)
            if maker is None and name not in ends:
                ends[name] = len(boxes)
                boxes.append(Box((), end=name, shape=shapes.get(name, "")))
            begin = ends[name] if maker is None else number[heads[maker]]
            if begin != number[head]:
                arrows.append((begin, number[head]))
    for name in (name for name in dict.fromkeys(shown) if name in chains.makers):
        arrows.append((number[heads[chains.makers[name]]], len(boxes)))
        boxes.append(Box((), end=name, shape=shapes.get(name, "")))
    return Picture(title, tuple(boxes), tuple(dict.fromkeys(arrows)))


def _row(line: Line, constants: Mapping[str, str], shapes: Mapping[str, str]) -> Row:
    read = [constants[name] for name in line.inputs if name in constants]
    notes = [*read, *(f"{name}={text}" for name, text in line.attributes)]
    shape = shapes.get(line.outputs[0], "") if line.outputs else ""
    said = [
        f"{line.op} at {', '.join(line.outputs)}",
        *(f"reads {name}{_is(constants.get(name) or shapes.get(name, ''))}" for name in line.inputs),
        *(f"{name} = {text}" for name, text in line.attributes),
        *(f"gives {shape}" for shape in [shape] if shape),
    ]
    return Row(line.op, short(", ".join(notes), NOTES), shape, "; ".join(said))


def _is(text: str) -> str:
    return f" ({text})" if text else ""


def short(text: str, most: int) -> str:
    """The begin of a text that is too long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
