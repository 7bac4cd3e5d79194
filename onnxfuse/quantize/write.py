"""The int8 graph: which operators stand for a linear layer, and for an embedding.

    dynamic     y = (MatMulInteger(u8(x), s8(W)) : float) * (scale_x * scale_W), scale_x measured in each run
    qoperator   the same with a constant scale_x, in ONNX Runtime's own operator for it
    qdq         y = dequantized(u8(x)) @ dequantized(s8(W)): float operators between Quantize- and DequantizeLinear, which a
                runtime turns into integer ones

u8 x s8 is the pair that x86 has instructions for; the others run slower, up to fifty times. Dynamic and qdq write standard
operators only; ONNX Runtime fuses them into DynamicQuantizeMatMul and MatMulIntegerToFloat while loading. Embedding tables become
s8 with a scale for each row. A table that is also the output matrix (tied embeddings) is stored once.

Source: ONNX operators DynamicQuantizeLinear, QuantizeLinear, DequantizeLinear and MatMulInteger.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnxfuse.normalize import structure
from onnxfuse.quantize import weights
from onnxfuse.quantize.linears import find_embeddings, find_linears
from onnxfuse.quantize.prepare import Prepared
from onnxfuse.rewrite import Op
from onnxfuse.rewrite.driver import replace

SWITCHES = "onnxfuse.switches"
DYNAMIC, QOPERATOR, QDQ = "dynamic", "qoperator", "qdq"


def write(prepared: Prepared, keep: Collection[str] = (), format: str = DYNAMIC, *, switched: bool = False) -> ir.Model:
    """A new model with every linear layer in int8 but those in ``keep``, and embeddings too where the scheme says so.

    Args:
        keep: names of linear layers that stay float.
        format: dynamic; of a static scheme, qdq or qoperator.
        switched: keep both forms of every linear layer; the new input SWITCHES, bool [linears], tells which take part in int8.
    """
    model = prepared.model.clone()
    graph = model.graph
    tied: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    switches = ir.Value(name=SWITCHES, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([len(prepared.linears)]))
    if switched:
        graph.inputs.append(switches)
    for number, linear in enumerate(find_linears(graph)):
        if linear.name in keep:
            continue
        op = Op(graph, linear.name)
        codes = prepared.codes[linear.name]
        scale = op.constant(codes.scale, "scale")
        if linear.swapped and linear.shared:  # a table too: kept in its order
            stored, scale = tied.setdefault(linear.weight, (_constant(graph, linear.weight, codes.codes.T, "int8"), scale))
            matrix = op.Transpose(stored, perm=[1, 0])
        else:
            matrix = op.constant(np.ascontiguousarray(codes.codes), "int8")
        if format == DYNAMIC:
            x, step, zero = op.many("DynamicQuantizeLinear", 3, linear.input)
            result = op.Mul(op.Cast(op.MatMulInteger(x, matrix, zero), to=ir.DataType.FLOAT), op.Mul(step, scale))
        else:
            step, zero = (
                op.constant(np.asarray(number), name)
                for number, name in zip(prepared.steps[linear.name], ("step", "zero"), strict=True)
            )
            x = op.QuantizeLinear(linear.input, step, zero)
            if format == QDQ:
                result = op.MatMul(op.DequantizeLinear(x, step, zero), op.DequantizeLinear(matrix, scale, axis=1))
            else:
                result = op.MatMulIntegerToFloat(x, matrix, step, scale, zero, _domain="com.microsoft")
        if switched:
            choice = op.Gather(switches, op.constant(np.array(number), "number"))
            result = op.Where(choice, result, op.MatMul(*linear.node.inputs))
        replace(graph, linear.node, op, result)
    if prepared.scheme.embeddings:
        for node in find_embeddings(model):
            _quantize_embedding(graph, node, tied)
    structure.merge_duplicates(model)
    structure.tidy(model)
    return model


def _constant(graph: ir.Graph, of: ir.Value, content: np.ndarray, name: str) -> ir.Value:
    """A new initializer of the graph, called after the value it stands for."""
    value = Op(graph, of.name or "table").constant(np.ascontiguousarray(content), name)
    graph.register_initializer(value)
    return value


def _quantize_embedding(graph: ir.Graph, node: ir.Node, known: dict[ir.Value, tuple[ir.Value, ir.Value]]) -> None:
    table, ids = node.inputs
    assert table is not None and table.const_value is not None
    if table not in known:
        rows = weights.nearest(table.const_value.numpy().T, table.name or "")
        known[table] = _constant(graph, table, rows.codes.T, "int8"), _constant(graph, table, rows.scale, "scale")
    codes, scale = known[table]
    op = Op(graph, node.outputs[0].name or "lookup")
    found = op.Cast(op.Gather(codes, ids, axis=0), to=ir.DataType.FLOAT)
    factors = op.Unsqueeze(op.Gather(scale, ids, axis=0), op.constant([-1], "last"))
    replace(graph, node, op, op.Mul(found, factors))
