"""Equal layers share a proof; whatever may decide a verdict, and is not equal, is proven anew."""

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.rewrite import Op, Prover, Rule, Trace, proof, rewrite
from onnxfuse.rewrite.proof_key import REPEATED, is_telling, may_be_weight, region_key
from onnxfuse.runtime.sessions import compute
from tests.conftest import analysis_of, parse

HEAD = """g (float[B,S,16] x, float[B,S,16] z, bool[B,S] mask, float[16,16] v, float[16,16] w, float[16,16] p, float[16,16] q, float[16,8] narrow, float[16] b, float[16] c)
    => (float[M] y, float[N] u) <float two = {2}, float three = {3}, int64[2] ones = {1, 1}, float zero = {0}, float one = {1},
    int64[2] tail = {1, 16}>"""
WEIGHTS = {"v": (16, 16), "w": (16, 16), "p": (16, 16), "q": (16, 16), "narrow": (16, 8), "b": (16,), "c": (16,)}
RNG = np.random.default_rng(0)
CONTENT = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in WEIGHTS.items()}


def agree(match):
    return None


def proofs(rule: Rule, body: str, monkeypatch, **content: np.ndarray) -> tuple[int, Trace]:
    """How many proofs were run, and the trace. ``content``: of the weights, instead of random numbers."""
    model = parse(f"{HEAD} {{ {body} }}")
    for value in list(model.graph.inputs):
        if value.name in WEIGHTS:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor((CONTENT | content)[value.name])
            value.shape, value.dtype = value.const_value.shape, value.const_value.dtype
            model.graph.register_initializer(value)
    runs = []
    whole = proof.Prover._compare
    monkeypatch.setattr(proof.Prover, "_compare", lambda self, *given: runs.append(given) or whole(self, *given))
    analysis, trace = analysis_of(model), Trace()
    rewrite(model, [rule], analysis, trace, Prover(analysis, compute))
    monkeypatch.undo()
    return len(runs), trace


def positive(op, m):
    """What stands for Abs here, so that no rule builds what it looks for."""
    return op.Max(m, op.Neg(m))


LINEAR = Rule("linear", lambda op, x, w: op.Abs(op.MatMul(x, w)), agree, lambda op, x, w: positive(op, op.MatMul(x, w)))
SCALED = Rule("scaled", lambda op, x, c: op.Abs(op.Mul(x, c)), agree, lambda op, x, c: positive(op, op.Mul(c, x)))
PLUS = Rule("plus", lambda op, x, m: op.Abs(op.Add(x, m)), agree, lambda op, x, m: positive(op, op.Add(m, x)))
SOFTMAX = Rule(
    "softmax",
    lambda op, x, axis: op.Neg(op.Softmax(x, axis=axis)),
    agree,
    lambda op, x, axis: op.Neg(op.Exp(op.LogSoftmax(x, axis=axis))),
)
TWINS = Rule(
    "twins",
    lambda op, x, v, w: op.Sub(op.MatMul(x, v), op.MatMul(x, w)),
    agree,
    lambda op, x, v, w: op.MatMul(x, op.Sub(v, w)),
)


def looking(match):
    match.need(match.need_array("w").max() < 100, "it is large")


def looking_behind(match):
    match.need(match.array(match["w"]) is not None, "it is no constant")


def turned(op, x, w):
    """Builds a weight from another."""
    return positive(op, op.MatMul(x, op.constant(-w.const_value.numpy())))


LOOKING = Rule("looking", LINEAR.before, looking, LINEAR.after)
BEHIND = Rule("behind", LINEAR.before, looking_behind, LINEAR.after)
TURNED = Rule("turned", LINEAR.before, agree, turned)
ZEROS, EQUAL = np.zeros((16, 16), np.float32), np.full((16, 16), 0.7, np.float32)

LAYERS = "a = MatMul(x, v)  y = Abs(a)  d = MatMul(z, w)  u = Abs(d)"
PAIRS = "a = MatMul(x, v)  d = MatMul(x, w)  y = Sub(a, d)  e = MatMul(z, p)  h = MatMul(z, q)  u = Sub(e, h)"


@pytest.mark.parametrize(
    ("rule", "body", "content", "count"),
    [
        # other weights of equal shape, other activations: alike
        (LINEAR, LAYERS, {}, 1),
        (LINEAR, "a = MatMul(x, v)  y = Abs(a)  d = MatMul(y, w)  u = Abs(d)", {}, 1),
        (SCALED, "a = Mul(x, two)  y = Abs(a)  d = Mul(z, two)  u = Abs(d)", {}, 1),
        (SOFTMAX, "a = Softmax<axis = 1>(x)  y = Neg(a)  d = Softmax<axis = 1>(z)  u = Neg(d)", {}, 1),
        (TWINS, PAIRS, {}, 1),
        # a shape, an operand's place, an attribute, a small constant
        (LINEAR, "a = MatMul(x, v)  y = Abs(a)  d = MatMul(z, narrow)  u = Abs(d)", {}, 2),
        (PLUS, "a = Add(x, z)  y = Abs(a)  d = Add(x, x)  u = Abs(d)", {}, 2),
        (SOFTMAX, "a = Softmax<axis = 1>(x)  y = Neg(a)  d = Softmax<axis = 2>(z)  u = Neg(d)", {}, 2),
        (SCALED, "a = Mul(x, two)  y = Abs(a)  d = Mul(z, three)  u = Abs(d)", {}, 2),
        (PLUS, "a = Add(x, b)  y = Abs(a)  d = Add(z, c)  u = Abs(d)", {}, 2),  # small enough to be followed
        # a type
        (
            LINEAR,
            "a = MatMul(x, v)  y = Abs(a)  i = Cast<to = 11>(z)  j = Cast<to = 11>(w)  d = MatMul(i, j)  u = Abs(d)",
            {},
            2,
        ),
        # a mask that is known to be of one number, and one that is not, or is of another
        (PLUS, "e = Expand(zero, tail)  a = Add(x, e)  y = Abs(a)  d = Add(z, e)  u = Abs(d)", {}, 1),
        (PLUS, "e = Expand(zero, tail)  h = Expand(one, tail)  a = Add(x, e)  y = Abs(a)  d = Add(z, h)  u = Abs(d)", {}, 2),
        (
            PLUS,
            "s = Shape(x)  e = Expand(zero, s)  h = Where(mask, zero, one)  i = Shape(h)  a = Add(x, e)  y = Abs(a)"
            "  d = Add(x, z)  u = Abs(d)",
            {},
            2,
        ),
        # weights that the guard read, that after made, that would show no difference, that are whole numbers, that are twins
        (LOOKING, LAYERS, {}, 2),
        (LOOKING, LAYERS, {"w": CONTENT["v"]}, 1),
        (BEHIND, LAYERS, {}, 2),
        (TURNED, LAYERS, {}, 2),
        (LINEAR, LAYERS, {"v": ZEROS}, 2),
        (LINEAR, LAYERS, {"w": EQUAL}, 2),
        (LINEAR, LAYERS, {"v": ZEROS, "w": ZEROS}, 1),
        (PLUS, "a = Add(v, v)  y = Abs(a)  d = Add(w, w)  u = Abs(d)", {}, 1),
        (PLUS, "a = Add(v, v)  y = Abs(a)  d = Add(w, w)  u = Abs(d)", {"w": CONTENT["w"].astype(np.float64)}, 2),
        (
            PLUS,
            "a = Add(v, v)  y = Abs(a)  d = Add(w, w)  u = Abs(d)",
            {"v": np.arange(256).reshape(16, 16), "w": np.arange(256).reshape(16, 16).T.copy()},
            2,
        ),
        (TWINS, PAIRS, {"w": CONTENT["v"]}, 2),
        (TWINS, PAIRS, {"w": CONTENT["v"], "q": CONTENT["p"]}, 1),
    ],
)
def test_equal_regions_prove_once_and_others_anew(rule, body, content, count, monkeypatch):
    runs, trace = proofs(rule, body, monkeypatch, **content)
    assert (trace.proven, trace.rejected, trace.unproven) == (2, {}, {})
    assert runs == count


@pytest.mark.parametrize("reason", ["off by", "cannot run the replacement"])
def test_what_was_rejected_is_tried_anew(reason, monkeypatch):
    """The next layer's may hold: nothing is known of it."""
    wrong = {
        "off by": lambda op, x, w: op.Neg(op.MatMul(x, w)),
        "cannot run the replacement": lambda op, x, w: op.Nothing(x, w, _domain="com.acme"),
    }[reason]
    runs, trace = proofs(Rule("wrong", LINEAR.before, agree, wrong), LAYERS, monkeypatch)
    assert runs == 2 and trace.proven == 0 and reason in trace.rejected["wrong"]


def test_what_the_caller_does_not_know_is_not_shared():
    """Without a word on what a guard read, all that is constant may have been."""
    model = parse(f"{HEAD} {{ a = Mul(v, w)  y = Abs(a)  d = Mul(p, q)  u = Abs(d) }}")
    count = Counter()

    def counted(proto, feeds):
        count[proto.graph.node[0].op_type] += 1
        return compute(proto, feeds)

    for value in list(model.graph.inputs):
        if value.name in WEIGHTS:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(CONTENT[value.name])
    prover = Prover(analysis_of(model), counted)
    for node in list(model.graph):
        if node.op_type == "Mul":
            op = Op(model.graph, "n")
            new = op.Mul(node.inputs[1], node.inputs[0])
            assert prover.prove(PLUS, [node], node.outputs[0], op, new).proven
    assert count == {"Mul": 4}


def test_nodes_that_hold_graphs_are_like_no_others(monkeypatch):
    body = """a = If (one_bool) <then_branch = t () => (float[P] e) { e = Identity(zero) }, else_branch = f () => (float[Q] h) { h = Identity(one) }>
        y = Abs(a)
        d = If (one_bool) <then_branch = t () => (float[P] e) { e = Identity(zero) }, else_branch = f () => (float[Q] h) { h = Identity(one) }>
        u = Abs(d)"""
    node = next(iter(parse(f"{HEAD} {{ {body.replace('one_bool', 'mask')} }}").graph))
    assert region_key([node], [], {}, ()) != region_key([node], [], {}, ())


@pytest.mark.parametrize(
    ("numbers", "telling"),
    [
        (np.linspace(-1, 1, 64), True),
        (np.r_[np.zeros(4), np.linspace(2, 3, 60)], True),
        (np.r_[np.zeros(5), np.linspace(2, 3, 59)], False),
        (np.r_[np.linspace(2, 3, 59), np.ones(5)], False),
        (np.r_[np.full(5, 0.3), np.linspace(2, 3, 59)], False),
    ],
)
def test_numbers_that_repeat_show_little(numbers, telling):
    assert REPEATED == 1 / 16
    assert is_telling(numbers) is telling


@pytest.mark.parametrize(
    ("content", "weight"),
    [
        (np.zeros(64, np.float32), False),  # of so many the analysis knows whether they are all the same
        (np.zeros(65, np.float32), True),
        (np.zeros(65, np.float16), True),
        (np.zeros(65, np.int8), False),
        (np.zeros(65, bool), False),
    ],
)
def test_weights_are_many_floats(content, weight):
    value = ir.Value(name="w", const_value=ir.tensor(content))
    assert may_be_weight(value) is weight
    assert not may_be_weight(ir.Value(name="x"))


def test_a_large_weight_is_judged_by_a_sample_of_all_of_it(monkeypatch):
    half = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    half[4:] = 0  # the first 64 numbers are not
    monkeypatch.setattr("onnxfuse.rewrite.proof_key.SAMPLE", 64)
    assert proofs(LINEAR, LAYERS, monkeypatch, w=half)[0] == 2


ROOT = Path(__file__).parents[2]
RULES = [path for folder in ("fusions", "onnxfuse/normalize") for path in sorted((ROOT / folder).glob("*.py"))]


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_guards_read_content_through_the_match_alone(path):
    """Otherwise the engine would not know that they did, and share the proofs of regions that differ in what was read."""
    tree = ast.parse(path.read_text())
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    guards = {name for name, node in functions.items() if [a.arg for a in node.args.args][:1] == ["match"]}
    reached: set[str] = set()
    while guards - reached:
        name = (guards - reached).pop()
        reached.add(name)
        named = {node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in ast.walk(functions[name]) if isinstance(node, ast.Attribute)}
        guards |= named & set(functions)
        assert not named & imported & {"constant", "stored"} and "const_value" not in attributes, f"{path}: {name}"
