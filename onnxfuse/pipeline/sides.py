"""A model as ``diff`` looks at it, and what onnxfuse's rules did between two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse import catalog, targets
from onnxfuse.choice import METADATA
from onnxfuse.drawing.origins import Origins, origins
from onnxfuse.errors import OnnxfuseError
from onnxfuse.fusions.unpad import NAME as UNPAD
from onnxfuse.io import door, folders, onnx_file
from onnxfuse.optimizer import fuse
from onnxfuse.pipeline.layers import homes, within
from onnxfuse.rewrite.analysis import Analysis, Dim
from onnxfuse.rewrite.lines import Line, sizes
from onnxfuse.runtime.sessions import infer
from onnxfuse.runtime.trial import require_harmless
from onnxfuse.verify.opened import blaming


@dataclass
class Side:
    """A model: its nodes as text, the shapes of its values as text, and the layer of each node by what it writes."""

    model: ir.Model
    config: Mapping[str, Any]
    all: list[Line]
    shapes: dict[str, str]
    layers: dict[str, str]

    @classmethod
    def of(cls, path: Path) -> Side:
        model, config = onnx_file.load(path), folders.read_config(path)
        require_harmless(path)
        with blaming(path):
            catalog.architecture(catalog.model_type(model, config, None)).name_inputs(model)
            layers = {_written(node): layer for node, layer in homes(model.graph).items()}
            return cls(model, config, [Line.of(node) for node in model.graph], _shapes(model), layers)

    def follow(self, after: Side, found: Origins | None) -> None:
        """Put nodes into the layers of what they became."""
        for name in self.layers:
            became = (found.became.get(name, name) if found is not None else name) or name
            self.layers[name] = after.layers.get(became, self.layers[name])

    def gather(self, names: Iterable[str]) -> None:
        """Put layers that another model has in one operator together, as there."""
        self.layers = {value: within(layer, names) for value, layer in self.layers.items()}

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


def made_by(before: Side, after: Side, first: Path, second: Path) -> tuple[Origins | None, str]:
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
            how = f"the rules for target {Path(target).name}, applied again, make {second.name} of {first.name}"
            return origins(trace.applications), how
    if before.all == after.all:
        return None, "both are the same graph"
    return None, f"{second.name} is not what onnxfuse's rules make of {first.name}: coloured is what only one of them has"


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
