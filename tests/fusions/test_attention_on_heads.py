"""Attention on heads, behind rotary positions: forms that must fuse, edits that must not, and how targets write it."""

import onnx_ir as ir
import pytest

from onnxfuse.fusions import attention, attention_on_heads, lowering
from onnxfuse.rewrite import Trace, rewrite
from tests.conftest import analysis_of, apply, assert_same, ops, parse, retype

SIZES = {"B": 2, "S": 5, "T": 7}
MASK = "float[B,1,1,T] mask"
WHOLE = """kt = Transpose<perm = [0, 1, 3, 2]>(k)  s = MatMul(q, kt)  sc = Mul(s, scale)  sm = Add(sc, mask)
    p = Softmax<axis = -1>(sm)  c = MatMul(p, v)  ct = Transpose<perm = [0, 2, 1, 3]>(c)  y = Reshape(ct, merge)"""


def graph(body: str, mask: str = MASK, q: str = "B,4,S,4", k: str = "B,4,T,4", v: str = "B,4,T,4", out: str = "") -> str:
    return f"""g (float[{q}] q, float[{k}] k, float[{v}] v, {mask}) => (float[B,S,16] y{out})
        <int64[3] merge = {{0, 0, 16}}, float scale = {{0.5}}, float odd = {{0.3}}, float minus = {{-0.5}}, float zero = {{0.0}},
         float two = {{2.0}}> {{ {body} }}"""


@pytest.mark.parametrize(
    ("body", "scale"),
    [
        (WHOLE, None),
        (WHOLE.replace("Add(sc, mask)", "Add(mask, sc)"), None),
        (WHOLE.replace("Mul(s, scale)", "Div(s, two)"), None),
        (WHOLE.replace("Softmax<axis = -1>", "Softmax<axis = 3>"), None),
        (WHOLE.replace("y = Reshape(ct, merge)", "i = Identity(ct)  y = Reshape(i, merge)"), None),
        (WHOLE.replace("Add(sc, mask)", "Identity(sc)"), None),
        (WHOLE.replace("Mul(s, scale)", "Mul(s, odd)"), 0.3),
        (WHOLE.replace("Mul(s, scale)", "Identity(s)"), 1.0),
        (WHOLE.replace("Mul(s, scale)", "Identity(s)").replace("Add(sc, mask)", "Identity(sc)"), 1.0),
    ],
)
def test_every_form_becomes_the_operator(body, scale):
    before, after = parse(graph(body)), parse(graph(body))
    apply(attention_on_heads.RULES, after)
    (node,) = (node for node in after.graph if node.op_type == "Attention")
    assert node.attributes.get_float("scale", -1) == pytest.approx(-1 if scale is None else scale)
    assert {"Softmax", "MatMul"}.isdisjoint(ops(after))
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ("B,1,1,T", "q"),
        ("1,4,1,T", "q"),
        ("1,T", "q"),
        ("B,1,1,S", "mask"),
        ("B,1,S,T", None),
        ("B,4,S,T", None),
        ("1,1,S,T", None),
        ("S,T", None),
    ],
)
def test_masks_of_every_shape_fuse(shape, rows):
    """A window [B,1,S,T] stays as it is; one row for all queries is widened, from the mask alone where keys are as many."""
    parts = {"mask": f"float[{shape}] mask"} | ({"k": "B,4,S,4", "v": "B,4,S,4"} if rows == "mask" else {})
    before, after = parse(graph(WHOLE, **parts)), parse(graph(WHOLE, **parts))
    apply(attention_on_heads.RULES, after)
    assert ops(after).count("Attention") == 1
    assert [node.inputs[0].name for node in after.graph if node.op_type == "Shape"] == ([] if rows is None else [rows])
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("old", "new", "parts", "reason"),
    [
        ("Softmax<axis = -1>", "Softmax<axis = 2>", {}, "softmax runs over axis 2, wanted the last"),
        ("Mul(s, scale)", "Mul(s, zero)", {}, "the scale is 0.0, wanted above zero"),
        ("Mul(s, scale)", "Mul(s, minus)", {}, "the scale is -0.5, wanted above zero"),
        ("Mul(s, scale)", "Mul(s, dyn)", {"mask": f"{MASK}, float dyn"}, "scale is not a constant scalar"),
        ("", "", {"q": "B,N,S,4", "k": "B,N,T,4", "v": "B,N,T,4"}, "the number of heads is N, wanted a number"),
        ("", "", {"q": "B,4,S,H", "k": "B,4,T,H"}, "the head size is H, wanted a number"),
        ("", "", {"k": "1,4,T,4"}, "k is not [B,4,T,4] as q"),
        ("", "", {"k": "B,1,T,4"}, "k is not [B,4,T,4] as q"),
        ("", "", {"v": "B,1,T,4"}, "v is not [B,4,T,4] as q"),
        ("", "", {"v": "1,4,T,4"}, "v is not [B,4,T,4] as q"),
        ("", "", {"v": "B,4,T,2"}, "v is not [B,4,T,4] as q"),
        ("", "", {"v": "4,T,4"}, "v has rank 3, wanted 4"),
        ("", "", {"mask": "float[B,2,S,T] mask"}, "the mask's heads are 2"),
        ("", "", {"mask": "float[C,1,S,T] mask"}, "the mask's batch is C"),
        ("", "", {"mask": "float[B,1,S,1] mask"}, "the mask's last dimension is 1"),
        ("", "", {"mask": "float[T] mask"}, "the mask has rank 1"),
        ("", "", {"out": ", float[B,4,S,T] p"}, "p is also a graph output"),
        ("", "  z = Relu(sc)", {"out": ", float[B,4,S,T] z"}, "sc is also read elsewhere"),
    ],
)
def test_an_edited_attention_is_refused_with_its_reason(old, new, parts, reason):
    model = parse(graph(WHOLE.replace(old, new) if old else WHOLE + new, **parts))
    count = len(ops(model))
    trace = apply(attention_on_heads.RULES, model, normal=())
    assert "Attention" not in ops(model)
    assert len(ops(model)) == count
    assert reason in trace.misses["attention-on-heads"]["seen"]


@pytest.mark.parametrize("name", ["q", "mask"])
def test_a_value_of_unknown_type_is_refused(name):
    sizes = {"q": "2,4,5,4", "mask": "2,1,5,7"}
    inputs = ", ".join(f"float[{sizes[other]}] {'given' if other == name else other}" for other in sizes)
    model = parse(
        f"""g ({inputs}, float[2,4,7,4] k, float[2,4,7,4] v) => (float[2,5,16] y)
        <int64[3] merge = {{0, 0, 16}}, float scale = {{0.5}}, int64[4] shape = {{{sizes[name]}}}>
        {{ hidden = other.Operator(given)  {name} = Reshape(hidden, shape)  {WHOLE} }}"""
    )
    trace = apply(attention_on_heads.RULES, model, normal=())
    assert "Attention" not in ops(model)
    assert f"the type of {name} is not known" in trace.misses["attention-on-heads"]["seen"]


def test_where_the_split_can_be_taken_along_it_is():
    """Without anything behind the split, attention reads the projections, [B,S,D]."""
    heads = "".join(
        f"{x}4 = Reshape({x}3, split)  {x} = Transpose<perm = [0, 2, 1, 3]>({x}4)  "  # as exporters write it
        for x in "qkv"
    )
    text = f"""g (float[B,S,16] q3, float[B,T,16] k3, float[B,T,16] v3, {MASK}) => (float[B,S,16] y)
        <int64[3] merge = {{0, 0, 16}}, int64[4] split = {{0, 0, 4, 4}}, float scale = {{0.5}}> {{ {heads} {WHOLE} }}"""
    before, after = parse(text), parse(text)
    apply((*attention.RULES, *attention_on_heads.RULES), after)
    (node,) = (node for node in after.graph if node.op_type == "Attention")
    assert [value.name for value in node.inputs[:3]] == ["q3", "k3", "v3"]
    assert_same(before, after, SIZES)


# Lowering ----------------------------------------------------------------------------------------------------------

OPERATOR = """g (float[B,4,S,4] q, float[B,4,T,4] k, float[B,4,T,4] v, {mask}) => (float[B,4,S,4] y)
    {{ y = Attention{scale}(q, k, v, mask) }}"""


@pytest.mark.parametrize("mask", ["S,T", "B,1,S,T", "1,4,S,T"])
@pytest.mark.parametrize("scale", ["", "<scale = 0.3>"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(ir.DataType.FLOAT, 1e-5), (ir.DataType.FLOAT16, 4e-3)])
def test_it_is_taken_apart_for_targets_without_the_operator(mask, scale, dtype, tolerance):
    text = OPERATOR.format(mask=f"float[{mask}] mask", scale=scale)
    before, after = (retype(parse(text), dtype) for _ in range(2))
    apply(lowering.DECOMPOSED, after)
    assert sorted(ops(after)) == ["Add", "MatMul", "MatMul", "Mul", "Softmax", "Transpose"]
    assert_same(before, after, SIZES, tolerance=tolerance)


def test_without_a_mask_it_is_taken_apart_too():
    text = OPERATOR.format(mask="float[1] unread", scale="").replace("v, mask)", "v)")
    before, after = parse(text), parse(text)
    apply(lowering.DECOMPOSED, after)
    assert sorted(ops(after)) == ["MatMul", "MatMul", "Mul", "Softmax", "Transpose"]
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("float[S,T] mask", "bool[S,T] mask", "the mask is BOOL, the scores are FLOAT"),
        ("float[B,4,S,4] q", "float[B,4,S,H] q", "the head size is H, wanted a number"),
        ("float[B,4,S,4] q", "float[B,N,S,4] q", "the number of heads of q is N, wanted a number"),
        ("float[B,4,T,4] k", "float[B,2,T,4] k", "query has 4 heads, key 2, value 4"),
        ("float[B,4,T,4] v", "float[B,2,T,4] v", "query has 4 heads, key 4, value 2"),
        (
            "float[B,4,S,4] y)\n    { y =",
            "float[B,4,S,4] y, float[B,4,T,4] past)\n    { y, past, more =",
            "its output past is read too",
        ),
    ],
)
def test_what_cannot_be_taken_apart_stays(old, new, reason):
    text = OPERATOR.format(mask="float[S,T] mask", scale="")
    assert old in text
    model = parse(text.replace(old, new))
    trace = Trace()
    assert not rewrite(model, lowering.DECOMPOSED, analysis_of(model), trace)
    assert trace.misses["attention-on-heads-decomposed"]["seen"] == reason
