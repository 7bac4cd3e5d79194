"""ONNX Runtime's fused operators (com.microsoft), taken apart into standard ones: models that its optimizer wrote fuse too.

Source: ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from onnxfuse.rewrite import Op

DOMAIN = "com.microsoft"

STAYS = "onnxfuse.stays"
"""The key of a node's metadata that says why an operator was not taken apart; ``explain`` tells it."""


def take_apart(model: ir.Model) -> int:
    """Replace the operators of ``PARTS`` by their parts, in place; one with an output that has none stays. Returns how many."""
    count = 0
    for node in model.graph:
        parts = PARTS.get(node.op_type) if node.domain == DOMAIN else None
        if parts is None:
            continue
        op = Op(model.graph, node.outputs[0].name or node.op_type)
        given = {at: value for at, value in enumerate(node.inputs) if value is not None}
        made = parts(op, given, node.attributes)
        read = [at for at, value in enumerate(node.outputs) if at not in made and (value.uses() or value.is_graph_output())]
        if read:
            node.metadata_props[STAYS] = f"its output {read[0]} is read, and has no standard operator"
            continue
        _put(model.graph, node, op, made)
        count += 1
    return count


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


Given = dict[int, ir.Value]


def skip_layer_normalization(op: Op, given: Given, attributes) -> dict[int, ir.Value]:
    """Inputs x, skip, gain, bias of the norm, bias of the sum; outputs y, mean, inverse deviation, sum."""
    x, skip = given[0], given[1]
    if 4 in given:  # the bias belongs to the linear layer
        maker = skip.producer()
        x, skip = (skip, x) if maker is not None and maker.op_type == "MatMul" else (x, skip)
        x = op.Add(x, given[4])
    total = op.Add(x, skip)
    return {0: _norm(op, total, given.get(2), given.get(3), attributes), 3: total}


def _norm(op: Op, x: ir.Value, gain: ir.Value | None, bias: ir.Value | None, attributes) -> ir.Value:
    inputs = [value for value in (x, gain, bias) if value is not None]
    return op.LayerNormalization(*inputs, axis=-1, epsilon=attributes.get_float("epsilon", 1e-12))


def embed_layer_normalization(op: Op, given: Given, attributes) -> dict[int, ir.Value]:
    """Inputs ids, segment ids, tables of words, positions, segments, gain, bias, mask, position ids; output 2 is the sum."""
    ids = given[0]
    if 8 in given:
        positions = op.Gather(given[3], given[8])
    else:
        length = op.Shape(ids, start=1, end=2)
        positions = op.Slice(given[3], op.constant([0], "start"), length, op.constant([0], "axis"))
    total = op.Add(op.Gather(given[2], ids), positions)
    if 1 in given:
        total = op.Add(total, op.Gather(given[4], given[1]))
    return {0: _norm(op, total, given[5], given[6], attributes), 2: total}


def gelu(approximate: str) -> Callable[..., dict[int, ir.Value]]:
    def parts(op: Op, given: Given, attributes) -> dict[int, ir.Value]:
        """Inputs x, bias."""
        return {0: op.Gelu(op.Add(given[0], given[1]) if 1 in given else given[0], approximate=approximate)}
    return parts


PARTS = {
    "SkipLayerNormalization": skip_layer_normalization,
    "EmbedLayerNormalization": embed_layer_normalization,
    "BiasGelu": gelu("none"),
    "Gelu": gelu("none"),
    "FastGelu": gelu("tanh"),
}
"""For each operator, its parts by output number, given its inputs by number."""
