"""Local proof: run the matched nodes and their replacement side by side on random inputs of the shapes they have.

A region's inputs are what it reads from outside. Sizes get small numbers, one for each symbol; shape arithmetic, ranges and
uniform masks take the content that the analysis implies; everything else is random. A proof that fails names the difference, or
that the replacement cannot be run where the original could. One that cannot be made (an unknown type or shape, an original that
does not run by itself) says why, and the check of the whole model remains. Regions that are alike share a proof (``proof_key``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
import onnx_ir as ir

from onnxfuse.errors import ModelError
from onnxfuse.rewrite.analysis import Analysis, Dim, ValueInfo, constant
from onnxfuse.rewrite.attributes import attribute_proto
from onnxfuse.rewrite.inference import IR_VERSION, opset_imports
from onnxfuse.rewrite.proof_key import may_be_weight, region_key
from onnxfuse.rewrite.rule import Op
from onnxfuse.rewrite.shapes.native import tokens_between

Compute = Callable[[onnx.ModelProto, Mapping[str, np.ndarray]], Sequence[np.ndarray]]
"""The outputs of a model on named arrays, in order, without any rewrite of its own; ``runtime.sessions.compute`` is one.

Raises ModelError where the runtime cannot run it: its reason alone, in one line.
"""

TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-5, np.dtype(np.float16): 4e-3}
"""Largest difference of a region's output by type, relative to its largest value: sums in another order, some rounding steps."""

SIZES = (2, 3, 5, 7, 11)
"""Sizes of symbols, in the order of their appearance; primes, so that no two products agree by chance."""

MOST = 1 << 26
"""Elements of a region's input; sizes that the model fixes may be any."""

THRESHOLDS = frozenset(
    {
        "Clip",
        "Min",
        "Max",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "HardSwish",
        "Shrink",
        "ThresholdedRelu",
    }
)
"""Operators that do something else beyond a number: what is close to zero alone would not show it."""

REACH, FAR = 4.0, 1e4
"""Random numbers reach this many times beyond the largest constant of such a region; constants above ``FAR`` stand for no end."""

NATIVE = frozenset("biuf")
"""Kinds of numpy's own types that regions run on; bfloat16 and the like are not among them."""

CANONICAL_OPSET = 23
"""Operators of the normal form that a model's own opset may lack (Attention, Gelu) run in this one."""


@dataclass(frozen=True)
class Verdict:
    """Whether a rewrite held; ``proven`` is None when it could not be run, for ``reason``."""

    proven: bool | None
    reason: str = ""


@dataclass(frozen=True)
class _Failure:
    """Why the runtime could not run a region, in its own words."""

    reason: str


class Claim(Protocol):
    """What says that a replacement computes the same: a rule, or a pass. ``exact``: to the bit."""

    @property
    def name(self) -> str: ...

    @property
    def exact(self) -> bool: ...


class Prover:
    """Proves rewrites of one graph; sizes and random numbers are the same for all of them.

    Args:
        analysis: of that graph.
        compute: runs a region.
    """

    def __init__(self, analysis: Analysis, compute: Compute) -> None:
        self._analysis = analysis
        self._compute = compute
        self._sizes: dict[str, int] = {}
        self._random: dict[tuple[int, tuple[int, ...], np.dtype], np.ndarray] = {}
        self._proven: set[Hashable] = set()

    def prove(
        self,
        claim: Claim,
        before: Sequence[ir.Node],
        old: ir.Value,
        op: Op,
        new: ir.Value,
        looked_at: Collection[ir.Value] | None = None,
    ) -> Verdict:
        """Whether ``old``, computed by the nodes ``before``, is ``new``, computed by the nodes of ``op``.

        Args:
            looked_at: the values whose numbers decided that the rule applies (``Match.read``); None when that is not known, and
                all that is constant may have. The proof of a region that differs in no others holds for this one.
        """
        made = {value for node in (*before, *op.nodes) for value in node.outputs}
        read = [value for node in (*before, *op.nodes) for value in node.inputs if value is not None and value not in made]
        try:
            outside = dict.fromkeys([*read, *([] if new in made else [new])])
            feeds = {value: self.content(value, at) for at, value in enumerate(outside)}
        except ValueError as reason:
            return Verdict(None, str(reason))
        fixed = set(outside if looked_at is None else looked_at) | set(op.initializers)
        weights = {value for value in outside if value not in fixed and may_be_weight(value)}
        key = claim.name, claim.exact, region_key([*before, *op.nodes], (old, new), feeds, weights)
        if key in self._proven:
            return Verdict(True)
        verdict = self._compare(claim, before, old, op, new, feeds)
        if verdict.proven:
            self._proven.add(key)
        return verdict

    def _compare(
        self, claim: Claim, before: Sequence[ir.Node], old: ir.Value, op: Op, new: ir.Value, feeds: dict[ir.Value, np.ndarray]
    ) -> Verdict:
        verdict = self._judged(claim, before, old, op, new, feeds)
        if verdict.proven and any(node.op_type in THRESHOLDS for node in (*before, *op.nodes)):
            beyond = self._judged(claim, before, old, op, new, self._beyond(feeds))
            return verdict if beyond.proven is None else beyond  # out there the original may not be finite
        return verdict

    def _judged(
        self, claim: Claim, before: Sequence[ir.Node], old: ir.Value, op: Op, new: ir.Value, feeds: dict[ir.Value, np.ndarray]
    ) -> Verdict:
        wanted = self._run(before, old, feeds)
        if isinstance(wanted, _Failure):
            return Verdict(None, f"ONNX Runtime cannot run the region: {wanted.reason}")
        got = feeds[new] if new in feeds else self._run(op.nodes, new, feeds)
        if isinstance(got, _Failure):
            return Verdict(False, f"ONNX Runtime cannot run the replacement: {got.reason}")
        return judge(wanted, got, exact=claim.exact)

    def _beyond(self, feeds: Mapping[ir.Value, np.ndarray]) -> dict[ir.Value, np.ndarray]:
        """The same inputs with random floats that lie beyond the region's constants."""
        held = [abs(float(array.flat[0])) for value, array in feeds.items() if array.size == 1 and constant(value) is not None]
        reach = REACH * max([1.0, *(number for number in held if number < FAR)])
        random = {id(array) for array in self._random.values() if array.dtype.kind == "f"}
        return {
            value: np.asarray(array * array.dtype.type(reach)) if id(array) in random else array for value, array in feeds.items()
        }

    def _size(self, dim: Dim) -> int:
        for name in dim.symbols:
            self._sizes.setdefault(name, SIZES[min(len(self._sizes), len(SIZES) - 1)])
        return dim.value(self._sizes)

    def content(self, value: ir.Value, at: int) -> np.ndarray:
        """What a region's input number ``at`` holds; inputs of one region differ from each other.

        Raises:
            ValueError: nothing can be made for it, in words.
        """
        info = self._analysis[value]
        if info.dtype is not None and info.dtype.numpy().kind not in NATIVE:
            raise ValueError(f"{value.name} has type {info.dtype.name}, which ONNX Runtime does not take from numpy")
        known = constant(value)
        if known is not None:
            return known
        if info.dtype is None or info.shape is None:
            raise ValueError(f"the type or shape of {value.name} is not known")
        shape = tuple(self._size(dim) for dim in info.shape)
        if math.prod(shape) > MOST:
            raise ValueError(f"{value.name} of fixed sizes {list(shape)} is more than a proof should take")
        dtype = info.dtype.numpy()
        implied = self._implied(info, shape)
        if implied is None and (tokens := self._analysis.shape(tokens_between(value))) is not None:
            implied = np.linspace(0, math.prod(self._size(dim) for dim in tokens[:-1]), math.prod(shape)).astype(np.int64)
        if implied is not None:
            return implied.astype(dtype)
        key = (at, shape, dtype)
        if key not in self._random:
            self._random[key] = _random_array(np.random.default_rng((0, at)), shape, dtype)
        return self._random[key]

    def _implied(self, info: ValueInfo, shape: tuple[int, ...]) -> np.ndarray | None:
        if info.data is not None:
            return np.array([self._size(item) for item in info.data]).reshape(shape)
        if info.uniform is not None:
            return np.full(shape, info.uniform)
        if info.index is not None:
            grid = np.indices(shape)
            return sum((grid[axis] * self._size(coef) for axis, coef in info.index), np.zeros(shape))
        if info.coordinates is not None:
            grid = np.indices(shape[:-1])
            return np.stack(
                [sum((grid[axis] * self._size(coef) for axis, coef in part), np.zeros(shape[:-1])) for part in info.coordinates],
                axis=-1,
            )
        return None

    def _run(self, nodes: Sequence[ir.Node], output: ir.Value, feeds: dict[ir.Value, np.ndarray]) -> np.ndarray | _Failure:
        """What the nodes compute, or why they cannot be run."""
        try:
            return self.outputs(nodes, [output], feeds)[0]
        except ModelError as error:
            return _Failure(str(error))

    def outputs(
        self, nodes: Sequence[ir.Node], values: Sequence[ir.Value], feeds: Mapping[ir.Value, np.ndarray]
    ) -> list[np.ndarray]:
        """What nodes compute for ``values``. Their order is the runtime's own concern, and every value gets a name of its own.

        Raises:
            ModelError: they cannot be run.
        """
        names: dict[ir.Value | None, str] = {None: ""}
        for node in nodes:
            for value in (*node.inputs, *node.outputs):
                names.setdefault(value, f"v{len(names)}")
        protos = [_proto(node, names) for node in nodes]
        read = [value for value in feeds if value in names]
        inputs = [
            onnx.helper.make_tensor_value_info(
                names[value], onnx.helper.np_dtype_to_tensor_dtype(feeds[value].dtype), feeds[value].shape
            )
            for value in read
        ]
        shown = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names[value] for value in values if value not in feeds)]
        graph = onnx.helper.make_graph(protos, "region", inputs, shown)
        canonical = any(node.op_type in ("Attention", "Gelu") and not node.domain for node in nodes)
        opset = max(self._analysis.opset, CANONICAL_OPSET) if canonical else self._analysis.opset
        imports = opset_imports(nodes, self._analysis.opsets | {"": opset})
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
        computed = self._compute(model, {names[value]: feeds[value] for value in read})
        made = dict(zip((value.name for value in shown), map(np.asarray, computed), strict=True))
        return [feeds[value] if value in feeds else made[names[value]] for value in values]


def _random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "biu":
        keep = np.asarray(rng.random(shape) < 0.6 if dtype.kind == "b" else rng.integers(0, 2, shape))
        if keep.ndim and shape[-1] > 1:  # a row without a token means nothing, whichever way the mask is meant
            keep[..., 0], keep[..., -1] = True, False
        return keep.astype(dtype)
    return rng.standard_normal(shape, dtype=np.float32).astype(dtype)


def _proto(node: ir.Node, names: dict[ir.Value | None, str]) -> onnx.NodeProto:
    proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
    proto.input.extend(names[value] for value in node.inputs)
    proto.output.extend(names[value] for value in node.outputs)
    proto.attribute.extend(attribute_proto(attribute) for attribute in node.attributes.values())
    return proto


def judge(wanted: np.ndarray, got: np.ndarray, *, exact: bool = False, slack: float = 1.0) -> Verdict:
    """Whether two arrays are equal: to the bit, or within ``slack`` times the tolerance of their type."""
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return Verdict(False, f"{got.dtype}{list(got.shape)} instead of {wanted.dtype}{list(wanted.shape)}")
    if exact or wanted.dtype.kind != "f":
        same = np.array_equal(wanted, got, equal_nan=wanted.dtype.kind == "f")
        return Verdict(True) if same else Verdict(False, "not equal to the bit")
    if not np.isfinite(wanted).all():
        return Verdict(None, "the original gives numbers that are not finite")
    wide, other = wanted.astype(np.float64), got.astype(np.float64)
    off = float(np.abs(wide - other).max(initial=0.0)) / max(float(np.abs(wide).max(initial=0.0)), 1e-30)
    return Verdict(True) if off <= slack * TOLERANCE[wanted.dtype] else Verdict(False, f"off by {off:.2e} of the largest value")
