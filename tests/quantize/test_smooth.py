"""SmoothQuant: the function stays, outliers go, and a norm that nothing else reads takes the factor for free."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.quantize.calibration import observe
from onnxfuse.quantize.prepare import prepare
from onnxfuse.quantize.products import find_products
from onnxfuse.quantize.scheme import Scheme
from onnxfuse.quantize.smooth import smooth
from onnxfuse.quantize.write import write
from tests.conftest import assert_same, fill, ops, parse
from tests.quantize.test_write import outputs

FREE = """g (float[B,256] x, float[256] g, float[256] b, float[256,128] w) => (float[B,128] y)
    { n = LayerNormalization(x, g, b)  y = MatMul(n, w) }"""
READ = """g (float[B,256] x, float[256] g, float[256] b, float[256,256] w) => (float[B,256] y)
    { n = LayerNormalization(x, g, b)  p = MatMul(n, w)  y = Add(p, n) }"""
OUTLIER = 7


def model(text):
    found = fill(parse(text), g=(256,), b=(256,), w=(256, 128 if text == FREE else 256))
    gain = np.ones(256, np.float32)
    gain[OUTLIER] = 100
    found.graph.initializers["g"].const_value = ir.tensor(gain)
    return found


def rows(seed, count=32):
    return {"x": np.random.default_rng(seed).standard_normal((count, 256)).astype(np.float32)}


def batches():
    return [rows(seed) for seed in range(6)]


def smoothed(text, alpha=None):
    after = model(text)
    products = find_products(after.graph)
    seen = observe(after, {products[0].input.name: 256}, batches, moments=False)
    changed = smooth(after.graph, products, seen, levels=127, compensated=False, alpha=alpha)
    return after, changed


@pytest.mark.parametrize("alpha", [None, 0.5])
@pytest.mark.parametrize(("text", "added"), [(FREE, []), (READ, ["Mul"])])
def test_the_function_stays(text, added, alpha):
    after, changed = smoothed(text, alpha)
    assert len(changed) == 1
    assert sorted([*ops(model(text)), *added]) == ops(after)
    assert_same(model(text), after, {"B": 5})


def test_an_outlier_costs_little_after_it():
    def error(smooth):
        after = write(prepare(model(READ), Scheme(smooth=smooth, rounding="nearest"), batches))
        wanted = outputs(model(READ), rows(9))["y"]
        return np.square(outputs(after, rows(9))["y"] - wanted).mean()
    assert error("auto") < error("off") / 5


def test_what_needs_no_smoothing_gets_none():
    text = "g (float[B,256] x, float[256,128] w) => (float[B,128] y) { h = Relu(x)  y = MatMul(h, w) }"
    found = fill(parse(text), w=(256, 128))
    assert not prepare(found, Scheme(), batches).smoothed
    assert ops(found) == ["MatMul", "Relu"]


def test_a_weight_that_is_a_table_too_is_left_alone():
    text = """g (int64[B,S] ids, float[300,64] table) => (float[B,S,300] y)
        { e = Gather(table, ids)  t = Transpose<perm = [1, 0]>(table)  y = MatMul(e, t) }"""
    found = fill(parse(text), table=(300, 64))
    content = found.graph.initializers["table"].const_value.numpy().copy()
    content[:, OUTLIER] *= 100
    found.graph.initializers["table"].const_value = ir.tensor(content)
    ids = {"ids": np.arange(60).reshape(3, 20)}
    assert not prepare(found, Scheme(smooth=0.5), lambda: [ids, ids]).smoothed
    np.testing.assert_array_equal(found.graph.initializers["table"].const_value.numpy(), content)
