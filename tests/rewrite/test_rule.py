"""What a guard may ask of a match and how it says no, and how new nodes and initializers are called."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.rewrite import Analysis, Dim, NoMatch, Op, Rule
from onnxfuse.rewrite.pattern import Found
from onnxfuse.rewrite.rule import Match
from tests.conftest import analysis_of, parse

TEXT = """g (float[B,S,8] x, float[1] given, int64[N] open) => (float[P] y, float[B,S,8] shown)
    <float half = {{0.5}}, float[1,1] one = {{0.1}}, float[2] pair = {{2, 2}}, float[2] two = {{1, 2}}, string word = {{"a"}}, float[1] plain = {{3}}, int64 shape = {{1}}>
    {{ u = com.acme.Blend(x)  e = Neg(half)  shown = Exp(x)  {} }}"""


def match_of(body: str = "y = Relu(x)", output: int = 0) -> Match:
    """A match at the last node; every value of the graph is bound under its own name."""
    model = parse(TEXT.format(body))
    values = {value.name: value for node in model.graph for value in (*node.inputs, *node.outputs) if value is not None}
    values |= {value.name: value for value in (*model.graph.inputs, *model.graph.initializers.values())}
    return Match(Found(values | {"absent": None}, {}), list(model.graph)[-1], analysis_of(model), output)


@pytest.mark.parametrize(
    ("condition", "holds"), [(True, True), (1, True), ("text", True), (False, False), (None, False), (0, False), ([], False)]
)
def test_a_condition_that_does_not_hold_refuses(condition, holds):
    match = match_of()
    if holds:
        match.need(condition, "it is too large", match["x"])
        return
    with pytest.raises(NoMatch, match="it is too large") as refusal:
        match.need(condition, "it is too large", match["x"])
    assert refusal.value.value is match["x"]


@pytest.mark.parametrize(
    ("body", "output", "read"),
    [
        ("y, m = Dropout(x)", 0, None),
        ("y = Relu(x)", 0, None),
        ("y, shown2 = Dropout(x)", 1, "y"),
        ("a, y = Split<axis = 2, num_outputs = 2>(x)", 1, None),
        ("a, y = Split<axis = 2, num_outputs = 2>(x)", 0, "y"),
        ("a, y = Split<axis = 2, num_outputs = 2>(x)  k = Neg(a)", 1, "a"),
    ],
)
def test_a_node_of_which_another_output_is_read_is_refused(body, output, read):
    match = match_of(body, output)
    match.root = match["y"].producer()
    assert match.output is match.root.outputs[output]
    if read is None:
        match.need_single_output()
    else:
        with pytest.raises(NoMatch, match=f"its output {read} is read too"):
            match.need_single_output()


@pytest.mark.parametrize(
    ("value", "rank", "reason"),
    [
        ("x", None, None),
        ("x", 3, None),
        ("half", 0, None),
        ("x", 2, "x has rank 3, wanted 2"),
        ("half", 1, "half has rank 0, wanted 1"),
        ("u", None, "the shape of u is not known: no shape inference tells what com.acme.Blend at u gives"),
        ("y", None, "the shape of y is not known: no shape inference tells what com.acme.Blend at u gives"),
        ("w", 1, "the shape of w is not known: no shape inference tells what Reshape at w gives"),
        ("absent", None, "the shape of an absent input is not known"),
    ],
)
def test_shapes_are_needed_by_name_or_value(value, rank, reason):
    match = match_of("w = Reshape(x, open)  y = Relu(u)")
    for asked in (value, match[value]):
        if reason is None:
            assert match.need_shape(asked, rank) == match.analysis.shape(match[value])
        else:
            with pytest.raises(NoMatch) as refusal:
                match.need_shape(asked, rank)
            assert (refusal.value.reason, refusal.value.value) == (reason, match[value])


def test_types_and_numbers_are_needed():
    match = match_of()
    assert match.need_type("x") == ir.DataType.FLOAT
    with pytest.raises(NoMatch, match="the type of u is not known"):
        match.need_type("u")
    assert match.need_number(Dim(12), "the head size") == 12
    assert match.need_number(Dim(0), "the head size") == 0
    with pytest.raises(NoMatch, match=r"the head size is 2\*S, wanted a number"):
        match.need_number(Dim(2, ("S",)), "the head size")


@pytest.mark.parametrize(("name", "constant"), [("half", True), ("two", True), ("x", False), ("e", False), ("given", False)])
def test_constants_are_needed(name, constant):
    match = match_of()
    match["given"].const_value = ir.tensor(np.ones(1, np.float32))  # a caller may override it
    if constant:
        assert match.need_constant(name) is match[name]
        np.testing.assert_array_equal(match.need_array(name), match[name].const_value.numpy())
        return
    for need in (match.need_constant, match.need_array):
        with pytest.raises(NoMatch, match=f"{name} is not a constant") as refusal:
            need(name)
        assert refusal.value.value is match[name]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("half", 0.5),
        ("one", float(np.float32(0.1))),
        ("plain", 3.0),
        ("shape", 1.0),
        ("pair", None),
        ("two", None),
        ("word", None),
        ("x", None),
        ("e", None),
        ("given", None),
        ("u", None),
    ],
)
def test_scalars_are_constants_of_one_element(name, number):
    match = match_of()
    if number is not None:
        assert match.scalar(name) == number
        return
    with pytest.raises(NoMatch, match=f"{name} is not a constant scalar"):
        match.scalar(name)


@pytest.mark.parametrize(
    ("kind", "seen", "wanted", "near"),
    [
        (np.float32, 0.1, 0.1, True),
        (np.float32, np.nextafter(np.float32(0.1), np.float32(1)), 0.1, True),
        (np.float32, np.nextafter(np.float32(0.1), np.float32(0)), 0.1, True),
        (np.float32, np.float32(0.1) + 3e-8, 0.1, False),
        (np.float32, np.float32(-0.1) + 3e-8, -0.1, False),
        (np.float32, np.nextafter(np.float32(-0.1), np.float32(0)), -0.1, True),
        (np.float16, 0.1, 0.1, True),
        (np.float16, 0.1003, 0.1, False),
        (np.float64, 0.1, 0.1, True),
        (np.float64, float(np.float32(0.1)), 0.1, False),
        (np.float32, 0.2, 0.1, False),
        (np.int64, 3, 3, True),
    ],
)
def test_scalars_are_compared_as_their_type_holds_them(kind, seen, wanted, near):
    match = match_of()
    match["half"].const_value = ir.tensor(np.array(seen, kind))
    match = Match(Found(match.bindings, {}), match.root, Analysis({"": 23}), 0)
    if near:
        match.need_scalar("half", wanted)
    else:
        with pytest.raises(NoMatch, match=f"wanted {wanted}"):
            match.need_scalar("half", wanted)


def test_new_values_are_named_after_the_old_with_a_number_of_their_own():
    model = parse("g (float[B,8] x) => (float[B,8] y) { y = Relu(x) }")
    first, second = Op(model.graph, "y"), Op(model.graph, "y~Mul.7.1")
    names = [
        first.Neg(model.graph.inputs[0]).name,
        first.Exp(model.graph.inputs[0]).name,
        second.Neg(model.graph.inputs[0]).name,
        *(value.name for value in second.many("Split", 2, model.graph.inputs[0], axis=1, num_outputs=2)),
    ]
    assert names == ["y~Neg.1.1", "y~Exp.1.2", "y~Neg.2.1", "y~Split.2.2.0", "y~Split.2.2.1"]
    assert [node.domain for node in second.nodes] == ["", ""]


def test_numbers_go_on_after_those_of_an_earlier_run():
    """A model that was fused before has such names already."""
    model = parse("g (float[B,8] x) => (float[B,8] y) { a = Neg(x)  b = Abs(a)  y = Relu(b) }")
    for node, name in zip(model.graph, ["y~Neg.3.1", "z~Split.12.2.0"], strict=False):
        node.outputs[0].name = name
    assert [Op(model.graph, "y").Neg(model.graph.inputs[0]).name for _ in range(2)] == ["y~Neg.13.1", "y~Neg.14.1"]


def test_operators_begin_with_a_capital():
    op = Op(parse("g (float[B] x) => (float[B] y) { y = Relu(x) }").graph, "y")
    with pytest.raises(AttributeError, match="relu"):
        op.relu(None)
    assert op.nodes == ()


def test_constants_take_the_type_of_their_content_and_a_free_name():
    op = Op(parse("g (float[B] x) => (float[B] y) { y = Relu(x) }").graph, "y")
    made = [op.constant(content) for content in ([1, 2], [], 2.5, np.float64(2.5), np.array([1.5]), ir.tensor(np.array(True)))]
    assert [value.dtype.name for value in made] == ["INT64", "INT64", "FLOAT", "FLOAT", "DOUBLE", "BOOL"]
    assert [value.const_value.numpy().tolist() for value in made] == [[1, 2], [], 2.5, 2.5, [1.5], True]
    assert [value.name for value in made] == ["y/const", *(f"y/const.{at}" for at in range(1, 6))]


def test_a_constant_is_not_called_what_the_graph_holds():
    model = parse("g (float[B] x) => (float[B] y) <float c = {1}> { y = Add(x, c) }")
    model.graph.initializers["c"].name = "y/weight"
    op = Op(model.graph, "y")
    assert [op.constant(1.0, "weight").name, op.constant(1.0, "bias").name] == ["y/weight.1", "y/bias"]


def test_a_rule_is_neither_shared_nor_exact_unless_it_says_so():
    rule = Rule("relu", lambda op, x: op.Relu(x), lambda match: None, lambda op, x: x)
    assert (rule.shared, rule.exact) == (False, False)
    assert rule.pattern is rule.pattern
