"""Symbolic shapes and shape arithmetic: what is known, and what must stay unknown."""

import pytest

from onnxfuse.normalize.folding import fold
from onnxfuse.rewrite import Trace
from onnxfuse.rewrite.facts import Dim
from tests.conftest import facts_of, parse

B, S = Dim(1, ("B",)), Dim(1, ("S",))


def fact(text: str, name: str, opset: int = 23):
    model = parse(text, opset)
    value = next(v for node in model.graph for v in node.outputs if v.name == name)
    return facts_of(model)[value]


def test_dimensions_multiply_and_divide_exactly():
    assert Dim(12) * B * S == Dim(12, ("B", "S"))
    assert (Dim(768) * B).divide(Dim(64)) == Dim(12, ("B",))
    assert (Dim(768) * B).divide(S) is None
    assert Dim(7).divide(Dim(2)) is None
    assert Dim(0) * S == Dim(0)


def test_a_computed_reshape_target_is_followed():
    shape = fact("""g (float[B,S,12] x) => (float[B,S,3,4] y) <int64[1] a = {0}, int64[1] b = {1}, int64[2] c = {3, 4}, int64 zero = {0}>
        { s = Shape(x)  d = Gather(s, a)  e = Gather(s, b)  t = Concat<axis = 0>(d, e, c)  y = Reshape(x, t) }""", "y").shape
    assert shape == (B, S, Dim(3), Dim(4))


def test_reshape_infers_minus_one_and_copies_zero():
    assert fact("g (float[B,S,12] x) => (float[B,N] y) <int64[2] t = {0, -1}> { y = Reshape(x, t) }", "y").shape == (B, Dim(12) * S)
    assert fact("g (float[B,S,12] x) => (float[M,N] y) <int64[2] t = {-1, 12}> { y = Reshape(x, t) }", "y").shape == (B * S, Dim(12))


def test_sizes_that_may_differ_broadcast_to_a_fresh_one():
    shape = fact("g (float[B,4] x, float[C,4] z) => (float[D,4] y) { y = Add(x, z) }", "y").shape
    assert shape[1] == Dim(4)
    assert shape[0] not in (B, Dim(1, ("C",)))


def test_an_annotation_in_the_file_is_not_trusted():
    text = "g (float[B,4] x) => (float[7,7] y) { t = FancyUnknown(x)  y = Relu(t) }"
    model = parse(text.replace("FancyUnknown", "com.microsoft.FancyUnknown"))
    assert facts_of(model)[model.graph.outputs[0]].shape is None


def test_ranges_and_their_broadcasts_are_coordinates():
    text = """g (int64[B,S] x) => (int64[P,Q] y) <int64 zero = {0}, int64 one = {1}, int64[1] last = {1}, int64[1] first = {0}>
        { s = Shape(x)  b = Gather(s, zero)  r = Range(zero, b, one)  u = Unsqueeze(r, last)
          n = Gather(s, one)  m = Mul(u, n)  q = Range(zero, n, one)  v = Unsqueeze(q, first)  y = Add(v, m) }"""
    assert fact(text, "u").index == ((0, Dim(1)),)
    assert fact(text, "y").index == ((0, S), (1, Dim(1)))
    assert fact(text, "y").shape == (B, S)


def test_a_range_is_never_negative():
    head = "g (int64[S] x) => (bool[S] y) <int64 zero = {0}, int64 one = {1}, int64 at = {0}> { s = Shape(x)  n = Gather(s, at)"
    assert fact(head + " r = Range(zero, n, one)  y = GreaterOrEqual(r, zero) }", "y").uniform is True
    assert fact(head + " r = Range(zero, n, one)  y = GreaterOrEqual(r, one) }", "y").uniform is None


def test_a_range_compared_as_before_opset_12_is_never_negative_either():
    head = "g (int64[S] x) => (bool[S] y) <int64 zero = {0}, int64 one = {1}, int64 at = {0}> { s = Shape(x)  n = Gather(s, at)"
    assert fact(head + " r = Range(zero, n, one)  y = Less(r, zero) }", "y").uniform is False
    assert fact(head + " r = Range(zero, n, one)  l = Less(r, zero)  y = Not(l) }", "y").uniform is True
    assert fact(head + " r = Range(zero, n, one)  y = Less(r, one) }", "y").uniform is None


@pytest.mark.parametrize(("numbers", "quotient"), [("{50}, int64[1] b = {3}", 16), ("{-7}, int64[1] b = {2}", -3)])
def test_integers_divide_as_onnx_divides_them(numbers, quotient):
    assert fact(f"g (int64[1] x) => (int64[1] y) <int64[1] a = {numbers}> {{ y = Div(a, b) }}", "y").data == (Dim(quotient),)


def test_division_by_zero_is_not_known():
    assert fact("g (int64[1] x) => (int64[1] y) <int64[1] a = {1}, int64[1] b = {0}> { y = Div(a, b) }", "y").data[0].number is None


def test_what_folding_finds_is_known_to_its_readers():
    """No law says what Mod gives: ONNX Runtime computes it, and then the Slice's size is known."""
    model = parse("""g (float[B,12] x) => (float[P,Q] y) <int64[1] a = {16}, int64[1] b = {12}, int64[1] zero = {0}, int64[1] axis = {1}>
        { e = Mod(a, b)  c = Slice(x, zero, e, axis)  y = Relu(c) }""")
    facts = facts_of(model)
    relu = list(model.graph)[-1].outputs[0]
    assert facts.shape(relu)[1].number is None
    assert fold(model, facts, Trace())
    assert facts.shape(relu) == (B, Dim(4))


def test_a_cut_range_meets_the_size_that_cut_it():
    text = """g (float[B,S,4] x, float[1,512,4] table) => (float[B,S,4] y) <int64[1] at = {1}, int64[1] zero = {0}>
        { s = Shape(x)  n = Gather(s, at)  p = Slice(table, zero, n, at)  y = Add(x, p) }"""
    assert fact(text, "y").shape == (B, S, Dim(4))


@pytest.mark.parametrize(("op", "wanted"), [
    ("y = Transpose<perm = [0, 2, 1]>(x)", (B, Dim(4), S)),
    ("y = ReduceMean<keepdims = 0>(x, last)", (B, S)),
    ("y = ReduceMean(x, last)", (B, S, Dim(1))),
    ("y = MatMul(x, w)", (B, S, Dim(6))),
    ("y, z = Split<axis = -1, num_outputs = 2>(x)", (B, S, Dim(2))),
    ("y = Flatten<axis = 2>(x)", (B * S, Dim(4))),
    ("y = Softmax(x)", (B, S, Dim(4))),
    ("y = Gather<axis = 1>(x, zero)", (B, Dim(4))),
    ("y = Squeeze(one_row, first)", (S,)),
])
def test_shape_laws(op, wanted):
    text = f"""g (float[B,S,4] x, float[4,6] w, float[1,S] one_row) => (float[P] y)
        <int64[1] last = {{-1}}, int64 zero = {{0}}, int64[1] first = {{0}}> {{ {op} }}"""
    assert fact(text, "y").shape == wanted


def test_int8_operators_pass_shapes_on():
    text = """g (float[B,S,12] x, float step, uint8 zero, int8[12,8] w, float[8] s) => (float[B,S,8] y, float[B,S,8] z, float[B,S,8] v)
        { q = QuantizeLinear(x, step, zero)  d = DequantizeLinear(q, step, zero)  e = DequantizeLinear<axis = 1>(w, s)
          y = MatMul(d, e)  r, t, o = DynamicQuantizeLinear(x)  i = MatMulInteger(r, w, o)  f = Cast<to = 1>(i)
          m = Mul(t, s)  z = Mul(f, m)  v = com.microsoft.MatMulIntegerToFloat(q, w, step, s, zero) }"""
    for name in ("y", "z", "v"):
        assert fact(text, name).shape == (B, S, Dim(8))
    assert fact(text, "t").shape == ()
    assert fact(text, "q").dtype == fact(text, "o").dtype
