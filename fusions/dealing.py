"""Where each row's tokens stand while attention runs, as integer arithmetic in the graph.

Shapes:    rows of counts [B] tokens, T in all; [P,C] short rows behind each other in one; [B,L] a row to each row.
Source:    packing by folding a sorted list, as in scheduling; rows are never cut. A batch of one row pays for each operator as
           any other does, so there are few. An If around them would leave most out there, but behind one OpenVINO 2026.4 computes
           wrong numbers in the first call that takes a branch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite import Op

FOLDS = (1, 2, 3, 4, 6, 8)
"""How many times fewer rows attention may run on; ties go to the first."""

ALONE = (0, 1)
"""How many of the longest rows may have a place of their own."""

DEALS = len(ALONE) * len(FOLDS)

STEP = 16
"""Tokens that run, and slots of a place, come by so many: products of other sizes are slower. bert-base in OpenVINO on AMX, 410
tokens in 8 rows, 2 threads: int8 42.3 ms with places of 144 slots, 45.6 of 140; bfloat16 51.7 with 416 tokens, 56.5 with 410."""


@dataclass(frozen=True)
class Shared:
    """[P,C], P places of C slots, for attention in which every token asks.

    Args:
        index: of each slot into T, [P,C]; slots that stay empty hold the first token.
        owner: the number, from 1 on, of the row that each slot belongs to, [P,C]; 0 where it stays empty.
        slots: of each token into P*C, [1,T].
    """

    index: ir.Value
    owner: ir.Value
    slots: ir.Value


@dataclass(frozen=True)
class Fronts:
    """[B,L], each row's tokens at its front, L the longest one's number of them.

    Args:
        index: of each slot into T, [B,L]; slots that stay empty hold some other token.
        filled: which do not stay empty, [B,L].
    """

    index: ir.Value
    filled: ir.Value


class Rows:
    """The rows of a batch, and where they stand."""

    def __init__(self, op: Op, batch: ir.Value, length: ir.Value, counts: ir.Value, first: ir.Value, kept: ir.Value) -> None:
        """``batch``, ``length``: B and S. ``counts``: tokens of each row that run, [B]; ``first`` of them in T, [B]; ``kept``: of
        each token into B*S, [1,T]."""
        self.op = op
        self._batch, self._length, self._counts, self._first, self._kept = batch, length, counts, first, kept
        self._zero, self._one = op.constant(np.array(0), "zero"), op.constant(np.array(1), "one")
        self._flat, self._column = op.constant([-1], "flat"), op.constant([-1, 1], "column")

    def fronts(self) -> Fronts:
        """[B,L]."""
        op = self.op
        slots = op.Range(self._zero, op.ReduceMax(self._counts, keepdims=0), self._one)  # [L]
        last = op.Sub(op.ReduceSum(self._counts, keepdims=0), self._one)
        index = op.Min(op.Add(op.Reshape(self._first, self._column), slots), last)
        return Fronts(index, op.Less(slots, op.Reshape(self._counts, self._column)))

    def shared(self) -> Shared:
        """[P,C]: rows dealt to P places by falling length, forth and back, so that attention has P*C*C scores instead of B*L*L.

        Of P = B, B/2, B/3 and so on (``FOLDS``), with and without a place for the longest row alone, the deal with the fewest
        scores is taken, while running. So rows of 80, 48, 32 and 32 tokens go to P = 2 places as 80+32 and 48+32: C = 112, and
        25088 scores instead of 25600.
        """
        before = self._precedence()
        place, places = self._dealt(before)
        offset, sizes = self._stacked(place, before)
        return self._filled(*self._best(place, places, offset, sizes))

    def _precedence(self) -> ir.Value:
        """[B,B] booleans, [r,c]: whether row c is longer than row r, or as long and earlier."""
        op = self.op
        ranks = op.Sub(op.Mul(self._counts, self._batch), op.Range(self._zero, self._batch, self._one))  # no two are equal
        return op.Greater(ranks, op.Reshape(ranks, self._column))

    def _dealt(self, before: ir.Value) -> tuple[ir.Value, ir.Value]:
        """For each of the D deals the place of each row, [D,1,B], and how many places there are, [D,1,1].

        With P places, A of them for the longest rows alone, rows by falling length go to 0, 1, .. P-1, and back: P-1, .. A, and
        forth again.
        """
        op, folds = self.op, np.repeat(FOLDS, len(ALONE)).reshape(-1, 1, 1)
        rank = op.ReduceSum(op.Cast(before, to=ir.DataType.INT64), self._flat, keepdims=0)  # [B]: as many rows come before
        places = op.Div(op.Add(self._batch, op.constant(folds - 1, "more")), op.constant(folds, "folds"))  # rounded up
        alone = op.constant(np.tile(ALONE, len(FOLDS)).reshape(-1, 1, 1), "alone")
        alone = op.Min(alone, op.Sub(places, self._one))
        shared = op.Sub(places, alone)
        period = op.Add(shared, shared)
        forth = op.Mod(op.Sub(rank, alone), period)
        back = op.Sub(op.Sub(period, self._one), forth)
        return op.Min(rank, op.Add(alone, op.Min(forth, back))), places

    def _stacked(self, place: ir.Value, before: ir.Value) -> tuple[ir.Value, ir.Value]:
        """For each deal how many tokens lie ahead of each row in its place, [D,1,B], and the slots of a place, [D,1,1]: as many
        as tokens in the fullest one, rounded up to ``STEP``."""
        op = self.op
        together = op.Equal(place, op.Reshape(place, op.constant([DEALS, -1, 1], "down")))  # [D,B,B]
        ahead = op.Where(op.And(together, before), self._counts, self._zero)
        offset = op.Reshape(op.ReduceSum(ahead, self._flat, keepdims=0), op.constant([DEALS, 1, -1], "across"))
        filled = op.Add(offset, self._counts)
        fullest = op.GatherElements(filled, op.ArgMax(filled, axis=-1, keepdims=1), axis=-1)  # ReduceMax differs by opset
        return offset, op.Add(fullest, op.Mod(op.Sub(self._zero, fullest), op.constant(np.array(STEP), "step")))

    def _best(self, place: ir.Value, places: ir.Value, offset: ir.Value, sizes: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Of the deal with the fewest scores: P and C, [2], and where each row starts among P*C slots, [B]."""
        op = self.op
        best = op.ArgMin(op.Mul(op.Mul(places, sizes), sizes), axis=0, keepdims=0)  # [1,1]
        shape = op.Gather(op.Concat(places, sizes, axis=-1), best)
        start = op.Gather(op.Add(op.Mul(place, sizes), offset), best)
        return op.Reshape(shape, op.constant([2], "two")), op.Reshape(start, self._flat)

    def _filled(self, shape: ir.Value, start: ir.Value) -> Shared:
        """What stands in the slots of rows that start there."""
        op, one = self.op, self._one
        row = op.Div(op.Reshape(self._kept, self._flat), self._length)  # [T]: each token's
        tokens = op.Range(self._zero, op.ReduceSum(self._counts, keepdims=0), one)  # [T]
        slots = op.Add(tokens, op.Gather(op.Sub(start, self._first), row))  # [T] into P*C
        empty = op.ConstantOfShape(op.ReduceProd(shape), value=ir.tensor(np.array([0])))
        index = op.Reshape(op.ScatterElements(empty, slots, tokens), shape)
        owner = op.Reshape(op.ScatterElements(empty, slots, op.Add(row, one)), shape)
        return Shared(index, owner, op.Reshape(slots, op.constant([1, -1], "line")))
