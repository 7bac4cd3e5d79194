"""Local proof: right rewrites hold, wrong ones are left out and named, the rest goes on."""

import pytest

from onnxfuse.rewrite import Prover, Rule, Trace, rewrite
from tests.conftest import assert_same, facts_of, ops, parse


def relu(op, x):
    return op.Relu(x)


def agree(match):
    return None


def apply(rule: Rule, text: str) -> tuple:
    before, model = parse(text), parse(text)
    facts, trace = facts_of(model), Trace()
    rewrite(model, [rule], facts, trace, Prover(facts))
    return before, model, trace


TEXT = "g (float[B,S] x) => (float[B,S] y) { a = Relu(x)  b = Tanh(a)  y = Sqrt(b) }"


def test_a_right_rewrite_is_proven_and_made():
    rule = Rule("clip", relu, agree, lambda op, x: op.Max(x, op.constant(0.0)), exact=True)
    before, model, trace = apply(rule, TEXT)
    assert ops(model) == ["Max", "Sqrt", "Tanh"]
    assert (trace.proven, trace.rejected, trace.unproven) == (1, {}, {})
    assert_same(before, model, {"B": 2, "S": 3}, tolerance=0)


@pytest.mark.parametrize(("after", "reason"), [
    (lambda op, x: op.Abs(x), "off by"),
    (lambda op, x: x, "off by"),
    (lambda op, x: op.ReduceMax(x), r"float32\[1, 1\] instead of float32\[2, 3\]"),
    (lambda op, x: op.Cast(op.Relu(x), to=11), "float64"),
])
def test_a_wrong_rewrite_is_left_out_and_named(after, reason):
    _, model, trace = apply(Rule("wrong", relu, agree, after), TEXT)
    assert ops(model) == ["Relu", "Sqrt", "Tanh"]
    assert not trace.applications
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(trace.rejected["wrong"])
    assert trace.rejected["wrong"].startswith("at a: ")
    assert {user.op_type for user, _ in model.graph.inputs[0].uses()} == {"Relu"}


def test_inputs_of_one_region_differ():
    """Swapped operands of a subtraction would pass if both held the same numbers."""
    text = "g (float[B,S] x, float[B,S] z) => (float[B,S] y) { y = Sub(x, z) }"
    _, model, trace = apply(Rule("swap", lambda op, x, z: op.Sub(x, z), agree, lambda op, x, z: op.Sub(z, op.Identity(x))), text)
    assert ops(model) == ["Sub"]
    assert "off by" in trace.rejected["swap"]


def test_exact_means_to_the_bit():
    third = lambda op, x: op.Mul(op.Mul(op.Relu(x), op.constant(3.0)), op.constant(1 / 3))  # noqa: E731
    assert not apply(Rule("close", relu, agree, third, exact=True), TEXT)[2].proven
    _, _, trace = apply(Rule("close", lambda op, x: op.Tanh(op.Relu(x)), agree,
                                      lambda op, x: op.Tanh(op.Mul(op.Mul(op.Relu(x), op.constant(3.0)), op.constant(1 / 3)))), TEXT)
    assert trace.rejected == {}
    assert trace.proven


def test_what_cannot_be_run_is_made_and_said():
    text = "g (x) => (float[B] y) { y = Relu(x) }".replace("(x)", "(float x_unknown)", 1).replace("float x_unknown", "float[N] x")
    model = parse(text)
    model.graph.inputs[0].shape = None
    facts, trace = facts_of(model), Trace()
    rewrite(model, [Rule("clip", relu, agree, lambda op, x: op.Max(x, op.constant(0.0)))], facts, trace, Prover(facts))
    assert ops(model) == ["Max"]
    assert "the type or shape of x is not known" in trace.unproven["clip"]
