"""Data sets from files: the same content whatever the format, and one line for what is wrong."""

import json

import numpy as np
import pytest

from onnxfuse.errors import MissingExtraError, UsageError
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.evaluation.dataset import read as read_for
from tests.evaluation.conftest import averaging, collator_of

IDS, MASK = np.arange(1, 25).reshape(6, 4), np.ones((6, 4), np.int64)
COLUMNS = {"input_ids": IDS, "attention_mask": MASK, "labels": np.arange(6)}
FORM = collator_of(averaging(), name="model.onnx")


def read(path, tokenize=None):
    return read_for(path, [FORM], tokenize)[0]


def folder(path, **arrays):
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    return path


def archive(path, **arrays):
    np.savez(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def lines(path, **arrays):
    path = path.with_suffix(".jsonl")
    rows = [{name: array[at].tolist() for name, array in arrays.items()} for at in range(len(arrays["labels"]))]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("written", [folder, archive, lines])
def test_formats_hold_the_same(tmp_path, written):
    data = read(written(tmp_path / "set", **COLUMNS))
    assert len(data) == 6
    assert set(data.inputs) == {"input_ids", "attention_mask"}
    np.testing.assert_array_equal(np.concatenate([feeds["input_ids"] for feeds in data.batches(4)]), IDS)
    np.testing.assert_array_equal(data.labels, np.arange(6))
    assert len(data.first(2)) == 2


def test_a_folder_is_memory_mapped(tmp_path):
    assert isinstance(read(folder(tmp_path / "set", **COLUMNS)).inputs["input_ids"], np.memmap)


def tokenize(texts):
    return {"input_ids": np.array([[len(text)] * 4 for text in texts]), "attention_mask": np.ones((len(texts), 4), np.int64)}


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("a.txt", "one\n\nthree\n", None),
        ("a.csv", "label,text\n1,one\n0,three\n", [1, 0]),
        ("a.jsonl", '{"sentence": "one", "label": 1}\n{"sentence": "three", "label": 0}\n', [1, 0]),
    ],
)
def test_texts_go_through_the_tokenizer(tmp_path, name, content, labels):
    (tmp_path / name).write_text(content)
    data = read(tmp_path / name, lambda: tokenize)
    assert data.inputs["input_ids"][:, 0].tolist() == [3, 5]
    assert (None if data.labels is None else data.labels.tolist()) == labels
    with pytest.raises(UsageError, match="no tokenizer beside the model; give input_ids, attention_mask"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "lengths"),
    [
        ("a.csv", "\ufefftext,label\none,1\n", [3]),
        ("a.csv", 'text,label\n"one\ntwo",1\r\nthree,0\r\n', [7, 5]),
        ("a.jsonl", '{"text": "one\u2028two"}\n\n{"text": "three"}\n', [7, 5]),
        ("a.txt", "\ufeffone\x85two\r\nthree\n", [7, 5]),
    ],
)
def test_texts_come_whole(tmp_path, name, content, lengths):
    """Marks of spreadsheets are no text, and a row ends where its format says."""
    (tmp_path / name).write_bytes(content.encode())
    assert read(tmp_path / name, lambda: tokenize).inputs["input_ids"][:, 0].tolist() == lengths


def test_columns_of_padding_are_cut_off():
    mask = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0]])
    data = Dataset("set", {"input_ids": np.ones((3, 4)), "attention_mask": mask})
    assert [feeds["input_ids"].shape for feeds in data.batches(2)] == [(2, 2), (1, 3)]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "holds no samples"),
        ({"input_ids": IDS[:0], "attention_mask": MASK[:0]}, "holds no samples"),
        ({"input_ids": IDS, "attention_mask": MASK[:2]}, "different numbers of samples: attention_mask 2, input_ids 6"),
        (
            {"ids": IDS, "labels": np.arange(6)},
            "has no column input_ids, attention_mask, which model.onnx takes; it holds ids, labels",
        ),
        ({"input_ids": IDS + 0.5, "attention_mask": MASK}, "input_ids is float64, wanted int64"),
    ],
)
def test_a_wrong_data_set_is_refused(tmp_path, arrays, words):
    with pytest.raises(UsageError, match=words):
        read(folder(tmp_path / "set", **arrays))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npz", "text", "cannot be read as data"),
        ("a.jsonl", "[1", "cannot be read as data"),
        ("a.xml", "<a/>", "wanted a folder of"),
        (
            "a.jsonl",
            '{"input_ids": [1, 2], "attention_mask": [1, 1]}\n{"input_ids": [1], "attention_mask": [1]}',
            "the rows of input_ids differ",
        ),
        ("a.jsonl", '{"text": "one"}\n{"text": null}', "the text of sample 2 is None; wanted words"),
        ("a.csv", "text,label\n" + "x" * 200_000 + ",1\n", "cannot be read as data .field larger than field limit"),
        ("a.txt", "", "holds no samples"),
        ("a.csv", "label,text\n", "holds no samples"),
    ],
)
def test_what_cannot_be_read(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=words):
        read(tmp_path / name, lambda: tokenize)
    with pytest.raises(UsageError, match="is not there"):
        read(tmp_path / "other")


def test_a_folder_of_the_datasets_library(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    try:
        import datasets
    except ImportError:
        with pytest.raises(MissingExtraError, match="onnxfuse\\[eval\\]"):
            read(tmp_path)
        return
    datasets.Dataset.from_dict({name: array.tolist() for name, array in COLUMNS.items()}).save_to_disk(str(tmp_path / "saved"))
    np.testing.assert_array_equal(read(tmp_path / "saved").inputs["input_ids"], IDS)
