"""Position embeddings: looking up rows 0, 1, 2, ... is a slice of the table.

Seen in:   BERT and DistilBERT, where position_ids is a stored range cut to the sequence length.
Computes:  table[arange(P)[:s]] = table[:s]
Shapes:    table [P,D], positions [1,P], y [1,s,D].
Numerics:  exact.
Refuses:   stored positions that are not 0..P-1, a cut that does not start at 0, positions from outside, a table read elsewhere.
Source:    ONNX operators Gather and Slice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Fusion, Match, Op, Pattern, Rule, Term, Var
from onnxfuse.rewrite.analysis import ONE


def positions(op: Pattern, table: Var, stored: Var, start: Var, end: Var, axes: Var, steps: Var | None = None) -> Term:
    return op.Gather(table, op.Slice(stored, start, end, axes, steps))


def guard(match: Match) -> None:
    table, stored = match.need_constant("table"), match.need_constant("stored")
    match.need(len(table.uses()) == 1, "the table is read elsewhere", table)
    rows, _ = match.need_shape("table", rank=2)
    match.need(match.need_shape("stored") == (ONE, rows), f"the stored positions are not [1,{rows}]", stored)
    counted = np.array_equal(match.need_array("stored"), np.arange(rows.coef)[None])
    match.need(counted, "the stored positions are not 0, 1, 2, ...", stored)
    match.need(match.info("steps").data == (ONE,) if match["steps"] is not None else True, "it steps or reverses")
    match.need([d.number for d in match.info("axes").data or ()] in ([1], [-1]), "it cuts another axis", match["axes"])
    match.need([d.number for d in match.info("start").data or ()] == [0], "it does not start at 0", match["start"])


def slice_table(op: Op, table: ir.Value, start: ir.Value, end: ir.Value, **_: Any) -> ir.Value:
    source = table.const_value
    assert source is not None  # the guard asks for a constant
    rows, width = source.shape.numpy()
    lifted = ir.LazyTensor(lambda: ir.tensor(source.numpy()[None]), source.dtype, ir.Shape([1, rows, width]))
    return op.Slice(op.constant(lifted, "table"), start, end, op.constant([1], "axis"))


RULES = (Rule("position-embeddings", positions, guard, slice_table, exact=True),)
FUSION = Fusion("position-embeddings", RULES)
