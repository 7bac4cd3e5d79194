"""One layer of a model before and after: which rule took each node, and which one made what stands there now.

Where the second model is what the rules make of the first, they are applied again and their trace tells; else nodes are held
against each other by the names of what they write.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse import catalog, targets
from onnxfuse.drawing import pages
from onnxfuse.drawing.origins import Origins, origins
from onnxfuse.drawing.picture import Picture, picture
from onnxfuse.errors import OnnxfuseError, UsageError
from onnxfuse.fusions.unpad import NAME as UNPAD
from onnxfuse.io import atomic, door, folders, onnx_file, places
from onnxfuse.io.ours import Replaceable
from onnxfuse.io.progress import Progress, silent
from onnxfuse.model import METADATA
from onnxfuse.optimizer import fuse
from onnxfuse.pipeline.layers import AFTER, BEFORE, homes
from onnxfuse.rewrite.analysis import Analysis, Dim
from onnxfuse.rewrite.lines import Line, sizes
from onnxfuse.runtime.sessions import infer
from onnxfuse.runtime.trial import require_harmless
from onnxfuse.verify.opened import blaming

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
        taken, made = (Counter({rule: 0}) for rule in ("", ""))
        for counter, part in ((taken, self.before), (made, self.after)):
            for box in part.boxes:
                counter[box.rule] += len(box.rows)
        return [Count(rule, taken[rule], made[rule]) for rule in self.rules]

    @property
    def slug(self) -> str:
        """A name for drawings in a page, unlike that of the same layer of other files."""
        return re.sub(r"\W+", "-", f"{self.layer}-{self.second.stem}")

    def drawings(self) -> list[Any]:
        """Both pictures as SVG, for a page. Raises MissingExtraError."""
        return [
            pages.marked(pages.svg(part, self.rules, f"{self.slug}-{name}"))
            for name, part in (("before", self.before), ("after", self.after))
        ]

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
    guard.require(out)
    progress(f"reading {first} and {second}")
    found = compare(first, second, layer)
    progress("drawing")
    title = f"{found.layer} of {first.name} and {second.name}"
    names = {name: places.way(path, out.parent) for name, path in (("first", first), ("second", second))}
    content = {"title": title, "difference": found, "drawings": found.drawings(), "classes": pages.classes(found.rules)}
    atomic.save_text(pages.page("diff.html", **content, **names), out, guard)
    return found


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
    before, after = (_Side.of(path) for path in (first, second))
    found, how = _origins(before, after, first, second)
    before.follow(after, found)
    layers = _in_order(after.layers.values())
    name = _chosen(layer, layers, second)
    left, right = before.lines(name), after.lines(name)
    there = {output for line in after.all for output in line.outputs}
    here = {output for line in before.all for output in line.outputs}
    if found is None:
        taken = {output: HERE for line in left for output in line.outputs if output not in there}
        made = {output: HERE for line in right for output in line.outputs if output not in here}
    else:
        gone = {output: pages.GONE for line in left for output in line.outputs if output not in there}
        taken, made = gone | found.taken, found.made
    return Difference(
        first,
        second,
        name,
        layers,
        how,
        picture(f"before: {first.name}", left, before.shapes, taken, before.shown(left)),
        picture(f"after: {second.name}", right, after.shapes, made, after.shown(right)),
    )


def _in_order(layers: Iterable[str]) -> list[str]:
    """Names of layers, once, in the model's order."""
    place = {BEFORE: -1, AFTER: math.inf}
    return sorted(
        set(layers), key=lambda name: place.get(name, float(name.rpartition(" ")[2]) if name[-1].isdigit() else math.inf)
    )


def _chosen(layer: str, layers: list[str], path: Path) -> str:
    wanted = f"layer {layer}" if layer.isdigit() else layer
    if not wanted:
        return next((name for name in layers if name.startswith("layer ")), layers[0] if layers else BEFORE)
    if wanted not in layers:
        raise UsageError(f"{path} has no {wanted!r}; choose one of {', '.join(name.removeprefix('layer ') for name in layers)}")
    return wanted


@dataclass
class _Side:
    """A model: its nodes as text, the shapes of its values as text, and the layer of each node by what it writes."""

    model: ir.Model
    config: Mapping[str, Any]
    all: list[Line]
    shapes: dict[str, str]
    layers: dict[str, str]

    @classmethod
    def of(cls, path: Path) -> _Side:
        model, config = onnx_file.load(path), folders.read_config(path)
        require_harmless(path)
        with blaming(path):
            catalog.architecture(catalog.model_type(model, config, None)).name_inputs(model)
            layers = {_written(node): layer for node, layer in homes(model.graph).items()}
            return cls(model, config, [Line.of(node) for node in model.graph], _shapes(model), layers)

    def follow(self, after: _Side, found: Origins | None) -> None:
        """Put nodes into the layers of what they became."""
        for name in self.layers:
            became = (found.became.get(name, name) if found is not None else name) or name
            self.layers[name] = after.layers.get(became, self.layers[name])

    def lines(self, layer: str) -> list[Line]:
        return [line for line in self.all if self.layers.get(line.outputs[0] if line.outputs else "") == layer]

    def shown(self, part: list[Line]) -> list[str]:
        """What a part writes for others."""
        inside = {id(line) for line in part}
        read = {name for line in self.all if id(line) not in inside for name in line.inputs}
        read |= {value.name or "" for value in self.model.graph.outputs}
        return [name for line in part for name in line.outputs if name in read]


def _written(node: ir.Node) -> str:
    return node.outputs[0].name or "" if node.outputs else ""


def _shapes(model: ir.Model) -> dict[str, str]:
    """What is known of each value's sizes, by name: numbers, names of sizes, "?" for what nothing tells."""
    analysis = Analysis(model.opset_imports, infer)
    analysis.scan(model.graph)
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return {value.name or "": _shape(shape) for value in values if (shape := analysis.shape(value)) is not None}


SHORT = (("batch", "B"), ("seq", "S"))
"""What names of sizes begin with, and the letter of ``style``'s vocabulary that is drawn."""


def _shape(shape: Iterable[Dim]) -> str:
    return sizes(tuple(_size(dim) for dim in shape))


def _size(dim: Dim) -> str:
    if any("?" in name for name in dim.symbols):
        return "?"
    names = [next((letter for begin, letter in SHORT if name.lower().startswith(begin)), name) for name in dim.symbols]
    return "·".join(([str(dim.coef)] if dim.coef != 1 or not names else []) + names)


def _origins(before: _Side, after: _Side, first: Path, second: Path) -> tuple[Origins | None, str]:
    """What the rules did, where they make the second model of the first, and that in words."""
    names = {_written(node) for node in after.model.graph}
    for choice in _choices(after.model, second):
        model = onnx_file.load(first)
        catalog.architecture(catalog.model_type(model, before.config, None)).name_inputs(model)
        target = choice.pop("target")
        try:
            with targets.use(target) as chosen:
                chosen = chosen.choosing(padding="removed") if choice.get("zeros") else chosen
                trace = fuse(model, chosen, **choice).trace
        except OnnxfuseError:
            continue
        if {_written(node) for node in model.graph} == names:
            return origins(
                trace.applications
            ), f"the rules for target {Path(target).name}, applied again, make {second.name} of {first.name}"
    return None, f"rules alone do not make {second.name} of {first.name}, so coloured is what only one of them has"


def _choices(model: ir.Model, path: Path) -> Iterator[dict[str, Any]]:
    """How a model may have been optimized: as its folder's record says, or for the target in its metadata."""
    note = door.parse_json(model.metadata_props.get(METADATA, "{}"), METADATA)
    name = note.get("target") if isinstance(note, dict) else None
    step = folders.recorded(path.parent).get("optimize", {})
    plan = step.get("plan", {}) if isinstance(step, dict) and step.get("path") == path.name else {}
    if plan:
        without = frozenset(plan["without"]) | ({UNPAD} if plan["unpad"] is False else set())
        yield {"target": plan["target"], "only": frozenset(plan["only"]), "without": without, "zeros": plan["unpad"] is True}
    if isinstance(name, str):
        yield {"target": name}
