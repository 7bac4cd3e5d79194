"""The layouts that ``unpad`` moves tokens between, as index arithmetic in the graph: what is padding is known only while running.

Shapes:    [B,S] as given, [1,T] real tokens, [B,L] real tokens at the front of their rows, [P,C] short rows behind each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxfuse.fusions.dealing import STEP, Rows
from onnxfuse.fusions.native import OPSET, attend
from onnxfuse.fusions.padding_heads import Pick
from onnxfuse.fusions.padding_region import Region
from onnxfuse.native.bodies import SHUT
from onnxfuse.rewrite import Analysis, Op
from onnxfuse.rewrite.analysis import ONE
from onnxfuse.rewrite.attributes import attribute


@dataclass(frozen=True)
class Layout:
    """Where attention stands: ``index`` of its slots into T (None: T as it is), ``back`` from T into its slots [1,T], and its
    ``bias``."""

    index: ir.Value | None
    back: ir.Value | None
    bias: ir.Value


class Packing:
    """The indices between the layouts: [B,S] as given; [1,T] real tokens; [B,L] real tokens at the front of their rows; and
    [P,C], several short rows behind each other in one, for attention in which every token asks."""

    def __init__(self, analysis: Analysis, region: Region, tokens: ir.Value, op: Op, *, bounded: bool = False) -> None:
        """The layouts of ``tokens``, [B,S,D]. Where the mask is given in other sizes, the graph does not run.

        Args:
            bounded: whether attention is told where rows begin, which needs no layout; then no others fill T up.
        """
        self._bounded = bounded
        self.op = op
        self._analysis, self._mask, self._given_bias = analysis, region.mask, region.bias
        self._flat = op.constant([-1], "flat")
        self._zero, self._one = op.constant(np.array(0), "zero"), op.constant(np.array(1), "one")
        zero, one = self._zero, self._one
        self._lengths = op.Slice(op.Shape(tokens), op.constant([0], "start"), op.constant([2], "end"))  # [2]
        self._batch, self._length = op.Gather(self._lengths, zero), op.Gather(self._lengths, one)
        first = op.Expand(op.Equal(op.Range(zero, self._length, one), zero), self._lengths)  # [B,S] by the tokens
        given = analysis[region.mask.value].dtype
        assert given is not None
        padding = op.constant(np.array(region.mask.token, dtype=given.numpy()), "padding")
        self._real = op.Not(op.Equal(region.mask.value, padding))  # [B,S]
        self.picked = {pick: self._picked(pick) for pick in region.picks if pick.token or pick.rows}
        self._keep = self._kept(first, region)
        self._counts = op.ReduceSum(op.Cast(self._keep, to=ir.DataType.INT64), self._flat, keepdims=0)  # [B]
        self._first = op.CumSum(self._counts, zero, exclusive=1)  # [B] into T
        self.kept = op.NonZero(op.Reshape(self._keep, self._flat))  # [1,T] into B*S
        self._rows = Rows(op, self._batch, self._length, self._counts, self._first, self.kept)
        self._alone = region.batch == ONE

    def _picked(self, pick: Pick) -> ir.Value:
        """The numbers, among B*S tokens, of those that are picked: [B], or as they are computed."""
        op, batch = self.op, self._batch
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
        keep = op.Or(self._real, first)
        keep = keep if read is first else op.Or(keep, read)
        if region.mixed and region.picks:
            blind = op.And(read, op.Not(self._real))
            some = op.ReduceMax(op.Cast(op.Reshape(blind, flat), to=ir.DataType.INT64), keepdims=1)  # [1]
            keep = op.Or(keep, op.Cast(some, to=ir.DataType.BOOL))
        return keep if self._bounded else self._filled_up(keep)

    def _filled_up(self, keep: ir.Value) -> ir.Value:
        """With the first others, so that T is a multiple of ``STEP`` where there are enough: nobody reads or attends to them."""
        op = self.op
        kept = op.Cast(op.Reshape(keep, self._flat), to=ir.DataType.INT64)
        lacking = op.Mod(op.Sub(self._zero, op.ReduceSum(kept, keepdims=0)), op.constant(np.array(STEP), "step"))
        others = op.CumSum(op.Sub(self._one, kept), self._zero)  # of the tokens up to each, those that are not kept
        return op.Or(keep, op.Reshape(op.LessOrEqual(others, lacking), self._lengths))

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
        """Of real tokens, [T]."""
        assert self._given_bias is not None
        return self.take(self._given_bias, self.op.Reshape(self.kept, self._flat))

    @cached_property
    def _keys(self) -> ir.Value:
        """Of the only row's real tokens, [1,1,1,T]."""
        return self.op.Reshape(self._bias, self.op.constant([1, 1, 1, -1], "keys"))

    @cached_property
    def _place(self) -> ir.Value:
        """Where each of B*S tokens is in T; padding shows the real token before it. [B*S]"""
        op = self.op
        return op.Sub(op.CumSum(op.Cast(op.Reshape(self._keep, self._flat), to=ir.DataType.INT64), self._zero), self._one)

    @cached_property
    def rows_only(self) -> Layout:
        """[B,L], for attention in which one token of each row asks. Its bias is [B,1,1,L]."""
        if self._alone:
            return Layout(None, None, self._keys)
        op, fronts = self.op, self._rows.fronts()
        row = self._only(fronts.filled, op.Gather(self._bias, fronts.index))
        return Layout(fronts.index, None, op.Unsqueeze(row, op.constant([1, 2], "heads")))

    @cached_property
    def packed(self) -> Layout:
        """[P,C], for attention in which every token asks. Its bias is [P,1,C,C]; nobody attends to slots that stay empty."""
        op = self.op
        if self._alone:
            lead, last = op.constant([1, 1], "lead"), op.constant([1], "last")
            wide = op.Concat(lead, op.Shape(self._keys, start=-1), last, axis=0)
            return Layout(None, None, op.Expand(self._keys, wide))
        shared = self._rows.shared()
        bias = op.Gather(self._bias, shared.index)
        if self._shut is None:  # an empty slot attends to empty ones: booleans that are all false mean nothing
            bias = op.Or(bias, op.Equal(shared.owner, self._zero))
        asking, asked = op.constant([1, 3], "asking"), op.constant([1, 2], "asked")
        same = op.Equal(op.Unsqueeze(shared.owner, asking), op.Unsqueeze(shared.owner, asked))  # [P,1,C,C]: tokens of one row
        return Layout(shared.index, shared.slots, self._only(same, op.Unsqueeze(bias, asked)))

    @cached_property
    def _bounds(self) -> ir.Value:
        """Where rows begin in T, and its end, [B+1]."""
        return self.op.Concat(self._first, self.op.Shape(self.kept, start=1, end=2), axis=0)

    @cached_property
    def _scores(self) -> ir.Value:
        """What is added to the scores of real tokens, [T] of floats."""
        if self._shut is not None:
            return self._bias
        return self.op.Where(self._bias, self.op.constant(0.0, "open"), self.op.constant(SHUT, "shut"))

    def attend(self, node: ir.Node) -> bool:
        """Put our own operator, which takes tokens as they stand, in an attention's place; whether that computes the same."""
        q, k, v = node.inputs[:3]
        assert q is not None
        heads, kinds = node.attributes.get_int("q_num_heads", 0), {self._analysis[value].dtype for value in (q, k, v)}
        plain = set(node.attributes) <= {"q_num_heads", "kv_num_heads", "scale"} and len(node.outputs) == 1
        if (
            self._analysis.opset < OPSET
            or not plain
            or not heads
            or heads != node.attributes.get_int("kv_num_heads", 0)
            or kinds != {ir.DataType.FLOAT}
        ):
            return False
        scale = node.attributes.get_float("scale", 0.0)
        made = attend(self.op, q, k, v, self._bounds, self._scores, heads, scale)
        output = node.outputs[0]
        made.name, output.name = output.name, f"{output.name}/padded"
        ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
        assert node.graph is not None
        node.graph.remove(node, safe=True)
        return True

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
        return self.rows(x, self.op.Unsqueeze(self._first, self._flat) if keep_axis else self._first)

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
