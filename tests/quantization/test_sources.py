"""Rounding right behind what computes a value: where it goes, that nothing else changes, and what OpenVINO makes of it."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.config import Scheme
from onnxfuse.quantization.prepare import prepare
from onnxfuse.quantization.sources import SOURCE
from onnxfuse.quantization.write import QDQ, write
from onnxfuse.runtime.sessions import open_session, run
from tests.conftest import fill, ops, parse

NORM = "h = LayerNormalization<axis = -1>(x, gain, shift)  p = MatMul(h, w)  y = Add(p, h)"
ALONE = "h = LayerNormalization<axis = -1>(x, gain, shift)  y = MatMul(h, w)"
ROWS = "m = MatMul(x, u)  r = Reshape(m, flat)  g = Gather(r, at)  p = MatMul(g, w)  y = Reshape(p, whole)"
TWICE = "h = LayerNormalization<axis = -1>(x, gain, shift)  p = MatMul(h, w)  q = MatMul(h, u)  s = Add(p, q)  y = Add(s, h)"


def model(body):
    text = f"""g (float[B,S,128] x, float[128] gain, float[128] shift, float[128,128] w, float[128,128] u) => (float[B,S,128] y)
        <int64[2] flat = {{-1, 128}}, int64[3] whole = {{2, 3, 128}}, int64[6] at = {{5, 4, 3, 2, 1, 0}}> {{ {body} }}"""
    return fill(parse(text), gain=(128,), shift=(128,), w=(128, 128), u=(128, 128))


def rows(seed):
    x = np.random.default_rng(seed).standard_normal((2, 3, 128)).astype(np.float32)
    return {"x": x * np.linspace(0.2, 5, 128, dtype=np.float32)}


def batches():
    return [rows(seed) for seed in range(4)]


def quantized(body, format=SOURCE, keep=(), **scheme):
    scheme = Scheme(**{"static": True, "format": format, "smooth": "off", "rounding": "nearest"} | scheme)
    return write(prepare(model(body), scheme, batches), keep, format)


def outputs(model, feeds):
    return run(open_session(ir.to_proto(model).SerializeToString(), optimize=False), feeds)["y"]


def rounding(model):
    return [node for node in model.graph if node.op_type == "QuantizeLinear"]


@pytest.mark.parametrize("body", [NORM, ALONE, ROWS, TWICE])
def test_what_is_computed_is_the_same(body):
    before, after = quantized(body, QDQ), quantized(body)
    for seed in (0, 9):
        wanted, got = outputs(before, rows(seed)), outputs(after, rows(seed))
        close = np.abs(got - wanted) <= 1e-5 * np.abs(wanted).max()
        assert close.mean() > 0.99, "all but what a last bit rounds to the next step"
        np.testing.assert_allclose(got, wanted, rtol=0, atol=0.02 * np.abs(wanted).max())


def test_a_norm_that_others_read_is_there_for_the_rounding_too():
    after = quantized(NORM)
    assert ops(after).count("LayerNormalization") == 2
    (node,) = rounding(after)
    norm = node.inputs[0].producer()
    assert norm.op_type == "LayerNormalization" and len(norm.outputs[0].uses()) == 1
    assert node.inputs[1].const_value.numpy() == 1, "the norm gives steps"
    (restored,) = (user for user, _ in node.outputs[0].uses())
    step = restored.inputs[1].const_value.numpy()
    np.testing.assert_allclose(
        norm.inputs[1].const_value.numpy() * step, model(NORM).graph.initializers["gain"].const_value.numpy()
    )
    assert ops(quantized(NORM, QDQ)).count("LayerNormalization") == 1


def test_layers_that_read_one_norm_share_its_double():
    after = quantized(TWICE)
    assert (ops(after).count("LayerNormalization"), len(rounding(after))) == (2, 1)


def test_smoothing_goes_into_the_norm_that_is_there_for_the_rounding():
    """In front of a norm that a residual reads it would be a multiplication."""
    assert "Mul" in ops(quantized(NORM, QDQ, smooth=0.5)) and "Mul" not in ops(quantized(NORM, smooth=0.5))


def test_a_layer_that_stays_float_reads_the_norm_itself():
    name = next(node for node in model(NORM).graph if node.op_type == "MatMul").outputs[0].name
    assert ops(quantized(NORM, keep=(name,))) == ["Add", "LayerNormalization", "MatMul"]


def test_rows_are_moved_as_eight_bits():
    after = quantized(ROWS)
    second = rounding(after)[1]
    assert second.inputs[0].producer().op_type == "MatMul"
    (restored,) = (user for user, _ in second.outputs[0].uses())
    assert [user.op_type for user, _ in restored.outputs[0].uses()] == ["Reshape"]
    assert next(node for node in after.graph if node.op_type == "Gather").outputs[0].uses()[0].node.op_type == "MatMul"


@pytest.mark.parametrize(
    "body",
    [
        ROWS.replace("m = MatMul(x, u)", "m = Relu(x)"),  # no product computes it
        ROWS.replace("y = Reshape(p, whole)", "z = Add(p, g)  y = Reshape(z, whole)"),  # something else reads what was moved
    ],
)
def test_a_rounding_stays_where_it_would_be_one_more(body):
    assert rounding(quantized(body))[-1].inputs[0].producer().op_type == "Gather"


def test_openvino_rounds_in_the_step_before(tmp_path):
    """No rounding is an operator of its own there: that of a norm and that of a product."""
    openvino = pytest.importorskip("openvino")
    path = tmp_path / "model.onnx"
    body = NORM.replace("y = Add", "s = Add").replace("(p, h)", "(p, h)") + "  " + ROWS.replace("MatMul(x, u)", "MatMul(s, u)")
    counts = {}
    for format in (QDQ, SOURCE):
        ir.save(
            quantized(body.replace("  p = MatMul(g, w)", "  p2 = MatMul(g, w)").replace("Reshape(p,", "Reshape(p2,"), format),
            path,
        )
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ordered_ops()]
        counts[format] = kinds.count("FakeQuantize")
    assert counts[SOURCE] < counts[QDQ]
