"""A rewrite rule: what it looks for, when it refuses, and what it builds instead."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import UsageError, one_line
from onnxfuse.rewrite import pattern
from onnxfuse.rewrite.analysis import Analysis, Dim, Shape, ValueInfo, constant, is_constant, stored

Learned = dict[str, Any]
"""What a guard learned, by the names of the parameters of ``after`` that receive it."""


class NoMatch(Exception):  # noqa: N818 - not an error: it is how a guard says no
    """A guard refuses: the reason, and the value that it looked at."""

    def __init__(self, reason: str, value: ir.Value | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.value = value


class Match:
    """What a guard sees: the matched values by name, the root, and the analysis. It reads only.

    ``read``: the constants whose content it read; a guard reads them here, and nowhere else.
    """

    def __init__(self, found: pattern.Found, root: ir.Node, analysis: Analysis, output: int) -> None:
        self._output = output
        self.bindings = found.bindings
        self.nodes = list(dict.fromkeys(found.nodes.values()))
        self.root = root
        self.analysis = analysis
        self.read: set[ir.Value] = set()

    def __getitem__(self, name: str) -> Any:
        """The value, or the attribute's value, that a variable of the pattern stands for."""
        return self.bindings[name]

    @property
    def output(self) -> ir.Value:
        """The value that the rule replaces."""
        return self.root.outputs[self._output]

    def info(self, name: str) -> ValueInfo:
        return self.analysis[self.bindings[name]]

    def need(self, condition: object, reason: str, value: ir.Value | None = None) -> None:
        """Refuse with ``reason`` unless ``condition`` holds."""
        if not condition:
            raise NoMatch(reason, value)

    def need_single_output(self) -> None:
        """Refuses where another output of the replaced node is read: the node would have to stay beside its replacement."""
        for other in self.root.outputs:
            if other is not self.output and (other.uses() or other.is_graph_output()):
                raise NoMatch(f"its output {pattern.name_of(other)} is read too", other)

    def need_shape(self, value: ir.Value | str, rank: int | None = None) -> Shape:
        """The value's shape; refuses when it is unknown or has another rank."""
        value = self.bindings[value] if isinstance(value, str) else value
        shape = self.analysis.shape(value)
        if shape is None:
            raise NoMatch(f"the shape of {pattern.name_of(value)} is not known{_since(self.analysis, value)}", value)
        if rank is not None and len(shape) != rank:
            raise NoMatch(f"{pattern.name_of(value)} has rank {len(shape)}, wanted {rank}", value)
        return shape

    def need_type(self, name: str) -> ir.DataType:
        """The value's type; refuses when it is unknown."""
        dtype = self.info(name).dtype
        if dtype is None:
            raise NoMatch(f"the type of {pattern.name_of(self.bindings[name])} is not known", self.bindings[name])
        return dtype

    def need_number(self, dim: Dim, what: str) -> int:
        """A size as a number; refuses when it is symbolic."""
        if dim.number is None:
            raise NoMatch(f"{what} is {dim}, wanted a number")
        return dim.number

    def need_constant(self, name: str) -> ir.Value:
        """Refuses unless the value is an initializer that no caller can override. Does not read it."""
        value: ir.Value = self.bindings[name]
        if not is_constant(value):
            raise NoMatch(f"{name} is not a constant", value)
        return value

    def need_array(self, name: str) -> np.ndarray:
        """The content of a constant; refuses anything else."""
        array = self.array(self.bindings[name])
        if array is None:
            raise NoMatch(f"{name} is not a constant", self.bindings[name])
        return array

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """The content of a constant; None for anything else."""
        if value is not None:
            self.read.add(value)
        return constant(value)

    def scalar(self, name: str) -> float:
        """The one element of a constant; refuses anything else."""
        value = self.bindings[name]
        info = self.analysis[value]
        tensor = stored(value)
        if tensor is None or tensor.size != 1 or info.uniform is None:
            raise NoMatch(f"{name} is not a constant scalar", value)
        return float(info.uniform)

    def need_scalar(self, name: str, wanted: float) -> None:
        """Refuses unless the value is this constant as its type holds it, to within one rounding step."""
        seen = self.scalar(name)
        rounded = np.asarray(wanted, dtype=self.need_array(name).dtype)
        if abs(seen - float(rounded)) > abs(float(np.spacing(rounded))):
            raise NoMatch(f"{name} is {seen}, wanted {wanted}", self.bindings[name])


def _since(analysis: Analysis, value: ir.Value | None) -> str:
    """In words, what hides the shape of a value."""
    if value is None:
        return ""
    lost = analysis.unknown_since(value)
    node = lost.producer()
    if node is None:
        return f": the graph input {lost.name} has none"
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f": no shape inference tells what {kind} at {pattern.name_of(lost)} gives"


MARK = "~"
"""Stands in the name of a new value between the value that it replaces a part of, and what it is."""

SERIAL = "onnxfuse.serial"


def _next_serial(graph: ir.Graph) -> int:
    """A number that no value of the graph has in its name yet."""
    if SERIAL not in graph.meta:
        names = (value.name or "" for node in graph for value in node.outputs)
        used = (re.search(rf"{MARK}\w+\.(\d+)\.", name) for name in names)
        graph.meta[SERIAL] = max((int(found[1]) for found in used if found), default=0)
    serial: int = graph.meta[SERIAL] + 1
    graph.meta[SERIAL] = serial
    return serial


class Op(ir.tape.Tape):
    """What ``after`` builds with: ``op.Gelu(x, approximate="tanh")`` makes a node, ``op.constant`` an initializer.

    ``op.many("Split", 3, x, sizes, axis=-1)`` makes a node of three outputs.
    """

    def __init__(self, graph: ir.Graph, base: str) -> None:
        """``base``: the name of the value that is replaced; new values are called after it, with a number of their own."""
        super().__init__()
        self._graph = graph
        self._base = base.partition(MARK)[0]
        self._serial = _next_serial(graph)

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)
        return functools.partial(self._one, op_type)

    def named(self, operator: str) -> Callable[..., ir.Value]:
        """``op.named("Add")`` is ``op.Add``: for rules that are alike but for the operator."""
        return functools.partial(self._one, operator)

    def _one(self, op_type: str, /, *inputs: ir.Value | None, _domain: str = "", **attributes: Any) -> ir.Value:
        return self.many(op_type, 1, *inputs, _domain=_domain, **attributes)[0]

    def many(
        self, op_type: str, outputs: int, /, *inputs: ir.Value | None, _domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """The outputs of a node that has several."""
        while inputs[-1:] == (None,):  # what is absent at the end is no input at all
            inputs = inputs[:-1]
        values = self.op_multi_out(op_type, inputs, attributes, num_outputs=outputs, domain=_domain)
        for at, value in enumerate(values):
            value.name = f"{self._base}{MARK}{op_type}.{self._serial}.{len(self.nodes)}" + f".{at}" * (outputs > 1)
        return values

    def constant(self, content: np.ndarray | list[int] | float | ir.TensorProtocol, name: str = "const") -> ir.Value:
        """A new initializer; lists are int64, floats are float32."""
        if isinstance(content, (list, float)):
            content = np.array(content, dtype=np.int64 if isinstance(content, list) else np.float32)
        taken = {value.name for value in self.initializers}
        names = (f"{self._base}/{name}{'.' * bool(i)}{i or ''}" for i in itertools.count())
        free = next(each for each in names if each not in self._graph.initializers and each not in taken)
        return self.initializer(ir.tensor(content), name=free)


@dataclass(frozen=True)
class Rule:
    """``before`` is replaced by ``after`` where ``guard`` does not refuse.

    Args:
        name: what the Trace, ``--only`` and ``--without`` call it.
        before: the pattern, as a function of ``op`` and its variables (see ``pattern``).
        guard: reads a Match; refuses by raising NoMatch; may return a dict of what it learned, which ``after`` receives.
        after: builds the replacement from the variables; returns the new value, or one for each root output.
        shared: the inner values may be read elsewhere, or by the replacement itself (they then stay); otherwise that refuses
            the match.
        exact: results are equal to the bit, and ``proof`` asks for that.
        measured: of the normal form, whether ``ablate`` leaves it out by itself to see what it brings.
    """

    name: str
    before: Callable[..., pattern.Term]
    guard: Callable[[Match], Learned | None]
    after: Callable[..., ir.Value]
    shared: bool = False
    exact: bool = False
    measured: bool = False

    @cached_property
    def pattern(self) -> pattern.Term:
        """What ``before`` describes. Raises UsageError when it cannot be called with ``op`` and variables."""
        try:
            return pattern.trace(self.before)
        except Exception as error:
            raise UsageError(f"rule {self.name!r}: its pattern fails: {type(error).__name__}: {one_line(error)}") from error
