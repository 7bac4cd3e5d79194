"""Position embeddings and residuals."""

import onnx_ir as ir
import pytest

from onnxfuse.fusions import embeddings, lowering, residual
from tests.conftest import apply, assert_same, fill, ops, parse, retype

POSITIONS = """g (int64[1] end, float[4,6] table) => (float[1,S,6] y)
    <int64[1,4] stored = {0, 1, 2, 3}, int64[1,4] shuffled = {0, 2, 1, 3}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}>
    { p = Slice(stored, zero, end, one)  y = Gather<axis = 0>(table, p) }"""


def test_position_lookup_becomes_a_slice():
    before, after = (fill(parse(POSITIONS), table=(4, 6)) for _ in range(2))
    apply(embeddings.RULES, after)
    assert ops(after) == ["Slice"]
    assert_same(before, after, {})


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Slice(stored,", "Slice(shuffled,", "the stored positions are not 0, 1, 2, ..."),
        ("zero, end, one)", "zero, end, one, two)", "it steps or reverses"),
        ("zero, end, one)", "one, end, one)", "it does not start at 0"),
        ("zero, end, one)", "zero, end, zero)", "it cuts another axis"),
        ("zero, end, one)", "zero, end, end)", "it cuts another axis"),
        ("zero, end, one)", "end, end, one)", "it does not start at 0"),
        ("float[4,6] table", "float[5,6] table", "the stored positions are not [1,5]"),
        ("=> (float[1,S,6] y)", "=> (float[1,S,6] y, float[4,6] t)", "the table is read elsewhere"),
    ],
)
def test_other_lookups_stay(old, new, reason):
    text = POSITIONS.replace(old, new)
    if "t)" in new:
        text = text.replace("y = Gather", "t = Relu(table)  y = Gather")
    model = fill(parse(text), table=(5, 6) if "[5,6]" in new else (4, 6))
    trace = apply(embeddings.RULES, model)
    assert "Gather" in ops(model)
    assert reason in trace.misses["position-embeddings"]["seen"]


def test_a_table_from_outside_stays():
    model = parse(POSITIONS)
    trace = apply(embeddings.RULES, model)
    assert trace.misses["position-embeddings"]["seen"] == "table is not a constant"


NORM = """g (float[B,S,8] x, float[B,S,8] r, float[8] w, float[8] b) => (float[B,S,8] y)
    { z = Add(x, r)  y = LayerNormalization<axis = -1, epsilon = 0.00001>(z, w, b) }"""


def test_a_residual_before_a_norm_becomes_a_sum():
    before, after = (fill(parse(NORM), w=(8,), b=(8,)) for _ in range(2))
    apply(residual.SUM, after)
    assert ops(after) == ["LayerNormalization", "Sum"]
    assert_same(before, after, {"B": 2, "S": 3}, tolerance=0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (NORM.replace("float[B,S,8] r", "float[1,S,8] r"), "r broadcasts"),
        (NORM.replace("LayerNormalization<axis = -1, epsilon = 0.00001>(z, w, b)", "Relu(z)"), "no norm reads it"),
    ],
)
def test_other_additions_stay(text, reason):
    model = fill(parse(text), w=(8,), b=(8,))
    trace = apply(residual.SUM, model)
    assert "Sum" not in ops(model)
    assert trace.misses["residual-sum"]["seen"] == reason


def test_a_constant_bias_is_no_residual():
    model = fill(
        parse(NORM.replace("float[B,S,8] r", "float[2,3,8] r").replace("[B,S,8] x", "[2,3,8] x")), r=(2, 3, 8), w=(8,), b=(8,)
    )
    trace = apply(residual.SUM, model)
    assert trace.misses["residual-sum"]["seen"] == "r is a constant"


def test_skip_norm_computes_the_same():
    before, after = (fill(parse(NORM), w=(8,), b=(8,)) for _ in range(2))
    apply(residual.SKIP, after)
    assert ops(after) == ["SkipLayerNormalization"]
    assert_same(before, after, {"B": 2, "S": 3})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (NORM.replace("float[B,S,8] r", "float[1,S,8] r"), "r broadcasts"),
        (NORM.replace("float[B,S,8] x", "float[S,8] x"), "x broadcasts"),
    ],
)
def test_skip_norm_refuses_a_residual_that_broadcasts(text, reason):
    model = fill(parse(text), w=(8,), b=(8,))
    trace = apply(residual.SKIP, model)
    assert "SkipLayerNormalization" not in ops(model)
    assert trace.misses["residual-skip-norm"]["seen"] == reason


def test_skip_norm_refuses_another_axis():
    model = fill(parse(NORM.replace("axis = -1", "axis = 1")), w=(8,), b=(8,))
    trace = apply(residual.SKIP, model)
    assert "SkipLayerNormalization" not in ops(model)
    assert trace.misses["residual-skip-norm"]["seen"] == "the norm is not over the last dimension"


@pytest.mark.parametrize(("gain", "bias"), [("8", None), ("1,1,8", "8"), ("1", "1"), ("8", ""), ("1,8", "1,1,1")])
def test_skip_norm_gets_gain_and_bias_in_the_shape_that_it_takes(gain, bias):
    text = NORM.replace("[8] w", f"[{gain}] w").replace("float[8] b", "float b" if bias == "" else f"float[{bias or 8}] b")
    text = text.replace("(z, w, b)", "(z, w)") if bias is None else text
    weights = {name: tuple(int(size) for size in shape.split(",") if size) for name, shape in (("w", gain), ("b", bias or ""))}
    before, after = (fill(parse(text), **weights) for _ in range(2))
    apply(residual.SKIP, after)
    assert set(ops(after)) <= {"Expand", "Reshape", "SkipLayerNormalization"}
    assert_same(before, after, {"B": 2, "S": 3})


@pytest.mark.parametrize(
    ("text", "shapes", "reason"),
    [
        (NORM.replace("[B,S,8]", "[B,2,S,8]"), {}, "the norm has rank 4, wanted 2 or 3"),
        (NORM.replace("[B,S,8]", "[8]"), {}, "the norm has rank 1, wanted 2 or 3"),
        (NORM.replace("float[8] w", "float[2,8] w").replace("[B,S,8]", "[B,2,8]"), {"w": (2, 8)}, "gain is not [8]"),
        (NORM.replace("float[8] b", "float[2,1] b").replace("[B,S,8]", "[B,2,8]"), {"b": (2, 1)}, "bias is not [8]"),
        (NORM.replace("[B,S,8]", "[B,S,D]"), {}, "the width is D, wanted a number"),
        (
            NORM.replace("y = Layer", "y, m = Layer").replace("[B,S,8] y)", "[B,S,8] y, float[B,S,1] m)"),
            {},
            "its output m is read too",
        ),
    ],
)
def test_what_skip_norm_does_not_take_is_refused(text, shapes, reason):
    model = fill(parse(text), **{"w": (8,), "b": (8,)} | shapes)
    trace = apply(residual.SKIP, model)
    assert "SkipLayerNormalization" not in ops(model)
    assert trace.misses["residual-skip-norm"]["seen"] == reason


def test_skip_norm_refuses_a_type_without_a_kernel():
    model = retype(fill(parse(NORM), w=(8,), b=(8,)), ir.DataType.DOUBLE)
    assert (
        apply(residual.SKIP, model).misses["residual-skip-norm"]["seen"]
        == "the type is DOUBLE, wanted BFLOAT16 or FLOAT or FLOAT16"
    )
    before, after = (retype(fill(parse(NORM), w=(8,), b=(8,)), ir.DataType.FLOAT16) for _ in range(2))
    apply(residual.SKIP, after)
    assert ops(after) == ["SkipLayerNormalization"]
    assert_same(before, after, {"B": 2, "S": 3}, tolerance=4e-3)


GELU = "g (float[B,8] x, float[8] b) => (float[B,8] y) { a = Add(x, b)  y = Gelu(a) }"


@pytest.mark.parametrize("kind", ["none", "tanh"])
def test_elementwise_gelu_computes_the_same(kind):
    text = GELU.replace("Gelu(a)", f'Gelu<approximate = "{kind}">(a)')
    before, after = (fill(parse(text), b=(8,)) for _ in range(2))
    apply(lowering.ELEMENTWISE_GELU, after)
    assert not {"Gelu", "CastLike"} & set(ops(after))  # the latter is not in every opset that lacks the former
    assert_same(before, after, {"B": 4})


@pytest.mark.parametrize("kind", ["none", "tanh"])
def test_elementwise_gelu_of_unknown_type_takes_that_of_its_input(kind):
    """Nothing else is left where the opset has no Gelu."""
    text = f'g (float[B,8] x) => (float[B,8] y) {{ a = other.Operator(x)  y = Gelu<approximate = "{kind}">(a) }}'
    model = parse(text)
    apply(lowering.ELEMENTWISE_GELU, model)
    assert "Gelu" not in ops(model)
    model.graph.node(0).replace_input_with(0, None)
    ir.convenience.replace_all_uses_with(model.graph.node(0).outputs[0], model.graph.inputs[0])
    model.graph.remove(model.graph.node(0))
    for dtype, tolerance in ((ir.DataType.FLOAT, 1e-5), (ir.DataType.FLOAT16, 4e-3)):
        before = parse(text.replace("a = other.Operator(x)", "a = Identity(x)"))
        assert_same(retype(before, dtype), retype(ir.from_proto(ir.to_proto(model)), dtype), {"B": 4}, tolerance=tolerance)


def test_bias_gelu_refuses_a_type_without_a_kernel():
    model = retype(fill(parse(GELU), b=(8,)), ir.DataType.DOUBLE)
    assert apply(lowering.BIAS_GELU, model).misses["gelu-bias"]["seen"] == "the type is DOUBLE, wanted FLOAT or FLOAT16"
    before, after = (retype(fill(parse(GELU), b=(8,)), ir.DataType.FLOAT16) for _ in range(2))
    apply(lowering.BIAS_GELU, after)
    assert ops(after) == ["BiasGelu"]
    assert_same(before, after, {"B": 4}, tolerance=4e-3)


def test_bias_gelu_computes_the_same_and_needs_one_row():
    before, after = (fill(parse(GELU), b=(8,)) for _ in range(2))
    apply(lowering.BIAS_GELU, after)
    assert ops(after) == ["BiasGelu"]
    assert_same(before, after, {"B": 4})
    assert apply(lowering.BIAS_GELU, parse(GELU)).misses["gelu-bias"]["seen"] == "bias is not a constant"
    scalar = fill(parse(GELU.replace("float[8] b", "float[1] b")), b=(1,))
    assert apply(lowering.BIAS_GELU, scalar).misses["gelu-bias"]["seen"] == "the bias is not one row"


LINEAR = "g (float[B,S,8] x, float[8,6] w, float[6] b) => (float[B,S,6] y) { m = MatMul(x, w)  y = Add(m, b) }"


def test_a_bias_goes_into_gemm_and_computes_the_same():
    before, after = (fill(parse(LINEAR), w=(8, 6), b=(6,)) for _ in range(2))
    apply(lowering.BIAS_IN_LINEAR, after)
    assert ops(after).count("Gemm") == 1
    assert "MatMul" not in ops(after)
    assert_same(before, after, {"B": 2, "S": 3})


@pytest.mark.parametrize(
    ("old", "new", "weights", "reason"),
    [
        ("float[B,S,8] x", "float[B,8] x", {"w": (8, 6), "b": (6,)}, "x has rank 2, wanted 3"),
        ("", "", {"b": (6,)}, "weight is not a constant"),
        ("", "", {"w": (8, 6)}, "bias is not a constant"),
        ("float[6] b", "float[1] b", {"w": (8, 6), "b": (1,)}, "the bias is not one row"),
        ("float[8,6] w", "float[1,8,6] w", {"w": (1, 8, 6), "b": (6,)}, "w has rank 3, wanted 2"),
    ],
)
def test_other_biases_stay_outside(old, new, weights, reason):
    model = fill(parse(LINEAR.replace(old, new)), **weights)
    assert apply(lowering.BIAS_IN_LINEAR, model).misses["bias-in-linear"]["seen"] == reason
