"""What people give a model: by position or name, of any type that loses nothing; all else is refused in one line."""

import ml_dtypes
import numpy as np
import pytest

from onnxfuse.errors import UsageError
from onnxfuse.runtime.feeds import Input, feeds_for, inputs_of
from tests.conftest import parse

INT64, FLOAT = np.dtype(np.int64), np.dtype(np.float32)
TWO = {name: Input(INT64, ("batch", "length")) for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (([[1, 2]], [[1, 0]]), {}),
        (([[1, 2]],), {"attention_mask": [[1, 0]]}),
        ((), {"attention_mask": np.array([[1, 0]], np.int32), "input_ids": np.array([[1, 2]], np.uint8)}),
        ((), {"attention_mask": [[True, False]], "input_ids": ((1, 2),)}),
    ],
)
def test_inputs_come_by_position_or_name_in_the_models_order(args, kwargs):
    feeds = feeds_for(TWO, *args, **kwargs)
    assert list(feeds) == list(TWO)
    for name, wanted in (("input_ids", [[1, 2]]), ("attention_mask", [[1, 0]])):
        assert feeds[name].dtype == np.int64
        assert feeds[name].tolist() == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.array([0.5, np.inf, np.nan]), np.float32),
        ([0.5, 2.0], np.float16),
        ([1, 2], np.float32),
        ([True, False], np.float32),
        ([0.5], ml_dtypes.bfloat16),
        (np.array([0.5], ml_dtypes.bfloat16), np.float32),
        ([0, 255], np.uint8),
        (np.array([7], np.uint64), np.int32),
        ([], np.float32),
        ([], np.int64),
        (["a", "bc"], np.dtype(object)),
    ],
)
def test_what_loses_nothing_is_cast(given, wanted):
    found = feeds_for({"x": Input(np.dtype(wanted))}, given)["x"]
    assert found.dtype == np.dtype(wanted)
    np.testing.assert_array_equal(found, np.asarray(given).astype(wanted))


def test_an_array_of_the_right_type_is_not_copied():
    x = np.ones(3, np.float32)
    assert feeds_for({"x": Input(FLOAT)}, x)["x"] is x


class Gradient:
    """What a torch tensor that needs gradients does."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs", "words"),
    [
        (TWO, ([[1.5]],), {"attention_mask": [[1]]}, "input input_ids is float64, wanted int64; give it in that type"),
        ({"x": Input(np.dtype(bool))}, ([1],), {}, "input x is int64, wanted bool"),
        ({"x": Input(FLOAT)}, (["a"],), {}, "input x is <U1, wanted float32"),
        ({"x": Input(np.dtype(object))}, ([1],), {}, "input x is int64, wanted object"),
        ({"x": Input(FLOAT)}, ([1j],), {}, "input x is complex128, wanted float32"),
        ({"x": Input(np.dtype(np.uint8))}, ([0, 256],), {}, "input x has numbers from 0 to 256, and uint8 cannot hold them all"),
        ({"x": Input(np.dtype(np.uint8))}, ([-1],), {}, "input x has numbers from -1 to -1, and uint8 cannot"),
        ({"x": Input(np.dtype(np.float16))}, ([1e6],), {}, "input x has numbers from 1000000.0 to 1000000.0, and float16 cannot"),
        ({"x": Input(FLOAT)}, ([[1.0], [1.0, 2.0]],), {}, "input x cannot be read as an array"),
        ({"x": Input(FLOAT)}, (Gradient(),), {}, "input x cannot be read as an array: Can't call numpy.*grad.$"),
        (TWO, ([[1]],), {}, "the model needs attention_mask; got input_ids"),
        (TWO, (), {}, "the model needs input_ids, attention_mask; got nothing"),
        (TWO, (1, 2, 3), {}, "3 inputs are given, the model takes 2: input_ids, attention_mask"),
        (TWO, ([[1]],), {"input_ids": [[1]], "attention_mask": [[1]]}, "input input_ids is given twice, by position and by name"),
        (TWO, (), {"ids": [[1]], "input_ids": [[1]]}, "the model has no input ids; it takes input_ids, attention_mask"),
        (
            {"token_type_ids": TWO["input_ids"]},
            (),
            {},
            "the model needs token_type_ids; got nothing; zeros do for token_type_ids$",
        ),
        (TWO, ([1], [1]), {}, r"input input_ids has shape \[1\], wanted \[batch, length\]$"),
        (
            TWO,
            ([[1, 1], [1, 1]], [[1, 1]]),
            {},
            r"attention_mask has shape \[1, 2\] and input_ids \[2, 2\]: batch must be one number$",
        ),
        (TWO, ([[1, 1]], [[1]]), {}, r"attention_mask has shape \[1, 1\] and input_ids \[1, 2\]: length must be one number$"),
        (TWO, ([[]], [[]]), {}, r"input input_ids has shape \[1, 0\], which holds nothing; give at least one of each$"),
        (TWO, ([np.zeros((0, 2), int)] * 2), {}, r"input input_ids has shape \[0, 2\], which holds nothing"),
        ({"x": Input(FLOAT, (None, 3))}, ([[1.0]],), {}, r"input x has shape \[1, 1\], wanted \[any, 3\]$"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(inputs, args, kwargs, words):
    with pytest.raises(UsageError, match=words) as caught:
        feeds_for(inputs, *args, **kwargs)
    assert "\n" not in str(caught.value)


def test_what_a_model_declares_as_empty_may_be():
    assert feeds_for({"x": Input(FLOAT, (0, "n"))}, np.zeros((0, 2)))["x"].shape == (0, 2)


def test_what_tokenizers_give_beside_is_passed_over():
    feeds = feeds_for(TWO, [[1]], [[1]], token_type_ids=[[0]], offset_mapping=[[(0, 1)]])
    assert list(feeds) == list(TWO)


def test_what_a_graph_declares_leaves_weights_out():
    model = parse("g (int64[B,3] ids, float[] x, float[4] w) => (float[B] y) <float[4] w = {1, 2, 3, 4}> { y = Identity(x) }")
    assert inputs_of(model.graph.inputs) == {"ids": Input(INT64, ("B", 3)), "x": Input(FLOAT, None)}


def test_a_prompts_length_is_one_number_or_each_rows_or_nothing():
    model = TWO | {"prompt_length": Input(INT64, ("batch",))}
    ids = [[1, 2], [3, 4], [5, 6]]
    for given, wanted in (({}, [0, 0, 0]), ({"prompt_length": 2}, [2, 2, 2]), ({"prompt_length": [0, 1, 2]}, [0, 1, 2])):
        feeds = feeds_for(model, ids, ids, **given)
        assert (feeds["prompt_length"].tolist(), feeds["prompt_length"].dtype) == (wanted, np.int64)
    assert "prompt_length" not in feeds_for(TWO, ids, ids, prompt_length=2), "it pools prompts too"
    with pytest.raises(UsageError, match=r"prompt_length has shape \[2\] and input_ids \[3, 2\]: batch must be one number"):
        feeds_for(model, ids, ids, prompt_length=[1, 2])
    with pytest.raises(UsageError, match="the model needs attention_mask; got input_ids"):
        feeds_for(model, ids)
