"""Inputs to run a model with: read off its graph, so that any .onnx file can be checked, benchmarked and quantized."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from onnxfuse.architecture import Architecture
from onnxfuse.errors import ModelError
from onnxfuse.verify.positions import positions
from onnxfuse.verify.profile import BATCH, LENGTH, Input, Profile
from onnxfuse.verify.roles import features, name_of, padding_id, role_of, table_rows

LONGEST = 512
"""The longest sequence where neither config.json nor a position table says."""


def profile_of(model: ir.Model, config: Mapping[str, Any] | None = None) -> Profile:
    """Read the profile off a graph; config.json's sizes serve where the graph does not tell.

    Raises:
        ModelError: an input has a type or shape that random values cannot be made for.
    """
    config = config or {}
    if model.functions:
        model = model.clone()
        InlinePass()(model)
    values = [value for value in model.graph.inputs if value.const_value is None]
    if not values:
        raise ModelError(f"the model {model.graph.name!r} has no inputs; there is nothing to run it with")
    longest = [size for size in (_number(config, "max_position_embeddings"), positions(model)) if size]
    return Profile(_read_inputs(values, config), min(longest, default=LONGEST), bool(longest))


def profile_of_family(family: Architecture, config: Mapping[str, Any], task: str) -> Profile:
    """The profile of a task's inputs, where there is no ONNX graph to read it off."""
    values = []
    for name, axes in family.inputs_of(config, task).items():
        rank, dtype = (4, ir.DataType.FLOAT) if name == "pixel_values" else (len(axes), ir.DataType.INT64)
        shape = ir.Shape([ir.SymbolicDim(axes.get(axis, f"size_{axis}")) for axis in range(rank)])
        values.append(ir.Value(name=name, shape=shape, type=ir.TensorType(dtype)))
    longest = family.longest(config)
    return Profile(_read_inputs(values, config), longest or LONGEST, bool(longest))


def _number(config: Mapping[str, Any], *names: str) -> int:
    """The first of these fields that holds a positive whole number, or 0; what no tensor could have as a size is none."""
    return next((config[name] for name in names if type(config.get(name)) is int and 0 < config[name] < 1 << 31), 0)


def _read_inputs(values: list[ir.Value], config: Mapping[str, Any]) -> tuple[Input, ...]:
    for value in values:
        if not isinstance(value.type, ir.TensorType) or value.shape is None or value.dtype == ir.DataType.STRING:
            raise ModelError(
                f"input {value.name!r} has type {value.type} and shape {value.shape}; wanted numbers of a known rank"
            )
    roles = {value: role_of(value) for value in values}
    axes = _axes(roles)
    others: dict[str, int] = {}  # sizes of what is neither rows nor tokens: one for each name
    read = {
        value: _read_input(value, role, axes[value], config, others)
        for value, role in sorted(roles.items(), key=lambda item: item[1] == "mask")
    }
    return tuple(read[value] for value in values)


def _read_input(value: ir.Value, role: str, axes: tuple[str, ...], config: Mapping[str, Any], others: dict[str, int]) -> Input:
    assert value.shape is not None and value.dtype is not None
    image = len(axes) == 4 and LENGTH not in axes

    def number(axis: int, dim: ir.SymbolicDim) -> int:
        size = _image_size(config, axis) if image else _size(value, role, config)
        return size if dim.value is None else others.setdefault(dim.value, size)

    shape = tuple(
        dim if isinstance(dim, int) else kind or number(axis, dim)
        for axis, (dim, kind) in enumerate(zip(value.shape.dims, axes, strict=True))
    )
    field = "type_vocab_size" if role == "types" else "max_position_embeddings" if "position" in name_of(value) else "vocab_size"
    high = table_rows(value) or _number(config, field) or 2
    return Input(value.name or "", role, value.dtype.numpy(), shape, axes, high, padding_id(value) if role == "ids" else None)


# Axes ------------------------------------------------------------------------------------------------------------

HINTS = {BATCH: re.compile("batch|^bs?$", re.IGNORECASE), LENGTH: re.compile("seq|len|tok|time|^[slt]$", re.IGNORECASE)}
"""Names of dimensions that tell what they are."""

HEADS, ITEMS, WIDTH = 1, 2, 8
"""Sizes of dimensions that are neither rows nor tokens, and that nothing tells: a mask's heads, choices, features."""


def _axes(roles: Mapping[ir.Value, str]) -> dict[ir.Value, tuple[str, ...]]:
    """Of each input, what its axes are. Dimensions of one name are one thing; the name tells, or else where it stands.

    Where inputs differ, ids say more than masks, whose middle axis may be queries, heads or choices; of one rank, they stand
    alike.
    """
    ranks = {len(_dims(value)) for value, role in roles.items() if role in ("ids", "types")}
    placed = {value: _places(value, "ids" if len(_dims(value)) in ranks else role) for value, role in roles.items()}
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for value, places in placed.items():
        names = [str(dim) for dim in _dims(value)]
        for name, kind in zip(names, places, strict=True):
            twice = names.count(name) > 1 and kind == BATCH  # rows are not columns
            votes[name][LENGTH if twice else kind] += 2 if roles[value] in ("ids", "types") else 1
    kinds = {name: max(counts, key=lambda kind: (counts[kind], kind == LENGTH)) for name, counts in votes.items()}
    kinds |= {name: kind for name in kinds for kind, pattern in HINTS.items() if pattern.search(name)}
    return {
        value: tuple(
            kinds[str(dim)] if isinstance(dim, ir.SymbolicDim) and dim.value is not None else kind
            for dim, kind in zip(_dims(value), places, strict=True)
        )
        for value, places in placed.items()
    }


def _dims(value: ir.Value) -> tuple[int | ir.SymbolicDim, ...]:
    assert value.shape is not None
    return tuple(value.shape.dims)


def _places(value: ir.Value, role: str) -> tuple[str, ...]:
    """What an input's axes are by their place: rows first, then tokens; a mask's last are queries and keys."""
    rank = len(_dims(value))
    if rank == 0:
        return ()
    if role == "mask":
        return (BATCH, *[""] * (rank - 3), *[LENGTH] * min(rank - 1, 2))
    if role == "values":
        return (BATCH, *({2: ("" if features(value) else LENGTH,), 3: (LENGTH, "")}.get(rank, ("",) * (rank - 1))))
    return (BATCH, *[""] * (rank - 2), *[LENGTH] * min(rank - 1, 1))


def _size(value: ir.Value, role: str, config: Mapping[str, Any]) -> int:
    """A number for a dynamic dimension that is neither rows nor tokens."""
    if role == "values":
        return features(value) or _number(config, "hidden_size", "dim") or WIDTH
    return HEADS if role == "mask" else ITEMS


def _image_size(config: Mapping[str, Any], axis: int) -> int:
    if axis == 1:
        return _number(config, "num_channels") or 3
    size = config.get("image_size", 224)
    sides = dict(enumerate(size if isinstance(size, list) else [size, size], start=2))
    found = _number({"side": sides.get(axis)}, "side")
    if not found:
        raise ModelError(f"config.json has {size!r:.80} as image_size, wanted a number, or a height and a width; correct it")
    return found
