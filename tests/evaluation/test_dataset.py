"""Data sets from files: the same content whatever the format, and one line for what is wrong."""

import csv
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from onnxfuse.errors import MissingExtraError, UsageError
from onnxfuse.evaluation import columns
from onnxfuse.evaluation.collate import Collator
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.evaluation.dataset import read as read_for
from onnxfuse.io import door
from tests.evaluation.conftest import averaging, collator_of

IDS, MASK = np.arange(1, 25).reshape(6, 4), np.ones((6, 4), np.int64)
COLUMNS = {"input_ids": IDS, "attention_mask": MASK, "labels": np.arange(6)}
CLASS = "wanted a class: a whole number from 0"
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
        ({"input_ids": IDS, "attention_mask": MASK[:, :3]}, "attention_mask has 3 tokens in a row, input_ids 4; they do not"),
        (COLUMNS | {"labels": np.full(6, -1)}, f"the label of sample 1 is '-1', {CLASS}"),
        (COLUMNS | {"labels": np.full(6, np.nan)}, "labels is float64, wanted whole numbers: the class of each sample"),
    ],
)
def test_a_wrong_data_set_is_refused(tmp_path, arrays, words):
    with pytest.raises(UsageError, match=words):
        read(folder(tmp_path / "set", **arrays))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npz", "text", "cannot be read as an archive"),
        ("a.jsonl", "[1", r"a\.jsonl, line 1 is not JSON"),
        ("a.csv", 'text,label\none,1\n"two,1\nthree,0\n', "cannot be read as data .*unexpected end of data"),
        ("a.jsonl", '{"text": "one"}\n' + "[" * 100_000, r"a\.jsonl, line 2 holds JSON nested deeper than 64"),
        ("a.jsonl", '{"text": "one"}\n[["text", "two"]]', r"a\.jsonl, line 2: a JSON list, wanted an object"),
        ("a.jsonl", '{"text": "\\ud800"}', "half a character"),
        ("a.csv", "text,label\none,1,2\n", "row 1 has 3 fields, the first line names 2"),
        ("a.csv", "text,text\none,two\n", "two columns of one name"),
        ("a.csv", ",".join(map(str, range(1025))) + "\n", "has 1025 columns, at most 1024"),
        ("a.csv", "text,label\none,²\n", f"the label of sample 1 is '²', {CLASS}"),
        ("a.csv", "text,label\none,0\ntwo,-1\n", f"the label of sample 2 is '-1', {CLASS}"),
        ("a.csv", "text,label\none,nan\n", f"the label of sample 1 is 'nan', {CLASS}"),
        ("a.jsonl", '{"text": "one", "label": 0.5}', f"the label of sample 1 is '0.5', {CLASS}"),
        ("a.jsonl", '{"text": "one", "label": [0]}', f"the label of sample 1 is .*, {CLASS}"),
        ("a.csv", "text,label\none," + "9" * 5000 + "\n", f"the label of sample 1 is '9999.*, {CLASS}"),
        ("a.xml", "<a/>", "wanted a folder of"),
        (
            "a.jsonl",
            '{"input_ids": [1, 2], "attention_mask": [1, 1]}\n{"input_ids": [1], "attention_mask": [1]}',
            "the rows of input_ids differ",
        ),
        ("a.jsonl", '{"text": "one"}\n{"text": null}', "the text of sample 2 is None; wanted words"),
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


# What a folder leads to ------------------------------------------------------------------------------------------


def huge():
    """An array of more numbers than there are addresses."""
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def outside(folder, make):
    """A folder of columns, one of them as ``make`` makes it: from a path to a whole column in a folder beside."""
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    for place in ("in", "out"):
        for name in ("input_ids", "attention_mask"):
            np.save(folder / place / f"{name}.npy", np.ones((3, 2), np.int64))
    path = folder / "in" / "input_ids.npy"
    path.unlink()
    make(path, folder / "out" / "input_ids.npy")
    return folder / "in"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path, there: path.symlink_to(there), "lies outside"),
        (lambda path, there: path.symlink_to("/dev/zero"), "lies outside"),
        (lambda path, there: os.mkfifo(path), "is a named pipe, not a file"),
        (lambda path, there: path.mkdir(), "is a folder, not a file"),
        (lambda path, there: path.write_bytes(huge()), "cannot be read as an array .array is too big"),
        (lambda path, there: path.write_bytes(there.read_bytes()[:70]), "cannot be read as an array"),
        (lambda path, there: shutil.copy(archive(there, a=IDS), path), "input_ids is no array"),
        (lambda path, there: np.save(path, np.array([{}]), allow_pickle=True), "cannot be read as an array"),
    ],
)
def test_a_column_is_a_whole_regular_file_of_its_folder(tmp_path, make, words):
    with pytest.raises(UsageError, match=words):
        read(outside(tmp_path, make))


def test_a_hard_link_is_a_file(tmp_path):
    assert len(read(outside(tmp_path, lambda path, there: os.link(there, path)))) == 3


@pytest.mark.parametrize("name", ["a.csv", "a.npz", "a"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match="is a named pipe, not a file; give a folder of"):
        read(tmp_path / name)


def test_what_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", input_ids=np.zeros((1000, 8), np.int64))
    monkeypatch.setattr(door, "ARCHIVE_BYTES", 8000)
    with pytest.raises(UsageError, match="when unpacked"):
        read(tmp_path / "a.npz")


def test_a_text_has_a_size(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    monkeypatch.setattr(columns, "TEXT_BYTES", 7)
    with pytest.raises(UsageError, match="MiB of text, at most 0 are read"):
        read(tmp_path / "a.txt", lambda: tokenize)


def test_a_document_is_a_field(tmp_path):
    def few(texts):
        return tokenize(["x" * min(49, len(text)) for text in texts])

    (tmp_path / "a.csv").write_text("text,label\n" + "x" * 200_000 + ",1\n")
    data, limit = read(tmp_path / "a.csv", lambda: few), csv.field_size_limit()
    assert data.inputs["input_ids"][0, 0] == 49 and data.labels.tolist() == [1]
    assert limit == 131072


def test_a_row_has_as_many_real_tokens_as_the_model_has_positions(tmp_path):
    collator = Collator(replace(FORM.profile, longest=3, longest_known=True), "model.onnx")
    path = folder(tmp_path / "set", **COLUMNS)
    with pytest.raises(UsageError, match=r"set: a row has 4 tokens, model\.onnx takes 3; cut them$"):
        read_for(path, [collator])
    np.save(path / "attention_mask.npy", np.tile([1, 1, 1, 0], (6, 1)))
    assert next(read_for(path, [collator])[0].batches(2))["input_ids"].shape == (2, 3)
    read_for(path, [Collator(replace(FORM.profile, longest=2, longest_known=False), "model.onnx")])


def test_labels_are_one_number_each(tmp_path):
    np.savez(tmp_path / "a.npz", input_ids=np.ones((3, 2), int), attention_mask=np.ones((3, 2), int), labels=np.ones((3, 2), int))
    with pytest.raises(UsageError, match=r"labels has shape \[3, 2\], wanted one whole number for each sample"):
        read(tmp_path / "a.npz")


@pytest.fixture
def saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "saved"
    datasets.disable_progress_bars()
    for place in (folder, tmp_path / "other"):
        datasets.Dataset.from_dict({"input_ids": [[1, 2]], "attention_mask": [[1, 1]]}).save_to_disk(place)
    return folder


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([{"filename": "../other/data-00000-of-00001.arrow"}], "lies outside"),
        ([{"filename": "{there}/other/data-00000-of-00001.arrow"}], "lies outside"),
        ([{"filename": "/dev/zero"}], "lies outside"),
        ([{"filename": "nothing.arrow"}], "is not there"),
        ([], "names no files of data"),
        ([3], "names no files of data"),
        (5, "names no files of data"),
        ([{"filename": "dataset_info.json"}], "cannot be read as a folder of the datasets library"),
    ],
)
def test_a_saved_state_leads_nowhere_else(saved, files, words):
    assert len(read(saved)) == 1
    state = json.loads((saved / "state.json").read_text())
    text = json.dumps(state | {"_data_files": files}).replace("{there}", str(saved.parent))
    (saved / "state.json").write_text(text)
    with pytest.raises(UsageError, match=words):
        read(saved)


def test_a_saved_part_is_no_link_out(saved):
    part = next(saved.glob("*.arrow"))
    part.unlink()
    part.symlink_to(next((saved.parent / "other").glob("*.arrow")))
    with pytest.raises(UsageError, match="lies outside"):
        read(saved)
