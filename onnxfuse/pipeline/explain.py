"""Say of each layer what was fused, and where the nearest match stopped for what was not.

``layers`` says where a layer begins. What is not fused is found by the operators that its fusion names as anchors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse import catalog, targets
from onnxfuse.catalog import model_type
from onnxfuse.fusions.unpad import Padding
from onnxfuse.io import folders, onnx_file
from onnxfuse.native import functions
from onnxfuse.normalize.contrib import STAYS
from onnxfuse.optimizer import canonical, fuse, left_out, select
from onnxfuse.pipeline.layers import ATTENTION, Known, counted_things, layers
from onnxfuse.rewrite import Analysis, Rule
from onnxfuse.rewrite.driver import CONSENT, nearest_miss
from onnxfuse.rewrite.passes import Context
from onnxfuse.rewrite.pattern import Miss
from onnxfuse.runtime.sessions import compute, infer
from onnxfuse.runtime.trial import require_harmless
from onnxfuse.targets import Target
from onnxfuse.verify.opened import blaming

REACH = 12
"""How many nodes after its anchor the last node of a fusion may be: a norm has 6, attention 3, Gelu 4; exporters add some."""

MEANT = "nothing to do if that is meant"

ADVICE = (
    (r"graph output", "export without that output"),
    (r"also an operand", MEANT),
    (r"read elsewhere", "remove the other reader, or compute it apart"),
    (r"not a constant|can override", "make it an initializer that is no graph input"),
    (r"is not known", "export again with dynamic dimensions named, or with the other --exporter"),
    (r"the mask", "name batch and length of ids and mask alike, compute neither in the graph, give the mask a shape it may have"),
    (r"wanted|is not|has|runs over", f"it computes something else here; {MEANT}"),
)
"""What to do, by the words of a refusal; the first that fits."""

OTHERWISE = "if it computes the same, this form is not known yet: report it with this line"


@dataclass(frozen=True)
class Finding:
    """One thing of one layer: done, or where its nearest match stopped."""

    layer: str
    fusion: str
    done: bool
    at: str
    matched: int = 0
    seen: str = ""
    wanted: str = ""
    where: str = ""
    advice: str = ""

    def __str__(self) -> str:
        if self.done:
            return f"{self.layer}: {self.fusion} done at {self.at}"
        if not self.matched:
            return f"{self.layer}: {self.fusion} not done: nothing there looks like it; {self.advice}"
        stop = self.seen if self.wanted == CONSENT else f"saw {self.seen}, wanted {self.wanted}"
        nodes = f"{self.matched} node{'s' * (self.matched > 1)} matched"
        return f"{self.layer}: {self.fusion} not done near {self.at}: {nodes}; at {self.where}: {stop}; {self.advice}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def explain(model: ir.Model, target: Target, things: Collection[str]) -> list[Finding]:
    """Fuse ``model`` in place, up to standard operators, and say what became of each layer.

    Args:
        things: what every layer is expected to have (see ``Architecture.fusable``).

    Raises:
        UsageError, ModelError: as ``fuse``.
    """
    context = Context(compute, infer)
    canonical(model, target, select(target, frozenset(), frozenset()), context)
    functions.apart(model)  # what of ours target native keeps as it is, as ``count`` does
    analysis = context.analysis(model)
    every = counted_things()
    known = Known({name: fusion for name, fusion in every.items() if not left_out(fusion, target)})
    things = [name for name in things if name in known.fusions or name not in every]
    findings: list[Finding] = []
    for layer, nodes in layers(model.graph, known):
        here = [finding for node in nodes for finding in _findings(layer, node, known, analysis)]
        findings += [*_once(here), *_absent(layer, here, things, known)]
    return [*findings, *_hidden(model.graph, known)]


def _hidden(graph: ir.Graph, known: Known) -> Iterator[Finding]:
    """Operators with bodies that hold what would be fused outside of them."""
    for node in graph:
        bodies = [attr.as_graph() for attr in node.attributes.values() if attr.type == ir.AttributeType.GRAPH]
        inner = [each for body in bodies for each in body.all_nodes() if known.shows(each)]
        if inner:
            name = node.outputs[0].name or ""
            more = f" and {len(inner) - 1} more" if inner[1:] else ""
            seen = f"a body of {node.op_type} holds {inner[0].op_type}{more}; bodies are left as they are"
            yield Finding(f"inside {node.op_type}", "fusions", False, name, 1, seen, CONSENT, name, "export the model without it")


def _once(findings: list[Finding]) -> list[Finding]:
    """Without what was found twice from two anchors of one thing (a norm has two means)."""
    kept: dict[Any, Finding] = {}
    for finding in findings:
        kept.setdefault(finding if finding.done else (finding.fusion, finding.where, finding.seen), finding)
    return list(kept.values())


def _findings(layer: str, node: ir.Node, known: Known, analysis: Analysis) -> Iterator[Finding]:
    name = node.outputs[0].name or ""
    if (fusion := known.stands_for(node)) is not None:
        own = f"{node.domain}.{node.op_type}"
        why = node.metadata_props.get(STAYS, f"{own} is not taken apart")
        advice = f"{own} runs in its own runtime alone; export the model again, without that runtime's optimizer"
        yield Finding(layer, fusion.name, False, name, 1, why, CONSENT, name, advice)
        return
    for fusion in known.of(node.op_type):
        if fusion.made(node):
            yield Finding(layer, fusion.name, True, name)
        else:
            yield _missed(layer, fusion.name, name, _nearest(fusion.rules, [node], None, analysis))
    for fusion in known.at(node.op_type):
        if fusion.otherwise is not None and (shown := fusion.otherwise(node)) is not None:
            where, what = shown
            yield Finding(layer, fusion.name, False, name, 1, what, CONSENT, where, MEANT)
            continue
        near = _nearest(fusion.rules, _downstream(node), node, analysis)
        if fusion.name == ATTENTION or (near is not None and near[1] and near[0].matched > 1):
            yield _missed(layer, fusion.name, name, near)


def _downstream(anchor: ir.Node) -> list[ir.Node]:
    """The anchor and what follows it, nearest first."""
    found, queue = {anchor: 0}, [anchor]
    while queue:
        node = queue.pop(0)
        if found[node] < REACH:
            for user in (user for value in node.outputs for user, _ in value.uses()):
                if user not in found and user.graph is anchor.graph:
                    found[user] = found[node] + 1
                    queue.append(user)
    return list(found)


def _nearest(rules: Sequence[Rule], roots: list[ir.Node], anchor: ir.Node | None, analysis: Analysis) -> tuple[Miss, bool] | None:
    """The miss that got furthest, those that reached the anchor before the others; the nearest root wins a tie."""
    best: tuple[Miss, bool] | None = None
    for root in roots:
        for rule in rules:
            if (rule.pattern.type, rule.pattern.domain) != (root.op_type, root.domain):
                continue
            found = nearest_miss(rule, root, analysis)
            if found is None:
                continue
            miss, nodes = found
            reached = anchor is None or anchor in nodes
            if best is None or (reached, miss.matched) > (best[1], best[0].matched):
                best = miss, reached
    return best


def _missed(layer: str, fusion: str, at: str, near: tuple[Miss, bool] | None) -> Finding:
    if near is None:
        return Finding(layer, fusion, False, at, advice=OTHERWISE)
    miss = near[0]
    advice = next((text for words, text in ADVICE if miss.wanted == CONSENT and re.search(words, miss.seen)), OTHERWISE)
    return Finding(layer, fusion, False, at, miss.matched, miss.seen, miss.wanted, miss.where, advice)


def _absent(layer: str, here: list[Finding], things: Collection[str], known: Known) -> Iterator[Finding]:
    """What every layer is expected to have, and this one does not show at all."""
    if layer == "embeddings":
        return
    for name in things:
        told = name in known.fusions and known.fusions[name].condition is not None  # by the finding of its operator
        if not told and not any(finding.fusion == name for finding in here):
            yield Finding(layer, name, False, layer, advice="the model has another kind of layer here, or it was taken apart")


def explain_file(source: Path, target: str = "cpu", model_type_: str | None = None) -> list[Finding]:
    """Say of each layer of a model what fuses, and where the nearest match stops for what does not.

    Raises:
        UsageError, ModelError.
    """
    model, config = onnx_file.load(source), folders.read_config(source)
    require_harmless(source)
    family = catalog.architecture(model_type(model, config, model_type_))
    family.name_inputs(model)
    with targets.use(target) as chosen, blaming(source):
        return explain(model, chosen, tuple(family.fusable(config)))


def padding_of(source: Path, target: str = "cpu", model_type_: str | None = None) -> Padding:
    """What becomes of padding in a model that is optimized for a target, and why it stays where it does.

    Raises:
        UsageError, ModelError.
    """
    model, config = onnx_file.load(source), folders.read_config(source)
    require_harmless(source)
    catalog.architecture(model_type(model, config, model_type_)).name_inputs(model)
    with targets.use(target) as chosen, blaming(source):
        return fuse(model, chosen).padding
