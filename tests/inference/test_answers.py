"""Model.answer finds what the question-answering pipeline of transformers 4 found: all spans tried one by one.

``scripts/compare_answers.py`` holds both against the pipeline itself, where transformers 4.57 is installed.
"""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
import transformers

import onnxfuse
from onnxfuse.errors import UsageError
from tests.inference.conftest import SENTENCES

CONTEXT = " ".join(SENTENCES[:12])
QUESTIONS = ["what", "who is it", "Where, of a b"]


@pytest.fixture(scope="module")
def places(made):
    return made("bert", "BertForQuestionAnswering")


def probabilities(logits, can):
    shown = torch.where(torch.tensor(can), logits, torch.tensor(-10000.0))
    return shown.softmax(-1).numpy()


def reference(source, question, context, window, stride, length):
    """Each answer's score by its text, by the original's logits: every span of every window, each window alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(source).eval()
    left = tokenizer.padding_side == "left"
    texts, cut = ((context, question), "only_first") if left else ((question, context), "only_second")
    made = tokenizer(*texts, truncation=cut, max_length=window, stride=stride, return_overflowing_tokens=True)
    found, nothing = {}, 1.0
    for number, ids in enumerate(made["input_ids"]):
        encoding = made[number]
        with torch.no_grad():
            out = model(torch.tensor([ids]), token_type_ids=torch.tensor([encoding.type_ids]))
        inside = [side == (0 if left else 1) for side in encoding.sequence_ids]
        can = [each or id == tokenizer.cls_token_id for each, id in zip(inside, ids, strict=True)]
        start, end = probabilities(out.start_logits[0], can), probabilities(out.end_logits[0], can)
        nothing = min(nothing, float(start[0] * end[0]))
        spans = [
            (
                float(start[a] * end[b]),
                encoding.word_to_chars(encoding.word_ids[a], int(not left))[0],
                encoding.word_to_chars(encoding.word_ids[b], int(not left))[1],
            )
            for a, b in itertools.combinations_with_replacement(range(len(ids)), 2)
            if inside[a] and inside[b] and b - a < length
        ]
        for score, begin, stop in sorted(spans, reverse=True)[:12]:
            text = context[begin:stop].lower()
            score += found[text][0] if text in found else 0
            found[text] = (score, *(found[text][1:] if text in found else (begin, stop)))
    return found, nothing


@pytest.mark.parametrize("sizes", [{"stride": 5}, {"window": 20, "stride": 3}, {"window": 23, "stride": 9, "length": 2}])
def test_answers_are_those_of_every_span_tried(places, sizes):
    source, folder = places
    model, asked = onnxfuse.load(folder), {"window": 24, "length": 15} | sizes
    for question, context in itertools.product(QUESTIONS, (CONTEXT, SENTENCES[3])):
        scores, _ = reference(source, question, context, **asked)
        (_, (score, begin, stop)) = max(scores.items(), key=lambda item: item[1][0])
        got = model.answer(question, context, **sizes)
        assert (got["start"], got["end"], got["answer"]) == (begin, stop, context[begin:stop])
        assert abs(got["score"] - score) < 1e-5


def test_a_model_may_say_that_there_is_no_answer(places):
    source, folder = places
    _, nothing = reference(source, QUESTIONS[0], SENTENCES[3], 24, 12, 15)
    got = onnxfuse.load(folder).answer(QUESTIONS[0], SENTENCES[3], top=2000, none=True)
    (empty,) = [each for each in got if not each["answer"]]
    assert (empty["start"], empty["end"]) == (0, 0) and abs(empty["score"] - nothing) < 1e-6
    assert [each["score"] for each in got] == sorted((each["score"] for each in got), reverse=True)


def test_where_padding_stands_on_the_left_the_context_is_first(places, tmp_path):
    source, folder = (shutil.copytree(place, tmp_path / place.name) for place in places)
    for place in (source, folder):
        said = json.loads((place / "tokenizer_config.json").read_text())
        (place / "tokenizer_config.json").write_text(json.dumps(said | {"padding_side": "left"}))
    scores, _ = reference(source, QUESTIONS[1], CONTEXT, 24, 12, 15)
    (_, (score, begin, stop)) = max(scores.items(), key=lambda item: item[1][0])
    got = onnxfuse.load(folder).answer(QUESTIONS[1], CONTEXT)
    assert (got["start"], got["end"]) == (begin, stop) and abs(got["score"] - score) < 1e-5


def test_lists_give_lists(places):
    model = onnxfuse.load(places[1])
    got = model.answer(QUESTIONS, [CONTEXT] * 3)
    assert got == [model.answer(question, CONTEXT) for question in QUESTIONS]
    best = model.answer(QUESTIONS[0], CONTEXT, top=4)
    assert len(best) == 4 and len({each["answer"] for each in best}) == 4
    assert model.answer([], []) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((3, "b"), "int given, wanted a question"),
        (("a", ["b"]), "1 questions and 1 contexts; give one of each"),
        ((["a"], ["b", "c"]), "1 questions and 2 contexts"),
        (("", "b"), "question 1 is empty"),
        ((["a", "a"], ["b", " "]), "context 2 is empty"),
        ((["a", None], ["b", "c"]), "question 2 is NoneType, wanted a text"),
        (("word " * 30, "b"), "the question has .* tokens, which leaves none of 24 for its context"),
    ],
)
def test_what_has_no_answer_is_refused(places, given, said):
    with pytest.raises(UsageError, match=said):
        onnxfuse.load(places[1]).answer(*given)


@pytest.mark.parametrize("name", ["top", "length", "window"])
def test_a_search_for_nothing_is_refused(places, name):
    with pytest.raises(UsageError, match=f"{name} is 0, wanted a whole number from 1"):
        onnxfuse.load(places[1]).answer("a", "b", **{name: 0})


def test_a_long_question_leaves_less_in_common(places):
    """The windows have less in common than asked for, where they hold less than that; they still come to the end."""
    question = " ".join("abcdefghijklmnop"[:16])
    got = onnxfuse.load(places[1]).answer(question, CONTEXT, window=24, stride=12, top=1000)
    assert {each["answer"] for each in got} and all(np.isfinite(each["score"]) for each in got)
    assert max(each["end"] for each in got) > len(CONTEXT) - 80
