"""The matcher: operand orders, repeated variables, attributes at their defaults, and how far a miss came."""

import pytest

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


def names(found) -> list[list[str | None]]:
    return [[value and value.name for value in match.bindings.values()] for match in found]


def summed(op, x, a, b):
    return op.Sum(op.Exp(x), a, b)


@pytest.mark.parametrize(
    ("body", "before", "matched", "seen"),
    [
        # two operators of a pattern are two nodes, and two outputs of one node are one
        ("s = Exp(p)  y = Add(s, s)", lambda op, a, b: op.Add(op.Exp(a), op.Exp(b)), None, "another node"),
        ("s = Exp(p)  t = Exp(q)  y = Add(s, t)", lambda op, a, b: op.Add(op.Exp(a), op.Exp(b)), ["p", "q"], None),
        (
            "s, t = Split<num_outputs = 2>(p)  y = Sub(s, t)",
            lambda op, a: op.Sub(op.Split(a, num_outputs=2), op.Split(a, num_outputs=2, _output=1)),
            ["p"],
            None,
        ),
        (
            "s, t = Split<num_outputs = 2>(p)  y = Sub(t, s)",
            lambda op, a: op.Sub(op.Split(a, num_outputs=2), op.Split(a, num_outputs=2, _output=1)),
            None,
            "Split",
        ),
        (
            "s, t = Split<num_outputs = 2>(p)  y = Sub(s, t)",
            lambda op, a, b: op.Sub(op.Split(a, num_outputs=2), op.Split(b, num_outputs=2, _output=1)),
            None,
            "another node",
        ),
        (
            "s, t = Split<num_outputs = 2>(p)  y = Sub(s, s)",
            lambda op, a: op.Sub(op.Split(a, num_outputs=2), op.Split(a, num_outputs=2)),
            None,
            "another node",
        ),
        # another domain, another operator
        ("y = com.microsoft.Gelu(p)", lambda op, a: op.Gelu(a), None, "Gelu"),
        ("y = com.microsoft.Gelu(p)", lambda op, a: op.Gelu(a, _domain="com.microsoft"), ["p"], None),
        ("y = Relu(p)", lambda op, a: op.Gelu(a), None, "Relu"),
        ("y = Relu(p)", lambda op, a: op.Relu(op.Exp(a)), None, "a graph input or initializer"),
        # operands: absent, too many, too few, only two change places
        ("y = Clip(p, , q)", lambda op, a, high: op.Clip(a, None, high), ["p", "q"], None),
        ("y = Clip(p, q, r)", lambda op, a, high: op.Clip(a, None, high), None, "an operand"),
        ("y = Clip(p, q)", lambda op, a: op.Clip(a), None, "an operand"),
        ("y = Clip(p)", lambda op, a, low: op.Clip(a, low), None, "no operand"),
        ("y = Clip(p, , q)", lambda op, a, low: op.Clip(a, low), None, "no operand"),
        ("y = Clip(p)", lambda op, a, low=None: op.Clip(a, low), ["p", None], None),
        ("y = Clip(p)", lambda op, a, b: op.Clip(a, op.Exp(b)), None, "a graph input or initializer"),
        ("s = Exp(p)  y = Sum(s, q, r)", summed, ["p", "q", "r"], None),
        ("s = Exp(p)  y = Sum(q, r, s)", summed, None, "a graph input or initializer"),
        ("s = Exp(p)  y = Sub(q, s)", lambda op, a, b: op.Sub(op.Exp(a), b), None, "a graph input or initializer"),
        # attributes: at their defaults unless they are named, and what changes no result is free
        ("y = Transpose<perm = [0]>(p)", lambda op, a: op.Transpose(a), None, "Transpose with perm=[0]"),
        ("y = Transpose<perm = [0]>(p)", lambda op, a, perm: op.Transpose(a, perm=perm), [[0], "p"], None),
        ('y = Gelu<approximate = "none">(p)', lambda op, a: op.Gelu(a), ["p"], None),
        ('y = Gelu<approximate = "tanh">(p)', lambda op, a: op.Gelu(a, approximate="none"), None, "Gelu with approximate=tanh"),
        ("y = LayerNormalization<stash_type = 10>(p, q)", lambda op, a, b: op.LayerNormalization(a, b), ["p", "q"], None),
        ("y = com.microsoft.Gelu<odd = 1>(p)", lambda op, a: op.Gelu(a, _domain="com.microsoft"), None, "Gelu with odd=1"),
    ],
)
def test_what_matches_and_what_stood_there_instead(body, before, matched, seen):
    found, search = attempt(f"g (float[4] p, float[4] q, float[4] r) => (float[P] y) {{ {body} }}", before)
    if seen is None:
        assert [getattr(item, "name", item) for item in found[0].bindings.values()] == matched
    else:
        assert (found, search.miss.seen) == ([], seen)


def test_operands_of_three_are_taken_as_they_stand():
    found, _ = attempt(
        "g (float[4] p, float[4] q, float[4] r) => (float[4] y) { s = Exp(p)  t = Exp(r)  y = Sum(s, q, t) }", summed
    )
    assert names(found) == [["p", "q", "t"]]


def test_of_equally_deep_misses_the_first_is_told():
    _, search = attempt(
        "g (float[4] p, float[4] q) => (float[4] y) { s = Exp(p)  t = Exp(q)  y = Sub(s, t) }",
        lambda op, a, b: op.Sub(op.Abs(a), op.Neg(b)),
    )
    assert (search.miss.matched, search.miss.wanted, search.miss.where) == (1, "Abs", "s")
    assert [node.op_type for node in search.nodes] == ["Sub"]
    _, search = attempt(
        "g (float[4] p, float[4] q) => (float[4] y) { s = Exp(p)  t = Exp(q)  y = Add(s, t) }",
        lambda op, a, b: op.Add(op.Abs(a), op.Neg(b)),
    )
    assert (search.miss.matched, search.miss.wanted, search.miss.where) == (1, "Abs", "s")
    assert str(search.miss) == "1 nodes matched; at s: saw Exp, wanted Abs"


def test_where_an_operand_is_absent_the_variable_is_named():
    _, search = attempt("g (float[4] p) => (float[4] y) { y = Clip(p) }", lambda op, a, low: op.Clip(a, low))
    assert (search.miss.where, search.miss.wanted) == ("low", "a value for 'low'")
    _, search = attempt("g (float[4] p) => (float[4] y) { y = Clip(p) }", lambda op, a, low: op.Clip(a, op.Exp(low)))
    assert (search.miss.where, search.miss.wanted) == ("an absent input", "Exp")


def test_a_match_leaves_no_miss():
    _, search = attempt("g (float[4] p) => (float[4] y) { y = Exp(p) }", lambda op, a: op.Exp(a))
    assert (search.miss, search.nodes) == (None, ())


def test_a_deeper_miss_in_another_order_replaces_the_first():
    _, search = attempt(
        "g (float[4] p, float[4] q) => (float[4] y) { t = Abs(q)  y = Add(p, t) }", lambda op, a, b: op.Add(op.Abs(op.Neg(a)), b)
    )
    assert (search.miss.matched, search.miss.wanted, search.miss.where) == (2, "Neg", "q")
