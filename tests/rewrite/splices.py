"""Graphs drawn from the library's own variants and look-alikes: parts of different cases mixed, operands swapped, constants
exchanged, nodes put between, inner values made outputs. The guards alone must keep every optimized graph equal to its original.

hypothesis draws the structure, so that a graph that fails shrinks to the few parts and edits that matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import assume
from hypothesis import strategies as st

from onnxfuse.errors import ModelError
from onnxfuse.optimizer import fuse
from onnxfuse.runtime.sessions import open_session, run
from onnxfuse.targets import find
from tests.conftest import fill, parse
from tests.layer import CONSTANTS, LEFT, LOOK_ALIKES, PARTS, RIGHT, SPELLINGS, WEIGHTS, Case, close

TOLERANCE = 1e-4
"""Of the largest output: up to three layers, whose norms may divide by a small deviation, each to 1e-5."""

ATTRIBUTES = r"""<(?:[^>"]|"[^"]*")*>"""
STATEMENT = re.compile(rf"(\w+(?:, \w+)*) = (\w+)({ATTRIBUTES})? ?\(([^)]*)\)")
GROUPS = (
    ("mask", "project", "q", "k", "v", "scores", "softmax", "context", "output"),
    ("residual",),
    ("norm",),
    ("up", "gelu", "down"),
    ("residual2",),
    ("norm2",),
)
"""Parts that only make sense together."""

NOISE = ("Identity", "Relu", "Dropout", "Neg", "Tanh")
SCALARS = ("zero", "one", "two", "three", "half", "odd", "root", "low", "eps", "sqrt2", "cubic", "inner", "q1702")


@dataclass(frozen=True)
class Statement:
    """One node as text."""

    outputs: tuple[str, ...]
    op: str
    attributes: str
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.outputs)} = {self.op}{self.attributes}({', '.join(self.inputs)})"


def plain(case: Case) -> bool:
    """Whether a case is a layer of float32 nodes without subgraphs and without inputs of its own."""
    return not (
        case.inputs
        or case.functions
        or case.half
        or case.overridable
        or any(" If " in t or " Loop " in t for t in case.parts.values())
    )


CASES = [case for case in (*SPELLINGS, *LOOK_ALIKES) if plain(case)]


@dataclass(frozen=True, repr=False)
class Splice:
    """A graph of one to three layers, and the numbers that its weights and inputs are made from."""

    statements: tuple[Statement, ...]
    outputs: tuple[str, ...]
    constants: dict[str, str]
    weights: dict[str, tuple[int, ...]]
    numbers: int

    def __repr__(self) -> str:
        weights = (f"float[{','.join(map(str, shape))}] {name}" for name, shape in self.weights.items())
        inputs = ", ".join(["float[B,S,16] x", "int64[B,S] mask", *weights])
        outputs = ", ".join(f"float[] {name}" for name in self.outputs)
        return (
            f"g ({inputs}) => ({outputs}) <{', '.join(self.constants.values())}> {{ "
            + "\n".join(map(str, self.statements))
            + " }"
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis prints."""
        printer.text(repr(self))

    def build(self) -> ir.Model:
        model = fill(parse(repr(self), opset=18), seed=self.numbers, **self.weights)
        for value in model.graph.outputs:
            value.type = value.shape = None
        return model

    def feeds(self) -> dict[str, np.ndarray]:
        x = np.random.default_rng(self.numbers).standard_normal((2, 5, 16)).astype(np.float32)
        return {"x": x, "mask": np.array([RIGHT, LEFT])}


@st.composite
def splices(draw: st.DrawFn) -> Splice:
    """Graphs whose parts fit each other. The simplest is one undisturbed layer of the first case."""
    statements: list[Statement] = []
    constants, weights, x = dict(_constants(CONSTANTS)), dict(WEIGHTS), "x"
    for layer in range(draw(st.integers(1, 3))):
        body: list[Statement] = []
        chosen: list[Case] = []
        for group in GROUPS:
            case = draw(st.sampled_from(CASES))
            constants |= dict(_constants(case.constants))
            weights |= case.weights
            for name in group:
                body += read(case.parts.get(name, PARTS[name]))
            if case not in chosen:
                body += [statement for name, text in case.parts.items() if name not in PARTS for statement in read(text)]
            chosen.append(case)
        for edit in draw(st.lists(st.sampled_from(EDITS), max_size=2)):
            at = draw(st.integers(0, len(body) - 1))
            body[at : at + 1] = edit(draw, body[at])
        statements += renamed(body, layer, x)
        x = f"y{layer}"
    made = [name for statement in statements for name in statement.outputs]
    inner = draw(st.lists(st.sampled_from(made), max_size=1))
    assume(_fit(statements, {"x", "mask", "", *constants, *weights}))
    return Splice(tuple(statements), tuple(dict.fromkeys([x, *inner])), constants, weights, draw(st.integers(0, 9)))


def _fit(statements: list[Statement], known: set[str]) -> bool:
    """Whether each name is made once, before it is read. The parts of different cases may not."""
    for statement in statements:
        if not set(statement.inputs) <= known or not known.isdisjoint(statement.outputs):
            return False
        known = known | set(statement.outputs)
    return True


def _swapped(draw: st.DrawFn, old: Statement) -> list[Statement]:
    return [replace(old, inputs=old.inputs[::-1])]


def _rescaled(draw: st.DrawFn, old: Statement) -> list[Statement]:
    inputs = tuple(draw(st.sampled_from(SCALARS)) if name in SCALARS else name for name in old.inputs)
    return [replace(old, inputs=inputs)]


def _interrupted(draw: st.DrawFn, old: Statement) -> list[Statement]:
    """Another node between this one and its readers."""
    if len(old.outputs) > 1:
        return [old]
    hidden = f"{old.outputs[0]}_"
    noise = "Identity" if old.outputs[0].startswith("m") else draw(st.sampled_from(NOISE))  # masks are integers
    return [replace(old, outputs=(hidden,)), Statement(old.outputs, noise, "", (hidden,))]


EDITS: tuple[Callable[[st.DrawFn, Statement], list[Statement]], ...] = (_swapped, _rescaled, _interrupted)


def read(text: str) -> list[Statement]:
    """The statements of a part."""
    found = [
        Statement(tuple(made.split(", ")), op, attributes, tuple(read.split(", ")))
        for made, op, attributes, read in STATEMENT.findall(text)
    ]
    assert len(found) == len(re.findall(r"\w = ", re.sub(ATTRIBUTES, "", text))), text
    return found


def _constants(text: str) -> list[tuple[str, str]]:
    """Each constant's declaration by its name."""
    return [(declaration.split()[1], declaration) for declaration in re.findall(r"\w+(?:\[\d+\])? \w+ = \{[^}]*\}", text)]


def renamed(body: list[Statement], layer: int, x: str) -> list[Statement]:
    """The layer's own names with its number, its input renamed to ``x``."""
    made = {name for statement in body for name in statement.outputs}
    names = {name: f"{name}{layer}" for name in made} | {"x": x}
    return [
        Statement(tuple(names[n] for n in s.outputs), s.op, s.attributes, tuple(names.get(n, n) for n in s.inputs)) for s in body
    ]


@dataclass(frozen=True)
class Outcome:
    """What an optimized splice computes otherwise, and whether ONNX Runtime's loader spoils the original in the same way."""

    differs: tuple[str, ...]
    loader: bool = False


def judge(splice: Splice, target: str) -> Outcome | None:
    """Optimize a splice and compare it with its original under ORT_DISABLE_ALL; None when that does not give finite numbers.

    The optimized model runs with default options. Where that differs, the loader's own rewrites may be to blame: then the
    original with default options differs too, and the optimized model without them does not.
    """
    before, after, feeds = splice.build(), splice.build(), splice.feeds()
    try:
        wanted = _outputs(before, feeds, optimize=False)
    except ModelError:
        return None
    if not all(np.isfinite(array).all() for array in wanted.values()):
        return None
    fuse(after, find(target))
    odd = _odd(wanted, _outputs(after, feeds))
    if not odd:
        return Outcome(())
    ours = _odd(wanted, _outputs(after, feeds, optimize=False))
    loader = not ours and bool(_odd(wanted, _outputs(before, feeds)))
    return Outcome(() if loader else odd, loader)


def _outputs(model: ir.Model, feeds: dict[str, np.ndarray], *, optimize: bool = True) -> dict[str, np.ndarray]:
    return run(open_session(ir.to_proto(model).SerializeToString(), optimize=optimize), feeds)


def _odd(wanted: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> tuple[str, ...]:
    return tuple(name for name, array in wanted.items() if name not in got or not close(array, got[name], TOLERANCE))
