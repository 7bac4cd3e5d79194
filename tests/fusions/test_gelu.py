"""Gelu: every spelling fuses, every guard line refuses."""

import onnx_ir as ir
import pytest

from onnxfuse.fusions import gelu
from tests.conftest import apply, assert_same, ops, parse, retype

HEAD = (
    "g (float[B,8] x, float[B,8] other) => (float[B,8] y) <float r = {0.70710678}, float d = {1.41421356}, float one = {1.0}, "
    "float half = {0.5}, float three = {3.0}, float c = {0.044715}, float k = {0.79788456}, float off = {0.7072}, "
    "float wrong = {0.51}, float two = {2.0}, float minus = {-0.70710678}, "
    "float minus_off = {-0.7072}> {"
)
ERF = "u = Div(x, d)  e = Erf(u)  s = Add(e, one)"
TANH = "p = Pow(x, three)  q = Mul(c, p)  b = Add(x, q)  u = Mul(k, b)  e = Tanh(u)  s = Add(one, e)"


@pytest.mark.parametrize(
    "body",
    [
        f"{ERF}  m = Mul(x, s)  y = Mul(m, half)",
        f"{ERF}  m = Mul(half, x)  y = Mul(m, s)",
        f"{ERF}  m = Mul(s, half)  y = Mul(x, m)",
        "u = Mul(r, x)  e = Erf(u)  s = Add(one, e)  m = Mul(s, x)  y = Mul(half, m)",
        "u = Mul(r, x)  e = Erf(u)  i = Identity(e)  s = Add(one, i)  m = Mul(s, x)  y = Mul(half, m)",
    ],
)
def test_erf_spellings_become_one_gelu(body):
    before, after = parse(f"{HEAD} {body} }}"), parse(f"{HEAD} {body} }}")
    apply(gelu.RULES, after)
    assert ops(after) == ["Gelu"]
    assert_same(before, after, {"B": 5})


@pytest.mark.parametrize(
    "body",
    [
        f"{TANH}  m = Mul(x, s)  y = Mul(m, half)",
        f"{TANH}  m = Mul(x, half)  y = Mul(m, s)",
        f"{TANH}  m = Mul(s, half)  y = Mul(m, x)",
    ],
)
def test_tanh_spellings_become_one_gelu(body):
    before, after = parse(f"{HEAD} {body} }}"), parse(f"{HEAD} {body} }}")
    apply(gelu.RULES, after)
    assert [(n.op_type, n.attributes["approximate"].value) for n in after.graph] == [("Gelu", "tanh")]
    assert_same(before, after, {"B": 5})


CUBES = [
    "p = Mul(x, c)  t = Mul(p, x)  q = Mul(t, x)",
    "p = Mul(x, x)  t = Mul(c, p)  q = Mul(x, t)",
    "p = Mul(c, x)  t = Mul(x, x)  q = Mul(t, p)",
    "p = Mul(x, x)  t = Mul(p, x)  q = Mul(t, c)",
]
SQUARES = ["p = Mul(x, c)  q = Mul(p, x)", "p = Mul(x, x)  q = Mul(c, p)", "p = Pow(x, two)  q = Mul(p, c)"]
PRODUCTS = [
    "f = Add(q, one)  i = Mul(x, k)  u = Mul(i, f)",
    "f = Add(one, q)  i = Mul(f, x)  u = Mul(i, k)",
    "f = Add(q, one)  i = Mul(k, f)  u = Mul(x, i)",
]
ARGUMENTS = [
    *(f"{cube}  b = Add(x, q)  u = Mul(b, k)" for cube in CUBES),
    *(f"{square}  {product}" for square in SQUARES for product in PRODUCTS),
]
LAST = "  h = Mul(x, half)  y = Mul(h, s)"
REST = "  e = Tanh(u)  s = Add(one, e)" + LAST


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_every_spelling_of_the_argument_becomes_one_gelu(argument):
    before, after = (parse(f"{HEAD} {argument}{REST} }}") for _ in range(2))
    apply(gelu.RULES, after)
    assert [(n.op_type, n.attributes["approximate"].value) for n in after.graph] == [("Gelu", "tanh")]
    assert_same(before, after, {"B": 5})


def test_a_power_of_unknown_type_is_a_cube_all_the_same():
    model = parse(
        f"{HEAD} {TANH}{LAST} }}".replace("{ p =", "{ x = other.Operator(given)  p =").replace(
            "float[B,8] x,", "float[B,8] given,"
        )
    )
    apply(gelu.RULES, model)
    assert ops(model) == ["Gelu", "Operator"]


@pytest.mark.parametrize(("old", "new"), [("k)", "off)"), ("c)", "wrong)"), ("one)", "two)"), ("p, x)", "p, other)")])
def test_a_perturbed_argument_is_refused(old, new):
    model = parse(f"{HEAD} {(SQUARES[0] + '  ' + PRODUCTS[0]).replace(old, new)}{REST} }}")
    trace = apply(gelu.RULES, model)
    assert "gelu-tanh" not in {application.rule for application in trace.applications}


@pytest.mark.parametrize("old, new", [("three", "two"), ("c,", "wrong,"), ("k,", "off,")])
def test_another_power_of_unknown_type_is_refused(old, new):
    body = TANH.replace(old, new) + LAST
    model = parse(
        f"{HEAD} {body} }}".replace("{ p =", "{ x = other.Operator(given)  p =").replace("float[B,8] x,", "float[B,8] given,")
    )
    trace = apply(gelu.RULES, model)
    assert "gelu-tanh" not in {application.rule for application in trace.applications}


ROUNDED = [
    ("float", "1.4142135", "0.7978845", True),
    ("float", "1.4142136", "0.79788455", True),
    ("float", "1.414214", "0.797885", False),
    ("double", "1.4142135623730951", "0.7978845608028654", True),
    ("double", "1.4142135", "0.79788456", False),
]


@pytest.mark.parametrize(("kind", "root", "inner", "fuses"), ROUNDED)
def test_constants_are_right_to_one_rounding_step_of_their_type(kind, root, inner, fuses):
    for body in (f"{ERF}  m = Mul(x, s)  y = Mul(m, half)", f"{TANH}  m = Mul(x, s)  y = Mul(m, half)"):
        text = f"{HEAD} {body} }}".replace("d = {1.41421356}", f"d = {{{root}}}").replace("k = {0.79788456}", f"k = {{{inner}}}")
        model = parse(text.replace("float", kind))
        apply(gelu.RULES, model)
        assert ("Gelu" in ops(model)) == fuses


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
@pytest.mark.parametrize(
    "body", [f"{ERF}  m = Mul(x, s)  y = Mul(m, half)", f"{TANH}  m = Mul(x, s)  y = Mul(m, half)", ARGUMENTS[4] + REST]
)
def test_constants_of_half_the_size_are_known(body, dtype):
    before, after = (retype(parse(f"{HEAD} {body} }}"), dtype) for _ in range(2))
    apply(gelu.RULES, after)
    assert ops(after) == ["Gelu"]
    if dtype == ir.DataType.FLOAT16:  # ONNX Runtime has no kernels for the other
        assert_same(before, after, {"B": 5}, tolerance=4e-3)


def wide(body: str, *names: str, shape: str = "1,1,1") -> str:
    """A constant with more dimensions than x has."""
    text = f"{HEAD} {body} }}".replace("(float[B,8] y)", "(float[P] y)")
    for name in names:
        text = text.replace(f"float {name} =", f"float[{shape}] {name} =")
    return text


@pytest.mark.parametrize("name", ["r", "one", "half"])
def test_a_constant_of_more_dimensions_than_x_is_refused(name):
    """The result has them too."""
    body = "u = Mul(r, x)  e = Erf(u)  s = Add(one, e)  m = Mul(s, x)  y = Mul(half, m)"
    model = parse(wide(body, name))
    trace = apply(gelu.RULES, model)
    assert "Gelu" not in ops(model)
    assert trace.misses["gelu"]["seen"].endswith("has more dimensions than x")
    before, after = (parse(wide(body, name, shape="1,1")) for _ in range(2))
    apply(gelu.RULES, after)
    assert ops(after) == ["Gelu"]
    assert_same(before, after, {"B": 5})


@pytest.mark.parametrize("name", ["k", "c", "one", "half"])
def test_a_wide_constant_of_the_argument_is_refused(name):
    model = parse(wide(ARGUMENTS[4] + REST, name))
    apply(gelu.RULES, model)
    assert "Gelu" not in ops(model)


@pytest.mark.parametrize(
    ("rule", "body", "reason"),
    [
        ("gelu", "u = Mul(off, x)  e = Erf(u)  s = Add(one, e)  m = Mul(s, x)  y = Mul(half, m)", "inner is 0.707"),
        ("gelu", "u = Mul(r, x)  e = Erf(u)  s = Add(two, e)  m = Mul(s, x)  y = Mul(half, m)", "one is 2.0"),
        ("gelu", "u = Mul(r, x)  e = Erf(u)  s = Add(one, e)  m = Mul(s, x)  y = Mul(wrong, m)", "half is 0.5"),
        ("gelu", "u = Mul(r, x)  e = Erf(u)  s = Add(one, e)  m = Mul(s, other)  y = Mul(half, m)", "another value"),
        ("gelu", "u = Mul(x, minus_off)  e = Erf(u)  s = Sub(one, e)  m = Mul(s, x)  y = Mul(half, m)", "inner is -0.707"),
        ("gelu", "u = Mul(x, minus)  e = Erf(u)  s = Sub(two, e)  m = Mul(s, x)  y = Mul(half, m)", "one is 2.0"),
        ("gelu-tanh", TANH.replace("k,", "off,") + "  m = Mul(x, s)  y = Mul(m, half)", "inner is 0.707"),
        ("gelu-tanh", TANH.replace("Mul(c,", "Mul(wrong,") + "  m = Mul(x, s)  y = Mul(m, half)", "cubic is 0.5"),
        ("gelu-tanh", TANH.replace("three)", "two)") + "  m = Mul(x, s)  y = Mul(m, half)", "a graph input or initializer"),
        ("gelu-tanh", TANH.replace("one, e", "two, e") + "  m = Mul(x, s)  y = Mul(m, half)", "one is 2.0"),
        ("gelu-tanh", TANH + "  m = Mul(x, s)  y = Mul(m, wrong)", "half is 0.5"),
    ],
)
def test_a_perturbed_gelu_is_refused(rule, body, reason):
    model = parse(f"{HEAD} {body} }}")
    trace = apply(gelu.RULES, model)
    assert "Gelu" not in ops(model)
    assert reason in trace.misses[rule]["seen"]


def test_an_inner_value_read_elsewhere_is_refused():
    text = f"{HEAD} {ERF}  m = Mul(x, s)  y = Mul(m, half) }}".replace("(float[B,8] y)", "(float[B,8] y, float[B,8] e)")
    model = parse(text)
    trace = apply(gelu.RULES, model)
    assert "Gelu" not in ops(model)
    assert trace.misses["gelu"]["seen"] == "e is also a graph output"
