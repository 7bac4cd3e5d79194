"""ONNX Runtime's fused operators (com.microsoft), taken apart into standard ones: models that its optimizer wrote fuse too.

The parts are in ``contrib_elementwise``, ``contrib_norms``, ``contrib_products`` and ``contrib_attention``: one function an
operator. Its positional parameters are the operator's inputs in order (``| None``: optional), its keywords the attributes with
their defaults (transA is ``trans_a``). What a node has beyond them is not understood, and the node stays, with the reason in its
metadata.

Source: ContribOperators.md of ONNX Runtime, and the same operators run in it.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxfuse.normalize import contrib_attention, contrib_elementwise, contrib_norms, contrib_products
from onnxfuse.normalize.contrib_site import Parts, Site, Stays
from onnxfuse.rewrite import Analysis, Op, pattern
from onnxfuse.rewrite.attributes import plain
from onnxfuse.rewrite.driver import forget
from onnxfuse.rewrite.lines import Line
from onnxfuse.rewrite.passes import Context, Result

DOMAIN = "com.microsoft"

STAYS = "onnxfuse.stays"
"""The key of a node's metadata that says why an operator was not taken apart; ``explain`` tells it."""

PARTS: dict[str, Parts] = contrib_elementwise.PARTS | contrib_norms.PARTS | contrib_products.PARTS | contrib_attention.PARTS
"""For each operator, the function that builds its parts by output number."""


@dataclass(frozen=True)
class TakeContribApart:
    """Replace ONNX Runtime's operators by their parts.

    One that is not understood, has an output in use for which there are no parts, or has parts that are proven wrong, stays as it
    is; the reason is in its metadata.
    """

    name: str = "contrib-parts"
    exact: bool = False

    def apply(self, model: ir.Model, context: Context) -> Result:
        analysis, count = context.analysis(model), 0
        for node in list(model.graph):
            if node.domain != DOMAIN:
                _know(node, analysis)
                continue
            op = Op(model.graph, node.outputs[0].name or "part")
            try:
                made = _parts(Site(op, analysis, node, model.graph.inputs))
                self._prove(node, op, made, model, context)
            except Stays as reason:
                node.metadata_props[STAYS] = str(reason)
                forget(op)
                _know(node, analysis)
                continue
            value, before = pattern.name_of(node.outputs[0]), Line.of(node)
            _put(model.graph, node, op, made)
            context.trace.record(self.name, value, [before], op.nodes)
            count += 1
            for built in op.nodes:
                _know(built, analysis)
        return Result(count > 0)

    def _prove(self, node: ir.Node, op: Op, made: dict[int, ir.Value], model: ir.Model, context: Context) -> None:
        """Run the operator and its parts side by side, output by output. Raises Stays where they differ."""
        prover = context.prover(model)
        if prover is None:
            return
        with context.trace.proving():
            pairs = [(old, made[at]) for at, old in enumerate(node.outputs) if at in made]
            verdicts = [prover.prove(self, [node], old, op, new) for old, new in pairs]
        worst = min(verdicts, key=lambda verdict: (False, None, True).index(verdict.proven))
        context.trace.judge(self.name, pattern.name_of(node.outputs[0]), worst)
        if worst.proven is False:
            raise Stays(f"its parts compute something else: {worst.reason}")


def _know(node: ir.Node, analysis: Analysis) -> None:
    """Analyse a node's outputs in the order of the graph, which keeps later questions from recursing deeply."""
    for value in node.outputs:
        analysis[value]


def _parts(site: Site) -> dict[int, ir.Value]:
    """The parts by output number. Raises Stays."""
    node = site.node
    build = PARTS.get(node.op_type)
    if build is None:
        raise Stays("no parts of it are known")
    made = build(site, *_inputs(build, node), **_attributes(build, node))
    for at in range(len(node.outputs)):
        if at not in made and site.read(at):
            raise Stays(f"its output {at} is read, and has no standard operator")
    return made


def _inputs(build: Parts, node: ir.Node) -> list[ir.Value | None]:
    """The node's inputs, one for each positional parameter behind the site."""
    known = [
        parameter
        for parameter in inspect.signature(build).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ][1:]
    given = [*node.inputs, *[None] * (len(known) - len(node.inputs))]
    for at, value in enumerate(given[len(known) :], start=len(known)):
        if value is not None:
            raise Stays(f"its input {at} is not understood")
    for parameter, value in zip(known, given, strict=False):
        if value is None and "None" not in str(parameter.annotation):
            raise Stays(f"it has no input {parameter.name!r}")
    return given[: len(known)]


def _attributes(build: Parts, node: ir.Node) -> dict[str, Any]:
    """The node's attributes, each a keyword of ``build``."""
    known = {
        name: parameter
        for name, parameter in inspect.signature(build).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    given = {_keyword(name): attribute for name, attribute in node.attributes.items()}
    for name, attribute in given.items():
        if name not in known:
            raise Stays(f"its attribute {attribute.name!r} is not understood")
    for name, parameter in known.items():
        if name not in given and parameter.default is parameter.empty:
            raise Stays(f"it has no attribute {name!r}")
    return {name: plain(attribute.value) for name, attribute in given.items()}


def _keyword(name: str) -> str:
    """An attribute's name as Python writes names."""
    return re.sub("([A-Z])", lambda letter: f"_{letter[1].lower()}", name)


def _put(graph: ir.Graph, node: ir.Node, op: Op, made: dict[int, ir.Value]) -> None:
    for initializer in op.initializers:
        graph.register_initializer(initializer)
    graph.insert_after(node, op.nodes)
    for at, old in enumerate(node.outputs):
        if at in made:
            made[at].name, old.name = old.name, None
            made[at].type, made[at].shape = old.type, old.shape
            ir.convenience.replace_all_uses_with(old, made[at], replace_graph_outputs=True)
    graph.remove(node, safe=True)
