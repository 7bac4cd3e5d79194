"""The judge: it must fail for one nudged weight, and refuse to compare nothing."""

import numpy as np
import pytest

from onnxfuse import parity, samples
from onnxfuse.errors import ModelError, ParityError
from onnxfuse.samples import Case
from tests.conftest import parse

CASES = [Case("one", {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}), Case("two", {"x": np.ones((2, 4), np.float32)})]


def model(weight=2.0, offset=0.0):
    return lambda feeds: {"y": feeds["x"] * weight + offset}


def compare(run, kind="reassociate", cases=CASES):
    return parity.compare(parity.reference(model(), cases), run, kind)


def test_equal_models_pass():
    result = compare(model())
    assert result.passed
    assert result.error == 0.0
    assert result.differences[0].compared == 20


def test_a_nudged_weight_fails():
    assert compare(model(2.0 * (1 + 5e-6))).passed
    result = compare(model(2.0 * (1 + 2e-5)))
    assert not result.passed
    with pytest.raises(ParityError, match=r"off by 2\.0.e-05 .* on one"):
        result.require("nudged")


def test_exact_allows_nothing():
    assert compare(model(), "exact").passed
    assert not compare(model(2.0 * (1 + 2e-7)), "exact").passed


def test_int8_is_judged_by_cosine_without_the_common_offset():
    assert compare(model(2.01), "int8").passed
    rng = np.random.default_rng(0)
    assert not compare(lambda feeds: {"y": feeds["x"] * 2 + 8 * rng.standard_normal(feeds["x"].shape)}, "int8").passed
    far = [Case(case.name, {"x": case.feeds["x"] + 1e4}) for case in CASES]
    assert not compare(lambda feeds: {"y": np.full_like(feeds["x"], 2e4)}, "int8", far).passed


def test_outputs_that_are_not_finite_fail():
    def broken(feeds):
        y = feeds["x"] * 2
        y[0, 0] = np.nan
        return {"y": y}
    assert "not finite" in compare(broken).failures[0]


def test_a_row_without_tokens_must_be_finite_but_not_equal():
    case = Case("empty", {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}, finite_only=1)

    def other(value):
        def run(feeds):
            y = feeds["x"] * 2
            y[1] = value
            return {"y": y}
        return run
    assert compare(other(99.0), cases=[case]).passed
    assert not compare(other(np.inf), cases=[case]).passed


@pytest.mark.parametrize(("reference", "match"), [
    (lambda feeds: {"y": np.ones((2, 2))}, "constant"),
    (lambda feeds: {"y": np.full((2, 2), np.nan)}, "not finite"),
    (lambda feeds: {"y": np.ones((0, 2))}, "nothing was compared"),
])
def test_a_comparison_that_cannot_fail_is_an_error(reference, match):
    with pytest.raises(ParityError, match=match):
        parity.compare(parity.reference(reference, CASES), reference, "reassociate")


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ParityError, match="the grid is empty"):
        parity.compare([], model(), "reassociate")


def test_other_outputs_or_shapes_are_an_error():
    with pytest.raises(ParityError, match="the outputs are"):
        compare(lambda feeds: {"z": feeds["x"]})
    with pytest.raises(ParityError, match="has shape"):
        compare(lambda feeds: {"y": feeds["x"][:1]})


TEXT = """g (int64[B,S] input_ids, int64[B,S] attention_mask, int64[B,S] token_type_ids, float[9,4] words, float[2,4] types)
    => (float[B,S,4] y) { a = Gather(words, input_ids)  b = Gather(types, token_type_ids)  y = Add(a, b) }"""


def test_a_profile_is_read_off_the_graph():
    from tests.conftest import fill
    profile = samples.profile_of(fill(parse(TEXT), words=(9, 4), types=(2, 4)), {"max_position_embeddings": 32})
    assert [(i.role, i.high) for i in profile.inputs] == [("ids", 9), ("mask", 2), ("types", 2)]
    assert profile.longest == 32
    names = [case.name for case in samples.grid(profile)]
    assert "batch 3, length 32, mask right" in names
    assert len(names) == len(set(names)) == 12
    for case in samples.grid(profile):
        assert case.feeds["input_ids"].max() < 9
        assert ((case.feeds["attention_mask"].sum(axis=1) == 0) == (np.arange(len(case.feeds["input_ids"])) == case.finite_only)).all()


@pytest.mark.parametrize("kind", ["right", "left", "holes"])
def test_masks_drop_something_and_keep_something(kind):
    mask = samples.mask_of(kind, 3, 7)
    assert (mask.sum(axis=1) > 0).all()
    assert (mask.sum(axis=1) < 7).all()


def test_inputs_without_a_type_are_refused():
    with pytest.raises(ModelError, match="wanted numbers"):
        samples.profile_of(parse("g (string[B] x) => (string[B] y) { y = Identity(x) }"))
