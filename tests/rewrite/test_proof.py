"""Local proof: right rewrites hold, wrong ones are left out and named, the rest goes on."""

import time

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.rewrite import Prover, Rule, Trace, rewrite
from onnxfuse.rewrite.proof import _random_array
from onnxfuse.runtime.sessions import compute
from tests.conftest import analysis_of, assert_same, ops, parse


def relu(op, x):
    return op.Relu(x)


def agree(match):
    return None


def apply(rule: Rule, text: str) -> tuple:
    before, model = parse(text), parse(text)
    analysis, trace = analysis_of(model), Trace()
    rewrite(model, [rule], analysis, trace, Prover(analysis, compute))
    return before, model, trace


TEXT = "g (float[B,S] x) => (float[B,S] y) { a = Relu(x)  b = Tanh(a)  y = Sqrt(b) }"


def test_a_right_rewrite_is_proven_and_made():
    rule = Rule("clip", relu, agree, lambda op, x: op.Max(x, op.constant(0.0)), exact=True)
    start = time.perf_counter()
    before, model, trace = apply(rule, TEXT)
    assert 0 < trace.proof_seconds < time.perf_counter() - start
    assert ops(model) == ["Max", "Sqrt", "Tanh"]
    assert (trace.proven, trace.rejected, trace.unproven) == (1, {}, {})
    assert_same(before, model, {"B": 2, "S": 3}, tolerance=0)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (lambda op, x: op.Abs(x), "off by"),
        (lambda op, x: x, "off by"),
        (lambda op, x: op.ReduceMax(x), r"float32\[1, 1\] instead of float32\[2, 3\]"),
        (lambda op, x: op.Cast(op.Relu(x), to=11), "float64"),
    ],
)
def test_a_wrong_rewrite_is_left_out_and_named(after, reason):
    _, model, trace = apply(Rule("wrong", relu, agree, after), TEXT)
    assert ops(model) == ["Relu", "Sqrt", "Tanh"]
    assert not trace.applications
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(trace.rejected["wrong"])
    assert trace.rejected["wrong"].startswith("at a: ")
    assert {user.op_type for user, _ in model.graph.inputs[0].uses()} == {"Relu"}


def dropped(low, high):
    def before(op, x, low, high):
        return op.Clip(x, low, high)

    def guard(match):
        match.need_scalar("low", low)

    return Rule("dropped", before, guard, lambda op, x, **_: op.Identity(x))


@pytest.mark.parametrize("end", [10.0, 1000.0])
def test_what_happens_beyond_a_threshold_counts(end):
    """Random numbers alone stay within four or so."""
    text = f"g (float[B,S] x) => (float[B,S] y) <float low = {{-{end}}}, float high = {{{end}}}> {{ c = Clip(x, low, high)  y = Tanh(c) }}"
    _, model, trace = apply(dropped(-end, end), text)
    assert ops(model) == ["Clip", "Tanh"]
    assert "off by" in trace.rejected["dropped"]


def test_a_threshold_that_stands_for_no_end_is_none():
    text = "g (float[B,S] x) => (float[B,S] y) <float low = {-3e38}, float high = {3e38}> { c = Clip(x, low, high)  y = Tanh(c) }"
    _, _, trace = apply(dropped(-3e38, 3e38), text)
    assert (trace.proven, trace.rejected) == (1, {})


def test_inputs_of_one_region_differ():
    """Swapped operands of a subtraction would pass if both held the same numbers."""
    text = "g (float[B,S] x, float[B,S] z) => (float[B,S] y) { y = Sub(x, z) }"
    _, model, trace = apply(Rule("swap", lambda op, x, z: op.Sub(x, z), agree, lambda op, x, z: op.Sub(z, op.Identity(x))), text)
    assert ops(model) == ["Sub"]
    assert "off by" in trace.rejected["swap"]


def test_exact_means_to_the_bit():
    third = lambda op, x: op.Mul(op.Mul(op.Relu(x), op.constant(3.0)), op.constant(1 / 3))  # noqa: E731
    trace = apply(Rule("close", relu, agree, third, exact=True), TEXT)[2]
    assert (trace.proven, trace.rejected) == (0, {"close": "at a: not equal to the bit"})
    _, _, trace = apply(
        Rule(
            "close",
            lambda op, x: op.Tanh(op.Relu(x)),
            agree,
            lambda op, x: op.Tanh(op.Mul(op.Mul(op.Relu(x), op.constant(3.0)), op.constant(1 / 3))),
        ),
        TEXT,
    )
    assert trace.rejected == {}
    assert trace.proven


def test_what_cannot_be_run_is_made_and_said():
    text = "g (x) => (float[B] y) { y = Relu(x) }".replace("(x)", "(float x_unknown)", 1).replace("float x_unknown", "float[N] x")
    model = parse(text)
    model.graph.inputs[0].shape = None
    analysis, trace = analysis_of(model), Trace()
    rewrite(
        model, [Rule("clip", relu, agree, lambda op, x: op.Max(x, op.constant(0.0)))], analysis, trace, Prover(analysis, compute)
    )
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
    for after in (
        lambda op, x: op.Reshape(op.Relu(x), op.Concat(op.Shape(x, start=1), op.Shape(x, start=0, end=1), axis=0)),
        lambda op, x: op.Transpose(op.Relu(op.Transpose(x, perm=[1, 0])), perm=[0, 1]),
    ):
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
    analysis, trace = analysis_of(model), Trace()
    while rewrite(model, [there, back], analysis, trace):  # as normalize does, together with folding
        pass
    assert trace.endless and trace.endless <= {"there", "back"}
    assert trace.to_json()["endless"] == sorted(trace.endless)
    assert_same(before, model, {"B": 2, "S": 3}, tolerance=0)


def verdict(before, after, text: str, opset: int = 23, **options) -> Trace:
    """The trace of one rule that is proven where it fits."""
    model = parse(text, opset)
    analysis, trace = analysis_of(model), Trace()
    rewrite(model, [Rule("rule", before, agree, after, **options)], analysis, trace, Prover(analysis, compute))
    return trace


def outcome(trace: Trace) -> str:
    return "proven" if trace.proven else "rejected" if trace.rejected else "unproven" if trace.unproven else "nothing"


def test_each_symbol_has_a_prime_of_its_own():
    trace = verdict(relu, lambda op, x: op.ReduceMax(x), "g (float[A,B,C,D,E,F] x) => (float[A,B,C,D,E,F] y) { y = Relu(x) }")
    assert trace.rejected["rule"].endswith("instead of float32[2, 3, 5, 7, 11, 11]")


@pytest.mark.parametrize(
    ("kind", "factor", "held"),
    [("double", 1 + 3e-6, True), ("double", 1 + 3e-5, False), ("float16", 1 + 2**-9, True), ("float16", 1 + 2**-7, False)],
)
def test_each_type_has_a_tolerance_of_its_own(kind, factor, held):
    dtype = {"double": np.float64, "float16": np.float16}[kind]
    trace = verdict(
        relu,
        lambda op, x: op.Mul(op.Relu(x), op.constant(np.array(factor, dtype))),
        f"g ({kind}[B,S] x) => ({kind}[B,S] y) {{ y = Relu(x) }}",
    )
    assert outcome(trace) == ("proven" if held else "rejected")


RUN = "s = Shape(x)  n = Gather(s, one)  r = Range(zero, n, one)  "
NUMBERS = "<int64 zero = {0}, int64 one = {1}, int64[1] v0 = {0}, int64[1] v1 = {1}, int64[1] last = {-1}, float f2 = {2.0}, float f0 = {0.0}, float[3] w = {1, 2, 3}>"


@pytest.mark.parametrize(
    ("text", "before", "after", "wanted"),
    [
        # what is read may be absent
        (
            "(float[4] x, float top) => (float[4] y) { y = Clip(x, , top) }",
            lambda op, x, high, low=None: op.Clip(x, low, high),
            lambda op, x, high, **_: op.Min(x, high),
            "proven",
        ),
        (
            "(float[4] x, float top) => (float[4] y) { y = Clip(x, , top) }",
            lambda op, x, high, low=None: op.Clip(x, low, high),
            lambda op, x, high, **_: op.Clip(x, None, op.Identity(high)),
            "proven",
        ),
        # a new constant, or a value from outside, is the replacement
        (
            "(float[2,3] x) => (float[2,3] y) { y = Sub(x, x) }",
            lambda op, x: op.Sub(x, x),
            lambda op, x: op.constant(np.zeros((2, 3), np.float32)),
            "proven",
        ),
        (
            "(float[2,3] x) => (float[2,3] y) { y = Sub(x, x) }",
            lambda op, x: op.Sub(x, x),
            lambda op, x: op.constant(np.ones((2, 3), np.float32)),
            "rejected",
        ),
        (
            "(float[B,S] x) => (float[B,S] y) { a = Neg(x)  y = Neg(a) }",
            lambda op, x: op.Neg(op.Neg(x)),
            lambda op, x: x,
            "proven",
        ),
        (
            "(float[B,3] x) => (float[B,3] y) { y = Mul(x, w) }",
            lambda op, x, w: op.Mul(x, w),
            lambda op, x, w: op.Mul(x, op.constant(np.array([1, 2, 3], np.float32))),
            "proven",
        ),
        # content that is implied: of shapes, fills, ranges and what GatherND reads
        (
            "(float[B,S] x) => (float[P] y) { s = Shape(x)  a = Relu(x)  y = Reshape(a, s) }",
            lambda op, x, s: op.Reshape(x, s),
            lambda op, x, s: op.Identity(x),
            "proven",
        ),
        (
            "(float[B,S] x, int64[2] s) => (float[P,Q] y) { y = Reshape(x, s) }",
            lambda op, x, s: op.Reshape(x, s),
            lambda op, x, s: op.Identity(x),
            "unproven",
        ),
        (
            "(float[B,S] x) => (float[B,S] y) { s = Shape(x)  e = Expand(f0, s)  y = Sub(x, e) }",
            lambda op, x, e: op.Sub(x, e),
            lambda op, x, e: op.Identity(x),
            "proven",
        ),
        (
            "(float[B,S] x) => (float[B,S] y) { s = Shape(x)  e = Expand(f2, s)  y = Sub(x, e) }",
            lambda op, x, e: op.Sub(x, e),
            lambda op, x, e: op.Identity(x),
            "rejected",
        ),
        (
            "(float[B,S] x) => (float[B,S] y) {" + RUN + "y = Gather<axis = 1>(x, r) }",
            lambda op, x, r: op.Gather(x, r, axis=1),
            lambda op, x, r: op.Identity(x),
            "proven",
        ),
        (
            "(float[S,S] x, float[B,S] z) => (float[S] y) { s = Shape(z)  n = Gather(s, one)  r = Range(zero, n, one)"
            "  u = Unsqueeze(r, last)  c = Concat<axis = -1>(u, u)  y = GatherND(x, c) }",
            lambda op, x, c: op.GatherND(x, c),
            lambda op, x, c: op.Einsum(x, equation="ii->i"),
            "proven",
        ),
        (
            "(float[S,S] x, int64[S,2] c) => (float[S] y) { y = GatherND(x, c) }",
            lambda op, x, c: op.GatherND(x, c),
            lambda op, x, c: op.Einsum(x, equation="ii->i"),
            "rejected",
        ),
        # masks: any shape, none of one value
        (
            "(bool c, float[B] a, float[B] b) => (float[B] y) { y = Where(c, a, b) }",
            lambda op, c, a, b: op.Where(c, a, b),
            lambda op, c, a, b: op.Where(op.Not(c), b, a),
            "proven",
        ),
        (
            "(float a, float b) => (float y) { y = Add(a, b) }",
            lambda op, a, b: op.Add(a, b),
            lambda op, a, b: op.Sub(a, op.Neg(b)),
            "proven",
        ),
        (
            "(int64 a, int64 b) => (int64 y) { y = Add(a, b) }",
            lambda op, a, b: op.Add(a, b),
            lambda op, a, b: op.Sub(a, op.Neg(b)),
            "proven",
        ),
        (
            "(bool[B,1] c, float[B,1] a, float[B,1] b) => (float[B,1] y) { y = Where(c, a, b) }",
            lambda op, c, a, b: op.Where(c, a, b),
            lambda op, c, a, b: op.Identity(b),
            "rejected",
        ),
        ("(bool[B,S] c) => (bool[B,S] y) { n = Not(c)  y = Not(n) }", lambda op, c: op.Not(op.Not(c)), lambda op, c: c, "proven"),
        # integers and numbers that are not numbers, to the bit
        (
            "(int64[B,S] x) => (int64[B,S] y) { y = Add(x, x) }",
            lambda op, x: op.Add(x, x),
            lambda op, x: op.Mul(x, op.constant([2])),
            "proven",
        ),
        (
            "(int64[B,S] x) => (int64[B,S] y) { y = Add(x, x) }",
            lambda op, x: op.Add(x, x),
            lambda op, x: op.Mul(x, op.constant([3])),
            "rejected",
        ),
        (
            "(float[B,S] x) => (float[B,S] y) { a = Log(x)  y = Neg(a) }",
            lambda op, x: op.Neg(op.Log(x)),
            lambda op, x: op.Mul(op.Log(x), op.constant(-1.0)),
            "unproven",
        ),
    ],
)
def test_what_a_region_reads_decides_its_proof(text, before, after, wanted):
    head, body = text.split("{", 1)
    assert outcome(verdict(before, after, f"g {head} {NUMBERS} {{{body}")) == wanted


def test_what_is_not_a_number_is_equal_to_itself_where_it_must_be_to_the_bit():
    text = "g (float[B,S] x) => (float[B,S] y) { y = Log(x) }"
    assert outcome(verdict(lambda op, x: op.Log(x), lambda op, x: op.Log(op.Identity(x)), text, exact=True)) == "proven"
    trace = verdict(lambda op, x: op.Log(x), lambda op, x: op.Log(op.Identity(x)), text)
    assert trace.unproven == {"rule": "the original gives numbers that are not finite"}


def test_a_default_that_a_caller_may_override_proves_nothing():
    model = parse("g (float[B,S] x, float w) => (float[B,S] y) { y = Mul(x, w) }")
    model.graph.inputs[1].const_value = ir.tensor(np.float32(1))
    analysis, trace = analysis_of(model), Trace()
    rewrite(
        model,
        [Rule("rule", lambda op, x, w: op.Mul(x, w), agree, lambda op, x, w: op.Identity(x))],
        analysis,
        trace,
        Prover(analysis, compute),
    )
    assert outcome(trace) == "rejected"


def test_sizes_that_a_model_fixes_are_not_made_at_any_size():
    text = "g (float[9000,9000] x) => (float[9000,9000] y) { y = Relu(x) }"
    _, model, trace = apply(Rule("rule", relu, agree, lambda op, x: op.Max(x, op.constant(0.0))), text)
    assert trace.unproven == {"rule": "x of fixed sizes [9000, 9000] is more than a proof should take"}
    assert ops(model) == ["Max"]


@pytest.mark.parametrize("unknown", ["type", "shape"])
def test_an_input_without_type_or_shape_is_named(unknown):
    model = parse("g (float[B,S] x) => (float[B,S] y) { y = Relu(x) }")
    setattr(model.graph.inputs[0], unknown, None)
    analysis, trace = analysis_of(model), Trace()
    rewrite(model, [Rule("rule", relu, agree, lambda op, x: op.Abs(x))], analysis, trace, Prover(analysis, compute))
    assert trace.unproven == {"rule": "the type or shape of x is not known"}


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("a = Erf(x)  y = Neg(a)", lambda op, x: op.Neg(op.Erf(x)), lambda op, x: op.Gelu(x)),
        (
            "a = ReduceMean<axes = [-1]>(x)  y = Neg(a)",
            lambda op, x: op.Neg(op.ReduceMean(x, axes=[-1])),
            lambda op, x: op.ReduceMean(op.Neg(x), axes=[-1]),
        ),
        (
            "a = ReduceMean<axes = [-1]>(x)  y = com.microsoft.Gelu(a)",
            lambda op, x: op.Gelu(op.ReduceMean(x, axes=[-1]), _domain="com.microsoft"),
            lambda op, x: op.Gelu(op.ReduceMean(op.Identity(x), axes=[-1]), _domain="com.microsoft"),
        ),
        ("y = com.microsoft.Gelu(x)", lambda op, x: op.Gelu(x, _domain="com.microsoft"), lambda op, x: op.Gelu(x)),
    ],
)
def test_only_operators_of_the_normal_form_run_above_the_models_opset(text, before, after):
    trace = verdict(before, after, f"g (float[B,S] x) => (float[P] y) {{ {text} }}", 17)
    assert outcome(trace) == ("rejected" if "Erf" in text else "proven")
    assert "cannot run" not in "".join(trace.rejected.values())


def test_an_error_that_is_not_the_runtimes_is_not_hidden(monkeypatch):
    def broken(*arguments, **options):
        raise KeyError("a mistake of ours")

    monkeypatch.setattr("onnxfuse.rewrite.proof.onnx.helper.make_graph", broken)
    with pytest.raises(KeyError, match="a mistake of ours"):
        verdict(relu, lambda op, x: op.Abs(x), TEXT)


@pytest.mark.parametrize("seed", range(8))
def test_random_masks_keep_and_drop_in_every_row(seed):
    """What a row without a token gives is nobody's business, whichever way the mask is meant; indices are 0 or 1, which every axis has."""
    rng = np.random.default_rng(seed)
    mask = _random_array(rng, (50, 4), np.dtype(bool))
    assert mask[:, 0].all() and not mask[:, -1].any() and len(np.unique(mask[:, 1])) == 2
    assert len(np.unique(_random_array(rng, (50, 1), np.dtype(bool)))) == 2
    assert set(np.unique(_random_array(rng, (50, 4), np.dtype(np.int64)))) == {0, 1}
    assert set(np.unique(_random_array(rng, (50, 4), np.dtype(np.uint8)))) == {0, 1}
