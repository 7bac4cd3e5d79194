"""Data for a model from files and sentences: read once for all models, and why there is none."""

import json
import sys

import numpy as np
import pytest

from onnxfuse.errors import ModelError, UncalibratedError, UsageError
from onnxfuse.evaluation.quality import predict
from onnxfuse.evaluation.sources import DEFAULT_DATA, dataset_for, datasets_for, default_calibration
from onnxfuse.io import onnx_file
from onnxfuse.runtime import open_runner
from tests.conftest import fill, parse
from tests.evaluation.conftest import averaging, saved, tokenizer_files

pytest.importorskip("transformers")


def calibration(path):
    return default_calibration(path, onnx_file.load(path))


def model(folder, *arguments, **more):
    folder.mkdir(exist_ok=True)
    return saved(averaging(*arguments, **more), folder / "model.onnx")


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {
            "ids": "int32[B,S] tokens",
            "mask": "float[B,1,1,S] seen_mask",
            "masked": "q = Constant<value = int64[2] {1, 2}>()  m = Squeeze(seen_mask, q)",
        },
        {"types": "int64[B,S] token_type_ids"},
        {"types": "int32[B,S] segment_ids", "positions": "int64[B,S] position_ids"},
        {"mask": ""},
        {"ids": "int64[1,12] input_ids", "mask": "int64[1,12] attention_mask"},
    ],
)
def test_models_of_any_form_are_calibrated(tmp_path, inputs):
    """The tokenizer gives no token types, and the model's names, types and sizes are its own."""
    path = model(tmp_path, **inputs)
    found = calibration(tokenizer_files(tmp_path, special=True, pad_token="w9") / path.name)
    assert (found.name, len(found)) == (DEFAULT_DATA, 512)
    outputs = predict(open_runner(path), found, 8).joined("y")
    assert outputs.shape == (512, 8)
    assert np.isfinite(outputs).all()


def test_a_mask_that_shuts_out_is_found_out(tmp_path):
    path = model(
        tmp_path, mask="float[B,S] padding_mask", masked="one = Constant<value = float {1.0}>()  m = Sub(one, padding_mask)"
    )
    tokenizer_files(tmp_path, pad_token="w9")
    (tmp_path / "a.txt").write_text("w4 w5\nw6\n")
    data = dataset_for(tmp_path / "a.txt", path)
    assert next(data.batches(2))["padding_mask"].tolist() == [[0, 0], [0, 1]]
    outputs = predict(open_runner(path), data, 2).joined("y")
    np.testing.assert_allclose(predict(open_runner(path), data, 1).joined("y"), outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda folder: [file.unlink() for file in folder.glob("tokenizer*")],
            "no tokenizer lies beside the model; give --calibration DATA to onnxfuse quantize",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("text"), "cannot be used: JSONDecodeError"),
        (lambda folder: tokenizer_files(folder, words=80, unk_token="w60"), "input_ids holds 60, and"),
    ],
)
def test_why_there_is_no_calibration(tmp_path, change, words):
    path = model(tmp_path)
    tokenizer_files(tmp_path, pad_token="w9")
    change(tmp_path)
    with pytest.raises(UncalibratedError) as raised:
        calibration(path)
    assert words in str(raised.value)


def test_without_transformers_nothing_is_calibrated(tmp_path, monkeypatch):
    path = model(tmp_path)
    tokenizer_files(tmp_path, pad_token="w9")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UncalibratedError, match=r"needs packages that are not installed; run: pip install 'onnxfuse\[torch\]'"):
        calibration(path)


def test_a_tokenizer_of_another_model(tmp_path):
    """It knows more words than the model has rows for."""
    path = model(tmp_path)
    tokenizer_files(tmp_path, words=80, pad_token="w9")
    (tmp_path / "few.txt").write_text("w4 w5\n")
    (tmp_path / "more.txt").write_text("w4 w5\nw60\n")
    assert len(dataset_for(tmp_path / "few.txt", path)) == 1
    with pytest.raises(
        ModelError, match=r"the tokenizer beside the model, on .*more.txt: input_ids holds 60, and .*model.onnx knows 0 to 49"
    ):
        dataset_for(tmp_path / "more.txt", path)


def test_what_sentences_cannot_give(tmp_path):
    path = saved(
        fill(parse("g (float[B,4] x, float[4,4] w) => (float[B,4] y) { y = MatMul(x, w) }"), w=(4, 4)), tmp_path / "model.onnx"
    )
    tokenizer_files(tmp_path)
    with pytest.raises(UncalibratedError, match="sentences do not give its x; give --calibration DATA to onnxfuse quantize"):
        calibration(path)
    (tmp_path / "a.txt").write_text("w4\n")
    with pytest.raises(ModelError, match=r"texts do not give the x that .*model.onnx takes"):
        dataset_for(tmp_path / "a.txt", path)


@pytest.mark.parametrize(
    ("config", "limit", "first"),
    [
        ({"pad_token_id": 1, "max_position_embeddings": 18}, 16, 2),
        ({"pad_token_id": 1, "max_position_embeddings": 20, "model_type": "xlm-roberta"}, None, 2),
        ({"pad_token_id": 0, "max_position_embeddings": 16}, 16, 0),
        ({"pad_token_id": 1, "max_position_embeddings": 18}, 17, 0),
        ({}, 16, 0),
        ({"pad_token_id": None, "max_position_embeddings": 18}, 16, 0),
        ({"pad_token_id": 1, "max_position_embeddings": "18"}, 16, 0),
    ],
)
def test_positions_begin_where_the_model_counts_them_from(tmp_path, config, limit, first):
    path = model(tmp_path, positions="int64[B,S] position_ids")
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer_files(tmp_path, pad_token="w1", **{"model_max_length": limit} if limit else {})
    (tmp_path / "a.txt").write_text("w4 w5\nw6\n")
    feeds = next(dataset_for(tmp_path / "a.txt", path).batches(2))
    assert feeds["position_ids"].tolist() == ([[2, 3], [2, 1]] if first else [[0, 1], [0, 1]])


@pytest.mark.parametrize(
    "config", [{"pad_token_id": 4}, {"pad_token_id": None}, {"pad_token_id": 50}, {"pad_token_id": -1}, {"pad_token_id": "4"}]
)
def test_padding_is_what_the_model_says_where_it_has_it(tmp_path, config):
    path = model(tmp_path, mask="")
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "a.txt").write_text("w6 w7\nw8\n")
    data = dataset_for(tmp_path / "a.txt", tokenizer_files(tmp_path, pad_token="w9") / path.name)
    assert data.inputs["input_ids"].tolist() == [[6, 7], [8, 4 if config["pad_token_id"] == 4 else 0]]


def test_a_graph_that_knows_padding_by_its_id_gets_that_id(tmp_path):
    path = model(
        tmp_path,
        mask="",
        masked="three = Constant<value = int64 {3}>()  q = Equal(input_ids, three)  r = Not(q)  m = Cast<to = 1>(r)",
    )
    (tmp_path / "config.json").write_text('{"pad_token_id": 4}')
    (tmp_path / "a.txt").write_text("w6 w7\nw8\n")
    data = dataset_for(tmp_path / "a.txt", tokenizer_files(tmp_path, pad_token="w9") / path.name)
    together, alone = (predict(open_runner(path), data, size).joined("y") for size in (2, 1))
    assert [feeds["input_ids"].tolist() for feeds in data.batches(2)] == [[[6, 7], [8, 3]]]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_several_models_answer_the_same_samples(tmp_path):
    """Of other names, types and sizes, one without a mask; the columns are the first one's."""
    paths = [
        model(tmp_path / "a", "int64[B,S] tokens", "int64[B,S] attention_mask"),
        model(tmp_path / "b", "int32[B,S] input_ids", "bool[B,S] attention_mask"),
        model(tmp_path / "c", "int64[2,S] input_ids", "int64[2,S] attention_mask"),
        model(tmp_path / "d", mask=""),
    ]
    ids = np.random.default_rng(0).integers(2, 50, (7, 6))
    keep = np.arange(6) < np.array([2, 6, 6, 1, 3, 3, 4])[:, None]
    np.savez(tmp_path / "set.npz", tokens=ids, input_ids=ids, attention_mask=keep * 1, labels=np.arange(7))
    found = [
        predict(open_runner(path), data, 4).joined("y")
        for path, data in zip(paths, datasets_for(tmp_path / "set.npz", paths), strict=True)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5, atol=1e-6)
    texts = tmp_path / "set.csv"
    texts.write_text("text,label\nw4 w5,1\nw6,0\nw7 w8 w9,1\n")
    tokenizer_files(tmp_path / "b", pad_token="w9")
    sets = datasets_for(texts, paths)
    assert [data.labels.tolist() for data in sets] == [[1, 0, 1]] * 4
    found = [predict(open_runner(path), data, 4).joined("y") for path, data in zip(paths, sets, strict=True)]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5, atol=1e-6)


def test_what_is_no_graph_takes_what_the_first_graph_takes(tmp_path):
    path = model(tmp_path, "int32[B,S] tokens")
    np.savez(tmp_path / "set.npz", tokens=np.ones((2, 3), int), attention_mask=np.ones((2, 3), int))
    other, same = datasets_for(tmp_path / "set.npz", [tmp_path / "model.tflite", path])
    assert other.collator == same.collator
    with pytest.raises(UsageError, match=r"model.tflite is not there"):
        datasets_for(tmp_path / "set.npz", [tmp_path / "model.tflite"])


def test_the_model_that_lacks_a_column_is_named(tmp_path):
    paths = [
        model(tmp_path / "a"),
        model(tmp_path / "b", "int64[B,S] input_ids", "int64[B,S] attention_mask", "int64[B,S] other_ids"),
    ]
    np.savez(tmp_path / "set.npz", input_ids=np.ones((2, 3), int), attention_mask=np.ones((2, 3), int))
    with pytest.raises(
        UsageError, match=r"set.npz has no column other_ids, which .*b.model.onnx takes; it holds input_ids, attention_mask"
    ):
        datasets_for(tmp_path / "set.npz", paths)


def test_a_column_of_one_number_is_refused(tmp_path):
    np.savez(tmp_path / "set.npz", input_ids=np.ones((2, 3), int), attention_mask=np.ones((2, 3), int), step=np.array(3))
    with pytest.raises(UsageError, match="step is a single number, wanted one for each sample"):
        dataset_for(tmp_path / "set.npz", model(tmp_path))
