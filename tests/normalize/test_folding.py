"""Constants are computed once, in the type they have; what cannot be, or must not be, stays as it is."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.normalize import folding
from onnxfuse.normalize.folding import fold
from onnxfuse.rewrite import Dim, Prover, Trace
from onnxfuse.runtime.sessions import compute
from tests.conftest import analysis_of, assert_same, clean, fill, ops, parse

W = "float[3] w = {1.5, -2, 3}"


def folded(text: str, opset: int = 21) -> tuple[ir.Model, Trace]:
    """A model after all folding, and the trace of it."""
    model, trace = parse(text, opset=opset), Trace()
    clean(model)
    analysis = analysis_of(model)
    while fold(model, analysis, trace):
        pass
    return model, trace


def content(model: ir.Model, name: str) -> ir.TensorProtocol:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor


@pytest.mark.parametrize(
    "kind", ["FLOAT16", "DOUBLE", "INT32", "BOOL", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2", "INT4", "UINT4"]
)
def test_constants_keep_their_type(kind):
    """``k`` is folded; the node behind it, which reads the input, only gives it a reader."""
    wanted = np.array([1.5, -2, 3], np.float32) if kind != "UINT4" else np.array([1.5, 2, 3], np.float32)
    dtype = ir.DataType[kind]
    text = f"""g (int64[1] n, float[3] x) => (float[3] y) <float[3] w = {{{", ".join(map(str, wanted))}}}>
        {{ k = Cast<to = {int(dtype)}>(w)  r = Tile(k, n)  f = Cast<to = 1>(r)  y = Add(f, x) }}"""
    model, trace = folded(text)
    assert "w" not in model.graph.initializers or not model.graph.initializers["w"].uses()
    tensor = content(model, "k")
    assert tensor.dtype == dtype
    expected = wanted.astype(dtype.numpy()) if kind not in ("INT4", "UINT4") else np.rint(wanted)
    np.testing.assert_array_equal(tensor.numpy().astype(np.float32), expected.astype(np.float32))
    assert not trace.unfolded


def test_what_reads_a_type_that_numpy_lacks_is_computed_too():
    text = f"""g (float[3] x) => (float[3] y) <{W}, int64[2] s = {{1, 3}}>
        {{ b = Cast<to = 16>(w)  r = Reshape(b, s)  k = Cast<to = 1>(r)  y = Add(x, k) }}"""
    model, trace = folded(text.replace("float[3] y", "float[1,3] y"))
    assert (ops(model), trace.unfolded) == (["Add"], {})
    np.testing.assert_array_equal(content(model, "k").numpy(), [[1.5, -2, 3]])
    wide = parse("g (bfloat16[3] b, float[3] x) => (float[3] y) { k = Cast<to = 1>(b)  y = Add(x, k) }", opset=21)
    [value] = [value for value in wide.graph.inputs if value.name == "b"]
    wide.graph.inputs.remove(value)
    value.const_value = ir.tensor(np.array([1.5, -2, 3]).astype(ir.DataType.BFLOAT16.numpy()), name="b")
    wide.graph.register_initializer(value)
    assert fold(wide, analysis_of(wide), Trace()) == 1
    np.testing.assert_array_equal(content(wide, "k").numpy(), [1.5, -2, 3])


def test_strings_are_folded_as_strings():
    text = """g (string[2] x) => (bool[2] y) { a = Constant<value_strings = ["ü", "b"]>()  c = Constant<value_strings = ["1", "2"]>()
        k = StringConcat(a, c)  y = Equal(x, k) }"""
    model, _ = folded(text)
    assert ops(model) == ["Equal"]
    assert content(model, "k").dtype == ir.DataType.STRING
    assert list(content(model, "k").string_data()) == ["ü1".encode(), b"b2"]


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ("b = Cast<to = 16>(w)  c = Neg(b)  k = Cast<to = 1>(c)", "Neg"),  # no kernel for bfloat16: the session cannot be opened
        ("i = Constant<value = int64[3] {0, 9, 1}>()  k = Gather(w, i)", "Gather"),  # out of range: the run ends with an error
    ],
)
def test_what_the_runtime_refuses_stays_and_the_rest_is_folded(node, why):
    text = f"g (float[3] x) => (float[3] y, float[3] z) <{W}> {{ {node}  y = Add(x, k)  m = Abs(w)  z = Mul(x, m) }}"
    model, trace = folded(text)
    assert why in ops(model)
    assert "Abs" not in ops(model)
    [(value, reason)] = trace.unfolded.items()
    assert value in {output.name for node in model.graph for output in node.outputs}
    assert reason.startswith(f"{why}: ")
    assert len(reason.splitlines()) == 1
    again = Trace()
    assert fold(model, analysis_of(model), again) == 0
    assert not again.unfolded  # it was not tried a second time


@pytest.mark.parametrize(
    "node", ["k = RandomNormalLike(w)", "k = Bernoulli(w)", "d, m = Dropout(w, r, t)  k = Mul(d, w)", "k = com.microsoft.Gelu(w)"]
)
def test_what_is_not_the_same_each_time_or_not_known_to_be_stays(node):
    text = f"g (float[3] x) => (float[3] y) <{W}, float r = {{0.5}}, bool t = {{1}}> {{ {node}  y = Add(x, k) }}"
    assert ops(folded(text)[0]) == ops(parse(text))


def test_a_constant_condition_is_no_constant_result():
    text = """g (float[3] x) => (float[3] y) <bool c = {1}> { k = If (c) <then_branch = t () => (float[3] u) { u = Neg(x) },
        else_branch = e () => (float[3] v) { v = Abs(x) }>  y = Add(x, k) }"""
    model, _ = folded(text)
    assert ops(model) == ["Add", "If"]
    assert_same(parse(text, opset=21), model, {})


@pytest.mark.parametrize(("sizes", "left"), [("2048, 2048", []), ("2048, 2049", ["Expand"])])
def test_up_to_four_million_elements_are_stored(sizes, left):
    text = f"""g (float[{sizes}] x) => (float[{sizes}] y) <float[1,1] w = {{2}}, int64[2] s = {{{sizes}}}>
        {{ k = Expand(w, s)  y = Add(x, k) }}"""
    assert ops(folded(text)[0]) == ["Add", *left]


@pytest.mark.parametrize(
    ("node", "left"),
    [
        ("k = NonZero(w)", ["NonZero"]),  # its size is not known
        ("p, q = Split<num_outputs = 2>(w)  k = Mul(p, q)", ["Mul", "Split"]),  # two results
        ("k = DequantizeLinear(i8, step)", ["DequantizeLinear"]),  # stored as int8, and a runtime multiplies with that
        ("q = SequenceConstruct(w, w)  k = ConcatFromSequence<axis = 0>(q)", ["ConcatFromSequence", "SequenceConstruct"]),
        ("s = Shape(x)  k = Expand(one, s)", ["Expand", "Shape"]),
        ("k = Mul(x, w)", ["Mul"]),
    ],
)
def test_what_is_no_single_constant_stays_computed(node, left):
    text = f"""g (float[N] x) => (float[P] y, int64[Q] z) <float[4] w = {{1, 2, 3, 4}}, int8[2] i8 = {{1, -2}}, float step = {{0.5}}, float one = {{1}}>
        {{ {node}  y = Cast<to = 1>(k)  z = Cast<to = 7>(k) }}"""
    model, trace = folded(text)
    assert ops(model) == sorted(["Cast", "Cast", *left])
    assert not trace.unfolded


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("k = Clip(w, , high)", 1),  # an input that is left out
        ("k = Clip(w, low)", 1),
        ("a = Exp(w)  k = Neg(a)", 2),  # both in one session
        ("a = Transpose(w)  k = Neg(a)", 2),  # of what is known without one
        ("a = Exp(w)  b = Transpose(a)  k = Mul(a, b)", 3),
    ],
)
def test_what_constants_make_is_computed_at_once(body, count):
    text = f"g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {{1.5, -2, 3, 0}}, float low = {{-1}}, float high = {{1}}> {{ {body}  y = Add(x, k) }}"
    model = parse(text)
    assert fold(model, analysis_of(model), Trace()) == count
    assert ops(model) == ["Add"]
    assert_same(parse(text), model, {})


def test_a_constant_output_keeps_its_node():
    text = f"g (float[3] x) => (float[3] y, float[3] k, int64[1] s) <{W}> {{ k = Neg(w)  y = Add(x, k)  s = Shape(x) }}"
    model, _ = folded(text)
    assert ops(model) == ["Add", "Neg", "Shape"]
    assert_same(parse(text), model, {})


def lazy(model: ir.Model, name: str, side: int, problem: str = "it was read") -> ir.Model:
    """Make a graph input a weight that says when it is read."""

    def refuse() -> ir.TensorProtocol:
        raise OSError(problem)

    [value] = [value for value in model.graph.inputs if value.name == name]
    model.graph.inputs.remove(value)
    value.const_value = ir.LazyTensor(refuse, ir.DataType.FLOAT, ir.Shape([side, side]), name=name)
    model.graph.register_initializer(value)
    return model


@pytest.mark.parametrize("side", [16, 4096])
def test_a_transposed_weight_of_any_size_is_read_when_it_is_used(side):
    text = f"g (float[B,{side}] x, float[{side},{side}] w) => (float[B,{side}] y) {{ k = Transpose(w)  y = MatMul(x, k) }}"
    model = lazy(parse(text), "w", side)
    assert fold(model, analysis_of(model), Trace()) == 1
    assert ops(model) == ["MatMul"]
    with pytest.raises(OSError, match="it was read"):
        content(model, "k").numpy()


def test_a_weight_that_cannot_be_read_is_an_error():
    model = lazy(
        parse("g (float[B,16] x, float[16,16] w) => (float[B,16] y) { k = Exp(w)  y = MatMul(x, k) }"),
        "w",
        16,
        "the disk is gone",
    )
    analysis, trace = analysis_of(model), Trace()
    with pytest.raises(OSError, match="the disk is gone"):
        fold(model, analysis, trace)
    assert not trace.unfolded


@pytest.mark.parametrize(
    ("side", "node", "left"),
    [
        (16, "k = Transpose(w)", ["Transpose"]),  # 1 kB
        (15, "k = Transpose(w)", []),
        (16, "k = Exp(w)", []),
        (16, "t = Identity(w)  k = Transpose(t)", ["Transpose"]),
    ],
)
def test_a_large_weight_with_other_readers_is_not_stored_twice(side, node, left):
    text = (
        f"g (float[B,{side}] x, float[{side},{side}] w) => (float[B,{side}] y) {{ {node}  a = MatMul(x, w)  y = MatMul(a, k) }}"
    )
    model = fill(parse(text), w=(side, side))
    before = ir.from_proto(ir.to_proto(model))
    clean(model)
    assert fold(model, analysis_of(model), Trace()) == 1 - len(left)
    assert ops(model) == ["MatMul", "MatMul", *left]
    assert_same(before, model, {"B": 2}, tolerance=1e-4)


def test_what_only_a_known_shape_read_goes_with_it():
    text = f"g (float[3] x) => (float[3] y) <{W}, int64[1] axis = {{0}}> {{ a = Exp(w)  s = Shape(a)  y = Expand(x, s) }}"
    model = parse(text)
    fold(model, analysis_of(model), Trace())
    assert ops(model) == ["Expand"]
    assert "a" not in model.graph.initializers
    assert_same(parse(text), model, {})


def test_what_reads_a_refused_value_is_not_tried():
    text = f"g (float[3] x) => (float[3] y) <{W}> {{ b = Cast<to = 16>(w)  c = Neg(b)  d = Cast<to = 1>(c)  k = Abs(d)  y = Add(x, k) }}"
    model, trace = folded(text)
    assert ops(model) == ["Abs", "Add", "Cast", "Neg"]
    assert list(trace.unfolded) == ["c"]


def test_what_the_analysis_says_is_proven():
    def build():
        return parse("""g (float[B,4] x) => (float[P,Q] y) <int64[1] one = {1}, int64[1] minus = {-1}>
            { n = Shape<start = 1>(x)  m = Mul(n, one)  to = Concat<axis = 0>(minus, m)  y = Reshape(x, to) }""")

    right, wrong = build(), build()
    trace, analysis = Trace(), analysis_of(right)
    assert fold(right, analysis, trace, Prover(analysis, compute)) == 3
    assert not trace.rejected

    analysis = analysis_of(wrong)
    for node in wrong.graph:
        if node.op_type in ("Shape", "Mul"):
            analysis._known[node.outputs[0]] = replace(analysis[node.outputs[0]], data=(Dim(2),))
    assert fold(wrong, analysis, trace, Prover(analysis, compute)) == 1  # what reads them was analysed before
    assert trace.rejected == {"fold-constants": "at n: the analysis says [2]"}
    assert ops(wrong) == ["Reshape"]
    assert wrong.graph.initializers["to"].const_value.numpy().tolist() == [-1, 4]


def test_what_folding_reads_and_makes_is_counted_over_the_whole_model(monkeypatch):
    text = f"g (float[3] x) => (float[3] y) <{W}> {{ a = Exp(w)  b = Sin(a)  c = Cos(b)  d = Tan(c)  e = Neg(d)  y = Add(x, e) }}"
    model, trace = folded(text)
    assert (ops(model), trace.folded_bytes, trace.unfolded) == (["Add"], 5 * 24, {})  # 12 bytes read and 12 made by each
    monkeypatch.setattr(folding, "ROOM", 2 * 24 - 4 * 12)
    model, trace = folded(text)
    assert ops(model) == ["Add", "Cos", "Neg", "Tan"] and trace.folded_bytes == 2 * 24
    assert trace.unfolded == {"c": "Cos: constants of the model take more than was left to them"}
    assert_same(parse(text, opset=21), model, {})
    monkeypatch.setattr(folding, "ROOM", 10_000)
    first, second = parse(text, opset=21), parse(text, opset=21)
    trace = Trace()
    for model in (first, second):  # one trace counts on
        fold(model, analysis_of(model), trace)
    assert trace.folded_bytes == 2 * 5 * 24
