"""LayerNormalization from its parts."""

import onnx_ir as ir
import pytest

from onnxfuse.fusions import layer_norm
from onnxfuse.optimizer import count
from tests.conftest import analysis_of, apply, assert_same, fill, ops, parse, retype

HEAD = (
    "g (float[B,S,8] x, float[8] w, float[8] b) => (float[B,S,8] y) <int64[1] axes = {-1}, int64[1] other = {1}, "
    "float two = {2.0}, float three = {3.0}, float eps = {0.00001}, float bad = {-0.1}, float none = {0.0}> {"
)
POW = (
    "m = ReduceMean(x, axes)  d = Sub(x, m)  p = Pow(d, two)  v = ReduceMean(p, axes)  e = Add(v, eps)  s = Sqrt(e)  "
    "n = Div(d, s)  g = Mul(n, w)  y = Add(g, b)"
)
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


TENSORFLOW = (
    "m = ReduceMean(x, axes)  d = Sub(x, m)  p = Mul(d, d)  v = ReduceMean(p, axes)  e = Add(v, eps)  s = Sqrt(e)  "
    "r = Reciprocal(s)  f = Mul(r, w)  a = Mul(x, f)  "
)


@pytest.mark.parametrize(
    "body",
    [
        TENSORFLOW + "c = Mul(m, f)  k = Sub(b, c)  y = Add(a, k)",
        (TENSORFLOW + "c = Mul(m, f)  k = Sub(b, c)  y = Add(a, k)").replace("(x, axes)", "<noop_with_empty_axes = 1>(x, axes)"),
        TENSORFLOW + "n = Neg(m)  c = Mul(n, f)  k = Add(c, b)  y = Add(a, k)",
        TENSORFLOW + "c = Mul(m, f)  k = Neg(c)  y = Add(a, k)",
    ],
)
@pytest.mark.parametrize("shape", ["8", "1,1,8"])
def test_every_spelling_of_tensorflow_becomes_one_node(body, shape):
    wide = tuple(map(int, shape.split(",")))
    before, after = (
        fill(parse(f"{HEAD} {body} }}".replace("[8] w", f"[{shape}] w").replace("[8] b", f"[{shape}] b")), w=wide, b=wide)
        for _ in range(2)
    )
    apply(layer_norm.RULES, after)
    assert "LayerNormalization" in ops(after) and set(ops(after)) <= {"LayerNormalization", "Reshape"}
    (norm,) = (node for node in after.graph if node.op_type == "LayerNormalization")
    assert [analysis_of(after)[value].rank for value in norm.inputs[1:]] == [1, 1]  # as ONNX wants them, and the next rule
    assert_same(before, after, {"B": 2, "S": 3})


PARTS = POW.partition("n = ")[0]
NO_BIAS = PARTS + "n = Div(d, s)  y = Mul(n, w)"
NO_GAIN = PARTS + "n = Div(d, s)  y = Add(n, b)"
BARE = PARTS + "y = Div(d, s)"


@pytest.mark.parametrize(
    "body",
    [
        NO_BIAS,
        NO_GAIN,
        BARE,
        PARTS + "r = Reciprocal(s)  n = Mul(d, r)  y = Mul(w, n)",
        PARTS + "n = Div(w, s)  y = Mul(d, n)",
    ],
)
def test_a_norm_without_gain_or_bias_becomes_one_node(body):
    before, after = build(body), build(body)
    apply(layer_norm.RULES, after)
    assert ops(after) == ["LayerNormalization"]
    assert_same(before, after, {"B": 2, "S": 3})


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (POW.replace("Add(g, b)", "Add(g, r)"), ["Add", "LayerNormalization"]),
        (POW.replace("Mul(n, w)", "Mul(n, r)"), ["Add", "LayerNormalization", "Mul"]),
        (POW + "  z = Relu(g)", ["Add", "LayerNormalization", "Relu"]),
        (POW + "  z = Relu(n)", ["Add", "LayerNormalization", "Mul", "Relu"]),
        (POW.replace("y = Add(g, b)", "y = Sub(g, b)"), ["LayerNormalization", "Sub"]),
        (POW.replace("y = Add(g, b)", "y = Add(g, g)"), ["Add", "LayerNormalization"]),
    ],
)
def test_what_is_no_gain_or_bias_stays_behind_the_norm(body, left):
    """A residual of the norm's own shape, or a value that another node reads."""
    text = f"{HEAD} {body} }}".replace("(float[B,S,8] x,", "(float[B,S,8] x, float[B,S,8] r,")
    if " z = " in body:
        text = text.replace("(float[B,S,8] y)", "(float[B,S,8] y, float[B,S,8] z)")
    before, after = (fill(parse(text), w=(8,), b=(8,)) for _ in range(2))
    apply(layer_norm.RULES, after)
    assert ops(after) == left
    assert_same(before, after, {"B": 2, "S": 3})


def test_a_norm_that_is_an_output_too_keeps_its_bias_apart():
    text = f"{HEAD} {POW} }}".replace("(float[B,S,8] y)", "(float[B,S,8] y, float[B,S,8] g)")
    before, after = (fill(parse(text), w=(8,), b=(8,)) for _ in range(2))
    apply(layer_norm.RULES, after)
    assert ops(after) == ["Add", "LayerNormalization"]
    assert_same(before, after, {"B": 2, "S": 3})


@pytest.mark.parametrize(
    "body",
    [
        "p = Mul(x, x)  v = ReduceMean(p, axes)  e = Add(v, eps)  s = Sqrt(e)  n = Div(x, s)  y = Mul(n, w)",
        "p = Pow(x, two)  v = ReduceMean(p, axes)  e = Add(v, eps)  s = Sqrt(e)  r = Reciprocal(s)  n = Mul(x, r)  g = Mul(w, n)  y = Add(g, b)",
    ],
)
def test_a_root_mean_square_norm_is_no_layer_norm(body):
    model = build(body)
    apply(layer_norm.RULES, model)
    assert "LayerNormalization" not in ops(model)


LISTED = POW.replace("(x, axes)", "<axes = [-1]>(x)").replace("(p, axes)", "<axes = [2]>(p)")


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("body", [LISTED, LISTED.replace("g = Mul(n, w)  y = Add(g, b)", "y = Mul(n, w)")])
def test_axes_as_an_attribute_are_read(body, opset):
    """As every opset below 18 has them."""
    before, after = (fill(parse(f"{HEAD} {body} }}", opset=opset), w=(8,), b=(8,)) for _ in range(2))
    after.opset_imports[""] = max(opset, 17)  # LayerNormalization needs it; the other operators are the same there
    apply(layer_norm.RULES, after)
    assert ops(after) == ["LayerNormalization"]
    assert_same(before, after, {"B": 2, "S": 3})


@pytest.mark.parametrize(
    ("old", "new"),
    [("<axes = [-1]>(x)", "<axes = [1]>(x)"), ("<axes = [2]>(p)", "<axes = [1, 2]>(p)"), ("<axes = [2]>(p)", "(p)")],
)
def test_other_axes_in_an_attribute_are_refused(old, new):
    model = fill(parse(f"{HEAD} {LISTED.replace(old, new)} }}", opset=17), w=(8,), b=(8,))
    trace = apply(layer_norm.RULES, model)
    assert "LayerNormalization" not in ops(model)
    assert "wanted the last dimension" in trace.misses["layer-norm"]["seen"]


@pytest.mark.parametrize(("dtype", "tolerance"), [(ir.DataType.FLOAT16, 4e-3), (ir.DataType.DOUBLE, 1e-5)])
@pytest.mark.parametrize("body", [POW, NO_BIAS, NO_GAIN, BARE])
def test_a_norm_of_another_type_keeps_it(body, dtype, tolerance):
    """Also where gain and bias are made anew."""
    before, after = (retype(build(body), dtype) for _ in range(2))
    apply(layer_norm.RULES, after)
    assert ops(after) == ["LayerNormalization"]
    assert_same(before, after, {"B": 2, "S": 3}, tolerance=tolerance)


def test_an_operator_of_that_name_from_another_domain_brings_no_bias():
    model = build(PARTS + "n = Div(d, s)  g = Mul(n, w)  y = other.Add(g, b)")
    apply(layer_norm.RULES, model)
    assert ops(model) == ["Add", "LayerNormalization"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (POW.replace("ReduceMean(x, axes)", "ReduceMean(x, other)"), "the axes are [1], wanted the last dimension"),
        (POW.replace("ReduceMean(p, axes)", "ReduceMean(p, other)"), "the axes are [1], wanted the last dimension"),
        (POW.replace("two", "three"), "saw Mul, wanted Sub"),
        (POW.replace("eps", "bad"), "epsilon is -0.1"),
        (POW.replace("Add(v, eps)", "Add(v, x)"), "epsilon is not a constant scalar"),
        (POW.replace("Add(v, eps)", "Add(v, v)"), "v is also an operand"),
        (POW.replace("Sub(x, m)", "Sub(m, x)"), "another value"),
    ],
)
def test_a_look_alike_is_refused(body, reason):
    model = build(body)
    trace = apply(layer_norm.RULES, model)
    assert "LayerNormalization" not in ops(model)
    assert reason in "saw {seen}, wanted {wanted}".format(**trace.misses["layer-norm"])


def test_an_epsilon_of_zero_is_refused():
    """Where nothing has dropped the sum with it before."""
    model = build(SQUARE.replace("eps", "none"))
    trace = apply(layer_norm.RULES, model, normal=())
    assert "LayerNormalization" not in ops(model)
    assert "epsilon is 0.0, wanted above zero" in trace.misses["layer-norm"]["seen"]


@pytest.mark.parametrize("shape", ["1", "1,1,1,8", "N"])
def test_a_gain_that_is_no_vector_of_the_width_stays_behind_the_norm(shape):
    """One number for all, more axes than the norm has, or an unknown number of them."""
    text = f"{HEAD} {POW} }}".replace("float[8] w", f"float[{shape}] w" if shape != "N" else "float[N] given, int64[M] sizes")
    if shape == "N":
        text = text.replace(" m = Reduce", " w = Reshape(given, sizes)  m = Reduce", 1).replace(
            "{ m =", "{ w = Reshape(given, sizes)  m ="
        )
    text = text.replace("(float[B,S,8] y)", "(float[A,B,S,8] y)") if shape == "1,1,1,8" else text
    sizes = {} if shape == "N" else {"w": tuple(map(int, shape.split(",")))}
    model = fill(parse(text), b=(8,), **sizes)
    apply(layer_norm.RULES, model)
    assert [name for name in ops(model) if name != "Reshape"] == ["Add", "LayerNormalization", "Mul"]


def test_a_gain_of_another_shape_stays_behind_the_norm():
    text = (
        f"{HEAD} {POW} }}".replace("float[8] w", "float[1,2,8] w")
        .replace("[B,S,8] x", "[B,2,8] x")
        .replace("[B,S,8] y", "[B,2,8] y")
    )
    before, after = (fill(parse(text), w=(1, 2, 8), b=(8,)) for _ in range(2))
    apply(layer_norm.RULES, after)
    assert ops(after) == ["Add", "LayerNormalization", "Mul"]
    assert_same(before, after, {"B": 2})


@pytest.mark.parametrize(
    ("vector", "body"),
    [
        ("w", PARTS + "n = Div(w, s)  y = Mul(d, n)"),
        ("w", PARTS + "n = Div(w, s)  g = Mul(d, n)  y = Add(g, b)"),
        ("b", TENSORFLOW + "c = Mul(m, f)  k = Sub(b, c)  y = Add(a, k)"),
    ],
)
def test_a_vector_of_another_shape_inside_is_refused(vector, body):
    text = f"{HEAD} {body} }}".replace(f"float[8] {vector}", f"float[1,2,8] {vector}").replace("[B,S,8]", "[B,2,8]")
    model = fill(parse(text), **{"w": (8,), "b": (8,)} | {vector: (1, 2, 8)})
    trace = apply(layer_norm.RULES, model)
    assert "LayerNormalization" not in ops(model)
    assert trace.misses["layer-norm"]["seen"] == f"{'gain' if vector == 'w' else 'bias'} is not [8]"


def test_keepdims_zero_is_refused():
    model = build(POW.replace("ReduceMean(p, axes)", "ReduceMean<keepdims = 0>(p, axes)").replace("[B,S,8] y", "[A,B,8] y"))
    trace = apply(layer_norm.RULES, model)
    assert "LayerNormalization" not in ops(model)
    assert trace.misses["layer-norm"]["wanted"] == "keepdims=1"


@pytest.mark.parametrize(
    ("written", "unfused"),
    [("", 1), ("<keepdims = 1>", 1), ("<keepdims = 0>", 0)],
)
def test_a_mean_that_drops_its_axis_is_pooling_and_no_norm_that_was_missed(written, unfused):
    model = parse(f"g (float[B,S,8] x) => (float y) <int64[1] axes = {{1}}> {{ y = ReduceMean {written} (x, axes) }}")
    assert count(model)["unfused"] == unfused
