"""Our own operators: each part of a linear layer goes into it by its own rule, attention and layers too; all else stays."""

import re

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.fusions import native, native_layers
from onnxfuse.fusions.native_layers import JoinLayers
from onnxfuse.native import functions
from onnxfuse.rewrite.passes import Rules
from onnxfuse.rewrite.proof import Prover, Verdict
from onnxfuse.rewrite.shapes.native import DOMAIN
from tests.conftest import apply, assert_same, fill, normalized, ops, parse, retype

SIZES = {"B": 2, "S": 3}

VECTORS = {"b": (8,), "g": (8,), "n": (8,)}

LAYER = """g (float[B,S,6] x, float[6,8] w, float[8] b, float[B,S,8] r, float[8] g, float[8] n) => (float[B,S,8] y)
    { m = MatMul(x, w)  h = Add(m, b)  a = Gelu<approximate = "tanh">(h)  s = Add(a, r)
      y = LayerNormalization<axis = -1, epsilon = 0.0001>(s, g, n) }"""


def made(text, rules=native.LINEAR, **shapes):
    before, after = (fill(parse(text), w=(6, 8), **VECTORS | shapes) for _ in range(2))
    trace = apply(rules, after)
    functions.complete(after)
    return before, after, trace


def ours(model):
    return [(node.op_type, functions.attributes_of(node)) for node in model.graph if node.domain == DOMAIN]


def test_all_parts_of_a_linear_layer_become_one_operator():
    before, after, _ = made(LAYER)
    [(name, attributes)] = ours(after)
    assert name == "Linear"
    assert attributes["activation"] == "GeluTanh"
    assert attributes["epsilon"] == pytest.approx(1e-4)
    assert len(after.graph) == 1
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        ('Gelu<approximate = "tanh">(h)', "Gelu(h)", []),
        ('Gelu<approximate = "tanh">(h)', "Relu(h)", ["Add", "LayerNormalization", "Relu"]),
        ("h = Add(m, b)", "h = Add(b, m)", []),
        ("s = Add(a, r)", "s = Add(r, a)", []),
        ("s = Add(a, r)", "s = Sum(a, r)", []),
        ("(s, g, n)", "(s, g)", []),
        ("axis = -1", "axis = 2", []),
        ("h = Add(m, b)", "h = Identity(m)", []),
        ("s = Add(a, r)", "s = Identity(a)", []),
    ],
)
def test_spellings(old, new, left):
    assert old in LAYER
    before, after, _ = made(LAYER.replace(old, new))
    assert [name for name in ops(after) if name != "Linear"] == left
    assert len(ours(after)) == 1
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("text", "rule", "reason", "shapes"),
    [
        (LAYER.replace("float[B,S,8] r", "float[1,S,8] r"), "native-residual", "the residual broadcasts", {}),
        (LAYER.replace("axis = -1", "axis = 1"), "native-norm", "the norm is not over the last dimension", {}),
        (LAYER.replace("float[8] b,", "float[1,S,8] b,"), "native-bias", "bias is not a constant", {"b": None}),
        (LAYER.replace("float[8] b,", "float[1,8] b,"), "native-bias", "bias is not [8]", {"b": (1, 8)}),
        (LAYER.replace("float[8] g,", "float[1,8] g,"), "native-norm", "gamma is not [8]", {"g": (1, 8)}),
        (LAYER.replace("float[8] n)", "float[1,8] n)"), "native-norm", "beta is not [8]", {"n": (1, 8)}),
        (LAYER.replace("=> (float[B,S,8] y)", "=> (float[B,S,8] y, float[B,S,8] s)"), "native-norm", "also a graph output", {}),
        (
            LAYER.replace("float[6,8] w", "float[2,6,8] w").replace("[B,S", "[2,S"),
            "native-linear",
            "rank 3, wanted 2",
            {"w": (2, 6, 8)},
        ),
    ],
)
def test_what_is_refused(text, rule, reason, shapes):
    given = {"w": (6, 8)} | VECTORS | shapes
    model = fill(parse(text), **{name: shape for name, shape in given.items() if shape is not None})
    trace = apply(native.LINEAR, model)
    assert reason in trace.misses[rule]["seen"]


def test_a_weight_from_outside_is_no_weight():
    model = fill(parse(LAYER), **VECTORS)
    trace = apply(native.LINEAR, model)
    assert trace.misses["native-linear"]["seen"] == "weight is not a constant"
    assert not ours(model)


def test_other_types_stay():
    model = retype(fill(parse(LAYER), w=(6, 8), **VECTORS), ir.DataType.DOUBLE)
    trace = apply(native.LINEAR, model)
    assert trace.misses["native-linear"]["seen"] == "x is no float32"
    assert not ours(model)


def test_a_vector_is_no_row():
    model = fill(parse("g (float[6] x, float[6,8] w) => (float[8] y) { y = MatMul(x, w) }"), w=(6, 8))
    trace = apply(native.LINEAR, model)
    assert trace.misses["native-linear"]["seen"] == "x has one dimension"


HEADS = "q_num_heads = 2, kv_num_heads = 2"

ATTENTION = f"""g (float[B,S,8] q, float[B,S,8] k, float[B,S,8] v) => (float[B,S,8] y)
    {{ y = Attention<{HEADS}>(q, k, v) }}"""

MASKED = f"""g (float[B,S,8] q, float[B,S,8] k, float[B,S,8] v, float[B,1,1,S] mask, int64[4] wide) => (float[B,S,8] y)
    {{ e = Expand(mask, wide)  y = Attention<{HEADS}, scale = 0.3>(q, k, v, e) }}"""


def attention(text, **options):
    before, after = parse(text), parse(text)
    trace = apply(native.ATTENTION, after, **options)
    functions.complete(after)
    return before, after, trace


def test_attention_without_a_mask():
    before, after, _ = attention(ATTENTION)
    assert ours(after) == [("Attention", {"num_heads": 2, "scale": 0.0, "precision": "float32"})]
    assert_same(before, after, SIZES)


def test_attention_of_fewer_queries_than_keys():
    before, after, _ = attention(
        ATTENTION.replace("float[B,S,8] q", "float[B,1,8] q").replace("(float[B,S,8] y)", "(float[B,1,8] y)")
    )
    assert [name for name, _ in ours(after)] == ["Attention"]
    assert_same(before, after, SIZES)


def test_attention_of_one_token_to_some_keys():
    text = (
        MASKED.replace("e = Expand(mask, wide)  ", "")
        .replace("q, k, v, e", "q, k, v, mask")
        .replace("float[B,S,8] q", "float[B,1,8] q")
    )
    before, after, _ = attention(text.replace("(float[B,S,8] y)", "(float[B,1,8] y)"))
    assert [name for name, _ in ours(after)] == ["Attention"]
    mask = np.array([[0, 0, -1e4], [0, -1e4, 0]], np.float32).reshape(2, 1, 1, 3)
    assert_same(before, after, SIZES, mask=mask, wide=np.array([2, 1, 3, 3]))


@pytest.mark.parametrize("kind", ["float", "bool"])
def test_attention_to_some_keys(kind):
    before, after, _ = attention(MASKED.replace("float[B,1,1,S] mask", f"{kind}[B,1,1,S] mask"))
    [(_, attributes)] = ours(after)
    assert attributes["scale"] == pytest.approx(0.3)
    mask = np.array([[1, 1, 0], [1, 0, 1]], bool).reshape(2, 1, 1, 3)
    given = mask if kind == "bool" else np.where(mask, 0, -1e4).astype(np.float32)
    assert_same(before, after, SIZES, mask=given, wide=np.array([2, 1, 3, 3]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ATTENTION.replace("kv_num_heads = 2", "kv_num_heads = 1").replace("float[B,S,8] k", "float[B,S,4] k").replace("float[B,S,8] v", "float[B,S,4] v"), "query has 2 heads, key and value 1"),
(ATTENTION.replace("float[B,S,8] q", "float[C,S,8] q").replace("(float[B,S,8] y)", "(float[C,S,8] y)"), "the queries are of C rows, the keys of B"),
        (ATTENTION.replace("float[", "double["), "q is no float32"),
        (ATTENTION.replace(HEADS, f"{HEADS}, scale = 0.0"), "the scale is 0.0; the operator takes its own for 0"),
        (MASKED.replace("float[B,1,1,S] mask", "float[B,2,1,S] mask"), "the mask is not one number for each key"),
        (MASKED.replace("float[B,1,1,S] mask", "float[B,1,S,S] mask"), "the mask is not one number for each key"),
        (MASKED.replace("float[B,1,1,S] mask", "float[1,1,1,S] mask"), "the mask is not one number for each key"),
    ],
)  # fmt: skip
def test_other_attention_stays(text, reason):
    _, after, trace = attention(text, normal=())
    assert not ours(after)
    assert reason in trace.misses["native-attention"]["seen"]


MERGED = f"""g (float[B,S,24] m) => (float[B,S,8] y) <int64[3] sizes = {{8, 8, 8}}>
    {{ q, k, v = Split<axis = -1>(m, sizes)  y = Attention<{HEADS}>(q, k, v) }}"""


def test_query_key_and_value_side_by_side():
    before, after, _ = attention(MERGED)
    assert [name for name, _ in ours(after)] == ["Attention"] == ops(after)
    assert_same(before, after, SIZES)


def test_parts_of_other_widths_stay_apart():
    text = MERGED.replace("{8, 8, 8}", "{8, 8, 12}").replace("24] m", "28] m").replace("float[B,S,8] y", "float[B,S,12] y")
    before, after, trace = attention(text)
    assert ops(after) == ["Attention", "Split"]
    assert trace.misses["native-attention-merged"]["seen"] == "query, key and value differ in width"
    assert_same(before, after, SIZES)


WEIGHTS = {
    "wm": (8, 24), "bm": (24,), "wo": (8, 8), "bo": (8,), "g1": (8,), "n1": (8,),
    "w1": (8, 12), "b1": (12,), "w2": (12, 8), "b2": (8,), "g2": (8,), "n2": (8,),
}  # fmt: skip

GIVEN = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in WEIGHTS.items())

NORM = "LayerNormalization<axis = -1, epsilon = 0.00001>"

POST = f"""mm = MatMul(x, wm)  m = Add(mm, bm)  q, k, v = Split<axis = -1>(m, sizes)  c = Attention<{HEADS}>(q, k, v)
    om = MatMul(c, wo)  o = Add(om, bo)  r = Add(o, x)  h = {NORM}(r, g1, n1)
    um = MatMul(h, w1)  u = Add(um, b1)  a = Gelu(u)  dm = MatMul(a, w2)  d = Add(dm, b2)  r2 = Add(d, h)  y = {NORM}(r2, g2, n2)"""

PRE = f"""nx = {NORM}(x, g1, n1)  mm = MatMul(nx, wm)  m = Add(mm, bm)  q, k, v = Split<axis = -1>(m, sizes)
    c = Attention<{HEADS}>(q, k, v)  om = MatMul(c, wo)  o = Add(om, bo)  h = Add(o, x)
    nh = {NORM}(h, g2, n2)  um = MatMul(nh, w1)  u = Add(um, b1)  a = Gelu(u)  dm = MatMul(a, w2)  d = Add(dm, b2)  y = Add(d, h)"""


def graph(*layers):
    """Layers behind each other, all of the same weights; values of each are its own."""
    written = []
    for at, layer in enumerate(layers):
        for name in ("mm", "om", "um", "dm", "nx", "nh", "r2", "m", "q", "k", "v", "c", "o", "r", "h", "u", "a", "d", "y"):
            layer = _renamed(layer, name, f"{name}_{at}")
        written.append(_renamed(layer, "x", f"y_{at - 1}" if at else "x"))
    last = f"y_{len(layers) - 1}"
    return f"g (float[B,S,8] x, {GIVEN}) => (float[B,S,8] {last}) <int64[3] sizes = {{8, 8, 8}}> {{ {' '.join(written)} }}"


def _renamed(text, name, other):
    return re.sub(rf"(?<![\w.]){name}(?!\w)", other, text)


def layers(*texts, edit=lambda text: text):
    text = edit(graph(*texts))
    before, after = (fill(parse(text), **WEIGHTS) for _ in range(2))
    rules = (*native.LINEAR, *native.ATTENTION, *native_layers.RULES)
    context = normalized(after, prove=True)
    for each in (Rules("lowering", rules), JoinLayers()):
        context.apply(each, after)
    functions.complete(after)
    return before, after, context.trace


@pytest.mark.parametrize(("text", "order"), [(POST, "post"), (PRE, "pre")])
@pytest.mark.parametrize("count", [1, 3])
def test_layers_become_one_operator(text, order, count):
    before, after, trace = layers(*[text] * count)
    [(name, attributes)] = ours(after)
    assert (name, attributes["order"], attributes["activation"]) == ("Encoder", order, "Gelu")
    assert len(after.graph) == 1
    assert not trace.unproven
    assert not trace.rejected
    assert trace.proven == len(trace.applications)
    assert_same(before, after, SIZES)


def test_layers_of_two_orders_are_two_operators():
    before, after, _ = layers(POST, PRE)
    assert [attributes["order"] for _, attributes in ours(after)] == ["post", "pre"]
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (PRE, "0.00001>(h_0, g2", "0.001>(h_0, g2"),
        (POST, "0.00001>(r2_0, g2", "0.001>(r2_0, g2"),
        *((text, "Gelu(u_0)", "Relu(u_0)") for text in (POST, PRE)),
        *(
            (text, "=> (", f"=> ({shown}, ")
            for text in (POST, PRE)
            for shown in ("float[B,S,8] c_0", "float[B,S,8] h_0", "float[B,S,12] a_0")
        ),
    ],
)
def test_other_layers_stay_apart(text, old, new):
    assert old in graph(text)
    before, after, _ = layers(text, edit=lambda written: written.replace(old, new, 1))
    assert "Encoder" not in ops(after)
    assert_same(before, after, SIZES)


def test_what_lies_between_layers_may_be_read():
    before, after, _ = layers(POST, POST, edit=lambda text: text.replace("=> (", "=> (float[B,S,8] y_0, "))
    assert [name for name, _ in ours(after)] == ["Encoder", "Encoder"]
    assert_same(before, after, SIZES)


def test_a_join_that_is_proven_wrong_is_not_made(monkeypatch):
    prove = Prover.prove
    monkeypatch.setattr(
        Prover,
        "prove",
        lambda self, claim, *rest: Verdict(False, "wrong") if claim.name == "native-layers" else prove(self, claim, *rest),
    )
    before, after, trace = layers(POST, POST)
    assert [name for name, _ in ours(after)] == ["Encoder", "Encoder"]
    assert "wrong" in trace.rejected["native-layers"]
    assert_same(before, after, SIZES)
