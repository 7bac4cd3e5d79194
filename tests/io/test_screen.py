"""Which graphs are worth a trial, told from their nodes alone."""

import onnx
import onnx.parser
import pytest

from onnxfuse import catalog
from onnxfuse.errors import ModelError
from onnxfuse.io import screen
from tests.conftest import HEADER


def suspicion(text):
    return screen.suspicion(onnx.parser.parse_model(HEADER.format(opset=20) + text))


X = "g (int64[B,S] x) => (float[N] y)"
LOOP = "{ t = Constant <value_int = 9> ()  y = Loop (t, , ) <body = b (int64 i, bool k) => (bool k2, float o) { k2 = Identity (k)  o = Cast <to = 1> (i) }> }"


@pytest.mark.parametrize(
    "text, words",
    [
        (X + LOOP, "has Loop"),
        (X + "{ c = Cast <to = 9> (x)  y = If (c) <then_branch = a () => (float z)" + LOOP.replace("y =", "z =") + ", else_branch = b () => (float z) { z = Constant <value_float = 1.0> () }> }", "has Loop"),
        (X + "<int64[2] s = {10000, 10000}> { y = ConstantOfShape (s) }", "has ConstantOfShape of large sizes"),
        (X + "<int64[1] s = {10000}, int64 r = {9}> { a = Mul (s, r)  b = Add (a, a)  y = ConstantOfShape (b) }", "has ConstantOfShape of large sizes"),
        (X + "<float a = {0}, float b = {1e30}, float c = {1}> { y = Range (a, b, c) }", "has Range of large sizes"),
        (X + "{ a = Cast <to = 1> (x)  s = Constant <value_ints = [1, 99999]> ()  y = Expand (a, s) }", "has Expand of large sizes"),
        (X + "{ a = RandomNormal <shape = [3]> ()  y = Identity (a) }", "has RandomNormal"),
        (X + "{ a = Div (x, x)  y = Cast <to = 1> (a) }", "has a Div of whole numbers"),
        (X + "<int64 z = {0}> { a = Mod (x, z)  y = Cast <to = 1> (a) }", "has a Mod of whole numbers"),
        (X + "<int64 z = {-1}> { a = Div (x, z)  y = Cast <to = 1> (a) }", "has a Div of whole numbers"),
        (X + "<int64 o = {1}> { n = Shape (x)  q = Sub (n, o)  a = Mod (x, q)  y = Cast <to = 1> (a) }", "has a Mod of whole numbers"),
        (X + "<int64 f = {2}, int64 o = {2}> { n = Shape (x)  p = Add (n, f)  q = Sub (p, o)  c = Div (q, f)  a = Mod (x, c)  y = Cast <to = 1> (a) }", "has a Mod of whole numbers"),
        (X + "<float[9999,1] w> { a = Cast <to = 1> (x)  y = Mul (a, w) }", "has a long weight that broadcasts"),
        (X + "{ c0 = Cast <to = 1> (x)" + "".join(f"  c{at + 1} = Concat <axis = 0> (c{at}, c{at})" for at in range(9)) + "  y = Identity (c9) }", "doubles tensors"),
        (X + "{ a = Cast <to = 1> (x)  y = com.microsoft.MultiHeadAttention <num_heads = 0> (a) }", "has num_heads below 1"),
        (X + "{ a = Cast <to = 1> (x)  y = com.own.Nobody (a) }", "has Nobody"),
    ],
)  # fmt: skip
def test_what_could_do_harm_is_named(text, words):
    if "float[9999,1] w" in text:
        model = onnx.parser.parse_model(HEADER.format(opset=20) + text.replace("<float[9999,1] w>", "<float[1,1] w = {1}>"))
        model.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("w", 1, [9999, 1], [1.0] * 9999))
        assert screen.suspicion(model).startswith(words)
    else:
        assert suspicion(text).startswith(words)


@pytest.mark.parametrize(
    "text",
    [
        X + "{ a = Cast <to = 1> (x)  y = Div (a, a) }",
        X + "<int64 two = {2}> { a = Div (x, two)  y = Cast <to = 1> (a) }",
        X + "{ s = Shape (x)  a = Mod (x, s)  y = Cast <to = 1> (a) }",
        X + "<int64 i = {1}> { s = Shape (x)  n = Gather (s, i)  m = Cast <to = 7> (n)  a = Div (x, m)  y = Cast <to = 1> (a) }",
        X + "<float[1,1,8] w = {1,1,1,1,1,1,1,1}> { a = Cast <to = 1> (x)  y = Mul (a, w) }",
        X + "<int64[3] b = {1, 1, 768}> { s = Shape (x)  t = Slice (s, b, b)  c = Concat <axis = 0> (t, b)  a = Cast <to = 1> (x)  y = Expand (a, c) }",
        X + "<int64[6] folds = {1, 2, 3, 4, 6, 8}, int64[1] m = {24}, int64 i = {5}> { n = Gather (folds, i)  s = Mul (n, m)  t = Mul (s, m)  a = ConstantOfShape (t)  y = Identity (a) }",
        X + "<int64[3] f = {1, 2, 3}, int64 o = {1}, int64 two = {2}> { n = Shape (x)  p = Add (n, f)  q = Sub (p, o)  c = Div (q, f)  d = Mul (c, two)  a = Mod (x, d)  y = Cast <to = 1> (a) }",
        X + "<int64 z = {0}, int64 l = {512}, int64 o = {1}> { r = Range (z, l, o)  y = Cast <to = 1> (r) }",
        X + "{ c = Cast <to = 9> (x)  y = If (c) <then_branch = a () => (float z) { z = Constant <value_float = 1.0> () }, else_branch = b () => (float z) { z = Constant <value_float = 2.0> () }> }",
    ],
)  # fmt: skip
def test_what_encoders_are_made_of_is_not(text):
    assert suspicion(text) == ""


def test_every_operator_that_a_fusion_makes_is_known():
    made = {fusion.operator for fusion in catalog.fusions().values() if fusion.operator}
    assert made and made <= screen.PLAIN


def test_functions_are_what_their_nodes_are():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20, "own" : 1]> g (float[2] x) => (float[2] y) { y = own.twice (x) }'
        ' <domain: "own", opset_import: ["" : 20]> twice (a) => (b) { b = Add (a, a) }'
    )
    assert screen.suspicion(model) == ""
    model.functions[0].node[0].op_type = "Nobody"
    assert screen.suspicion(model) == "has Nobody"


def test_a_weight_that_onnx_cannot_read_is_refused():
    model = onnx.parser.parse_model(HEADER.format(opset=20) + X + "<int64 z = {1}> { a = Mod (x, z)  y = Cast <to = 1> (a) }")
    model.graph.initializer[0].segment.begin = 1
    with pytest.raises(ModelError, match="weight 'z' cannot be read as a tensor"):
        screen.suspicion(model)
