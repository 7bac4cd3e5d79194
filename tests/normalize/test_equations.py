"""Rules of the normal form that exports need rarely: each fires where its equation holds, and the outputs stay."""

import numpy as np
import pytest

from onnxfuse.optimizer import NORMAL_RULES
from onnxfuse.rewrite import Trace, rewrite
from tests.conftest import analysis_of, assert_same, parse

CONSTANTS = """<int64[1] last = {-1}, int64[4] four = {1, 1, 1, 1}, float zero = {0.0}, float one = {1.0}, float half = {0.5},
    float low = {-10000.0}, bool[1,1,1,1] yes = {1}>"""
INPUTS = "float[B,N,S,T] s, bool[B,1,1,T] k, bool[B,N,S,T] kept, float[B,S,4] x, bool[B,S,4] c"
ROWS = (
    "f = Cast<to = 1>(k)  w = Expand(f, four)  sum = ReduceSum(w, last)  none = Less(sum, one)  n = Not(k)  g = Cast<to = 1>(n)  "
    "m = Mul(g, low)  a = Add(s, m)  p = Softmax<axis = -1>(a)  y = Where(none, zero, p)"
)


@pytest.mark.parametrize(
    ("rule", "body", "kind"),
    [
        ("where-false", "n = Not(yes)  y = Where(n, zero, s)", "float"),
        (
            "where-transposed",
            "u = Transpose<perm = [1, 0, 2]>(c)  v = Transpose<perm = [1, 0, 2]>(x)  y = Where(u, zero, v)",
            "float",
        ),
        ("expand-not", "l = Shape(s)  e = Expand(k, l)  y = Not(e)", "bool"),
        ("expand-scaled", "l = Shape(s)  f = Cast<to = 1>(k)  e = Expand(f, l)  y = Mul(e, half)", "float"),
        ("expand-and", "l = Shape(s)  e = Expand(k, l)  y = And(kept, e)", "bool"),
        ("row-repair", ROWS, "float"),
    ],
)
def test_it_fires_and_computes_the_same(rule, body, kind):
    text = f"g ({INPUTS}) => ({kind}[P] y) {CONSTANTS} {{ {body} }}"
    before, after, trace = parse(text), parse(text), Trace()
    rewrite(after, [each for each in NORMAL_RULES if each.name == rule], analysis_of(after), trace)
    assert [each.rule for each in trace.applications] == [rule]
    some = np.array([True, True, False, True, False]).reshape(1, 1, 1, 5)  # a row without any key has no right answer
    assert_same(before, after, {"B": 1, "N": 2, "S": 3, "T": 5}, k=some)
