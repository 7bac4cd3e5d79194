"""The layouts that ``unpad`` moves tokens between, as index arithmetic in the graph: what is padding is known only while running.

Shapes:    [B,S] as given, [1,T] real tokens, [B,L] real tokens at the front of their rows, [P,C] short rows behind each other.
Source:    packing by folding a sorted list, as in scheduling; rows are never cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxfuse.fusions.padding_heads import Pick
from onnxfuse.fusions.padding_region import Region
from onnxfuse.rewrite import Analysis, Op
from onnxfuse.rewrite.attributes import attribute

FOLDS = (1, 2, 3, 4, 6, 8)
"""How many times fewer rows attention may run on; ties go to the first."""


@dataclass(frozen=True)
class Layout:
    """Where attention stands: ``index`` of its slots into T, ``back`` from T into its slots [1,T], and its ``bias``."""

    index: ir.Value
    back: ir.Value | None
    bias: ir.Value


class Packing:
    """The indices between the layouts: [B,S] as given; [1,T] real tokens; [B,L] real tokens at the front of their rows; and
    [P,C], several short rows behind each other in one, for attention in which every token asks."""

    def __init__(self, analysis: Analysis, region: Region, tokens: ir.Value, op: Op) -> None:
        """The layouts of ``tokens``, [B,S,D]. Where the mask is given in other sizes, the graph does not run."""
        self.op = op
        self._analysis, self._mask, self._given_bias = analysis, region.mask, region.bias
        self._flat = op.constant([-1], "flat")
        self._zero, self._one = op.constant(np.array(0), "zero"), op.constant(np.array(1), "one")
        last, zero, one = self._flat, self._zero, self._one
        self._lengths = op.Slice(op.Shape(tokens), op.constant([0], "start"), op.constant([2], "end"))  # [2]
        self._length = op.Squeeze(op.Gather(self._lengths, op.constant([1], "second")))
        columns = op.Mod(op.Range(zero, op.ReduceProd(self._lengths, keepdims=0), one), self._length)  # [B*S]
        first = op.Reshape(op.Equal(columns, zero), self._lengths)  # [B,S] by the tokens, whatever sizes the mask is given in
        given = analysis[region.mask.value].dtype
        assert given is not None
        padding = op.constant(np.array(region.mask.token, dtype=given.numpy()), "padding")
        self._real = op.Not(op.Equal(region.mask.value, padding))  # [B,S]
        self.picked = {pick: self._picked(pick) for pick in region.picks if pick.token or pick.rows}
        keep = self._kept(first, region)
        self._counts = op.ReduceSum(op.Cast(keep, to=ir.DataType.INT64), last, keepdims=1)  # [B,1]
        self._keep = keep
        self._first = op.CumSum(self._counts, zero, exclusive=1)  # [B,1] into T
        self.kept = op.NonZero(op.Reshape(keep, last))  # [1,T] into B*S

    def _picked(self, pick: Pick) -> ir.Value:
        """The numbers, among B*S tokens, of those that are picked: [B], or as they are computed."""
        op, batch = self.op, self.op.Gather(self._lengths, self._zero)
        if pick.pairs:
            row, position = (op.Gather(pick.rows, at, axis=-1) for at in (self._zero, self._one))
            return op.Add(op.Mul(op.Mod(row, batch), self._length), op.Mod(position, self._length))
        if pick.rows:
            rows: ir.Value = pick.rows
            return rows
        end = self._length if pick.token < 0 else self._zero
        token = op.Add(end, op.constant(np.array(pick.token), "token"))
        return op.Add(op.Mul(op.Range(self._zero, batch, self._one), self._length), token)

    def _kept(self, first: ir.Value, region: Region) -> ir.Value:
        """Which tokens run, [B,S]: real ones, each row's first, and those that are picked. All where attention stays in its
        padded form and one is picked that is padding: as a query it may find no key but padding, and is then a mean of all."""
        op, flat = self.op, self._flat
        read = first
        for rows in self.picked.values():
            index = op.Reshape(rows, flat)
            none, one = op.Cast(op.Reshape(first, flat), to=ir.DataType.INT64), op.Expand(self._one, op.Shape(index))
            marked = op.ScatterElements(op.Mul(none, self._zero), index, one, axis=0)
            marked = op.Reshape(op.Cast(marked, to=ir.DataType.BOOL), self._lengths)
            read = marked if read is first and not any(pick not in self.picked for pick in region.picks) else op.Or(read, marked)
        keep = op.Or(op.Or(self._real, first), read)
        if region.mixed and region.picks:
            blind = op.And(read, op.Not(self._real))
            some = op.ReduceMax(op.Cast(op.Reshape(blind, flat), to=ir.DataType.INT64), keepdims=1)  # [1]
            keep = op.Or(keep, op.Cast(some, to=ir.DataType.BOOL))
        return keep

    @cached_property
    def _kind(self) -> ir.DataType:
        kind = self._analysis[self._given_bias].dtype
        assert kind is not None
        return kind

    @cached_property
    def _shut(self) -> ir.Value | None:
        """What shuts a key out; None where booleans do."""
        if self._kind == ir.DataType.BOOL:
            return None
        return self.op.constant(np.array(max(self._mask.shut, float(self._kind.min)), dtype=self._kind.numpy()), "shut")

    @cached_property
    def _bias(self) -> ir.Value:
        """Of real tokens, [1,T]."""
        assert self._given_bias is not None
        return self.take(self._given_bias, self.kept)

    @cached_property
    def _place(self) -> ir.Value:
        """Where each of B*S tokens is in T; padding shows the real token before it. [B*S]"""
        op = self.op
        return op.Sub(op.CumSum(op.Cast(op.Reshape(self._keep, self._flat), to=ir.DataType.INT64), self._zero), self._one)

    @cached_property
    def rows_only(self) -> Layout:
        """[B,L]: a row to each row, L the longest one's number of real tokens. Attention's bias is [B,1,1,L]."""
        op = self.op
        slots = op.Range(self._zero, op.ReduceMax(self._counts, keepdims=0), self._one)  # [L]
        end = op.Sub(op.ReduceSum(self._counts, keepdims=0), self._one)
        front = op.Min(op.Add(self._first, slots), end)  # [B,L] into T; unfilled slots hold some other token
        row = self._only(op.Less(slots, self._counts), self.take(self._bias, front))
        return Layout(front, None, op.Unsqueeze(row, op.constant([1, 2], "heads")))

    @cached_property
    def packed(self) -> Layout:
        """[P,C]: short rows share one, so that attention has P*C*C scores instead of B*L*L. Its bias is [P,1,C,C].

        Rows are dealt to P places by falling length, forth and back. Of P = B, B/2, B/3 and so on (``FOLDS``) the one with the
        fewest scores is taken, while running. So rows of 5, 3, 2 and 2 tokens go to P = 2 places as 5+2 and 3+2: C = 7, and 98
        scores instead of 100.
        """
        counts = self.op.Reshape(self._counts, self._flat)  # [B]
        batch = self.op.Shape(counts)  # [1]
        before = self._precedence(counts, batch)
        place, places = self._dealt(before, batch)
        offset, sizes = self._stacked(place, before, counts)
        size, count, start = self._best(place, places, offset, sizes)
        return self._filled(size, count, start)

    def _precedence(self, counts: ir.Value, batch: ir.Value) -> ir.Value:
        """[B,B] booleans, [r,c]: whether row c is longer than row r, or as long and earlier."""
        op = self.op
        numbers = op.Range(self._zero, op.Squeeze(batch), self._one)
        earlier = op.And(op.Equal(counts, self._counts), op.Less(numbers, op.Reshape(numbers, op.constant([-1, 1], "column"))))
        return op.Or(op.Greater(counts, self._counts), earlier)

    def _dealt(self, before: ir.Value, batch: ir.Value) -> tuple[ir.Value, ir.Value]:
        """For each of F folds the place of each row, [F,B], and how many places there are, [F,1].

        With P places, rows by falling length go to 0, 1, .. P-1, and back: P-1, .. 1, 0, and forth again.
        """
        op = self.op
        rank = op.ReduceSum(op.Cast(before, to=ir.DataType.INT64), self._flat, keepdims=0)  # [B]: as many rows come before
        folds = op.constant(np.array(FOLDS).reshape(-1, 1), "folds")
        places = op.Div(op.Sub(op.Add(batch, folds), self._one), folds)  # B / fold, rounded up
        period = op.Mul(places, op.constant(np.array(2), "two"))
        forth = op.Mod(rank, period)
        back = op.Sub(op.Sub(period, self._one), forth)
        return op.Min(forth, back), places

    def _stacked(self, place: ir.Value, before: ir.Value, counts: ir.Value) -> tuple[ir.Value, ir.Value]:
        """For each fold how many tokens lie ahead of each row in its place, [F,B], and in the fullest place altogether, [F,1]."""
        op = self.op
        across, down = op.constant([len(FOLDS), 1, -1], "across"), op.constant([len(FOLDS), -1, 1], "down")
        together = op.Equal(op.Reshape(place, across), op.Reshape(place, down))  # [F,B,B]
        ahead = op.Where(op.And(together, before), counts, self._zero)
        offset = op.ReduceSum(ahead, self._flat, keepdims=0)
        return offset, op.ReduceMax(op.Add(offset, counts), self._flat, keepdims=1)

    def _best(self, place: ir.Value, places: ir.Value, offset: ir.Value, sizes: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Of the fold with the fewest scores: C and P, [1,1] each, and where each row starts among P*C slots, [1,B]."""
        op = self.op
        best = op.ArgMin(op.Mul(op.Mul(places, sizes), sizes), axis=0, keepdims=0)  # [1]
        size, count = op.Gather(sizes, best), op.Gather(places, best)
        return size, count, op.Add(op.Mul(op.Gather(place, best), size), op.Gather(offset, best))

    def _filled(self, size: ir.Value, count: ir.Value, start: ir.Value) -> Layout:
        """The layout whose rows start there. Slots that stay empty hold the first token, and nobody attends to them."""
        op, flat, zero = self.op, self._flat, self._zero
        line = op.constant([1, -1], "line")
        shift = op.Reshape(op.Sub(start, op.Reshape(self._first, line)), flat)  # [B]: from a row's tokens in T to its slots
        kept = op.Reshape(self.kept, flat)
        row = op.Div(kept, self._length)  # [T]: each token's
        tokens = op.Range(zero, op.Squeeze(op.Shape(kept)), self._one)  # [T]
        slots = op.Add(tokens, op.Gather(shift, row))  # [T] into P*C
        shape = op.Concat(op.Reshape(count, flat), op.Reshape(size, flat), axis=0)
        total = op.Reshape(op.Mul(count, size), flat)
        nothing = op.ConstantOfShape(total, value=ir.tensor(np.array([0])))
        index = op.Reshape(op.ScatterElements(nothing, slots, tokens), shape)  # [P,C] into T
        owner = op.Reshape(op.ScatterElements(nothing, slots, op.Add(row, self._one)), shape)  # [P,C]: a row's number, 0: empty
        # as a number the same for all, as a boolean not shut
        silent = op.Expand(op.constant(np.array(1, dtype=self._kind.numpy()), "open"), total)
        bias = op.Reshape(op.ScatterElements(silent, slots, op.Reshape(self._bias, flat)), shape)
        asking, asked = op.constant([1, 3], "asking"), op.constant([1, 2], "asked")
        same = op.Equal(op.Unsqueeze(owner, asking), op.Unsqueeze(owner, asked))  # [P,1,C,C]: tokens of one row
        return Layout(index, op.Reshape(slots, line), self._only(same, op.Unsqueeze(bias, asked)))

    def _only(self, condition: ir.Value, bias: ir.Value) -> ir.Value:
        """A bias that shuts out all that does not meet a condition. (ONNX Runtime has no Where of booleans.)"""
        return self.op.And(condition, bias) if self._shut is None else self.op.Where(condition, bias, self._shut)

    def take(self, x: ir.Value, index: ir.Value) -> ir.Value:
        """Elements of x, flattened, at ``index``."""
        return self.op.Gather(self.op.Reshape(x, self._flat), index, axis=0)

    def rows(self, x: ir.Value | None, index: ir.Value) -> ir.Value:
        """Rows of x, its first axes flattened, at ``index``. A part of an even Split is every n-th row of the whole, so that the
        Split need not be made."""
        assert x is not None
        split, width = x.producer(), self._width(x)
        if split is not None and self._is_even(split):
            whole, count, part = split.inputs[0], len(split.outputs), x.index()
            index = self.op.Mul(index, self.op.constant(np.array(count), "parts"))
            x, index = whole, self.op.Add(index, self.op.constant(np.array(part), "part"))
        return self.op.Gather(self.op.Reshape(x, self.op.constant([-1, width], "rows")), index, axis=0)

    def _is_even(self, node: ir.Node) -> bool:
        """Whether a node splits columns into parts of one width."""
        by_column = node.op_type == "Split" and attribute(node, "axis", self._analysis.opset) in (-1, 2)
        return by_column and len({self._width(part) for part in node.outputs}) == 1

    def whole(self, x: ir.Value | None) -> ir.Value:
        """[B,S,D] again, with zeros at padding."""
        op, real = self.op, self.op.Unsqueeze(self._real, self._flat)
        kind = self._analysis[x].dtype
        assert kind is not None
        return op.Where(real, self.padded(x), op.constant(np.array(0, dtype=kind.numpy()), "nothing"))

    def padded(self, x: ir.Value | None) -> ir.Value:
        """[B,S,D] again, with some other token at padding."""
        return self.rows(x, self.op.Reshape(self._place, self.op.Shape(self._keep)))

    def sizes_of(self, x: ir.Value | None, start: int, end: int) -> ir.Value:
        """The shape [B,S,D] of what stands [1,T,D] now, or a part of it."""
        assert x is not None
        sizes = self.op.Concat(self._lengths, self.op.constant([self._width(x)], "width"), axis=0)
        return self.op.Slice(sizes, self.op.constant([start], "start"), self.op.constant([end], "end"))

    def first_of(self, x: ir.Value | None, *, keep_axis: bool) -> ir.Value:
        """The first token of each row: [B,1,D], or [B,D]."""
        return self.rows(x, self._first if keep_axis else self.op.Reshape(self._first, self._flat))

    def pick(self, pick: Pick) -> ir.Value:
        """What a Gather of one token a row gives."""
        keep_axis = not pick.rows and bool(self._analysis.shape(pick.node.inputs[1]))
        if pick not in self.picked:
            return self.first_of(pick.tokens, keep_axis=keep_axis)
        at = self.op.Gather(self._place, self.picked[pick])
        return self.rows(pick.tokens, self.op.Unsqueeze(at, self._flat) if keep_axis else at)

    def _width(self, x: ir.Value) -> int:
        shape = self._analysis.shape(x)
        assert shape is not None
        assert shape[-1].number is not None
        return shape[-1].number
