"""Valid graphs of any operators that encoders use, drawn one node after another: what ``splices`` does not think of.

Each node reads values that are there and fit it; sizes are known while drawing (B = 2, S = 5), and dynamic in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st

from tests.conftest import fill, parse

SIZES = {"B": 2, "S": 5}
MOST = 4000
"""Elements of a value."""

UNARY = ("Relu", "Tanh", "Erf", "Sigmoid", "Neg", "Abs", "Identity", "Exp", "Dropout", "Reciprocal", "Sqrt", "Gelu", "Ceil")
BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")
SCALARS = (0.0, 1.0, -1.0, 2.0, 3.0, 0.5, 0.70710678, 1.41421356, 0.044715, -10000.0, 1e-5)
LOGIC = ("Equal", "Less", "Greater", "GreaterOrEqual")


@dataclass(frozen=True)
class Value:
    """A value's name, element type and sizes."""

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass
class Drawing:
    """A graph as far as it is drawn."""

    draw: st.DrawFn
    values: list[Value]
    lines: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    count: int = 0

    def pick(self, items: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(list(items)))

    def value(self, kind: str = "float", least: int = 0, fits: Callable[[Value], bool] = lambda value: True) -> Value | None:
        """One of a kind, of so many dimensions at least; those made last come first."""
        found = [v for v in reversed(self.values) if v.kind == kind and len(v.shape) >= least and fits(v)]
        return self.pick(found) if found else None

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def add(self, op: str, inputs: Sequence[str], shape: Sequence[int], kind: str = "float", attributes: str = "") -> Value:
        made = Value(self.name(), kind, tuple(shape))
        self.lines.append(f"{made.name} = {op}{attributes and f'<{attributes}>'}({', '.join(inputs)})")
        self.values.append(made)
        return made

    def integers(self, numbers: Sequence[int]) -> str:
        name = self.name()
        self.constants.append(f"int64[{len(numbers)}] {name} = {{{', '.join(map(str, numbers))}}}")
        return name

    def scalar(self) -> Value:
        name = self.name()
        self.constants.append(f"float {name} = {{{self.pick(SCALARS)}}}")
        return Value(name, "float", ())

    def weight(self, *shape: int) -> str:
        name = self.name()
        self.weights[name] = shape
        return name

    def axis(self, value: Value) -> int:
        return int(self.draw(st.integers(0, len(value.shape) - 1)))


def _unary(g: Drawing) -> None:
    if value := g.value():
        g.add(g.pick(UNARY), [value.name], value.shape)


def _binary(g: Drawing) -> None:
    one = g.value()
    if one is None:
        return
    kind = g.pick(("scalar", "weight", "value"))
    if kind == "scalar":
        other = g.scalar()
    elif kind == "weight" and one.shape:
        other = Value(g.weight(one.shape[-1]), "float", one.shape[-1:])
    else:
        other = g.value(fits=lambda value: _broadcast(one.shape, value.shape) is not None) or one
    shape = _broadcast(one.shape, other.shape)
    if shape is not None and math.prod(shape) <= MOST:
        pair = [one.name, other.name]
        g.add(g.pick(BINARY), pair if g.draw(st.booleans()) else pair[::-1], shape)


def _broadcast(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(one, other)
    except ValueError:
        return None


def _matmul(g: Drawing) -> None:
    if value := g.value(least=2):
        wide = g.pick((8, 4, 16))
        form = g.pick(("MatMul", "Einsum", "own"))
        if form == "own":
            *head, row, column = range(len(value.shape))
            turned = _turned(g, value, [*head, column, row])
            if math.prod(value.shape[:-1]) * value.shape[-2] <= MOST:
                g.add("MatMul", [value.name, turned.name], (*value.shape[:-1], value.shape[-2]))
        else:
            equation = 'equation = "...d,df->...f"' if form == "Einsum" else ""
            g.add(form, [value.name, g.weight(value.shape[-1], wide)], (*value.shape[:-1], wide), attributes=equation)


def _transpose(g: Drawing) -> None:
    if value := g.value(least=2):
        _turned(g, value, g.draw(st.permutations(range(len(value.shape)))))


def _turned(g: Drawing, value: Value, order: Sequence[int]) -> Value:
    shape = [value.shape[axis] for axis in order]
    return g.add("Transpose", [value.name], shape, attributes=f"perm = [{', '.join(map(str, order))}]")


def _reshape(g: Drawing) -> None:
    """Split the last axis, merge the last two, or flatten; sizes as 0, -1, numbers, or computed by the graph."""
    if (value := g.value(least=1)) is None:
        return
    head, last = value.shape[:-1], value.shape[-1]
    way = g.pick(("split", "merge", "flat"))
    if way == "split" and last % 2 == 0 and len(value.shape) < 5:
        g.add("Reshape", [value.name, g.integers([*[0] * len(head), 2, g.pick((-1, last // 2))])], (*head, 2, last // 2))
    elif way == "merge" and len(head) > 0:
        merged = (*head[:-1], head[-1] * last)
        g.add("Reshape", [value.name, g.integers([*[0] * (len(head) - 1), -1])], merged)
    else:
        g.add("Reshape", [value.name, g.integers([-1])], (math.prod(value.shape),))


def _shaped(g: Drawing) -> None:
    """A shape that the graph computes from another value: what exporters write where sizes are dynamic."""
    if (value := g.value(least=2)) is None:
        return
    made = g.name()
    g.lines.append(f"{made} = Shape({value.name})")
    if g.draw(st.booleans()):
        parts = []
        for axis in range(2):
            part = g.name()
            g.lines.append(f"{part} = Gather<axis = 0>({made}, {g.integers([axis])})")
            parts.append(part)
        target = g.name()
        g.lines.append(f"{target} = Concat<axis = 0>({', '.join([*parts, g.integers([-1])])})")
        g.add("Reshape", [value.name, target], (*value.shape[:2], math.prod(value.shape[2:])))
    elif (small := g.value(fits=lambda other: _broadcast(other.shape, value.shape) == value.shape)) is not None:
        g.add("Expand", [small.name, made], value.shape)


def _axes(g: Drawing) -> None:
    if value := g.value(least=1):
        if g.draw(st.booleans()) and len(value.shape) < 5:
            axis = g.axis(value)
            g.add("Unsqueeze", [value.name, g.integers([axis])], (*value.shape[:axis], 1, *value.shape[axis:]))
        elif 1 in value.shape:
            axis = value.shape.index(1)
            g.add("Squeeze", [value.name, g.integers([axis])], (*value.shape[:axis], *value.shape[axis + 1 :]))


def _reduce(g: Drawing) -> None:
    if value := g.value(least=1):
        axis, keep = g.axis(value), g.draw(st.integers(0, 1))
        shape = (*value.shape[:axis], *[1] * keep, *value.shape[axis + 1 :])
        named = g.integers([g.pick((axis, axis - len(value.shape)))])
        g.add(g.pick(("ReduceMean", "ReduceSum", "ReduceMax")), [value.name, named], shape, attributes=f"keepdims = {keep}")


def _norm(g: Drawing) -> None:
    if value := g.value(least=1):
        axis = g.axis(value)
        if g.draw(st.booleans()):
            g.add("Softmax", [value.name], value.shape, attributes=f"axis = {axis}")
        else:
            given = [value.name, g.weight(value.shape[-1]), g.weight(value.shape[-1])]
            g.add("LayerNormalization", given[: g.pick((2, 3))], value.shape, attributes="axis = -1")


def _join(g: Drawing) -> None:
    if value := g.value(least=1):
        axis = g.axis(value)
        other = g.value(fits=lambda each: each.shape == value.shape) or value
        if math.prod(value.shape) * 2 <= MOST:
            shape = (*value.shape[:axis], 2 * value.shape[axis], *value.shape[axis + 1 :])
            g.add("Concat", [value.name, other.name], shape, attributes=f"axis = {axis}")


def _part(g: Drawing) -> None:
    """A Slice, a Gather of one place, or half a Split."""
    if (value := g.value(least=1)) is None:
        return
    axis = g.axis(value)
    size, head, tail = value.shape[axis], value.shape[:axis], value.shape[axis + 1 :]
    way = g.pick(("slice", "gather", "split"))
    if way == "gather" and size:
        g.add("Gather", [value.name, g.integers([g.pick((0, -1))])], (*head, 1, *tail), attributes=f"axis = {axis}")
    elif way == "split" and size % 2 == 0:
        one, two = (Value(g.name(), "float", (*head, size // 2, *tail)) for _ in range(2))
        g.lines.append(f"{one.name}, {two.name} = Split<axis = {axis}, num_outputs = 2>({value.name})")
        g.values += [one, two]
    elif size > 1:
        start = g.draw(st.integers(0, size - 1))
        ends = [g.integers([start]), g.integers([g.pick((size, 2**31))]), g.integers([axis])]
        g.add("Slice", [value.name, *ends], (*head, size - start, *tail))


def _look_up(g: Drawing) -> None:
    if (ids := g.value("int64")) and math.prod(ids.shape) * 8 <= MOST:
        g.add("Gather", [g.weight(6, 8), ids.name], (*ids.shape, 8))


def _mask(g: Drawing) -> None:
    """What is compared, turned round, cast, and chosen by."""
    way = g.pick(("compare", "not", "cast", "where", "and"))
    if way == "compare" and (value := g.value("int64")):
        g.add(g.pick(LOGIC), [value.name, g.integers([g.pick((0, 1, 2))])], value.shape or (1,), "bool")
    elif way == "not" and (value := g.value("bool")):
        g.add("Not", [value.name], value.shape, "bool")
    elif way == "and" and (value := g.value("bool")):
        other = g.value("bool", fits=lambda each: each.shape == value.shape) or value
        g.add(g.pick(("And", "Or")), [value.name, other.name], value.shape, "bool")
    elif way == "cast" and (value := g.value(g.pick(("bool", "int64")))):
        g.add("Cast", [value.name], value.shape, attributes="to = 1")
    elif way == "where" and (chosen := g.value("bool")):
        one = g.value(fits=lambda value: _broadcast(value.shape, chosen.shape) is not None) or g.scalar()
        shape = _broadcast(one.shape, chosen.shape)
        pair = [one.name, g.scalar().name]
        if shape is not None and math.prod(shape) <= MOST:
            g.add("Where", [chosen.name, *(pair if g.draw(st.booleans()) else pair[::-1])], shape)


STEPS = (_unary, _binary, _matmul, _transpose, _reshape, _shaped, _axes, _reduce, _norm, _join, _part, _look_up, _mask)
INPUTS = (Value("x", "float", (2, 5, 8)), Value("ids", "int64", (2, 5)), Value("mask", "int64", (2, 5)))


@dataclass(frozen=True, repr=False)
class Graph:
    """A graph as text, and the numbers that its weights and inputs are made from."""

    lines: tuple[str, ...]
    outputs: tuple[Value, ...]
    constants: tuple[str, ...]
    weights: dict[str, tuple[int, ...]]
    numbers: int

    def __repr__(self) -> str:
        weights = (f"float[{','.join(map(str, shape))}] {name}" for name, shape in self.weights.items())
        inputs = ", ".join(["float[B,S,8] x", "int64[B,S] ids", "int64[B,S] mask", *weights])
        outputs = ", ".join(f"{value.kind}[] {value.name}" for value in self.outputs)
        given = f" <{', '.join(self.constants)}>" if self.constants else ""
        return f"g ({inputs}) => ({outputs}){given} {{ " + "\n".join(self.lines) + " }"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis prints."""
        printer.text(repr(self))

    def build(self) -> ir.Model:
        model = fill(parse(repr(self), opset=20), seed=self.numbers, **self.weights)
        for value in model.graph.outputs:
            value.shape = None
        return model

    def feeds(self) -> dict[str, np.ndarray]:
        chance = np.random.default_rng(self.numbers)
        x = chance.standard_normal((2, 5, 8)).astype(np.float32)
        return {"x": x, "ids": chance.integers(0, 6, (2, 5)), "mask": np.array([[1, 1, 1, 0, 0], [1] * 5])}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Graphs of up to 24 steps."""
    drawing = Drawing(draw, list(INPUTS))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=24)):
        step(drawing)
    made = drawing.values[len(INPUTS) :] or [drawing.add("Identity", ["x"], (2, 5, 8))]
    inner = draw(st.lists(st.sampled_from(made), max_size=2))
    outputs = tuple(dict.fromkeys([made[-1], *inner]))
    return Graph(tuple(drawing.lines), outputs, tuple(drawing.constants), drawing.weights, draw(st.integers(0, 9)))
