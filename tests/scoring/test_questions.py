"""SQuAD's rules on cases that were worked out by hand, and whole files in its two versions."""

import json

import numpy as np
import pytest

import onnxfuse
from onnxfuse.config import BenchmarkConfig
from onnxfuse.pipeline.evaluate import evaluate
from onnxfuse.scoring import squad

ANSWERS = [
    # answer, right ones, exact match, F1
    ("The Cat.", ["cat"], 1, 1),
    ("a black cat", ["cat black dog"], 0, 0.8),  # black cat: 2 of 2 are right, 2 of 3 found
    ("cat", ["dog", "the big cat"], 0, 2 / 3),  # the better of the two: 1 of 1, 1 of 2
    ("cat cat", ["cat"], 0, 2 / 3),  # a word counts as often as it is there: 1 of 2, 1 of 1
    ("in 1066", ["1066"], 0, 2 / 3),
    ("U.S.", ["us"], 1, 1),
    ("then", ["the n"], 0, 0),  # an article is a word, not letters
    ("", [""], 1, 1),
    ("the", [""], 1, 1),  # nothing is left of it
    ("cat", [""], 0, 0),
    ("", ["cat"], 0, 0),
]


@pytest.mark.parametrize(("answer", "right", "exact", "overlap"), ANSWERS)
def test_an_answer_beside_the_right_ones(answer, right, exact, overlap):
    assert squad.exact(answer, right) == exact
    assert squad.overlap(answer, right) == pytest.approx(overlap)


def test_right_answers_that_are_only_punctuation_do_not_count():
    assert squad.wanted(["...", "cat"]) == ["cat"]
    assert squad.wanted(["the"]) == [""] and squad.wanted([]) == [""]


def test_the_best_threshold():
    answered, nothing = np.array([1, 0, 1, 0.0]), np.array([0, 1, 0, 0.0])
    surplus = np.array([-0.5, 0.2, 0.1, 0.9])
    score, threshold = squad.best_threshold(answered, nothing, surplus)
    assert (score, threshold) == (0.75, 0.1), "the first and third are answered, the second is declined"
    declined = np.where(surplus > threshold, nothing, answered)
    assert declined.mean() == score
    assert squad.best_threshold(answered, nothing, np.full(4, 0.3)) == (0.5, 0.3), "of one surplus, all are answered or none"
    assert squad.best_threshold(np.zeros(3), np.ones(3), np.arange(3.0)) == (1.0, float("-inf"))


@pytest.fixture(scope="module")
def asked(sentences):
    """Questions on contexts of several windows; each third without an answer."""
    found = []
    for at in range(45):
        context = " ".join(sentences[3 * at : 3 * at + 4])
        words = sentences[3 * at + 1].split()
        answer = " ".join(words[1:3])
        right = [] if at % 3 == 0 else [{"text": answer, "answer_start": context.index(answer)}]
        found.append({"id": str(at), "context": context, "question": f"what {words[0]}", "answers": right})
    return found


def write(path, asked):
    paragraphs = [
        {
            "context": each["context"],
            "qas": [{name: each[name] for name in ("id", "question", "answers")} | {"is_impossible": not each["answers"]}],
        }
        for each in asked
    ]
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "one", "paragraphs": paragraphs}]}))
    return path


def judged(answer, right):
    """The test's own reading of the official rules: exact match and F1."""
    table = str.maketrans("", "", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")

    def words(text):
        return [word for word in text.lower().translate(table).split() if word not in ("a", "an", "the")]

    best = (0.0, 0.0)
    for each in [text for text in right if words(text)] or [""]:
        seen, wanted = words(answer), words(each)
        common = sum(min(seen.count(word), wanted.count(word)) for word in set(seen))
        overlap = float(seen == wanted) if not seen or not wanted else 2 * common / (len(seen) + len(wanted))
        best = max(best[0], float(seen == wanted)), max(best[1], overlap)
    return best


@pytest.mark.parametrize("version", [1, 2])
def test_squad(made, asked, tmp_path, version):
    _, folder = made("bert", "BertForQuestionAnswering", 2, pairs=True)
    some = asked if version == 2 else [each for each in asked if each["answers"]]
    (found,) = evaluate(
        [folder / "model.onnx"], write(tmp_path / "dev.json", some), BenchmarkConfig(batch=8, rounds=1)
    ).rows.values()
    model = onnxfuse.load(folder / "model.onnx")
    questions, contexts = ([each[name] for each in some] for name in ("question", "context"))
    given = model.answer(questions, contexts, length=30, none=version == 2)
    rows = [judged(said["answer"], [each["text"] for each in one["answers"]]) for said, one in zip(given, some, strict=True)]
    exact, overlap = np.mean(rows, axis=0)
    assert 0 < overlap < 1
    metrics = found.metrics
    assert metrics["exact_match"].value == pytest.approx(exact)
    assert metrics["f1"].value == pytest.approx(overlap)
    assert found.count == len(some)
    assert set(metrics) == {"exact_match", "f1"} | ({"best_exact_match", "best_f1"} if version == 2 else set())
    if version == 2:
        assert metrics["best_f1"].value >= metrics["f1"].value
        assert metrics["best_exact_match"].value >= max(metrics["exact_match"].value, 1 / 3), "declining all is a threshold too"


def test_datasets_form_is_the_same(made, asked, tmp_path):
    import datasets

    _, folder = made("bert", "BertForQuestionAnswering", 2, pairs=True)
    rows = [
        each | {"answers": {name: [one[name] for one in each["answers"]] for name in ("text", "answer_start")}} for each in asked
    ]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "dev.parquet")
    plan = BenchmarkConfig(batch=8, rounds=1)
    one, other = (
        next(iter(evaluate([folder / "model.onnx"], path, plan).rows.values())).metrics
        for path in (write(tmp_path / "dev.json", asked), tmp_path / "dev.parquet")
    )
    assert one == other
