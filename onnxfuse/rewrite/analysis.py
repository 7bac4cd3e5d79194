"""What is known of a value without running the model: type, symbolic shape, and the content of shape arithmetic.

Exporters compute every Reshape target with Shape, Gather, Concat and friends, and build masks from Range and Gather.
Evaluating those symbolically (a dimension is a number times a product of named sizes) turns them into constants or into
plain reshapes. Annotations in the file are not trusted: they go stale. Only graph inputs, initializers and the operators' shape
functions (``shapes``) count, and for an operator without one (or where it says nothing) ONNX's shape inference (``inference``);
what follows from neither gets a fresh name, equal to nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import ModelError, OnnxfuseError
from onnxfuse.rewrite import shapes
from onnxfuse.rewrite.inference import Infer, Inference, Size

SMALL = 64
"""Integer tensors of at most this many elements are followed element by element."""

LOWEST_FILL = -1e4
"""Scores filled with this or less get no weight beside any other: exp(-1e4) is zero in every type."""


def lowest_fill(dtype: ir.DataType | None) -> float:
    """``LOWEST_FILL`` as a type rounds it: bfloat16 to -9984."""
    return LOWEST_FILL if dtype is None else float(np.array(LOWEST_FILL, dtype=dtype.numpy()))


@dataclass(frozen=True)
class Dim:
    """A size: ``coef`` times the product of ``symbols`` (sorted; none when that is 0; what starts with ``~`` may be negative)."""

    coef: int
    symbols: tuple[str, ...] = ()

    @property
    def number(self) -> int | None:
        """The value when it is known, else None."""
        return None if self.symbols else self.coef

    @property
    def nonnegative(self) -> bool:
        return self.coef >= 0 and not any(name.startswith("~") for name in self.symbols)

    def __mul__(self, other: Dim) -> Dim:
        coef = self.coef * other.coef
        return Dim(coef, tuple(sorted(self.symbols + other.symbols)) if coef else ())

    def divide(self, other: Dim) -> Dim | None:
        """The exact quotient, or None."""
        if other.coef == 0 or self.coef % other.coef:
            return None
        left = list(self.symbols)
        for name in other.symbols:
            if name not in left:
                return None
            left.remove(name)
        return Dim(self.coef // other.coef, tuple(left))

    def value(self, sizes: dict[str, int]) -> int:
        """The number it stands for once every symbol has a size."""
        return self.coef * math.prod(sizes[name] for name in self.symbols)

    def __str__(self) -> str:
        parts = ([] if self.coef == 1 and self.symbols else [str(self.coef)]) + list(self.symbols)
        return "*".join(parts)


ONE = Dim(1)
Shape = tuple[Dim, ...]
Index = tuple[tuple[int, Dim], ...]
"""For some axes, each once: what a step along it adds."""


@dataclass(frozen=True)
class ValueInfo:
    """What is known of one value; None means unknown.

    ``data``: the elements of a small tensor of integers or booleans, in row-major order. ``uniform``: the one value that every
    element has. ``index``: the value at multi-index i is the sum of ``index[axis] * i[axis]`` (what Range and its broadcasts
    are). ``coordinates``: along the last axis, one such ``index`` for each component (what GatherND reads).
    """

    dtype: ir.DataType | None = None
    shape: Shape | None = None
    data: tuple[Dim, ...] | None = None
    uniform: float | bool | None = None
    index: Index | None = None
    coordinates: tuple[Index, ...] | None = None

    @property
    def known(self) -> bool:
        """Whether anything is known of the content."""
        numbers = self.data is not None and all(item.number is not None for item in self.data)
        return numbers or self.uniform is not None or self.index is not None or self.coordinates is not None

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)


UNKNOWN = ValueInfo()


def stored(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of a constant value, unread: an initializer that no caller can override. None for anything else."""
    return None if value is None or value.is_graph_input() else value.const_value


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of a constant value; None for anything else."""
    tensor = stored(value)
    return None if tensor is None else tensor.numpy()


def is_constant(value: ir.Value | None) -> bool:
    """Whether ``constant`` would give an array, without reading it."""
    return stored(value) is not None


class Analysis:
    """What is known of every value of a graph, computed when asked for and kept; it stays true while rules rewrite the graph.

    Args:
        opsets: of each domain, as the graph's model imports them.
        infer: what a runtime infers of operators that ONNX does not know (see ``inference``); None leaves them unknown.
    """

    def __init__(self, opsets: Mapping[str, int], infer: Infer | None = None) -> None:
        self.opsets = dict(opsets)
        self.opset = self.opsets[""]
        self._known: dict[ir.Value, ValueInfo] = {}
        self._fresh = itertools.count()
        self._capped: dict[Dim, Dim] = {}
        self.reshaped: dict[tuple[Shape, ir.Value], Shape] = {}  # by the sizes before and the target, where that is computed
        self._inference = Inference(self.opsets, infer)

    def scan(self, graph: ir.Graph) -> None:
        """Analyse a whole graph in order, which keeps later look-ups from recursing deeply."""
        for node in graph:
            for output in node.outputs:
                self[output]

    def __getitem__(self, value: ir.Value | None) -> ValueInfo:
        if value is None:
            return UNKNOWN
        info = self._known.get(value)
        if info is None:
            info = self._known[value] = self._compute(value)
        return info

    def forget(self, values: Iterable[ir.Value]) -> None:
        """Compute anew what is known of ``values`` and of everything that is made from them.

        What is known of a content stays: it may come from a Range that is a plain constant by now.
        """
        queue, seen = list(values), set[ir.Value]()
        while queue:
            value = queue.pop()
            if value not in seen:
                seen.add(value)
                if not self._known.get(value, UNKNOWN).known:
                    self._known.pop(value, None)
                queue += [output for node, _ in value.uses() for output in node.outputs]

    def shape(self, value: ir.Value | None) -> Shape | None:
        return self[value].shape

    def size(self, name: str = "") -> Dim:
        """A fresh size, equal to no other; a name of ``~`` makes it one that may be negative."""
        return Dim(1, (f"{name}?{next(self._fresh)}",))

    def capped(self, size: Dim, cap: Dim) -> Dim:
        """min(cap, size). Where it meets ``size`` itself in a broadcast, a model that runs has them equal."""
        dim = Dim(1, (f"min({cap},{size})",))
        self._capped[dim] = size
        return dim

    def _compute(self, value: ir.Value) -> ValueInfo:
        tensor = stored(value)
        if tensor is not None:
            return _of_constant(tensor)
        node = value.producer()
        if node is None:
            return self._of_input(value)
        output = value.index()
        assert output is not None
        info = self._followed(node, output)
        return info if info.shape is not None else self._inferred(node, output, info)

    def _followed(self, node: ir.Node, output: int) -> ValueInfo:
        """What its shape function says of an output. Raises ModelError where that fails as the node is none that ONNX allows."""
        function = shapes.find(node.domain, node.op_type)
        try:
            return shapes.in_64_bits(self, (None if function is None else function(self, node, output)) or UNKNOWN)
        except OnnxfuseError:
            raise
        except Exception as error:
            inputs = [(value, self[value], _small_content(value)) for value in _read_by(node)]
            reason = self._inference.refusal(node, inputs, {})
            if reason is None:
                raise
            raise ModelError(
                f"node {node.name or value_name(node)!r} ({node.op_type}) is none that ONNX allows: {reason}"
            ) from error

    def _inferred(self, node: ir.Node, output: int, info: ValueInfo) -> ValueInfo:
        """``info`` with the shape that it lacks, from ONNX's shape inference."""
        names: dict[Dim, str] = {}
        inputs = [(value, self[value], _small_content(value)) for value in _read_by(node)]
        dtype, sizes = self._inference.outputs(node, inputs, names)[output]
        named: dict[Size, Dim] = {name: dim for dim, name in names.items()}
        shape = None if sizes is None else tuple(self._size(size, named) for size in sizes)
        return replace(info, dtype=info.dtype or dtype, shape=shape)

    def _size(self, size: Size, named: dict[Size, Dim]) -> Dim:
        if isinstance(size, int) and size > 0:  # onnx's inference of Attention tells 0 for a product that it cannot form
            return Dim(size)
        return named.get(size, self.size())

    def unknown_since(self, value: ir.Value) -> ir.Value:
        """Where the shape of ``value`` was lost: itself, or the first value behind it whose shape is not known either."""
        node = value.producer()
        while node is not None:
            behind = next((read for read in _read_by(node) if self[read].shape is None), None)
            if behind is None:
                break
            value, node = behind, behind.producer()
        return value

    def _of_input(self, value: ir.Value) -> ValueInfo:
        if value.shape is None:
            return ValueInfo(value.dtype)
        dims = tuple(
            Dim(dim) if isinstance(dim, int) else Dim(1, (dim.value,)) if dim.value else self.size() for dim in value.shape.dims
        )
        return ValueInfo(value.dtype, dims)

    def broadcast(self, shapes: Iterable[Shape | None]) -> Shape | None:
        """The shape that numpy's rule gives, None when one is unknown; sizes that may or may not agree become a fresh one."""
        known = []
        for shape in shapes:
            if shape is None:
                return None
            known.append(shape)
        rank = max(map(len, known))
        return tuple(self._merge({s[i - rank + len(s)] for s in known if i - rank + len(s) >= 0}) for i in range(rank))

    def _merge(self, dims: set[Dim]) -> Dim:
        dims = dims - {ONE} or {ONE}
        dims = {self._capped[dim] if self._capped.get(dim) in dims else dim for dim in dims}
        numbers = [dim for dim in dims if dim.number is not None]
        if len(dims) == 1:
            return next(iter(dims))
        return numbers[0] if len(numbers) == 1 else self.size()


def value_name(node: ir.Node) -> str:
    """What the first output of a node is called."""
    return next((value.name for value in node.outputs if value.name), "")


def _read_by(node: ir.Node) -> list[ir.Value]:
    """What a node reads, once each; what its subgraphs read from outside too."""
    captured = [
        value
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.GRAPH
        for inner in ir.traversal.RecursiveGraphIterator(attribute.value)
        for value in inner.inputs
        if value is not None and value.graph is node.graph
    ]
    return list(dict.fromkeys(value for value in (*node.inputs, *captured) if value is not None))


def _small_content(value: ir.Value) -> ir.TensorProtocol | None:
    """The content of a small constant, for inference; None for anything else."""
    tensor = stored(value)
    return tensor if tensor is not None and tensor.size <= SMALL else None


def _of_constant(tensor: ir.TensorProtocol) -> ValueInfo:
    shape = tuple(Dim(int(dim)) for dim in tensor.shape.numpy())
    count = math.prod(dim.coef for dim in shape)
    if count == 0 and len(shape) == 1:
        return ValueInfo(tensor.dtype, shape, ())
    if count == 0 or tensor.dtype == ir.DataType.STRING or (count > SMALL and tensor.dtype != ir.DataType.BOOL):
        return ValueInfo(tensor.dtype, shape)
    array = tensor.numpy()
    flat = array.reshape(-1)
    data = tuple(Dim(int(item)) for item in flat) if array.dtype.kind in "iub" and array.ndim <= 1 and count <= SMALL else None
    uniform = flat[0].item() if (flat == flat[0]).all() else None
    return ValueInfo(tensor.dtype, shape, data, uniform)
