"""What the functions that take ONNX Runtime's operators apart work with: where the operator stands, and how they say no."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Analysis, Op
from onnxfuse.rewrite.analysis import Shape

Parts = Callable[..., dict[int, ir.Value]]
"""``parts(site, *inputs, **attributes)``: a new value for each output that has parts. Raises Stays."""


class Stays(Exception):  # noqa: N818 - not an error: it is how an operator stays as it is
    """Why an operator is not taken apart."""


@dataclass(frozen=True)
class Site:
    """One operator of ONNX Runtime: the node, what is known of its inputs, and what its parts are built with."""

    op: Op
    analysis: Analysis
    node: ir.Node
    inputs: Sequence[ir.Value]
    """The graph's."""

    def read(self, output: int) -> bool:
        """Whether someone reads the node's output of that number."""
        return any(value.uses() or value.is_graph_output() for value in self.node.outputs[output : output + 1])

    def shape(self, value: ir.Value | None, name: str, *ranks: int) -> Shape:
        """A value's shape. Raises Stays when it is unknown, or of none of the ``ranks`` where some are given."""
        shape = self.analysis.shape(value)
        if shape is None:
            raise Stays(f"the shape of its input {name!r} is not known")
        if ranks and len(shape) not in ranks:
            raise Stays(f"its input {name!r} has rank {len(shape)}, wanted {' or '.join(map(str, ranks))}")
        return shape

    def width(self, value: ir.Value | None, name: str, rank: int) -> int:
        """The last size of a value. Raises Stays when it is not a number, or the value of another rank."""
        size = self.shape(value, name, rank)[-1]
        if size.number is None:
            raise Stays(f"the width of its input {name!r} is {size}, wanted a number")
        return size.number

    def size(self, value: ir.Value, name: str, axis: int) -> ir.Value:
        """One size of a value, as a tensor [1]: of a graph input that has it, where there is one, so that nothing reads the
        value. Raises Stays when the value's shape is unknown."""
        wanted = self.shape(value, name)[axis]
        shapes = ((source, self.analysis.shape(source) or ()) for source in (*self.inputs, value))
        source, at = next((source, shape.index(wanted)) for source, shape in shapes if wanted in shape)
        return self.op.Shape(source, start=at, end=at + 1)

    def number(self, content: float, like: ir.Value | None, name: str) -> ir.Value:
        """A constant of rank 0 and of the type of ``like``, or its nearest finite one. The graph reads off a type that is not
        known."""
        dtype = self.analysis[like].dtype
        kind = ir.DataType.FLOAT if dtype is None else dtype
        constant = self.op.constant(np.array(np.clip(content, kind.min, kind.max), dtype=kind.numpy()), name)
        return constant if dtype is not None else self.op.CastLike(constant, like)
