"""How large the numbers get that a float32 model computes with, node by node."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxfuse.half.convert import LARGEST, fit_masks, halvable, key_of
from onnxfuse.io import onnx_file
from onnxfuse.runtime import Feeds, open_runner

ROOM = 2.0
"""How many times as large as on the inputs that were tried numbers may be on others."""


_MOVES = "Expand Flatten Gather GatherElements GatherND Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze"
MOVES = frozenset(_MOVES.split())
"""Operators that give numbers of their first input, and no others."""

ADDS = frozenset(("Add", "Sub", "Sum"))


def peaks(model: ir.Model, inputs: Iterable[Feeds], folder: Path) -> dict[str, float]:
    """The largest absolute value that each node which can be float16 reads or writes in such a type, by its key.

    Args:
        model: stays as it is. Its masks count as they are in float16. What is made of weights alone, as of the row that an id
            picks, counts as the largest that it may be, as no input shows all rows.
        folder: an empty one, for a file.
    """
    chosen, seen = halvable(model), model.clone()
    fit_masks(seen)
    values = {value.name: value for node in seen.graph for value in node.outputs if value.dtype == ir.DataType.FLOAT}
    there = {value.name for value in seen.graph.outputs}
    seen.graph.outputs.extend(value for name, value in values.items() if name not in there)
    onnx_file.save(seen, folder / "peaks.onnx")
    run = open_runner(folder / "peaks.onnx")
    largest = _bounds(seen.graph)
    for feeds in inputs:
        for name, array in {**feeds, **run(feeds)}.items():
            largest[name] = max(largest.get(name, 0.0), _largest(array))
    found = {}
    for node in model.graph:
        if places := chosen.get(key_of(node)):
            read = [value for at in places.inputs if (value := node.inputs[at]) is not None]
            names = [value.name or "" for value in (*read, *(node.outputs[at] for at in places.outputs))]
            found[key_of(node)] = max((largest.get(name, 0.0) for name in names), default=0.0)
    return found


def _bounds(graph: ir.Graph) -> dict[str, float]:
    """The largest absolute value of each weight, and of each value that weights alone bound, by its name."""
    found = {name: _largest(value.const_value.numpy()) for name, value in graph.initializers.items() if value.const_value}
    for node in graph:
        read = [found.get(value.name or "") for value in node.inputs if value is not None]
        given = read[:1] if node.op_type in MOVES else read
        known = [bound for bound in given if bound is not None]
        if node.domain or not given or len(known) < len(given):
            continue
        if node.op_type in ADDS:
            found |= {output.name or "": sum(known) for output in node.outputs}
        elif node.op_type in MOVES or node.op_type == "Concat":
            found |= {output.name or "": max(known) for output in node.outputs}
    return found


def overflowing(found: dict[str, float]) -> list[str]:
    """The nodes whose numbers float16 does not hold, or hardly, the largest first."""
    return sorted((key for key, peak in found.items() if peak * ROOM > LARGEST), key=lambda key: -found[key])


def _largest(array: np.ndarray) -> float:
    """Of finite numbers: what is infinite in float32 is no larger in float16."""
    if array.dtype.kind != "f" or not array.size:
        return 0.0
    finite = array[np.isfinite(array)]
    return float(np.abs(finite).max(initial=0.0))
