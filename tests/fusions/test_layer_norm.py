"""LayerNormalization from its parts."""

import pytest

from onnxfuse.fusions import layer_norm
from tests.conftest import apply, assert_same, fill, ops, parse

HEAD = "g (float[B,S,8] x, float[8] w, float[8] b) => (float[B,S,8] y) <int64[1] axes = {-1}, int64[1] other = {1}, " \
       "float two = {2.0}, float three = {3.0}, float eps = {0.00001}, float bad = {-0.1}> {"
POW = "m = ReduceMean(x, axes)  d = Sub(x, m)  p = Pow(d, two)  v = ReduceMean(p, axes)  e = Add(v, eps)  s = Sqrt(e)  " \
      "n = Div(d, s)  g = Mul(n, w)  y = Add(g, b)"
SQUARE = POW.replace("Pow(d, two)", "Mul(d, d)")
RECIPROCAL = SQUARE.replace("n = Div(d, s)", "r = Reciprocal(s)  n = Mul(d, r)")


def build(body: str):
    return fill(parse(f"{HEAD} {body} }}"), w=(8,), b=(8,))


@pytest.mark.parametrize("body", [POW, SQUARE, RECIPROCAL, POW.replace("Mul(n, w)", "Mul(w, n)")])
def test_every_spelling_becomes_one_node(body):
    before, after = build(body), build(body)
    apply(layer_norm.RULES, after)
    assert ops(after) == ["LayerNormalization"]
    assert_same(before, after, {"B": 2, "S": 3})


TENSORFLOW = "m = ReduceMean(x, axes)  d = Sub(x, m)  p = Mul(d, d)  v = ReduceMean(p, axes)  e = Add(v, eps)  s = Sqrt(e)  " \
             "r = Reciprocal(s)  f = Mul(r, w)  a = Mul(x, f)  "


@pytest.mark.parametrize("body", [
    TENSORFLOW + "c = Mul(m, f)  k = Sub(b, c)  y = Add(a, k)",
    (TENSORFLOW + "c = Mul(m, f)  k = Sub(b, c)  y = Add(a, k)").replace("(x, axes)", "<noop_with_empty_axes = 1>(x, axes)"),
    TENSORFLOW + "n = Neg(m)  c = Mul(n, f)  k = Add(c, b)  y = Add(a, k)",
    TENSORFLOW + "c = Mul(m, f)  k = Neg(c)  y = Add(a, k)",
])
@pytest.mark.parametrize("shape", ["8", "1,1,8"])
def test_every_spelling_of_tensorflow_becomes_one_node(body, shape):
    wide = tuple(map(int, shape.split(",")))
    before, after = (fill(parse(f"{HEAD} {body} }}".replace("[8] w", f"[{shape}] w").replace("[8] b", f"[{shape}] b")), w=wide, b=wide)
                     for _ in range(2))
    apply(layer_norm.RULES, after)
    assert "LayerNormalization" in ops(after) and set(ops(after)) <= {"LayerNormalization", "Reshape"}
    assert_same(before, after, {"B": 2, "S": 3})


@pytest.mark.parametrize(("body", "reason"), [
    (POW.replace("ReduceMean(x, axes)", "ReduceMean(x, other)"), "axes is not the last dimension"),
    (POW.replace("ReduceMean(p, axes)", "ReduceMean(p, other)"), "axes2 is not the last dimension"),
    (POW.replace("two", "three"), "saw Mul, wanted Sub"),
    (POW.replace("eps", "bad"), "epsilon is -0.1"),
    (POW.replace("Add(v, eps)", "Add(v, v)"), "epsilon is not a constant scalar"),
    (POW.replace("Sub(x, m)", "Sub(m, x)"), "another value"),
])
def test_a_look_alike_is_refused(body, reason):
    model = build(body)
    trace = apply(layer_norm.RULES, model)
    assert "LayerNormalization" not in ops(model)
    assert reason in "saw {seen}, wanted {wanted}".format(**trace.misses["layer-norm"])


def test_a_gain_of_another_shape_is_refused():
    model = fill(parse(f"{HEAD} {POW} }}".replace("float[8] w", "float[1,2,8] w").replace("[B,S,8] x", "[B,2,8] x")), w=(1, 2, 8), b=(8,))
    trace = apply(layer_norm.RULES, model)
    assert "LayerNormalization" not in ops(model)
    assert trace.misses["layer-norm"]["seen"] == "gain is not [8]"


def test_keepdims_zero_is_refused():
    model = build(POW.replace("ReduceMean(p, axes)", "ReduceMean<keepdims = 0>(p, axes)").replace("[B,S,8] y", "[A,B,8] y"))
    trace = apply(layer_norm.RULES, model)
    assert "LayerNormalization" not in ops(model)
    assert trace.misses["layer-norm"]["wanted"] == "keepdims=1"
