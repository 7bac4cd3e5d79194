"""Normal form of indices: gathers of everything in order are Reshapes, tables are read by ids as they come, Tile is Expand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.normalize.shapes import need_target, reshape
from onnxfuse.rewrite import Learned, Match, NoMatch, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE

# GatherND(x, coordinates of every element in order) = Reshape(x)


def gather_coordinates(op: Pattern, x: Var, where: Var) -> Term:
    return op.GatherND(x, where)


def guard_coordinates(match: Match) -> Learned:
    source, where = match.need_shape("x"), match.need_shape("where")
    if (array := match.array(match["where"])) is not None:  # sizes are fixed: the coordinates themselves are there
        sizes = [match.need_number(dim, "a size") for dim in source[: array.shape[-1]]]
        every = np.indices(sizes).reshape(len(sizes), -1).T
        match.need(np.array_equal(array.reshape(-1, array.shape[-1]), every), "the indices are not every element in order")
        return {"target": need_target(match, match["x"])}
    parts = match.info("where").coordinates
    if not parts:
        raise NoMatch("the indices are not plain coordinates", match["where"])
    match.need(all(len(part) == 1 and part[0][1] == ONE for part in parts), "a coordinate mixes axes", match["where"])
    axes = [part[0][0] for part in parts]
    match.need(axes == sorted(set(axes)), "the axes are permuted or repeated", match["where"])
    match.need(tuple(where[axis] for axis in axes) == source[: len(axes)], "the indices do not cover the source", match["where"])
    match.need(all(where[i] == ONE for i in range(len(where) - 1) if i not in axes), "an index is repeated", match["where"])
    return {"target": need_target(match, match["x"])}


# Gather(Flatten(x), row-major index of every element) = Reshape(x)


def gather_row_major(op: Pattern, x: Var, where: Var, axis: Var) -> Term:
    return op.Gather(op.Flatten(x, axis=axis), where)


def guard_row_major(match: Match) -> Learned:
    flat = match.need_shape(next(node.outputs[0] for node in match.nodes if node.op_type == "Flatten"))
    if (array := match.array(match["where"])) is not None:
        every = np.arange(match.need_number(flat[0], "a size"))
        match.need(np.array_equal(array.reshape(-1), every), "the indices are not every element in order")
        return {"target": need_target(match, match["x"])}
    where, terms = match.need_shape("where"), match.info("where").index
    if terms is None:
        raise NoMatch("the indices are not arithmetic of ranges", match["where"])
    strides = {i: math.prod(where[i + 1 :], start=ONE) for i, dim in enumerate(where) if dim != ONE}
    match.need(
        {i: stride for i, stride in terms if where[i] != ONE} == strides, "the indices are not in row-major order", match["where"]
    )
    match.need(math.prod(where, start=ONE) == flat[0], "the indices do not cover the source", match["where"])
    return {"target": need_target(match, match["x"])}


# Gather(x, Where(i < 0, i + n, i)) = Gather(x, i) for n rows: Gather counts negative indices from the end itself


def gather_wrapped(op: Pattern, x: Var, i: Var, zero: Var, rows: Var, to: Var, axis: Var) -> Term:
    return op.Gather(x, op.Where(op.Less(op.Cast(i, to=to), zero), op.Add(i, rows), i), axis=axis)


def guard_wrapped(match: Match) -> None:
    """The comparison is in a float type (tf2onnx casts), which keeps the sign."""
    match.need_scalar("zero", 0.0)
    match.need(match["to"] in (ir.DataType.FLOAT, ir.DataType.DOUBLE), "the comparison is not in float", match["i"])
    size = match.need_shape("x")[match["axis"]]
    match.need(match.scalar("rows") == size.number, f"the indices are wrapped by another number than {size}", match["rows"])


def gather(op: Op, x: ir.Value, i: ir.Value, axis: int, **_: Any) -> ir.Value:
    return op.Gather(x, i, axis=axis)


# Gather(x, Cast(i)) = Gather(x, i) for integers: an index that a cast would change is out of range


def gather_cast(op: Pattern, x: Var, i: Var, to: Var, axis: Var, saturate: Var, round_mode: Var) -> Term:
    return op.Gather(x, op.Cast(i, to=to, saturate=saturate, round_mode=round_mode), axis=axis)


INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)


def guard_cast(match: Match) -> None:
    match.need(match.info("i").dtype in INTEGERS, "the indices change their kind", match["i"])


# Squeeze(Slice(x, i : i + 1)) = Gather(x, i)


def sliced(op: Pattern, x: Var, starts: Var, ends: Var, axes: Var, squeezed: Var, steps: Var | None = None) -> Term:
    return op.Squeeze(op.Slice(x, starts, ends, axes, steps), squeezed)


WHOLE = int(np.iinfo(np.int32).max)
"""An end from which on a slice is taken as open, as TensorFlow writes it; no dimension is as long."""


def guard_sliced(match: Match) -> Learned:
    rank = len(match.need_shape("x"))
    match.need(rank > 1, "shape arithmetic", match["x"])
    starts, ends, axes, squeezed = (_need_numbers(match, name) for name in ("starts", "ends", "axes", "squeezed"))
    if match["steps"] is not None:
        match.need(set(_need_numbers(match, "steps")) == {1}, "it steps or reverses", match["steps"])
    open_ = [start == 0 and end >= WHOLE for start, end in zip(starts, ends, strict=True)]
    picked = [(axis % rank, start, end) for axis, start, end, whole in zip(axes, starts, ends, open_, strict=True) if not whole]
    match.need(len(picked) == 1, f"{len(picked)} dimensions are cut, wanted one", match.output)
    axis, start, end = picked[0]
    match.need(start >= 0 and end == start + 1, f"{start} to {end} is not one from the front", match.output)
    match.need([at % rank for at in squeezed] == [axis], "another dimension is squeezed", match["squeezed"])
    return {"axis": axis, "index": start}


def _need_numbers(match: Match, name: str) -> list[int]:
    return [int(item) for item in match.need_array(name).reshape(-1)]


def picked(op: Op, x: ir.Value, axis: int, index: int, **_: Any) -> ir.Value:
    return op.Gather(x, op.constant(np.array(index), "index"), axis=axis)


# Tile(x, repeats) = Expand(x, repeats) where what is repeated has size 1


def tile(op: Pattern, x: Var, repeats: Var) -> Term:
    return op.Tile(x, repeats)


def guard_tile(match: Match) -> None:
    shape, repeats = match.need_shape("x"), match.info("repeats").data
    if repeats is None:
        raise NoMatch("the repeats are not known", match["repeats"])
    for dim, times in zip(shape, repeats, strict=True):
        match.need(ONE in (dim, times), f"{dim} is repeated {times} times", match["x"])
        match.need(times.nonnegative and times.number != 0, "nothing is left", match["repeats"])


def expand(op: Op, x: ir.Value, repeats: ir.Value) -> ir.Value:
    return op.Expand(x, repeats)


RULES = (
    Rule("gather-coordinates", gather_coordinates, guard_coordinates, reshape, exact=True),
    Rule("gather-row-major", gather_row_major, guard_row_major, reshape, shared=True, exact=True),
    Rule("gather-wrapped", gather_wrapped, guard_wrapped, gather, shared=True, exact=True),
    Rule("gather-cast", gather_cast, guard_cast, gather, shared=True, exact=True),
    Rule("slice-gather", sliced, guard_sliced, picked, exact=True),
    Rule("tile-expand", tile, guard_tile, expand, exact=True),
)
