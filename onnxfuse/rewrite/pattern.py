"""The pattern language: a Python function over ``op`` becomes a tree, and ``match`` finds it in a graph.

``op.Mul(x, op.Add(y, z))`` reads as in onnxscript's patterns: a parameter of the function stands for any value (the same
value wherever it appears), a keyword for an attribute (a parameter there binds it, anything else must be equal). Operands
of commutative operators are tried in both orders, with backtracking. An attribute that the pattern does not name must have
its default, so that a pattern never matches more than it says. A parameter with the default ``None`` may stand for an
absent optional input.

When nothing matches, ``Miss`` tells how far the best attempt came and what it wanted there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxfuse.rewrite.attributes import attribute, plain, schema_default

COMMUTATIVE = {"Add", "Mul", "And", "Or", "Max", "Min", "Equal", "Sum"}
IGNORED_ATTRIBUTES = {"LayerNormalization": {"stash_type"}}
"""Attributes that change no result on the types we handle (stash_type: the type of outputs that nobody reads)."""


@dataclass(frozen=True)
class Var:
    """Any value, or in an attribute's place any attribute value."""

    name: str
    optional: bool


@dataclass(frozen=True, eq=False)
class Term:
    """One operator with its operands; compared by identity, so that a shared one must match a shared node."""

    type: str
    inputs: tuple[Term | Var | None, ...]
    attributes: dict[str, Any]
    domain: str
    output: int


class Pattern:
    """What a pattern function builds with: ``op.Add(x, y)`` is a term of the pattern, not a node."""

    def __getattr__(self, name: str) -> Callable[..., Term]:
        return functools.partial(_record, name)

    def named(self, operator: str) -> Callable[..., Term]:
        """``op.named("Add")`` is ``op.Add``: for rules that are alike but for the operator."""
        return functools.partial(_record, operator)


def _record(op_type: str, /, *inputs: Term | Var | None, _domain: str = "", _output: int = 0, **attributes: Any) -> Term:
    return Term(op_type, inputs, attributes, _domain, _output)


def trace(before: Callable[..., Term]) -> Term:
    """Run a pattern function and return its tree."""
    parameters = list(inspect.signature(before).parameters.values())[1:]
    variables = {p.name: Var(p.name, p.default is None) for p in parameters}
    return before(Pattern(), **variables)


def _other_output(pattern: Term, other: Term) -> bool:
    """Whether two operators of a pattern stand for two outputs of one node."""
    return pattern.inputs == other.inputs and pattern.output != other.output


@dataclass(frozen=True)
class Miss:
    """Where an attempt stopped: ``matched`` operators were right, then ``seen`` stood where ``wanted`` should."""

    matched: int
    wanted: str
    seen: str
    where: str

    def __str__(self) -> str:
        return f"{self.matched} nodes matched; at {self.where}: saw {self.seen}, wanted {self.wanted}"


@dataclass(frozen=True)
class Found:
    """A match: values and attributes by variable name, and the graph's node for each operator of the pattern."""

    bindings: dict[str, Any]
    nodes: dict[Term, ir.Node]


class _Search:
    """One attempt of a pattern at a node; remembers the deepest point it reached."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.miss: Miss | None = None
        self.deepest: tuple[ir.Node, ...] = ()

    def stop(self, nodes: dict[Term, ir.Node], where: str, seen: str, wanted: str) -> None:
        if self.miss is None or len(nodes) > self.miss.matched:
            self.miss = Miss(len(nodes), wanted, seen, where)
            self.deepest = tuple(nodes.values())

    def solve(self, goals: tuple[Any, ...], bindings: dict[str, Any], nodes: dict[Term, ir.Node]) -> Iterator[Found]:
        """Every way to meet every goal (a pattern and the value it must match, as a linked list), over operand orders."""
        while goals:
            (pattern, value), goals = goals
            if isinstance(pattern, Term):
                yield from self._operator(pattern, value, goals, bindings, nodes)
                return
            if pattern is None:
                if value is not None:
                    return self.stop(nodes, name_of(value), "an operand", "none")
                continue
            if value is None and not pattern.optional:
                return self.stop(nodes, pattern.name, "no operand", f"a value for {pattern.name!r}")
            if pattern.name in bindings and bindings[pattern.name] is not value:
                bound = name_of(bindings[pattern.name])
                return self.stop(nodes, name_of(value), "another value", f"{pattern.name!r} = {bound}")
            bindings = bindings | {pattern.name: value}
        yield Found(bindings, nodes)

    def _operator(
        self, pattern: Term, value: ir.Value | None, goals: tuple[Any, ...], bindings: dict[str, Any], nodes: dict[Term, ir.Node]
    ) -> Iterator[Found]:
        if value is None or (node := value.producer()) is None:
            return self.stop(nodes, name_of(value), "a graph input or initializer", pattern.type)
        if (node.op_type, node.domain) != (pattern.type, pattern.domain) or value.index() != pattern.output:
            return self.stop(nodes, name_of(value), node.op_type, pattern.type)
        if nodes.get(pattern, node) is not node or any(
            known is node and not _other_output(pattern, other) for other, known in nodes.items() if pattern not in nodes
        ):
            return self.stop(nodes, name_of(value), "another node", f"one {pattern.type} in both places")
        found = self._attributes(pattern, node, bindings, nodes)
        if found is None:
            return None
        nodes = nodes | {pattern: node}
        for operands in self._orders(pattern, node):
            queue = goals
            for goal in reversed(operands):
                queue = (goal, queue)
            yield from self.solve(queue, found, nodes)
        return None

    def _orders(self, pattern: Term, node: ir.Node) -> Iterator[list[tuple[Any, ir.Value | None]]]:
        given = list(node.inputs)
        width = max(len(given), len(pattern.inputs))
        wanted = list(pattern.inputs) + [None] * (width - len(pattern.inputs))
        given += [None] * (width - len(given))
        yield list(zip(wanted, given, strict=True))
        if pattern.type in COMMUTATIVE and width == 2:
            yield list(zip(wanted, given[::-1], strict=True))

    def _attributes(
        self, pattern: Term, node: ir.Node, bindings: dict[str, Any], nodes: dict[Term, ir.Node]
    ) -> dict[str, Any] | None:
        for name, wanted in pattern.attributes.items():
            seen = attribute(node, name, self.opset)
            if isinstance(wanted, Var):
                bindings = bindings | {wanted.name: plain(seen)}
            elif plain(seen) != wanted:
                self.stop(nodes, name_of(node.outputs[0]), f"{node.op_type} with {name}={plain(seen)}", f"{name}={wanted}")
                return None
        for name, given in node.attributes.items():
            if name in pattern.attributes or name in IGNORED_ATTRIBUTES.get(node.op_type, ()):
                continue
            default = schema_default(node, name, self.opset)
            if plain(given.value) != plain(default):
                self.stop(
                    nodes,
                    name_of(node.outputs[0]),
                    f"{node.op_type} with {name}={plain(given.value)}",
                    f"{name}={plain(default)}",
                )
                return None
        return bindings


class Attempt:
    """The search for a pattern tree whose root is at ``node``: iterate for the matches, then read ``miss``."""

    def __init__(self, pattern: Term, node: ir.Node, opset: int) -> None:
        self._search = _Search(opset)
        self._goals = ((pattern, node.outputs[pattern.output]), ())

    def __iter__(self) -> Iterator[Found]:
        return self._search.solve(self._goals, {}, {})

    @property
    def miss(self) -> Miss | None:
        """The deepest point that failed; None when nothing did."""
        return self._search.miss

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """The graph's nodes that were right at that point."""
        return self._search.deepest


def name_of(value: ir.Value | None) -> str:
    """A value's name for messages."""
    return "an absent input" if value is None else value.name or "an unnamed value"
