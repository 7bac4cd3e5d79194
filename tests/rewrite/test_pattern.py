"""The matcher: operand orders, repeated variables, attributes at their defaults, and how far a miss came."""

from onnxfuse.rewrite.pattern import Attempt, trace
from tests.conftest import parse


def attempt(text: str, before, opset: int = 23):
    model = parse(text, opset)
    root = model.graph.outputs[0].producer()
    search = Attempt(trace(before), root, opset)
    return list(search), search


def scaled(op, x, a, b):
    return op.Mul(op.Add(x, a), b)


def test_operands_match_in_both_orders():
    found, _ = attempt("g (float[4] p, float[4] q, float[4] r) => (float[4] y) { s = Add(p, q)  y = Mul(r, s) }", scaled)
    assert [(m.bindings["x"].name, m.bindings["a"].name) for m in found] == [("p", "q"), ("q", "p")]
    assert {m.bindings["b"].name for m in found} == {"r"}


def test_a_repeated_variable_must_be_the_same_value():
    def square(op, x):
        return op.Mul(x, x)
    assert attempt("g (float[4] p) => (float[4] y) { y = Mul(p, p) }", square)[0]
    found, search = attempt("g (float[4] p, float[4] q) => (float[4] y) { y = Mul(p, q) }", square)
    assert not found
    assert search.miss.seen == "another value"


def test_backtracking_revisits_an_inner_choice():
    def both(op, a, b):
        return op.Sub(op.Add(a, b), b)
    found, _ = attempt("g (float[4] p, float[4] q) => (float[4] y) { s = Add(p, q)  y = Sub(s, p) }", both)
    assert [(m.bindings["a"].name, m.bindings["b"].name) for m in found] == [("q", "p")]


def test_an_unnamed_attribute_must_have_its_default():
    def softmax(op, x):
        return op.Softmax(x)
    assert attempt("g (float[2,3] x) => (float[2,3] y) { y = Softmax<axis = -1>(x) }", softmax)[0]
    found, search = attempt("g (float[2,3] x) => (float[2,3] y) { y = Softmax<axis = 0>(x) }", softmax)
    assert not found
    assert search.miss.seen == "Softmax with axis=0"


def test_a_named_attribute_binds_or_compares():
    def gelu(op, x, kind):
        return op.Gelu(x, approximate=kind)

    def tanh(op, x):
        return op.Gelu(x, approximate="tanh")
    text = "g (float[4] x) => (float[4] y) { y = Gelu(x) }"
    assert attempt(text, gelu)[0][0].bindings["kind"] == "none"
    assert not attempt(text, tanh)[0]


def test_a_shared_operator_must_be_a_shared_node():
    def shared(op, x):
        s = op.Exp(x)
        return op.Add(s, s)
    assert attempt("g (float[4] x) => (float[4] y) { s = Exp(x)  y = Add(s, s) }", shared)[0]
    assert not attempt("g (float[4] x) => (float[4] y) { s = Exp(x)  t = Exp(x)  y = Add(s, t) }", shared)[0]


def test_the_miss_is_the_deepest_one():
    def deep(op, x, a):
        return op.Mul(op.Add(op.Erf(x), a), a)
    _, search = attempt("g (float[4] x, float[4] a) => (float[4] y) { t = Tanh(x)  s = Add(t, a)  y = Mul(s, a) }", deep)
    assert (search.miss.matched, search.miss.wanted, search.miss.seen, search.miss.where) == (2, "Erf", "Tanh", "t")


def test_an_optional_operand_may_be_absent():
    def clip(op, x, low=None, high=None):
        return op.Clip(x, low, high)
    found, _ = attempt("g (float[4] x, float low) => (float[4] y) { y = Clip(x, low) }", clip)
    assert found[0].bindings["high"] is None
    assert found[0].bindings["low"].name == "low"
