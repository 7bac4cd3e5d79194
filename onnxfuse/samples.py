"""Inputs to run a model with: read off its graph, so that any .onnx file can be checked, benchmarked and quantized."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.architecture import Architecture
from onnxfuse.errors import ModelError
from onnxfuse.rewrite.facts import is_constant
from onnxfuse.runtime import Feeds

SHORT = 7
LONGEST = 512
"""Longest sequence tried when neither config.json nor a position table says."""

BATCH, LENGTH = "batch", "length"
MASKS = ("none", "right", "left", "holes", "empty row")


@dataclass(frozen=True)
class Input:
    """One graph input: ``role`` is ids, mask, types or values; ``shape`` has numbers, "batch" and "length"."""

    name: str
    role: str
    dtype: np.dtype
    shape: tuple[int | str, ...]
    high: int


@dataclass(frozen=True)
class Profile:
    """What a model takes: its inputs, and the longest sequence it has positions for."""

    inputs: tuple[Input, ...]
    longest: int

    @property
    def sequences(self) -> bool:
        """Whether any input has a length."""
        return any(LENGTH in value.shape or value.role != "values" for value in self.inputs)

    @property
    def masked(self) -> bool:
        return any(value.role == "mask" for value in self.inputs)

    def fixed(self, batch: int | None, length: int | None) -> Profile:
        """The same inputs with these sizes only."""
        sizes = {BATCH: batch, LENGTH: length}
        inputs = [replace(value, shape=tuple(sizes.get(dim) or dim if isinstance(dim, str) else dim for dim in value.shape))
                  for value in self.inputs]
        return replace(self, inputs=tuple(inputs))

    def only(self, dim: str) -> int | None:
        """The one size of "batch" or "length" that the model takes; None when it takes any."""
        at = (BATCH, LENGTH).index(dim)
        sizes = {value.shape[at] for value in self.inputs if len(value.shape) == 2 or (at == 0 and value.shape)}
        return next((size for size in sizes if isinstance(size, int)), None)

    def feeds(self, batch: int, length: int, *, mask: str = "none", seed: int = 0, real: float = 1.0) -> Feeds:
        """Random inputs; ``mask`` is one of ``MASKS``. ``real`` under 1 pads rows on the right instead: see ``row_lengths``."""
        rng = np.random.default_rng(seed)
        feeds = {value.name: self._content(value, batch, length, mask, rng) for value in self.inputs}
        if real < 1:
            kept = np.arange(length) < np.array(row_lengths(batch, length, real))[:, None]
            feeds |= {value.name: kept.astype(value.dtype) for value in self.inputs if value.role == "mask"}
        return feeds

    def _content(self, value: Input, batch: int, length: int, mask: str, rng: np.random.Generator) -> np.ndarray:
        sizes = {BATCH: batch, LENGTH: length}
        shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in value.shape)
        if value.role == "mask":
            return mask_of(mask, *shape).astype(value.dtype)
        if value.role in ("ids", "types"):
            return rng.integers(0, value.high, shape).astype(value.dtype)
        return rng.standard_normal(shape).astype(value.dtype)


def row_lengths(batch: int, length: int, real: float) -> tuple[int, ...]:
    """Rows of falling length, the first of ``length`` tokens, of which the share ``real`` is kept altogether.

    Row i keeps (1 - i/batch)**k of its tokens; k is found by bisection. A single row keeps its share.
    """
    if batch == 1:
        return (max(1, round(length * real)),)
    part = 1 - np.arange(batch) / batch
    low, high = 0.0, 64.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if (part**middle).mean() > real else (low, middle)
    return tuple(max(1, round(length * share)) for share in part**low)


def mask_of(kind: str, batch: int, length: int) -> np.ndarray:
    """An attention mask [batch, length] of 0 and 1. Every row keeps a token, except the last of "empty row"."""
    mask = np.ones((batch, length), dtype=np.int64)
    for row in range(batch):
        dropped = min(length - 1, (length * (row + 1)) // (batch + 1))
        if kind == "right" and dropped:
            mask[row, length - dropped:] = 0
        if kind == "left":
            mask[row, :dropped] = 0
        if kind == "holes":
            mask[row, 1 + row % 2:length - 1:2] = 0
    if kind == "empty row":
        mask[-1] = 0
    return mask


@dataclass(frozen=True)
class Case:
    """One point of the parity grid."""

    name: str
    feeds: Feeds
    finite_only: int | None = None  # the row whose outputs must be finite but not equal


def grid(profile: Profile) -> Iterator[Case]:
    """Batch 1 and 3; length 1, short and longest; every kind of mask, and a row without a token."""
    rows, columns = profile.only(BATCH), profile.only(LENGTH)
    if not profile.sequences:
        for batch in (1, 3) if rows is None else (rows,):
            yield Case(f"batch {batch}", profile.feeds(batch, 1, seed=batch))
        return
    points = [(1, 1, "none"), (1, SHORT, "none"), (1, SHORT, "right"), (3, SHORT, "none"), (1, profile.longest, "none")]
    if profile.masked:
        points += [(3, SHORT, "right"), (3, SHORT, "left"), (3, SHORT, "holes"), (3, SHORT, "empty row"),
                   (3, profile.longest, "right"), (1, SHORT, "left"), (1, SHORT, "holes")]
    points = list(dict.fromkeys((rows or batch, columns or length, mask) for batch, length, mask in points))
    for seed, (batch, length, mask) in enumerate(points):
        yield Case(f"batch {batch}, length {length}, mask {mask}", profile.feeds(batch, length, mask=mask, seed=seed),
                   batch - 1 if mask == "empty row" else None)


def profile_of(model: ir.Model, config: dict[str, Any] | None = None) -> Profile:
    """Read the profile off a graph; config.json's sizes win where it is given.

    Raises:
        ModelError: an input has a type or shape that random values cannot be made for.
    """
    config = config or {}
    inputs = tuple(_read_input(value, config) for value in model.graph.inputs if value.const_value is None)
    if not inputs:
        raise ModelError(f"the model {model.graph.name!r} has no inputs; there is nothing to run it with")
    longest = int(config.get("max_position_embeddings", 0)) or _positions(model)
    return Profile(inputs, longest)


def profile_of_family(family: Architecture, config: dict[str, Any]) -> Profile:
    """The profile of a family's inputs, where there is no ONNX graph to read it off."""
    values = []
    for name, axes in family.inputs.items():
        rank, dtype = (4, ir.DataType.FLOAT) if name == "pixel_values" else (2, ir.DataType.INT64)
        shape = ir.Shape([ir.SymbolicDim(axes.get(axis, f"size_{axis}")) for axis in range(rank)])
        values.append(ir.Value(name=name, shape=shape, type=ir.TensorType(dtype)))
    return Profile(tuple(_read_input(value, config) for value in values), int(config.get("max_position_embeddings", LONGEST)))


def _read_input(value: ir.Value, config: dict[str, Any]) -> Input:
    name = value.name or ""
    if value.dtype is None or value.shape is None or value.dtype == ir.DataType.STRING:
        raise ModelError(f"input {name!r} has type {value.dtype} and shape {value.shape}; wanted numbers of a known rank")
    dtype = value.dtype.numpy()
    rank = len(value.shape)
    if dtype.kind == "f":
        symbolic = {0: BATCH} | ({1: LENGTH} if rank == 3 else {})
        shape = [dim if isinstance(dim, int) else symbolic.get(axis, 0) for axis, dim in enumerate(value.shape.dims)]
        shape = [_image_size(config, axis) if dim == 0 else dim for axis, dim in enumerate(shape)]
        return Input(name, "values", dtype, tuple(shape), 0)
    shape = [dim if isinstance(dim, int) else (BATCH, LENGTH)[min(axis, 1)] for axis, dim in enumerate(value.shape.dims)]
    role = "mask" if "mask" in name else "types" if re.search("type|segment", name) else "ids"
    field = {"types": "type_vocab_size", "ids": "vocab_size"}.get(role, "")
    high = _rows(value) or int(config.get(field, 2))
    return Input(name, role, dtype, tuple(shape), high)


def _image_size(config: dict[str, Any], axis: int) -> int:
    size = config.get("image_size", 224)
    return int(config.get("num_channels", 3)) if axis == 1 else int(size if isinstance(size, int) else size[axis - 2])


def _rows(value: ir.Value) -> int:
    """Rows of the table that ids look up; 0 when there is none."""
    for node, at in value.uses():
        if node.op_type in ("Cast", "Reshape", "Identity", "Unsqueeze", "Squeeze") and (rows := _rows(node.outputs[0])):
            return rows
        if node.op_type == "Gather" and at == 1 and is_constant(node.inputs[0]):
            return int(node.inputs[0].const_value.shape[0])  # type: ignore[union-attr, arg-type]
    return 0


def _positions(model: ir.Model) -> int:
    """Length of the stored position range [1, P], or of the table that positions are sliced from."""
    for tensor in _constants(model):
        sizes = tensor.shape.numpy() if tensor.dtype == ir.DataType.INT64 else ()
        if len(sizes) != 2 or sizes[0] != 1 or sizes[1] < 2:
            continue
        if np.array_equal(tensor.numpy()[0], np.arange(sizes[1])):
            return sizes[1]
    for node in model.graph:
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "Slice" and is_constant(source) and len(source.const_value.shape) == 3:  # type: ignore[union-attr]
            return int(source.const_value.shape[1])  # type: ignore[union-attr, arg-type]
    return LONGEST


def _constants(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Initializers, and what Constant nodes hold."""
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            yield value.const_value
    for node in model.graph:
        if node.op_type == "Constant" and "value" in node.attributes:
            yield node.attributes["value"].as_tensor()
