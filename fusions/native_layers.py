"""Layers of an encoder as one operator of our own library: activations stay in its memory, and a row is quantized once.

Seen in:   target ``native``, of linear layers and attention that are operators of ours already.
Computes:  post: h = norm1(x + out(attention(qkv(x)))), y = norm2(h + down(activation(up(h))))
           pre: h = x + out(attention(qkv(norm1(x)))), y = h + down(activation(up(norm2(h))))
           and layers behind each other that share bounds and bias.
Shapes:    x, y [...,D].
Numerics:  none: the same kernels on the same numbers.
Refuses:   norms of different epsilons or over other dimensions, values inside that are read elsewhere, query, key and value
           that are not side by side.
Source:    native/README.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.fusions.native import ATTENTION, LINEAR
from onnxfuse.native import functions
from onnxfuse.native.bodies import INPUTS, LAYER, PARTS
from onnxfuse.rewrite import Learned, Lowering, Match, Op, Pattern, Rule, Term
from onnxfuse.rewrite.driver import forget, replace
from onnxfuse.rewrite.lines import Line
from onnxfuse.rewrite.passes import Context, Result, Rules
from onnxfuse.rewrite.shapes.native import DOMAIN

POST, PRE = "post", "pre"

OPTIONAL = {name for name in LAYER if not name.endswith(("_weight", "_gamma"))} | {"bounds", "bias"}

ATTRIBUTES = ("num_heads", "scale", "precision", "activation", "epsilon1", "epsilon2")


def layer(order: str) -> Callable[..., Term]:
    """The pattern of a layer; its variables are those of ``LAYER``."""

    def before(op: Pattern, **of: Any) -> Term:
        x, heads = of["x"], {name: of[name] for name in ("num_heads", "scale", "precision")}

        def linear(name: str, source: Any, *rest: Any, activation: Any = "", **attributes: Any) -> Term:
            parts = (of[f"{name}_{part}"] for part in PARTS)
            return op.Linear(source, *parts, *rest, activation=activation, _domain=DOMAIN, **attributes)

        def norm(number: int, source: Any) -> Term:
            return op.LayerNormalization(source, *vectors(number), epsilon=of[f"epsilon{number}"], axis=-1)

        def vectors(number: int) -> tuple[Any, Any]:
            return of[f"norm{number}_gamma"], of[f"norm{number}_beta"]

        if order == PRE:
            merged = linear("qkv", norm(1, x))
            h = linear("out", op.Attention(merged, None, None, of["bounds"], of["bias"], _domain=DOMAIN, **heads), x)
            return linear("down", linear("up", norm(2, h), activation=of["activation"]), h)
        merged = linear("qkv", x)
        mixed = op.Attention(merged, None, None, of["bounds"], of["bias"], _domain=DOMAIN, **heads)
        h = linear("out", mixed, x, *vectors(1), epsilon=of["epsilon1"])
        return linear("down", linear("up", h, activation=of["activation"]), h, *vectors(2), epsilon=of["epsilon2"])

    kind = inspect.Parameter.KEYWORD_ONLY
    names = ["x", "bounds", "bias", *LAYER, *ATTRIBUTES]
    variables = [inspect.Parameter(name, kind, default=None if name in OPTIONAL else inspect.Parameter.empty) for name in names]
    first = inspect.Parameter("op", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    before.__signature__ = inspect.Signature([first, *variables])  # type: ignore[attr-defined]
    return before


def guard_layer(match: Match) -> Learned:
    first, second = match["epsilon1"], match["epsilon2"]
    match.need(first == second, f"the norms have epsilons {first} and {second}", match.output)
    for name in ("norm1_gamma", "norm1_beta", "norm2_gamma", "norm2_beta"):
        if match[name] is not None:
            match.need_constant(name)
            match.need_shape(name, rank=1)
    return {"epsilon": first}


def encoder(order: str) -> Callable[..., ir.Value]:
    def after(op: Op, x: ir.Value, bounds: ir.Value | None, bias: ir.Value | None, **of: Any) -> ir.Value:
        attributes = {name: of[name] for name in ("num_heads", "scale", "precision", "activation", "epsilon")}
        absent = op.constant(np.zeros(0, np.float32), "absent")
        inputs = [x, bounds, bias, *(absent if of[name] is None else of[name] for name in LAYER)]
        y: ir.Value = op.Encoder(*inputs, order=order, _domain=DOMAIN, **attributes)
        return y

    return after


RULES = tuple(Rule(f"native-layer-{order}", layer(order), guard_layer, encoder(order)) for order in (POST, PRE))

LOWERINGS = (
    Lowering("layers", "separate"),
    Lowering("layers", "native", RULES, tuned=False),
)


@dataclass(frozen=True)
class JoinLayers:
    """Make one operator of those that follow each other."""

    name: str = "native-layers"
    exact: bool = True

    def apply(self, model: ir.Model, context: Context) -> Result:
        joined = 0
        for node in model.graph:
            while (first := _follows(node)) is not None:
                built = self._join(model, context, first, node)
                if built is None:
                    break
                node, joined = built, joined + 1
        return Result(joined > 0)

    def _join(self, model: ir.Model, context: Context, first: ir.Node, second: ir.Node) -> ir.Node | None:
        """The operator of both, in their place; None where it is proven wrong."""
        op, output = Op(model.graph, second.outputs[0].name or ""), second.outputs[0]
        layers = [*first.inputs, *second.inputs[len(INPUTS["Encoder"]) :]]
        y = op.Encoder(*layers, _domain=DOMAIN, **functions.attributes_of(first))
        prover = context.prover(model)
        if prover is not None:
            with context.trace.proving():
                verdict = prover.prove(self, [first, second], output, op, y, ())
            context.trace.judge(self.name, output.name or "", verdict)
            if verdict.proven is False:
                forget(op)
                return None
        name, before = output.name or "", [Line.of(first), Line.of(second)]
        replace(model.graph, second, op, y)
        context.trace.record(self.name, name, before, op.nodes)
        return op.nodes[0]


def _follows(node: ir.Node) -> ir.Node | None:
    """The operator whose layers come right before a node's, and can be of one operator with them."""
    if node.op_type != "Encoder" or not functions.is_ours(node) or node.inputs[0] is None:
        return None
    x = node.inputs[0]
    first = x.producer()
    if first is None or first.op_type != "Encoder" or not functions.is_ours(first) or x.is_graph_output() or len(x.uses()) > 1:
        return None
    alike = functions.attributes_of(first) == functions.attributes_of(node)
    return first if alike and list(first.inputs[1:3]) == list(node.inputs[1:3]) else None


@dataclass(frozen=True)
class BringFunctions:
    """Bring the functions of standard operators that stand for ours (``native.functions``)."""

    name: str = "native-functions"

    def apply(self, model: ir.Model, context: Context) -> Result:
        functions.complete(model)
        return Result(any(functions.is_ours(node) for node in model.graph))


def gather(model: ir.Model, context: Context) -> None:
    """Put what stands around linear layers of ours into them again, in place, and layers into one operator."""
    for each in (Rules("lowering", (*LINEAR, *ATTENTION, *RULES)), JoinLayers(), BringFunctions()):
        context.apply(each, model)
