"""Attention and merged QKV: spellings that must fuse, edits that must not, and what each refusal says."""

import re

import onnx_ir as ir
import pytest

from onnxfuse.fusions import attention, lowering, pooled_token, qkv
from onnxfuse.rewrite import Trace, rewrite
from tests.conftest import analysis_of, apply, assert_same, fill, ops, parse, retype

WEIGHTS = dict.fromkeys(("wq", "wk", "wv"), (16, 16)) | dict.fromkeys(("bq", "bk", "bv"), (16,))
SIZES = {"B": 2, "S": 5}


def graph(body: str, mask: str = "float[B,1,1,S] mask", out: str = "float[B,S,16] y") -> str:
    inputs = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in WEIGHTS.items())
    return f"""g (float[B,S,16] x, {mask}, {inputs}) => ({out})
        <int64[4] split = {{0, 0, 4, 4}}, int64[4] wide = {{0, 0, 2, 8}}, int64[3] merge = {{0, 0, 16}}, int64[4] turned = {{-1, 2, 4, 4}},
         int64[3] narrow = {{0, -1, 8}}, float minus = {{-0.5}}, float scale = {{0.5}},
         float odd = {{0.3}}, float root = {{0.70710678}}, float two = {{2.0}}, float zero = {{0.0}}> {{ {body} }}"""


PROJECT = "q1 = MatMul(x, wq)  q = Add(q1, bq)  k1 = MatMul(x, wk)  k = Add(bk, k1)  v1 = MatMul(x, wv)  v = Add(v1, bv) "
HEADS = (
    "q4 = Reshape(q, split)  qt = Transpose<perm = [0, 2, 1, 3]>(q4)  k4 = Reshape(k, split)  "
    "kt = Transpose<perm = [0, 2, 3, 1]>(k4)  v4 = Reshape(v, split)  vt = Transpose<perm = [0, 2, 1, 3]>(v4) "
)
SCORES = "s = MatMul(qt, kt)  sc = Mul(s, scale)  sm = Add(sc, mask) "
CONTEXT = "p = Softmax<axis = -1>(sm)  c = MatMul(p, vt)  ct = Transpose<perm = [0, 2, 1, 3]>(c)  y = Reshape(ct, merge)"
WHOLE = PROJECT + HEADS + SCORES + CONTEXT


def build(body: str, **parts: str):
    return fill(parse(graph(body, **parts)), **WEIGHTS)


def both(body: str, **parts: str):
    return build(body, **parts), build(body, **parts)


@pytest.mark.parametrize(
    "body",
    [
        WHOLE,
        WHOLE.replace("Add(sc, mask)", "Add(mask, sc)"),
        WHOLE.replace("Mul(s, scale)", "Div(s, two)"),
        WHOLE.replace("s = MatMul(qt, kt)", "qs = Mul(qt, root)  ks = Mul(kt, root)  sc = MatMul(qs, ks)").replace(
            "sc = Mul(s, scale)", ""
        ),
        WHOLE.replace(
            "kt = Transpose<perm = [0, 2, 3, 1]>(k4)",
            "k3 = Transpose<perm = [0, 2, 1, 3]>(k4)  kt = Transpose<perm = [0, 1, 3, 2]>(k3)",
        ),
        WHOLE.replace("y = Reshape(ct, merge)", "i = Identity(ct)  y = Reshape(i, merge)"),
        WHOLE.replace("p = Softmax", "raw = Softmax")
        .replace("c = MatMul", "nan = IsNaN(raw)  p = Where(nan, zero, raw)  c = MatMul")
        .replace("Add(sc, mask)", "Identity(sc)"),
        WHOLE.replace("Softmax<axis = -1>", "Softmax<axis = 3>"),
        WHOLE.replace("ct = Transpose<perm = [0, 2, 1, 3]>(c)", "ct = Transpose<perm = [2, 0, 1, 3]>(c)"),  # [S,B,D]
    ],
)
def test_spellings_become_one_attention_with_merged_qkv(body):
    before, after = both(body)
    apply((*attention.RULES, *qkv.RULES), after)
    assert [name for name in ops(after) if name in ("Attention", "Softmax", "MatMul", "Split")] == [
        "Attention",
        "MatMul",
        "Split",
    ]
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("shape", "widened"),
    [
        ("B,1,1,S", True),
        ("1,1,1,S", True),
        ("1,4,1,S", True),
        ("1,S", True),
        ("B,1,S,S", False),
        ("B,4,S,S", False),
        ("S,S", False),
    ],
)
def test_masks_of_every_shape_fuse(shape, widened):
    """One row for all queries is widened, as ONNX Runtime wants it; another mask stays as it is."""
    before, after = both(WHOLE, mask=f"float[{shape}] mask")
    apply(attention.RULES, after)
    assert ops(after).count("Attention") == 1
    assert ("Expand" in ops(after)) == widened
    assert_same(before, after, SIZES)


def test_no_mask_and_no_scale_fuse():
    for body in (
        WHOLE.replace("sm = Add(sc, mask)", "sm = Identity(sc)"),
        WHOLE.replace("sc = Mul(s, scale)", "sc = Identity(s)"),
        WHOLE.replace("sc = Mul(s, scale)", "").replace("sm = Add(sc, mask)", "sm = Identity(s)"),
    ):
        before, after = both(body)
        apply(attention.RULES, after)
        assert ops(after).count("Attention") == 1
        assert_same(before, after, SIZES)


def test_another_scale_becomes_the_attribute():
    before, after = both(WHOLE.replace("Mul(s, scale)", "Mul(s, odd)"))
    apply(attention.RULES, after)
    node = next(n for n in after.graph if n.op_type == "Attention")
    assert node.attributes["scale"].value == pytest.approx(0.3)
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(("off", "written"), [(0, False), (5e-7, False), (-5e-7, False), (3e-6, True), (-3e-6, True)])
def test_the_default_scale_may_be_off_by_rounding(off, written):
    before, after = (
        fill(
            parse(
                graph(WHOLE.replace("Mul(s, scale)", "Mul(s, near)")).replace(
                    "float odd = {0.3}", f"float near = {{{0.5 + off / 2:.9f}}}"
                )
            ),
            **WEIGHTS,
        )
        for _ in range(2)
    )
    apply(attention.RULES, after)
    node = next(n for n in after.graph if n.op_type == "Attention")
    assert ("scale" in node.attributes) == written
    assert_same(before, after, SIZES)


ON_HEADS = (
    PROJECT
    + HEADS.replace("perm = [0, 2, 3, 1]", "perm = [0, 2, 1, 3]")
    + """c = Attention(qt, kt, vt, mask)
    ct = Transpose<perm = [0, 2, 1, 3]>(c)  y = Reshape(ct, merge)"""
)


@pytest.mark.parametrize(
    ("scale", "written"),
    [
        ("", None),
        ("<scale = 0.5>", None),
        ("<scale = 0.5000001>", None),
        ("<scale = 0.3>", 0.3),
        ("<scale = 0.500005>", 0.500005),
    ],
)
def test_the_operator_on_heads_is_attention_on_projections(scale, written):
    before, after = both(ON_HEADS.replace("Attention(", f"Attention{scale}("), mask="float[B,1,S,S] mask")
    apply(attention.RULES, after)
    (node,) = (n for n in after.graph if n.op_type == "Attention")
    assert after.graph.outputs[0] is node.outputs[0]
    assert node.attributes.get_float("scale", -1) == pytest.approx(-1 if written is None else written)
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("body", "parts", "reason"),
    [
        (WHOLE.replace("Softmax<axis = -1>", "Softmax<axis = 2>"), {}, "softmax runs over axis 2"),
        (WHOLE.replace("Mul(s, scale)", "Mul(s, zero)"), {}, "the scale is 0.0, wanted above zero"),
        (
            WHOLE.replace("k4 = Reshape(k, split)", "k4 = Reshape(k, wide)")
            .replace("v4 = Reshape(v, split)", "v4 = Reshape(v, wide)")
            .replace("q4 = Reshape(q, split)", "q4 = Reshape(q, split)"),
            {},
            "k is not split into [B,T,4,4]",
        ),
        (WHOLE.replace("v4 = Reshape(v, split)", "v4 = Reshape(v, wide)"), {}, "v is not split into [B,T,4,4]"),
        (
            WHOLE.replace("Mul(s, scale)", "Mul(s, dyn)"),
            {"mask": "float[B,1,1,S] mask, float dyn"},
            "scale is not a constant scalar",
        ),
        (WHOLE.replace("q4 = Reshape(q, split)", "q4 = Reshape(q, turned)"), {}, "q is not split into [B,S,N,H]"),
        (WHOLE.replace("y = Reshape(ct, merge)", "y = Reshape(ct, narrow)"), {}, "the heads are not merged back to [B,S,D]"),
        (WHOLE.replace("Mul(s, scale)", "Mul(s, minus)"), {}, "the scale is -0.5, wanted above zero"),
        (WHOLE, {"mask": "float[B,2,S,S] mask"}, "the mask's heads are 2"),
        (WHOLE, {"mask": "float[C,1,S,S] mask"}, "the mask's batch is C"),
        (WHOLE, {"mask": "float[B,1,S,T] mask"}, "the mask's last dimension is T"),
        (WHOLE, {"mask": "float[B,1,T,S] mask"}, "the mask's second-last dimension is T"),
        (WHOLE, {"mask": "float[1,S,S] mask"}, "the mask has rank 3"),
        (WHOLE, {"mask": "float[S] mask"}, "the mask has rank 1"),
        (WHOLE, {"mask": "float[S,1] mask"}, "the mask's last dimension is 1"),
        (WHOLE, {"mask": "float[B,1,S,1] mask"}, "the mask's last dimension is 1"),
        (WHOLE, {"out": "float[B,S,16] y, float[B,4,S,S] p"}, "p is also a graph output"),
        (WHOLE + "  z = Relu(sc)", {"out": "float[B,S,16] y, float[B,4,S,S] z"}, "sc is also read elsewhere"),
    ],
)
def test_an_edited_attention_is_refused_with_its_reason(body, parts, reason):
    model = build(body, **parts)
    count = len(ops(model))
    trace = apply(attention.RULES, model, normal=())
    assert "Attention" not in ops(model)
    assert len(ops(model)) == count
    assert reason in trace.misses["attention"]["seen"]


HIDDEN = """g (float[2,5,{width}] q, float[2,5,16] k, float[2,5,16] v, float[1,1,5,5] mask) => (float[2,5,16] y)
    <int64[3] known = {{2, 5, 16}}, int64[4] square = {{1, 1, 5, 5}}, int64[4] split = {{0, 0, 4, 4}}, int64[3] merge = {{0, 0, {width}}},
     float scale = {{0.5}}> {{ {body} }}"""


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("q", "known", "the type of q is not known"),
        ("mask", "square", "the type of mask is not known"),
        ("", "", "the hidden size is D"),
    ],
)
def test_what_a_target_without_the_operator_could_not_take_apart_is_refused(name, shape, reason):
    body = HEADS + SCORES + CONTEXT
    text = (
        HIDDEN.format(width=16, body=f"hidden = other.Operator(given)  {name} = Reshape(hidden, {shape})  {body}")
        .replace(f"] {name},", "] given,")
        .replace(f"] {name})", "] given)")
        if name
        else HIDDEN.format(width=16, body=body).replace("[2,5,16] q", "[2,5,D] q").replace("{0, 0, 16}", "{0, 0, -1}")
    )
    model = parse(text)
    trace = apply(attention.RULES, model, normal=())
    assert "Attention" not in ops(model)
    assert reason in trace.misses["attention"]["seen"]


TURNED = "int64[4] split = {0, 0, 3, 4}, int64[4] other = {-1, 7, 3, 4}, int64[5] five = {0, 0, 3, 2, 2}, int64[4] open = {0, 0, -1, 4}"


@pytest.mark.parametrize("perm", ["1, 2, 0, 3", "1, 2, 3, 0"])
def test_heads_of_a_model_on_sbd_are_swapped(perm):
    text = f"g (float[S,B,12] x) => (float[P] y) <{TURNED}> {{ h = Reshape(x, split)  y = Transpose<perm = [{perm}]>(h) }}"
    before, after = parse(text), parse(text)
    rewrite(after, attention.SWAPPED, analysis_of(after), Trace())
    assert [(node.op_type, [list(a.value) for a in node.attributes.values()]) for node in after.graph] == [
        ("Transpose", [[1, 0, 2]]),
        ("Reshape", []),
        ("Transpose", [[0, 2, 1, 3] if perm == "1, 2, 0, 3" else [0, 2, 3, 1]]),
    ]
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("shape", "target", "reason"),
    [
        ("S,B,3,4", "split", "x has rank 4, wanted 3"),
        ("S,B,12", "five", "h has rank 5, wanted 4"),
        ("S,B,12", "other", "x is not split into [S,B,N,H]"),
        ("S,B,T", "open", "a size of heads is ?"),
    ],
)
def test_other_heads_are_not_swapped(shape, target, reason):
    model = parse(
        f"g (float[{shape}] x) => (float[P] y) <{TURNED}> {{ h = Reshape(x, {target})  y = Transpose<perm = [1, 2, 0, 3]>(h) }}"
    )
    trace = Trace()
    assert not rewrite(model, attention.SWAPPED, analysis_of(model), trace)
    assert reason in trace.misses["heads-swapped"]["seen"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ct = Transpose<perm = [0, 2, 1, 3]>(c)", "ct = Transpose<perm = [1, 0, 2, 3]>(c)"),
        ("kt = Transpose<perm = [0, 2, 3, 1]>(k4)", "kt = Transpose<perm = [0, 2, 1, 3]>(k4)"),
        ("c = MatMul(p, vt)", "c0 = MatMul(p, vt)  c = Add(c0, vt)"),
        ("p = Softmax<axis = -1>(sm)", "p0 = Softmax<axis = -1>(sc)  p = Add(p0, mask)"),
    ],
)
def test_another_structure_is_refused(old, new):
    model = build(WHOLE.replace(old, new))
    apply(attention.RULES, model)
    assert "Attention" not in ops(model)


CROSS = WHOLE.replace("MatMul(x, wk)", "MatMul(z, wk)").replace("MatMul(x, wv)", "MatMul(z, wv)")


@pytest.mark.parametrize("mask", ["B,1,S,T", "B,1,1,T", "1,4,1,T", "1,T"])
def test_cross_attention_fuses_but_its_projections_do_not_merge(mask):
    text = graph(CROSS, mask=f"float[{mask}] mask, float[B,T,16] z")
    before, after = fill(parse(text), **WEIGHTS), fill(parse(text), **WEIGHTS)
    trace = apply((*attention.RULES, *qkv.RULES), after)
    assert ops(after).count("Attention") == 1
    assert ops(after).count("MatMul") == 3
    assert "another value" in trace.misses["merged-qkv"]["seen"]
    assert_same(before, after, SIZES | {"T": 7})


@pytest.mark.parametrize(
    ("weights", "parts", "body", "reason"),
    [
        ({n: s for n, s in WEIGHTS.items() if n != "wk"}, {}, WHOLE, "wk is not a constant"),
        ({n: s for n, s in WEIGHTS.items() if n != "bv"}, {}, WHOLE, "bv is not a constant"),
        (WEIGHTS, {"out": "float[B,S,16] y, float[B,S,16] q"}, WHOLE, "q is also a graph output"),
        (WEIGHTS, {"out": "float[B,S,16] y, float[16,16] z"}, WHOLE + "  z = Relu(wq)", "wq is read elsewhere"),
        (WEIGHTS, {"out": "float[B,S,16] y, float[16,16] wk"}, WHOLE, "wk is read elsewhere"),
        (
            WEIGHTS,
            {"out": "float[B,S,16] y, float[B,S,16] z"},
            WHOLE + "  r = Relu(x)  z = MatMul(r, wv)",
            "wv is read elsewhere",
        ),
        (WEIGHTS, {"out": "float[B,S,16] y, float[16,16] z"}, WHOLE + "  z = Add(wq, bq)", "wq is read elsewhere"),
    ],
)
def test_projections_that_must_not_merge(weights, parts, body, reason):
    model = fill(parse(graph(body, **parts)), **weights)
    trace = apply((*attention.RULES, *qkv.RULES), model)
    assert "Split" not in ops(model)
    assert reason in trace.misses["merged-qkv"]["seen"]


def test_layers_that_share_projections_share_the_merged_one():
    second = WHOLE.replace("y = Reshape(ct, merge)", "h = Reshape(ct, merge)")
    for name in ("q1", "q", "k1", "k", "v1", "v", "q4", "qt", "k4", "kt", "v4", "vt", "s", "sc", "sm", "p", "c", "ct"):
        second = re.sub(rf"\b{name}\b", f"{name}_2", second)
    body = WHOLE + "  " + second.replace("(x,", "(y,").replace("h = Reshape", "z = Reshape")
    before, after = both(body, out="float[B,S,16] z")
    apply((*attention.RULES, *qkv.RULES), after)
    assert (ops(after).count("Split"), ops(after).count("MatMul")) == (2, 2)
    assert len([value for value in after.graph.initializers.values() if tuple(value.shape.numpy()) == (16, 48)]) == 1
    assert_same(before, after, SIZES)


SPLIT = """g (float[B,S,16] x, float[16,{width}] w, float[16] bq, float[16] bk, float[16] bv, int64[3] sizes) => (float[P] y)
    <int64[3] thirds = {{16, 16, 16}}, int64[4] four = {{16, 16, 16, 16}}> {{
    p = MatMul(x, w)  a, b, c{more} = Split<axis = {axis}>(p, {sizes})  q = Add(a, bq)  k = Add(b, bk)  v = Add(c, bv)
    y = Attention<q_num_heads = 4, kv_num_heads = 4>(q, k, v) }}"""
PACKED = {"width": 48, "more": "", "axis": -1, "sizes": "thirds"}


def test_biases_after_the_split_move_before_it():
    weights = {"w": (16, 48), "bq": (16,), "bk": (16,), "bv": (16,)}
    before, after = (fill(parse(SPLIT.format(**PACKED)), **weights) for _ in range(2))
    rewrite(after, qkv.RULES, analysis_of(after), Trace())
    assert ops(after) == ["Add", "Attention", "MatMul", "Split"]
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("parts", "loose", "reason"),
    [
        ({"axis": 1}, (), "the split is over another dimension"),
        ({"sizes": "sizes"}, (), "the split has 0 parts, wanted 3"),
        ({"sizes": "four", "more": ", d", "width": 64}, (), "the split has 4 parts, wanted 3"),
        ({"width": 40}, (), "the widths do not add up"),
        ({}, ("w",), "weight is not a constant"),
        ({}, ("bk",), "bk is not a constant"),
    ],
)
def test_biases_after_another_split_stay(parts, loose, reason):
    text = SPLIT.format(**PACKED | parts)
    weights = {"w": (16, (PACKED | parts)["width"]), "bq": (16,), "bk": (16,), "bv": (16,)}
    model = fill(parse(text), **{name: shape for name, shape in weights.items() if name not in loose})
    trace = Trace()
    packed = [rule for rule in qkv.RULES if rule.guard is qkv.guard_packed]
    assert not rewrite(model, packed, analysis_of(model), trace)
    assert reason in trace.misses["merged-qkv"]["seen"]


def test_a_bias_of_another_width_stays():
    model = fill(parse(SPLIT.format(**PACKED).replace("float[16] bk", "float[1] bk")), w=(16, 48), bq=(16,), bk=(1,), bv=(16,))
    trace = Trace()
    assert not rewrite(model, qkv.RULES, analysis_of(model), trace)
    assert "bk is not [16]" in trace.misses["merged-qkv"]["seen"]


@pytest.mark.parametrize("scale", ["", ", scale = 0.3"])
@pytest.mark.parametrize("mask", ["", ", m2", ", m4"])
def test_the_pick_of_an_attention_is_the_row_of_its_query(scale, mask):
    text = f"""g (float[B,S,16] x, float[S,S] m2, float[B,4,S,S] m4) => (float[B,16] z) <int64 two = {{2}}> {{
        n = Attention<q_num_heads = 4, kv_num_heads = 4{scale}>(x, x, x{mask})  z = Gather<axis = 1>(n, two) }}"""
    before, after = parse(text), parse(text)
    rewrite(after, pooled_token.RULES, analysis_of(after), Trace())
    node = next(n for n in after.graph if n.op_type == "Attention")
    assert len(node.inputs) == (4 if mask else 3)
    assert ops(after) == ["Attention", *["Gather"] * (2 if mask else 1), "Reshape"]
    assert_same(before, after, SIZES)


def test_an_attention_without_mask_keeps_none():
    before, after = both(WHOLE.replace("sm = Add(sc, mask)", "sm = Identity(sc)"))
    apply((*attention.RULES, *qkv.RULES), after)
    assert [len(node.inputs) for node in after.graph if node.op_type == "Attention"] == [3]
    assert_same(before, after, SIZES)


def test_projections_without_bias_merge():
    before, after = both(
        WHOLE.replace("q = Add(q1, bq)", "q = Identity(q1)")
        .replace("k = Add(bk, k1)", "k = Identity(k1)")
        .replace("v = Add(v1, bv)", "v = Identity(v1)")
    )
    apply((*attention.RULES, *qkv.RULES), after)
    assert ops(after).count("MatMul") == 1
    assert "Add" not in ops(after)
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(("rules", "wanted"), [(lowering.DECOMPOSED, "Softmax"), (lowering.MULTI_HEAD, "MultiHeadAttention")])
@pytest.mark.parametrize(
    "body", [WHOLE, WHOLE.replace("Mul(s, scale)", "Mul(s, odd)"), WHOLE.replace("sm = Add(sc, mask)", "sm = Identity(sc)")]
)
def test_lowered_forms_compute_the_same(rules, wanted, body):
    before, after = both(body)
    apply((*attention.RULES, *qkv.RULES), after)
    apply(rules, after)
    assert wanted in ops(after)
    assert "Attention" not in ops(after)
    assert_same(before, after, SIZES)


OPERATOR = """g (float[B,S,16] q, float[B,T,16] k, float[B,T,16] v, {mask}) => (float[B,S,16] y)
    {{ y = Attention<q_num_heads = 4, kv_num_heads = 4{more}>(q, k, v, mask) }}"""


@pytest.mark.parametrize(
    "mask", ["float[S,T] mask", "float[1,1,S,T] mask", "float[B,1,S,T] mask", "float[1,4,S,T] mask", "float[B,4,S,T] mask"]
)
@pytest.mark.parametrize("rules", [lowering.DECOMPOSED, lowering.MULTI_HEAD])
@pytest.mark.parametrize(("dtype", "tolerance"), [(ir.DataType.FLOAT, 1e-5), (ir.DataType.FLOAT16, 4e-3)])
def test_lowered_forms_run_with_every_mask_that_they_take(rules, mask, dtype, tolerance):
    before, after = (retype(parse(OPERATOR.format(mask=mask, more="")), dtype) for _ in range(2))
    apply(rules, after)
    assert "Attention" not in ops(after)
    assert_same(before, after, SIZES | {"T": 7}, tolerance=tolerance)


def test_an_expanded_mask_need_not_be_made_for_an_addition():
    text = OPERATOR.format(mask="float[B,1,1,T] small", more="").replace(
        "{ y =",
        "{ s = Shape<start = 1>(q)  t = Shape<start = 1, end = 2>(k) "
        " b = Shape<end = 1>(q)  n = Slice(s, zero, one)  all = Concat<axis = 0>(b, one, n, t)  mask = Expand(small, all)  y =",
    )
    text = text.replace("=> (float[B,S,16] y)", "=> (float[B,S,16] y) <int64[1] zero = {0}, int64[1] one = {1}>")
    before, after = parse(text), parse(text)
    apply(lowering.DECOMPOSED, after, normal=())
    assert "Attention" not in ops(after) and "Expand" not in ops(after)
    assert_same(before, after, SIZES | {"T": 7})


def test_heads_of_values_may_have_another_size():
    text = (
        OPERATOR.format(mask="float[S,T] mask", more="")
        .replace("T,16] v", "T,8] v")
        .replace("(float[B,S,16] y)", "(float[B,S,8] y)")
    )
    for rules in (lowering.DECOMPOSED, lowering.MULTI_HEAD):
        before, after = parse(text), parse(text)
        apply(rules, after)
        assert "Attention" not in ops(after)
        assert_same(before, after, SIZES | {"T": 7})


SHARED = [  # what neither form can do
    ("float[S,T] mask", "", "[B,S,16] q", "[B,S,D] q", "the width of q is D, wanted a number"),
    ("float[S,T] mask", "", "[B,T,16] v", "[B,T,D] v", "the width of v is D, wanted a number"),
    ("bool[S,T] mask", "", "", "", "the mask is BOOL, the scores are FLOAT"),
    ("float[S,T] mask", "", "kv_num_heads = 4", "kv_num_heads = 2", "query has 4 heads, key and value 2"),
    ("float[S,T] mask", "", "y = Att", "y, past, more = Att", "its output past is read too"),
]


@pytest.mark.parametrize(("mask", "more", "old", "new", "reason"), SHARED)
@pytest.mark.parametrize("rules", [lowering.DECOMPOSED, lowering.MULTI_HEAD])
def test_what_no_lowered_form_takes_is_refused(rules, mask, more, old, new, reason):
    _refused(rules, OPERATOR.format(mask=mask, more=more).replace(old, new), reason)


@pytest.mark.parametrize(
    ("mask", "more", "reason"),
    [
        ("float[1,T] mask", "", "the mask ends in [1,T], wanted [S,T]"),
        ("float[S,1] mask", "", "the mask ends in [S,1], wanted [S,T]"),
        ("float[1,S,T] mask", "", "the mask has rank 3, wanted 2 or 4"),
        ("float[C,1,S,T] mask", "", "the mask's batch is C, wanted 1 or B"),
        ("float[B,2,S,T] mask", "", "the mask's heads is 2, wanted 1 or 4"),
        ("float[S,T] mask", ", scale = 0.0", "the scale is 0.0; the operator takes its own for 0"),
    ],
)
def test_what_multi_head_attention_does_not_take_is_refused(mask, more, reason):
    _refused(lowering.MULTI_HEAD, OPERATOR.format(mask=mask, more=more), reason)


def test_multi_head_attention_refuses_a_type_without_a_kernel():
    text = OPERATOR.format(mask="float[S,T] mask", more="").replace("float", "double")
    _refused(lowering.MULTI_HEAD, text, "the type is DOUBLE, wanted FLOAT or FLOAT16")
    before, after = parse(text), parse(text)
    apply(lowering.DECOMPOSED, after)
    assert "Attention" not in ops(after)
    assert_same(before, after, SIZES | {"T": 7})


@pytest.mark.parametrize("name", ["q", "mask"])
@pytest.mark.parametrize("rules", [lowering.DECOMPOSED, lowering.MULTI_HEAD])
def test_a_value_of_unknown_type_is_refused(rules, name):
    kinds = {"q": "float[2,5,16]", "mask": "float[5,5]"}
    inputs = ", ".join(f"{kind} {'given' if other == name else other}" for other, kind in kinds.items())
    _refused(
        rules,
        f"""g ({inputs}, float[2,5,16] x) => (float[2,5,16] y) <int64[{"3" if name == "q" else "2"}] shape = {{{kinds[name][6:-1]}}}>
        {{ hidden = other.Operator(given)  {name} = Reshape(hidden, shape)
           y = Attention<q_num_heads = 4, kv_num_heads = 4>(q, x, x, mask) }}""",
        f"the type of {name} is not known",
    )


def _refused(rules, text: str, reason: str) -> None:
    text = text.replace("[B,S,16] y)", "[B,S,16] y, float[B,4,T,4] past)") if "y, past" in text else text
    model = parse(text)
    trace = Trace()
    analysis = analysis_of(model)
    assert not rewrite(model, rules, analysis, trace)
    assert reason in {miss["seen"] for miss in trace.misses.values()}


PICK = "  n = LayerNormalization<axis = -1>(y, bq, bk)  g = Gelu(n)  d = MatMul(g, wo)  e = Add(d, bo)  r = Add(e, x)  z = Gather<axis = 1>(r, at)"


def pooled(body: str, at: str = "0", out: str = "float[B,16] z"):
    text = graph(body, out=out, mask="float[B,1,1,S] mask, float[16,16] wo, float[16] bo")
    text = text.replace("float root =", f"int64 at = {{{at}}}, float root =")
    return fill(parse(text), wo=(16, 16), bo=(16,), **WEIGHTS)


@pytest.mark.parametrize("at", ["0", "2", "-1"])
def test_the_pooled_token_moves_up_to_the_query(at):
    before, after = pooled(WHOLE + PICK, at=at), pooled(WHOLE + PICK, at=at)
    apply((*attention.RULES, *qkv.RULES), after)
    rewrite(after, pooled_token.RULES, analysis_of(after), apply((), after))
    node = next(n for n in after.graph if n.op_type == "Attention")
    assert node.inputs[0].producer().op_type == "Gather"
    shapes = analysis_of(after)
    assert all(len(shapes[n.outputs[0]].shape) == 2 for n in after.graph if n.op_type in ("LayerNormalization", "Gelu"))
    assert_same(before, after, SIZES)


@pytest.mark.parametrize("body", ["n = LayerNormalization<axis = -1>(x, w)", "n = LayerNormalization<axis = -1>(x, w1, w)"])
def test_the_pooled_token_moves_up_through_every_norm_of_one_row(body):
    text = f"""g (float[B,S,16] x, float[16] w, float[1,16] w1) => (float[B,16] z) <int64 one = {{1}}> {{ {body}  z = Gather<axis = 1>(n, one) }}"""
    before, after = (fill(parse(text), w=(16,), w1=(1, 16)) for _ in range(2))
    rewrite(after, pooled_token.RULES, analysis_of(after), Trace())
    assert [node.op_type for node in after.graph] == ["Gather", "LayerNormalization"]
    assert_same(before, after, SIZES)


ROWS = "float[B,S,16] x, float[16] w, float[16] b, float[16,16] m, float[B,S,16] r, float[B,S,2,16] x4"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("n = LayerNormalization<axis = -1>(x, w, b)  z = Gather<axis = 1>(n, at)", "index is not a constant scalar"),
        ("n = Gelu(x)  z = Gather<axis = 1>(n, at)", "index is not a constant scalar"),
        ("n = Add(x, w)  z = Gather<axis = 1>(n, at)", "index is not a constant scalar"),
        ("n = Add(x, r)  z = Gather<axis = 1>(n, at)", "index is not a constant scalar"),
        ("n = MatMul(x, m)  z = Gather<axis = 1>(n, at)", "index is not a constant scalar"),
        (
            "n = Attention<q_num_heads = 4, kv_num_heads = 4>(x, x, x)  z = Gather<axis = 1>(n, at)",
            "index is not a constant scalar",
        ),
        ("n = LayerNormalization<axis = -1>(x4, w, b)  z = Gather<axis = 1>(n, one)", "x has rank 4, wanted 3"),
        ("n = LayerNormalization<axis = -1>(x, w3, b)  z = Gather<axis = 1>(n, one)", "gain has more than one row"),
        ("n = LayerNormalization<axis = -1>(x, w, rows)  z = Gather<axis = 1>(n, one)", "bias has more than one row"),
        ("n = Gelu(x4)  z = Gather<axis = 1>(n, one)", "x4 has rank 4, wanted 3"),
        ("n = Add(x4, w)  z = Gather<axis = 1>(n, one)", "x4 has rank 4, wanted 3"),
        ("n = Add(x, x4)  z = Gather<axis = 1>(n, one)", "rank"),
        ("n = MatMul(x4, m)  z = Gather<axis = 1>(n, one)", "x4 has rank 4, wanted 3"),
        ("n = MatMul(x, r)  z = Gather<axis = 1>(n, one)", "r has rank 3, wanted 2"),
        ("n = Add(x, row)  z = Gather<axis = 1>(n, one)", "row has rank 3, wanted 1"),
        (
            "n = Attention<q_num_heads = 4, kv_num_heads = 4>(x, x, x, m3)  z = Gather<axis = 1>(n, one)",
            "the mask's rank is neither 2 nor 4",
        ),
        (
            "n = Attention<q_num_heads = 4, kv_num_heads = 4>(x, x, x, w3)  z = Gather<axis = 1>(n, one)",
            "the mask's rank is neither 2 nor 4",
        ),
        (
            "n = Attention<q_num_heads = 4, kv_num_heads = 4>(x, x, x, m1)  z = Gather<axis = 1>(n, one)",
            "the mask has 1 rows, wanted S",
        ),
        ("n = Gelu(x)  z = Gather<axis = 1>(n, ones)", "the index is not a scalar"),
        (
            "s = Shape(x)  last = Gather(s, one)  i = Sub(last, one)  n = Gelu(x)  z = Gather<axis = 1>(n, i)",
            "index is not a constant scalar",
        ),
        ("s = Shape(row)  i = Gather(s, zero)  n = Gelu(x)  z = Gather<axis = 1>(n, i)", "index is not a constant scalar"),
    ],
)
def test_a_pick_that_must_stay(body, reason):
    text = f"""g ({ROWS}, int64 at, float[1,S,16] row, float[4,S,S] m3, float[1,1,16] w3, float[S,16] rows, float[B,1,1,S] m1) => (float[P] z)
        <int64 zero = {{0}}, int64 one = {{1}}, int64[1] ones = {{1}}> {{ {body} }}"""
    model = fill(parse(text), w=(16,), b=(16,), m=(16, 16))
    trace = Trace()
    assert not rewrite(model, pooled_token.RULES, analysis_of(model), trace)
    assert reason.replace("x has", "x4 has") in trace.misses["pooled-token"]["seen"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("n = Add(x, row)  z = Gather<axis = 1>(n, one)", "an operand broadcasts"),
        ("n = Add(x, r)  z = Gather<axis = 1>(n, at)", "index is not a constant scalar"),
    ],
)
def test_a_residual_that_must_stay(body, reason):
    model = parse(f"g ({ROWS}, int64 at, float[1,S,16] row) => (float[P] z) <int64 one = {{1}}> {{ {body} }}")
    trace = Trace()
    residual = [rule for rule in pooled_token.RULES if rule.guard is pooled_token.guard_residual]
    assert not rewrite(model, residual, analysis_of(model), trace)
    assert reason in trace.misses["pooled-token"]["seen"]


@pytest.mark.parametrize(
    ("body", "out"),
    [
        (WHOLE + PICK, "float[B,16] z, float[B,S,16] r"),
        (WHOLE + PICK + "  a = Relu(y)", "float[B,16] z, float[B,S,16] a"),
    ],
)
def test_tokens_that_are_read_elsewhere_stay(body, out):
    before, after = pooled(body, out=out), pooled(body, out=out)
    apply((*attention.RULES, *qkv.RULES), after)
    rewrite(after, pooled_token.RULES, analysis_of(after), apply((), after))
    node = next(n for n in after.graph if n.op_type == "Attention")
    assert node.inputs[0].producer().op_type == "Split"
    assert_same(before, after, SIZES)


@pytest.mark.parametrize(
    ("body", "counted"),
    [
        ("m = MatMul(x, w3)  q, k, v = Split<axis = -1>(m, thirds)", True),
        ("m = MatMul(x, w3)  q0, k, v = Split<axis = -1>(m, thirds)  r = Reshape(m, rows)  q = Gather<axis = 1>(r, zero)", True),
        (
            "m = MatMul(x, w3)  s, k, v = Split<axis = -1>(m, thirds)  n = MatMul(x, w3)  q, _1, _2 = Split<axis = -1>(n, thirds)",
            False,
        ),
        ("m = Relu(x3)  q0, k, v = Split<axis = -1>(m, thirds)  r = Reshape(m, rows)  q = Gather<axis = 1>(r, zero)", False),
        ("m = MatMul(x, w3)  h, v = Split<axis = -1>(m, parts)  q, k = Split<axis = -1>(h, halves)", False),
    ],
)
def test_merged_projections_are_counted_where_they_are(body, counted):
    """Of two Splits the answer does not hang on which comes first: asked ten times."""
    text = (
        "g (float[B,S,16] x, float[B,S,48] x3, float[16,48] w3, int64[3] thirds, int64[3] rows, int64[1] zero, int64[2] parts, "
        f"int64[2] halves) => (float[B,S,16] y) {{ {body} y = Attention<q_num_heads = 4, kv_num_heads = 4>(q, k, v) }}"
    )
    for _ in range(10):
        merged = next(node for node in parse(text).graph if node.op_type == "Attention")
        assert qkv.one_source(merged) is counted
