"""What each operator's shape function knows: sizes, content, uniform values, ranges; and what it must leave open."""

from pathlib import Path

import pytest

from onnxfuse.errors import UsageError
from onnxfuse.rewrite import shapes
from onnxfuse.rewrite.analysis import Dim, ValueInfo
from onnxfuse.rewrite.shapes import register, shape_function
from tests.conftest import analysis_of, parse

HEAD = """g (float[B,S,12] x, float[12,B] w, int64[N] open, int64[1] one_open, int64 some, int64[2] pair, float[B,1,1] row,
           float[1,1,4] ones, float[2,3] small, float[P,Q,R] z, bool[B,S] keep, int64[3] three, float[B,S,6] half, float[S,12] flat)
    => (float[M] y)
    <int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 three0 = {3}, int64[1] v0 = {0}, int64[1] v1 = {1}, int64[1] v2 = {2},
     int64[1] v3 = {3}, int64[1] last = {-1}, int64[1] end = {9223372036854775807}, int64[2] v12 = {1, 2}, int64[2] v02 = {0, 2},
     int64[2] a = {6, 4}, int64[2] b = {4, 4}, int64[4] four = {7, 8, 9, 10}, int64[3] cut = {2, -1, 0}, int64[2] negative = {-1, -2},
     int64[0] none = {}, float f0 = {0.0}, float f2 = {2.0}, float inf = {inf}, float[2,3] twos = {2.0, 2.0, 2.0, 2.0, 2.0, 2.0},
     bool yes = {1}, bool[2] yesno = {1, 0}, bool[2] yesyes = {1, 1}, int64[2,2] square = {1, 2, 3, 4}, int64[2] neg1 = {-1, 6},
     int64[3] t3 = {0, 0, -1}, int64[2] t2 = {-1, 4}, int64[3] big = {2, 3, 4}, int64[1] five = {5}, int64[3] column = {1, -1, 1}, int64[2] halves = {2, -1}, int64[3] r3 = {1, 2, 3},
     int64[1] imax = {2147483647}, int64[1] v64 = {64}, int64[65] many = {MANY}>""".replace("MANY", ",".join("1" * 65))
SHAPE = "s = Shape(x)  "
UNKNOWN = "u = com.acme.Blend(x)  "  # nobody knows its type or shape
RANGE = SHAPE + "n = Gather(s, one)  r = Range(zero, n, one)  "


def known_of(body: str, opset: int = 23, name: str = "y") -> ValueInfo:
    model = parse(f"{HEAD} {{ {body} }}", opset)
    return analysis_of(model)[next(value for node in model.graph for value in node.outputs if value.name == name)]


def open_sizes(sizes: list[str]) -> list[str]:
    """Fresh sizes are numbered as they come; here they are all one."""
    return ["~" if size.startswith("~?") else "?" if size.startswith("?") else size for size in sizes]


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (SHAPE + "y = Mul(s, two)", ["2*B", "2*S", "24"]),
        (SHAPE + "y = Mul(v2, s)", ["2*B", "2*S", "24"]),
        (SHAPE + "y = Add(s, s)", ["2*B", "2*S", "24"]),
        (SHAPE + "y = Sub(s, s)", ["0", "0", "0"]),
        (SHAPE + "d = Mul(s, two)  y = Sub(d, s)", ["B", "S", "12"]),
        (SHAPE + "y = Add(s, zero)", ["B", "S", "12"]),
        (SHAPE + "y = Add(zero, s)", ["B", "S", "12"]),
        (SHAPE + "y = Sub(s, zero)", ["B", "S", "12"]),
        (SHAPE + "y = Sub(zero, s)", ["~", "~", "-12"]),
        (SHAPE + "y = Add(s, one)", ["~", "~", "13"]),
        (SHAPE + "d = Mul(s, two)  y = Div(d, two)", ["B", "S", "12"]),
        (SHAPE + "y = Div(s, s)", ["1", "1", "1"]),
        (SHAPE + "y = Div(s, two)", ["~", "~", "6"]),
        (SHAPE + "y = Max(s, s)", ["B", "S", "12"]),
        (SHAPE + "y = Min(s, s)", ["B", "S", "12"]),
        (SHAPE + "y = Max(s, one)", ["~", "~", "12"]),
        (SHAPE + "y = Max(one, s)", ["~", "~", "12"]),
        (SHAPE + "y = Min(s, one)", ["~", "~", "1"]),
        (SHAPE + "y = Pow(s, s)", ["~", "~", "~"]),
        ("y = Add(a, b)", ["10", "8"]),
        ("y = Sub(a, b)", ["2", "0"]),
        ("y = Mul(a, b)", ["24", "16"]),
        ("y = Div(a, b)", ["1", "1"]),
        ("y = Max(a, b)", ["6", "4"]),
        ("y = Min(a, b)", ["4", "4"]),
        ("y = Mod(a, b)", ["~", "~"]),
        ("y = Add(one, two)", ["3"]),
        ("y = Add(square, b)", None),
        ("y = Add(open, b)", None),
        ("y = Sum(a, b, a)", None),
        ("y = Add(b, open)", None),
        ("y = Add(none, one)", None),
        ("y = Equal(one, none)", None),
        ("y = Add(a, big)", None),
        ("y = Equal(big, a)", None),
        (SHAPE + "y = Equal(s, s)", ["1", "1", "1"]),
        ("y = Equal(a, b)", ["0", "1"]),
        ("y = Equal(a, two)", ["0", "0"]),
        (SHAPE + "y = Equal(s, last)", ["0", "0", "0"]),
        (SHAPE + "y = Equal(last, s)", ["0", "0", "0"]),
        (SHAPE + "y = Equal(s, one)", None),
        (SHAPE + "y = Equal(s, zero)", None),
        ("y = Equal(a, open)", None),
        ("y = Equal(open, a)", None),
        (SHAPE + "y = Equal(one, s)", None),
        (SHAPE + "d = Sub(s, one)  y = Equal(d, last)", None),
        ("y = Less(a, b)", None),
        ("y = Not(yesno)", ["0", "1"]),
        ("y = Where(yesno, a, b)", ["6", "4"]),
        ("n = Not(yesno)  y = Where(n, a, b)", ["4", "4"]),
        ("y = Where(keep, a, b)", None),
        ("y = Where(yesno, pair, b)", None),
        ("y = Where(yesno, a, pair)", None),
        ("y = Where(yes, a, b)", None),
        (SHAPE + "y = Cast<to = 6>(s)", ["B", "S", "12"]),
        (SHAPE + "y = Cast<to = 7>(s)", ["B", "S", "12"]),
        (SHAPE + "y = Cast<to = 1>(s)", None),
        (SHAPE + "y = Cast<to = 9>(s)", None),
        ("y = Shape<start = 1>(x)", ["S", "12"]),
        ("y = Shape<end = -1>(x)", ["B", "S"]),
        ("y = Shape<start = -2, end = 2>(x)", ["S"]),
        ("y = Size(x)", ["12*B*S"]),
        (UNKNOWN + "y = Shape(u)", None),
        (UNKNOWN + "y = Size(u)", None),
        (SHAPE + "y = Gather(s, cut)", ["12", "12", "B"]),
        (SHAPE + "y = Gather(s, one)", ["S"]),
        (SHAPE + "y = Gather(s, last)", ["12"]),
        (SHAPE + "y = Gather(s, some)", None),
        ("y = Gather(square, one)", None),
        (SHAPE + "y = Gather(s, s)", None),
        ("y = Slice(four, v1, v3)", ["8", "9"]),
        ("y = Slice(four, last, end)", ["10"]),
        ("y = Slice(four, v0, end, v0, v2)", ["7", "9"]),
        ("y = Slice(four, last, v0, v0, last)", ["10", "9", "8"]),
        ("y = Slice(four, v0, one_open)", None),
        ("y = Slice(four, v1, v3, one_open)", None),
        ("y = Slice(four, v1, v3, v0, one_open)", None),
        ("y = Slice(four, one_open, v3)", None),
        ("y = Slice(square, v0, v1)", None),
        ("y = Slice(pair, v0, v1)", None),
        ("y = Slice(four, v0, end, , v2)", ["7", "9"]),
        (SHAPE + "n = Gather(s, v1)  y = Slice(four, v0, n)", None),
        (SHAPE + "n = Gather(s, v1)  y = Slice(s, v1, n)", None),
        ("y = Where(yesno, a, big)", None),
        (SHAPE + "y = Concat<axis = 0>(v2, s)", ["2", "B", "S", "12"]),
        (SHAPE + "y = Concat<axis = 0>(s, open)", None),
        ("y = Concat<axis = 0>(square, square)", None),
        ("y = Concat<axis = 0>(none, a)", ["6", "4"]),
        ("y = Unsqueeze(two, v0)", ["2"]),
        ("y = Unsqueeze(a, v0)", None),
        ("y = Squeeze(v2, v0)", ["2"]),
        ("y = Squeeze(v2)", ["2"]),
        ("y = Reshape(two, v1)", ["2"]),
        ("y = Reshape(a, v12)", None),
        ("y = Reshape(v2, none)", ["2"]),
        ("y = Identity(a)", ["6", "4"]),
        ("y = Expand(a, v2)", None),
        ("y = ConstantOfShape<value = int64[1] {7}>(v3)", ["7", "7", "7"]),
        ("y = ConstantOfShape<value = int64[1] {7}>(none)", ["7"]),
        ("y = ConstantOfShape<value = int32[1] {7}>(v1)", ["7"]),
        ("y = ConstantOfShape(v3)", None),
        ("y = ConstantOfShape<value = int64[1] {7}>(v12)", None),
        ("y = ConstantOfShape<value = int64[1] {7}>(one_open)", None),
        ("m = Shape(many)  y = ConstantOfShape<value = int64[1] {7}>(m)", None),
        ("y = ConstantOfShape<value = int64[1] {7}>(v64)", ["7"] * 64),
        ("y = Transpose(a)", None),
        ("y = Identity(many)", None),
        ("y = Identity(square)", None),
        ("y = Identity(none)", []),
    ],
)
def test_content_of_small_integers(body, data):
    found = known_of(body).data
    assert (None if found is None else open_sizes([str(item) for item in found])) == data


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("y = Add(x, f2)", ["B", "S", "12"]),
        ("y = Mul(row, x)", ["B", "S", "12"]),
        ("y = Add(x, z)", ["?", "?", "12"]),
        ("y = Sum(x, row, x)", ["B", "S", "12"]),
        ("y = Equal(x, row)", ["B", "S", "12"]),
        ("y = Where(keep, f2, f2)", ["B", "S"]),
        ("y = Where(yes, x, row)", ["B", "S", "12"]),
        ("y = Where(yes, row, x)", ["B", "S", "12"]),
        ("y = Not(keep)", ["B", "S"]),
        ("y = Cast<to = 10>(x)", ["B", "S", "12"]),
        ("y = Shape(x)", ["3"]),
        ("y = Shape<start = 1>(x)", ["2"]),
        ("y = Size(x)", []),
        ("y = Gather(x, square)", ["2", "2", "S", "12"]),
        ("y = Gather<axis = 1>(x, one)", ["B", "12"]),
        ("y = Gather<axis = -1>(x, v12)", ["B", "S", "2"]),
        ("y = Gather<axis = 1>(x, open)", ["B", "N", "12"]),
        ("y = Slice(x, v0, v2, v2)", ["B", "S", "2"]),
        ("y = Slice(x, v0, v2, last)", ["B", "S", "2"]),
        ("y = Slice(x, v0, v2)", ["?", "S", "12"]),
        ("y = Slice(x, v0, imax, v1)", ["B", "S", "12"]),
        ("y = Slice(x, v0, end, v1)", ["B", "S", "12"]),
        ("y = Slice(x, v1, end, v1)", ["B", "?", "12"]),
        ("y = Slice(x, v0, end, v1, v2)", ["B", "?", "12"]),
        ("y = Slice(x, v0, end, v2, v2)", ["B", "S", "6"]),
        ("y = Slice(x, v0, v2, v1)", ["B", "?", "12"]),
        ("y = Slice(x, last, v0, v2, last)", ["B", "S", "11"]),
        ("y = Slice(x, one_open, v2)", ["?", "?", "?"]),
        ("y = Slice(x, v0, one_open)", ["?", "?", "?"]),
        ("y = Slice(x, v0, v2, one_open)", ["?", "?", "?"]),
        ("y = Slice(x, v0, v2, v2, one_open)", ["?", "?", "?"]),
        ("y = Slice(x, v0, one_open, v2, v1)", ["?", "?", "?"]),
        ("y = Slice(x, v12, v12, v12)", ["B", "?", "0"]),
        (SHAPE + "n = Gather(s, v1)  y = Slice(x, v0, n, v1)", ["B", "S", "12"]),
        (SHAPE + "n = Gather(s, v1)  y = Slice(x, v0, n, v0)", ["?", "S", "12"]),
        (SHAPE + "n = Gather(s, v1)  y = Slice(x, v0, n, v2)", ["B", "S", "min(12,S)"]),
        (SHAPE + "n = Gather(s, v1)  y = Slice(x, v1, n, v2)", ["B", "S", "?"]),
        (SHAPE + "n = Gather(s, v1)  y = Slice(x, v0, n, v2, v2)", ["B", "S", "?"]),
        (SHAPE + "n = Gather(s, v1)  m = Sub(n, v1)  y = Slice(x, v0, m, v2)", ["B", "S", "?"]),
        ("y = Concat<axis = 2>(x, half)", ["B", "S", "18"]),
        ("y = Concat<axis = -1>(x, half, half)", ["B", "S", "24"]),
        ("y = Concat<axis = 1>(x, x)", ["B", "2*S", "12"]),
        ("y = Concat<axis = 1>(x, z)", ["B", "?", "12"]),
        ("y = Concat<axis = 0>(z, x)", ["?", "Q", "12"]),
        ("y = Concat<axis = 1>(z, ones)", ["1", "?", "4"]),
        ("y = Unsqueeze(x, v0)", ["1", "B", "S", "12"]),
        ("y = Unsqueeze(x, negative)", ["B", "S", "12", "1", "1"]),
        ("y = Unsqueeze(x, v02)", ["1", "B", "1", "S", "12"]),
        ("y = Squeeze(row, v12)", ["B"]),
        ("y = Squeeze(row, last)", ["B", "1"]),
        ("y = Squeeze(ones)", ["4"]),
        ("y = Squeeze(row)", None),
        ("y = Squeeze(ones, one_open)", None),
        (SHAPE + "n = Gather(s, v1)  y = Unsqueeze(row, n)", None),
        (SHAPE + "n = Gather(s, v1)  y = Squeeze(row, n)", None),
        ("y = Unsqueeze(x, one_open)", None),
        ("y = Squeeze(row, one_open)", None),
        ("y = Reshape(x, t3)", ["B", "S", "12"]),
        ("y = Reshape(x, t2)", ["3*B*S", "4"]),
        ("y = Reshape(x, big)", ["2", "3", "4"]),
        ("y = Reshape(flat, neg1)", ["2*S", "6"]),
        ("y = Reshape(x, three)", ["?", "?", "?"]),
        ("y = Reshape(x, open)", None),
        ("y = Reshape(x, five)", ["5"]),
        ("q = Concat<axis = 0>(last, five)  y = Reshape(x, q)", ["?", "5"]),
        ("y = Reshape<allowzero = 1>(x, v0)", ["0"]),
        ("y = Reshape(x, v0)", ["B"]),
        ("q = Concat<axis = 0>(v0, v0, v0, last)  y = Reshape(flat, q)", ["?", "?", "?", "?"]),
        ("y = Flatten(x)", ["B", "12*S"]),
        ("y = Flatten<axis = 2>(x)", ["B*S", "12"]),
        ("y = Flatten<axis = -1>(x)", ["B*S", "12"]),
        ("y = Flatten<axis = 0>(x)", ["1", "12*B*S"]),
        ("y = Flatten<axis = 3>(x)", ["12*B*S", "1"]),
        ("y = Tile(x, r3)", ["B", "2*S", "36"]),
        ("y = Tile(x, three)", ["?", "?", "?"]),
        ("y = Expand(row, big)", ["2", "3", "4"]),
        ("y = Expand(ones, v1)", ["1", "1", "4"]),
        (SHAPE + "y = Expand(row, s)", ["B", "S", "12"]),
        ("y = Expand(row, three)", ["?", "?", "?"]),
        ("y = Expand(row, pair)", ["B", "?", "?"]),
        ("y = Expand(row, open)", None),
        ("y = Range(zero, two, one)", ["2"]),
        ("y = Range(one, two, one)", ["?"]),
        ("y = Range(zero, two, two)", ["?"]),
        (SHAPE + "n = Gather(s, one)  m = Add(n, one)  y = Range(one, m, one)", ["S"]),
        (SHAPE + "n = Gather(s, one)  m = Add(one, n)  l = Cast<to = 7>(m)  y = Range(one, l, one)", ["S"]),
        (SHAPE + "n = Gather(s, one)  m = Add(n, two)  y = Range(one, m, one)", ["?"]),
        (SHAPE + "n = Gather(s, one)  m = Add(n, one)  y = Range(one, m, two)", ["?"]),
        (SHAPE + "n = Gather(s, one)  m = Sub(n, one)  y = Range(one, m, one)", ["?"]),
        ("y = Range(zero, some, one)", ["?"]),
        (SHAPE + "y = ConstantOfShape(s)", ["B", "S", "12"]),
        ("y = ConstantOfShape(three)", ["?", "?", "?"]),
        ("y = Transpose(x)", ["12", "S", "B"]),
        ("y = Transpose<perm = [1, 2, 0]>(x)", ["S", "12", "B"]),
        ("y = MatMul(x, w)", ["B", "S", "B"]),
        ("t = Transpose<perm = [0, 2, 1]>(x)  y = MatMul(row, t)", ["B", "1", "S"]),
        ("t = Transpose<perm = [0, 2, 1]>(x)  y = MatMul(x, t)", ["B", "S", "S"]),
        ("c = Cast<to = 1>(open)  y = MatMul(z, c)", ["P", "Q"]),
        ('y = Einsum<equation = "bsd,de->bse">(x, w)', ["B", "S", "B"]),
        ('y = Einsum<equation = "b s d, d e -> e b">(x, w)', ["B", "B"]),
        ('y = Einsum<equation = "bxy,bsd->bxyd">(row, x)', ["B", "1", "1", "12"]),
        ('y = Einsum<equation = "bsd,bsd->sd">(row, x)', ["S", "12"]),
        ('y = Einsum<equation = "bsd,bsd->sd">(x, row)', ["S", "12"]),
        ('y = Einsum<equation = "...d,de->...e">(x, w)', ["B", "S", "B"]),
        ('y = Einsum<equation = "bsd,de">(x, w)', ["B", "B", "S"]),
        ('q = Unsqueeze(x, v0)  y = Einsum<equation = "...d,de->...e">(q, w)', ["1", "B", "S", "B"]),
        ('y = Einsum<equation = "bs,de->be">(x, w)', None),
        (UNKNOWN + 'y = Einsum<equation = "bsd,de->bse">(x, u)', None),
        ("y = Gemm(flat, w)", ["S", "B"]),
        ("y = Gemm<transA = 1>(w, w)", ["B", "B"]),
        ("y = Gemm<transB = 1>(flat, flat)", ["S", "S"]),
        ("y = ReduceMean(x, last)", ["B", "S", "1"]),
        ("y = ReduceMean<keepdims = 0>(x, v1)", ["B", "12"]),
        ("y = ReduceMax(x)", ["1", "1", "1"]),
        ("y = ReduceSum<keepdims = 0>(x)", []),
        ("y = ReduceSum<noop_with_empty_axes = 1>(x, none)", ["B", "S", "12"]),
        ("y = ReduceSum(x, none)", ["1", "1", "1"]),
        ("y = ReduceMean(x, one_open)", None),
        ("y = ReduceL2<keepdims = 0>(x, negative)", ["B"]),
        ("y, u = Split<axis = -1, num_outputs = 2>(x)", ["B", "S", "6"]),
        ("u, y = Split<axis = 2>(x, a)", ["B", "S", "4"]),
        ("y, u = Split<axis = 1, num_outputs = 2>(x)", ["B", "?", "12"]),
        ("y, u = Split<axis = 2>(x, pair)", ["B", "S", "?"]),
        ("y = Attention<q_num_heads = 3, kv_num_heads = 3>(x, x, half)", ["B", "S", "6"]),
        ("y = Attention<q_num_heads = 6, kv_num_heads = 3>(x, half, half)", ["B", "S", "12"]),
        ("q = Unsqueeze(x, v1)  k = Unsqueeze(half, v1)  y = Attention(q, q, k)", ["B", "1", "S", "6"]),
        ("y = Attention<q_num_heads = 6, kv_num_heads = 3>(x, z, z)", ["B", "S", "?"]),
        (UNKNOWN + "y = Tile(x, u)", ["?", "?", "?"]),
        (UNKNOWN + "y = Gemm(w, u)", ["12", "?"]),
        ("q = Unsqueeze(x, v1)  v, k, l, y = Attention(q, q, q)", ["B", "1", "S", "?"]),
        (UNKNOWN + "y = Shape(u)", ["?"]),
        (UNKNOWN + "y = Size(u)", []),
        (UNKNOWN + "y = Reshape(u, t2)", ["?", "4"]),
        (UNKNOWN + "y = Flatten(u)", ["?", "?"]),
        (UNKNOWN + "y = Reshape(u, big)", ["2", "3", "4"]),
        ("y = Dropout(x)", ["B", "S", "12"]),
        ("u, y = Dropout(x)", ["B", "S", "12"]),
    ],
)
def test_shapes(body, shape):
    found = known_of(body).shape
    assert (None if found is None else open_sizes([str(item) for item in found])) == shape


@pytest.mark.parametrize(
    ("body", "uniform"),
    [
        ("y = Mul(x, f0)", None),
        ("y = Mul(twos, f0)", 0.0),
        ("y = Mul(f0, twos)", 0.0),
        ("y = Mul(twos, f2)", None),
        ("y = Mul(inf, f0)", None),
        ("y = Add(twos, f0)", None),
        ("y = Mul(open, zero)", 0),
        (RANGE + "y = Mul(zero, r)", 0),
        (RANGE + "y = GreaterOrEqual(r, zero)", True),
        (RANGE + "y = GreaterOrEqual(r, last)", True),
        (RANGE + "y = GreaterOrEqual(r, one)", None),
        (RANGE + "y = Greater(r, zero)", None),
        (RANGE + "y = LessOrEqual(r, zero)", None),
        ("y = GreaterOrEqual(open, zero)", None),
        (RANGE + "y = GreaterOrEqual(r, some)", None),
        (RANGE + "m = Mul(r, last)  y = GreaterOrEqual(m, zero)", None),
        ("y = Less(f0, f2)", True),
        ("y = Less(f0, f0)", False),
        ("y = LessOrEqual(f0, f0)", True),
        ("y = LessOrEqual(f2, f0)", False),
        ("y = Greater(f2, f0)", True),
        ("y = Greater(f0, f0)", False),
        ("y = GreaterOrEqual(f0, f2)", False),
        ("y = GreaterOrEqual(f2, f2)", True),
        ("y = Equal(f0, f0)", True),
        ("y = Equal(f0, f2)", False),
        ("y = Equal(x, f2)", None),
        ("y = Equal(f2, x)", None),
        ("y = And(yes, yes)", True),
        ("y = And(yes, keep)", None),
        ("y = And(keep, yes)", None),
        ("n = Not(yes)  y = And(yes, n)", None),
        ("y = Xor(yes, yes)", None),
        ("y = Not(yes)", False),
        ("y = Not(keep)", None),
        ("y = Cast<to = 1>(yes)", 1.0),
        ("y = Cast<to = 9>(f2)", True),
        ("y = Cast<to = 9>(f0)", False),
        ("y = Cast<to = 7>(f2)", None),
        ("y = Cast<to = 1>(x)", None),
        ("y = Reshape(twos, v2)", 2.0),
        ("y = Tile(twos, a)", 2.0),
        ("y = Expand(f2, big)", 2.0),
        ("y = Expand(f2, open)", 2.0),
        ("y = Transpose(twos)", 2.0),
        ("y = ConstantOfShape(open)", 0.0),
        ("y = ConstantOfShape<value = int64[1] {7}>(open)", 7),
        ("y = ReduceSum(twos)", None),
        ("y = ReduceSum(twos, last)", 6.0),
        ("y = ReduceSum(twos, none)", 12.0),
        ("y = ReduceMax(twos, last)", None),
        ("y = ReduceSum(small, last)", None),
        ("e = Expand(f2, open)  y = ReduceSum(e, last)", None),
        (SHAPE + "e = Expand(f2, s)  y = ReduceSum(e, last)", 24.0),
        (SHAPE + "e = Expand(f2, s)  y = ReduceSum(e, v1)", None),
        (UNKNOWN + "y = Mul(u, f0)", None),
        (UNKNOWN + "y = Expand(f2, u)", 2.0),
        ("y = Identity(twos)", 2.0),
        ("y = Unsqueeze(f2, v0)", 2.0),
        ("y = Identity(a)", None),
        ("y = Identity(yesyes)", True),
    ],
)
def test_values_that_every_element_has(body, uniform):
    found = known_of(body).uniform
    assert (found is None) == (uniform is None)
    assert found == uniform


@pytest.mark.parametrize(
    ("body", "index"),
    [
        (RANGE + "y = Identity(r)", [(0, "1")]),
        ("y = Range(one, two, one)", None),
        ("y = Range(zero, two, two)", None),
        (RANGE + "y = Mul(r, two)", [(0, "2")]),
        (RANGE + "y = Mul(n, r)", [(0, "S")]),
        (RANGE + "y = Mul(r, some)", None),
        (RANGE + "y = Mul(r, r)", None),
        (RANGE + "u = Reshape(v2, v12)  y = Mul(r, a)", None),
        (RANGE + "y = Sub(r, two)", None),
        (RANGE + "u = Unsqueeze(v2, v0)  y = Mul(r, u)", None),
        (RANGE + "y = Unsqueeze(r, v0)", [(1, "1")]),
        (RANGE + "y = Unsqueeze(r, v1)", [(0, "1")]),
        (RANGE + "u = Unsqueeze(r, v02)  y = Squeeze(u, v0)", [(0, "1")]),
        (RANGE + "u = Unsqueeze(r, v0)  y = Squeeze(u, v0)", [(0, "1")]),
        (RANGE + "u = Unsqueeze(r, v1)  v = Unsqueeze(r, v0)  m = Mul(u, n)  y = Add(m, v)", [(0, "S"), (1, "1")]),
        (RANGE + "u = Unsqueeze(r, v1)  m = Mul(u, n)  y = Add(r, m)", [(0, "S"), (1, "1")]),
        (RANGE + "y = Add(r, r)", None),
        (RANGE + "y = Add(r, open)", None),
        (RANGE + "y = Add(open, r)", None),
        (RANGE + "y = Cast<to = 6>(r)", [(0, "1")]),
        (RANGE + "y = Cast<to = 1>(r)", None),
        (RANGE + "u = Unsqueeze(r, v1)  y = Transpose<perm = [1, 0]>(u)", [(1, "1")]),
        (RANGE + "u = Unsqueeze(r, v1)  y = Expand(u, s)", [(1, "1")]),
        (RANGE + "y = Reshape(r, last)", [(0, "1")]),
        (RANGE + "y = Reshape(r, neg1)", None),
        (RANGE + "y = Reshape(r, column)", [(1, "1")]),
        (RANGE + "u = Reshape(r, column)  y = Reshape(u, last)", [(0, "1")]),
        (RANGE + "y = Reshape(r, halves)", None),
        (RANGE + "k = Mul(n, zero)  y = Add(r, k)", [(0, "1")]),
        (RANGE + "k = Mul(n, zero)  y = Sub(r, k)", None),
        ("r = Range(zero, one, one)  y = Squeeze(r, v0)", []),
        (UNKNOWN + RANGE + "y = Add(r, u)", None),
        (RANGE + "y = Add(zero, r)", [(0, "1")]),
        (RANGE + "y = Add(r, two)", None),
        ("y = Add(open, zero)", None),
        ("y = Identity(open)", None),
        ("y = Squeeze(one_open, v0)", None),
    ],
)
def test_ranges(body, index):
    found = known_of(body).index
    assert (None if found is None else [(axis, str(coef)) for axis, coef in found]) == index


COORDINATES = RANGE + "i = Unsqueeze(r, v12)  k = Unsqueeze(r, v02)  "


@pytest.mark.parametrize(
    ("body", "coordinates"),
    [
        (COORDINATES + "y = Concat<axis = -1>(i, i)", [[(0, "1")], [(0, "1")]]),
        (COORDINATES + "y = Concat<axis = 2>(k, k)", [[(1, "1")], [(1, "1")]]),
        (COORDINATES + "y = Concat<axis = 0>(i, i)", None),
        (COORDINATES + "o = Cast<to = 7>(row)  y = Concat<axis = -1>(i, o)", None),
        (RANGE + "y = Concat<axis = 0>(r, r)", None),
        (COORDINATES + "c = Concat<axis = -1>(i, i)  y = Unsqueeze(c, v0)", None),
    ],
)
def test_coordinates(body, coordinates):
    found = known_of(body).coordinates
    assert (None if found is None else [[(axis, str(coef)) for axis, coef in part] for part in found]) == coordinates


@pytest.mark.parametrize(
    "body",
    [
        "Add(u, x)",
        "Add(x, u)",
        "Equal(u, x)",
        "Where(keep, u, x)",
        "Not(u)",
        "Cast<to = 1>(u)",
        "Gather(u, one)",
        "Gather(x, u)",
        "Gelu(u)",
        "Slice(u, v0, v2)",
        "Concat<axis = 0>(x, u)",
        "Concat<axis = 0>(u, x)",
        "Unsqueeze(u, v0)",
        "Squeeze(u, v0)",
        "Squeeze(u)",
        "Reshape(x, u)",
        "Reshape(u, t3)",
        "Tile(u, r3)",
        "Expand(u, big)",
        "Expand(x, u)",
        "Expand(u, three)",
        "Transpose(u)",
        "MatMul(u, w)",
        "MatMul(w, u)",
        "Gemm(u, w)",
        "ReduceMean(u, last)",
        "ReduceMean(x, u)",
        "Split<num_outputs = 1>(u)",
        "Attention(u, x, x)",
        "Attention(x, x, u)",
        "Attention<q_num_heads = 3, kv_num_heads = 3>(u, half, half)",
        'Einsum<equation = "bsd,de->bse">(u, w)',
        "Identity(u)",
        "ConstantOfShape(u)",
    ],
)
def test_nothing_is_told_of_what_is_made_from_the_unknown(body):
    assert known_of(f"{UNKNOWN} y = {body}").shape is None


@pytest.mark.parametrize(
    ("body", "dtype"),
    [
        ("u, y = Dropout(x)", "BOOL"),
        ("y = Equal(x, row)", "BOOL"),
        ("y = Shape(x)", "INT64"),
        ("y = Where(keep, a, b)", "INT64"),
        ("y = ConstantOfShape(v3)", "FLOAT"),
        ("y = ConstantOfShape<value = int64[1] {7}>(v3)", "INT64"),
        ("y = ConstantOfShape<value = int32[1] {7}>(open)", "INT32"),
        (UNKNOWN + "y = Cast<to = 1>(u)", "FLOAT"),
        ("y = Gather(a, open)", "INT64"),
        ("y = Softplus(x)", "FLOAT"),
    ],
)
def test_types(body, dtype):
    assert known_of(body).dtype.name == dtype


@pytest.mark.parametrize(
    ("body", "opset", "shape"),
    [
        ("y = Squeeze<axes = [0]>(ones)", 11, ["1", "4"]),
        ("y = Squeeze<axes = [1, -1]>(row)", 11, ["B"]),
        ("y = Unsqueeze<axes = [0]>(x)", 11, ["1", "B", "S", "12"]),
        ("y = ReduceSum<axes = [1]>(x)", 11, ["B", "1", "12"]),
        ("y = Gelu(x)", 11, ["B", "S", "12"]),
        ("y = Attention<q_num_heads = 6, kv_num_heads = 3>(x, half, half)", 17, ["B", "S", "12"]),
        ("q = Unsqueeze(x, v1)  k = Unsqueeze(half, v1)  y = Attention(q, q, k)", 17, ["B", "1", "S", "6"]),
        ("v, y, k = Attention<q_num_heads = 3, kv_num_heads = 3>(x, x, half)", 17, None),
        (UNKNOWN + "y = Attention<q_num_heads = 3, kv_num_heads = 3>(x, x, u)", 17, None),
        (UNKNOWN + "y = Attention(u, x, x)", 17, None),
    ],
)
def test_shapes_at_older_opsets(body, opset, shape):
    """The normal form's own operators are known before the opset that brought them."""
    found = known_of(body, opset).shape
    assert (None if found is None else open_sizes([str(item) for item in found])) == shape


def test_a_split_whose_sizes_are_absent_is_even():
    model = parse(f"{HEAD} {{ y, u = Split<axis = -1, num_outputs = 2>(x) }}")
    next(iter(model.graph)).resize_inputs(2)
    assert analysis_of(model).shape(next(iter(model.graph)).outputs[0])[2] == Dim(6)


@pytest.fixture
def registered(monkeypatch):
    """What a test registers is gone behind it."""
    shapes.find("", "Shape")
    monkeypatch.setattr(shapes, "_FUNCTIONS", dict(shapes._FUNCTIONS))


def test_a_domain_of_its_own_brings_shape_functions(registered):
    @shape_function("Blend", "Mix", domain="com.acme")
    def blend(analysis, node, output):
        info = analysis[node.inputs[0]]
        return ValueInfo(info.dtype, info.shape)

    model = parse("g (float[B,S,12] x) => (float[M] y) { a = com.acme.Blend(x)  b = com.acme.Mix(a)  y = Relu(b) }")
    assert analysis_of(model).shape(model.graph.outputs[0]) == (Dim(1, ("B",)), Dim(1, ("S",)), Dim(12))
    assert shapes.find("", "Blend") is None


def test_an_operator_has_one_shape_function(registered):
    def other(analysis, node, output):
        return None

    with pytest.raises(
        UsageError, match=r"test_shapes brings a shape function for Shape of domain '', and onnxfuse\.rewrite\.shapes"
    ):
        register("", "Shape", other)
    register("com.acme", "Blend", other)
    again = lambda analysis, node, output: None  # noqa: E731
    register("com.acme", "Blend", again)  # its module is loaded again
    assert shapes.find("com.acme", "Blend") is again


def test_shape_functions_are_found_by_being_there():
    modules = {path.stem for path in Path(shapes.__file__).parent.glob("*.py")} - {"__init__", "axes"}
    shapes.find("", "Shape")
    ours = {function.__module__ for function in shapes._FUNCTIONS.values() if function.__module__.startswith(shapes.__name__)}
    assert {name.rpartition(".")[2] for name in ours} == modules  # plugins that other tests opened have brought more
