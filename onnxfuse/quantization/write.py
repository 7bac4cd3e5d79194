"""The int8 graph: which operators stand for a linear layer, and for an embedding.

    dynamic     y = (MatMulInteger(u8(x), s8(W)) : float) * (scale_x * scale_W), scale_x measured in each run
    qoperator   the same with a constant scale_x, in ONNX Runtime's own operator for it
    qdq         y = dequantized(u8(x)) @ dequantized(s8(W)): float operators between Quantize- and DequantizeLinear, which a
                runtime turns into integer ones
    qdq-source  the same with x rounded right behind what computes it (``sources``)

A dynamic model of our own operators (target ``native``) keeps them: each row of x has a scale then, measured in each run, and
each row of W one beside those of its columns.

u8 x s8 is the pair that x86 has instructions for; the others run slower, up to fifty times. Dynamic and qdq write standard
operators only; ONNX Runtime fuses them into DynamicQuantizeMatMul and MatMulIntegerToFloat while loading. Embedding tables become
s8 with a scale for each row. A table that is also the output matrix (tied embeddings) is stored once.

Source: ONNX operators DynamicQuantizeLinear, QuantizeLinear, DequantizeLinear and MatMulInteger.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxfuse.fusions.native_layers import gather
from onnxfuse.native import functions
from onnxfuse.normalize.duplicates import merge_duplicates
from onnxfuse.normalize.structure import tidy
from onnxfuse.quantization import weights
from onnxfuse.quantization.linears import Linear, find_embeddings, find_linears
from onnxfuse.quantization.prepare import Prepared
from onnxfuse.quantization.ranges import ActivationScale
from onnxfuse.quantization.sources import SOURCE, round_at_sources
from onnxfuse.quantization.weights import Int8Weight
from onnxfuse.rewrite import Op
from onnxfuse.rewrite.driver import replace
from onnxfuse.rewrite.passes import Context
from onnxfuse.rewrite.shapes.native import DOMAIN
from onnxfuse.runtime.sessions import compute, infer

ATTENDED = {"fp32": ir.DataType.FLOAT, "bf16": ir.DataType.BFLOAT16}
"""The type of attention's products, as the scheme calls it."""

SWITCHES = "onnxfuse.switches"
DYNAMIC, QOPERATOR, QDQ = "dynamic", "qoperator", "qdq"


class _Table(NamedTuple):
    """A weight as it is stored: of an embedding int8 [rows, D] and a scale for each row, of a matrix int8 [K, N] and a scale for
    each column, and for each row where there is one."""

    values: ir.Value
    scale: ir.Value
    rows: ir.Value | None = None


def write(prepared: Prepared, keep: Collection[str] = (), format: str = DYNAMIC, *, switched: bool = False) -> ir.Model:
    """A new model with every linear layer in int8 but those in ``keep``, and embeddings too where the scheme says so.

    Args:
        keep: names of linear layers that stay float.
        format: dynamic; of a static scheme, qdq, qdq-source or qoperator.
        switched: keep both forms of every layer; the new input SWITCHES, bool [linears], tells which take part in int8.
    """
    model = prepared.model.clone()
    graph = model.graph
    tables: dict[ir.Value, _Table] = {}
    matrices: dict[ir.Value, _Table] = {}
    switches = ir.Value(name=SWITCHES, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([len(prepared.linears)]))
    if switched:
        graph.inputs.append(switches)
    for number, linear in enumerate(find_linears(graph)):
        if linear.name in keep:
            continue
        op = Op(graph, linear.name)
        stored = _stored(graph, op, linear, prepared.weights_int8[linear.name], tables if linear.swapped else matrices)
        matrix, scale, rows = stored
        if format == DYNAMIC and prepared.native and not linear.swapped:
            result = op.Linear(linear.input, matrix, scale, rows, activation="", _domain=DOMAIN)
        elif format == DYNAMIC:
            result = _dynamic(op, linear.input, matrix, scale)
        else:
            result = _static(op, linear.input, prepared.scales[linear.name], matrix, scale, format)
        if switched:
            choice = op.Gather(switches, op.constant(np.array(number), "number"))
            result = op.Where(choice, result, op.MatMul(*linear.node.inputs))
        replace(graph, linear.node, op, result)
    if prepared.scheme.embeddings:
        for node in find_embeddings(model):
            _quantize_embedding(graph, node, tables)
    merge_duplicates(model)
    if format == SOURCE:
        round_at_sources(graph)
    tidy(model)
    if prepared.native:
        gather(model, Context(compute, infer))
        functions.attend_in(model, ATTENDED[prepared.scheme.attention])
    return model


def _stored(graph: ir.Graph, op: Op, linear: Linear, weight: Int8Weight, several: dict[ir.Value, _Table]) -> _Table:
    """The int8 matrix [K, N] of a linear layer and its scales; a weight that others read too is stored once, in its own order.

    ``several``: what is stored of such weights so far.
    """
    if not (linear.shared or linear.weight in several):  # the last one that reads a shared weight finds it alone
        rows = None if weight.rows is None else op.constant(weight.rows, "rows")
        return _Table(op.constant(np.ascontiguousarray(weight.values), "int8"), op.constant(weight.scale, "scale"), rows)
    if linear.weight not in several:
        array = weight.values.T if linear.swapped else weight.values
        values, scale = (_initializer(graph, linear.weight, *each) for each in ((array, "int8"), (weight.scale, "scale")))
        rows = None if weight.rows is None else _initializer(graph, linear.weight, weight.rows, "rows")
        several[linear.weight] = _Table(values, scale, rows)
    stored = several[linear.weight]
    return stored._replace(values=op.Transpose(stored.values, perm=[1, 0])) if linear.swapped else stored


def _dynamic(op: Op, x: ir.Value, matrix: ir.Value, scale: ir.Value) -> ir.Value:
    """y for an x that is quantized as each run finds it."""
    quantized, step, zero = op.many("DynamicQuantizeLinear", 3, x)
    return op.Mul(op.Cast(op.MatMulInteger(quantized, matrix, zero), to=ir.DataType.FLOAT), op.Mul(step, scale))


def _static(op: Op, x: ir.Value, of_x: ActivationScale, matrix: ir.Value, scale: ir.Value, format: str) -> ir.Value:
    """y for an x whose scale is known."""
    step, zero = op.constant(np.asarray(of_x.scale), "step"), op.constant(np.asarray(of_x.zero_point), "zero")
    quantized = op.QuantizeLinear(x, step, zero)
    if format in (QDQ, SOURCE):
        return op.MatMul(op.DequantizeLinear(quantized, step, zero), op.DequantizeLinear(matrix, scale, axis=1))
    return op.MatMulIntegerToFloat(quantized, matrix, step, scale, zero, _domain="com.microsoft")


def _initializer(graph: ir.Graph, of: ir.Value, content: np.ndarray, name: str) -> ir.Value:
    """A new initializer of the graph, called after the value it stands for."""
    value = Op(graph, of.name or "table").constant(np.ascontiguousarray(content), name)
    graph.register_initializer(value)
    return value


def _quantize_embedding(graph: ir.Graph, node: ir.Node, tables: dict[ir.Value, _Table]) -> None:
    table, ids = node.inputs
    assert table is not None and table.const_value is not None
    if table not in tables:
        rows = weights.nearest(table.const_value.numpy().T, table.name or "")
        tables[table] = _Table(_initializer(graph, table, rows.values.T, "int8"), _initializer(graph, table, rows.scale, "scale"))
    values, scale, _ = tables[table]
    op = Op(graph, node.outputs[0].name or "embedding")
    found = op.Cast(op.Gather(values, ids, axis=0), to=ir.DataType.FLOAT)
    factors = op.Unsqueeze(op.Gather(scale, ids, axis=0), op.constant([-1], "last"))
    replace(graph, node, op, op.Mul(found, factors))
