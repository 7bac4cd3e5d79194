"""Symbolic shapes and shape arithmetic: what is known, and what must stay unknown."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError
from onnxfuse.normalize.folding import fold
from onnxfuse.rewrite import Trace, shapes
from onnxfuse.rewrite.analysis import Dim, ValueInfo, constant, is_constant, lowest_fill, stored
from onnxfuse.rewrite.attributes import attribute, plain
from tests.conftest import analysis_of, parse

B, S = Dim(1, ("B",)), Dim(1, ("S",))


def info(text: str, name: str, opset: int = 23):
    model = parse(text, opset)
    value = next(v for node in model.graph for v in node.outputs if v.name == name)
    return analysis_of(model)[value]


def test_dimensions_multiply_and_divide_exactly():
    assert Dim(12) * B * S == Dim(12, ("B", "S"))
    assert (Dim(768) * B).divide(Dim(64)) == Dim(12, ("B",))
    assert (Dim(768) * B).divide(S) is None
    assert Dim(7).divide(Dim(2)) is None
    assert Dim(0) * S == Dim(0)


def test_a_computed_reshape_target_is_followed():
    shape = info(
        """g (float[B,S,12] x) => (float[B,S,3,4] y) <int64[1] a = {0}, int64[1] b = {1}, int64[2] c = {3, 4}, int64 zero = {0}>
        { s = Shape(x)  d = Gather(s, a)  e = Gather(s, b)  t = Concat<axis = 0>(d, e, c)  y = Reshape(x, t) }""",
        "y",
    ).shape
    assert shape == (B, S, Dim(3), Dim(4))


def test_one_computed_target_gives_one_shape():
    """Whatever it holds: to all that have the same sizes before."""
    model = parse(
        """g (float[B,S] x, int64[B,S] ids, float[S,B] z, int64[2] t, int64[2] u) => (float[M,N] y, int64[M,N] w)
        { y = Reshape(x, t)  w = Reshape(ids, t)  turned = Reshape(z, t)  other = Reshape(x, u) }""",
    )
    analysis = analysis_of(model)
    y, w, turned, other = (analysis.shape(node.outputs[0]) for node in model.graph)
    assert y == w and len(y) == 2
    assert not {*y} & {*turned} and not {*y} & {*other}, "with other sizes before, -1 and 0 in it mean others"


def test_reshape_infers_minus_one_and_copies_zero():
    assert info("g (float[B,S,12] x) => (float[B,N] y) <int64[2] t = {0, -1}> { y = Reshape(x, t) }", "y").shape == (
        B,
        Dim(12) * S,
    )
    assert info("g (float[B,S,12] x) => (float[M,N] y) <int64[2] t = {-1, 12}> { y = Reshape(x, t) }", "y").shape == (
        B * S,
        Dim(12),
    )


def test_sizes_that_may_differ_broadcast_to_a_fresh_one():
    shape = info("g (float[B,4] x, float[C,4] z) => (float[D,4] y) { y = Add(x, z) }", "y").shape
    assert shape[1] == Dim(4)
    assert shape[0] not in (B, Dim(1, ("C",)))


def test_an_annotation_in_the_file_is_not_trusted():
    text = "g (float[B,4] x) => (float[7,7] y) { t = FancyUnknown(x)  y = Relu(t) }"
    model = parse(text.replace("FancyUnknown", "com.microsoft.FancyUnknown"))
    assert analysis_of(model)[model.graph.outputs[0]].shape is None


def test_ranges_and_their_broadcasts_are_coordinates():
    text = """g (int64[B,S] x) => (int64[P,Q] y) <int64 zero = {0}, int64 one = {1}, int64[1] last = {1}, int64[1] first = {0}>
        { s = Shape(x)  b = Gather(s, zero)  r = Range(zero, b, one)  u = Unsqueeze(r, last)
          n = Gather(s, one)  m = Mul(u, n)  q = Range(zero, n, one)  v = Unsqueeze(q, first)  y = Add(v, m) }"""
    assert info(text, "u").index == ((0, Dim(1)),)
    assert info(text, "y").index == ((0, S), (1, Dim(1)))
    assert info(text, "y").shape == (B, S)


def test_a_range_is_never_negative():
    head = "g (int64[S] x) => (bool[S] y) <int64 zero = {0}, int64 one = {1}, int64 at = {0}> { s = Shape(x)  n = Gather(s, at)"
    assert info(head + " r = Range(zero, n, one)  y = GreaterOrEqual(r, zero) }", "y").uniform is True
    assert info(head + " r = Range(zero, n, one)  y = GreaterOrEqual(r, one) }", "y").uniform is None


def test_a_range_compared_as_before_opset_12_is_never_negative_either():
    head = "g (int64[S] x) => (bool[S] y) <int64 zero = {0}, int64 one = {1}, int64 at = {0}> { s = Shape(x)  n = Gather(s, at)"
    assert info(head + " r = Range(zero, n, one)  y = Less(r, zero) }", "y").uniform is False
    assert info(head + " r = Range(zero, n, one)  l = Less(r, zero)  y = Not(l) }", "y").uniform is True
    assert info(head + " r = Range(zero, n, one)  y = Less(r, one) }", "y").uniform is None


@pytest.mark.parametrize(("numbers", "quotient"), [("{50}, int64[1] b = {3}", 16), ("{-7}, int64[1] b = {2}", -3)])
def test_integers_divide_as_onnx_divides_them(numbers, quotient):
    assert info(f"g (int64[1] x) => (int64[1] y) <int64[1] a = {numbers}> {{ y = Div(a, b) }}", "y").data == (Dim(quotient),)


def test_division_by_zero_is_not_known():
    assert (
        info("g (int64[1] x) => (int64[1] y) <int64[1] a = {1}, int64[1] b = {0}> { y = Div(a, b) }", "y").data[0].number is None
    )


def test_what_folding_finds_is_known_to_its_readers():
    """No shape function knows what Mod gives: ONNX Runtime computes it, and then the Slice's size is known."""
    model = parse("""g (float[B,12] x) => (float[P,Q] y) <int64[1] a = {16}, int64[1] b = {12}, int64[1] zero = {0}, int64[1] axis = {1}>
        { e = Mod(a, b)  c = Slice(x, zero, e, axis)  y = Relu(c) }""")
    analysis = analysis_of(model)
    relu = list(model.graph)[-1].outputs[0]
    assert analysis.shape(relu)[1].number is None
    assert fold(model, analysis, Trace())
    assert analysis.shape(relu) == (B, Dim(4))


def test_a_cut_range_meets_the_size_that_cut_it():
    text = """g (float[B,S,4] x, float[1,512,4] table) => (float[B,S,4] y) <int64[1] at = {1}, int64[1] zero = {0}>
        { s = Shape(x)  n = Gather(s, at)  p = Slice(table, zero, n, at)  y = Add(x, p) }"""
    assert info(text, "y").shape == (B, S, Dim(4))


@pytest.mark.parametrize(
    ("op", "wanted"),
    [
        ("y = Transpose<perm = [0, 2, 1]>(x)", (B, Dim(4), S)),
        ("y = ReduceMean<keepdims = 0>(x, last)", (B, S)),
        ("y = ReduceMean(x, last)", (B, S, Dim(1))),
        ("y = MatMul(x, w)", (B, S, Dim(6))),
        ("y, z = Split<axis = -1, num_outputs = 2>(x)", (B, S, Dim(2))),
        ("y = Flatten<axis = 2>(x)", (B * S, Dim(4))),
        ("y = Softmax(x)", (B, S, Dim(4))),
        ("y = Gather<axis = 1>(x, zero)", (B, Dim(4))),
        ("y = Squeeze(one_row, first)", (S,)),
    ],
)
def test_shape_laws(op, wanted):
    text = f"""g (float[B,S,4] x, float[4,6] w, float[1,S] one_row) => (float[P] y)
        <int64[1] last = {{-1}}, int64 zero = {{0}}, int64[1] first = {{0}}> {{ {op} }}"""
    assert info(text, "y").shape == wanted


def test_int8_operators_pass_shapes_on():
    text = """g (float[B,S,12] x, float step, uint8 zero, int8[12,8] w, float[8] s) => (float[B,S,8] y, float[B,S,8] z, float[B,S,8] v)
        { q = QuantizeLinear(x, step, zero)  d = DequantizeLinear(q, step, zero)  e = DequantizeLinear<axis = 1>(w, s)
          y = MatMul(d, e)  r, t, o = DynamicQuantizeLinear(x)  i = MatMulInteger(r, w, o)  f = Cast<to = 1>(i)
          m = Mul(t, s)  z = Mul(f, m)  v = com.microsoft.MatMulIntegerToFloat(q, w, step, s, zero) }"""
    for name in ("y", "z", "v"):
        assert info(text, name).shape == (B, S, Dim(8))
    assert info(text, "t").shape == ()
    assert info(text, "q").dtype == info(text, "o").dtype


@pytest.mark.parametrize(
    ("dim", "text", "number", "nonnegative"),
    [
        (B, "B", None, True),
        (Dim(2) * B, "2*B", None, True),
        (Dim(1), "1", 1, True),
        (Dim(0), "0", 0, True),
        (Dim(0) * B, "0", 0, True),
        (Dim(-1), "-1", -1, False),
        (Dim(-1) * B, "-1*B", None, False),
        (Dim(1, ("~n",)), "~n", None, False),
    ],
)
def test_sizes_as_text_number_and_sign(dim, text, number, nonnegative):
    assert (str(dim), dim.number, dim.nonnegative) == (text, number, nonnegative)


@pytest.mark.parametrize(
    ("content", "known"),
    [
        (ValueInfo(), False),
        (ValueInfo(ir.DataType.FLOAT, (B, S)), False),
        (ValueInfo(data=(Dim(1), B)), False),
        (ValueInfo(data=(Dim(1), Dim(2))), True),
        (ValueInfo(data=()), True),
        (ValueInfo(uniform=0.0), True),
        (ValueInfo(uniform=False), True),
        (ValueInfo(index=()), True),
        (ValueInfo(coordinates=((),)), True),
    ],
)
def test_content_is_known_when_each_element_has_a_value(content, known):
    assert content.known is known


def test_nothing_is_known_of_an_absent_operand():
    analysis = analysis_of(parse("g (float[B] x) => (float[B] y) { y = Relu(x) }"))
    assert analysis[None] == ValueInfo()
    assert (analysis.shape(None), ValueInfo().rank, ValueInfo(shape=(B, S)).rank) == (None, None, 2)
    assert (stored(None), constant(None), is_constant(None)) == (None, None, False)


def test_what_a_caller_may_override_is_no_constant():
    model = parse("g (float[1] x, float[1] w) => (float[1] y) <float[1] c = {3}> { a = Mul(x, w)  y = Mul(a, c) }")
    given, fixed = model.graph.inputs[1], model.graph.initializers["c"]
    given.const_value = ir.tensor(np.ones(1, np.float32))
    assert (constant(given), is_constant(given), analysis_of(model)[given].uniform) == (None, False, None)
    assert (constant(fixed).tolist(), is_constant(fixed), analysis_of(model)[fixed].uniform) == ([3.0], True, 3.0)


@pytest.mark.parametrize(("dtype", "fill"), [(None, -1e4), (ir.DataType.FLOAT, -1e4), (ir.DataType.BFLOAT16, -9984.0)])
def test_the_lowest_fill_is_what_its_type_holds(dtype, fill):
    assert lowest_fill(dtype) == fill


@pytest.mark.parametrize(
    ("body", "name", "value"),
    [
        ("Transpose<perm = [1, 0]>(x)", "perm", [1, 0]),
        ("Transpose(x)", "perm", None),
        ("Softmax(x)", "axis", -1),
        ("Softmax<axis = 0>(x)", "axis", 0),
        ("Gelu(x)", "approximate", b"none"),
        ('Gelu<approximate = "tanh">(x)', "approximate", "tanh"),
        ("Softmax(x)", "nothing", None),
        ("com.acme.Blend(x)", "axis", None),
        ("com.acme.Blend<axes = [1.5]>(x)", "axes", [1.5]),
    ],
)
def test_an_attribute_is_what_was_given_or_the_default_of_the_schema(body, name, value):
    model = parse(f"g (float[2,3] x) => (float[P,Q] y) {{ y = {body} }}")
    assert attribute(next(iter(model.graph)), name, 23) == value


def test_attributes_compare_as_lists_and_text():
    assert plain((1, 2)) == [1, 2]
    assert plain([b"a", ("b", b"c")]) == ["a", ["b", "c"]]
    assert plain(b"none") == plain("none") == "none"


def test_sizes_without_a_name_are_equal_to_no_other():
    model = parse("g (float[?,4] x, float[?,4] z) => (float[P,4] y) { y = Add(x, z) }")
    analysis = analysis_of(model)
    sizes = [analysis.shape(value)[0] for value in (*model.graph.inputs, *model.graph.outputs)]
    assert len(set(sizes)) == 3
    assert all(size.number is None for size in sizes)
    assert analysis.shape(model.graph.inputs[0]) == analysis.shape(model.graph.inputs[0])


def test_a_type_that_the_law_knows_stays_where_inference_knows_nothing():
    """Gelu is of opset 20: below, only its shape function knows it."""
    model = parse("g (float[B] x) => (float[B] y) { y = Gelu(x) }", 17)
    model.graph.inputs[0].shape = None
    assert analysis_of(model)[model.graph.outputs[0]] == ValueInfo(ir.DataType.FLOAT)


def values_of(model) -> dict[str, ir.Value]:
    return {value.name: value for node in model.graph for value in node.outputs}


def test_what_is_made_from_a_value_is_computed_anew_and_content_stays():
    model = parse("""g (float[B,12] x, int64[B] ids, int64[1] cut) => (float[P,Q] y) <int64 zero = {0}, int64 one = {1}, int64[1] axis = {1}, int64[1] none = {0}>
        { e = Identity(cut)  c = Slice(x, none, e, axis)  d = Relu(c)  y = Neg(d)
          s = Shape(ids)  n = Squeeze(s)  r = Range(zero, n, one)  q = Add(r, zero) }""")
    analysis, values = analysis_of(model), values_of(model)
    before = {name: analysis[value] for name, value in values.items()}
    values["e"].const_value = ir.tensor(np.array([4], np.int64))
    analysis.forget([values["e"]])
    assert analysis.shape(values["y"]) == analysis.shape(values["d"]) == (B, Dim(4))
    values["r"].const_value = ir.tensor(np.arange(100))  # as folding does where it finds a number
    analysis.forget([values["r"]])
    assert analysis[values["r"]] == before["r"]
    assert analysis[values["q"]] == before["q"]


def test_values_are_forgotten_once_each_however_many_ways_lead_to_them():
    body = "a0 = Relu(x)  " + "  ".join(f"a{at} = Add(a{at - 1}, a{at - 1})" for at in range(1, 60))
    model = parse(f"g (float[B] x) => (float[B] y) {{ {body}  y = Neg(a59) }}")
    analysis = analysis_of(model)
    analysis.forget([model.graph.inputs[0]])
    assert analysis.shape(model.graph.outputs[0]) == (B,)


def ones(count: int) -> str:
    return f"{{{','.join('1' * count)}}}"


@pytest.mark.parametrize(
    ("given", "shape", "data", "uniform"),
    [
        ("float[0] c = {}", ["0"], [], None),
        ("float[0,4] c = {}", ["0", "4"], None, None),
        ("float[1] c = {2.5}", ["1"], None, 2.5),
        ("float c = {2.0}", [], None, 2.0),
        ("int64[2] c = {3, 4}", ["2"], ["3", "4"], None),
        ("int64[1,2] c = {3, 3}", ["1", "2"], None, 3),
        ("int64 c = {3}", [], ["3"], 3),
        ("bool[2] c = {1, 1}", ["2"], ["1", "1"], True),
        ("uint8[2] c = {1, 2}", ["2"], ["1", "2"], None),
        ('string[1] c = {"a"}', ["1"], None, None),
        (f"int64[64] c = {ones(64)}", ["64"], ["1"] * 64, 1),
        (f"int64[65] c = {ones(65)}", ["65"], None, None),
        (f"bool[64] c = {ones(64)}", ["64"], ["1"] * 64, True),
        (f"bool[65] c = {ones(65)}", ["65"], None, True),
    ],
)
def test_what_is_known_of_a_constant(given, shape, data, uniform):
    model = parse(f"g (float[B] x) => (float[B] y) <{given}> {{ y = Relu(x) }}")
    found = analysis_of(model)[model.graph.initializers["c"]]
    assert [str(size) for size in found.shape] == shape
    assert (None if found.data is None else [str(item) for item in found.data]) == data
    assert (found.uniform, type(found.uniform)) == (uniform, type(uniform))


def test_large_weights_are_not_read():
    def read():
        raise AssertionError("it was read")

    model = parse("g (float[B,65] x, float[65] w) => (float[B,65] y) { a = Mul(x, w)  b = Softplus(w)  y = Add(a, b) }")
    value = model.graph.inputs[1]
    model.graph.inputs.remove(value)
    value.const_value = ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=ir.Shape([65]), name="w")
    model.graph.register_initializer(value)
    assert analysis_of(model).shape(model.graph.outputs[0]) == (B, Dim(65))


@pytest.mark.parametrize(
    ("shapes", "wanted"),
    [
        (["B,S", "S"], ["B", "S"]),
        (["B,1", "S"], ["B", "S"]),
        (["1,S", "B,1"], ["B", "S"]),
        (["B", "4"], ["4"]),
        (["4", "1"], ["4"]),
        (["1", "1"], ["1"]),
        (["", "B"], ["B"]),
        (["B", ""], ["B"]),
        (["B,S,4", "S,4"], ["B", "S", "4"]),
    ],
)
def test_shapes_broadcast_as_numpys_do(shapes, wanted):
    left, right = shapes
    shape = info(
        f"g (float{f'[{left}]' if left else ''} x, float{f'[{right}]' if right else ''} z) => (float[P] y) {{ y = Add(x, z) }}",
        "y",
    ).shape
    assert [str(size) for size in shape] == wanted


def test_bodies_read_values_from_outside_and_absent_operands():
    text = """g (float[B,S] x, bool c, float top) => (float[P,Q] y)
        { y = If (c) <then_branch = t () => (float[P] a) { i = Relu(x)  j = Neg(i)  a = Clip(j, , top) },
                      else_branch = e () => (float[Q] b) { k = Exp(x)  b = Abs(k) }> }"""
    assert info(text, "y").shape == (B, S)


def test_the_shape_was_lost_where_everything_behind_is_known():
    model = parse("""g (float[B] x, bool c) => (float[P] y)
        { a = com.acme.Blend(x)  b = Relu(x)  d = Add(b, a)  e = If (c) <then_branch = t () => (float[P] p) { p = Relu(d) },
          else_branch = f () => (float[Q] q) { q = Neg(x) }>  y = Neg(e) }""")
    analysis, values = analysis_of(model), values_of(model)
    assert analysis.unknown_since(values["y"]) is values["a"]
    assert analysis.unknown_since(values["a"]) is values["a"]
    assert analysis.unknown_since(model.graph.inputs[0]) is model.graph.inputs[0]


def test_what_a_body_loses_is_lost_at_its_node():
    model = parse("""g (float[B] x, bool c) => (float[P] y)
        { e = If (c) <then_branch = t () => (float[P] p) { i = com.acme.Blend(x)  p = Relu(i) },
          else_branch = f () => (float[Q] q) { q = Neg(x) }>  y = Neg(e) }""")
    analysis, values = analysis_of(model), values_of(model)
    assert analysis.unknown_since(values["y"]) is values["e"]


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2,3] x) => (float[N] y) { y = Transpose <perm = [0, 7]> (x) }",
        "g (float[2,3] x, float[3] z) => (float[N] y) { y = Concat <axis = 1> (x, z) }",
    ],
)
def test_a_node_that_onnx_does_not_allow_is_named(text):
    with pytest.raises(ModelError, match=r"node 'y' \(\w+\) is none that ONNX allows: "):
        info(text, "y")


def test_a_shape_function_that_fails_on_what_onnx_allows_is_our_fault(monkeypatch):
    def fails(*_):
        raise IndexError("ours")

    monkeypatch.setitem(shapes._FUNCTIONS, ("", "Concat"), fails)
    with pytest.raises(IndexError, match="ours"):
        info("g (float[2,3] x) => (float[N] y) { y = Concat <axis = 0> (x, x) }", "y")
