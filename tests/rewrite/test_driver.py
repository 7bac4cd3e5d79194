"""The driver: which nodes go and come, what the trace says, and rules whose root is another output than the first of its node."""

import onnx_ir as ir
import pytest

from onnxfuse.rewrite import NoMatch, Rule, Trace, rewrite
from onnxfuse.rewrite.driver import CONSENT, nearest_miss
from onnxfuse.rewrite.lines import Line
from tests.conftest import analysis_of, assert_same, ops, parse


def cut(at: int) -> Rule:
    """A Slice in place of one part of a Split."""

    def before(op, x, axis, num_outputs):
        return op.Split(x, axis=axis, num_outputs=num_outputs, _output=at)

    def after(op, x, **_):
        return op.Slice(x, op.constant([2 * at], "start"), op.constant([2 * at + 2], "end"), op.constant([1], "axis"))

    return Rule("part", before, lambda match: None, after, shared=True, exact=True)


TEXT = "g (float[B,6] x) => ({}) {{ a, b, c = Split<axis = 1, num_outputs = 3>(x)  y = Sub(b, a)  {} }}"


@pytest.mark.parametrize("at", [0, 1])
def test_a_rule_replaces_the_output_that_its_pattern_names(at):
    before, after = parse(TEXT.format("float[B,2] y", "")), parse(TEXT.format("float[B,2] y", ""))
    trace = Trace()
    assert rewrite(after, [cut(at)], analysis_of(after), trace) == 1  # and not again: nobody reads that part any more
    assert [application.value for application in trace.applications] == ["ab"[at]]
    assert ops(after) == ["Slice", "Split", "Sub"]
    assert_same(before, after, {"B": 3})


def test_a_part_that_nobody_reads_is_left_alone():
    model = parse(TEXT.format("float[B,2] y", ""))
    assert rewrite(model, [cut(2)], analysis_of(model), Trace()) == 0
    root = next(node for node in model.graph if node.op_type == "Split")
    assert nearest_miss(cut(2), root, analysis_of(model)) is None


def test_a_part_that_is_not_there_is_left_alone():
    model = parse("g (float[B,6] x) => (float[B,3] y) { a, y = Split<axis = 1, num_outputs = 2>(x) }")
    assert rewrite(model, [cut(2)], analysis_of(model), Trace()) == 0
    assert nearest_miss(cut(2), next(iter(model.graph)), analysis_of(model)) is None


def test_a_part_that_is_a_graph_output_keeps_its_name():
    before, after = (parse(TEXT.format("float[B,2] y, float[B,2] c", "")) for _ in range(2))
    assert rewrite(after, [cut(2)], analysis_of(after), Trace()) == 1
    assert [value.name for value in after.graph.outputs] == ["y", "c"]
    assert_same(before, after, {"B": 3})


def anyway(match):
    return None


def clipped(op, x):
    return op.Max(x, op.constant(0.0))


RELU = Rule("relu", lambda op, x: op.Relu(x), anyway, clipped)
CHAIN = "g (float[B,S] x) => (float[B,S] y{}) {{ a = Relu(x)  b = Tanh(a)  y = Sqrt(b) }}"


def rewritten(text: str, *rules: Rule, **options) -> tuple:
    """A model after rules, and their trace."""
    model, trace = parse(text), Trace(**options)
    rewrite(model, rules, analysis_of(model), trace)
    return model, trace


def root_of(model, op_type: str):
    return next(node for node in model.graph if node.op_type == op_type)


def test_a_listener_is_told_of_each_rewrite_and_each_is_in_the_trace():
    told = []
    _, trace = rewritten(
        CHAIN.format(""), RELU, Rule("tanh", lambda op, x: op.Tanh(x), anyway, lambda op, x: op.Erf(x)), listener=told.append
    )
    assert told == trace.applications
    assert [(application.rule, application.value) for application in told] == [("relu", "a"), ("tanh", "b")]
    assert trace.proven == 0  # nothing was to be proven
    assert trace.endless == set()


def test_the_trace_names_what_went_and_came_without_absent_operands():
    rule = Rule("cap", lambda op, x, high, low=None: op.Clip(x, low, high), anyway, lambda op, x, high, **_: op.Min(x, high))
    _, trace = rewritten("g (float[4] x, float top) => (float[4] y) { y = Clip(x, , top) }", rule)
    (application,) = trace.applications
    assert application.before == (Line("Clip", ("x", "top"), ("y",)),)
    assert application.after == (Line("Min", ("x", "top"), ("y",)),)


@pytest.mark.parametrize(("order", "where"), [("near far", "z0"), ("far near", "z1"), ("near near2", "z0")])
def test_the_nearest_miss_is_kept_and_the_first_of_equals(order, where):
    """``near`` matches two nodes more than ``far`` before it stops."""
    near = "z{0} = Sqrt(x)  a{0} = Tanh(z{0})  b{0} = Erf(a{0})  c{0} = Exp(b{0})  "
    far = "p = Log(x)  c{0} = Exp(p)  "
    parts = [(near if name.startswith("near") else far).format(at) for at, name in enumerate(order.split())]
    rule = Rule("deep", lambda op, x: op.Exp(op.Erf(op.Tanh(op.Abs(x)))), anyway, lambda op, x: op.Relu(x))
    _, trace = rewritten(f"g (float[4] x) => (float[4] y) {{ {''.join(parts)} y = Add(c0, c1) }}", rule)
    assert trace.misses == {"deep": {"matched": 3, "wanted": "Abs", "seen": "Sqrt", "where": where}}


def test_a_root_that_does_not_fit_is_no_miss():
    rule = Rule("softmax", lambda op, x: op.Softmax(x), anyway, lambda op, x: op.Relu(x))
    model, trace = rewritten("g (float[2,3] x) => (float[2,3] y) { y = Softmax<axis = 0>(x) }", rule)
    assert trace.misses == {}
    assert nearest_miss(rule, root_of(model, "Softmax"), analysis_of(model)) is None
    bent = Rule("bent", lambda op, x: op.Softmax(op.Abs(x), axis=0), anyway, lambda op, x: op.Relu(x))
    miss, nodes = nearest_miss(bent, root_of(model, "Softmax"), analysis_of(model))
    assert (miss.matched, miss.wanted, miss.where, list(nodes)) == (1, "Abs", "x", [root_of(model, "Softmax")])


def refuse(match):
    raise NoMatch("it is too large", match["x"])


def refuse_it(match):
    raise NoMatch("it is too large")


@pytest.mark.parametrize(("guard", "where"), [(refuse, "x"), (refuse_it, "a")])
def test_a_guard_that_refuses_is_the_miss_where_it_looked(guard, where):
    model, trace = rewritten(CHAIN.format(""), Rule("relu", lambda op, x: op.Relu(x), guard, clipped))
    wanted = {"matched": 1, "wanted": CONSENT, "seen": "it is too large", "where": where}
    assert trace.misses == {"relu": wanted}
    assert ops(model) == ["Relu", "Sqrt", "Tanh"]
    miss, nodes = nearest_miss(Rule("relu", lambda op, x: op.Relu(x), guard, clipped), root_of(model, "Relu"), analysis_of(model))
    assert (vars(miss), nodes) == (wanted, (root_of(model, "Relu"),))


def test_a_rule_that_refuses_is_asked_once():
    asked = []
    rewritten(
        CHAIN.format(""), Rule("relu", lambda op, x: op.Relu(x), lambda match: asked.append(match) or refuse(match), clipped)
    )
    assert len(asked) == 1


def test_where_a_rule_fires_there_is_no_miss():
    model = parse(CHAIN.format(""))
    assert nearest_miss(RELU, root_of(model, "Relu"), analysis_of(model)) is None
    assert rewritten(CHAIN.format(""), RELU)[1].misses == {}


def pair(**options) -> Rule:
    return Rule("pair", lambda op, x: op.Tanh(op.Relu(x)), anyway, lambda op, x: op.Erf(op.Neg(x)), **options)


PAIR = pair()


@pytest.mark.parametrize(
    ("outputs", "after", "reason"),
    [
        ("", "z = Neg(b)", None),
        (", float[B,S] a", "", "a is also a graph output"),
        ("", "z = Neg(a)", "a is also read elsewhere"),
        (", float[B,S] b", "", None),
    ],
)
def test_what_is_read_elsewhere_refuses_a_match_unless_it_is_shared(outputs, after, reason):
    text = CHAIN.format(outputs).replace(" }", f" {after} }}")
    model, trace = rewritten(text, pair())
    assert ("Erf" in ops(model)) is (reason is None)
    assert [miss["seen"] for miss in trace.misses.values()] == ([] if reason is None else [reason])
    found = nearest_miss(PAIR, root_of(model, "Tanh"), analysis_of(model)) if reason else None
    assert (found[0].seen if found else None) == reason
    shared, _ = rewritten(text, pair(shared=True))
    assert "Erf" in ops(shared)
    assert ("Relu" in ops(shared)) is (reason is not None)  # what somebody else reads stays


@pytest.mark.parametrize("shared", [False, True])
def test_a_variable_that_is_a_value_of_the_match_itself_refuses_it_unless_it_is_shared(shared):
    """The replacement would read what it stands for: that stays, and is computed twice."""
    rule = Rule("sum", lambda op, x, r: op.Add(op.Relu(x), r), anyway, lambda op, x, r: op.Sum(x, r), shared=shared)
    model, trace = rewritten("g (float[4] x) => (float[4] y) { a = Relu(x)  y = Add(a, a) }", rule)
    assert ops(model) == (["Relu", "Sum"] if shared else ["Add", "Relu"])
    assert [miss["seen"] for miss in trace.misses.values()] == ([] if shared else ["a is also an operand"])


def test_two_operands_from_one_node_go_with_it():
    model, _ = rewritten(
        "g (float[4] x) => (float[4] y) { a = Relu(x)  b = Mul(a, a)  y = Neg(b) }",
        Rule("square", lambda op, x: (lambda a: op.Mul(a, a))(op.Relu(x)), anyway, lambda op, x: op.Exp(x)),
    )
    assert ops(model) == ["Exp", "Neg"]


def test_an_absent_operand_goes_with_its_node():
    model, _ = rewritten(
        "g (float[4] x, float top) => (float[4] y) { a = Clip(x, , top)  y = Neg(a) }",
        Rule("cap", lambda op, x, high, low=None: op.Clip(x, low, high), anyway, lambda op, x, high, **_: op.Min(x, high)),
    )
    assert ops(model) == ["Min", "Neg"]


def test_new_values_are_called_after_the_old():
    model, _ = rewritten(CHAIN.format(""), PAIR)
    assert root_of(model, "Neg").outputs[0].name.startswith("b~Neg")
    assert root_of(model, "Erf").outputs[0].name == "b"


def test_types_are_kept_and_stale_shapes_are_not():
    """What a file says of a shape inside may be wrong; a graph's own outputs keep what was promised."""
    model = parse(CHAIN.format(""))
    for value in (root_of(model, "Relu").outputs[0], root_of(model, "Tanh").outputs[0]):
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([7, 7])
    rewrite(model, [PAIR, Rule("root", lambda op, x: op.Sqrt(x), anyway, lambda op, x: op.Abs(x))], analysis_of(model), Trace())
    inner, output = root_of(model, "Erf").outputs[0], model.graph.outputs[0]
    assert (inner.dtype, inner.shape) == (ir.DataType.FLOAT, None)
    assert (output.name, output.dtype, list(output.shape)) == ("y", ir.DataType.FLOAT, ["B", "S"])


def test_a_graph_output_that_becomes_another_value_is_carried_by_an_identity():
    text = "g (float[B,S] x) => (float[B,S] y) { y = Relu(x) }"
    model, _ = rewritten(text, Rule("gone", lambda op, x: op.Relu(x), anyway, lambda op, x: x))
    assert ops(model) == ["Identity"]
    output = model.graph.outputs[0]
    assert (output.name, output.dtype, list(output.shape)) == ("y", ir.DataType.FLOAT, ["B", "S"])
    inner, _ = rewritten(CHAIN.format(""), Rule("gone", lambda op, x: op.Relu(x), anyway, lambda op, x: x))
    assert ops(inner) == ["Sqrt", "Tanh"]
    assert [value.name for value in (*inner.graph.inputs, *root_of(inner, "Tanh").outputs)] == ["x", "b"]


def test_a_value_that_is_an_output_and_read_stays_so():
    text = "g (float[B,S] x) => (float[B,S] y, float[B,S] a) { a = Relu(x)  y = Sqrt(a) }"
    before, (after, trace) = parse(text), rewritten(text, RELU)
    assert len(trace.applications) == 1
    assert [value.name for value in after.graph.outputs] == ["y", "a"]
    assert_same(before, after, {"B": 2, "S": 3})


def test_a_rule_that_was_stopped_stays_out_and_the_others_go_on():
    model, trace = parse(CHAIN.format("")), Trace(endless={"pair"})
    assert rewrite(model, [PAIR, RELU], analysis_of(model), trace) == 1
    assert ops(model) == ["Max", "Sqrt", "Tanh"]
