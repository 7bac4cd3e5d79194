"""The inputs that models are judged on: read off the graph, meant as the model means them, bounded."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse import catalog
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.runtime.sessions import open_session, run
from onnxfuse.verify.arrays import differs
from onnxfuse.verify.grid import TRIED, grid
from onnxfuse.verify.inputs import LONGEST, profile_of, profile_of_family
from onnxfuse.verify.masks import ADDED, MASKS, MEANINGS, mask_of, row_lengths
from onnxfuse.verify.meaning import understood
from onnxfuse.verify.profile import BATCH, LENGTH, LIMIT, Input, Profile
from tests.conftest import fill, parse


def profile(text, config=None, **weights):
    return profile_of(fill(parse(text), **weights), config)


def roles(found):
    return {value.name: value.role for value in found.inputs}


TEXT = """g (int64[B,S] input_ids, int64[B,S] attention_mask, int64[B,S] token_type_ids, float[9,4] words, float[2,4] types)
    => (float[B,S,4] y) { a = Gather(words, input_ids)  b = Gather(types, token_type_ids)  y = Add(a, b) }"""


def test_a_profile_is_read_off_the_graph():
    found = profile(TEXT, {"max_position_embeddings": 32}, words=(9, 4), types=(2, 4))
    assert [(i.role, i.high, i.axes) for i in found.inputs] == [
        ("ids", 9, (BATCH, LENGTH)),
        ("mask", 2, (BATCH, LENGTH)),
        ("types", 2, (BATCH, LENGTH)),
    ]
    assert found.longest == 32
    cases = list(grid(found))
    assert [case.name for case in cases] == [
        "batch 1, length 1, mask none",
        "batch 1, length 7, mask none",
        "batch 3, length 7, mask none",
        "batch 1, length 32, mask none",
        "batch 1, length 7, mask right",
        "batch 3, length 7, mask right",
        "batch 3, length 7, mask left",
        "batch 3, length 7, mask holes",
        "batch 3, length 7, mask empty row",
        "batch 3, length 32, mask right",
        "batch 1, length 7, mask left",
        "batch 1, length 7, mask holes",
    ]
    for case in cases:
        batch, length, kind = int(case.name[6]), int(case.name.split()[3].strip(",")), case.name.partition("mask ")[2]
        assert {array.shape for array in case.feeds.values()} == {(batch, length)}
        assert case.feeds["input_ids"].max() < 9
        np.testing.assert_array_equal(case.feeds["attention_mask"], mask_of(kind, batch, length))
        assert (case.twins is None) == (kind != "empty row")
        assert (case.sides is None) == (kind != "left")


def test_a_model_without_a_mask_gets_no_padding_and_one_of_one_size_no_case_twice():
    def names(inputs):
        return [
            case.name
            for case in grid(profile(f"g ({inputs} ids) => (int64[P] y) {{ y = Neg(ids) }}", {"max_position_embeddings": 32}))
        ]

    assert names("int64[B,S]") == [
        "batch 1, length 1, mask none",
        "batch 1, length 7, mask none",
        "batch 3, length 7, mask none",
        "batch 1, length 32, mask none",
    ]
    assert names("int64[2,9]") == ["batch 2, length 9, mask none"]


@pytest.mark.parametrize(
    ("family", "config", "longest", "known"),
    [
        ("bert", {"max_position_embeddings": 40, "vocab_size": 90}, 40, True),
        ("bert", {}, LONGEST, False),
        ("vit", {"image_size": 32}, LONGEST, False),
    ],
)
def test_a_family_has_a_profile_without_any_graph(family, config, longest, known):
    found = profile_of_family(catalog.architecture(family), config, "feature-extraction")
    assert (found.longest, found.longest_known) == (longest, known)
    made = found.feeds(2, 5)
    if family == "vit":
        assert {name: (array.shape, array.dtype.name) for name, array in made.items()} == {
            "pixel_values": ((2, 3, 32, 32), "float32")
        }
    else:
        assert {(array.shape, array.dtype.name) for array in made.values()} == {((2, 5), "int64")}
        assert found.inputs[0].high == config.get("vocab_size", 2)


@pytest.mark.parametrize("choices", ["C", "4"])
def test_a_mask_of_the_ids_rank_holds_choices_too(choices):
    """Of another rank than the ids, its middle axis would be queries."""
    found = profile(
        f"g (int64[B,{choices},L] input_ids, int64[B,{choices},L] attention_mask) => (int64[B,{choices},L] y) "
        "{ y = Add(input_ids, attention_mask) }"
    )
    assert [value.axes for value in found.inputs] == [("batch", "", "length")] * 2
    assert (found.only("batch"), found.only("length")) == (None, None)
    made = found.feeds(3, 7, mask="right")
    assert {array.shape for array in made.values()} == {(3, 2 if choices == "C" else 4, 7)}
    assert made["attention_mask"].sum(axis=2)[:, :2].tolist() == [[6, 4], [4, 6], [2, 2]]
    assert not found.feeds(3, 7, mask="empty row")["attention_mask"][2].any()


def test_random_ids_reach_the_whole_table():
    assert set(profile(TEXT, words=(9, 4), types=(2, 4)).feeds(3, 100)["input_ids"].flat) == set(range(9))


# What an input is ------------------------------------------------------------------------------------------------


def test_what_the_graph_does_with_an_input_tells_where_its_name_does_not():
    found = profile(
        """g (int64[B,S] a, int64[B,S] b, bool[B,S] c, int64[B,S] d, float[B,S,4] e, int64[B] f, float[9,4] words)
        => (float[B,S,4] y, bool[B,S] z, bool[B,S] w, int64[B] v) <float one = {1}, float[2,4] types = {0,1,2,3,4,5,6,7}>
        { x = Cast<to=7>(a)  i = Gather(words, x)  g = Cast<to=1>(b)  h = Sub(one, g)  w = Not(c)  t = Gather(types, d)
          k = Add(i, t)  z = Cast<to=9>(h)  y = Add(k, e)  v = Neg(f) }""",
        words=(9, 4),
    )
    assert roles(found) == {"a": "ids", "b": "mask", "c": "mask", "d": "ids", "e": "values", "f": "ids"}
    assert [value.high for value in found.inputs if value.role == "ids"] == [9, 2, 2]


@pytest.mark.parametrize(
    ("use", "role"),
    [
        ("y = Where(c, x, x)", "mask"),
        ("n = Not(c)  y = Where(n, x, x)", "mask"),
        ("n = And(c, c)  y = Where(n, x, x)", "mask"),
        ("n = Or(c, c)  y = Where(n, x, x)", "mask"),
        ("n = Cast<to=1>(m)  o = Sub(one, n)  y = Mul(x, o)", "mask"),
        ("n = Cast<to=1>(m)  o = Sub(n, one)  y = Mul(x, o)", "ids"),
        ("n = Cast<to=1>(m)  y = Mul(x, n)", "ids"),
    ],
)
def test_uses_that_make_a_mask(use, role):
    found = profile(f"g (bool[B,S] c, int64[B,S] m, float[B,S] x) => (float[B,S] y) <float one = {{1}}> {{ {use} }}")
    assert roles(found)["m" if "(m)" in use else "c"] == role


@pytest.mark.parametrize(
    ("declared", "use", "role"),
    [
        ("int64[B,S]", "b = Cast<to=9>(m)  y = Where(b, x, x)", "mask"),
        ("int64[B,S]", "b = Cast<to=9>(m)  n = Not(b)  y = Where(n, x, x)", "mask"),
        ("int64[B,S]", "b = Cast<to=9>(m)  n = And(b, c)  y = Where(n, x, x)", "mask"),
        ("int64[B,S]", "b = Cast<to=9>(m)  n = And(c, b)  y = Where(n, x, x)", "mask"),
        ("int64[B,S]", "b = Cast<to=9>(m)  n = Or(b, c)  y = Where(n, x, x)", "mask"),
        ("int64[B,S]", "b = Cast<to=9>(m)  n = Or(c, b)  y = Where(n, x, x)", "mask"),
        ("bool[B,S]", "b = Cast<to=1>(m)  y = Mul(x, b)", "mask"),
        ("int64[B]", "n = Sub(one, m)  y = Cast<to=1>(n)", "ids"),
        ("bool[B]", "y = Cast<to=1>(m)", "ids"),
        ("int64[B,S]", "n = Sub(one, m)  e = Gather(words, m)  y = Cast<to=1>(n)", "ids"),
        ("int32[B,S]", "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, q, q, , m)", "mask"),
        ("float[B,1,S,S]", "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, q, q, , , m)", "mask"),
        ("int32[B,S]", "i = Cast<to=6>(c)  y, n = com.microsoft.EmbedLayerNormalization(i, , words, words, , g, g, m)", "mask"),
    ],
)
def test_places_that_only_masks_take(declared, use, role):
    found = profile(
        f"""g (bool[B,S] c, {declared} m, float[B,S] x, float[B,S,4] q, float[9,4] words) => (float[P] y)
        <int64 one = {{1}}, float[4] g = {{1,1,1,1}}> {{ {use} }}""",
        words=(9, 4),
    )
    assert roles(found)["m"] == role


def test_an_input_called_mask_may_look_up_the_two_rows_of_a_table():
    found = profile(
        "g (int64[B,S] bool_masked_pos, float[2,4] shown) => (float[B,S,4] y) { y = Gather(shown, bool_masked_pos) }",
        shown=(2, 4),
    )
    assert roles(found) == {"bool_masked_pos": "mask"}


@pytest.mark.parametrize(
    ("inputs", "use"),
    [
        ("int64[2] ids", "r = Reshape(i, ids)  y = Gather(words, r)"),
        ("int64[B,S] ids", "y = Gather(number, ids)"),
        ("int64[B,S] ids", "y = Gather(given, ids)"),
        ("int64[B,S] ids", "t = Transpose(words)  y = Gather(t, ids)"),
        (
            "int64[B,S] ids",
            "i32 = Cast<to=6>(i)  m32 = Cast<to=6>(ids)  y, n = com.microsoft.EmbedLayerNormalization(i32, m32, words, words, , g, g)",
        ),
    ],
    ids=["a shape", "a number", "a table that is fed", "a table that is computed", "a table that is left out"],
)
def test_what_looks_up_no_stored_table_has_the_least_ids(inputs, use):
    found = profile(
        f"""g ({inputs}, int64[B,S] i, float[9,4] given, float[9,4] words) => (float[P] y)
        <float number = {{1}}, float[4] g = {{1,1,1,1}}> {{ {use} }}""",
        words=(9, 4),
    )
    assert found.inputs[0].high == 2


@pytest.mark.parametrize(
    ("name", "pad", "masked"),
    [("ids", "int64 pad = {3}", True), ("ids", "int64[2] pad = {3,3}", False), ("token_types", "int64 pad = {3}", False)],
)
def test_padding_is_the_one_id_that_ids_are_compared_with(name, pad, masked):
    found = profile(f"g (int64[B,2] {name}) => (bool[B,2] y) <{pad}> {{ y = Equal({name}, pad) }}")
    assert (found.inputs[0].pad, found.masked) == ((3, True) if masked else (None, False))


def test_a_float_input_that_attention_adds_is_a_mask():
    found = profile("""g (float[B,S,8] x, float[B,1,S,S] bias) => (float[B,S,8] y)
        { y = Attention<q_num_heads=2, kv_num_heads=2>(x, x, x, bias) }""")
    assert roles(found) == {"x": "values", "bias": "mask"}


def test_ids_called_mask_that_look_up_a_table_are_ids():
    found = profile(
        "g (int64[B,S] masked_ids, float[9,4] words) => (float[B,S,4] y) { y = Gather(words, masked_ids) }", words=(9, 4)
    )
    assert roles(found) == {"masked_ids": "ids"}


def test_tables_in_other_types_and_behind_other_operators():
    text = """g (int64[B,S] a, int64[B,S] b, int32[B,S] c, int32[B,S] d) => (float[B,S,4] y, float[B,S,4] z, float[B,S,4] w)
        <int8[5,4] s = {0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3}, float o = {1}, float16[7,4] half = {0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3},
         float[11,4] words = {0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3},
         float[6,4] places = {0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3}, float[3,4] kinds = {0,1,2,3,0,1,2,3,0,1,2,3}, float[4] g = {1,1,1,1}>
        { f = DequantizeLinear(s, o)  y = Gather(f, a)  h = Cast<to=1>(half)  u = Unsqueeze(b, ax)  v = Squeeze(u, ax)  z = Gather(h, v)
          ax = Constant<value=int64[1] {0}>()  w = com.microsoft.EmbedLayerNormalization(c, d, words, places, kinds, g, g) }"""
    found = profile(text)
    assert {value.name: value.high for value in found.inputs} == {"a": 5, "b": 7, "c": 11, "d": 3}
    assert found.longest == 6  # EmbedLayerNormalization's positions


def test_config_tells_what_the_graph_does_not():
    text = "g (int64[B,S] input_ids, int64[B,S] token_type_ids, int64[B,S] position_ids) => (int64[B,S] y) { a = Add(input_ids, token_type_ids)  y = Add(a, position_ids) }"
    known = {"vocab_size": 50, "type_vocab_size": 3, "max_position_embeddings": 20}
    assert [value.high for value in profile(text, known).inputs] == [50, 3, 20]
    assert [value.high for value in profile(text, dict.fromkeys(known)).inputs] == [2, 2, 2]
    for other in ("50", 0, -50):
        assert [value.high for value in profile(text, dict.fromkeys(known, other)).inputs] == [2, 2, 2]


def test_inputs_of_functions_are_read_inside_them():
    text = """<ir_version: 10, opset_import: ["": 18, "f": 1]> g (int64[B,S] x, float[9,4] w) => (float[B,S,4] y) { y = f.look(x, w) }
        <domain: "f", opset_import: ["": 18]> look (i, t) => (o) { o = Gather(t, i) }"""
    model = fill(ir.from_proto(onnx.parser.parse_model(text)), w=(9, 4))
    assert profile_of(model).inputs[0].high == 9
    assert len(model.functions) == 1  # the model itself is as it was


@pytest.mark.parametrize("declared", ["string[B] x", "seq(float[B]) x", "float[] x"])
def test_inputs_that_are_no_numbers_are_refused(declared):
    with pytest.raises(ModelError, match=r"input 'x' has type .*wanted numbers of a known rank"):
        profile(f"g ({declared}) => ({declared.replace(' x', ' y')}) {{ y = Identity(x) }}")


def test_a_model_without_inputs_is_refused():
    with pytest.raises(ModelError, match="has no inputs"):
        profile("g () => (float[1] y) { y = Constant<value=float[1] {1}>() }")


# What an axis is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        ("int64[B,S] input_ids, int64[C,U] attention_mask", [(3, 5), (3, 5)]),
        ("int64[S,B] input_ids, int64[B,S] attention_mask", [(5, 3), (3, 5)]),
        ("int64[batch_size,sequence_length] input_ids, float[sequence_length,sequence_length] mask", [(3, 5), (5, 5)]),
        ("int64[d0,d1] input_ids, float[d1,d1] mask", [(3, 5), (5, 5)]),
        ("int64[d0,d1] input_ids, int64[d0] lengths, int64[d1] places", [(3, 5), (3,), (5,)]),
        (
            "int64[B,S] input_ids, int64[B,1,S,S] mask, int64[B,H,S,T] mask2, int64[B,1,1,S] mask3, int64[B,S,S] mask4",
            [(3, 5), (3, 1, 5, 5), (3, 1, 5, 5), (3, 1, 1, 5), (3, 5, 5)],
        ),
        ("int64[B,C,S] input_ids", [(3, 2, 5)]),
        ("float[B,S,8] x, float[B,T,8] k", [(3, 5, 8), (3, 5, 8)]),
        ("float[B,S,D] x", [(3, 5, 8)]),
        ("float[N,C,H,W] pixel_values", [(3, 3, 224, 224)]),
        ("float[B,S,N,4] x", [(3, 5, 8, 4)]),
        ("float[B,T] audio", [(3, 5)]),
        ("float[N,P] audio", [(3, 5)]),
        ("float[N,C,D,D] pixel_values", [(3, 3, 224, 224)]),
        ("int64[d0,d1] input_ids, float[d0,d0] mask", [(5, 5), (5, 5)]),
        ("float x, int64 n", [(), ()]),
        ("float[size,size] x", [(5, 5)]),
        ("float[1000] bias, int64[B,S] input_ids", [(1000,), (3, 5)]),
        ("float[40,8] weight, int64[B,S] input_ids", [(40, 8), (3, 5)]),
        ("int64[2,S] input_ids, int64[B,S] attention_mask", [(2, 5), (2, 5)]),
        ("int64[B,4] input_ids, int64[B,S] attention_mask", [(3, 4), (3, 4)]),
        ("int64[B,S] input_ids, int64[1,S] attention_mask", [(3, 5), (1, 5)]),
        ("int64[B,S] input_ids, int64[1,S] position_ids", [(3, 5), (1, 5)]),
        ("int64[1,S] input_ids, int64[B,S] attention_mask", [(1, 5), (1, 5)]),
        ("int64[1,S] input_ids, int64[1,S] attention_mask", [(1, 5), (1, 5)]),
        ("float[2,3,8,8] pixel_values", [(2, 3, 8, 8)]),
    ],
)
def test_sizes(inputs, wanted):
    names = [part.split()[-1] for part in inputs.replace(", ", "|").split("|")]
    outputs = ", ".join(f"float[1] o{at}" for at in range(len(names)))
    model = parse(f"g ({inputs}) => ({outputs}) {{ {' '.join(f'o{at} = Cast<to=1>({name})' for at, name in enumerate(names))} }}")
    found = profile_of(model).feeds(3, 5, mask="right")
    assert [found[name].shape for name in names] == wanted


def test_unnamed_dimensions_are_told_by_their_place():
    model = parse("g (int64[A,B] input_ids, int64[C,D] attention_mask) => (int64[A,B] y) { y = Add(input_ids, attention_mask) }")
    for value in model.graph.inputs:
        value.shape = ir.Shape([None, None])
    assert {array.shape for array in profile_of(model).feeds(3, 5).values()} == {(3, 5)}


@pytest.mark.parametrize(("name", "wanted"), [("mask", (3, 1, 5, 5)), ("pixels", (3, 3, 224, 224))])
def test_unnamed_dimensions_of_masks_and_images(name, wanted):
    model = parse(f"g (float[A,B,C,D] {name}) => (float[A,B,C,D] y) {{ y = Neg({name}) }}")
    model.graph.inputs[0].shape = ir.Shape([None] * 4)
    assert profile_of(model).feeds(3, 5)[name].shape == wanted


@pytest.mark.parametrize(
    ("use", "shape", "wanted"),
    [
        ("MatMul(x, w)", (6, 2), 6),
        ("MatMul(x, w)", (6,), 6),
        ("MatMul(x, w)", (3, 6, 2), 6),
        ("LayerNormalization(x, w)", (6,), 6),
        *[(f"{op}(x, w)", shape, 6) for op in ("Add", "Sub", "Mul", "Div") for shape in ((6,), (1, 6), (1, 1, 6))],
        ("Mul(x, w)", (), 8),
        ("Mul(x, w)", (1,), 8),
        ("Pow(x, w)", (6,), 8),
        ("Neg(x)", (6,), 8),
    ],
)
def test_the_size_of_features_is_read_off_what_they_meet(use, shape, wanted):
    text = f"g (float[B,S,D] x, float[{','.join(map(str, shape))}] w) => (float[B,S,E] y) {{ y = {use} }}"
    assert profile(text, w=shape).feeds(1, 2)["x"].shape == (1, 2, wanted)
    if wanted == 6:
        assert profile(text.replace("B,S,D", "B,D"), w=shape).feeds(1, 2)["x"].shape == (1, 6)


@pytest.mark.parametrize(
    ("config", "wanted"), [({}, 8), ({"hidden_size": 12}, 12), ({"dim": 14}, 14), ({"hidden_size": 0, "dim": 14}, 14)]
)
def test_or_off_the_config(config, wanted):
    assert profile("g (float[B,S,D] x) => (float[B,S,D] y) { y = Neg(x) }", config).feeds(1, 2)["x"].shape == (1, 2, wanted)


@pytest.mark.parametrize(
    ("config", "wanted"), [({"image_size": 32, "num_channels": 1}, (1, 32, 32)), ({"image_size": [16, 48]}, (3, 16, 48))]
)
def test_sizes_of_images(config, wanted):
    assert profile("g (float[B,C,H,W] x) => (float[B,C,H,W] y) { y = Neg(x) }", config).feeds(2, 1)["x"].shape == (2, *wanted)


@pytest.mark.parametrize("size", ["32", None, [], [32], {"height": 32}, 0, -1, 2.5, [32, "32"], 2**70, True])
def test_sizes_of_images_that_are_none(size):
    with pytest.raises(ModelError, match="as image_size, wanted a number, or a height and a width"):
        profile("g (float[B,C,H,W] x) => (float[B,C,H,W] y) { y = Neg(x) }", {"image_size": size})


def test_numbers_that_no_size_can_be_count_as_unsaid():
    found = profile("g (int64[B,S] input_ids) => (int64[B,S] y) { y = Neg(input_ids) }", {"max_position_embeddings": 2**70})
    assert (found.longest, found.longest_known) == (LONGEST, False)


@pytest.mark.parametrize(
    ("inputs", "batches", "lengths"),
    [
        ("int64[2,S] input_ids", {2}, {1, 7, 512}),
        ("int64[B,9] input_ids", {1, 3}, {9}),
        ("int64[2,9] input_ids", {2}, {9}),
        ("float[2,S,8] x", {2}, {1, 7, 512}),
        ("float[B,9,8] x", {1, 3}, {9}),
    ],
)
def test_the_grid_has_the_sizes_that_a_model_takes(inputs, batches, lengths):
    name = inputs.split()[-1]
    found = [case.feeds[name].shape for case in grid(profile(f"g ({inputs}) => (float[1] y) {{ y = Cast<to=1>({name}) }}"))]
    assert {shape[0] for shape in found} == batches
    assert {shape[1] for shape in found} == lengths


def test_images_have_a_grid_of_batches():
    found = profile("g (float[B,3,8,8] x) => (float[B,3,8,8] y) { y = Neg(x) }")
    assert [case.feeds["x"].shape[0] for case in grid(found)] == [1, 3]
    assert [case.feeds["x"].shape[0] for case in grid(found.fixed(2, None))] == [2]


def test_fixing_sizes():
    found = profile(TEXT, words=(9, 4), types=(2, 4)).fixed(2, 5)
    assert {array.shape for case in grid(found) for array in case.feeds.values()} == {(2, 5)}
    assert {array.shape for array in profile(TEXT, words=(9, 4), types=(2, 4)).fixed(None, 5).feeds(4, 9).values()} == {(4, 5)}


# The longest sequence --------------------------------------------------------------------------------------------


def positions(body, table=20):
    return profile(
        f"""g (int64[B,S] input_ids, float[30,4] words, float[{table},4] places) => (float[B,S,4] y)
        <int64 one = {{1}}, int64 pad = {{1}}, int64 zero = {{0}}, int64 three = {{3}}> {{ w = Gather(words, input_ids) {body}  y = Add(w, p) }}""",
        {"max_position_embeddings": table},
        words=(30, 4),
        places=(table, 4),
    )


@pytest.mark.parametrize(
    ("body", "longest"),
    [
        (
            "e = Equal(input_ids, pad) n = Not(e) k = Cast<to=7>(n) c = CumSum(k, one) m = Mul(c, k) i = Add(m, pad) p = Gather(places, i)",
            18,
        ),
        ("k = Cast<to=7>(input_ids) c = CumSum(k, one) i = Sub(c, one) p = Gather(places, i)", 20),
        ("k = Cast<to=7>(input_ids) c = CumSum(k, one) o = Constant<value=int64 {4}>() i = Add(c, o) p = Gather(places, i)", 15),
        ("s = Shape<start=1>(input_ids) l = Squeeze(s) r = Range(zero, l, one) i = Add(r, three) p = Gather(places, i)", 17),
        ("s = Shape<start=1>(input_ids) l = Squeeze(s) r = Range(zero, l, one) p = Gather(places, r)", 20),
        (
            "s = Shape<start=1>(input_ids) l = Squeeze(s) r = Range(zero, l, one) u = Range(zero, l, one) i = Sub(r, u) p = Gather(places, i)",
            20,
        ),
        ("s = Shape<start=1>(input_ids) l = Squeeze(s) r = Range(zero, l, one) i = Add(r, l) p = Gather(places, i)", 20),
        (
            "s = Shape<start=1>(input_ids) l = Squeeze(s) r = Range(zero, l, one) a = Abs(r) i = Add(a, three) p = Gather(places, i)",
            20,
        ),
    ],
)
def test_positions_that_do_not_start_at_zero_leave_fewer_tokens(body, longest):
    assert positions(body).longest == longest


def test_a_shape_operator_whose_axes_are_left_out_by_name():
    model = parse("""g (int64[B,S] ids, float[6,2] t) => (float[P] y) <int64 zero = {0}, int64 one = {1}, int64[1] front = {0}>
        { n = Shape<start = 1, end = 2>(ids)  s = Squeeze(n)  r = Range(zero, s, one)  u = Unsqueeze(r, front)  i = Squeeze(u)  y = Gather(t, i) }""")
    for node in model.graph:
        if node.op_type == "Squeeze":
            node.resize_inputs(2)
    assert profile_of(fill(model, t=(6, 2))).longest == 6


def test_the_longest_row_of_positions_from_the_pad_token_on_runs():
    """RoBERTa's way: the position of a token is the count of real tokens up to it, and the pad token's id."""
    text = f"""<ir_version: 10, opset_import: ["": 17]> g (int64[B,S] input_ids) => (float[B,S,1] y)
        <int64 one = {{1}}, int64 pad = {{1}}, float[9,1] places = {{{",".join(map(str, range(9)))}}}, float[4,1] words = {{0,1,2,3}}>
        {{ e = Equal(input_ids, pad) n = Not(e) k = Cast<to=7>(n) c = CumSum(k, one) m = Mul(c, k) i = Add(m, pad)
           p = Gather(places, i) w = Gather(words, input_ids) y = Add(w, p) }}"""
    model = onnx.parser.parse_model(text)
    found = profile_of(ir.from_proto(model), {"max_position_embeddings": 9})
    assert (found.longest, found.inputs[0].pad, found.masked) == (7, 1, True)
    session = open_session(model.SerializeToString())
    largest = max(run(session, case.feeds)["y"].max() for case in grid(found))
    assert largest >= 8  # the last place is reached


def test_a_stored_range_or_a_sliced_table_tells_the_longest():
    stored = ", ".join(map(str, range(12)))
    text = "g (int64[B,S] input_ids) => (int64[B,S] y) <int64[1,12] places = {%s}> { y = Neg(input_ids) }"
    assert profile(text % stored).longest == 12
    assert profile(text % stored.replace("11", "13")).longest == LONGEST
    assert profile(text % stored, {"max_position_embeddings": 10}).longest == 10
    assert profile(text % stored, {"max_position_embeddings": 40}).longest == 12


@pytest.mark.parametrize(
    ("body", "longest"),
    [
        ("p = Constant<value = int64[1,3] {0,1,2}>()  y = Add(input_ids, p)", 3),
        ("p = Constant<value_ints = [0,1,2]>()  y = Add(input_ids, p)", None),
        ("p = Constant<value_int = 3>()  y = Add(input_ids, p)", None),
        ("y = other.Bucket<value = 0.5>(input_ids)", None),
    ],
)
def test_a_range_in_a_constant_node_tells_too(body, longest):
    found = profile_of(parse(f"g (int64[B,S] input_ids) => (int64[B,S] y) {{ {body} }}"))
    assert (found.longest, found.longest_known) == (longest or LONGEST, longest is not None)


@pytest.mark.parametrize(
    ("stored", "longest"),
    [
        ("int64[1,2] places = {0,1}", 2),
        ("int64[1,1] places = {0}", None),
        ("int64[2,3] places = {0,1,2,0,1,2}", None),
        ("int64[3] places = {0,1,2}", None),
        ("float[1,3] places = {0,1,2}", None),
    ],
)
def test_a_stored_range_is_one_row_of_whole_numbers(stored, longest):
    found = profile(f"g (int64[B,S] input_ids) => (int64[B,S] y) <{stored}> {{ y = Neg(input_ids) }}")
    assert (found.longest, found.longest_known) == (longest or LONGEST, longest is not None)


@pytest.mark.parametrize(
    ("shape", "axis", "longest"),
    [
        ("2,2,6,2", "2", None),
        ("6", "-1", None),
        ("1,6,2", "1", 6),
        ("1,6,2", "-2", 6),
        ("6,2", "0", 6),
        ("6,2", "-2", 6),
        ("1,6,2", "0", None),
        ("6,2", "1", None),
        ("2,6,2,2", "1", None),
    ],
)
def test_a_table_whose_first_rows_are_taken_tells_the_longest(shape, axis, longest):
    """As many as there are tokens; rows that are always the same tell nothing."""
    text = f"""g (float[B,S,2] x, float[{shape}] t) => (float[P] y) <int64[1] a = {{0}}, int64[1] at = {{{axis}}}, int64[1] three = {{3}}>
        {{ n = Shape<start = 1, end = 2>(x)  y = Slice(t, a, n, at) }}"""
    sizes = tuple(map(int, shape.split(",")))
    assert profile(text, t=sizes).longest == (longest or LONGEST)
    for other in ("Slice(t, a, three, at)", "Slice(t, a, n)", "Pad(t, a, v, at)  v = Cast<to = 1>(n)"):
        assert profile(text.replace("Slice(t, a, n, at)", other), t=sizes).longest == LONGEST
    assert profile(text, t=sizes).longest_known == (longest is not None)


def test_a_table_that_could_be_overridden_tells_the_longest():
    """Nobody feeds it."""
    model = parse("""g (int64[B,S] ids, float[6,2] t) => (float[P] y) <int64 zero = {0}, int64 one = {1}>
        { n = Shape<start = 1, end = 2>(ids)  s = Squeeze(n)  r = Range(zero, s, one)  y = Gather(t, r) }""")
    table = model.graph.inputs[1]
    table.const_value = ir.tensor(np.zeros((6, 2), np.float32))
    model.graph.register_initializer(table)
    found = profile_of(model)
    assert found.longest == 6
    assert [value.name for value in found.inputs] == ["ids"]


def test_what_tells_nothing_of_positions_hides_nothing():
    """The first three rows of a table are always the same ones; another has fewer rows than its positions start at."""
    text = """g (int64[B,S] ids, float[6,2] t, float[2,2] u) => (float[P] y, float[P] z, float[P] w) <int64 zero = {0}, int64 one = {1}, int64 three = {3},
        int64[1] a = {0}, int64[1] b = {3}> { n = Shape<start = 1, end = 2>(ids)  s = Squeeze(n)  r = Range(zero, s, one)  y = Gather(t, r)
        z = Slice(t, a, b, a)  i = Add(r, three)  w = Gather(u, i) }"""
    assert profile(text, t=(6, 2), u=(2, 2)).longest == 6


@pytest.mark.parametrize(
    ("inputs", "asked", "sizes"),
    [
        ("int64[B,S] ids", (0, 0), (1, 12)),
        ("int64[B,S] ids", (3, 5), (3, 5)),
        ("int64[4,6] ids", (0, 0), (4, 6)),
        ("int64[4,6] ids", (4, 6), (4, 6)),
        ("float[B,3,8,8] pixels", (0, 0), (1, 0)),
        ("float[B,3,8,8] pixels", (2, 999), (2, 0)),
    ],
)
def test_models_are_measured_on_what_they_take(inputs, asked, sizes):
    found = profile_of(
        parse(f"g ({inputs}) => (float[P] y) {{ y = Cast<to = 1>({inputs.split()[-1]}) }}"), {"max_position_embeddings": 12}
    )
    assert found.measured(*asked) == sizes
    assert {array.shape[0] for array in found.feeds(*sizes).values()} == {sizes[0]}


def test_models_of_many_positions_are_measured_on_the_usual():
    model = parse("g (int64[B,S] ids) => (int64[B,S] y) { y = Neg(ids) }")
    assert profile_of(model, {"max_position_embeddings": 512}).measured(0, 0) == (1, 128)
    assert profile_of(model).measured(0, 0) == (1, 128)
    assert profile_of(model).measured(0, 9999) == (1, 9999)  # nothing tells how many it has


@pytest.mark.parametrize(
    ("inputs", "asked", "words"),
    [
        ("int64[B,S] ids", (1, 13), "--length 13: the model has positions for 12 tokens"),
        ("int64[4,6] ids", (1, 6), "--batch 1: the model takes 4 alone"),
        ("int64[4,6] ids", (0, 7), "--length 7: the model takes 6 alone"),
        ("int64[B,S] ids", (1 << 30, 2), r"^--batch 1073741824 --length 2: input 'ids' of shape .* takes .* GB .*; give fewer$"),
        ("float[B,3,8,8] ids", (1 << 30, 0), "^--batch 1073741824: input 'ids' of shape .*; give fewer$"),
    ],
)
def test_what_a_model_does_not_take_is_refused_before_any_work(inputs, asked, words):
    found = profile_of(parse(f"g ({inputs}) => (float[P] y) {{ y = Cast<to = 1>(ids) }}"), {"max_position_embeddings": 12})
    with pytest.raises(UsageError, match=words):
        found.measured(*asked)


def test_choices_are_not_tokens():
    """[batch, choices, length] of ids and mask: as many choices in both, few of them."""
    found = profile("""g (int64[B,C,S] input_ids, int64[B,C,S] attention_mask) => (int64[B,C,S] y, int64[B,C,S] z)
        { y = Neg(input_ids)  z = Neg(attention_mask) }""")
    assert {array.shape for array in found.feeds(3, 40).values()} == {(3, 2, 40)}


def test_outputs_that_are_no_tensors_tell_nothing_of_a_mask():
    found = profile("g (int64[B,S] input_ids, float[B,S] attention_mask) => (float[B,S] y) { y = Relu(attention_mask) }")
    run = lambda feeds: {"sequence": [feeds["input_ids"]]}  # noqa: E731
    assert understood(found, run) == found


def test_the_grid_stops_where_attention_would_not_fit():
    found = profile("g (int64[B,S] input_ids) => (int64[B,S] y) { y = Neg(input_ids) }", {"max_position_embeddings": 8192})
    assert found.longest == 8192
    assert max(case.feeds["input_ids"].shape[1] for case in grid(found)) == TRIED == 1024


def test_random_numbers_are_bounded():
    fixed = profile("g (float[100000,100000] x) => (float[1] y) { y = Neg(x) }")
    with pytest.raises(
        ModelError, match=r"input 'x' of shape \[100000, 100000\] takes 80\.0 GB of random numbers, allowed 1\.1; give"
    ):
        list(grid(fixed))
    width = LIMIT // 8 // 512
    wide = profile(f"g (float[B,S,{width}] x) => (float[1] y) {{ y = Neg(x) }}")
    with pytest.raises(ModelError, match=r"takes 1\.1 GB"):
        wide.feeds(1, 513)
    wide.inputs[0].require_room(1, 512)
    assert wide.feeds(1, 1)["x"].size == width


# What inputs hold ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["right", "left", "holes"])
def test_masks_drop_something_and_keep_something(kind):
    mask = mask_of(kind, 3, 7)
    assert (mask.sum(axis=1) > 0).all()
    assert (mask.sum(axis=1) < 7).all()


def test_each_kind_of_mask_is_what_its_name_says():
    np.testing.assert_array_equal(mask_of("right", 3, 7), np.arange(7) < np.array([[6], [4], [2]]))
    np.testing.assert_array_equal(mask_of("left", 3, 7), np.arange(7) >= np.array([[1], [3], [5]]))
    holes = mask_of("holes", 2, 7).astype(int).tolist()
    assert holes == [[1, 0, 1, 0, 1, 0, 1], [1, 1, 0, 1, 0, 1, 1]]
    assert mask_of("empty row", 3, 7).sum(axis=1).tolist() == [7, 7, 0]
    assert mask_of("none", 3, 7).all()
    for kind in MASKS[:-1]:
        assert mask_of(kind, 3, 1).all()


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool", "float", "float16", "uint8"])
def test_masks_and_ids_have_the_types_of_the_graph(dtype):
    found = profile(f"g (int32[B,S] input_ids, {dtype}[B,S] attention_mask) => (float[B,S] y) {{ y = Cast<to=1>(input_ids) }}")
    made = found.feeds(2, 7, mask="right")
    assert made["input_ids"].dtype == np.int32
    assert made["attention_mask"].dtype == found.inputs[1].dtype
    np.testing.assert_array_equal(made["attention_mask"].astype(bool), mask_of("right", 2, 7))


def mask(shape, axes, dtype=np.int64):
    return Input("m", "mask", np.dtype(dtype), shape, axes, 2)


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_any_rank_hide_keys(kind):
    keep = mask_of(kind, 3, 7)
    rng = np.random.default_rng(0)
    for shape, axes in (
        ((BATCH, 1, 1, LENGTH), (BATCH, "", LENGTH, LENGTH)),
        ((BATCH, LENGTH, LENGTH), (BATCH, LENGTH, LENGTH)),
        ((BATCH, 2, LENGTH, LENGTH), (BATCH, "", LENGTH, LENGTH)),
        ((LENGTH, BATCH), (LENGTH, BATCH)),
    ):
        found = mask(shape, axes).content(keep, rng)
        for row in range(3):
            shown = np.moveaxis(found, axes.index(BATCH), 0)[row]
            np.testing.assert_array_equal(shown, np.broadcast_to(keep[row], shown.shape))
    np.testing.assert_array_equal(mask((LENGTH, LENGTH), (LENGTH, LENGTH)).content(keep, rng), np.tile(keep[-1], (7, 1)))
    np.testing.assert_array_equal(mask((1, LENGTH), (BATCH, LENGTH)).content(keep, rng), keep[-1:])
    np.testing.assert_array_equal(mask((BATCH,), (BATCH,)).content(keep, rng), keep.any(axis=1))


def test_holes_also_hide_keys_from_single_queries():
    found = Profile((mask((BATCH, 2, LENGTH, LENGTH), (BATCH, "", LENGTH, LENGTH)),), 7)
    holes = found.feeds(3, 7, mask="holes")["m"]
    keep = mask_of("holes", 3, 7)
    assert (holes <= keep[:, None, None]).all()
    assert (holes.sum(axis=-1) > 0).all()
    assert len(np.unique(holes.reshape(-1, 7), axis=0)) > 6
    assert (found.feeds(3, 7, mask="right")["m"] == mask_of("right", 3, 7)[:, None, None]).all()


def test_a_mask_may_mean_the_other_way_round():
    keep = mask_of("right", 3, 7)
    for meaning in (*MEANINGS, ADDED):
        value = Input("m", "mask", np.dtype(np.float32), (BATCH, LENGTH), (BATCH, LENGTH), 2, meaning=meaning)
        np.testing.assert_array_equal(value.content(keep, np.random.default_rng(0)), np.where(keep, *meaning))


def test_padding_stands_in_the_ids_where_the_graph_looks_there():
    value = Input("ids", "ids", np.dtype(np.int64), (BATCH, LENGTH), (BATCH, LENGTH), 3, pad=1)
    made = Profile((value,), 7).feeds(3, 7, mask="left")["ids"]
    np.testing.assert_array_equal(made != 1, mask_of("left", 3, 7))


def test_a_share_of_the_tokens_is_real():
    found = profile(TEXT, words=(9, 4), types=(2, 4))
    lengths = row_lengths(4, 32, 0.5)
    made = found.feeds(4, 32, real=0.5)["attention_mask"]
    np.testing.assert_array_equal(made, np.arange(32) < np.array(lengths)[:, None])
    assert found.fixed(2, 8).feeds(4, 32, real=0.5)["attention_mask"].shape == (2, 8)


def test_equal_seeds_give_equal_feeds():
    found = profile(TEXT, words=(9, 4), types=(2, 4))
    first, again, other = (found.feeds(2, 7, seed=seed)["input_ids"] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


# Twins -----------------------------------------------------------------------------------------------------------


def test_twins_differ_in_the_row_without_a_token_alone():
    found = profile(TEXT, words=(9, 4), types=(2, 4))
    first, second = found.twins(3, 7)
    assert (first["attention_mask"] == 1).all()
    assert (second["attention_mask"] == 1).all()
    for name in ("input_ids", "token_type_ids"):
        assert ((first[name] != second[name]) == (np.arange(3) == 2)[:, None]).all()
    values = Profile(
        (
            Input("x", "values", np.dtype(np.float32), (LENGTH, BATCH, 2), (LENGTH, BATCH, ""), 0),
            mask((BATCH, LENGTH), (BATCH, LENGTH)),
        ),
        7,
    )
    first, second = values.twins(3, 7)
    assert ((first["x"] != second["x"]) == (np.arange(3) == 2)[None, :, None]).all()


@pytest.mark.parametrize("shared", [mask((LENGTH, LENGTH), (LENGTH, LENGTH)), mask((1, LENGTH), (BATCH, LENGTH))])
def test_a_mask_that_holds_for_all_rows_empties_all(shared):
    ids = Input("ids", "ids", np.dtype(np.int64), (BATCH, LENGTH), (BATCH, LENGTH), 9)
    first, second = Profile((ids, shared), 7).twins(3, 7)
    assert (first["ids"] != second["ids"]).all()


def test_twins_hold_no_padding():
    ids = Input("ids", "ids", np.dtype(np.int64), (BATCH, LENGTH), (BATCH, LENGTH), 3, pad=1)
    for twin in Profile((ids,), 7).twins(3, 7):
        assert (twin["ids"] != 1).all()


def test_the_sides_of_a_mask_differ_where_it_says():
    ids = Input("ids", "ids", np.dtype(np.int64), (BATCH, LENGTH), (BATCH, LENGTH), 9, pad=1)
    mask = Input("mask", "mask", np.dtype(np.int64), (BATCH, LENGTH), (BATCH, LENGTH), 2)
    other = Input("other", "values", np.dtype(np.float32), (BATCH, 4), (BATCH, ""), 0)
    one, real, padding = Profile((ids, mask, other), 7).sides(3, 7, "left")
    keep = mask_of("left", 3, 7)
    assert not keep.all(axis=1).any()
    assert ((one["ids"] != real["ids"]) == keep).all()
    assert ((one["ids"] != padding["ids"]) == ~keep).all()
    for each in (one, real, padding):
        assert each["mask"].all()
        assert (each["ids"] != 1).all()
        assert (each["other"] == one["other"]).all()


# What masks mean -------------------------------------------------------------------------------------------------

ATTENTION = """g (int64[B,S] input_ids, {mask}, float[50,8] words) => ({output}) <float one = {{1}}, float low = {{-10000}}, int64[1] second = {{1}},
    int64[2] heads = {{1,2}}, int64 zero = {{0}}, int64 first = {{1}}> {{ x = Gather(words, input_ids)  t = Transpose<perm=[0,2,1]>(x)  s = MatMul(x, t)
    {bias}  a = Add(s, bias)  p = Softmax<axis=-1>(a)  h = MatMul(p, x)  {tail} }}"""
TOKENS = ("float[B,S,8] y", "y = Identity(h)")
TAILS = {
    "tokens": TOKENS,
    "first token": ("float[B,8] y", "y = Gather<axis=1>(h, zero)"),
    "flat": ("float[N,8] y", "w = Constant<value=int64[2] {-1,8}>() y = Reshape(h, w)"),
    "beside a residual": ("float[B,S,8] y", "e = Constant<value=float {0.01}>() f = Mul(h, e) y = Add(x, f)"),
}
LETS_IN = "m = Cast<to=1>(attention_mask)  n = Sub(one, m)  k = Mul(n, low)  bias = Unsqueeze(k, second)"
COUNTED = """u = Cast<to=6>(attention_mask)  embedded, lengths = com.microsoft.EmbedLayerNormalization(c, , words, words, , g8, g8, u)  c = Cast<to=6>(input_ids)
    l = Cast<to=7>(lengths)  l2 = Unsqueeze(l, second)  s2 = Shape<start=1, end=2>(input_ids)  s3 = Squeeze(s2)  at = Range(zero, s3, first)
    k0 = Less(at, l2)  k1 = Not(k0)  k2 = Cast<to=1>(k1)  k = Mul(k2, low)  bias = Unsqueeze(k, second)
    g8 = Constant<value=float[8] {1,1,1,1,1,1,1,1}>()"""
SHUTS_OUT = "m = Cast<to=1>(attention_mask)  k = Mul(m, low)  bias = Unsqueeze(k, second)"


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize(
    ("declared", "bias", "meaning"),
    [
        ("int64[B,S] attention_mask", LETS_IN, (1, 0)),
        ("int64[B,S] attention_mask", SHUTS_OUT, (0, 1)),
        ("int64[B,S] attention_mask", COUNTED, (1, 0)),
        ("bool[B,S] attention_mask", SHUTS_OUT, (0, 1)),
        ("float[B,S] attention_mask", LETS_IN, (1, 0)),
        ("float[B,S] attention_mask", SHUTS_OUT, (0, 1)),
        ("float[B,S,S] attention_mask", "bias = Identity(attention_mask)", ADDED),
        ("float[S,S] attention_mask", "bias = Identity(attention_mask)", ADDED),
        (
            "int64[B,S] attention_mask",
            "q = Cast<to=1>(attention_mask)  r = Mul(q, zf)  zf = Constant<value=float {0.0}>()  bias = Unsqueeze(r, second)",
            (1, 0),
        ),
    ],
)
def test_a_mask_is_understood_by_changing_a_token(declared, bias, meaning, tail):
    output, end = tail
    model = fill(parse(ATTENTION.format(mask=declared, output=output, bias=bias, tail=end)), words=(50, 8))
    model.graph.sort()
    session = open_session(ir.to_proto(model).SerializeToString())
    found = understood(profile_of(model), lambda given: run(session, given))
    assert next(value.meaning for value in found.inputs if value.role == "mask") == meaning


def test_masks_are_understood_together():
    """One lets in, the other shuts out; a token takes part where both say so."""
    model = fill(
        parse(
            ATTENTION.format(
                mask="int64[B,S] attention_mask, int64[B,S] padding_mask",
                output=TOKENS[0],
                tail=TOKENS[1],
                bias="m = Cast<to=1>(attention_mask)  n = Sub(one, m)  o = Cast<to=1>(padding_mask)  b = Add(n, o)  k = Mul(b, low)  bias = Unsqueeze(k, second)",
            )
        ),
        words=(50, 8),
    )
    session = open_session(ir.to_proto(model).SerializeToString())
    found = understood(profile_of(model), lambda given: run(session, given))
    assert {value.name: value.meaning for value in found.inputs if value.role == "mask"} == {
        "attention_mask": (1, 0),
        "padding_mask": (0, 1),
    }


def test_a_meaning_that_the_model_cannot_run_with_is_not_its_meaning():
    def strict(given):
        if (given["m"] == 0).any():
            raise ModelError("no zeros")
        return {"y": np.where(given["m"] < 0, 0, given["ids"])}

    ids = Input("ids", "ids", np.dtype(np.int64), (BATCH, LENGTH), (BATCH, LENGTH), 9)
    with_zeros = Profile((ids, mask((BATCH, LENGTH), (BATCH, LENGTH))), 7)
    assert understood(with_zeros, strict) == with_zeros


def test_outputs_of_other_sizes_tell_nothing():
    """One row for each token that takes part: what one token's rows are, the others' are not."""
    ids = Input("ids", "ids", np.dtype(np.int64), (BATCH, LENGTH), (BATCH, LENGTH), 9)
    flat = Profile((ids, mask((BATCH, LENGTH), (BATCH, LENGTH))), 7)
    assert understood(flat, lambda given: {"y": given["ids"][given["m"] == 0]}) == flat


def test_texts_tell_what_masks_mean():
    ids = Input("ids", "ids", np.dtype(np.int64), (BATCH, LENGTH), (BATCH, LENGTH), 9)
    texts = Profile((ids, mask((BATCH, LENGTH), (BATCH, LENGTH))), 7)
    found = understood(texts, lambda given: {"y": np.array([str(given["ids"][given["m"] == 0].sum())], object)})
    assert found.inputs[1].meaning == (0, 1)


def test_models_without_masks_are_not_run():
    found = profile("g (int64[B,S] input_ids) => (int64[B,S] y) { y = Neg(input_ids) }")
    assert understood(found, None) == found


def test_arrays_differ_where_they_differ():
    nan = float("nan")
    assert differs(np.array([1, 2, nan, nan]), np.array([1, 3, nan, 4])).tolist() == [False, True, False, True]
    assert differs(np.array(["a", "b"], object), np.array(["a", "c"], object)).tolist() == [False, True]
    assert differs(np.zeros(2), np.zeros(3)).tolist() == [True, True]
    assert differs(np.float32(1), np.float32(2)).shape == ()


def test_random_prompts_leave_a_token_of_each_row():
    text = """g (int64[B,S] input_ids, int64[B,S] attention_mask, int64[B] prompt_length, float[9,4] words) => (float[B,S,4] y)
        { y = Gather(words, input_ids) }"""
    found = profile(text, {"vocab_size": 9}, words=(9, 4))
    assert [(value.role, value.axes) for value in found.inputs][2] == ("prompt", (BATCH,))
    seen = set()
    for case in grid(found):
        lengths, kept = case.feeds["prompt_length"], case.feeds["attention_mask"].sum(axis=1)
        assert lengths.shape == kept.shape
        assert ((lengths >= 0) & (lengths < np.maximum(kept, 1))).all()
        seen |= set(lengths.tolist())
        for feeds in case.twins or ():
            np.testing.assert_array_equal(feeds["prompt_length"], case.twins[0]["prompt_length"])
    assert {0, 1, 3} <= seen
    assert (found.fixed(2, 5).only(BATCH), found.fixed(2, 5).feeds(3, 7)["prompt_length"].shape) == (2, (2,))
