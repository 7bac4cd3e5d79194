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


def test_a_replacement_that_cannot_run_is_rolled_back():
    """The original runs, so what stands in its place must."""
    narrow = lambda op, x: op.SkipLayerNormalization(op.Relu(x), x, op.constant(1.0), _domain="com.microsoft")  # noqa: E731
    _, model, trace = apply(Rule("broken", relu, agree, narrow), TEXT)
    assert ops(model) == ["Relu", "Sqrt", "Tanh"]
    assert "ONNX Runtime cannot run the replacement: " in trace.rejected["broken"]
    assert trace.unproven == {}


def test_an_original_that_cannot_run_proves_nothing():
    text = "g (float[B,S] x) => (float[B,S] y) { a = com.microsoft.Relu6(x)  y = Tanh(a) }"
    rule = Rule("odd", lambda op, x: op.Tanh(op.Relu6(x, _domain="com.microsoft")), agree, lambda op, x: op.Tanh(x))
    _, _model, trace = apply(rule, text)
    assert "ONNX Runtime cannot run the region: " in trace.unproven["odd"]
    assert trace.rejected == {}


def test_types_that_numpy_lacks_are_said_to_be_unproven():
    text = "g (bfloat16[B,S] x) => (bfloat16[B,S] y) { y = Relu(x) }"
    _, _model, trace = apply(Rule("clip", relu, agree, lambda op, x: op.Abs(x)), text)
    assert trace.unproven["clip"] == "x has type BFLOAT16, which ONNX Runtime does not take from numpy"


def test_sizes_of_a_proof_tell_axes_apart():
    """Rewrites that are right only where two sizes are equal, or a product of two is a third."""
    text = "g (float[B,S] x, float[T,U] z) => (float[B,S] y) { a = Relu(x)  y = Tanh(a) }"
    for after in (lambda op, x: op.Reshape(op.Relu(x), op.Concat(op.Shape(x, start=1), op.Shape(x, start=0, end=1), axis=0)),
                  lambda op, x: op.Transpose(op.Relu(op.Transpose(x, perm=[1, 0])), perm=[0, 1])):
        _, _, trace = apply(Rule("swapped", relu, agree, after), text)
        assert "instead of" in trace.rejected["swapped"]


@pytest.mark.parametrize(("factor", "held"), [(1 + 3e-6, True), (1 + 3e-5, False)])
def test_a_proof_allows_rounding_and_no_more(factor, held):
    scaled = lambda op, x: op.Mul(op.Relu(x), op.constant(factor))  # noqa: E731
    _, _, trace = apply(Rule("scaled", relu, agree, scaled), TEXT)
    assert bool(trace.proven) is held


def test_a_rule_that_builds_what_it_looks_for_is_stopped_and_named():
    _, model, trace = apply(Rule("doubled", relu, agree, lambda op, x: op.Relu(op.Relu(x))), TEXT)
    assert trace.endless == {"doubled"}
    assert len(model.graph) < 200


def test_rules_that_undo_each_other_are_stopped_and_named():
    there = Rule("there", relu, agree, lambda op, x: op.Max(x, op.constant(0.0)))
    back = Rule("back", lambda op, x, zero: op.Max(x, zero), agree, lambda op, x, zero: op.Relu(x))
    before, model = parse(TEXT), parse(TEXT)
    facts, trace = facts_of(model), Trace()
    while rewrite(model, [there, back], facts, trace):  # as normalize does, together with folding
        pass
    assert trace.endless and trace.endless <= {"there", "back"}
    assert trace.to_json()["endless"] == sorted(trace.endless)
    assert_same(before, model, {"B": 2, "S": 3}, tolerance=0)
