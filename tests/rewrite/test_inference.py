"""What is known of a value without running the model, held against what onnx's own tests of every operator give."""

import itertools
import warnings

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.rewrite import Analysis, NoMatch, inference
from onnxfuse.rewrite.analysis import Dim, ValueInfo
from onnxfuse.rewrite.rule import Match
from tests.conftest import analysis_of, apply, ops, parse


def of(text: str, opset: int = 23) -> list[str] | None:
    """The shape of the last node's first output."""
    model = parse(text, opset)
    shape = analysis_of(model).shape(list(model.graph)[-1].outputs[0])
    return None if shape is None else [str(dim) for dim in shape]


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("y = Softplus(x)", ["B", "S", "8"]),
        ("y = LeakyRelu(x)", ["B", "S", "8"]),
        ("y = CumSum(x, one)", ["B", "S", "8"]),
        ("y = GatherElements<axis = 1>(ids, more)", ["B", "T"]),
        ("y = Trilu(x)", ["B", "S", "8"]),
        ("y = Pad(x, pads)", None),
        ("u = GatherElements<axis = 1>(ids, more)  y = Gather(table, u)", ["B", "T", "4"]),
        ("y = com.microsoft.QuickGelu(x)", ["B", "S", "8"]),
        ("y = com.microsoft.FusedMatMul<transB = 1>(x, table8)", ["B", "S", "9"]),
        (
            "c = Equal(one, one)  y = If (c) <then_branch = t () => (float[P] a) { a = Relu(x) }, "
            "else_branch = e () => (float[Q] b) { b = Neg(x) }>",
            ["B", "S", "8"],
        ),
    ],
)
def test_what_has_no_shape_function_is_inferred(body, wanted):
    text = f"""g (float[B,S,8] x, int64[B,S] ids, int64[B,T] more, int64[6] pads) => (float[M] y)
        <int64 one = {{1}}, float[5,4] table = {{{",".join("1" * 20)}}}, float[9,8] table8 = {{{",".join("1" * 72)}}}> {{ {body} }}"""
    found = of(text)
    if wanted is None:
        assert found is not None and all(size.startswith("?") for size in found)
    else:
        assert found == wanted


def test_an_operator_of_nobody_is_named_by_what_needs_its_shape():
    model = parse("g (float[B,S,8] x) => (float[M] y) { a = com.acme.Blend(x)  b = Relu(a)  y = Neg(b) }")
    analysis = analysis_of(model)
    last = list(model.graph)[-1]
    assert analysis.unknown_since(last.inputs[0]).name == "a"
    match = Match(type("Found", (), {"bindings": {"x": last.inputs[0]}, "nodes": {}})(), last, analysis, 0)
    with pytest.raises(NoMatch, match=r"the shape of b is not known: no shape inference tells what com\.acme\.Blend at a gives"):
        match.need_shape("x")


def test_an_input_without_a_shape_is_named():
    model = parse("g (float[B,S,8] x) => (float[M] y) { y = Relu(x) }")
    model.graph.inputs[0].shape = None
    analysis, node = analysis_of(model), list(model.graph)[-1]
    match = Match(type("Found", (), {"bindings": {"x": node.outputs[0]}, "nodes": {}})(), node, analysis, 0)
    with pytest.raises(NoMatch, match="the shape of y is not known: the graph input x has none"):
        match.need_shape("x")


def test_boolean_constants_are_followed():
    model = parse("""g (int64[B,S] ids) => (int64[M] y) <bool[2] keep = {1, 0}, int64[2] one = {1, 1}> {
        s = Shape(ids)  n = Not(keep)  w = Where(keep, s, one)  c = Cast<to = 7>(n)  y = Mul(w, c) }""")
    analysis = analysis_of(model)
    data = {node.outputs[0].name: [str(item) for item in analysis[node.outputs[0]].data] for node in model.graph}
    assert data == {"s": ["B", "S"], "n": ["0", "1"], "w": ["B", "1"], "c": ["0", "1"], "y": ["0", "1"]}


def backend_cases():
    """onnx's own test of every operator: a model with inputs and outputs for it."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases overflow on purpose
        return load_model_tests(kind="node")


@pytest.fixture(scope="module")
def cases():
    return backend_cases()


def _untrue(info: ValueInfo, sizes: dict[str, int], array: np.ndarray) -> list[str]:
    """What the analysis says that is not so."""
    wrong = []

    def known(dim: Dim) -> bool:
        return set(dim.symbols) <= set(sizes)

    if info.dtype is not None and info.dtype.numpy() != array.dtype:
        wrong.append(f"type {info.dtype} instead of {array.dtype}")
    if info.shape is not None:
        if len(info.shape) != array.ndim:
            return [*wrong, f"rank {len(info.shape)} instead of {array.ndim}"]
        wrong += [
            f"size {dim} of {array.shape}"
            for dim, size in zip(info.shape, array.shape, strict=True)
            if known(dim) and dim.value(sizes) != size
        ]
    if info.data is not None:
        flat = array.reshape(-1)
        wrong += [
            f"content {item} instead of {seen}"
            for item, seen in itertools.zip_longest(info.data, flat.tolist())
            if item is None or seen is None or (known(item) and item.value(sizes) != seen)
        ]
    if info.uniform is not None and array.size and not (array == info.uniform).all():
        wrong.append(f"every element {info.uniform}")
    if info.index is not None and all(known(coef) for _, coef in info.index):
        grid = np.indices(array.shape)
        wanted = sum((grid[axis] * coef.value(sizes) for axis, coef in info.index), np.zeros(array.shape))
        if not np.array_equal(wanted, array):
            wrong.append(f"index {info.index}")
    return wrong


@pytest.mark.parametrize("fixed", [False, True], ids=["every input open", "small integers known"])
def test_what_is_known_of_every_operator_is_true(cases, fixed):
    """Sizes of inputs are named, one name for each size; what is then known of outputs must hold for the case's own numbers."""
    wrong, known = [], 0
    for case in cases:
        inputs, outputs = case.data_sets[0]
        if not all(isinstance(array, np.ndarray) and array.dtype.kind in "fiub" for array in (*inputs, *outputs)):
            continue
        model = ir.from_proto(case.model)
        if "" not in model.opset_imports or (len(model.graph.inputs), len(model.graph.outputs)) != (len(inputs), len(outputs)):
            continue
        sizes = {}
        for value, array in zip(list(model.graph.inputs), inputs, strict=True):
            names = [f"size{size}" for size in array.shape]
            sizes |= dict(zip(names, array.shape, strict=True))
            value.shape = ir.Shape(names)
            if fixed and array.dtype.kind in "ib" and array.size <= 8 and not value.is_graph_output():
                model.graph.inputs.remove(value)
                value.const_value, value.shape = ir.tensor(array), ir.Shape(array.shape)
                model.graph.register_initializer(value)
        analysis = analysis_of(model)
        for value, array in zip(model.graph.outputs, outputs, strict=True):
            known += analysis[value].shape is not None
            wrong += [f"{case.name}: {value.name}: {what}" for what in _untrue(analysis[value], sizes, array)]
    assert wrong == []
    assert known > 1000


def test_equal_layers_ask_once(monkeypatch):
    asked = []
    ask = inference._by_onnx
    monkeypatch.setattr(inference, "_by_onnx", lambda question: asked.append(question) or ask(question))
    assert of("g (float[B,S,8] x) => (float[M] y) { a = Softplus(x)  b = Softplus(a)  y = Softplus(b) }") == ["B", "S", "8"]
    assert len(asked) == 1
    assert of("g (float[B,S,8] x) => (float[M] y) { a = Softplus(x)  b = Softplus(a)  y = Elu(b) }") == ["B", "S", "8"]
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("body", "dtype", "shape"),
    [
        ("y = Softplus(x)", "FLOAT", ["B", "S", "8"]),
        ("y = Softplus(half)", "FLOAT", []),
        ("y = com.microsoft.QuickGelu(half)", "FLOAT", None),
        ("y = IsNaN(x)", "BOOL", ["B", "S", "8"]),
        ("y = com.acme.Blend(x)", None, None),
        ("u = com.acme.Blend(x)  y = Softplus(u)", None, None),
        ("u = com.acme.Blend(x)  y = IsNaN(u)", "BOOL", None),
        ("y = NonZero(x)", "INT64", ["3", "?"]),
        ("u = com.acme.Blend(x)  y = com.microsoft.QuickGelu(u)", None, None),
        ("y = com.microsoft.Nothing(x)", None, None),
        ("y = com.microsoft.QuickGelu(x)", "FLOAT", ["B", "S", "8"]),
        ("y = Pad(x, pads)", "FLOAT", ["B", "S", "9"]),
        ("y = Pad(x, open)", "FLOAT", ["?", "?", "?"]),
    ],
)
def test_types_and_shapes_as_far_as_somebody_knows_them(body, dtype, shape):
    model = parse(
        f"g (float[B,S,8] x, int64[6] open) => (float[M] y) <float half = {{0.5}}, int64[6] pads = {{0, 0, 1, 0, 0, 0}}> {{ {body} }}"
    )
    info = analysis_of(model)[list(model.graph)[-1].outputs[0]]
    assert (info.dtype and info.dtype.name) == dtype
    found = None if info.shape is None else ["?" if str(size).startswith("?") else str(size) for size in info.shape]
    assert found == shape


def test_a_runtime_is_asked_about_what_onnx_does_not_know_and_about_nothing_else():
    asked = []

    def infer(question):
        asked.append(question)
        return [(ir.DataType.FLOAT16, ("d0", 4))]

    model = parse("g (float[B,S,8] x) => (float[M] y) { a = Softplus(x)  y = com.acme.Blend(a) }")
    model.opset_imports["com.acme"] = 3
    info = Analysis(model.opset_imports, infer)[model.graph.outputs[0]]
    assert (info.dtype, [str(dim) for dim in info.shape]) == (ir.DataType.FLOAT16, ["B", "4"])
    [question] = asked
    assert {item.domain: item.version for item in question.opset_import} == {"": 23, "com.acme": 3}
    assert Analysis(model.opset_imports)[model.graph.outputs[0]] == ValueInfo()
    known = parse("g (float[B,8] x) => (float[M] y) { y = ai.onnx.ml.Scaler<offset = [1.0], scale = [2.0]>(x) }")
    known.opset_imports["ai.onnx.ml"] = 3
    Analysis(known.opset_imports, infer).scan(known.graph)
    assert len(asked) == 1


def test_a_model_of_some_nodes_imports_every_domain_that_occurs_in_them():
    model = parse("""g (bool c, float[B] x) => (float[B] y) { y = If (c)
        <then_branch = t () => (float[B] a) { a = com.acme.Blend(x) }, else_branch = e () => (float[B] b) { b = com.other.Mix(x) }> }""")
    imports = inference.opset_imports(list(model.graph), {"": 23, "com.acme": 3, "com.microsoft": 1})
    assert {item.domain: item.version for item in imports} == {"": 23, "com.acme": 3, "com.other": 1}


def test_a_size_beyond_64_bits_is_unknown_and_stays_computed():
    """Three axes that a file may have, put into one."""
    model = parse(f"""g (float[{2**31 - 1},{2**31 - 1},8] x) => (float[M] y, int64[1] n)
        <int64[1] one = {{-1}}> {{ y = Reshape(x, one)  n = Shape(y) }}""")
    analysis = analysis_of(model)
    wide, count = (analysis[value] for value in model.graph.outputs)
    assert str(wide.shape[0]).startswith("?")
    assert str(count.data[0]).startswith("?")
    apply([], model)
    assert ops(model) == ["Reshape", "Shape"]
