"""The thresholds, and the search for the fewest linear layers that must stay float."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse.config import Scheme, Thresholds
from onnxfuse.errors import RequirementError, UsageError
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.evaluation.quality import Quality, predict
from onnxfuse.quantization import gate
from onnxfuse.quantization.gate import meet_thresholds, misses, search, sensitivity, usual
from onnxfuse.quantization.prepare import prepare
from onnxfuse.quantization.ranges import ActivationScale
from onnxfuse.quantization.write import SWITCHES
from onnxfuse.runtime import open_runner
from tests.conftest import fill, parse

FLOAT = Quality(1.0, 1.0, 0.9, 0.9, 100)
NAMES = [f"p{number}" for number in range(12)]
LOSS = dict(zip(NAMES, [1, 5, 2, 40, 1, 30, 1, 1, 20, 3, 1, 1], strict=True))


def judge(kept, seen=None):
    if seen is not None:
        seen.append(len(kept))
    lost = sum(LOSS[name] for name in NAMES if name not in kept)
    return Quality(1 - lost / 1000, 1 - lost / 500, 0.9 - lost / 10_000, 0.9, 100)


@pytest.mark.parametrize(
    ("thresholds", "kept"),
    [
        (Thresholds(min_cosine=0.85), []),
        (Thresholds(min_cosine=0.93), ["p3"]),
        (Thresholds(min_cosine=0.98), ["p3", "p5", "p8"]),
        (Thresholds(min_agreement=0.966), ["p3", "p5", "p8"]),
        (Thresholds(max_drop=0.0037), ["p3", "p5"]),
        (Thresholds(min_cosine=0.985), ["p3", "p5", "p8", "p1"]),
        (Thresholds(min_cosine=1.0), sorted(NAMES, key=lambda name: -LOSS[name])),
    ],
)
def test_the_fewest_and_worst_stay_float(thresholds, kept):
    trade_off = search(NAMES, judge, lambda: LOSS, thresholds, FLOAT)
    assert list(trade_off.kept) == kept
    assert [len(candidate.kept) for candidate in trade_off.candidates] == sorted(
        {len(candidate.kept) for candidate in trade_off.candidates}
    )
    assert not misses(thresholds, judge(trade_off.kept), FLOAT)


def test_few_models_are_judged():
    seen = []
    search(NAMES, lambda kept: judge(kept, seen), lambda: LOSS, Thresholds(min_cosine=0.985), FLOAT)
    assert seen == [0, 1, 2, 4, 3]


def test_no_sensitivity_is_measured_where_all_passes():
    def never():
        raise AssertionError

    assert search(NAMES, judge, never, Thresholds(min_cosine=0.5), FLOAT).kept == ()


@pytest.mark.parametrize(
    ("most", "kept", "judged", "missed"),
    [
        (4, ["p3", "p5", "p8", "p1"], [0, 1, 2, 3, 4], []),
        (3, [], [0, 1, 2, 3], ["cosine is 0.8940, wanted 0.985"]),
        (0, [], [0], ["cosine is 0.8940, wanted 0.985"]),
    ],
)
def test_where_few_may_stay_float_and_are_not_enough_none_does(most, kept, judged, missed):
    seen = []
    trade_off = search(NAMES, lambda kept: judge(kept, seen), lambda: LOSS, Thresholds(min_cosine=0.985), FLOAT, most=most)
    assert (list(trade_off.kept), sorted(seen), list(trade_off.missed)) == (kept, judged, missed)
    assert [len(candidate.kept) for candidate in trade_off.candidates] == judged


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        ({"onnxfuse_task": "text-classification"}, True),
        ({"onnxfuse_task": "token-classification", "id2label": {"0": "O", "1": "B"}}, True),
        ({"onnxfuse_task": "image-classification", "problem_type": "single_label_classification"}, True),
        ({"onnxfuse_task": "text-classification", "id2label": {"0": "how good"}}, False),
        ({"onnxfuse_task": "text-classification", "problem_type": "multi_label_classification"}, False),
        ({"onnxfuse_task": "fill-mask"}, False),
        ({}, False),
    ],
)
def test_classifiers_keep_their_labels_unasked(config, asked):
    assert usual(config) == (Thresholds(min_agreement=0.99) if asked else Thresholds())


def test_what_cannot_be_met_tells_the_best():
    def worse(kept):
        return replace(judge(kept), cosine=judge(kept).cosine - 0.01)

    with pytest.raises(
        RequirementError, match=r"cosine is 0\.9900, wanted 1; the best found has a cosine of 0\.9900; nothing was saved"
    ):
        search(NAMES, worse, lambda: LOSS, Thresholds(min_cosine=1), FLOAT)


def test_the_best_misses_the_fewest_bars():
    """With 2 linear layers float both thresholds are missed by less, with all of them one is met."""

    def of(kept):
        return {0: Quality(0.5, 0.5, None, None, 9), 1: Quality(0.99, 0.5, None, None, 9), 2: Quality(0.7, 0.9, None, None, 9)}[
            len(kept)
        ]

    with pytest.raises(
        RequirementError, match=r"in float either: agreement is 0\.5000, wanted 0\.95; the best found has a cosine of 0\.9900"
    ):
        search(["a", "b"], of, lambda: {"a": 2, "b": 1}, Thresholds(min_cosine=0.98, min_agreement=0.95), FLOAT)


def test_progress_tells_how_many_stay_float():
    told = []
    search(
        NAMES, judge, lambda: LOSS, Thresholds(min_cosine=0.98), FLOAT, lambda text, done=None, step="": told.append((text, step))
    )
    assert told == [("finding how few linear layers must stay float", f"{count} of 12") for count in (1, 2, 4, 3)]


def test_a_drop_needs_labels():
    with pytest.raises(UsageError, match="--max-drop is measured on the labels"):
        misses(Thresholds(max_drop=0.1), Quality(1, 1, None, None, 3), FLOAT)
    with pytest.raises(UsageError, match="--max-drop is measured on the labels"):
        misses(Thresholds(max_drop=0.1), FLOAT, Quality(1, 1, None, None, 3))


def test_bars_say_what_they_miss():
    thresholds = Thresholds(max_drop=0.005, min_cosine=0.999, min_agreement=0.99)
    assert misses(thresholds, Quality(0.9, 0.8, 0.85, 0.8, 10), FLOAT) == [
        "accuracy falls by 5.00 points, allowed 0.5",
        "cosine is 0.9000, wanted 0.999",
        "agreement is 0.8000, wanted 0.99",
    ]
    assert not misses(thresholds, Quality(0.999, 0.99, 0.8951, 0.8, 10), FLOAT)
    assert not misses(Thresholds(max_drop=0.25), Quality(1, 1, 0.5, 1, 4), Quality(1, 1, 0.75, 1, 4))  # as much as is allowed
    assert not Thresholds()
    assert thresholds


@pytest.fixture
def chain(tmp_path):
    """Two linear layers, prepared, beside the float model in a file."""
    text = "g (float[B,256] x, float[256,256] w, float[256,128] u) => (float[B,128] logits) { h = MatMul(x, w)  logits = MatMul(h, u) }"
    model = fill(parse(text), w=(256, 256), u=(256, 128))
    onnx.save(ir.to_proto(model), tmp_path / "float.onnx")
    return prepare(model, Scheme()), tmp_path / "float.onnx"


@pytest.mark.parametrize(("lowest", "candidates"), [(0.9, [0]), (1.0, [0, 1, 2])])
def test_candidates_are_judged_as_files_and_timed_where_there_is_a_choice(chain, lowest, candidates):
    data = Dataset("numbers", {"x": np.random.default_rng(0).standard_normal((20, 256)).astype(np.float32)})
    trade_off = meet_thresholds(*chain, "dynamic", data, 8, Thresholds(min_cosine=lowest - 1e-9))
    assert [len(candidate.kept) for candidate in trade_off.candidates] == candidates
    assert [candidate.p50 is not None for candidate in trade_off.candidates] == [len(candidates) > 1] * len(candidates)
    assert len(trade_off.kept) == candidates[-1]
    assert len(trade_off.sensitivity) == (2 if len(candidates) > 1 else 0)
    assert [candidate.quality.cosine >= lowest - 1e-9 for candidate in trade_off.candidates] == [False] * (
        len(candidates) - 1
    ) + [True]


@pytest.mark.parametrize(("format", "sizes"), [("dynamic", [8, 1]), ("qdq", [8])])
def test_where_a_scale_is_of_a_whole_batch_each_sample_is_judged_alone_too(chain, monkeypatch, format, sizes):
    """What is worse counts; where batches alone miss a threshold, nothing more is judged."""
    prepared, source = chain
    if format == "qdq":
        scale = ActivationScale(np.float32(0.05), np.uint8(128))
        prepared = replace(prepared, scales={linear.name: scale for linear in prepared.linears})
    data = Dataset("numbers", {"x": np.random.default_rng(0).standard_normal((20, 256)).astype(np.float32)})
    asked = []

    def seen(run, data, batch):
        asked.append(batch)
        return predict(run, data, batch)

    def judged(got, expected, data):
        return Quality(1.0, {8: 0.99, 1: 0.9}[len(expected.batches[0][0]["logits"])], None, None, len(data))

    monkeypatch.setattr(gate, "predict", seen)
    monkeypatch.setattr(gate, "judge", judged)
    found = meet_thresholds(prepared, source, format, data, 8, Thresholds(min_agreement=0.8))
    assert asked == [8, *sizes]  # of the original, whose rows are what they are in any batch, and of the candidate
    assert found.candidates[0].quality.agreement == (0.9 if 1 in sizes else 0.99)
    asked.clear()
    meet_thresholds(prepared, source, format, data, 8, Thresholds(min_agreement=0.995), most=0)
    assert asked == [8, 8]


def test_what_the_float_model_gives_is_asked_for_once(chain):
    """Calibration has seen it: other answers make another outcome, and batch by batch they are those of the same samples."""
    data = Dataset("numbers", {"x": np.random.default_rng(0).standard_normal((20, 256)).astype(np.float32)})
    known = [outputs for outputs, _ in predict(open_runner(chain[1]), data, 8).batches]
    asked, seen = (
        meet_thresholds(*chain, "dynamic", data, 8, Thresholds(min_cosine=0.9), answers=answers) for answers in ((), known)
    )
    assert asked == seen
    turned = [{"logits": -outputs["logits"]} for outputs in known]
    assert (
        meet_thresholds(*chain, "dynamic", data, 8, Thresholds(min_agreement=0.9), most=0, answers=turned)
        .candidates[0]
        .quality.agreement
        == 0
    )


def test_sensitivity_is_measured_one_at_a_time():
    rng = np.random.default_rng(0)
    data = Dataset("numbers", {"x": rng.standard_normal((20, 4)).astype(np.float32)})
    noise = np.array([0.0, 0.3, 0.01])

    def run(feeds):
        assert feeds[SWITCHES].sum() <= 1
        return {"logits": feeds["x"] + (feeds[SWITCHES] * noise).sum() * rng.standard_normal(feeds["x"].shape)}

    losses = sensitivity(run, ["a", "b", "c"], data, 8)
    assert losses["a"] == pytest.approx(0, abs=1e-12)
    assert losses["b"] > losses["c"] > losses["a"]
