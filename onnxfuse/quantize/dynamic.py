"""Dynamic int8: weights in s8 with a scale for each output channel, activations in u8 with a scale for each run.

    y = x @ W   becomes   y = (MatMulInteger(u8(x), s8(W)) : float) * (scale_x * scale_W)

u8 x s8 is the pair that x86 has instructions for; the others run ten times slower (ONNX Runtime 1.31, AVX512-VNNI and AMX).
Before VNNI (AVX2 alone) that instruction clips sums of two products to 16 bits. There, weights take 7 of the 8 bits: 255 * 64
twice fits. The file runs as fast and is as right on newer machines; only its weights are coarser.
Only standard operators are written; ONNX Runtime fuses them into DynamicQuantizeMatMul while loading. Embedding tables become
s8 with a scale for each row. A table that is also the output matrix (tied embeddings) is stored once.

Source: ONNX operators DynamicQuantizeLinear and MatMulInteger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import ModelError, UsageError
from onnxfuse.normalize import structure
from onnxfuse.rewrite import Op
from onnxfuse.rewrite.driver import replace
from onnxfuse.rewrite.facts import attribute, is_constant
from onnxfuse.runtime import product_saturates

SMALLEST = 1 << 14
"""Weights with fewer elements stay float: a classifier's few columns cost nothing and decide the answer."""

LEVELS = {8: 127, 7: 64}
"""The largest code by bits. Codes run from its negative to it, so that zero is exact and a weight's sign costs nothing."""


@dataclass(frozen=True)
class Quantized:
    """What was quantized: matrix products, embedding tables, and the bits that the products' weights take."""

    matmuls: int
    embeddings: int
    bits: int


def quantize_dynamic(model: ir.Model, *, embeddings: bool = True, bits: int | None = None) -> Quantized:
    """Quantize ``model`` in place.

    Args:
        embeddings: whether to store embedding tables in int8 too (a quarter of their size, one multiplication a look-up).
        bits: of a product's weights, 8 or 7; None takes 7 where this machine clips products of 8 bits, else 8.

    Raises:
        UsageError: ``bits`` is something else.
        ModelError: the model is int8 or fp16 already, has nothing to quantize, or a weight is not finite.
    """
    if bits is None:
        bits = 7 if product_saturates() else 8
    if bits not in LEVELS:
        raise UsageError(f"weights of {bits} bits are not written; choose 8 or 7")
    _require_float(model)
    weights = _Weights(model.graph, LEVELS[bits])
    products = tables = 0
    for node in list(model.graph):
        if node.graph is None or node.domain:
            continue
        if node.op_type == "MatMul" and (found := _weight_of(node)) is not None:
            _quantize_matmul(model.graph, node, weights, *found)
            products += 1
        elif embeddings and node.op_type == "Gather" and _is_table(node, model.opset_imports[""]):
            _quantize_lookup(model.graph, node, weights)
            tables += 1
    if not products:
        raise ModelError(f"the model {model.graph.name!r} has no matrix product with a constant float weight; "
                         "optimize it first, or quantize the model it was made from")
    structure.merge_duplicates(model)
    structure.tidy(model)
    return Quantized(products, tables, bits)


def _require_float(model: ir.Model) -> None:
    integer = {"MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul", "DequantizeLinear", "ConvInteger"}
    for node in model.graph:
        if node.op_type in integer:
            raise ModelError(f"the model is int8 already ({node.op_type} at {node.outputs[0].name}); quantize the float model")
    for value in model.graph.initializers.values():
        if value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
            raise ModelError(f"weight {value.name} is {value.dtype.name}, wanted FLOAT; export the model in float32")


def _weight_of(node: ir.Node) -> tuple[ir.Value, bool] | None:
    """The constant matrix of a product and whether it stands transposed; None when there is none worth it."""
    value, swapped = node.inputs[1], False
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Transpose" and list(producer.attributes.get_ints("perm", [1, 0])) == [1, 0]:
        value, swapped = producer.inputs[0], True
    if value is None or not is_constant(value) or value.const_value is None:
        return None
    tensor = value.const_value
    fits = tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) == 2 and tensor.size >= SMALLEST
    return (value, swapped) if fits else None


def _is_table(node: ir.Node, opset: int) -> bool:
    value = node.inputs[0]
    if value is None or not is_constant(value) or value.const_value is None or attribute(node, "axis", opset) != 0:
        return False
    tensor = value.const_value
    return tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) == 2 and tensor.size >= SMALLEST


class _Weights:
    """Quantized forms of constants, each made once however many nodes read it: a table that is also a matrix counts as one."""

    def __init__(self, graph: ir.Graph, levels: int) -> None:
        self.graph, self.levels = graph, levels
        self.matrices = {found[0] for node in graph if node.op_type == "MatMul" and (found := _weight_of(node)) is not None}
        self.known: dict[tuple[ir.Value, int], tuple[ir.Value, ir.Value]] = {}

    def get(self, value: ir.Value, axis: int) -> tuple[ir.Value, ir.Value]:
        """(s8 codes, float scales) with a scale for each index along ``axis``."""
        if (value, axis) not in self.known:
            assert value.const_value is not None
            codes, scales = quantize_weight(value.const_value.numpy(), axis, value.name or "",
                                            self.levels if value in self.matrices else LEVELS[8])
            op = Op(self.graph, value.name or "weight")
            pair = op.constant(codes, "int8"), op.constant(scales, "scale")
            for constant in pair:
                self.graph.register_initializer(constant)
            self.known[value, axis] = pair
        return self.known[value, axis]


def quantize_weight(weight: np.ndarray, axis: int, name: str, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric s8 codes (up to ``levels``) of a float matrix, and the float32 scale of each row (``axis`` 0) or column (1).

    Raises:
        ModelError: the weight holds NaN or infinity.
    """
    largest = np.abs(weight).max(axis=1 - axis, keepdims=True)
    if not np.isfinite(largest).all():
        raise ModelError(f"weight {name} holds NaN or infinity; the checkpoint is broken, export it again")
    scale = np.where(largest == 0, 1.0, largest / levels).astype(np.float32)
    codes = np.rint(weight / scale).astype(np.int8)
    return codes, scale.reshape(-1)


def _quantize_matmul(graph: ir.Graph, node: ir.Node, weights: _Weights, weight: ir.Value, swapped: bool) -> None:
    codes, scale = weights.get(weight, 0 if swapped else 1)
    op = Op(graph, node.outputs[0].name or "matmul")
    activation, step, zero = op.DynamicQuantizeLinear(node.inputs[0], _outputs=3)
    matrix = op.Transpose(codes, perm=[1, 0]) if swapped else codes
    product = op.Cast(op.MatMulInteger(activation, matrix, zero), to=ir.DataType.FLOAT)
    replace(graph, node, op, op.Mul(product, op.Mul(step, scale)))


def _quantize_lookup(graph: ir.Graph, node: ir.Node, weights: _Weights) -> None:
    table, ids = node.inputs
    assert table is not None
    codes, scale = weights.get(table, 0)
    op = Op(graph, node.outputs[0].name or "lookup")
    rows = op.Cast(op.Gather(codes, ids, axis=0), to=ir.DataType.FLOAT)
    scales = op.Unsqueeze(op.Gather(scale, ids, axis=0), op.constant([-1], "last"))
    replace(graph, node, op, op.Mul(rows, scales))
