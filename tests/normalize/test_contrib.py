"""ONNX Runtime's fused operators come apart into standard ones that compute the same."""

import pytest

from onnxfuse.normalize.contrib import take_apart
from tests.conftest import assert_same, fill, ops, parse

NORM = "g (float[B,S,8] x, float[B,S,8] r, float[8] w, float[8] n, float[8] b) => ({out}) {{ {body} }}"


@pytest.mark.parametrize(("body", "out", "wanted"), [
    ("y = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(x, r, w, n)", "float[B,S,8] y", ["Add", "LayerNormalization"]),
    ("y = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(x, r, w, n, b)", "float[B,S,8] y", ["Add", "Add", "LayerNormalization"]),
    ("m = MatMul(x, sq)  y = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(r, m, w, n, b)", "float[B,S,8] y",
     ["Add", "Add", "LayerNormalization", "MatMul"]),
    ('y, p, q, s = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(x, r, w, n)', "float[B,S,8] y, float[B,S,8] s",
     ["Add", "LayerNormalization"]),
    ("y = com.microsoft.BiasGelu(x, b)", "float[B,S,8] y", ["Add", "Gelu"]),
    ("y = com.microsoft.FastGelu(x, b)", "float[B,S,8] y", ["Add", "Gelu"]),
    ("y = com.microsoft.FastGelu(x)", "float[B,S,8] y", ["Gelu"]),
    ("y = com.microsoft.Gelu(x)", "float[B,S,8] y", ["Gelu"]),
])
def test_an_operator_comes_apart(body, out, wanted):
    text = NORM.format(body=body, out=out)
    shapes = {"w": (8,), "n": (8,), "b": (8,)}
    if "sq" in body:
        text, shapes = text.replace("float[8] b)", "float[8] b, float[8,8] sq)"), shapes | {"sq": (8, 8)}
    before, after = (fill(parse(text), **shapes) for _ in range(2))
    assert take_apart(after) == 1
    assert ops(after) == wanted
    assert_same(before, after, {"B": 2, "S": 3}, tolerance=1e-3 if "FastGelu" in body else 1e-5)  # its kernel approximates tanh


def test_the_bias_joins_the_product():
    """So that a linear layer is product and bias again."""
    text = NORM.format(body="m = MatMul(x, sq)  y = com.microsoft.SkipLayerNormalization(r, m, w, n, b)", out="float[B,S,8] y")
    model = fill(parse(text.replace("float[8] b)", "float[8] b, float[8,8] sq)")), w=(8,), n=(8,), b=(8,), sq=(8, 8))
    take_apart(model)
    bias = next(node for node in model.graph if node.op_type == "Add")
    assert [value.name for value in bias.inputs] == ["m", "b"]


EMBED = """g (int32[B,S] ids, int32[B,S] kinds, int32[B,S] at, float[9,8] words, float[16,8] places, float[4,8] segments, float[8] w, float[8] n)
    => (float[B,S,8] y, float[B,S,8] s) { %s }"""


@pytest.mark.parametrize("inputs", ["ids, kinds, words, places, segments, w, n", "ids, , words, places, , w, n",
                                    "ids, kinds, words, places, segments, w, n, , at"])
def test_embeddings_come_apart(inputs):
    text = EMBED % f"y, unread, s = com.microsoft.EmbedLayerNormalization<epsilon = 0.001>({inputs})"
    before, after = (fill(parse(text), words=(9, 8), places=(16, 8), segments=(4, 8), w=(8,), n=(8,)) for _ in range(2))
    assert take_apart(after) == 1
    assert_same(before, after, {"B": 2, "S": 3})


def test_an_output_without_parts_keeps_the_operator():
    text = NORM.format(body="y, mean = com.microsoft.SkipLayerNormalization(x, r, w, n)", out="float[B,S,8] y, float[B,S,1] mean")
    model = fill(parse(text), w=(8,), n=(8,), b=(8,))
    assert take_apart(model) == 0
    assert ops(model) == ["SkipLayerNormalization"]
