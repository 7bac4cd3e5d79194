"""RotaryEmbedding's cosines and sines are of every row of the batch; torch.export's graph gives them once for all."""

from __future__ import annotations

import onnx_ir as ir

from onnxfuse.rewrite import Op

POSITIONS = 3
"""The input of RotaryEmbedding that numbers the positions, which then index the tables."""


def widen(model: ir.Model) -> None:
    """Repeat the cosines and sines of a RotaryEmbedding without positions for every row of what it turns.

    torch.onnx writes them [1,S,H/2], which ONNX Runtime refuses for more rows than one.

    Source: ONNX operator RotaryEmbedding, opset 23 (without position_ids, the caches are [B,S,H/2]).
    """
    for node in [node for node in model.graph if node.op_type == "RotaryEmbedding" and not node.domain]:
        x, *tables = node.inputs
        if x is None or any(value is not None for value in tables[POSITIONS - 1 :]):
            continue
        op = Op(model.graph, node.outputs[0].name or "rotary")
        rows = op.Concat(op.Shape(x, start=0, end=1), op.constant([1, 1], "ones"), axis=0)
        wide = [op.Expand(table, rows) for table in tables[: POSITIONS - 1]]
        for constant in op.initializers:
            model.graph.register_initializer(constant)
        model.graph.insert_before(node, op.nodes)
        for at, table in enumerate(wide, 1):
            node.replace_input_with(at, table)
