"""Gelu: every spelling fuses, every guard line refuses."""

import pytest

from onnxfuse.fusions import gelu
from tests.conftest import apply, assert_same, ops, parse

HEAD = "g (float[B,8] x, float[B,8] other) => (float[B,8] y) <float r = {0.70710678}, float d = {1.41421356}, float one = {1.0}, " \
       "float half = {0.5}, float three = {3.0}, float c = {0.044715}, float k = {0.79788456}, float off = {0.7072}, " \
       "float wrong = {0.51}, float two = {2.0}, float minus = {-0.70710678}, " \
       "float minus_off = {-0.7072}> {"
ERF = "u = Div(x, d)  e = Erf(u)  s = Add(e, one)"
TANH = "p = Pow(x, three)  q = Mul(c, p)  b = Add(x, q)  u = Mul(k, b)  e = Tanh(u)  s = Add(one, e)"


@pytest.mark.parametrize("body", [
    f"{ERF}  m = Mul(x, s)  y = Mul(m, half)",
    f"{ERF}  m = Mul(half, x)  y = Mul(m, s)",
    f"{ERF}  m = Mul(s, half)  y = Mul(x, m)",
    "u = Mul(r, x)  e = Erf(u)  s = Add(one, e)  m = Mul(s, x)  y = Mul(half, m)",
    "u = Mul(r, x)  e = Erf(u)  i = Identity(e)  s = Add(one, i)  m = Mul(s, x)  y = Mul(half, m)",
])
def test_erf_spellings_become_one_gelu(body):
    before, after = parse(f"{HEAD} {body} }}"), parse(f"{HEAD} {body} }}")
    apply(gelu.RULES, after)
    assert ops(after) == ["Gelu"]
    assert_same(before, after, {"B": 5})


@pytest.mark.parametrize("body", [
    f"{TANH}  m = Mul(x, s)  y = Mul(m, half)",
    f"{TANH}  m = Mul(x, half)  y = Mul(m, s)",
    f"{TANH}  m = Mul(s, half)  y = Mul(m, x)",
])
def test_tanh_spellings_become_one_gelu(body):
    before, after = parse(f"{HEAD} {body} }}"), parse(f"{HEAD} {body} }}")
    apply(gelu.RULES, after)
    assert [(n.op_type, n.attributes["approximate"].value) for n in after.graph] == [("Gelu", "tanh")]
    assert_same(before, after, {"B": 5})


@pytest.mark.parametrize(("rule", "body", "reason"), [
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
])
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
