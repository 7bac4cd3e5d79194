"""Samples in the form that a model takes: names, types, ranks, sizes; and predictions that do not depend on it."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError, UsageError
from onnxfuse.evaluation.collate import Collator, Sizes
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.evaluation.quality import predict
from onnxfuse.runtime import open_runner
from onnxfuse.verify.inputs import LONGEST, profile_of
from tests.conftest import parse
from tests.evaluation.conftest import averaging, collator_of, saved

LENGTHS = (3, 5, 5, 1, 4, 2, 5)
KEEP = np.arange(8) < np.array(LENGTHS)[:, None]
IDS = np.where(KEEP, np.random.default_rng(0).integers(2, 50, KEEP.shape), 0)


def texts(model, *, keep=KEEP, ids=IDS, **collator):
    """As a tokenizer would give them: ids, and which are real."""
    return Dataset("texts", {"input_ids": ids}, keep=keep, collator=collator_of(model, **collator))


def predictions(model, data, folder, batch=3):
    """Of all samples, in order [n, 8]."""
    return predict(open_runner(saved(model, folder / "model.onnx")), data, batch).joined("y")


@pytest.fixture
def wanted(tmp_path):
    """Each row alone, without padding."""
    run = open_runner(saved(averaging(mask=""), tmp_path / "alone.onnx"))
    return np.concatenate([run({"input_ids": row[keep][None]})["y"] for row, keep in zip(IDS, KEEP, strict=True)])


@pytest.mark.parametrize(
    ("mask", "masked"),
    [
        ("int64[B,S] attention_mask", "m = Cast<to = 1>(attention_mask)"),
        ("int32[B,S] seen_mask", "m = Cast<to = 1>(seen_mask)"),
        ("bool[B,S] attention_mask", "m = Cast<to = 1>(attention_mask)"),
        ("float[B,S] attention_mask", "m = Identity(attention_mask)"),
        ("float16[B,S] attention_mask", "m = Cast<to = 1>(attention_mask)"),
        ("float[B,1,1,S] attention_mask", "q = Constant<value = int64[2] {1, 2}>()  m = Squeeze(attention_mask, q)"),
        (
            "int64[B,S,S] attention_mask",
            "q = Constant<value = int64 {0}>()  r = Gather<axis = 1>(attention_mask, q)  m = Cast<to = 1>(r)",
        ),
        (
            "int64[B,1,S,S] mask",
            "q = Constant<value = int64[2] {1, 1}>()  z = Constant<value = int64 {0}>()  r = Gather<axis = 2>(mask, z)"
            "  o = Constant<value = int64[1] {1}>()  v = Squeeze(r, o)  m = Cast<to = 1>(v)",
        ),
    ],
)
@pytest.mark.parametrize("ids", ["int64[B,S] input_ids", "int32[B,S] tokens"])
def test_masks_of_any_rank_and_ids_of_any_type_give_the_same_answers(tmp_path, wanted, ids, mask, masked):
    model = averaging(ids, mask, masked=masked)
    data = texts(model)
    types = {value.name: value.dtype.numpy() for value in model.graph.inputs}
    assert {name: array.dtype for name, array in next(data.batches(3)).items()} == types
    np.testing.assert_allclose(predictions(model, data, tmp_path), wanted, rtol=1e-5, atol=1e-6)


def test_a_mask_may_mean_the_opposite(tmp_path, wanted):
    """1 where a token does not take part: of texts, and of a column under the model's own name, which is in its own words."""
    model = averaging(mask="float[B,S] padding_mask", masked="one = Constant<value = float {1.0}>()  m = Sub(one, padding_mask)")
    collator = collator_of(model)
    collator = replace(
        collator,
        profile=replace(
            collator.profile,
            inputs=tuple(
                replace(value, meaning=(0.0, 1.0)) if value.role == "mask" else value for value in collator.profile.inputs
            ),
        ),
    )
    own, theirs = ({"input_ids": IDS, name: mask} for name, mask in (("padding_mask", ~KEEP * 1.0), ("attention_mask", KEEP * 1)))
    for data in (
        Dataset("texts", {"input_ids": IDS}, keep=KEEP, collator=collator),
        Dataset("own", own, collator=collator),
        Dataset("hf", theirs, collator=collator),
    ):
        np.testing.assert_allclose(predictions(model, data, tmp_path), wanted, rtol=1e-5, atol=1e-6)
        assert [feeds["input_ids"].shape for feeds in data.batches(3)] == [(3, 5), (3, 4), (1, 5)]
        longer = next(replace(data, sizes=Sizes(length=9)).batches(3))["padding_mask"]
        assert longer.tolist() == [[0, 0, 0, *[1] * 6], [*[0] * 5, *[1] * 4], [*[0] * 5, *[1] * 4]]


@pytest.mark.parametrize("sizes", [(1, None), (4, None), (None, 5), (None, 8), (None, 11), (1, 6), (3, 11), (16, 5)])
def test_fixed_sizes_give_the_same_answers(tmp_path, wanted, sizes):
    batch, length = sizes
    model = averaging(f"int64[{batch or 'B'},{length or 'S'}] input_ids", f"int32[{batch or 'B'},{length or 'S'}] attention_mask")
    data = texts(model)
    assert data.rows(2) == (batch or 2)
    assert all(
        feeds["input_ids"].shape == (batch or len(feeds["input_ids"]), length or feeds["input_ids"].shape[1])
        for feeds in data.batches(2)
    )
    np.testing.assert_allclose(predictions(model, data, tmp_path, 2), wanted, rtol=1e-5, atol=1e-6)


def test_rows_that_fit_stay_where_they_are():
    """Padding on the left too: positions count it."""
    for width in (4, 6):
        model = averaging(f"int64[B,{width}] input_ids", f"int64[B,{width}] attention_mask")
        ids = np.array([[0, 0, 5, 6], [0, 7, 8, 9]])
        feeds = next(texts(model, ids=ids, keep=ids > 0).batches(2))
        assert feeds["input_ids"].tolist() == [row + [0] * (width - 4) for row in ids.tolist()]


def test_only_axes_of_tokens_are_cut():
    """As many rows as columns, and other columns as long as they please."""
    keep = np.arange(4) < np.array([2, 1, 2, 2])[:, None]
    columns = {"input_ids": np.arange(2, 18).reshape(4, 4), "attention_mask": keep * 1, "token_type_ids": np.ones((4, 4), int)}
    feeds = next(Dataset("set", columns, collator=collator_of(averaging(types="int64[B,S] token_type_ids"))).batches(4))
    assert {array.shape for array in feeds.values()} == {(4, 2)}
    plain = next(Dataset("set", columns | {"other": np.ones((4, 9)), "one": np.ones(4), "deep": np.ones((4, 4, 3))}).batches(4))
    assert {name: array.shape for name, array in plain.items()} == {
        "input_ids": (4, 2),
        "attention_mask": (4, 2),
        "token_type_ids": (4, 2),
        "other": (4, 9),
        "one": (4,),
        "deep": (4, 2, 3),
    }


def test_rows_that_are_too_long_keep_their_first_real_tokens():
    model = averaging("int64[B,4] input_ids", "int64[B,4] attention_mask")
    ids = np.array([[0, 0, 0, 5, 6, 7, 8, 9]])
    feeds = next(texts(model, ids=ids, keep=ids > 0).batches(1))
    assert feeds["input_ids"].tolist() == [[5, 6, 7, 8]]
    assert feeds["attention_mask"].all()
    left = next(texts(averaging(), ids=ids, keep=ids > 0).batches(1))  # where they fit, they stay where they are
    assert left["input_ids"].tolist() == ids.tolist()


def test_what_fills_a_row_up_is_padding():
    model = averaging("int64[B,6] input_ids", "int64[B,6] attention_mask", "int64[B,6] token_type_ids")
    feeds = next(texts(model, ids=IDS[:2, :5], keep=KEEP[:2, :5], pad=7).batches(2))
    assert feeds["input_ids"][:, 5].tolist() == [7, 7]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]
    assert not feeds["token_type_ids"].any()
    assert next(texts(model, ids=IDS[:2, :5], keep=KEEP[:2, :5]).batches(2))["input_ids"][:, 5].tolist() == [0, 0]
    columns = {"input_ids": IDS[:1, :4], "attention_mask": KEEP[:1, :4] * 1, "token_type_ids": KEEP[:1, :4] * 1}
    given = next(Dataset("set", columns, collator=collator_of(model)).batches(2))
    assert given["token_type_ids"].tolist() == [[1, 1, 1, 0, 0, 0]]


def test_a_mask_of_the_models_own_comes_as_it_is():
    """It may say more than which tokens are real: 2 for those that see all, or which sees which."""
    mask = np.array([[2, 1, 0, 0], [1, 1, 1, 0]])
    feeds = next(Dataset("set", {"input_ids": IDS[:2, :4], "attention_mask": mask}, collator=collator_of(averaging())).batches(2))
    assert feeds["attention_mask"].tolist() == mask[:, :3].tolist()
    model = averaging(
        mask="float[B,S,S] attention_mask", masked="z = Constant<value = int64 {0}>()  m = Gather<axis = 1>(attention_mask, z)"
    )
    each = np.where(np.tri(4) > 0, 0.0, -1e4)[None].repeat(2, axis=0)
    for collator in (collator_of(model), Collator(profile_of(model, {"vocab_size": 50}))):
        collator.require({"input_ids": IDS[:2, :4], "attention_mask": each}, "set", UsageError)
        feeds = next(Dataset("set", {"input_ids": IDS[:2, :4], "attention_mask": each}, collator=collator).batches(2))
        np.testing.assert_array_equal(feeds["attention_mask"], each.astype(np.float32))
        short = next(Dataset("set", {"input_ids": IDS[:2, :4], "attention_mask": KEEP[:2, :4] * 1}, collator=collator).batches(2))
        assert short["attention_mask"].tolist() == [[[1, 1, 1, 0]] * 4, [[1, 1, 1, 1]] * 4]


def test_columns_without_a_mask():
    """All ids are real; a column of another rank is no mask."""
    columns = {"input_ids": IDS[:2, :4], "attention_mask": np.ones((2, 1, 4))}
    feeds = next(Dataset("set", columns, collator=collator_of(averaging("int64[B,6] input_ids", mask=""), pad=7)).batches(2))
    assert feeds["input_ids"].tolist() == [[*IDS[0, :4], 7, 7], [*IDS[1, :4], 7, 7]]
    alone = collator_of(parse("g (int64[B] input_ids) => (int64[B] y) { y = Abs(input_ids) }"))
    assert next(Dataset("set", {"input_ids": np.array([7, 60, 8])}, collator=alone).batches(2))["input_ids"].tolist() == [7, 60]
    alone.require({"input_ids": np.array([7, 60, 8])}, "set", UsageError)  # nothing tells how many there are
    collator_of(averaging()).require({"input_ids": np.ones((2, 0), int)}, "set", UsageError)


def test_columns_that_are_no_tokens_stay_where_rows_are_made_even():
    collator = collator_of(
        parse("""g (int64[B,S] input_ids, int64[B] domain, float[B,2] other) => (float[B,2] y, int64[B,S] a, int64[B] b)
        { y = Relu(other)  a = Abs(input_ids)  b = Abs(domain) }""")
    )
    columns = {"input_ids": IDS[:3], "domain": np.array([1, 2, 3]), "other": np.ones((3, 2))}
    fed = list(Dataset("set", columns, keep=KEEP[:3], collator=collator).batches(3))
    assert [{name: array.shape for name, array in feeds.items()} for feeds in fed] == [
        {"input_ids": (1, 3), "domain": (1,), "other": (1, 2)},
        {"input_ids": (2, 5), "domain": (2,), "other": (2, 2)},
    ]


def test_without_a_mask_rows_of_a_batch_have_equally_many_tokens(tmp_path, wanted):
    """Nothing could tell the model which are padding: on the left, on the right or between."""
    model = averaging("int32[B,S] input_ids", mask="")
    for order in (slice(None), slice(None, None, -1), np.random.default_rng(1).permutation(8)):
        data = texts(model, ids=IDS[:, order], keep=KEEP[:, order])
        assert [len(feeds["input_ids"]) for feeds in data.batches(2)] == [1, 2, 1, 1, 1, 1]
        np.testing.assert_allclose(predictions(model, data, tmp_path, 2), wanted, rtol=1e-5, atol=1e-6)


def test_a_row_without_a_token_still_has_a_column():
    nothing = np.zeros((2, 4), bool)
    for model in (averaging(), averaging(mask="")):
        feeds = next(texts(model, ids=IDS[:2, :4], keep=nothing).batches(2))
        assert feeds["input_ids"].shape == (2, 1)


@pytest.mark.parametrize(
    ("first", "positions"), [({}, [[0, 1, 2, 3], [0, 1, 2, 3]]), ({"first": 2}, [[2, 3, 4, 1], [1, 2, 3, 1]])]
)
def test_positions_are_counted(first, positions):
    """From 0, or as RoBERTa counts real tokens, behind the id of padding."""
    model = averaging(positions="int32[B,S] position_ids")
    keep = np.array([[1, 1, 1, 0], [0, 1, 1, 0]], bool)
    data = texts(model, ids=IDS[:2, :4], keep=keep, **first)
    assert data.collator.longest == 20 - first.get("first", 0)
    feeds = next(replace(data, sizes=Sizes(length=4)).batches(2))
    assert feeds["position_ids"].tolist() == positions
    assert feeds["position_ids"].dtype == np.int32


def test_positions_without_rows():
    feeds = next(texts(averaging(positions="int64[S] position_ids")).batches(2))
    assert feeds["position_ids"].tolist() == [0, 1, 2, 3, 4]


def test_what_is_no_position():
    """A bias of positions is given, and the tables of ids tell no length."""
    model = parse("""g (int64[B,S] input_ids, float[B,S] position_bias, int64[B,S] position_ids) => (int64[B,S] a, float[B,S] b, int64[B,S] c)
        { a = Abs(input_ids)  b = Relu(position_bias)  c = Abs(position_ids) }""")
    assert collator_of(model).missing({"input_ids"}) == ["position_bias"]
    for other in (model, averaging()):
        assert collator_of(other).longest == LONGEST


def test_given_types_and_positions_are_taken():
    model = averaging(types="int64[B,S] segments", positions="int64[B,S] position_ids")
    columns = {
        "input_ids": IDS,
        "attention_mask": KEEP * 1,
        "token_type_ids": KEEP * 1,
        "position_ids": np.tile(np.arange(8)[::-1], (7, 1)),
    }
    feeds = next(Dataset("set", columns, collator=collator_of(model)).batches(2))
    assert feeds["segments"].tolist() == (KEEP[:2, :5] * 1).tolist()
    assert feeds["position_ids"].tolist() == [[7, 6, 5, 4, 3]] * 2


def test_two_inputs_of_one_role_go_by_their_own_names():
    model = averaging(types="int64[B,S] other_ids")
    collator = collator_of(model)
    assert collator.missing({"input_ids", "attention_mask"}) == ["other_ids"]
    other = averaging("int64[B,S] a", types="int64[B,S] b")
    assert collator_of(other).missing({"input_ids", "attention_mask"}) == ["a", "b"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"input_ids": np.full((2, 3), 50)}, "set: input_ids holds 50, and bert.onnx knows 0 to 49 as input_ids"),
        ({"input_ids": np.array([[-1, 0]])}, "input_ids holds -1"),
        (
            {"input_ids": IDS, "token_type_ids": np.full((7, 8), 3)},
            "token_type_ids holds 3, and bert.onnx knows 0 to 2 as token_type_ids",
        ),
        ({"input_ids": IDS[0]}, r"input_ids has rows of shape \[\], bert.onnx takes length as input_ids"),
        ({"input_ids": IDS, "attention_mask": np.ones((7, 8, 2))}, r"attention_mask has rows of shape \[8, 2\]"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns, words):
    collator = collator_of(averaging(types="int64[B,S] token_type_ids"), name="bert.onnx")
    with pytest.raises(UsageError, match=words):
        collator.require(columns, "set", UsageError)


def test_images_come_under_their_own_name_or_hugging_faces():
    collator = collator_of(parse("g (float[2,3,8,8] image) => (float[2,3,8,8] y) { y = Relu(image) }"))
    collator.require({"pixel_values": np.zeros((5, 3, 8, 8))}, "set", UsageError)
    with pytest.raises(UsageError, match=r"pixel_values has rows of shape \[3\], the model takes 3, 8, 8 as image"):
        collator.require({"pixel_values": np.zeros((5, 3))}, "set", UsageError)
    data = Dataset("set", {"pixel_values": np.arange(5.0)[:, None, None, None] * np.ones((3, 8, 8))}, collator=collator)
    fed = list(data.batches(9))
    assert [set(feeds) for feeds in fed] == [{"image"}] * 3
    assert {feeds["image"].dtype for feeds in fed} == {np.dtype(np.float32)}
    assert [feeds["image"][:, 0, 0, 0].tolist() for feeds in fed] == [
        [0, 1],
        [2, 3],
        [4, 4],
    ]  # the last is repeated, and not judged
    assert [batch.rows for batch in data.judged(9)] == [2, 2, 1]
    numbers = collator_of(parse("g (float[B,4] x) => (float[B,4] y) { y = Relu(x) }"))
    assert numbers.missing({"pixel_values"}) == ["x"]


def test_what_follows_from_tokens_needs_tokens():
    collator = collator_of(averaging("float[B,S] x", mask="", types="int64[B,S] token_type_ids"))
    with pytest.raises(ModelError, match="the model takes token_type_ids, which follows from ids or a mask"):
        next(Dataset("set", {"x": np.ones((2, 3))}, collator=collator).batches(2))


def test_models_have_common_sizes_or_are_refused():
    collators = [
        collator_of(
            averaging(f"int64[{batch},{length}] input_ids", f"int64[{batch},{length}] attention_mask"), name=f"{batch}x{length}"
        )
        for batch, length in (("B", "S"), (1, "S"), ("B", 16), (1, 8))
    ]
    assert Sizes.common(collators[:3]) == Sizes(1, 16)
    assert Sizes.common([collators[0], collator_of(averaging(mask=""))]) == Sizes(even=True)
    with pytest.raises(ModelError, match="the models take no common length, which they must to be compared: Bx16 16, 1x8 8"):
        Sizes.common(collators)


def test_no_data_is_no_prompt():
    model = averaging()
    model.graph.inputs.append(ir.Value(name="prompt_length", shape=ir.Shape(["B"]), type=ir.TensorType(ir.DataType.INT64)))
    assert collator_of(model).missing(["input_ids", "attention_mask"]) == []
    assert next(texts(model).batches(3))["prompt_length"].tolist() == [0, 0, 0]
    columns = {"input_ids": IDS, "attention_mask": KEEP * 1, "prompt_length": np.arange(len(IDS))}
    feeds = list(Dataset("set", columns, collator=collator_of(model)).batches(3))
    assert sorted(np.concatenate([each["prompt_length"] for each in feeds]).tolist()) == list(range(len(IDS)))
