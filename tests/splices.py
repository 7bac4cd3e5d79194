"""Random graphs from the library's own spellings and look-alikes: parts of different cases mixed, operands swapped, constants
exchanged, nodes put between, inner values made outputs. The guards alone must keep every optimized graph equal to its original.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import ModelError
from onnxfuse.optimizer import fuse
from onnxfuse.runtime.sessions import open_session, run
from onnxfuse.targets import NAMES, find
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


def splice(seed: int) -> ir.Model | None:
    """One random graph of one to three layers; None when its parts do not fit each other."""
    rng = random.Random(seed)
    statements: list[Statement] = []
    constants, weights, x = dict(_constants(CONSTANTS)), dict(WEIGHTS), "x"
    for layer in range(rng.randint(1, 3)):
        body: list[Statement] = []
        for group in GROUPS:
            case = rng.choice(CASES)
            constants |= dict(_constants(case.constants))
            weights |= case.weights
            for name in group:
                body += read(case.parts.get(name, PARTS[name]))
            body += [statement for name, text in case.parts.items() if name not in PARTS for statement in read(text)]
        statements += renamed(_disturbed(body, rng), layer, x)
        x = f"y{layer}"
    made = [name for statement in statements for name in statement.outputs]
    outputs = list(dict.fromkeys([x, *rng.sample(made, rng.choice([0, 0, 0, 1]))]))
    inputs = ", ".join(
        ["float[B,S,16] x", "int64[B,S] mask", *(f"float[{','.join(map(str, shape))}] {name}" for name, shape in weights.items())]
    )
    text = (
        f"g ({inputs}) => ({', '.join(f'float[] {name}' for name in outputs)}) <{', '.join(constants.values())}> {{ "
        + "\n".join(map(str, statements))
        + " }"
    )
    try:
        model = fill(parse(text, opset=18), seed=seed, **weights)
    except Exception:  # noqa: BLE001 - parts that do not fit: a name twice, or one that nobody makes
        return None
    for value in model.graph.outputs:
        value.type = value.shape = None
    return model


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


def _disturbed(body: list[Statement], rng: random.Random) -> list[Statement]:
    """Up to two edits."""
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        at = rng.randrange(len(body))
        old = body[at]
        kind = rng.choice(["swap", "scalar", "noise", "noise"])
        if kind == "swap":
            body[at] = Statement(old.outputs, old.op, old.attributes, old.inputs[::-1])
        if kind == "scalar":
            inputs = tuple(rng.choice(SCALARS) if name in SCALARS else name for name in old.inputs)
            body[at] = Statement(old.outputs, old.op, old.attributes, inputs)
        if kind == "noise" and len(old.outputs) == 1:
            hidden = f"{old.outputs[0]}_"
            noise = "Identity" if old.outputs[0].startswith("m") else rng.choice(NOISE)  # masks are integers
            body[at : at + 1] = [
                Statement((hidden,), old.op, old.attributes, old.inputs),
                Statement(old.outputs, noise, "", (hidden,)),
            ]
    return body


def renamed(body: list[Statement], layer: int, x: str) -> list[Statement]:
    """The layer's own names with its number, its input renamed to ``x``."""
    made = {name for statement in body for name in statement.outputs}
    names = {name: f"{name}{layer}" for name in made} | {"x": x}
    return [
        Statement(tuple(names[n] for n in s.outputs), s.op, s.attributes, tuple(names.get(n, n) for n in s.inputs)) for s in body
    ]


@dataclass(frozen=True)
class Outcome:
    """One splice: what differs from the original, and whether ONNX Runtime's loader spoils the original in the same way."""

    seed: int
    target: str
    differs: tuple[str, ...]
    loader: bool

    def __str__(self) -> str:
        return f"seed {self.seed}, target {self.target}: {', '.join(self.differs) or 'nothing'} differs"


def judge(seed: int) -> Outcome | None:
    """Optimize one splice and compare it with its original under ORT_DISABLE_ALL; None when that does not give finite numbers.

    The optimized model runs with default options. Where that differs, the loader's own rewrites may be to blame: then the
    original with default options differs too, and the optimized model without them does not.
    """
    before, after = splice(seed), splice(seed)
    if before is None or after is None:
        return None
    rng = np.random.default_rng(seed)
    feeds = {"x": rng.standard_normal((2, 5, 16)).astype(np.float32), "mask": np.array([RIGHT, LEFT])}
    try:
        wanted = _outputs(before, feeds, optimize=False)
    except ModelError:
        return None
    if not all(np.isfinite(array).all() for array in wanted.values()):
        return None
    target = find(NAMES[seed % len(NAMES)])
    fuse(after, target)
    odd = _odd(wanted, _outputs(after, feeds))
    if not odd:
        return Outcome(seed, target.name, (), loader=False)
    ours = _odd(wanted, _outputs(after, feeds, optimize=False))
    loader = not ours and bool(_odd(wanted, _outputs(before, feeds)))
    return Outcome(seed, target.name, () if loader else odd, loader)


def _outputs(model: ir.Model, feeds: dict[str, np.ndarray], *, optimize: bool = True) -> dict[str, np.ndarray]:
    return run(open_session(ir.to_proto(model).SerializeToString(), optimize=optimize), feeds)


def _odd(wanted: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> tuple[str, ...]:
    return tuple(name for name, array in wanted.items() if name not in got or not close(array, got[name], TOLERANCE))
