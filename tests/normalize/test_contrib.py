"""ONNX Runtime's fused operators come apart into standard ones that compute the same, or stay and say why."""

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse.normalize.contrib import STAYS, TakeContribApart
from onnxfuse.optimizer import count, fuse
from onnxfuse.rewrite.passes import Context
from onnxfuse.runtime.sessions import compute, infer, open_session, run
from onnxfuse.targets import find
from tests.conftest import assert_same, fill, ops, parse, retype

SIZES = {"B": 2, "S": 4, "T": 6}


def take_apart(model: ir.Model) -> int:
    """Take a model apart with proofs; how many operators were."""
    context = Context(compute, infer, prove=True)
    TakeContribApart().apply(model, context)
    assert not context.trace.rejected
    return len(context.trace.applications)


def apart(
    text: str,
    opset: int = 20,
    *,
    count: int = 1,
    dtype: ir.DataType = ir.DataType.FLOAT,
    tolerance: float = 1e-5,
    bind=(),
    feeds: dict[str, np.ndarray] | None = None,
    **shapes: tuple[int, ...],
) -> ir.Model:
    """Take a model apart: standard operators of its opset, which compute the same."""
    before, after = (retype(fill(parse(text, opset), **shapes), dtype) for _ in range(2))
    assert take_apart(after) == count
    assert not [node.op_type for node in after.graph if node.domain]
    kept = ir.from_proto(ir.to_proto(after))
    if opset >= 20 or "Gelu" not in ops(after):  # the normal form has Gelu at every opset
        onnx.checker.check_model(ir.to_proto(kept))
        assert_same(before, kept, SIZES | dict(bind), tolerance=tolerance, **feeds or {})
    return after


def stays(text: str, reason: str, opset: int = 20, **shapes: tuple[int, ...]) -> None:
    """Nothing is taken apart, nothing left behind, and the node says why."""
    model = fill(parse(text, opset), **shapes)
    before = {value: len(value.uses()) for value in (*model.graph.inputs, *model.graph.initializers.values())}
    names = set(model.graph.initializers)
    assert take_apart(model) == 0
    own = next(node for node in model.graph if node.domain == "com.microsoft")
    assert own.metadata_props[STAYS] == reason
    assert {value: len(value.uses()) for value in before} == before
    assert set(model.graph.initializers) == names


# Gelus and norms


NORM = "g (float[B,S,8] x, {skip} r, float[8] w, float[8] n, float[8] b, float[8,8] sq) => ({out}) {{ {body} }}"
VECTORS = {"w": (8,), "n": (8,), "b": (8,), "sq": (8, 8)}


def norm(body: str, out: str = "float[B,S,8] y", skip: str = "float[B,S,8]") -> str:
    return NORM.format(body=body, out=out, skip=skip)


@pytest.mark.parametrize(
    ("body", "out", "wanted"),
    [
        (
            "y = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(x, r, w, n)",
            "float[B,S,8] y",
            ["Add", "LayerNormalization"],
        ),
        ("y = com.microsoft.SkipLayerNormalization(x, r, w)", "float[B,S,8] y", ["Add", "LayerNormalization"]),
        (
            "y = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(x, r, w, n, b)",
            "float[B,S,8] y",
            ["Add", "Add", "LayerNormalization"],
        ),
        (
            "y = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(x, r, w, , b)",
            "float[B,S,8] y",
            ["Add", "Add", "LayerNormalization"],
        ),
        (
            "m = MatMul(x, sq)  y = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(r, m, w, n, b)",
            "float[B,S,8] y",
            ["Add", "Add", "LayerNormalization", "MatMul"],
        ),
        (
            "y, p, q, s = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(x, r, w, n)",
            "float[B,S,8] y, float[B,S,8] s",
            ["Add", "LayerNormalization"],
        ),
        (
            "y, p, q, s = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(x, r, w, n, b)",
            "float[B,S,8] y, float[B,S,8] s",
            ["Add", "Add", "LayerNormalization"],
        ),
        ("y = com.microsoft.BiasGelu(x, b)", "float[B,S,8] y", ["Add", "Gelu"]),
        ("y = com.microsoft.FastGelu(x, b)", "float[B,S,8] y", ["Add", "Gelu"]),
        ("y = com.microsoft.FastGelu(x)", "float[B,S,8] y", ["Gelu"]),
        ("y = com.microsoft.Gelu(x)", "float[B,S,8] y", ["Gelu"]),
        ("y = com.microsoft.QuickGelu(x)", "float[B,S,8] y", ["Mul", "Mul", "Sigmoid"]),
        ("y = com.microsoft.QuickGelu<alpha = 0.5>(x)", "float[B,S,8] y", ["Mul", "Mul", "Sigmoid"]),
        ("y = com.microsoft.QuickGelu<alpha = 1.0>(x)", "float[B,S,8] y", ["Mul", "Sigmoid"]),
    ],
)
def test_an_operator_comes_apart(body, out, wanted):
    model = apart(norm(body, out), **VECTORS)
    assert ops(model) == wanted
    apart(norm(body, out), dtype=ir.DataType.FLOAT16, tolerance=8e-3, **VECTORS)


@pytest.mark.parametrize("skip", ["float[1,S,8]", "float[S,8]"])
def test_a_skip_that_broadcasts_to_x(skip):
    apart(norm("y = com.microsoft.SkipLayerNormalization(x, r, w, n)", skip=skip), **VECTORS)


@pytest.mark.parametrize(
    "body",
    [
        "m = MatMul(x, sq)  y = com.microsoft.SkipLayerNormalization(r, m, w, n, b)",
        "m = MatMul(x, sq)  p = Relu(r)  y = com.microsoft.SkipLayerNormalization(m, p, w, n, b)",
    ],
)
def test_the_bias_joins_the_product(body):
    """So that a linear layer is product and bias again."""
    model = apart(norm(body), **VECTORS)
    bias = next(node for node in model.graph if node.op_type == "Add")
    assert [value.name for value in bias.inputs] == ["m", "b"]


def test_small_rows_are_normed_with_the_default_epsilon():
    small = np.random.default_rng(0).standard_normal((2, 4, 8)).astype(np.float32) * 1e-6
    feeds = {"x": small, "r": small * 0}
    for name in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"):
        apart(norm(f"y = com.microsoft.{name}(x, r, w)"), feeds=feeds, tolerance=1e-4, **VECTORS)


@pytest.mark.parametrize("hidden", ["x", "r"])
def test_a_sum_of_unknown_shape_comes_apart(hidden):
    inputs = "x, r".replace(hidden, "h")
    text = norm(f"h = Reshape({hidden}, to)  y = com.microsoft.SkipLayerNormalization({inputs}, w, n)").replace(
        "(float[B", "(int64[R] to, float[B", 1
    )
    model = fill(parse(text), **VECTORS)
    assert take_apart(model) == 1
    assert ops(model) == ["Add", "LayerNormalization", "Reshape"]


def test_an_absent_input_that_is_not_known_is_no_matter():
    model = parse(norm("y = com.microsoft.FastGelu(x, b)"))
    model.graph.node(0).resize_inputs(3)
    assert take_apart(model) == 1


@pytest.mark.parametrize(
    ("opset", "wanted"),
    [
        (17, ["Add", "Add", "Div", "Mul", "Mul", "ReduceMean", "Sqrt"]),
        (18, ["Add", "Add", "Div", "Mul", "Mul", "ReduceMean", "Sqrt"]),
        (23, ["Add", "RMSNormalization"]),
    ],
)
def test_a_root_mean_square_norm_comes_apart_as_the_opset_has_it(opset, wanted):
    body = "y, p, q, s = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 0.01>(x, r, w)"
    assert ops(apart(norm(body, "float[B,S,8] y, float[B,S,8] s"), opset, **VECTORS)) == wanted
    apart(norm("y = com.microsoft.SkipSimplifiedLayerNormalization(x, r, w, b)"), opset, **VECTORS)
    apart(norm(body, "float[B,S,8] y, float[B,S,8] s"), opset, dtype=ir.DataType.FLOAT16, tolerance=8e-3, **VECTORS)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y, mean = com.microsoft.SkipLayerNormalization(x, r, w, n)", "its output 1 is read, and has no standard operator"),
        (
            "y, mean = com.microsoft.SkipSimplifiedLayerNormalization(x, r, w)",
            "its output 1 is read, and has no standard operator",
        ),
        (
            "y = com.microsoft.SkipLayerNormalization<epsilon = 0.1, axis = 1>(x, r, w, n)",
            "its attribute 'axis' is not understood",
        ),
        ("y = com.microsoft.SkipLayerNormalization(x, r)", "it has no input 'gain'"),
        ("y = com.microsoft.SkipLayerNormalization(x, r, , n)", "it has no input 'gain'"),
        ("y = com.microsoft.BiasGelu(x, b, w)", "its input 2 is not understood"),
        ('y = com.microsoft.Gelu<approximate = "tanh">(x)', "its attribute 'approximate' is not understood"),
        ("y = com.microsoft.BiasSplitGelu(x, b)", "no parts of it are known"),
    ],
)
def test_what_is_not_understood_stays(body, reason):
    out = "float[B,S,8] y, float[B,S,1] mean" if "mean" in body else "float[B,S,8] y"
    stays(norm(body, out), reason, **VECTORS)


@pytest.mark.parametrize(("x", "skip"), [("1,S,8", "2,S,8"), ("S,8", "2,S,8")])
def test_a_skip_wider_than_x_stays(x, skip):
    """ONNX Runtime reads its first row; a sum would have all."""
    stays(
        norm("y = com.microsoft.SkipLayerNormalization(x, r, w, n)", skip=f"float[{skip}]").replace("[B,S,8] x", f"[{x}] x"),
        "its input 'skip' is wider than x",
        **VECTORS,
    )


def test_an_operator_of_another_domain_is_left_alone():
    model = parse(norm("y = other.Gelu(x)"))
    assert take_apart(model) == 0
    assert STAYS not in model.graph.node(0).metadata_props


EMBED = """g (int32[B,S] ids, int32[B,S] kinds, int32[{at}] at, int32[B,S] mask, float[9,8] words, float[16,8] places, float[4,8] segments,
    float[8] w, float[8] n) => ({out}) {{ y, count, s = com.microsoft.EmbedLayerNormalization<epsilon = 0.001{more}>({inputs}) }}"""
TABLES = {"words": (9, 8), "places": (16, 8), "segments": (4, 8), "w": (8,), "n": (8,)}


@pytest.mark.parametrize("at", ["B,S", "1,S"])
@pytest.mark.parametrize(
    "inputs",
    [
        "ids, kinds, words, places, segments, w, n",
        "ids, , words, places, , w, n",
        "ids, kinds, words, places, segments, w, n, , at",
        "ids, kinds, words, places, segments, w, n, mask, at",
    ],
)
@pytest.mark.parametrize(
    "out", ["float[B,S,8] y", "float[B,S,8] y, float[B,S,8] s", "float[B,S,8] y, int32[B] count, float[B,S,8] s"]
)
def test_embeddings_come_apart(inputs, out, at):
    mask = np.array([[1, 2, 1, 0], [0, 0, 1, -1]], dtype=np.int32)
    model = apart(EMBED.format(inputs=inputs, out=out, at=at, more=", mask_index_type = 1"), feeds={"mask": mask}, **TABLES)
    assert bool({"ConstantOfShape", "ReduceSum"} & set(ops(model))) == ("count" in out)


def test_embeddings_that_count_nothing():
    text = EMBED.format(inputs="ids, kinds, words, places, segments, w, n", out="float[B,S,8] y", at="B,S", more="").replace(
        "y, count, s", "y"
    )
    assert take_apart(fill(parse(text), **TABLES)) == 1


def test_segment_ids_without_their_table_stay():
    text = EMBED.format(inputs="ids, kinds, words, places, , w, n", out="float[B,S,8] y", at="B,S", more="")
    stays(text, "it has segment ids, but no input 'segments'", **TABLES)


# Products


@pytest.mark.parametrize(
    ("a", "b", "attributes", "wanted"),
    [
        ("2,3,4", "2,4,5", "alpha = 1.0", ["MatMul"]),
        ("2,3,4", "2,4,5", "alpha = 0.5", ["MatMul", "Mul"]),
        ("2,4,3", "2,4,5", "transA = 1", ["MatMul", "Transpose"]),
        ("2,3,4", "2,5,4", "transB = 1", ["MatMul", "Transpose"]),
        ("B,4,S", "4,5", "transA = 1", ["MatMul", "Transpose"]),
        ("B,S,4", "5,4", "transB = 1, alpha = 2.0", ["MatMul", "Mul", "Transpose"]),
        ("6,2,3,4", "2,3,4,5", "transBatchA = 1", ["MatMul", "Transpose"]),
        ("4,2,3,6", "2,3,4,5", "transBatchA = 1, transA = 1", ["MatMul", "Transpose"]),
        ("2,3,6,4", "4,2,3,5", "transBatchB = 1", ["MatMul", "Transpose"]),
        ("2,3,6,4", "5,2,3,4", "transBatchB = 1, transB = 1", ["MatMul", "Transpose"]),
        ("6,2,3,4", "5,2,3,4", "transBatchA = 1, transBatchB = 1, transB = 1", ["MatMul", "Transpose", "Transpose"]),
        ("2,3,4", "4", "transB = 1", ["MatMul"]),
        ("4", "2,4,5", "transA = 1", ["MatMul"]),
    ],
)
def test_a_fused_product_comes_apart(a, b, attributes, wanted):
    text = f"g (float[{a}] a, float[{b}] b) => (float[P] y) {{ c = com.microsoft.FusedMatMul<{attributes}>(a, b)  y = Neg(c) }}"
    assert ops(apart(text)) == sorted([*wanted, "Neg"])
    if "Batch" not in attributes:
        apart(text.replace("FusedMatMul", "TransposeMatMul"))


def test_a_product_of_unknown_rank_stays_where_it_is_transposed():
    text = "g (float[B,4] a, float[4,5] b, int64[N] to) => (float[P] y) {{ r = Reshape(a, to)  y = com.microsoft.FusedMatMul<{}>(r, b) }}"
    stays(text.format("transA = 1"), "the shape of its input 'a' is not known")
    assert take_apart(parse(text.format("alpha = 2.0"))) == 1


GEMM = 'g (float[3,4] a, float[4,5] b, float[5] c) => (float[P] y) {{ y = com.microsoft.FusedGemm<activation = "{}"{}>({}) }}'


@pytest.mark.parametrize(
    ("activation", "more"),
    [
        ("Relu", ""),
        ("Tanh", ""),
        ("Sigmoid", ""),
        ("Softplus", ""),
        ("Softsign", ""),
        ("LeakyRelu", ", activation_alpha = 0.2"),
        ("Elu", ", activation_alpha = 0.7"),
        ("ThresholdedRelu", ", activation_alpha = 0.7"),
        ("HardSigmoid", ", activation_alpha = 0.3, activation_beta = 0.4"),
        ("Selu", ", activation_alpha = 1.5, activation_gamma = 1.1"),
    ],
)
@pytest.mark.parametrize(
    ("inputs", "gemm"), [("a, b, c", ""), ("a, b", ", alpha = 0.5, beta = 3.0"), ("a, b, c", ", alpha = 0.5, beta = 3.0")]
)
def test_an_activation_behind_gemm_comes_apart(activation, more, inputs, gemm):
    assert ops(apart(GEMM.format(activation, more + gemm, inputs))) == sorted(["Gemm", activation])


def test_gemm_keeps_its_transpositions():
    text = GEMM.format("Relu", ", transA = 1, transB = 1", "a, b, c").replace("[3,4]", "[4,3]").replace("[4,5]", "[5,4]")
    assert ops(apart(text)) == ["Gemm", "Relu"]


@pytest.mark.parametrize(
    ("activation", "more", "reason"),
    [
        ("Gelu", "", "its activation 'Gelu' with parameters none is not understood"),
        ("LeakyRelu", "", "its activation 'LeakyRelu' with parameters none is not understood"),
        ("Relu", ", activation_alpha = 0.2", "its activation 'Relu' with parameters alpha is not understood"),
        ("Relu", ", other = 1", "its attribute 'other' is not understood"),
    ],
)
def test_another_activation_behind_gemm_stays(activation, more, reason):
    stays(GEMM.format(activation, more, "a, b, c"), reason)


def test_gemm_without_an_activation_stays():
    stays(GEMM.format("Relu", "", "a, b, c").replace('<activation = "Relu">', ""), "it has no attribute 'activation'")


CONV = "g (float[1,2,5,5] x, float[3,2,3,3] w, float[3] b, float[1,3,{z}] z) => (float[P] y) {{ y = com.microsoft.FusedConv<{more}>(x, w{rest}) }}"


@pytest.mark.parametrize("rest", ["", ", b", ", b, z", ", , z"])
@pytest.mark.parametrize(
    ("more", "activation"),
    [
        ('activation = "Relu"', "Relu"),
        ('activation = "Tanh"', "Tanh"),
        ('activation = "Sigmoid"', "Sigmoid"),
        ('activation = "LeakyRelu", activation_params = [0.2]', "LeakyRelu"),
        ('activation = "Clip", activation_params = [-0.5, 0.6]', "Clip"),
        ('activation = "HardSigmoid", activation_params = [0.3, 0.4]', "HardSigmoid"),
        ("group = 1", None),
    ],
)
def test_an_activation_behind_conv_comes_apart(more, activation, rest):
    text = CONV.format(
        more=more + ", pads = [1, 1, 1, 1], kernel_shape = [3, 3], strides = [1, 1], dilations = [1, 1]", rest=rest, z="5,5"
    )
    wanted = ["Conv", *([activation] if activation else []), *(["Add"] if "z" in rest else [])]
    assert ops(apart(text)) == sorted(wanted)


def test_conv_keeps_how_it_walks():
    for more in ('auto_pad = "SAME_UPPER", strides = [2, 2]', "pads = [1, 0, 1, 0], dilations = [2, 1]"):
        assert ops(apart(CONV.format(more=f'activation = "Relu", {more}', rest="", z="3,3"))) == ["Conv", "Relu"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ('activation = "HardSwish"', "its activation 'HardSwish' with parameters none is not understood"),
        ('activation = "Clip", activation_params = [0.5]', "its activation 'Clip' has 1 parameters, wanted 2"),
        ('activation = "Relu", activation_params = [0.5]', "its activation 'Relu' has 1 parameters, wanted 0"),
    ],
)
def test_another_activation_behind_conv_stays(more, reason):
    stays(CONV.format(more=more, rest="", z="3,3"), reason)


# Attention


ATTENTION = """g (float[B,S,6] x, float[6,18] w, float[18] b, {mask}float[{bias}] added, float[2,B,2,P,3] past) => ({out})
    {{ y{more_out} = com.microsoft.Attention<num_heads = 2{more}>({inputs}) }}"""
PROJECTION = {"w": (6, 18), "b": (18,)}


def attention(
    inputs: str = "x, w, b",
    mask: str = "",
    more: str = "",
    bias: str = "1,2,S,S",
    out: str = "float[B,S,6] y",
    more_out: str = "",
) -> str:
    return ATTENTION.format(inputs=inputs, mask=f"{mask}, " if mask else "", more=more, bias=bias, out=out, more_out=more_out)


OPEN = np.array([[1, 1, 0, 1], [0, 1, 0, 0]], dtype=np.int32)
TRIANGLE = np.stack([np.tri(4), np.eye(4)]).astype(np.int32)
LENGTHS, ENDS_AND_STARTS = np.array([3, 9], dtype=np.int32), np.array([3, 4, 1, 2], dtype=np.int32)
MASKS = [
    ("int32[B,S] mask", OPEN),
    ("int32[B,S] mask", OPEN * 3 - 1),
    ("int32[B,S,S] mask", TRIANGLE),
    ("int32[B] mask", LENGTHS),
    ("int32[B,1] mask", OPEN[:, :1]),
    ("int32[1,1] mask", OPEN[1:, :1]),
]


@pytest.mark.parametrize(
    "more", ["", ", unidirectional = 1", ", mask_filter_value = -1.5", ", scale = 0.3", ", scale = 0.0, do_rotary = 0"]
)
@pytest.mark.parametrize(("mask", "content"), [("", None), *MASKS])
def test_every_mask_of_attention_comes_apart(mask, content, more):
    feeds = {} if content is None else {"mask": content}
    model = apart(
        attention("x, w, b, mask" if mask else "x, w, b", mask, more), feeds=feeds, tolerance=1e-5, bind={"P": 0}, **PROJECTION
    )
    assert ops(model).count("Softmax") == 1


def test_ends_and_starts_of_rows():
    text = attention("x, w, b, mask", "int32[4] mask").replace("[B,", "[2,").replace("[2,B", "[2,2")
    apart(text, feeds={"mask": ENDS_AND_STARTS}, bind={"P": 0}, **PROJECTION)
    symbolic = attention("x, w, b, mask", "int32[B] ends, int32[B] starts").replace(
        "{ y", "{ mask = Concat<axis = 0>(ends, starts)  y"
    )
    apart(symbolic, feeds={"ends": ENDS_AND_STARTS[:2], "starts": ENDS_AND_STARTS[2:]}, bind={"P": 0}, **PROJECTION)


@pytest.mark.parametrize("bias", ["1,2,S,S", "B,2,S,S", "B,1,S,S", "1,1,S,S"])
@pytest.mark.parametrize("more", ["", ", unidirectional = 1"])
def test_an_additive_bias_joins_the_mask(bias, more):
    apart(attention("x, w, b, , , added", "", more, bias), bind={"P": 0}, **PROJECTION)
    apart(attention("x, w, , mask, , added", "int32[B,S] mask", more, bias), feeds={"mask": OPEN}, bind={"P": 0}, **PROJECTION)


def test_the_default_fill_of_masked_keys():
    """A bias that closes the open keys as far leaves all of them equal."""
    added = np.broadcast_to(np.where(OPEN[0], np.float32(-10000.0), np.float32(0.0)), (1, 2, 4, 4))
    apart(
        attention("x, w, b, mask, , added", "int32[B,S] mask"),
        feeds={"mask": OPEN, "added": added},
        bind={"P": 0},
        tolerance=2e-3,
        **PROJECTION,
    )


def test_an_input_of_unknown_rank_beside_attention():
    text = attention("x, w, b", "", ", unidirectional = 1").replace("g (", "g (float[] other, ")
    assert take_apart(fill(parse(text), **PROJECTION)) == 1


@pytest.mark.parametrize("sizes", [(6, 6, 6), (4, 4, 4), (8, 8, 2)])
def test_heads_of_other_sizes(sizes):
    width = sum(sizes)
    text = attention("x, w, b", "", f", qkv_hidden_sizes = [{', '.join(map(str, sizes))}]", out=f"float[B,S,{sizes[2]}] y")
    apart(text.replace("6,18] w", f"6,{width}] w").replace("[18] b", f"[{width}] b"), bind={"P": 0}, w=(6, width), b=(width,))


def test_half_precision():
    model = apart(
        attention("x, w, b, mask", "int32[B,S] mask", ", unidirectional = 1"),
        dtype=ir.DataType.FLOAT16,
        tolerance=8e-3,
        feeds={"mask": OPEN},
        bind={"P": 0},
        **PROJECTION,
    )
    constants = {value.dtype for value in model.graph.initializers.values()}
    assert ir.DataType.FLOAT not in constants


def test_a_type_that_is_not_known_is_read_off_the_input():
    text = (
        attention("h, w, b, mask", "int32[B,S] mask")
        .replace("{ y", "{ h0 = other.Operator(x)  h = Reshape(h0, like)  y")
        .replace("float[2,B", "int64[3] like, float[2,B")
    )
    model = fill(
        parse(
            text.replace("=> (float[B,S,6] y)", "=> (float[B,S,6] y) <int64[3] like = {2, 4, 6}>")
            .replace("int64[3] like, float[2", "float[2")
            .replace("[B,S]", "[2,4]")
        ),
        **PROJECTION,
    )
    assert take_apart(model) == 1
    assert ops(model).count("CastLike") == 3


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (
            {"inputs": "x, w, b, , past", "more_out": ", present", "out": "float[B,S,6] y, float[2,B,2,Q,3] present"},
            "it has a past, as in a decoder",
        ),
        (
            {"more_out": ", present", "out": "float[B,S,6] y, float[2,B,2,S,3] present"},
            "its output 1 is read, and has no standard operator",
        ),
        ({"more": ", past_present_share_buffer = 1"}, "it has a past, as in a decoder"),
        ({"inputs": "x, w, b, , , , mask", "mask": "int32[1] mask"}, "it has a past, as in a decoder"),
        ({"more": ", do_rotary = 1"}, "it turns queries and keys by their positions (do_rotary)"),
        ({"more": ", rotary_embedding_dim = 32"}, "it turns queries and keys by their positions (do_rotary)"),
        ({"more": ", softcap = 30.0"}, "its attribute 'softcap' is not understood"),
        ({"inputs": "x, w, b, mask", "mask": "int32[B,1,M,M] mask"}, "its input 'mask_index' has rank 4, wanted 1 or 2 or 3"),
        (
            {"inputs": "x, w, b, mask", "mask": "int32[C] mask"},
            "its input 'mask_index' has size C, wanted B (lengths) or 2*B (ends and starts)",
        ),
        ({"inputs": "x, w, b, mask", "mask": "int32 mask"}, "its input 'mask_index' has rank 0, wanted 1 or 2 or 3"),
        ({"more": ", qkv_hidden_sizes = [5, 5, 8]"}, "2 heads do not divide the width 5"),
    ],
)
def test_other_attention_stays(parts, reason):
    stays(attention(**parts), reason, **PROJECTION)


def test_attention_whose_sizes_are_not_known_stays():
    stays(attention().replace("6,18] w", "6,N] w"), "the width of its input 'weights' is N, wanted a number", b=(18,))
    stays(attention().replace("num_heads = 2", "scale = 1.0"), "it has no attribute 'num_heads'", **PROJECTION)
    hidden = attention("h, w, b").replace("{ y", "{ h = other.Operator(x)  y")
    stays(hidden, "the shape of its input 'x' is not known", **PROJECTION)


MULTI_HEAD = """g (float[B,S,6] q, float[B,{t},6] k, float[B,{t},{v}] v, float[B,2,T,3] k4, float[B,2,T,3] v4, float[{bias}] b, {mask}float[{added}] added)
    => ({out}) {{ y{more_out} = com.microsoft.MultiHeadAttention<num_heads = 2{more}>({inputs}) }}"""


def multi_head(
    inputs: str = "q, k, v",
    mask: str = "",
    more: str = "",
    added: str = "1,2,S,T",
    t: str = "T",
    v: int = 6,
    out: str | None = None,
    more_out: str = "",
) -> str:
    return MULTI_HEAD.format(
        inputs=inputs,
        mask=f"{mask}, " if mask else "",
        more=more,
        added=added,
        t=t,
        v=v,
        bias=12 + v,
        out=out or f"float[B,S,{v}] y",
        more_out=more_out,
    )


KEYS = np.array([[1, 1, 0, 1, 0, 1], [0, 1, 0, 0, 1, 0]], dtype=np.int32)


@pytest.mark.parametrize("more", ["", ", mask_filter_value = -1.5", ", scale = 0.3", ", scale = 0.0"])
@pytest.mark.parametrize(
    ("mask", "content"),
    [("", None), ("int32[B,T] mask", KEYS), ("int32[B] mask", LENGTHS), ("int32[B,S,T] mask", np.stack([KEYS] * 4, axis=1))],
)
@pytest.mark.parametrize("inputs", ["q, k, v", "q, k, v, b", "q, k4, v4", "q, k4, v4, b"])
def test_every_mask_of_multi_head_attention_comes_apart(inputs, mask, content, more):
    feeds = {} if content is None else {"mask": content}
    inputs = f"{inputs}{'' if inputs.endswith('b') else ', '}, mask" if mask else inputs
    model = apart(multi_head(inputs, mask, more), feeds=feeds, b=(18,))
    assert ops(model).count("Slice") == (", b" in inputs) * (
        1 if "4" in inputs else 3
    )  # also the keys', so that projections merge
    fused = ir.from_proto(ir.to_proto(model))
    fuse(fused, find("cpu"))
    assert ops(fused).count("Attention") == 1  # also where keys and values are heads before anything made them


@pytest.mark.parametrize("added", ["1,2,S,T", "B,2,S,T", "B,1,S,T", "1,1,S,T"])
def test_an_additive_bias_of_multi_head_attention(added):
    apart(multi_head("q, k, v, , , added", added=added))
    apart(multi_head("q, k, v, , mask, added", "int32[B,T] mask", added=added), feeds={"mask": KEYS})


def test_values_of_another_width():
    for inputs in ("q, k, v", "q, k, v, b"):
        apart(multi_head(inputs, v=4), b=(16,))


@pytest.mark.parametrize("mask", ["", "int32[B,S] mask"])
def test_multi_head_attention_to_what_came_before(mask):
    inputs = "q, k, v, , mask" if mask else "q, k, v"
    apart(multi_head(inputs, mask, ", unidirectional = 1", t="S"), feeds={"mask": OPEN} if mask else {})


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (
            {"inputs": "q"},
            "query, key and value are packed in one input, which ONNX Runtime's own CPU kernel does not take either",
        ),
        (
            {"inputs": "q, k"},
            "query, key and value are packed in one input, which ONNX Runtime's own CPU kernel does not take either",
        ),
        (
            {"inputs": "q, , v"},
            "query, key and value are packed in one input, which ONNX Runtime's own CPU kernel does not take either",
        ),
        ({"inputs": "q, k, v, , , , k4, v4"}, "it has a past, as in a decoder"),
        ({"inputs": "q, k, v, , , , , , mask", "mask": "int32[1] mask"}, "it has a past, as in a decoder"),
        ({"inputs": "q, k, v, , , , , , , mask", "mask": "int32[1,1,1] mask"}, "it has a past, as in a decoder"),
        (
            {"more_out": ", present", "out": "float[B,S,6] y, float[B,2,T,3] present"},
            "its output 1 is read, and has no standard operator",
        ),
        (
            {"more_out": ", , , qk", "out": "float[B,S,6] y, float[B,2,S,T] qk"},
            "its output 3 is read, and has no standard operator",
        ),
        ({"more": ", unidirectional = 1"}, "it is unidirectional over T keys for S queries"),
        ({"inputs": "q, k4, v"}, "its input 'value' has rank 3, wanted 4"),
        ({"inputs": "q, k, v4"}, "its input 'value' has rank 4, wanted 3"),
        ({"inputs": "k4, k, v"}, "its input 'query' has rank 4, wanted 3"),
        (
            {"inputs": "q, k, v, , mask", "mask": "int32[8] mask"},
            "its input 'key_padding_mask' has size 8, wanted B (lengths) or 2*B (ends and starts)",
        ),
    ],
)
def test_other_multi_head_attention_stays(parts, reason):
    stays(multi_head(**parts), reason)


# All of them


ENCODER = """g (int32[B,S] ids, int32[B,S] attention_mask, float[9,16] words, float[16,16] places, float[16] w, float[16] n, float[16,48] wqkv, float[48] bqkv,
    float[16,16] wo, float[16] bo, float[16,32] w1, float[32] b1, float[32,16] w2, float[16] b2) => (float[B,16] y) <int64 first = {{0}}> {{
    e, count = com.microsoft.EmbedLayerNormalization(ids, , words, places, , w, n, attention_mask)
    a = com.microsoft.Attention<num_heads = 4>(e, wqkv, bqkv, {mask})
    o = MatMul(a, wo)  h = com.microsoft.SkipLayerNormalization(o, e, w, n, bo)
    u = MatMul(h, w1)  g = com.microsoft.BiasGelu(u, b1)  d = MatMul(g, w2)
    f = com.microsoft.SkipLayerNormalization(d, h, w, n, b2)  y = Gather<axis = 1>(f, first) }}"""
ENCODED = {
    "words": (9, 16),
    "places": (16, 16),
    "w": (16,),
    "n": (16,),
    "wqkv": (16, 48),
    "bqkv": (48,),
    "wo": (16, 16),
    "bo": (16,),
    "w1": (16, 32),
    "b1": (32,),
    "w2": (32, 16),
    "b2": (16,),
}


@pytest.mark.parametrize("target", ["cpu", "cuda", "openvino", "standard", "ort-contrib"])
@pytest.mark.parametrize("mask", ["count", "attention_mask"])
@pytest.mark.parametrize("opset", [17, 18])
def test_an_encoder_that_the_optimizer_wrote_fuses_on_every_target(mask, target, opset):
    before, after = (fill(parse(ENCODER.format(mask=mask), opset), **ENCODED) for _ in range(2))
    fused = fuse(after, find(target), prove=True)
    assert fused.counts == {"attention": 1, "qkv": 1, "layer_norm": 3, "gelu": 1, "unfused": 0}
    assert str(fused.padding) == ("removed" if find(target)["padding"] == "removed" else "kept: as target cuda has it")
    assert fused.trace.rejected == {}
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    feeds = {
        "ids": np.arange(15, dtype=np.int32).reshape(3, 5) % 9,
        "attention_mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=np.int32),
    }
    wanted, got = (run(open_session(ir.to_proto(model).SerializeToString()), feeds)["y"] for model in (before, after))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("mask", ["count", "attention_mask"])
def test_the_command_line_optimizes_what_the_optimizer_wrote(mask, cli, tmp_path):
    onnx.save(ir.to_proto(fill(parse(ENCODER.format(mask=mask), 17), **ENCODED)), tmp_path / "model.onnx")
    done = cli("optimize", "model.onnx", "--require", "attention=1", "--require", "qkv=1", "--require", "layer_norm=3", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["padding"] == "removed"


def test_what_stays_is_counted_as_unfused():
    model = parse(attention("x, w, b, , past", more_out=", present", out="float[B,S,6] y, float[2,B,2,Q,3] present"))
    take_apart(model)
    assert count(model) == {"attention": 0, "qkv": 0, "layer_norm": 0, "gelu": 0, "unfused": 1}
