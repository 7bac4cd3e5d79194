"""Whole-graph steps leave what a model computes, by ONNX Runtime's own word: in branches and bodies, for every kind of output."""

import logging

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError
from onnxfuse.normalize import structure
from onnxfuse.normalize.duplicates import is_deterministic, merge_duplicates
from onnxfuse.normalize.opset import convert
from onnxfuse.optimizer import fuse
from onnxfuse.runtime.sessions import open_session
from onnxfuse.targets import find
from tests.conftest import clean, ops, parse

RNG = np.random.default_rng(0)
FEEDS = {"x": RNG.standard_normal((2, 3)).astype(np.float32), "i": RNG.standard_normal(3).astype(np.float32), "n": np.array(4)}
NUMBERS = "float[3] w = {1, -2, 3}"


def answers(model: ir.Model, choice: bool) -> dict[str, np.ndarray]:
    """All outputs of a model as it is written, with its names checked on the way as a file's are."""
    session = open_session(ir.to_proto(model).SerializeToString(), optimize=False)
    feeds = FEEDS | {"c": np.array(choice)}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {value.name: feeds[value.name] for value in session.get_inputs()}), strict=True))


def assert_kept(text: str, opset: int = 17, steps=None) -> ir.Model:
    """Both paths of a model compute the same, under the same names, before and after every step. Returns what came out."""
    before, after = parse(text, opset=opset), parse(text, opset=opset)
    for step in steps or (clean, merge_duplicates, lambda model: convert(model, 21), merge_duplicates, structure.tidy):
        step(after)
        for choice in (True, False):
            wanted, got = answers(before, choice), answers(after, choice)
            assert list(got) == list(wanted)
            for name in wanted:
                assert (got[name].dtype, got[name].shape) == (wanted[name].dtype, wanted[name].shape)
                np.testing.assert_array_equal(got[name], wanted[name])
    for old, new in ((before.graph.inputs, after.graph.inputs), (before.graph.outputs, after.graph.outputs)):
        assert [(value.name, value.type, value.shape) for value in new] == [
            (value.name, value.type, value.shape) for value in old
        ]
    return after


def branches(then: str, other: str, before: str = "", after: str = "", constants: str = "", shown: str = "") -> str:
    return f"""g (float[2,3] x, bool c) => (float[2,3] y{shown}) {f"<{constants}>" if constants else ""} {{ {before}
        y = If (c) <then_branch = t () => (float[2,3] u) {{ {then} }}, else_branch = e () => (float[2,3] v) {{ {other} }}> {after} }}"""


BRANCHES = {
    "an input passed on": branches("u = Identity(x)", "v = Neg(x)"),
    "an outer value passed on": branches("u = Identity(q)", "v = Neg(q)", "q = Abs(x)"),
    "an outer Identity passed on": branches("u = Identity(q)", "v = Abs(q)", "p = Neg(x)  q = Identity(p)"),
    "an outer Identity of an input": branches("u = Identity(q)", "v = Abs(q)", "q = Identity(x)"),
    "an inner value under a second name": branches("k = Exp(x)  u = Identity(k)", "v = Identity(x)"),
    "constants of one name": branches(
        "k = Constant<value = float[3] {1, 2, 3}>()  u = Add(x, k)", "k = Constant<value = float[3] {9, 9, 9}>()  v = Add(x, k)"
    ),
    "an outer value that folds": branches("u = Add(x, k)", "v = Identity(x)", "k = Neg(w)", constants=NUMBERS),
    "outer values that are one": branches("u = Sub(p, x)", "v = Mul(q, x)", "p = Exp(x)  q = Exp(x)"),
    "an outer Dropout": branches("u = Identity(p)", "v = Neg(p)", "p = Dropout(x)"),
    "an inner Dropout": branches("u = Dropout(x)", "v = Neg(x)"),
    "its result shown twice": branches("u = Exp(x)", "v = Neg(x)", after="z = Identity(y)", shown=", float[2,3] z"),
    "a branch within": branches(
        """u = If (c) <then_branch = t2 () => (float[2,3] u2) { u2 = Identity(q) },
        else_branch = e2 () => (float[2,3] v2) { v2 = Abs(x) }>""",
        "v = Neg(x)",
        "q = Identity(x)",
    ),
    "two that are alike": branches(
        "u = Exp(x)",
        "v = Neg(x)",
        after="""z = If (c) <then_branch = t2 () => (float[2,3] u2) { u2 = Exp(x) },
        else_branch = e2 () => (float[2,3] v2) { v2 = Neg(x) }>""",
        shown=", float[2,3] z",
    ),
    "initializers of one name": """g (float[2,3] x, bool c) => (float[2,3] y) { y = If (c)
        <then_branch = t () => (float[2,3] u) <float[3] k = {1, 2, 3}> { u = Add(x, k) },
         else_branch = e () => (float[2,3] v) <float[3] k = {7, 8, 9}, float[3] k_1 = {4, 4, 4}> { a = Add(x, k)  v = Mul(a, k_1) }> }""",
    "an initializer lifted past a value of its new name": """g (float[2,3] x, bool c) => (float[2,3] y) { y = If (c)
        <then_branch = t () => (float[2,3] u) <float[3] k = {1, 2, 3}> { u = Add(x, k) },
         else_branch = e () => (float[2,3] v) <float[3] k = {7, 8, 9}> { k_1 = Neg(x)  a = Add(k_1, k)  v = Mul(a, k_1) }> }""",
}


@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.parametrize("opset", [11, 17])
def test_branches_keep_what_they_give(name, opset):
    assert "If" in ops(assert_kept(BRANCHES[name], opset))


SCANS = [
    "c = Add(a, b)  d = Identity(c)",
    "d = Add(a, b)  c = Identity(d)",
    "c = Add(a, b)  e = Identity(c)  d = Identity(e)",
    "c = Mul(a, b)  d = Mul(a, b)",
    "c = Add(a, b)  d = Identity(a)",
    "c = Identity(b)  d = Identity(b)",
    "c = Add(a, i)  d = Identity(i)",
    "k = Constant<value = float[3] {1, 2, 3}>()  c = Add(a, k)  d = Identity(k)",
]


@pytest.mark.parametrize("body", SCANS)
@pytest.mark.parametrize("opset", [11, 17])
def test_bodies_of_scan_keep_their_state_and_their_outputs_apart(body, opset):
    assert_kept(
        f"""g (float[3] i, float[2,3] x) => (float[3] y, float[2,3] z) {{ y, z = Scan<num_scan_inputs = 1,
        body = s (float[3] a, float[3] b) => (float[3] c, float[3] d) {{ {body} }}>(i, x) }}""",
        opset,
    )


LOOPS = [
    "o = Identity(on)  d = Add(a, a)  f = Identity(d)",
    "o = Identity(on)  d = Add(a, i)  f = Identity(a)",
    "o = Identity(on)  d = Add(a, i)  f = Identity(i)",
    "o = Constant<value = bool {1}>()  d = Add(a, q)  f = Identity(q)",
]


@pytest.mark.parametrize("body", LOOPS)
def test_bodies_of_loop_keep_their_state_and_their_outputs_apart(body):
    assert_kept(f"""g (float[3] i, int64 n) => (float[3] y, float[N,3] z) <bool t = {{1}}> {{ q = Identity(i)  y, z = Loop<
        body = s (int64 at, bool on, float[3] a) => (bool o, float[3] d, float[3] f) {{ {body} }}>(n, t, i) }}""")


def merged(text: str) -> ir.Model:
    model = parse(text)
    merge_duplicates(model)
    return model


X = "g (float[2,3] x) => "
OUTPUTS = {
    "an input": X + "(float[2,3] y, float[2,3] x) { y = Exp(x) }",
    "an input by Identity, twice": X + "(float[2,3] y, float[2,3] z) { y = Identity(x)  z = Identity(x) }",
    "an initializer": X + f"(float[2,3] y, float[3] w) <{NUMBERS}> {{ y = Add(x, w) }}",
    "an initializer and its Identity": X
    + f"(float[2,3] y, float[3] w, float[3] z) <{NUMBERS}> {{ y = Add(x, w)  z = Identity(w) }}",
    "one of equal initializers": X
    + f"(float[2,3] y, float[3] w) <{NUMBERS.replace(' w ', ' v ')}, {NUMBERS}> {{ a = Add(x, v)  y = Mul(a, w) }}",
    "a Constant": X + "(float[2,3] y, float[2] k) { y = Exp(x)  k = Constant<value = float[2] {1, 2}>() }",
    "an output by Identity": X + "(float[2,3] y, float[2,3] z) { y = Exp(x)  z = Identity(y) }",
    "two Identities of one value": X + "(float[2,3] z, float[2,3] y) { a = Exp(x)  y = Identity(a)  z = Identity(a) }",
    "equal nodes": X + "(float[2,3] y, float[2,3] z) { y = Exp(x)  z = Exp(x) }",
    "one of equal nodes": X + "(float[2,3] z, float[2,3] v) { y = Exp(x)  z = Exp(x)  v = Neg(y) }",
    "a Dropout of an input": X + "(float[2,3] y) { y = Dropout(x) }",
    "a Dropout of an output": X + "(float[2,3] y, float[2,3] z) { y = Exp(x)  z = Dropout(y) }",
    "a mask": X + "(float[2,3] y, bool[2,3] m) { y, m = Dropout(x) }",
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_any_origin_keep_name_and_content(name):
    assert_kept(OUTPUTS[name])


def test_one_value_may_be_two_outputs():
    before, after = (
        parse(X + "(float[2,3] y) { a = Identity(x)  y = Exp(a) }"),
        parse(X + "(float[2,3] y) { a = Identity(x)  y = Exp(a) }"),
    )
    for model in (before, after):
        model.graph.outputs.append(model.graph.outputs[0])
    clean(after)
    merge_duplicates(after)
    assert [value.name for value in after.graph.outputs] == ["y", "y"]
    np.testing.assert_array_equal(answers(after, True)["y"], answers(before, True)["y"])


@pytest.mark.parametrize(("count", "left"), [(64, 1), (65, 2)])
def test_equal_initializers_of_up_to_64_elements_become_one(count, left):
    same = f"{{{', '.join(['1'] * count)}}}"
    text = f"g (float[{count}] x) => (float[{count}] y) <float[{count}] p = {same}, float[{count}] q = {same}> {{ a = Sub(x, p)  y = Mul(a, q) }}"
    assert len(merged(text).graph.initializers) == left


def test_an_initializer_that_a_caller_may_override_stays():
    model = parse(X + f"(float[2,3] y) <{NUMBERS.replace(' w ', ' v ')}, {NUMBERS}> {{ a = Add(x, v)  y = Mul(a, w) }}")
    model.graph.inputs.append(model.graph.initializers["w"])
    merge_duplicates(model)
    assert len(model.graph.initializers) == 2


def test_equal_nodes_become_one_except_for_outputs_left_out():
    body = "p, q = LSTM<hidden_size = 1>(s, wi, wr)  r, t = LSTM<hidden_size = 1>(s, wi, wr)  a = Squeeze(q)  b = Squeeze(t)  o = Add(a, b)"
    text = (
        "g (float[2,3] x, float[1,4,3] wi, float[1,4,1] wr) => (float[2] o) <int64[1] z = {0}> { s = Unsqueeze(x, z)  "
        + body
        + " }"
    )
    assert ops(merged(text)).count("LSTM") == 1
    model = parse(text)
    model.graph[1].outputs[0].name = ""  # the first gives its last state alone: its first output cannot stand in for another's
    merge_duplicates(model)
    assert ops(model).count("LSTM") == 2


def test_random_numbers_are_drawn_anew_each_time():
    text = X + "(float[2,3] y) { a = {op}  b = {op}  y = Sub(a, b) }"
    for op in ("RandomNormalLike(x)", "RandomUniform<shape = [2, 3]>()", "Bernoulli(x)"):
        assert ops(merged(text.replace("{op}", op))).count(op.partition("(")[0].partition("<")[0]) == 2
    assert ops(merged(text.replace("{op}", "Exp(x)"))).count("Exp") == 1


def test_determinism_is_the_schemas_word():
    model = parse(branches("u = Exp(x)", "v = Neg(x)", "a = com.microsoft.Gelu(x)  b = Softmax(x)  d = Dropout(x)"))
    assert [is_deterministic(node, 17) for node in model.graph] == [False, True, False, False]


def test_strings_that_differ_in_a_last_zero_byte_stay_two():
    model = parse(X + "(string[2] p, string[2] q) { p = Identity(x)  q = Identity(x) }")
    for node, text in zip(model.graph, (b"a", b"a\0"), strict=True):
        value = ir.Value(name=f"t{len(text)}", const_value=ir.StringTensor([text, b"bb"], shape=ir.Shape([2])))
        model.graph.register_initializer(value)
        node.replace_input_with(0, value)
    merge_duplicates(model)
    assert len(model.graph.initializers) == 2


def test_dropout_that_a_caller_may_turn_on_stays():
    text = X + "(float[2,3] y) <float r = {0.5}, bool t = {0}> { y = Dropout(x, r, t) }"
    assert ops(assert_kept(text)) == ["Identity"]
    model = parse(text)
    model.graph.inputs.append(model.graph.initializers["t"])
    clean(model)
    assert ops(model) == ["Dropout"]


def test_constants_of_every_kind_are_lifted():
    text = (
        X
        + """(float[2,3] y, int64[2] k, string[2] s, string r) { a = Constant<value_float = 2.0>()
        b = Constant<value_floats = [1.0, 2.0, 3.0]>()  c = Mul(x, a)  y = Add(c, b)  d = Constant<value_ints = [4, 5]>()  e = Constant<value_int = 1>()
        k = Add(d, e)  p = Constant<value_strings = ["a", "b"]>()  s = Identity(p)  q = Constant<value_string = "üb">()  r = Identity(q) }"""
    )
    assert "Constant" not in ops(assert_kept(text))


@pytest.mark.parametrize(
    "node",
    ["k = com.microsoft.Constant<value = float[1] {2}>()", "k = com.microsoft.Identity(x)", "k = com.microsoft.Dropout(x)"],
)
def test_operators_of_other_domains_are_not_the_standards(node):
    model = parse(X + f"(float[2,3] y) {{ {node}  y = Add(x, k) }}")
    clean(model)
    assert len(model.graph) == 2


@pytest.mark.parametrize("node", ["k = Identity(r)", "k = Dropout(r)"])
def test_an_input_that_a_call_leaves_out_is_the_runtimes_to_refuse(node):
    model = called("y = f.part(x)", f"(p, r) => (q) {{ {node}  q = Add(p, k) }}")
    clean(model)
    assert len(model.graph) == 2


def test_inner_values_keep_their_names_and_outputs_need_no_identity():
    model = parse(X + "(float[2,3] y) { a = Exp(x)  b = Identity(a)  c = Neg(b)  y = Identity(c) }")
    clean(model)
    assert [(node.op_type, node.outputs[0].name) for node in model.graph] == [("Exp", "a"), ("Neg", "y")]


def test_a_model_of_the_opset_or_a_newer_one_is_not_converted():
    for opset in (11, 10):
        model = parse(X + "(float[2,3] y, bool[2,3] m) { y, m = Dropout(x) }", opset=11)
        convert(model, opset)
        assert model.opset_imports[""] == 11


def test_what_only_looks_like_a_constant_stays():
    after = assert_kept(
        X + "(float[2,3] y) { n = Shape(x)  k = ConstantOfShape<value = float[1] {2}>(n)  y = Neg(k) }", steps=(clean,)
    )
    assert "ConstantOfShape" in ops(after)
    model = called("y = f.part(x)", "<a> (p) => (q) { k = Constant<value_float: float = @a>()  q = Mul(p, k) }")
    clean(model)
    assert ops(model) == ["Constant", "Mul"]


@pytest.mark.parametrize(
    ("node", "left"),
    [
        ("d = Dropout(x, r)  y = Neg(d)", ["Neg"]),
        ("d, m = Dropout(x)  y = Neg(d)", ["Neg"]),  # nobody reads the mask
        ("d, m = Dropout(x)  c = Cast<to = 1>(m)  y = Add(d, c)", ["Add", "Cast", "Dropout"]),
    ],
)
def test_dropout_goes_unless_its_mask_is_read(node, left):
    assert ops(assert_kept(X + f"(float[2,3] y) <float r = {{0.5}}> {{ {node} }}")) == left


def test_dropout_stays_on_demand():
    model = parse(X + "(float[2,3] y) { d = Dropout(x)  y = Neg(d) }")
    clean(model, "remove-dropout")
    assert ops(model) == ["Dropout", "Neg"]


FUNCTION = '<domain: "f", opset_import: ["": 17]> part '
CALL = '<ir_version: 10, opset_import: ["": 17, "f": 1]> ' + X + "(float[2,3] y) "


def called(call: str, body: str, head: str = CALL) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(head + f"{{ {call} }} " + FUNCTION + body))


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("y = f.part(x)", "(p) => (q) { q = Identity(p) }"),
        ("k = Neg(x)  a = f.part(k)  y = f.part(a)", "(p) => (q) { k = Exp(p)  q = Add(k, p) }"),
        ("y = f.part(x)", "<alpha: float = 2.0> (p) => (q) { q = Elu<alpha: float = @alpha>(p) }"),
        ("y = f.part<a = 3.0>(x)", "<a> (p) => (q) { k = Constant<value_float: float = @a>()  q = Mul(p, k) }"),
        ("y = f.part(x)", "(p, low, high) => (q) { q = Clip(p, low, high) }"),
    ],
)
def test_functions_are_inlined_as_they_are_called(call, body):
    before, after = called(call, body), called(call, body)
    clean(after)
    assert not after.functions
    np.testing.assert_array_equal(answers(after, True)["y"], answers(before, True)["y"])


def test_a_function_that_names_an_operator_of_the_runtime_is_not_what_runs():
    model = ir.from_proto(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["": 17, "com.microsoft": 1]> ' + X + "(float[2,3] y) { y = com.microsoft.Gelu(x) } "
            '<domain: "com.microsoft", opset_import: ["": 17]> Gelu (p) => (q) { q = Neg(p) }'
        )
    )
    wanted = answers(model, True)["y"]
    clean(model)
    assert ops(model) == ["Gelu"]
    np.testing.assert_array_equal(answers(model, True)["y"], wanted)


def test_functions_that_cannot_be_inlined_are_named():
    with pytest.raises(ModelError, match="gives an input back"):
        clean(called("y = f.part(x)", "(p) => (p) { q = Neg(p) }"))
    other = called("y = f.part(x)", "(p) => (q) { s = ReduceMean<axes = [1]>(p)  q = Sub(p, s) }")
    other.opset_imports[""] = 18
    with pytest.raises(ModelError, match="uses ReduceMean of opset 17"):
        clean(other)
    same = called("y = f.part(x)", "(p) => (q) { q = Neg(p) }")
    same.opset_imports[""] = 18
    clean(same)
    assert ops(same) == ["Neg"]
    for unknown in ("com.microsoft.Gelu", "SimplifiedLayerNormalization"):  # standard in opset 20, and in none
        other = called("y = f.part(x)", f"(p) => (q) {{ q = {unknown}(p) }}")
        other.opset_imports[""] = 21
        clean(other)
        assert ops(other) == [unknown.split(".")[-1]]
    deep = called("y = f.part(x)", "(p) => (q) { q = f.part(p) }")
    with pytest.raises(ModelError, match="cannot be inlined: Cyclic"):
        clean(deep)


def test_tidying_declares_domains_and_leaves_types_to_the_outputs():
    model = parse(X + "(float[2,3] y) { a = com.microsoft.Gelu(x)  y = Neg(a) }", opset=21)
    del model.opset_imports["com.microsoft"]
    inner, shown = (node.outputs[0] for node in model.graph)
    inner.type, inner.shape = shown.type, ir.Shape([7])  # stale
    structure.tidy(model)
    assert model.opset_imports == {"": 21, "com.microsoft": 1}
    assert (inner.type, inner.shape) == (None, None)
    assert (shown.dtype, shown.shape) == (ir.DataType.FLOAT, [2, 3])


def test_what_newer_opsets_write_in_another_way_is_rewritten():
    after = assert_kept(
        X + "(float[2,1] y) { y = ReduceMean<axes = [1]>(x) }", opset=17, steps=(lambda model: convert(model, 21),)
    )
    assert len(after.graph[-1].inputs) == 2


def test_operators_of_the_runtime_alone_are_carried_over_the_opsets():
    text = f"g (float[2,3] x) => (float[2,3] y) <{NUMBERS}> {{ a = LayerNormalization<axis = -1>(x, w)  y = SimplifiedLayerNormalization(a, w) }}"
    after = assert_kept(text, opset=13, steps=(lambda model: convert(model, 23),))
    assert (after.opset_imports[""], {node.domain for node in after.graph}) == (23, {""})


@pytest.mark.parametrize(
    ("text", "opset", "why"),
    [
        (X + "(float[2,3] y) { y = ScaledTanh<alpha = 2.0, beta = 1.0>(x) }", 9, "ONNX Runtime has no ScaledTanh there"),
        (X + "(float[2,3] y) { a = RandomNormalLike(x)  y = Add(a, x) }", 17, "ONNX Runtime has no RandomNormalLike there"),
        (X + "(float[2,3] y, bool[2,3] m) { y, m = Dropout(x) }", 11, "a Dropout that gives its mask"),
        (X + "(float[2,3] y) { y = Hardmax(x) }", 12, "a Hardmax over all axes"),
        (
            """g (float[1,3] i, float[1,2,3] x) => (float[1,3] y, float[1,2,3] z) { y, z = Scan<num_scan_inputs = 1, body =
        s (float[3] a, float[3] b) => (float[3] c, float[3] d) { c = Add(a, b)  d = Neg(c) }>(, i, x) }""",
            8,
            "a Scan over a batch",
        ),
    ],
)
def test_what_no_opset_brings_along_is_one_line(text, opset, why):
    with pytest.raises(ModelError, match=why) as seen:
        convert(parse(text, opset=opset), 23)
    assert len(str(seen.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        ("y = Exp(x)", 8),
        ("y, m = Dropout(x)", 12),
        ("y = Hardmax(x)", 13),
        ("y = Hardmax<axis = -1>(x)", 12),
        ("y = com.microsoft.Hardmax(x)", 12),
        (
            """y, z = Scan<num_scan_inputs = 1, body = s (float[3] a, float[3] b) => (float[3] c, float[3] d) { c = Add(a, b)  d = Neg(c) }>(i, x)""",
            9,
        ),
    ],
)
def test_what_newer_opsets_have_in_the_same_form_is_brought_along(node, opset):
    more = {"m": ", bool[2,3] m", "z": ", float[2,3] z"}.get(node[3], "")
    out = "float[3] y" if "Scan" in node else "float[2,3] y"
    model = parse(f"g (float[3] i, float[2,3] x) => ({out}{more}) {{ {node} }}", opset=opset)
    wanted = ops(model)
    convert(model, 23)
    assert (ops(model), model.opset_imports[""]) == (wanted, 23)


def _refuses(model: ir.Model, opset: int, **_: bool) -> None:
    raise RuntimeError("no adapter\nat all")


def _loses(model: ir.Model, opset: int, **_: bool) -> None:
    try:
        raise ValueError("a node is lost")
    except ValueError:
        logging.getLogger("onnxscript.version_converter").exception("going on")
    model.opset_imports[""] = opset


def _does_nothing(model: ir.Model, opset: int, **_: bool) -> None:
    log = logging.getLogger("onnxscript.version_converter")
    log.warning("nothing to do")
    log.exception("and no exception either")


@pytest.mark.parametrize(
    ("converter", "why"), [(_refuses, "no adapter;"), (_loses, "a node is lost;"), (_does_nothing, "has no such model")]
)
def test_a_converter_that_fails_in_any_way_is_told_of(monkeypatch, converter, why):
    monkeypatch.setattr("onnxfuse.normalize.opset.version_converter.convert_version", converter)
    with pytest.raises(ModelError, match=f"cannot be brought from opset 17 to 23: .*{why}"):
        convert(parse(X + "(float[2,3] y) { y = Exp(x) }", opset=17), 23)


def test_a_whole_model_with_branches_is_optimized_for_every_target():
    text = branches("u = Identity(q)", "v = Add(q, k)", "m = Add(x, x)  q = Identity(m)  k = Neg(w)", constants=NUMBERS)
    for target in ("cpu", "cuda", "openvino", "standard", "ort-contrib"):
        assert_kept(text, steps=(lambda model, target=target: fuse(model, find(target)),))
