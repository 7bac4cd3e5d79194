"""What scripts/make_checkpoints.py trains on is right; scripts/measure_dropin.py counts what is equal, and keeps other parts."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import dropin_answers  # noqa: E402
import measure_dropin  # noqa: E402
import readings  # noqa: E402


@pytest.fixture(scope="module")
def asked():
    return readings.readings()[:300]


def test_answers_stand_where_they_are_said_to(asked):
    assert len({each.question for each in asked}) > 100
    for each in asked:
        assert each.context[each.start :].startswith(each.answer)
        name = each.question.removeprefix("What does ").removesuffix(" do?")
        assert f"{each.answer}: " in each.context or f"{name}: {each.answer}" in each.context
    entry = asked[0].squad(7)
    assert entry["qas"][0]["answers"] == [{"text": asked[0].answer, "answer_start": asked[0].start}]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("Call os.path.join() or None.", "O B-NAME I-NAME I-NAME I-NAME I-NAME I-NAME I-NAME O B-CONST O"),
        ("A ValueError of int_value, e.g. a list.", "O B-ERROR O B-NAME I-NAME I-NAME O O O O O O B-TYPE O"),
        ("Return HTML or GetPassWarning 3 times.", "O O O B-ERROR O O O"),
    ],
)
def test_words_are_what_they_are(text, tags):
    found = readings.tagged(text)
    assert [tag for *_, tag in found] == tags.split()
    assert all(text[begin:end] == word for word, begin, end, _ in found)
    assert readings.conll([text, text]).count("\n\n") == 1


def test_labels_stand_at_the_tokens_of_their_words(tmp_path):
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "_", ":", "?", *letters, *(f"##{each}" for each in letters)]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    texts = ["an int of ab_c.", "so"]
    encoded = tokenizer(texts, padding=True, return_offsets_mapping=True, return_tensors="np")
    labels = readings.token_labels(encoded, texts)
    named = [[readings.TAGS[label] for label in row if label >= 0] for row in labels]
    assert named[0] == ["O", "O", "B-TYPE", "I-TYPE", "I-TYPE", "O", "O", *["B-NAME", *["I-NAME"] * 3], "O"]
    assert named[1] == ["O", "O"]
    assert (labels[1] == -100).sum() == labels.shape[1] - 2
    one = readings.Reading("so?", "a: bcd e.", "bcd", 3)
    begin, end = readings.span_labels(tokenizer([one.question], [one.context]), [one])[0]
    assert tokenizer.decode(tokenizer(one.question, one.context)["input_ids"][begin : end + 1]).replace(" ", "") == "bcd"


def test_scores_count_where_answers_are_equal():
    wanted = [("a", np.array([0.5])), ("b", np.array([0.5, 0.1])), ("c", np.array([0.9]))]
    got = [("a", np.array([0.5])), ("b", np.array([0.5, 0.3])), ("x", np.array([0.0]))]
    row = dropin_answers.compared("m", "fill", "int8", 8, got, wanted)
    assert row.cells() == ["m", "fill", "int8", "8", "2 of 3 (66.7%)", "2.0e-01"]
    assert np.isnan(dropin_answers.compared("m", "fill", "int8", 8, got[2:], wanted[2:]).difference)


def test_an_original_is_asked_once_for_each_size():
    sizes = []

    def ask(batch):
        sizes.append(batch)
        return [("a", np.array([1.0]))]

    wanted = dropin_answers.known(ask)
    for precision in ("fp32", "int8"):
        found = list(dropin_answers.rows("m", precision, {"pipeline": ask}, wanted))
        assert [(row.batch, row.equal) for row in found] == [(1, 1), (8, 1)]
    assert sizes == [1, 1, 8, 8, 1, 8]


def test_a_part_that_is_not_measured_stays(tmp_path):
    page = tmp_path / "page.md"
    assert measure_dropin.kept(page, "speed") == "Not measured yet."
    page.write_text(measure_dropin.PAGE.read_text().format(answers="| a |\n| b |", speed="| c |"))
    assert {name: measure_dropin.kept(page, name) for name in measure_dropin.PARTS} == {
        "answers": "| a |\n| b |",
        "speed": "| c |",
    }
    assert not re.findall(r"\{\w+\}", page.read_text())
