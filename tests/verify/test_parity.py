"""The judge: it must fail for one nudged weight, in any kind of output, and refuse to compare nothing."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError, ParityError
from onnxfuse.pipeline.optimize import kind_of
from onnxfuse.verify import parity
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import Case
from onnxfuse.verify.tolerances import TOLERANCES
from onnxfuse.verify.verdict import compare_files
from tests.conftest import fill, parse

CASES = [Case("one", {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}), Case("two", {"x": np.ones((2, 4), np.float32)})]


def model(weight=2.0, offset=0.0):
    return lambda feeds: {"y": feeds["x"] * np.float32(weight) + np.float32(offset)}


def compare(run, kind="reassociate", cases=CASES):
    return parity.compare(expect(model(), cases), run, kind)


def of(*arrays):
    """A model that answers with these arrays, one for each case, under the name y."""
    answers = {case.name: array for case, array in zip(CASES, arrays, strict=False)}
    return lambda feeds: {"y": answers[next(case.name for case in CASES if case.feeds is feeds)]}


def against(wanted, got, kind="reassociate", cases=1):
    """The parity of outputs with a reference's: arrays, or lists of one for each case."""
    wanted, got = (side if isinstance(side, list) else [side] for side in (wanted, got))
    return parity.compare(expect(of(*wanted), CASES[: len(wanted)]), of(*got), kind)


# Numbers ---------------------------------------------------------------------------------------------------------


def test_equal_models_pass():
    result = compare(model())
    assert result.passed
    assert result.require("never said") is result
    assert (result.error, result.cosine) == (0.0, pytest.approx(1))
    difference = result.differences[0]
    assert (difference.compared, difference.equal, difference.element, difference.agreement, difference.varies) == (
        20,
        1,
        0,
        1,
        True,
    )


def test_a_nudged_weight_fails():
    assert compare(model(2.0 * (1 + 5e-6))).passed
    result = compare(model(2.0 * (1 + 2e-5)))
    assert not result.passed
    with pytest.raises(
        ParityError, match=r"^nudged: output 'y' is off by 2\.0.e-05 of its largest number on one, allowed 1e-05$"
    ):
        result.require("nudged")
    with pytest.raises(ParityError, match="allowed 1e-05; it was not written"):
        result.require("nudged", "it was not written")


@pytest.mark.parametrize(
    ("kind", "passes", "fails"),
    [("exact", 0.0, 2e-7), ("reassociate", 9e-6, 1.1e-5), ("half", 9e-3, 1.1e-2), ("bfloat16", 7.9e-2, 8.1e-2)],
)
def test_each_row_allows_so_much_of_the_largest_number(kind, passes, fails):
    assert compare(model(2.0 * (1 + passes)), kind).passed
    assert not compare(model(2.0 * (1 + fails)), kind).passed


@pytest.mark.parametrize(
    ("kind", "passes", "fails"), [("reassociate", 9e-4, 1.1e-3), ("half", 0.24, 0.26), ("bfloat16", 0.49, 0.51)]
)
def test_a_huge_number_hides_no_other(kind, passes, fails):
    """The largest is 1e6 times as large as the others: relative to it, they might be anything."""
    wanted = np.array([[1e6, 1, 1.5, -2]], np.float32)

    def off(by):
        return wanted + np.array(
            [[0, by * 1.5, 0, 0]], np.float32
        )  # 1.5: the typical number, the lower one of both in the middle

    assert against(wanted, off(passes), kind).passed
    result = against(wanted, off(fails), kind)
    assert "where the reference is 1 on one" in result.failures[0]
    assert f"allowed {TOLERANCES[kind].element:.0e}" in result.failures[0]


@pytest.mark.parametrize("second", [0.25, 0.5])
def test_the_worst_number_of_all_cases_is_named(second):
    wanted = [np.array([[1e6, 1, 1, 1]], np.float32)] * 2
    got = [wanted[0] + np.array([[0, by, 0, 0]], np.float32) for by in (0.5, second)]
    assert against(wanted, got).failures == (
        "output 'y' is 1.5 where the reference is 1 on one, which is 5.00e-01 of a typical number or of itself, allowed 1e-03",
    )


def test_of_cases_that_are_equally_far_off_the_first_is_named():
    assert compare(lambda feeds: {"y": feeds["x"] * 2 + 1}).differences[0].worst == "one"
    assert against([np.arange(4)] * 2, [np.arange(4) // 3 * 3] * 2).differences[0].worst == "one"


def test_small_numbers_are_held_to_the_typical_one():
    """A number that happens to be near zero carries the rounding of the others."""
    wanted = np.array([[1.0, -2.0, 1e-9, 1.5]], np.float32)
    assert against(wanted, wanted + np.array([[0, 0, 5e-6, 0]], np.float32)).passed


def test_the_typical_number_is_none_of_many_zeros():
    wanted = np.zeros((3, 4), np.float32)
    wanted[0] = 1e6, 1, 1, 1
    got = wanted.copy()
    got[1, 1] = 0.5
    assert "is 0.5 where the reference is 0" in against(wanted, got).failures[0]
    got[1, 1] = 1e-6
    assert against(wanted, got).passed


def test_the_error_is_of_the_largest_over_all_cases():
    assert compare(lambda feeds: {"y": feeds["x"] * 2 + np.float32(1e-4)}).error == pytest.approx(1e-4 / 22, rel=1e-2)


# Cosine ----------------------------------------------------------------------------------------------------------


def test_int8_is_judged_by_cosine_without_the_common_offset():
    assert compare(model(2.01), "int8").passed
    rng = np.random.default_rng(0)
    assert not compare(
        lambda feeds: {"y": feeds["x"] * 2 + 8 * rng.standard_normal(feeds["x"].shape).astype(np.float32)}, "int8"
    ).passed
    far = [Case(case.name, {"x": case.feeds["x"] + 1e3}) for case in CASES]
    assert not compare(lambda feeds: {"y": np.full_like(feeds["x"], 2e3)}, "int8", far).passed


@pytest.mark.parametrize(("noise", "passes"), [(0.19, True), (0.22, False)])
def test_the_bar_of_int8(noise, passes):
    """Of independent noise with a share s of the spread, the cosine is 1 / sqrt(1 + s**2): 0.98 at 0.203."""
    rng = np.random.default_rng(0)
    wanted = rng.standard_normal((100, 100)).astype(np.float32)
    result = against(wanted, wanted + np.float32(noise) * rng.standard_normal((100, 100)).astype(np.float32), "int8")
    assert result.passed == passes
    assert result.cosine == pytest.approx(1 / np.sqrt(1 + noise**2), abs=1e-3)
    assert passes or "has cosine 0.97" in result.failures[0]


def test_the_cosine_is_over_all_cases():
    """Each case alone has one direction; together they have another."""
    wanted = [np.array([[1.0, 2.0]], np.float32), np.array([[-1.0, -2.0]], np.float32)]
    assert not against(wanted, [wanted[0], -wanted[1]], "int8").passed


def test_fillers_do_not_decide_the_cosine():
    """Logits of -1e4 at padding make any model's cosine 1; those of the tokens must agree by themselves."""
    rng = np.random.default_rng(0)
    wanted = rng.standard_normal((4, 10)).astype(np.float32)
    wanted[:, 7:] = -1e4
    other = np.where(wanted < -100, wanted, rng.standard_normal((4, 10))).astype(np.float32)
    result = against(wanted, other, "int8")
    assert not result.passed
    assert against(wanted, wanted + np.float32(1e-3), "int8").passed
    lost = np.where(wanted < -100, 0, wanted).astype(np.float32)
    assert not against(wanted, lost, "int8").passed


@pytest.mark.parametrize(("size", "ordinary"), [(90, True), (110, False)])
def test_numbers_a_hundred_times_as_large_as_the_others_are_judged_apart(size, ordinary):
    """Smaller ones are outputs like any other, and may decide the cosine."""
    rng = np.random.default_rng(0)
    wanted, got = (rng.choice(np.array([-1, 1], np.float32), (4, 10)) for _ in range(2))
    wanted[:, 7:] = got[:, 7:] = -size
    assert against(wanted, got, "int8").passed == ordinary


def test_what_lies_at_the_mean_of_the_reference_has_no_direction():
    result = against(VARYING, np.full_like(VARYING, VARYING.mean()), "int8")
    assert result.failures == ("output 'y' has cosine 0.0000, wanted at least 0.98",)


def test_numbers_whose_squares_are_too_large_have_no_direction():
    huge = VARYING.astype(np.float64) * 1e200
    with np.errstate(over="ignore"):
        assert against(huge, huge, "int8").cosine == 0


def test_fillers_beside_numbers_that_are_constant():
    wanted = np.array([[3, 3, -1e4], [3, -1e4, -1e4]], np.float32)
    assert against(wanted, wanted * np.float32(1.001), "int8").passed


# Types, counts and texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TOLERANCES)
@pytest.mark.parametrize(
    ("wanted", "got"),
    [(np.int64, np.float32), (np.float32, np.float64), (np.int64, np.int32), (np.bool_, np.int64), (np.float32, np.float16)],
)
def test_another_type_fails_in_every_kind(kind, wanted, got):
    numbers = np.array([[0, 1, 1, 0]])
    result = against(numbers.astype(wanted), numbers.astype(got), kind)
    assert f"output 'y' has type {np.dtype(got)}, wanted {np.dtype(wanted)}" in result.failures


def test_texts_in_place_of_numbers_fail():
    texts = np.array([["a", "b"]], object)
    assert against(VARYING[:1, :2], texts).failures == ("output 'y' has type object, wanted float32",)


def test_what_is_wrong_in_all_cases_is_said_once():
    assert against([VARYING] * 2, [VARYING.astype(np.float64)] * 2).failures == ("output 'y' has type float64, wanted float32",)


def changed(array, share):
    """``array`` with the first part of its items as others."""
    other = array.copy().reshape(-1)
    count = round(len(other) * share)
    other[:count] = np.roll(other, 1)[:count]
    return other.reshape(array.shape)


ITEMS = {
    "counts": np.arange(100).reshape(10, 10),
    "truth values": np.arange(100).reshape(10, 10) % 2 == 0,
    "texts": np.array([f"label {number}" for number in range(100)], dtype=object).reshape(10, 10),
}


@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize(
    ("kind", "passes", "fails"),
    [
        ("exact", 0, 0.01),
        ("reassociate", 0, 0.01),
        ("half", 0, 0.01),
        ("bfloat16", 0, 0.01),
        ("int8", 0.1, 0.11),
        ("finite", 1, None),
    ],
)
def test_counts_truth_values_and_texts_are_equal_or_not(items, kind, passes, fails):
    result = against(items, changed(items, passes), kind)
    assert result.passed
    assert result.error == pytest.approx(passes)
    assert result.cosine == result.differences[0].equal == pytest.approx(1 - passes)
    if fails is not None:
        result = against(items, changed(items, fails), kind)
        assert result.failures == (
            f"output 'y' is equal in {1 - fails:.2%} of 100, wanted {TOLERANCES[kind].equal:.0%}; most differ on one",
        )


def test_the_case_with_most_unequal_items_is_named():
    numbers = [np.arange(4), np.arange(4)]
    assert "most differ on two" in against(numbers, [np.array([0, 1, 2, 4]), np.arange(4) + 1]).failures[0]


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_scalars_are_compared(dtype):
    wanted = [np.asarray(3, dtype), np.asarray(5, dtype)]
    assert against(wanted, wanted).passed
    assert not against(wanted, [np.asarray(3, dtype), np.asarray(6, dtype)]).passed
    assert expect(lambda feeds: {"y": np.float32(3)}, CASES[:1])[0].outputs["y"].shape == ()


@pytest.mark.parametrize("answer", [[np.ones(3)], {"a": 1}])
def test_sequences_and_maps_are_refused(answer):
    with pytest.raises(ModelError, match=f"output 'y' is a {type(answer).__name__}, wanted a tensor"):
        expect(lambda feeds: {"y": answer}, CASES)


def test_agreement_counts_rows_whose_largest_number_stays():
    wanted = np.array([[1, 2, 3], [3, 2, 1], [1, 3, 2], [5, 6, 7]], np.float32)
    got = wanted.copy()
    got[0] = 3, 2, 1
    assert against(wanted, got, "int8").differences[0].agreement == 0.75
    assert (
        against([wanted, wanted[:, :1]], [got, got[:, :1]], "finite").differences[0].agreement == 0.75
    )  # a single number is no choice
    assert against(wanted[:, :1], wanted[:, :1], "int8").differences[0].agreement == 1.0
    assert against(wanted[0], got[0], "finite").differences[0].agreement == 1.0  # no rows


# What does not vary ----------------------------------------------------------------------------------------------

VARYING = np.arange(12, dtype=np.float32).reshape(3, 4)


def both(constant):
    return lambda feeds: {"y": feeds["x"] * 2, "scale": constant}


@pytest.mark.parametrize("kind", ["exact", "reassociate", "int8"])
@pytest.mark.parametrize(
    "constant",
    [
        np.float32(2.6),
        np.zeros(3, np.float32),
        np.array(["a", "b"], object),
        np.arange(4),
        np.full((2, 2), np.nan, np.float32),
        np.ones((0, 2), np.float32),
        np.ones((2, 0), np.float32),
    ],
)
def test_an_output_that_does_not_vary_passes_when_it_is_equal(kind, constant):
    expected = expect(both(constant), CASES)
    assert parity.compare(expected, both(constant), kind).passed


@pytest.mark.parametrize("kind", ["exact", "reassociate", "int8"])
@pytest.mark.parametrize(("constant", "other"), [(2.6, 2.61), (0.0, 1e-4), (np.nan, 1.0), (1.0, np.nan), (np.inf, -np.inf)])
def test_and_fails_when_it_is_not(kind, constant, other):
    expected = expect(both(np.float32(constant)), CASES)
    result = parity.compare(expected, both(np.float32(other)), kind)
    assert "output 'scale' " in result.failures[0]


def test_bars_ask_an_output_that_does_not_vary_only_to_be_finite():
    expected = expect(both(np.float32(2)), CASES)
    assert parity.compare(expected, both(np.float32(3)), "finite").passed
    assert not parity.compare(expected, both(np.float32(np.inf)), "finite").passed


@pytest.mark.parametrize(
    "answer",
    [
        np.ones((2, 2), np.float32),
        np.full((2, 2), np.nan, np.float32),
        np.ones((0, 2), np.float32),
        np.full(3, 7),
        np.array(["a"], object),
        np.float32(1000) + np.arange(4, dtype=np.float32) * np.float32(1e-3),
    ],
)
def test_a_comparison_that_cannot_fail_is_an_error(answer):
    with pytest.raises(ParityError, match=r"none of the reference's outputs varies over the inputs \(y\)"):
        against(answer, answer)


def test_what_counts_as_constant_is_what_the_tolerance_allows():
    wanted = np.float32(1000) + np.arange(4, dtype=np.float32) * np.float32(0.1)
    for kind in ("exact", "reassociate", "int8"):
        assert against(wanted, wanted, kind).differences[0].varies
    with pytest.raises(ParityError, match="none of the reference's outputs varies"):
        against(wanted, wanted, "half")


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ParityError, match="the grid is empty"):
        parity.compare([], model(), "reassociate")
    with pytest.raises(ParityError, match="the reference has no outputs"):
        parity.compare(expect(lambda feeds: {}, CASES), lambda feeds: {}, "reassociate")


def test_other_outputs_or_shapes_are_an_error():
    with pytest.raises(ParityError, match="there is no output 'y', which the reference has; there is 'z'"):
        compare(lambda feeds: {"z": feeds["x"]})
    with pytest.raises(ParityError, match="there is no output 'y', which the reference has; there is none"):
        compare(lambda feeds: {})
    with pytest.raises(ParityError, match="there is an output 'z', which the reference has not"):
        compare(lambda feeds: model()(feeds) | {"z": feeds["x"]})
    with pytest.raises(ParityError, match=r"has shape \[2, 4\] on one, wanted \[3, 4\]"):
        compare(lambda feeds: {"y": feeds["x"][:2]})


# What is not finite ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TOLERANCES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_fail_in_every_kind(kind, value):
    got = VARYING.copy()
    got[0, 0] = value
    assert "output 'y' is not finite on one" in against(VARYING, got, kind).failures


@pytest.mark.parametrize(
    ("value", "other", "passes"),
    [(np.nan, np.nan, True), (np.inf, np.inf, True), (np.inf, -np.inf, False), (np.nan, np.inf, False), (np.nan, 1.0, False)],
)
def test_where_the_reference_is_not_finite_neither_may_be_finite(value, other, passes):
    wanted, got = VARYING.copy(), VARYING.copy()
    wanted[0, 0], got[0, 0] = value, other
    result = against(wanted, got)
    assert result.passed == passes
    assert result.differences[0].compared == 11
    if other == 1.0:
        assert result.failures == ("output 'y' is finite on one where the reference is not",)


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_a_reference_that_is_another_each_time_is_refused(kind):
    rng = np.random.default_rng(0)
    with pytest.raises(
        ModelError, match=r"output 'y' of the original is another each time for the same inputs.*random operators"
    ):
        expect(lambda feeds: {"y": (feeds["x"] + 9 * rng.random(feeds["x"].shape)).astype(kind)}, CASES)


def test_a_reference_of_another_size_each_time_is_refused():
    sizes = iter(range(1, 9))
    with pytest.raises(ModelError, match="output 'y' of the original is another each time"):
        expect(lambda feeds: {"y": np.ones(next(sizes) + 1, np.float32)}, CASES)


@pytest.mark.parametrize("noise", [1e-7, 9e-6])
def test_rounding_of_the_reference_is_no_other_answer(noise):
    rng = np.random.default_rng(0)

    def noisy(feeds):
        return {"y": feeds["x"] * (1 + noise * rng.random(feeds["x"].shape)).astype(np.float32), "z": np.array([np.nan])}

    assert len(expect(noisy, CASES)) == 2


def test_the_reference_runs_once_for_each_case_and_the_first_again():
    seen = []
    expect(lambda feeds: seen.append(len(feeds["x"])) or {"y": feeds["x"]}, CASES)
    assert seen == [3, 3, 2]


# A row without a token -------------------------------------------------------------------------------------------

ROWS = np.arange(24, dtype=np.float32).reshape(3, 8)
LAST = ROWS.copy()
LAST[2] += 1
EMPTY = Case(
    "empty",
    {"x": ROWS, "mask": np.array([[1], [1], [0]])},
    twins=({"x": ROWS, "mask": np.ones((3, 1))}, {"x": LAST, "mask": np.ones((3, 1))}),
)

LAYOUTS = {
    "rows first": lambda x: x,
    "flat": lambda x: x.reshape(-1),
    "rows second": lambda x: x.T,
    "stacked": lambda x: np.stack([x, x * 2]),
    "one number a row": lambda x: x.sum(axis=1),
}


def laid_out(layout, of_empty=None):
    """A model whose row without a token is ``of_empty``."""

    def run(feeds):
        x = feeds["x"].copy()
        if of_empty is not None:
            x[(feeds["mask"] == 0).any(axis=1)] = of_empty
        return {"y": layout(x)}

    return run


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_row_without_tokens_must_be_finite_but_not_equal(layout):
    expected = expect(laid_out(layout), [EMPTY])
    result = parity.compare(expected, laid_out(layout, 99.0), "reassociate")
    assert result.passed, result.failures
    assert 0 < result.differences[0].compared < layout(ROWS).size
    assert result.differences[0].compared + result.differences[0].free == layout(ROWS).size
    assert not parity.compare(expected, laid_out(layout, np.inf), "reassociate").passed
    assert not parity.compare(expected, lambda feeds: {"y": layout(feeds["x"] + 1)}, "reassociate").passed


def test_a_row_without_tokens_may_stay_not_a_number():
    expected = expect(laid_out(lambda x: x, np.nan), [EMPTY])
    for value in (np.nan, 99.0):
        assert parity.compare(expected, laid_out(lambda x: x, value), "reassociate").passed


def test_what_does_not_depend_on_the_row_is_compared():
    """An output over all rows is free; one of the others is not, nor is any in another case."""

    def run(feeds):
        return {"all": feeds["x"].sum(), "others": feeds["x"][:2]}

    expected = expect(run, [EMPTY, Case("full", {"x": LAST})])
    assert expected[0].free["all"].all()
    assert not expected[0].free["others"].any()
    assert expected[1].free == {}
    assert not parity.compare(expected, lambda feeds: run(feeds) | {"all": feeds["x"].sum() + 1}, "reassociate").passed


def test_an_output_whose_size_depends_on_the_tokens_is_free_in_that_case():
    """One row for each real token: the twins have more, and tell nothing."""

    def run(feeds):
        return {"y": feeds["x"][feeds["mask"][:, 0] > 0]}

    expected = expect(run, [EMPTY, Case("full", EMPTY.twins[0])])
    assert expected[0].free["y"].all()
    assert parity.compare(expected, run, "reassociate").passed


def test_free_items_are_not_compared():
    expected = expect(lambda feeds: {"y": feeds["x"].astype(np.int64)}, [EMPTY])
    result = parity.compare(expected, lambda feeds: {"y": laid_out(lambda x: x, 5)(feeds)["y"].astype(np.int64)}, "exact")
    assert result.passed
    assert result.differences[0].compared == 16


@pytest.mark.parametrize(
    "of", [lambda x: x > 20, lambda x: x.reshape(3, 2, 4).astype(int) * np.array([[0], [1]])], ids=["rows", "stacked rows"]
)
def test_items_of_which_only_a_part_of_the_row_differs_are_all_free(of):
    """The others may be equal by chance."""
    expected = expect(lambda feeds: {"y": of(feeds["x"])}, [EMPTY])
    assert expected[0].free["y"].all()


@pytest.mark.parametrize(
    "reduce",
    [lambda x: x.argmax(axis=1), np.max, np.min, lambda x: (x > 0).all(axis=1)],
    ids=["largest class", "largest number", "smallest number", "truth"],
)
def test_what_may_hang_on_the_row_without_tokens_is_free(reduce):
    """The twins may agree by chance; a class or a largest number still changes where the row has no token."""

    def run(of_empty, sign=1):
        found = laid_out(lambda x: np.asarray(reduce(sign * x)), of_empty)
        return lambda feeds: found(feeds) | {"x": feeds["x"]}

    falling = np.arange(8, 0, -1, dtype=np.float32)
    expected = expect(run(100 + falling), [EMPTY, Case("full", EMPTY.twins[0])])
    assert parity.compare(expected, run(-falling), "exact").passed
    assert not parity.compare(expected, run(-falling, sign=-1), "exact").passed


# Padding on the left of a causal model --------------------------------------------------------------------------

CAUSAL = """g (int64[B,S] input_ids, int64[B,S] attention_mask, float[50,8] words, float[8,8] v) => (float[B,S,8] y) <
    int64 zero = {0}, float low = {-30000}, float nothing = {0}> {
    x = Gather(words, input_ids)  t = Transpose<perm = [0,2,1]>(x)  s = MatMul(x, t)  n = Shape<start = 1, end = 2>(input_ids)
    n2 = Concat<axis = 0>(n, n)  square = ConstantOfShape<value = float[1] {1}>(n2)  lower = Trilu<upper = 0>(square, zero)
    past = Cast<to = 9>(lower)  m = Cast<to = 9>(attention_mask)  keys = Unsqueeze(m, one)  one = Constant<value = int64[1] {1}>()
    keep = And(keys, past)  REPAIR  h = MatMul(p, x)  o = MatMul(h, v)  y = Add(o, x) }"""
FILLED = "bias = Where(keep, nothing, low)  a = Add(s, bias)  p = Softmax<axis = -1>(a)"
"""A query without any key attends to all alike."""
REPAIRED = """inf = Constant<value = float {-inf}>()  bias = Where(keep, nothing, inf)  a = Add(s, bias)  p0 = Softmax<axis = -1>(a)
    bad = IsNaN(p0)  p = Where(bad, nothing, p0)"""
"""It attends to none."""


def causal(path, repair, instead="", of=""):
    """A causal attention with a residual, saved; ``instead`` stands where ``of`` stood."""
    ir.save(fill(parse(CAUSAL.replace("REPAIR", repair).replace(of, instead)), words=(50, 8), v=(8, 8)), path)
    return path


def test_queries_without_a_key_are_free(tmp_path):
    """What they get depends on how the mask is written, and nothing reads it."""
    paths = [causal(tmp_path / "filled.onnx", FILLED), causal(tmp_path / "repaired.onnx", REPAIRED)]
    for first, second in (paths, paths[::-1]):
        result = compare_files(first, second, "reassociate")
        assert result.passed, result.failures


def test_an_output_of_another_size_without_padding_is_compared():
    """One row for each real token: the sides have more, and tell nothing of padding."""
    side = {"x": ROWS, "mask": np.ones((3, 1))}
    left = Case(
        "left", {"x": ROWS, "mask": np.array([[1], [1], [0]])}, sides=(side, side, {"x": ROWS + 1, "mask": np.ones((3, 1))})
    )
    run = lambda feeds: {"y": feeds["x"][feeds["mask"][:, 0] > 0]}  # noqa: E731
    expected = expect(run, [left])
    assert parity.compare(expected, run, "reassociate").differences[0].compared == 16
    assert not parity.compare(expected, lambda feeds: {"y": run(feeds)["y"] + 1}, "reassociate").passed


@pytest.mark.parametrize("repair", [FILLED, REPAIRED])
@pytest.mark.parametrize(
    ("of", "instead"),
    [
        ("And(keys, past)", "And(past, past)"),
        ("past = Cast<to = 9>(lower)", "past = Cast<to = 9>(square)"),
        ("y = Add(o, x)", "y = Add(o, t0)  t0 = Add(x, little)  little = Constant<value = float {0.01}>()"),
    ],
)
def test_queries_with_a_key_are_not(tmp_path, repair, of, instead):
    first = causal(tmp_path / "model.onnx", repair)
    assert not compare_files(first, causal(tmp_path / "other.onnx", repair, instead, of), "reassociate").passed


@pytest.mark.parametrize(("dtype", "kind"), [("float", "reassociate"), ("float16", "half"), ("bfloat16", "bfloat16")])
def test_a_rewrite_is_held_to_the_row_of_the_models_type(dtype, kind):
    model = parse(f"g ({dtype}[B,S] x) => ({dtype}[B,S] y) {{ y = Relu(x) }}")
    assert kind_of(model) == kind
    model = parse(f"g (float[B,S] x) => (float[B,S] y) <{dtype}[2] w = {{1, 2}}> {{ c = Cast<to = 1>(w)  y = Mul(x, c) }}")
    assert kind_of(model) == kind
