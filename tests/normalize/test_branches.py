"""An If whose condition is known takes its branch: what it computes stays, names stay apart, and the rest fuses around it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse.normalize.branches import InlineBranches, inline_branches
from onnxfuse.optimizer import clean_up, fuse
from onnxfuse.rewrite.passes import Context
from onnxfuse.runtime.sessions import compute, infer
from onnxfuse.targets import find
from tests.conftest import clean, normalized, ops, parse
from tests.normalize.test_structure import BRANCHES, FEEDS, answers, branches

TRUE, FALSE = "bool yes = {1}", "bool no = {0}"


def every_op(model: ir.Model) -> list[str]:
    """The operators of all graphs."""
    return [node.op_type for graph in (model.graph, *model.graph.subgraphs()) for node in graph]


def require_same(before: ir.Model, after: ir.Model) -> None:
    """Under any condition that is an input still, both compute the same; the file is one that ONNX allows."""
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    for choice in (True, False):
        wanted, got = answers(before, choice), answers(after, choice)
        assert list(got) == list(wanted)
        for name in wanted:
            np.testing.assert_array_equal(got[name], wanted[name])


def decide(text: str, choice: bool) -> ir.Model:
    """A model whose input ``c`` is known."""
    model = parse(text, opset=17)
    condition = next(value for value in model.graph.inputs if value.name == "c")
    model.graph.inputs.remove(condition)
    condition.const_value = ir.tensor(np.array(choice))
    model.graph.register_initializer(condition)
    return model


@pytest.mark.parametrize("choice", [True, False])
@pytest.mark.parametrize("name", BRANCHES)
def test_the_branch_that_runs_takes_its_place(name, choice):
    before, after = decide(BRANCHES[name], choice), decide(BRANCHES[name], choice)
    context = Context(compute, infer)
    for each in (*clean_up(), InlineBranches(clean_up())):
        context.apply(each, after)
    assert "If" not in every_op(after)
    assert "Constant" not in ops(after)
    assert context.trace.passes["inline-branches"] == 1
    require_same(before, after)


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("name", BRANCHES)
def test_a_condition_that_is_given_keeps_both(name, opset):
    model = parse(BRANCHES[name], opset=opset)
    clean(model)
    before = every_op(model)
    assert inline_branches(model) == 0
    assert every_op(model) == before


WITHIN = "If (yes) <then_branch = t2 () => (float[2,3] k) { k = Exp(x) }, else_branch = e2 () => (float[2,3] l) { l = Neg(x) }>"
LOOP = """g (float[2,3] x) => (float[2,3] y) <int64 three = {3}, bool yes = {1}> { y = Loop<
    body = s (int64 at, bool on, float[2,3] a) => (bool o, float[2,3] d) { o = Identity(on)  d = If (%s)
    <then_branch = t () => (float[2,3] k) { k = Add(a, x) }, else_branch = e () => (float[2,3] l) { l = Sub(a, x) }> }>(three, yes, x) }"""
NESTED = {
    "in a branch": (branches(f"u = {WITHIN}", "v = Neg(x)", constants=TRUE), ["If", "Exp", "Neg"]),
    "in a branch, among others": (
        branches(f"j = {WITHIN}  u = Mul(j, x)", "v = Neg(x)", constants=TRUE),
        ["If", "Exp", "Mul", "Neg"],
    ),
    "in the body of a loop": (LOOP % "yes", ["Loop", "Identity", "Add"]),
    "by a Constant there": ((LOOP % "b").replace("o = Ident", "b = Constant<value = bool {1}>()  o = Ident"), None),
}


@pytest.mark.parametrize("name", NESTED)
def test_graphs_inside_nodes_too(name):
    text, wanted = NESTED[name]
    before, after = parse(text, opset=17), parse(text, opset=17)
    clean(after)
    assert inline_branches(after) == 1
    assert wanted is None or every_op(after) == wanted
    require_same(before, after)


OTHERS = {
    "one element": "bool[1] yes = {1}",
    "of another rank": "bool[1,1] yes = {1}",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_condition_of_one_element(name):
    model = parse(branches("u = Exp(x)", "v = Neg(x)", constants=OTHERS[name]).replace("If (c)", "If (yes)"), opset=17)
    assert inline_branches(model) == 1
    assert ops(model) == ["Exp"]


def test_a_condition_of_several_elements_is_none():
    text = branches("u = Exp(x)", "v = Neg(x)", constants="bool[2] yes = {1, 1}").replace("If (c)", "If (yes)")
    assert inline_branches(parse(text, opset=17)) == 0


def test_names_that_two_branches_share_stay_apart():
    """Initializers of a branch that nobody lifted, and values."""
    text = """g (float[2,3] x) => (float[2,3] y) <bool yes = {1}> {
        k = If (yes) <then_branch = t () => (float[2,3] u) <float[3] w = {1, 2, 3}> { a = Exp(x)  u = Add(a, w) },
                      else_branch = e () => (float[2,3] v) { v = Neg(x) }>
        y = If (yes) <then_branch = t () => (float[2,3] u) <float[3] w = {4, 5, 6}> { a = Neg(k)  u = Mul(a, w) },
                      else_branch = e () => (float[2,3] v) { v = Neg(x) }> }"""
    before, after = parse(text, opset=17), parse(text, opset=17)
    assert inline_branches(after) == 2
    require_same(before, after)


def test_a_condition_that_a_caller_may_override_stays():
    model = parse(branches("u = Exp(x)", "v = Neg(x)", constants=TRUE).replace("If (c)", "If (yes)"), opset=17)
    model.graph.inputs.append(model.graph.initializers["yes"])
    assert inline_branches(model) == 0


def test_several_outputs_of_which_two_are_the_same():
    """ONNX Runtime itself gives anything for the second of them (1.32)."""
    model = parse(
        """g (float[2,3] x) => (float[2,3] y, float[2,3] z, float[3] w) <bool yes = {1}> { y, z, w = If (yes)
        <then_branch = t () => (float[2,3] a, float[2,3] a, float[3] b) <float[3] b = {1, 2, 3}> { a = Exp(x) },
         else_branch = e () => (float[2,3] d, float[2,3] f, float[3] i) { d = Neg(x)  f = Abs(x)  i = Identity(f) }> }""",
        opset=17,
    )
    clean(model)
    assert inline_branches(model) == 1
    got = answers(model, True)
    np.testing.assert_allclose([got["y"], got["z"]], [np.exp(FEEDS["x"])] * 2, rtol=1e-6)
    np.testing.assert_array_equal(got["w"], [1, 2, 3])


def test_what_the_other_branch_alone_reads_goes():
    model = parse(branches("u = Exp(x)", "v = Neg(q)", "q = Abs(x)", constants=TRUE).replace("If (c)", "If (yes)"), opset=17)
    Context(compute, infer).apply(InlineBranches(clean_up()), model)
    assert ops(model) == ["Exp"]


def test_a_function_that_holds_one():
    text = """g (float[2,3] x) => (float[2,3] y) <bool yes = {1}> { y = local.f(x, yes) }
        <domain: "local", opset_import: ["" : 17]> f (a, c) => (b) { b = If (c)
        <then_branch = t () => (float[2,3] k) { k = Exp(a) }, else_branch = e () => (float[2,3] l) { l = Neg(a) }> }"""
    model = ir.from_proto(onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 17, "local" : 1]>\n' + text))
    clean(model)
    assert inline_branches(model) == 1
    assert ops(model) == ["Exp"]


def test_a_runtimes_own_operator_in_a_branch_is_taken_apart():
    text = branches("u0 = com.microsoft.FastGelu(x)  u = Dropout(u0)", "v = Neg(x)", constants=TRUE).replace("If (c)", "If (yes)")
    model = parse(text, opset=20)
    normalized(model)
    assert not {"FastGelu", "Dropout", "If"} & set(ops(model))


SHAPES = """g (float[B,S,8] x, float[B,S,8] z, float[B,T,8] other) => (float[B,S,8] y) <int64 one = {1}, int64[1] last = {-1}> {
    n = Shape(x)  m = Shape(%s)  a = Gather(n, one)  b = Gather(m, one)  e = Equal(a, b)  d = Not(e)  c = Cast<to = 9>(d)
    r = If (c) <then_branch = t () => (float[B,S,8] k) { k = Slice(x, last, last, last) },
                else_branch = e () => (float[B,S,8] l) { l = Identity(z) }>  y = Add(r, x) }"""


@pytest.mark.parametrize(("read", "wanted"), [("z", ["Add"]), ("other", None)])
def test_a_question_about_shapes_that_sizes_answer(read, wanted):
    """As torchscript writes DeBERTa of transformers 4.57; sizes of two names may differ."""
    model = parse(SHAPES % read, opset=17)
    context = normalized(model, prove=True)
    assert not context.trace.rejected
    if wanted is None:
        assert "If" in ops(model)
    else:
        assert ops(model) == wanted
        assert context.analysis(model).shape(model.graph.outputs[0]) == context.analysis(model).shape(model.graph.inputs[0])


def test_it_can_be_left_out():
    model = parse(SHAPES % "z", opset=17)
    trace = fuse(model, find("cpu"), without=frozenset({"inline-branches"})).trace
    assert "If" in ops(model)
    assert "inline-branches" not in trace.passes
