"""Inputs to run a model with: read off its graph, so that any .onnx file can be checked, benchmarked and quantized."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from onnxfuse.architecture import Architecture
from onnxfuse.errors import ModelError
from onnxfuse.runtime import Feeds
from onnxfuse.verify.profile import BATCH, LENGTH, MASKS, SHORT, Input, Profile, mask_of, row_lengths, understood

__all__ = [
    "BATCH",
    "LENGTH",
    "LONGEST",
    "MASKS",
    "SHORT",
    "TRIED",
    "Case",
    "Input",
    "Profile",
    "grid",
    "mask_of",
    "profile_of",
    "profile_of_family",
    "row_lengths",
    "understood",
]

LONGEST = 512
"""The longest sequence where neither config.json nor a position table says."""

TRIED = 1024
"""The longest sequence in the grid: the scores of attention grow with its square."""


@dataclass(frozen=True)
class Case:
    """One point of the parity grid.

    ``twins``: of a case with a row that has no token, two feeds without padding that differ in that row; the outputs that
    differ between them are the row's, and must be finite but not equal.

    ``sides``: of a case padded on the left, three feeds without padding: the same tokens, others where tokens are real, others
    where padding is. Outputs that only the last reach (a causal model's) have no key to attend to; they too must only be finite.
    """

    name: str
    feeds: Feeds
    twins: tuple[Feeds, Feeds] | None = None
    sides: tuple[Feeds, Feeds, Feeds] | None = None


def grid(profile: Profile) -> Iterator[Case]:
    """Batch 1 and 3; length 1, short and longest; every kind of mask, and a row without a token. Raises ModelError."""
    rows, columns = profile.only(BATCH), profile.only(LENGTH)
    if not profile.sequences:
        for batch in (1, 3) if rows is None else (rows,):
            yield Case(f"batch {batch}", profile.feeds(batch, 1, seed=batch))
        return
    longest = min(profile.longest, TRIED)
    short = min(SHORT, longest)
    points = [(1, 1, "none"), (1, short, "none"), (3, short, "none"), (1, longest, "none")]
    if profile.masked:
        points += [
            (1, short, "right"),
            (3, short, "right"),
            (3, short, "left"),
            (3, short, "holes"),
            (3, short, "empty row"),
            (3, longest, "right"),
            (1, short, "left"),
            (1, short, "holes"),
        ]
    points = list(dict.fromkeys((rows or batch, columns or length, mask) for batch, length, mask in points))
    for seed, (batch, length, mask) in enumerate(points):
        yield Case(
            f"batch {batch}, length {length}, mask {mask}",
            profile.feeds(batch, length, mask=mask, seed=seed),
            profile.twins(batch, length, seed) if mask == "empty row" else None,
            profile.sides(batch, length, mask, seed) if mask == "left" else None,
        )


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
    longest = [size for size in (_number(config, "max_position_embeddings"), _positions(model)) if size]
    return Profile(_read_inputs(values, config), min(longest, default=LONGEST), bool(longest))


def profile_of_family(family: Architecture, config: Mapping[str, Any]) -> Profile:
    """The profile of a family's inputs, where there is no ONNX graph to read it off."""
    values = []
    for name, axes in family.inputs.items():
        rank, dtype = (4, ir.DataType.FLOAT) if name == "pixel_values" else (2, ir.DataType.INT64)
        shape = ir.Shape([ir.SymbolicDim(axes.get(axis, f"size_{axis}")) for axis in range(rank)])
        values.append(ir.Value(name=name, shape=shape, type=ir.TensorType(dtype)))
    longest = _number(config, "max_position_embeddings")
    return Profile(_read_inputs(values, config), longest or LONGEST, bool(longest))


def _number(config: Mapping[str, Any], *names: str) -> int:
    """The first of these fields that holds a positive whole number, or 0."""
    return next((config[name] for name in names if type(config.get(name)) is int and config[name] > 0), 0)


def _read_inputs(values: list[ir.Value], config: Mapping[str, Any]) -> tuple[Input, ...]:
    for value in values:
        if not isinstance(value.type, ir.TensorType) or value.shape is None or value.dtype == ir.DataType.STRING:
            raise ModelError(
                f"input {value.name!r} has type {value.type} and shape {value.shape}; wanted numbers of a known rank"
            )
    roles = {value: _role(value) for value in values}
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
    field = "type_vocab_size" if role == "types" else "max_position_embeddings" if "position" in _name(value) else "vocab_size"
    high = _rows(value) or _number(config, field) or 2
    return Input(value.name or "", role, value.dtype.numpy(), shape, axes, high, _pad(value) if role == "ids" else None)


def _name(value: ir.Value) -> str:
    return (value.name or "").lower()


# Roles -----------------------------------------------------------------------------------------------------------

KEEPS = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Expand"}
"""Operators behind which an input is still the same input."""

TABLES = {("Gather", 1): 0, ("EmbedLayerNormalization", 0): 2, ("EmbedLayerNormalization", 1): 4}
"""(operator, place of the ids): the place of the table that they look up."""

MASKING = {
    ("Not", 0),
    ("Where", 0),
    ("And", 0),
    ("And", 1),
    ("Or", 0),
    ("Or", 1),
    ("Sub", 1),
    ("Attention", 3),
    ("MultiHeadAttention", 4),
    ("MultiHeadAttention", 5),
    ("EmbedLayerNormalization", 7),
}
"""(operator, place) of what only masks are for; ``Sub``: 1 - mask."""


def _role(value: ir.Value) -> str:
    """What an input is: by what the graph does with it, and by its name where that does not tell."""
    assert value.dtype is not None and value.shape is not None
    name, rows = _name(value), _rows(value)
    if "mask" in name and rows <= 2:
        return "mask"
    uses = {(node.op_type, at) for node, at in _uses(value)}
    if value.dtype.is_floating_point():
        return "mask" if uses & (MASKING - {("Sub", 1), ("Where", 0)}) else "values"
    if not rows and len(value.shape) > 1 and (value.dtype == ir.DataType.BOOL or uses & MASKING):
        return "mask"
    return "types" if re.search("type|segment", name) else "ids"


def _uses(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """What reads a value, also through operators that keep it."""
    for node, at in value.uses():
        if node.op_type in KEEPS and at == 0:
            yield from _uses(node.outputs[0])
        else:
            yield node, at


def _rows(value: ir.Value) -> int:
    """Rows of the table that ids look up; 0 when there is none."""
    tables = (node.inputs[TABLES[node.op_type, at]] for node, at in _uses(value) if (node.op_type, at) in TABLES)
    return min((rows for table in tables if (rows := _length(table))), default=0)


def _length(table: ir.Value | None) -> int:
    """The first size of a constant, in another type too; 0 where it is none."""
    if (tensor := _constant(table)) is not None:
        return tensor.shape.numpy()[0] if len(tensor.shape) else 0
    node = None if table is None else table.producer()
    return _length(node.inputs[0]) if node is not None and node.op_type in ("Cast", "DequantizeLinear", "Identity") else 0


def _pad(ids: ir.Value) -> int | None:
    """The id that the graph compares ids with: padding, in models that ask no mask for it."""
    for node, at in _uses(ids):
        if node.op_type == "Equal" and (number := _scalar(node.inputs[1 - at])) is not None:
            return int(number)
    return None


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """What an initializer or a Constant node holds."""
    return None if value is None else ir.convenience.get_const_tensor(value)


def _scalar(value: ir.Value | None) -> float | None:
    """The number that a constant of one element holds."""
    tensor = _constant(value)
    return float(tensor.numpy().reshape(-1)[0]) if tensor is not None and tensor.size == 1 else None


# Sizes -----------------------------------------------------------------------------------------------------------

HINTS = {BATCH: re.compile("batch|^bs?$", re.IGNORECASE), LENGTH: re.compile("seq|len|tok|time|^[slt]$", re.IGNORECASE)}
"""Names of dimensions that tell what they are."""

HEADS, ITEMS, WIDTH = 1, 2, 8
"""Sizes of dimensions that are neither rows nor tokens, and that nothing tells: a mask's heads, choices, features."""


def _axes(roles: Mapping[ir.Value, str]) -> dict[ir.Value, tuple[str, ...]]:
    """Of each input, what its axes are. Dimensions of one name are one thing; the name tells, or else where it stands.

    Where inputs differ, ids say more than masks, whose middle axis may be queries, heads or choices.
    """
    placed = {value: _places(value, role) for value, role in roles.items()}
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
        features = _features(value)
        return (BATCH, *({2: ("" if features else LENGTH,), 3: (LENGTH, "")}.get(rank, ("",) * (rank - 1))))
    return (BATCH, *[""] * (rank - 2), *[LENGTH] * min(rank - 1, 1))


def _features(value: ir.Value) -> int:
    """The last size that a float input must have, for the constant that it is multiplied with, or by; 0 where nothing tells."""
    for node, _ in value.uses():
        other = _constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if other is None or not len(other.shape):
            continue
        shape = other.shape.numpy()
        if node.op_type == "MatMul":
            return shape[-2:][0]
        if node.op_type in ("LayerNormalization", "Add", "Mul", "Sub", "Div") and shape[-1] > 1:
            return shape[-1]
    return 0


def _size(value: ir.Value, role: str, config: Mapping[str, Any]) -> int:
    """A number for a dynamic dimension that is neither rows nor tokens."""
    if role == "values":
        return _features(value) or _number(config, "hidden_size", "dim") or WIDTH
    return HEADS if role == "mask" else ITEMS


def _image_size(config: Mapping[str, Any], axis: int) -> int:
    size = config.get("image_size", 224)
    return _number(config, "num_channels") or 3 if axis == 1 else int(size if isinstance(size, int) else size[axis - 2])


# Positions -------------------------------------------------------------------------------------------------------

COUNTING = {"Add", "Sub", "Mul", "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Expand"}
"""Operators between a count of tokens and the position that is looked up."""


def _positions(model: ir.Model) -> int:
    """The longest sequence that the graph has positions for; 0 where it does not tell."""
    found = [size for tensor in _constants(model) if (size := _counted(tensor))][:1]
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "Slice" and (table := _constant(source)) is not None:
            found.append(_sliced(node, table))
        if node.op_type == "Gather" and (ahead := _ahead(node.inputs[1])) is not None:
            found.append(_length(source) - ahead)
        if node.op_type == "EmbedLayerNormalization":
            found.append(_length(node.inputs[3]))
    return min((size for size in found if size > 0), default=0)


def _sliced(node: ir.Node, table: ir.TensorProtocol) -> int:
    """The rows of a table [P,D] or [1,P,D] of positions whose first ones are taken, as many as there are tokens; else 0."""
    ends, axes = (_constant(node.inputs[at]) if at < len(node.inputs) else None for at in (2, 3))
    rows = len(table.shape) - 2
    along = None if axes is None else axes.numpy().tolist()
    taken = ends is None and rows in (0, 1) and along in ([rows], [rows - len(table.shape)])
    return int(table.shape.numpy()[rows]) if taken else 0


def _counted(tensor: ir.TensorProtocol) -> int:
    """P of a stored range [1, P]: 0, 1, ... P - 1; else 0."""
    sizes = tensor.shape.numpy() if tensor.dtype == ir.DataType.INT64 else ()
    if len(sizes) != 2 or sizes[0] != 1 or sizes[1] < 2:
        return 0
    return sizes[1] if np.array_equal(tensor.numpy()[0], np.arange(sizes[1])) else 0


def _ahead(index: ir.Value | None) -> int | None:
    """How far positions are ahead of the tokens' places 0, 1, ...: 0 of a Range, 1 of a CumSum over tokens, and what is added.

    None where the index is not counted so.
    """
    node = None if index is None else index.producer()
    if node is None or node.op_type in ("CumSum", "Range"):
        return None if node is None else int(node.op_type == "CumSum")
    if node.op_type not in COUNTING:
        return None
    counted = [(ahead, at) for at, source in enumerate(node.inputs[:2]) if (ahead := _ahead(source)) is not None]
    if len(counted) != 1:
        return None
    ((ahead, at),) = counted
    if node.op_type not in ("Add", "Sub"):
        return ahead
    shift = _scalar(node.inputs[1 - at])
    return None if shift is None else ahead + int(shift) * (1 if node.op_type == "Add" else -1)


def _constants(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Initializers, and what Constant nodes hold, in bodies too."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            assert value.const_value is not None
            yield value.const_value
    for node in model.graph.all_nodes():
        if node.op_type == "Constant" and "value" in node.attributes:
            yield node.attributes["value"].as_tensor()
