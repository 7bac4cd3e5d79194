"""Tokenizers from folders: what they give, and one line for what is broken."""

import json
import os
import sys

import numpy as np
import pytest

from onnxfuse.errors import MissingExtraError, ModelError
from onnxfuse.evaluation.text import has_tokenizer, tokenizer
from tests.evaluation.conftest import tokenizer_files

pytest.importorskip("transformers")
TEXTS = ["w5 w6 w7", "w8", ""]


def changed(folder, **fields):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("right", [[5, 6, 7], [8, 9, 9], [9, 9, 9]], [[1, 1, 1], [1, 0, 0], [0, 0, 0]]),
        ("left", [[5, 6, 7], [9, 9, 8], [9, 9, 9]], [[1, 1, 1], [0, 0, 1], [0, 0, 0]]),
    ],
)
def test_texts_are_padded_as_the_tokenizer_says(tmp_path, side, ids, mask):
    found = tokenizer(tokenizer_files(tmp_path, pad_token="w9", padding_side=side))
    assert {name: array.tolist() for name, array in found(TEXTS).items()} == {"input_ids": ids, "attention_mask": mask}
    assert found.notes == ()


def test_without_a_token_for_padding_0_stands_under_the_mask(tmp_path):
    found = tokenizer(tokenizer_files(tmp_path))
    assert found(TEXTS)["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0], [0, 0, 0]]
    assert found.notes == ("padded with 0 under the mask, since the tokenizer has no token for padding",)


def test_token_types_come_where_the_tokenizer_makes_them(tmp_path):
    found = tokenizer(
        tokenizer_files(tmp_path, pad_token="w9", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    )
    assert found(TEXTS)["token_type_ids"].tolist() == np.zeros((3, 3)).tolist()
    assert {array.dtype for array in found(TEXTS).values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json", "vocab.txt"]
)
def test_files_of_a_tokenizer_lie_in_its_folder(tmp_path, name):
    for place in ("in", "out"):
        (tmp_path / place).mkdir()
        tokenizer_files(tmp_path / place)
        for more in {"special_tokens_map.json", "config.json", "vocab.txt"} - {"tokenizer.json"}:
            (tmp_path / place / more).write_text("{}" if more.endswith("json") else "w0")
    path = tmp_path / "in" / name
    path.unlink()
    path.symlink_to(tmp_path / "out" / name)
    with pytest.raises(ModelError, match=f"{name} lies outside"):
        tokenizer(tmp_path / "in")


def test_a_tokenizer_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.json")
    assert has_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="is a named pipe, not a file"):
        tokenizer(tmp_path)


def test_token_types_are_the_tokenizers(tmp_path):
    names = ["input_ids", "token_type_ids", "attention_mask"]
    found = tokenizer(tokenizer_files(tmp_path, special=True, pad_token="w9", model_input_names=names), 4)(["w5", "w6 w7 w8 w9"])
    assert found["input_ids"].tolist() == [[0, 5, 1, 9], [0, 6, 7, 1]]
    assert found["token_type_ids"].tolist() == [[0, 2, 2, 0], [0, 2, 2, 2]]


def test_without_transformers(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"tokenizing text needs packages .*onnxfuse\[torch\]"):
        tokenizer(tmp_path)


@pytest.mark.parametrize(("longest", "ids"), [(5, [0, 5, 6, 7, 1]), (4, [0, 5, 6, 1]), (3, [0, 5, 1]), (2, [0, 5]), (1, [0])])
def test_texts_are_cut_with_their_ends_kept(tmp_path, longest, ids):
    assert tokenizer(tokenizer_files(tmp_path, special=True, pad_token="w9"), longest)(["w5 w6 w7"])["input_ids"].tolist() == [
        ids
    ]


@pytest.mark.parametrize(
    ("asked", "longest"), [(4, 4), (2, 2), (4.0, 4), (1e30, 256), (0, 256), (-1, 256), (None, 256), ("4", 256), (512, 256)]
)
def test_the_tokenizers_own_limit(tmp_path, asked, longest):
    assert tokenizer(changed(tokenizer_files(tmp_path), model_max_length=asked)).longest == longest


def test_a_vocabulary_alone(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word"]))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert tokenizer(tmp_path)(["word"])["input_ids"].tolist() == [[2, 5, 3]]


def sentencepiece_alone(folder):
    for file in folder.iterdir():
        file.unlink()
    (folder / "sentencepiece.bpe.model").write_bytes(b"pieces")
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}')


def files_of_another_class(folder):
    sentencepiece_alone(folder)
    (folder / "sentencepiece.bpe.model").rename(folder / "spiece.model")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda folder: (folder / "tokenizer.json").write_text("text"), "JSONDecodeError"),
        (lambda folder: (folder / "tokenizer.json").write_text("[1, 2]"), "TypeError"),
        (lambda folder: (folder / "tokenizer.json").write_text(""), "JSONDecodeError"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("[1]"), "AttributeError"),
        (
            lambda folder: changed(folder, auto_map={"AutoTokenizer": ["own.Tokenizer", None]}, tokenizer_class="Own"),
            "custom code",
        ),
        (files_of_another_class, "XLMRobertaTokenizer knows no words"),
        (sentencepiece_alone, "there is no tokenizer.json, and sentencepiece.bpe.model needs the package sentencepiece"),
    ],
)
def test_a_broken_tokenizer_is_one_line(tmp_path, capfd, broken, words, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "sentencepiece" else real(name, *more))
    broken(tokenizer_files(tmp_path, pad_token="w9"))
    assert has_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="cannot be used") as raised:
        tokenizer(tmp_path)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"the tokenizer in {tmp_path} cannot be used: ")
    assert capfd.readouterr() == ("", "")


def test_sentencepiece_is_asked_for_only_where_it_is_missing(tmp_path, monkeypatch):
    import importlib.util

    real, there = importlib.util.find_spec, {"sentencepiece": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: there[name] if name in there else real(name, *more))
    (tokenizer_files(tmp_path) / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(ModelError, match="cannot be used: AttributeError"):  # no pieces
        tokenizer(tmp_path)
    (tmp_path / "spiece.model").touch()
    with pytest.raises(ModelError, match=r"spiece.model needs the package sentencepiece"):
        tokenizer(tmp_path)
    there["sentencepiece"] = real("json")
    with pytest.raises(ModelError, match="cannot be used: AttributeError"):  # it is there
        tokenizer(tmp_path)
    there["sentencepiece"] = None
    (tmp_path / "tokenizer.json").write_text("text")
    with pytest.raises(ModelError, match="cannot be used: AttributeError"):  # pieces are not what is read
        tokenizer(tmp_path)


def test_a_tokenizer_that_fails_on_a_text_is_one_line(tmp_path):
    path = tokenizer_files(tmp_path) / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] = {"w1": 1}
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"cannot be used: Exception: WordLevel error: Missing \[UNK\] token"):
        tokenizer(tmp_path)(["other"])


def test_what_shows_a_tokenizer(tmp_path):
    (tmp_path / "model.onnx").touch()
    (tmp_path / "config.json").touch()
    (tmp_path / "tokenizer").mkdir()
    assert not has_tokenizer(tmp_path)
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
        "sentencepiece.bpe.model",
        "spiece.model",
    ):
        (tmp_path / name).touch()
        assert has_tokenizer(tmp_path)
        (tmp_path / name).unlink()
