"""The columns of a linear layer that are attention's values, where what attention gives is read by other linear layers alone.

    softmax(Q K^T) (V / s)  =  (softmax(Q K^T) V) / s          s > 0, one for each column

is exact in real numbers: attention mixes rows, head by head, and leaves columns apart. So a factor for the columns of its result
is one for the columns of the layer that makes V, and of its bias, at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxfuse.quantization.linears import Linear
from onnxfuse.rewrite import Op
from onnxfuse.rewrite.analysis import constant, is_constant


@dataclass(frozen=True)
class ValueColumns:
    """Columns ``start`` to ``start + width`` of a linear layer. ``added``: the Add of its bias and which operand that is."""

    linear: Linear
    start: int
    width: int
    added: tuple[ir.Node, int] | None

    def divide(self, graph: ir.Graph, scale: np.ndarray) -> None:
        """Divide them by ``scale`` [width], in place; the stored matrix keeps its place."""
        factor = np.ones(self.linear.matrix().shape[1], np.float32)
        factor[self.start : self.start + self.width] = 1 / scale
        matrix, weight = self.linear.matrix() * factor, self.linear.weight
        weight.const_value = ir.tensor(np.ascontiguousarray(matrix.T if self.linear.swapped else matrix), name=weight.name)
        if self.added is not None:
            node, at = self.added
            bias = constant(node.inputs[at])
            assert bias is not None
            divided = Op(graph, node.inputs[at].name or "bias").constant(bias * factor, "smoothed")  # type: ignore[union-attr]
            graph.register_initializer(divided)
            node.replace_input_with(at, divided)


def value_columns(value: ir.Value, group: list[Linear], linears: list[Linear]) -> ValueColumns | None:
    """Those that make the input of ``group`` what it is; None where it is not attention's alone, or something else reads them.

    Between attention and either layer rows may be moved, as padding removal does.
    """
    width = len(group[0].matrix())
    if not _read_by_alone(value, {linear.node for linear in group}):
        return None
    reader, at = _reader(_moved(value, width), width)
    values = None if reader is None else reader.inputs[at]
    if values is None or [*values.uses()] != [(reader, at)] or values.is_graph_output():
        return None
    whole, part, parts = _part(values, width)
    source, added = _biased(whole, width * parts)
    linear = next((each for each in linears if each.node.outputs[0] is source), None)
    if linear is None or linear in group or linear.shared or linear.matrix().shape[1] != width * parts:
        return None
    return ValueColumns(linear, part * width, width, added)


def _read_by_alone(value: ir.Value, nodes: set[ir.Node | None]) -> bool:
    return not value.is_graph_output() and {user for user, _ in value.uses()} == nodes


def _reader(value: ir.Value, width: int) -> tuple[ir.Node | None, int]:
    """The node that reads the values of which ``value`` is means, column by column, and at which input; None where there is none.

    It is attention itself, or in attention as products what parts the values into heads.
    """
    attention = value.producer()
    if attention is None or _keeps_columns(attention):
        return attention, 2
    while attention.op_type == "Reshape" and _joins_heads(attention, width) and (before := _only(attention, 0)) is not None:
        attention = before
    if (product := _swapped(attention)) is None or product.op_type != "MatMul":
        return None, 0
    turned = _only(product, 1)
    parted = None if turned is None else _swapped(turned)
    return (parted, 0) if parted is not None and _parts_heads(parted, width) else (None, 0)


def _only(node: ir.Node, at: int) -> ir.Node | None:
    """What makes an input of a node, where nothing else reads it and no other domain has to say what it does."""
    value = node.inputs[at]
    before = None if value is None or not _read_by_alone(value, {node}) else value.producer()
    return None if before is None or before.domain else before


def _swapped(node: ir.Node) -> ir.Node | None:
    """What stands before a Transpose of rows and heads [B,S,N,H] <-> [B,N,S,H]."""
    swaps = node.op_type == "Transpose" and not node.domain and tuple(node.attributes.get_ints("perm", ())) == (0, 2, 1, 3)
    return _only(node, 0) if swaps else None


def _joins_heads(reshape: ir.Node, width: int) -> bool:
    """[B,S,N,H] to rows of ``width``."""
    target = constant(reshape.inputs[1])
    return not reshape.domain and (_last(reshape) == width or (target is not None and target.tolist() == [0, 0, -1]))


def _parts_heads(reshape: ir.Node, width: int) -> bool:
    """Rows of ``width`` to [B,S,N,H]."""
    target = constant(reshape.inputs[1]) if reshape.op_type == "Reshape" else None
    return target is not None and target.size == 4 and int(target[2]) * int(target[3]) == width


def _keeps_columns(node: ir.Node) -> bool:
    """Whether column c of a result is a mean of column c of values. (Where heads share some, it is as wide as they are not.)"""
    return node.op_type == "Attention" and not node.domain and len(node.outputs) == 1 and len(node.inputs) <= 4


def _moved(value: ir.Value, width: int) -> ir.Value:
    """What ``value`` was before its rows were moved, where nothing else reads what lies between."""
    while (node := value.producer()) is not None and _moves_rows(node, width):
        behind = node.inputs[0]
        if behind is None or not _read_by_alone(behind, {node}):
            break
        value = behind
    return value


def _moves_rows(node: ir.Node, width: int) -> bool:
    """A Reshape that leaves the last axis as it is, a Gather of rows from what such a one gives, or a Slice of tokens."""
    if node.domain:
        return False
    if node.op_type == "Slice":
        axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
        return axes is not None and axes.tolist() == [1]
    if node.op_type == "Reshape":
        return _last(node) == width
    table = node.inputs[0].producer() if node.op_type == "Gather" and node.inputs[0] is not None else None
    flat = table is not None and table.op_type == "Reshape" and not table.domain and _last(table) == width
    return flat and node.attributes.get_int("axis", 0) == 0


def _last(reshape: ir.Node) -> int:
    """The last axis that a Reshape gives; 0 where that is not said."""
    target = constant(reshape.inputs[1])
    return 0 if target is None or target.size < 2 else max(0, int(target[-1]))


def _part(values: ir.Value, width: int) -> tuple[ir.Value, int, int]:
    """The product that holds the values as one of several parts of its columns, which one, and of how many; itself otherwise."""
    node = values.producer()
    if node is not None and node.op_type == "Split" and not node.domain:
        return _split(node, values, width)
    if node is not None and _moves_rows(node, width) and node.op_type == "Gather":
        found = _interleaved(node)
        if found is not None:
            return found
    return _moved(values, width), 0, 1


def _split(node: ir.Node, values: ir.Value, width: int) -> tuple[ir.Value, int, int]:
    whole, sizes = node.inputs[0], constant(node.inputs[1]) if len(node.inputs) > 1 else None
    even = sizes is None or set(sizes.tolist()) == {width}
    if whole is None or not even or node.attributes.get_int("axis", 0) not in (-1, 2) or not _read_by_alone(whole, {node}):
        return values, 0, 1
    return whole, values.index() or 0, len(node.outputs)


def _interleaved(node: ir.Node) -> tuple[ir.Value, int, int] | None:
    """Every n-th row of a product seen as rows of one part each: n parts, as padding removal takes them."""
    flat, taken = node.inputs[0], _nth(node.inputs[1])
    view = None if flat is None else flat.producer()
    if flat is None or view is None or taken is None or view.inputs[0] is None:
        return None
    others = [user for user, _ in flat.uses() if user is not node]
    apart = all(
        user.op_type == "Gather"
        and user.inputs[0] is flat
        and user.attributes.get_int("axis", 0) == 0
        and (other := _nth(user.inputs[1])) is not None
        and other[1] == taken[1]
        and other[0] != taken[0]
        for user in others
    )
    whole = view.inputs[0]
    alone = apart and not flat.is_graph_output() and _read_by_alone(whole, {view})
    return (whole, *taken) if alone else None


def _nth(index: ir.Value | None) -> tuple[int, int] | None:
    """(part, n) of an index n * i + part; None of any other."""
    node = None if index is None else index.producer()
    part = 0
    if node is not None and node.op_type == "Add" and (given := _number(node)) is not None:
        part, index = given
        node = index.producer()
    if node is None or node.op_type != "Mul" or (given := _number(node)) is None:
        return None
    return (part, given[0]) if 0 <= part < given[0] else None


def _number(node: ir.Node) -> tuple[int, ir.Value] | None:
    """The constant operand of a node of two, and the other one."""
    for at, value in enumerate(node.inputs):
        other, number = node.inputs[1 - at], constant(value) if is_constant(value) else None
        if number is not None and number.size == 1 and number.dtype.kind == "i" and other is not None:
            return int(number.reshape(-1)[0]), other
    return None


def _biased(whole: ir.Value, width: int) -> tuple[ir.Value, tuple[ir.Node, int] | None]:
    """The product without the bias that is added to it, and where that is."""
    node = whole.producer()
    if node is None or node.op_type != "Add" or node.domain:
        return whole, None
    for at, value in enumerate(node.inputs):
        source = node.inputs[1 - at]
        row = value is not None and is_constant(value) and value.const_value is not None and [*value.const_value.shape] == [width]
        if row and source is not None and _read_by_alone(source, {node}):
            return source, (node, at)
    return whole, None
