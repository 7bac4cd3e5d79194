"""Guards of the normal form, one line each: a graph where the rule must not fire, and what it says."""

import pytest

from onnxfuse.normalize import softmax
from onnxfuse.optimizer import NORMAL_RULES as RULES
from onnxfuse.rewrite import Trace, rewrite
from tests.conftest import analysis_of, fill, parse

CONSTANTS = """<int64 zero = {0}, int64 one = {1}, int64[1] v0 = {0}, int64[1] v1 = {1}, int64[1] v2 = {2}, int64[1] v3 = {3}, int64[1] v4 = {4}, int64[1] last = {-1},
    int64[2] two_ids = {0, 1}, int64[2] flat = {-1, 12}, int64[3] flat3 = {-1, 3, 4}, int64[3] back = {0, 0, 6}, int64[4] heads = {0, 0, 3, 4},
    int64[5] five = {0, 0, 3, 2, 2}, int64[5] heads5 = {0, 0, 1, 3, 2}, int64[5] heads5b = {0, 0, 3, 1, 2}, int64[5] heads5c = {0, 0, 2, 3, 2}, int64[5] turned5 = {-1, 5, 1, 3, 2},
    int64[4] head2 = {1, -1, 2, 6}, int64[4] head3 = {0, 0, 3, 4}, int64[4] head6 = {0, 0, 2, 6}, int64[3] uneven = {1, 2, 3}, int64[5] turned = {-1, 5, 3, 2, 2}, int64[3] wide = {2, 1, 1}, int64[4] four = {1, 1, 1, 1},
    float f0 = {0.0}, float f1 = {1.0}, float[1,1,1,1] one4 = {1.0}, float f2 = {2.0}, float f3 = {3.0}, float f5 = {-5.0}, float low = {-10000.0},
    float inf = {-inf}, float[1,1,1,1] two4 = {2.0}, int64 two = {2}, int64 three = {3}, bool[1,1,1,1] yes4 = {1}, float[1,1,1,1] zero4 = {0.0},
    int64[1] v6 = {6}, int64[4] thrice = {1, 1, 3, 1}, int64[2,2] swapped = {0, 1, 0, 0}, int64[2] back_first = {1, 0},
    float minus_inf = {-inf}, int64 twelve = {12}, int32 zero32 = {0}, int64[2] both0 = {0, 0}, int64[2] both1 = {1, 1}, int64[4] odd = {-1, 1, 3, 4}, int64[3] turned3 = {1, 2, 1}, int64[4] none4 = {1, 0, 1, 1}, int64[3] cube = {0, 4, 6}, int64[1] minus2 = {-2}, int64[2] sixes = {-1, 6}, int64[3] one_lead = {1, -1, 6}, int64[2] far = {2147483647, 1}, int64[2] long = {100000, 1}, int64[3] flat36 = {-1, 3, 6}, int64[2] open_one = {2147483647, 1}, int64[2] long_one = {2147483646, 1},
    float[3,4,2] c3 = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0}>"""

INPUTS = (
    "float[B,S,12] x, float[B,S,12] r, float[B,3,4] x3, float[B,N,S,T] s4, bool[B,1,1,T] k4, bool[B,N,S,T] kept, bool[T] k1, "
    "int64[B,S] ids, float[12,6] w, float[6] b, float e, int64 i"
)

LEAD = "sx = Shape(x)  two_sizes = Slice(sx, v0, v2)  lead = Concat<axis = 0>(two_sizes, v6)  f = Reshape(x, flat)  "

ROWS = (
    "c = Cast<to = 1>(k4)  wide_count = Expand(c, four)  sum = ReduceSum(wide_count, last)  none = Less(sum, f1)  nk = Not(k4)  "
    "cn = Cast<to = 1>(nk)  lowest = Mul(cn, low)  sc = Add(s4, lowest)  p = Softmax<axis = -1>(sc)  y = Where(none, f0, p)"
)

CLEARED = "m = Where(kept, f0, low)  a = Add(s4, m)  p = Softmax<axis = -1>(a)  y = Where(kept, p, f0)"

WRAPPED = "c = Cast<to = 1>(ids)  neg = Less(c, f0)  up = Add(ids, twelve)  at = Where(neg, up, ids)  y = Gather(w, at)"

RANGES = (
    "sh = Shape(ids)  nb = Gather(sh, zero)  ns = Gather(sh, one)  rb = Range(zero, nb, one)  rs = Range(zero, ns, one)  "
    "b2 = Unsqueeze(rb, v1)  s2 = Unsqueeze(rs, v0)  bu = Unsqueeze(b2, v2)  su = Unsqueeze(s2, v2)  nbv = Unsqueeze(nb, v0)  "
    "nsv = Unsqueeze(ns, v0)  whole = Concat<axis = 0>(nbv, nsv, v1)  b3 = Expand(bu, whole)  s3 = Expand(su, whole)  "
)

CASES = [
    # arithmetic
    ("power-product", "y = Pow(x, e)", "exponent is not a constant scalar"),
    ("power-product", "y = Pow(x, f1)", "the exponent is 1.0, wanted 2 or 3"),
    ("power-product", "y = Pow(ids, two)", "the type is INT64"),
    ("power-product", "y = Pow(x, two4)", "the exponent has more dimensions"),
    ("one-over", "y = Div(f2, x)", "one is 2.0, wanted 1.0"),
    ("one-over", "y = Div(one, ids)", "the type is INT64"),
    ("one-over", "y = Div(one4, x)", "the 1 has more dimensions"),
    ("reciprocal-division", "q = Reciprocal(f2)  y = Mul(x, q)", "a constant expression"),
    ("sign-in-factor", "n = Neg(x)  y = Mul(n, e)", "c is not a constant scalar"),
    ("sign-in-factor", "m = Mul(r, e)  y = Sub(x, m)", "c is not a constant scalar"),
    ("sign-outwards", "n = Neg(ids)  y = Mul(n, i)", "the type is INT64"),
    ("sign-outwards", "n = Neg(x)  y = Mul(n, f2)", "the constant takes the sign"),
    ("sign-outwards", "n = Neg(ids)  y = Add(n, i)", "the type is INT64"),
    ("pool-mean", "u = Reshape(x, open_rank)  y = GlobalAveragePool(u)", "is not known"),
    ("mean-over-axes", "y = ReduceMean(x, last)", "it is already the default"),
    ("mean-over-axes", "y = ReduceMean<noop_with_empty_axes = 1>(x, wide1)", "the axes are not known to be any"),
    # Einsum
    ("einsum-matmul", 'y = Einsum<equation = "...d,de->...e">(x, w)', "has no plain output"),
    ("einsum-matmul", 'y = Einsum<equation = "bsd,de">(x, w)', "has no plain output"),
    ("einsum-matmul", 'y = Einsum<equation = "bsd,dd->bs">(x, w)', "a letter of 'dd' is repeated"),
    ("einsum-matmul", 'y = Einsum<equation = "bsd,de->be">(x, w)', "a letter of one operand is summed by itself"),
    ("einsum-matmul", 'y = Einsum<equation = "bsd,se->bde">(x, w)', "the operands differ in 's': S and 12"),
    ("einsum-matmul", 'y = Einsum<equation = "abcd,aed->abce">(s4, z3)', "cannot be inferred"),
    # linear
    ("gemm-linear", "f = Reshape(x, flat)  y = Gemm(f, e2)", "weight is not a constant"),
    ("gemm-linear", "f = Reshape(x, flat)  y = Gemm<transB = 1>(f, w6)  z = Relu(w6)", "the weight is read elsewhere as it is"),
    ("flat-linear", "f = Reshape(x, flat)  m = MatMul(f, e2)  y = Reshape(m, back)", "weight is not a constant"),
    (
        "flat-linear",
        "f = Reshape(x3, flat)  m = MatMul(f, w)  y = Reshape(m, back)",
        "the first Reshape does not keep the last dimension",
    ),
    (
        "flat-linear",
        "f = Reshape(x, flat)  m = MatMul(f, w)  y = Reshape(m, flat3)",
        "the last Reshape does not restore the first ones",
    ),
    (
        "flat-linear",
        "f = Reshape(x, sixes)  m = MatMul(f, w6)  y = Reshape(m, flat3)",
        "the first Reshape does not keep the last dimension",
    ),
    (
        "flat-linear",
        "f = Reshape(x, flat)  m = MatMul(f, w)  y = Reshape(m, one_lead)",
        "the last Reshape does not restore the first ones",
    ),
    (
        "flat-linear",
        LEAD.replace("lead =", "n0 = Slice(sx, v0, v1)  n1 = Slice(sx, v1, v2)  d = Sub(n0, n1)  lead =").replace("v6)", "d)")
        + "m = MatMul(f, w)  y = Reshape(m, lead)",
        "the last Reshape does not restore the first ones",
    ),
    ("flat-linear", LEAD + "m = MatMul(f, w)  a = Add(m, b6)  y = Reshape(a, lead)", "bias is not a constant"),
    ("flat-linear", LEAD + "m = MatMul(f, w)  a = Add(m, f1)  y = Reshape(a, lead)", "the bias is not [6]"),
    ("flat-linear", LEAD + "m = MatMul(f, w)  y = Reshape(m, lead)  z = Relu(m)", "the flat product is read elsewhere"),
    (
        "flat-linear",
        "f = Reshape(x1, flat)  m = MatMul(f, w)  y = Reshape(m, back)",
        "the first Reshape does not keep the last dimension",
    ),
    (
        "flat-linear",
        "f = Reshape(x, flat)  m = MatMul(f, w)  y = Reshape(m, flat36)",
        "the last Reshape does not restore the first ones",
    ),
    (
        "flat-linear",
        "ss = Shape(s4)  n = Slice(ss, v1, v2)  " + LEAD.replace("v6)", "n, last)") + "m = MatMul(f, w)  y = Reshape(m, lead)",
        "the last Reshape does not restore the first ones",
    ),
    ("flat-linear", LEAD + "y = MatMul(f, w)  z = Reshape(y, lead)  u = Relu(z)", "the flat product is read elsewhere"),
    ("flat-linear", LEAD.replace("(x", "(x0") + "m = MatMul(f, w)  y = Reshape(m, lead)", "it is empty"),
    ("bias-of-heads", "q = Reshape(x, heads)  y = Add(q, open_bias)", "bias is not a constant"),
    ("bias-of-heads", "q = Reshape(x, heads)  y = Add(q, e4)", "e4 has rank 1, wanted 2"),
    ("bias-of-heads", "q = Reshape(x, odd)  y = Add(q, e34)", "the Reshape does not split the last dimension as the bias is"),
    ("flat-linear", "f = Reshape(x, flat3)  m = MatMul(f, w4)  y = Reshape(m, back)", "has rank 3, wanted 2"),
    ("matmul-transposed", "m = MatMul(s34, t34)  y = Transpose<perm = [1, 0, 2, 3]>(m)", "other dimensions than the last two"),
    ("matmul-transposed", "m = MatMul(ids2, ids2)  y = Transpose<perm = [1, 0]>(m)", "other dimensions than the last two"),
    ("matmul-transposed", "m = MatMul(x, e2)  y = Transpose<perm = [0, 2, 1]>(m)", "e2 has rank 2, wanted 3"),
    ("matmul-transposed", "m = MatMul(x3, c3)  y = Transpose<perm = [0, 2, 1]>(m)", "b is a weight"),
    ("gather-transpose", "t = Transpose<perm = [1, 0, 2]>(x)  y = Gather<axis = 0>(t, i)", "index is not a constant"),
    ("gather-transpose", "t = Transpose<perm = [1, 0, 2]>(x)  y = Gather<axis = 0>(t, two_ids)", "two_ids has rank 1, wanted 0"),
    ("packed-projections", "p = Reshape(x, five)  y = Gather<axis = 2>(p, i)", "index is not a constant"),
    ("packed-projections", "p = Reshape(x, five)  y = Gather<axis = 2>(p, two_ids)", "two_ids has rank 1, wanted 0"),
    (
        "packed-projections",
        "p = Reshape(x, turned)  y = Gather<axis = 2>(p, one)",
        "the Reshape does not keep the first two dimensions",
    ),
    (
        "packed-projections",
        "p = Reshape(x, five)  y = Gather<axis = 3>(p, one)",
        "the parts are not the first of the split dimension",
    ),
    ("packed-projections", "p = Reshape(x, back)  y = Gather<axis = 2>(p, one)", "the Reshape splits nothing"),
    ("slice-split", "c = Slice(sizes, v0, v1, v0)  y = Relu(c)", "shape arithmetic, or a constant expression"),
    ("slice-split", "y = Slice(w, v0, v2, v1)", "shape arithmetic, or a constant expression"),
    ("slice-split", "y = Slice(z3, v0, v2, last)", "the last dimension is T, wanted a number"),
    ("slice-split", "y = Slice(x, open1, v4, last)", "starts is not one known number"),
    ("slice-split", "y = Slice(x, two_ids, both1, two_ids)", "starts is not one known number"),
    ("slice-split", "y = Slice(x, v0, v4, last, v2)", "it steps or reverses"),
    ("slice-split", "y = Slice(x1, v0, v1, v1)", "another dimension than the last is cut"),
    ("slice-split", "y = Slice(x, v0, v6, last)", "0 to 6 is not one of three parts of 12"),
    ("slice-split", "y = Slice(x, v2, v6, last)", "2 to 6 is not one of three parts of 12"),
    ("split-heads", "h = Reshape(x2, head2)  y, q, u = Split<axis = -1, num_outputs = 3>(h)", "x2 has rank 2, wanted 3"),
    ("split-heads", "h = Reshape(x, five)  y, q, u = Split<axis = 2, num_outputs = 3>(h)", "has rank 5, wanted 4"),
    (
        "split-heads",
        "h = Reshape(x, odd)  y, q, u = Split<axis = 2, num_outputs = 3>(h)",
        "the Reshape does not keep the first two dimensions",
    ),
    ("split-heads", "h = Reshape(x, head3)  y, q, u = Split<axis = 2, num_outputs = 3>(h)", "another dimension is split"),
    (
        "split-heads",
        "h = Reshape(x, head6)  t = Transpose<perm = [0, 2, 1, 3]>(h)  y, q = Split<axis = -1, num_outputs = 2>(t)",
        "the parts are not three of the same width",
    ),
    ("split-heads", "h = Reshape(x, head6)  y, q, u = Split<axis = -1>(h, uneven)", "the parts are not three of the same width"),
    ("heads-by-parts", "m = MatMul(x2, w)  h = Reshape(m, heads5)  y = Gather<axis = 3>(h, one)", "x2 has rank 2, wanted 3"),
    ("heads-by-parts", "m = MatMul(x, w)  y = Reshape(m, back)", "has rank 3, wanted 5"),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  h = Reshape(m, heads5b)  y = Gather<axis = 3>(h, one)",
        "does not split into the three parts of heads",
    ),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  h = Reshape(m, turned5)  y = Gather<axis = 3>(h, one)",
        "does not split into the three parts of heads",
    ),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  h = Reshape(m, heads5)  y = Gather<axis = 2>(h, one)",
        "the readers do not pick one of the parts",
    ),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  h = Reshape(m, heads5)  g = Gather<axis = 3>(h, one)  y = Relu(h)",
        "the readers do not pick one of the parts",
    ),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  h = Reshape(m, heads5)  y = Softmax<axis = 3>(h)",
        "the readers do not pick one of the parts",
    ),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  h = Reshape(m, heads5)  p = Softmax<axis = 3>(h)  y = Gather<axis = 3>(p, one)",
        "the readers do not pick one of the parts",
    ),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  y = Reshape(m, heads5)  g = Gather<axis = 3>(y, one)",
        "the readers do not pick one of the parts",
    ),
    ("heads-by-parts", "m = MatMul(x, e2)  h = Reshape(m, heads5)  y = Gather<axis = 3>(h, one)", "weight is not a constant"),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  h = Reshape(m, heads5c)  y = Gather<axis = 3>(h, one)",
        "the weight has other columns than the parts of heads",
    ),
    ("heads-by-parts", "m = MatMul(x, c126)  h = Reshape(m, heads5)  y = Gather<axis = 3>(h, one)", "c126 has rank 3, wanted 2"),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  a = Add(m, b6)  h = Reshape(a, heads5)  y = Gather<axis = 3>(h, one)",
        "bias is not a constant",
    ),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  a = Add(m, f1)  h = Reshape(a, heads5)  y = Gather<axis = 3>(h, one)",
        "the bias is not one row",
    ),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  h = Reshape(m, heads5)  y = Gather<axis = 3>(h, one)  z = Relu(w)",
        "the weight is read elsewhere as it is",
    ),
    (
        "heads-by-parts",
        "m = MatMul(x, w)  a = Add(m, b)  h = Reshape(a, heads5)  y = Gather<axis = 3>(h, one)  z = Relu(b)",
        "the bias is read elsewhere as it is",
    ),
    ("split-squeeze", "p, q, u = Split<axis = 1, num_outputs = 3>(x1)  y = Squeeze(p, v2)", "another dimension is squeezed"),
    ("split-squeeze", "p, q, u = Split<axis = 1, num_outputs = 3>(x1)  y = Squeeze(p, open1)", "another dimension is squeezed"),
    ("split-squeeze", "p, q = Split<axis = 1, num_outputs = 2>(x1)  y = Squeeze(p, v1)", "a part is wider than 1"),
    ("split-squeeze", "p, q, u = Split<axis = 1, num_outputs = 3>(x1)  y = Squeeze(p, open1)", "another dimension is squeezed"),
    # masks
    ("where-false", "c = Cast<to = 9>(k1)  y = Where(kept, f0, s4)", "the condition is not always false"),
    ("where-false", "n = Not(yes4)  y = Where(n, f0, x)", "the condition decides the shape"),
    ("and-true", "y = And(kept, k1)", "the other side is not always true"),
    ("where-true", "y = Where(yes4, x, two4)", "the other branch has a shape of its own"),
    (
        "where-transposed",
        "t = Transpose<perm = [1, 0, 2]>(x)  c = Transpose<perm = [1, 0, 2]>(k3)  y = Where(c, r, t)",
        "the other branch has a shape of its own",
    ),
    ("where-transposed", "t = Transpose<perm = [1, 0]>(ids)  c = Transpose<perm = [1, 0]>(k3)  y = Where(c, one, t)", "rank"),
    ("where-number", "y = Where(k4, s4, zero4)", "a branch decides the shape"),
    ("where-number", "y = Where(two_yes, both1, sizes2)", "no branch is one number in a shape"),
    ("where-number", "y = Where(kept, s4, f0)", "no branch is one number in a shape"),
    ("where-reshaped", "m = Where(k3, x, f0)  y = Reshape(m, heads)", "a branch has a shape of its own"),
    ("where-reshaped", "m = Where(k3, f0, x)  y = Reshape(m, heads)", "a branch has a shape of its own"),
    ("where-reshaped", "m = Where(yes, f0, f1)  y = Reshape(m, v1)", "a scalar"),
    ("expand-where", "x4 = Expand(k4, wide4)  y = Where(x4, s4, f0)", "branch 'yes' has a shape of its own"),
    ("expand-where", "x4 = Expand(k1, wide1)  y = Where(x4, one4, f0)", "branch 'yes' has a shape of its own"),
    ("expand-number", "g = Expand(r, back)  y = Add(g, last_row)", "the other operand has a shape of its own"),
    ("expand-number", "g = Expand(r, back)  y = Sub(one4, g)", "the other operand has a shape of its own"),
    ("expand-number", "g = Expand(e, back)  y = Sub(g, f1)", "a scalar"),
    (
        "expand-both",
        "g = Expand(k4, wide4)  h = Expand(one4, wide4)  y = Where(g, e4, h)",
        "the other branch has a shape of its own",
    ),
    (
        "expand-both",
        "g = Expand(k4, four)  h = Expand(one4, thrice)  y = Where(g, h, f1)",
        "they are expanded to different shapes",
    ),
    (
        "expand-both",
        "g = Expand(yes, wide1)  h = Expand(one4, wide4)  y = Where(g, f1, h)",
        "they are expanded to different shapes",
    ),
    (
        "expand-both",
        "g = Expand(k4, open_rank)  h = Expand(one4, open_rank)  y = Where(g, f1, h)",
        "they are expanded to different shapes",
    ),
    ("expand-add", "g = Expand(e, back)  y = Add(f1, g)", "the expansion decides the shape"),
    ("expand-add", "g = Expand(one4, four)  y = Add(x, g)", "the expansion decides the shape"),
    ("expand-add", "g = Expand(r, wide)  y = Add(x, g)", "the expansion decides the shape"),
    ("expand-scaled", "g = Expand(e, back)  y = Mul(g, e)", "c is not a constant scalar"),
    ("mask-finite", "m = Where(kept, f1, inf)  a = Add(s4, m)  y = Softmax(a)", "zero is 1.0, wanted 0.0"),
    ("mask-finite", "m = Where(kept, f0, low)  a = Add(s4, m)  y = Softmax(a)", "the fill value is finite"),
    ("mask-where", "m = Where(kept, s4, f5)  y = Softmax(m)", "the fill value is -5.0, wanted at most -10000"),
    ("mask-where", "m = Where(kept, e, low)  y = Softmax(m)", "the mask widens the scores"),
    ("softmax-shift", "a = Add(s4, minus_inf)  y = Softmax(a)", "the number is not finite"),
    ("softmax-shift", "a = Add(x3, two4)  y = Softmax(a)", "the number has more dimensions"),
    ("weights-cleared", CLEARED.replace("Where(kept, f0, low)", "Where(kept, f1, low)"), "none is 1.0, wanted 0.0"),
    ("weights-cleared", CLEARED.replace("Where(kept, p, f0)", "Where(kept, p, f1)"), "zero is 1.0, wanted 0.0"),
    ("weights-cleared", CLEARED.replace("f0, low)", "f0, f5)"), "the fill value is -5.0, wanted at most -10000"),
    ("weights-cleared", CLEARED.replace("Softmax<axis = -1>", "Softmax<axis = 2>"), "the softmax is not over the keys"),
    ("weights-cleared", CLEARED.replace("Add(s4, m)", "Add(e, m)"), "the mask widens the scores"),
    ("nan-repair", "p = Softmax(s4)  n = IsNaN(p)  y = Where(n, f1, p)", "zero is 1.0, wanted 0.0"),
    ("nan-repair", "p = Softmax(s4)  n = IsNaN(p)  y = Where(n, f0, p)", "the mask may be -inf"),
    (
        "nan-repair",
        "m = MatMul(x, w)  a = Add(m, minus_inf)  p = Softmax(a)  n = IsNaN(p)  y = Where(n, f0, p)",
        "the mask may be -inf",
    ),
    (
        "nan-repair",
        "m = MatMul(x, w)  g = Log(f0)  a = Add(m, g)  p = Softmax(a)  n = IsNaN(p)  y = Where(n, f0, p)",
        "the mask may be -inf",
    ),
    ("row-repair", ROWS.replace("Less(sum, f1)", "Less(sum, f2)"), "one is 2.0, wanted 1.0"),
    ("row-repair", ROWS.replace("Where(none, f0, p)", "Where(none, f1, p)"), "zero is 1.0, wanted 0.0"),
    ("row-repair", ROWS.replace("Mul(cn, low)", "Mul(cn, f5)"), "the fill value is -5.0, wanted at most -10000"),
    ("row-repair", ROWS.replace("ReduceSum(wide_count, last)", "ReduceSum(wide_count, v2)"), "the sum is not over the keys"),
    ("row-repair", ROWS.replace("Softmax<axis = -1>", "Softmax<axis = 2>"), "the softmax is not over the keys"),
    ("row-repair", ROWS.replace("k4", "k1"), "the mask has other dimensions than the scores"),
    # index arithmetic
    ("gather-coordinates", "y = GatherND(ids, pairs)", "the indices are not plain coordinates"),
    (
        "gather-coordinates",
        RANGES + "m = Add(b3, s3)  at = Concat<axis = -1>(m, s3)  y = GatherND(ids, at)",
        "a coordinate mixes axes",
    ),
    (
        "gather-coordinates",
        RANGES + "d = Mul(s3, two)  at = Concat<axis = -1>(b3, d)  y = GatherND(ids, at)",
        "a coordinate mixes axes",
    ),
    ("gather-coordinates", RANGES + "at = Concat<axis = -1>(s3, b3)  y = GatherND(ids, at)", "the axes are permuted or repeated"),
    ("gather-coordinates", RANGES + "at = Concat<axis = -1>(s3, s3)  y = GatherND(ids, at)", "the axes are permuted or repeated"),
    (
        "gather-coordinates",
        RANGES + "b4 = Unsqueeze(b3, v2)  s4r = Unsqueeze(s3, v2)  b5 = Expand(b4, thrice)  s5 = Expand(s4r, thrice)  "
        "at = Concat<axis = -1>(b5, s5)  y = GatherND(ids, at)",
        "an index is repeated",
    ),
    (
        "gather-row-major",
        RANGES + "f = Flatten<axis = 2>(x)  k = Mul(s2, nb)  at = Add(k, b2)  y = Gather(f, at)",
        "the indices are not in row-major order",
    ),
    (
        "gather-row-major",
        RANGES + "f = Flatten<axis = 2>(longer)  k = Mul(b2, ns)  at = Add(k, s2)  y = Gather(f, at)",
        "the indices do not cover the source",
    ),
    ("gather-row-major", "f = Flatten<axis = 3>(x)  y = Gather(f, ids)", "the indices are not arithmetic of ranges"),
    ("gather-coordinates", "y = GatherND(o12, swapped)", "the indices are not every element in order"),
    ("gather-coordinates", "y = GatherND(ids, swapped)", "a size is B, wanted a number"),
    ("gather-row-major", "f = Flatten<axis = 2>(o123)  y = Gather(f, back_first)", "the indices are not every element in order"),
    ("gather-row-major", "f = Flatten<axis = 2>(x)  y = Gather(f, back_first)", "a size is"),
    ("gather-wrapped", WRAPPED.replace("Less(c, f0)", "Less(c, f1)"), "zero is 1.0, wanted 0.0"),
    ("gather-wrapped", WRAPPED.replace("Cast<to = 1>", "Cast<to = 6>").replace("f0", "zero32"), "the comparison is not in float"),
    (
        "gather-wrapped",
        WRAPPED.replace("Add(ids, twelve)", "Add(ids, three)"),
        "the indices are wrapped by another number than 12",
    ),
    ("gather-cast", "c = Cast<to = 7>(e)  y = Gather(x, c)", "the indices change their kind"),
    ("slice-gather", "c = Slice(sizes, v0, v1, v0)  y = Squeeze(c, v0)", "shape arithmetic"),
    ("slice-gather", "c = Slice(x, v0, v1, v1)  y = Squeeze(c, open1)", "squeezed is not a constant"),
    ("slice-gather", "c = Slice(x, v1, v0, v1, last)  y = Squeeze(c, v1)", "it steps or reverses"),
    ("slice-gather", "c = Slice(x, both0, both1, two_ids)  y = Squeeze(c, v1)", "2 dimensions are cut, wanted one"),
    ("slice-gather", "c = Slice(x, back_first, open_one, two_ids)  y = Squeeze(c, v1)", "2 dimensions are cut, wanted one"),
    ("slice-gather", "c = Slice(x, both0, long_one, two_ids)  y = Squeeze(c, v1)", "2 dimensions are cut, wanted one"),
    ("slice-gather", "c = Slice(x, last, v0, v1)  y = Squeeze(c, v1)", "-1 to 0 is not one from the front"),
    ("slice-gather", "c = Slice(x, last, v6, v1)  y = Squeeze(c, v1)", "-1 to 6 is not one from the front"),
    ("slice-gather", "c = Slice(x, v1, v3, v1)  y = Squeeze(c, v1)", "1 to 3 is not one from the front"),
    ("slice-gather", "c = Slice(x, minus2, last, v1)  y = Squeeze(c, v1)", "-2 to -1 is not one from the front"),
    ("slice-gather", "c = Slice(x, back_first, far, two_ids)  y = Squeeze(c, v1)", "2 dimensions are cut, wanted one"),
    ("slice-gather", "c = Slice(x, both0, long, two_ids)  y = Squeeze(c, v1)", "2 dimensions are cut, wanted one"),
    ("slice-gather", "c = Slice(x1, v0, v1, v0)  y = Squeeze(c, v1)", "another dimension is squeezed"),
    ("tile-expand", "y = Tile(tile4, wide4)", "the repeats are not known"),
    ("tile-expand", "y = Tile(x3, turned3)", "3 is repeated 2 times"),
    ("tile-expand", "y = Tile(tile4, none4)", "nothing is left"),
    (
        "tile-expand",
        "s = Shape(ids)  n0 = Slice(s, v0, v1)  n1 = Slice(s, v1, v2)  d = Sub(n0, n1)  n4 = Concat<axis = 0>(v1, v1, v1, d)  y = Tile(tile4, n4)",
        "nothing is left",
    ),
    (
        "tile-expand",
        "sx = Shape(x)  n = Slice(sx, v1, v2)  d = Sub(n, v3)  k = Concat<axis = 0>(d, v1, v1, v1)  y = Tile(tile4, k)",
        "nothing is left",
    ),
    # scale
    ("division-to-multiplication", "y = Div(x, f0)", "division by zero"),
    ("division-to-multiplication", "y = Div(f3, f2)", "a constant expression"),
    ("factors-merge", "a = Mul(f3, f2)  y = Mul(a, f2)", "a constant expression"),
    ("scale-left", "a = Mul(w, f2)  y = MatMul(a, w6)", "a is a weight"),
    ("scale-left", "a = Mul(ids2, f2)  y = MatMul(a, ids2)", "is not batched"),
    ("scale-transpose", "a = Mul(x, f2)  y = Transpose<perm = [1, 0, 2]>(a)", "batch and sequence are swapped"),
    ("scale-reshape", "a = Mul(s34, f2)  y = Reshape(a, flat3)", "heads are merged into the batch"),
    ("scale-reshape", "a = Mul(e, f2)  y = Reshape(a, v1)", "a scalar"),
    # shapes
    ("reshape-constant", "y = Reshape(x, heads)", "the target is already constant"),
    ("transpose-nested", "t = Transpose(x)  y = Transpose<perm = [0, 2, 1]>(t)", "a Transpose without perm"),
    ("transpose-nested", "t = Transpose<perm = [0, 2, 1]>(x)  y = Transpose(t)", "a Transpose without perm"),
    (
        "transpose-batched",
        "f = Reshape(x, flat3)  t = Transpose<perm = [0, 2, 1]>(f)  y = Reshape(t, back)",
        "the first Reshape does not keep the last two dimensions",
    ),
    (
        "transpose-batched",
        "f = Reshape(s34, flat3)  t = Transpose<perm = [0, 2, 1]>(f)  y = Reshape(t, flat3)",
        "the last Reshape does not restore the batch",
    ),
    ("channels-last", "t = Transpose<perm = [0, 3, 2, 1]>(s34)  y = Reshape(t, cube)", "the channels do not move last"),
    (
        "channels-last",
        "t = Transpose<perm = [0, 2, 3, 1]>(s34)  y = Reshape(t, cube)",
        "the Reshape does not keep batch and channels",
    ),
    ("unsqueeze-reshape", "y = Unsqueeze(x0, v0)", "has more than one size to infer, or one of 0"),
    ("unsqueeze-reshape", "y = Unsqueeze(e, v0)", "a scalar: shape arithmetic"),
    ("reshape-noop", "y = Reshape(x, heads)", "it changes the shape"),
    ("transpose-noop", "y = Transpose<perm = [0, 2, 1]>(x)", "it permutes"),
    ("cast-noop", "y = Cast<to = 10>(x)", "it changes the type"),
    ("slice-noop", "y = Slice(x, v0, v2, v2)", "it changes the shape"),
    ("slice-noop", "y = Slice(x, v0, v6, v1, open1)", "it steps or reverses"),
    ("slice-noop", "y = Slice(x, last, v0, v1, last)", "it steps or reverses"),
    ("add-zero", "y = Add(x, f1)", "it is not known to be zero"),
    ("add-zero", "y = Add(x, zero4)", "it changes the shape"),
    ("mul-one", "y = Mul(x, f2)", "one is 2.0, wanted 1.0"),
    ("mul-one", "y = Mul(x, one4)", "it changes the shape"),
]

MORE = (
    ", float[12,6] e2, float[6,12] w6, float[6] b6, float[B,3,6] x1, bool[B,S,12] k3, float[B,2,3,4] s34, "
    "float[12,12] ids2, float[B,9,T] z3, float[C,D,12] longer, int64[4] wide4, int64[B,S,2] pairs, int64[2] wide1, int64[1,2] o12, float[1,2,3] o123, "
    "float[4,6] w4, float[B,2,4,3] t34, float[3,4] open_bias, float[4] e4, float[3,4] e34, float[1,1,1,1] tile4, int64[3] sizes, int64[1] open1, float[B,12] x2, float[1,12,6] c126, bool yes, int64[R] open_rank, bool[2] two_yes, int64[2] sizes2, float[12] last_row, float[0,S,12] x0"
)


HOLES = [
    ("m = Where(kept, inf, f1)  a = Add(s4, m)  y = Softmax(a)", "zero is 1.0, wanted 0.0"),
    ("m = Where(kept, low, f0)  a = Add(s4, m)  y = Softmax(a)", "the fill value is finite"),
]


@pytest.mark.parametrize(
    ("name", "body", "reason", "before"),
    [*((*case, None) for case in CASES), *(("mask-finite", *case, softmax.infinite_hole) for case in HOLES)],
)
def test_a_guard_line_refuses(name, body, reason, before):
    model = fill(
        parse(f"g ({INPUTS}{MORE}) => (float[P] y) {CONSTANTS} {{ {body} }}"),
        w=(12, 6),
        w6=(6, 12),
        b=(6,),
        w4=(4, 6),
        c126=(1, 12, 6),
        e4=(4,),
        e34=(3, 4),
    )
    rules = [rule for rule in RULES if rule.name == name and before in (None, rule.before)]
    trace = Trace()
    analysis = analysis_of(model)
    assert rules
    assert not rewrite(model, rules, analysis, trace)
    assert reason in trace.misses[name]["seen"]


def test_a_flat_product_that_the_caller_wants_stays():
    model = fill(
        parse(f"g ({INPUTS}) => (float[P] y, float[Q,6] m) {CONSTANTS} {{ {LEAD} m = MatMul(f, w)  y = Reshape(m, lead) }}"),
        w=(12, 6),
        b=(6,),
    )
    trace = Trace()
    assert not rewrite(model, [rule for rule in RULES if rule.name == "flat-linear"], analysis_of(model), trace)
    assert trace.misses["flat-linear"]["seen"] == "the flat product is read elsewhere"
