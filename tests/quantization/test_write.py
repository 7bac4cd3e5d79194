"""The int8 graph: what is stored, what stays float, and how close it stays."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.config import Scheme
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.quantization.linears import why_none
from onnxfuse.quantization.prepare import prepare
from onnxfuse.quantization.write import DYNAMIC, QDQ, QOPERATOR, SWITCHES, write
from onnxfuse.runtime.sessions import open_session, run
from tests.conftest import fill, ops, parse

LINEAR = "g (float[B,256] x, float[256,128] w, float[128] b) => (float[B,128] y) { p = MatMul(x, w)  y = Add(p, b) }"
TIED = """g (int64[B,S] ids, float[300,64] table) => (float[B,S,300] y, float[B,S,64] e)
    { e = Gather(table, ids)  t = Transpose<perm = [1, 0]>(table)  y = MatMul(e, t) }"""
FORMATS = [(DYNAMIC, False), (QOPERATOR, True), (QDQ, True)]


def quantized(model, batches=None, format=DYNAMIC, keep=(), **scheme):
    return write(prepare(model, Scheme(**scheme), batches), keep, format)


def linear():
    return fill(parse(LINEAR), w=(256, 128), b=(128,))


def outputs(model, feeds):
    return run(open_session(ir.to_proto(model).SerializeToString()), feeds)


def rows(count, seed=1):
    return {"x": np.random.default_rng(seed).standard_normal((count, 256)).astype(np.float32)}


def batches():
    return [rows(16, seed) for seed in range(4)]


@pytest.mark.parametrize(("format", "static"), FORMATS)
def test_a_product_becomes_u8_times_s8_and_stays_close(format, static):
    after = quantized(linear(), batches, format, static=static)
    assert (
        ops(after)
        == {
            DYNAMIC: ["Add", "Cast", "DynamicQuantizeLinear", "MatMulInteger", "Mul", "Mul"],
            QOPERATOR: ["Add", "MatMulIntegerToFloat", "QuantizeLinear"],
            QDQ: ["Add", "DequantizeLinear", "DequantizeLinear", "MatMul", "QuantizeLinear"],
        }[format]
    )
    types = {v.name: v.const_value.dtype for v in after.graph.initializers.values()}
    assert ir.DataType.INT8 in types.values()
    assert not any(
        v.const_value.dtype == ir.DataType.FLOAT and v.const_value.size > 128 for v in after.graph.initializers.values()
    )
    wanted, got = outputs(linear(), rows(5))["y"], outputs(after, rows(5))["y"]
    # steps of 1/255 of the largest activation and 1/127 of the largest weight, 256 products deep
    assert np.abs(got - wanted).max() / np.abs(wanted).max() < 0.03
    assert not np.array_equal(got, wanted)


def test_a_static_answer_does_not_depend_on_its_neighbours():
    alone, loud = rows(1), {"x": np.concatenate([rows(1)["x"], 50 * rows(3)["x"]])}
    static, dynamic = quantized(linear(), batches, QDQ, static=True), quantized(linear(), batches)
    # the same int8; only the order of float32 products differs with the number of rows
    np.testing.assert_allclose(outputs(static, alone)["y"][0], outputs(static, loud)["y"][0], atol=2e-5)
    assert np.abs(outputs(dynamic, alone)["y"][0] - outputs(dynamic, loud)["y"][0]).max() > 0.1


def test_kept_products_stay_float_and_exact():
    model = linear()
    name = next(node for node in model.graph if node.op_type == "MatMul").outputs[0].name
    after = quantized(model, keep=(name,))
    assert ops(after) == ["Add", "MatMul"]
    np.testing.assert_array_equal(outputs(after, rows(2))["y"], outputs(linear(), rows(2))["y"])


def test_switches_choose_each_product():
    text = """g (float[B,256] x, float[256,256] w, float[256,128] u) => (float[B,128] y) { h = MatMul(x, w)  y = MatMul(h, u) }"""

    def model():
        return fill(parse(text), w=(256, 256), u=(256, 128))

    prepared = prepare(model(), Scheme())
    both, first, none = (
        outputs(write(prepared, switched=True), rows(3) | {SWITCHES: np.array(flags)})["y"]
        for flags in ([True, True], [True, False], [False, False])
    )
    np.testing.assert_allclose(both, outputs(write(prepared), rows(3))["y"], rtol=1e-5)
    np.testing.assert_allclose(first, outputs(write(prepared, (prepared.linears[1].name,)), rows(3))["y"], rtol=1e-5)
    np.testing.assert_array_equal(none, outputs(model(), rows(3))["y"])


def test_tied_embeddings_are_stored_once():
    before, after = fill(parse(TIED), table=(300, 64)), quantized(fill(parse(TIED), table=(300, 64)))
    tables = [v for v in after.graph.initializers.values() if v.const_value.size == 300 * 64]
    assert [t.const_value.dtype for t in tables] == [ir.DataType.INT8]
    ids = {"ids": np.arange(12).reshape(3, 4)}
    wanted, got = outputs(before, ids), outputs(after, ids)
    assert np.abs(got["e"] - wanted["e"]).max() <= np.abs(wanted["e"]).max() / 100  # half a step, where pairs widen it by a half
    assert np.abs(got["y"] - wanted["y"]).max() / np.abs(wanted["y"]).max() < 0.03


def test_embeddings_can_stay_float():
    text = "g (int64[B,S] ids, float[300,64] table) => (float[B,S,64] y, float[B,S,300] z) { e = Gather(table, ids)  y = Relu(e)  z = MatMul(e, w) }"
    text = text.replace("float[300,64] table", "float[300,64] table, float[64,300] w")
    for embeddings in ({}, {"embeddings": False}):
        model = quantized(fill(parse(text), table=(300, 64), w=(64, 300)), **embeddings)
        types = [v.const_value.dtype for v in model.graph.initializers.values() if v.const_value.shape.numpy() == (300, 64)]
        assert types == [ir.DataType.FLOAT if embeddings else ir.DataType.INT8]
    model = quantized(fill(parse(TIED), table=(300, 64)), embeddings=False)
    assert any(
        v.const_value.dtype == ir.DataType.FLOAT and v.const_value.size == 300 * 64 for v in model.graph.initializers.values()
    )


def test_equal_inputs_are_quantized_once():
    text = """g (float[B,256] x, float[256,128] w, float[256,128] u) => (float[B,128] y, float[B,128] z)
        { y = MatMul(x, w)  z = MatMul(x, u) }"""
    model = quantized(fill(parse(text), w=(256, 128), u=(256, 128)), batches)
    assert ops(model).count("DynamicQuantizeLinear") == 1
    assert ops(model).count("MatMulInteger") == 2


def test_small_and_runtime_weights_stay_float():
    text = """g (float[B,256] x, float[256,128] w, float[128,4] head, float[4,4] free) => (float[B,4] y)
        { a = MatMul(x, w)  b = MatMul(a, head)  y = MatMul(b, free) }"""
    assert ops(quantized(fill(parse(text), w=(256, 128), head=(128, 4)))).count("MatMul") == 2


@pytest.mark.parametrize("given", [None, batches])
def test_a_weight_with_nan_is_refused(given):
    model = linear()
    broken = model.graph.initializers["w"].const_value.numpy().copy()
    broken[3, 3] = np.nan
    model.graph.initializers["w"].const_value = ir.tensor(broken)
    with pytest.raises(ModelError, match="weight w holds NaN"):
        quantized(model, given)


def test_an_activation_that_is_not_finite_is_refused():
    with pytest.raises(ModelError, match="x is not finite on the calibration data"):
        quantized(linear(), lambda: [{"x": np.full((2, 256), np.inf, np.float32)}])


@pytest.mark.parametrize(("format", "static"), FORMATS)
def test_an_int8_model_is_refused(format, static):
    with pytest.raises(ModelError, match="int8 already"):
        quantized(quantized(linear(), batches, format, static=static))


def test_an_fp16_model_is_refused():
    model = linear()
    for value in model.graph.initializers.values():
        value.const_value = ir.tensor(value.const_value.numpy().astype(np.float16))
        value.dtype = ir.DataType.FLOAT16
    with pytest.raises(ModelError, match="FLOAT16, wanted FLOAT"):
        quantized(model)


def test_nothing_to_quantize_is_refused():
    with pytest.raises(ModelError, match="no matrix product"):
        quantized(parse("g (float[B,4] x) => (float[B,4] y) { y = Relu(x) }"))


def test_why_nothing_is_worth_quantizing():
    ones = ", ".join("1" * 128 * 128)
    inside = parse(f"""g (float[B,128] x, bool c) => (float[B,128] y) {{ y = If(c) <then_branch = t () => (float[B,128] p)
        <float[128,128] w = {{{ones}}}> {{ p = MatMul(x, w) }}, else_branch = e () => (float[B,128] q) {{ q = Relu(x) }}> }}""")
    assert "its 1 matrix products stand in bodies" in why_none(inside)
    given = parse("g (float[B,128] x, float[128,128] w) => (float[B,128] y) { y = MatMul(x, w) }")
    assert "no matrix product" in why_none(given)
    given.graph.inputs[1].const_value = ir.tensor(np.ones((128, 128), np.float32))
    given.graph.register_initializer(given.graph.inputs[1])
    assert "callers may override its weights, which stand among the inputs (w)" in why_none(given)


def test_static_needs_calibration():
    with pytest.raises(UsageError, match="static int8 needs calibration data"):
        quantized(linear(), static=True)


@pytest.mark.parametrize(
    "wrong", [{"rounding": "up"}, {"ranges": "all"}, {"format": "onnx"}, {"smooth": "much"}, {"smooth": 1.5}]
)
def test_a_wrong_scheme_is_refused(wrong):
    assert Scheme(smooth=0.0).smooth == 0
    assert Scheme(smooth=1.0).smooth == 1
    with pytest.raises(UsageError, match=r"choose one of|wanted auto, off"):
        Scheme(**wrong)


MEAN = """g (float[B,S,128] x, int64[B,S] mask, float[128,128] before, float[128,128] behind) => (float[B,128] y)
    <int64[1] tokens = {1}, int64[1] last = {-1}, float least = {0.000000001}> {
    h = MatMul(x, before)  m = Unsqueeze(mask, last)  f = Cast<to = 1>(m)  k = Mul(h, f)  s = ReduceSum<keepdims = 0>(k, tokens)
    c = ReduceSum<keepdims = 0>(f, tokens)  d = Div(s, c)  y = MatMul(d, behind) }"""


@pytest.mark.parametrize(
    ("text", "int8"),
    [
        (MEAN, 1),
        (MEAN.replace("d = Div(s, c)", "a = Max(c, least)  d = Div(s, a)"), 2),
        (MEAN.replace("d = Div(s, c)", "d = Sub(s, c)"), 2),
        (MEAN.replace("(f, tokens)", "(e, tokens)").replace("c = R", "e = Exp(f)  c = R"), 2),  # as in a softmax: never zero
    ],
)
def test_a_row_without_a_token_leaves_the_others_as_they_are(text, int8):
    """A mean over no token is NaN, and so would be the scale of all rows."""
    model = fill(parse(text), before=(128, 128), behind=(128, 128))
    after = quantized(model.clone())
    assert ops(after).count("MatMulInteger") == int8
    feeds = {
        "x": np.random.default_rng(0).standard_normal((2, 3, 128)).astype(np.float32),
        "mask": np.array([[1, 1, 0], [0, 0, 0]]),
    }
    with_none, alone = outputs(after, feeds)["y"], outputs(after, {name: array[:1] for name, array in feeds.items()})["y"]
    assert np.isfinite(with_none[0]).all()
    np.testing.assert_allclose(with_none[0], alone[0], rtol=0, atol=0.05 * np.abs(alone).max())


SHARED = "g (float[B,128] x, float[128,128] w) => (float[B,128] y) { a = MatMul(x, w)  b = Tanh(a)  y = MatMul(b, w) }"


@pytest.mark.parametrize(("format", "static"), FORMATS)
def test_a_matrix_that_layers_share_is_stored_once(format, static):
    model = fill(parse(SHARED), w=(128, 128))
    x = {"x": np.random.default_rng(1).standard_normal((5, 128)).astype(np.float32)}
    after = quantized(model.clone(), lambda: [x], format, static=static)
    stored = [value.const_value for value in after.graph.initializers.values() if value.const_value.dtype == ir.DataType.INT8]
    assert [tensor.shape.numpy() for tensor in stored] == [(128, 128)]
    wanted, got = outputs(model, x)["y"], outputs(after, x)["y"]
    assert np.abs(got - wanted).max() / np.abs(wanted).max() < 0.03
