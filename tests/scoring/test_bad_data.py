"""Data that cannot be evaluated: one line, exit code 2, and nothing left behind."""

import json

import datasets
import pytest

import onnxfuse
from onnxfuse.config import QuantizeConfig
from onnxfuse.errors import UsageError
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.scoring.rows import open_source
from tests.cli.test_cli import expect_one_line

KINDS = ["O", "B-PER", "I-PER"]
CONLL = "EU NNP B-PER\nrejects VBZ O\n\nPeter NNP B-PER\n"


def text(content):
    return lambda path: path.write_text(content)


FILES = {
    "wrong columns.csv": (
        text("title,stars\na,1\n"),
        "holds title, stars, and no column of texts; call it sentence1 and sentence2 or ",
    ),
    "no labels.csv": (text("text,id\na,1\n"), "holds text, id, and no column of labels; call it label or labels or "),
    "unknown.csv": (text("text,label\na,0\nb,maybe\n"), "row 2 has the label 'maybe', and the model has no, yes"),
    "too many.jsonl": (text('{"text": "a", "label": 2}\n'), "row 1 has the label '2', and the model has no, yes"),
    "secret.tsv": (text("sentence\tlabel\na\t-1\n"), "row 1 has no label (-1); leave such rows out"),
    "null.jsonl": (text('{"text": "a", "label": null}\n'), "row 1 has no label (None); leave such rows out"),
    "lacking.conll": (text("EU NNP B-PER\nrejects VBZ\n"), "line 2: 'rejects VBZ' does not end with a tag"),
    "words.conll": (text(CONLL), "holds tokens, tags, and no column of texts"),
    "words.txt": (text(CONLL), "holds tokens, tags, and no column of texts"),
    "halved.tsv": (text("sentence\tlabel\na b\n"), "line 2: 1 fields, the first has 2"),
    "binary.csv": (lambda path: path.write_bytes(bytes(range(256)) * 4), "cannot be read as a table"),
    "open quote.csv": (text('text,label\na,0\n"b,1\nc,0\n'), "cannot be read as a table (unexpected end of data"),
    "empty.csv": (text(""), "holds no samples"),
    "header.tsv": (text("sentence\tlabel\n"), "holds no samples"),
    "empty.json": (text("[]"), "holds no samples"),
    "object.json": (text('{"rows": 3}'), "holds a JSON dict, wanted a list of objects, or one under data"),
    "broken.json": (text('{"data": [{"paragraphs": [{"context": "a"}]}]}'), "is not as SQuAD writes it", "'qas'"),
    "list.jsonl": (text("[1]\n"), "line 1: a JSON list, wanted an object"),
    "text.parquet": (text("no parquet"), "cannot be read as a data set"),
    "numbers.jsonl": (text('{"text": 3, "label": 0}\n'), "row 1 has int in text, wanted a text"),
    "model.bin": (text("x"), "is in no form that is read; save it as .csv, .tsv"),
    "twice.csv": (text("text,text\na,b\n"), "has two columns of one name"),
    "folder": (lambda path: path.mkdir(), "holds no images in folders of classes"),
}


@pytest.mark.parametrize("name", FILES)
def test_one_line(cli, made, tmp_path, name):
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    write, *words = FILES[name]
    write(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    result = cli("evaluate", folder, "--data", tmp_path / name)
    for said in words:
        expect_one_line(result, 2, said)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_not_there(cli, made):
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    expect_one_line(cli("evaluate", folder, "--data", "nowhere/else.csv"), 2, "nowhere/else.csv")
    expect_one_line(
        cli("evaluate", folder, "--data", "glue:mrpc"), 2, "glue:mrpc is not there, and the hub cannot be asked for it"
    )


def test_data_of_another_task(cli, made, tmp_path):
    (tmp_path / "pairs.csv").write_text("text,label\na,0\n")
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": "a b", "qas": []}]}]}))
    (tmp_path / "odd.jsonl").write_text('{"tokens": ["a", "b"], "tags": ["O"]}\n')
    _, tagger = made("bert", "BertForTokenClassification", KINDS)
    _, reader = made("bert", "BertForQuestionAnswering", 2, pairs=True)
    expect_one_line(
        cli("evaluate", tagger, "--data", tmp_path / "pairs.csv"),
        2,
        "holds text, label, and no column of words; call it tokens or words",
    )
    expect_one_line(
        cli("evaluate", tagger, "--data", tmp_path / "odd.jsonl"), 2, "row 1 has no list of words with a tag for each"
    )
    expect_one_line(
        cli("evaluate", reader, "--data", tmp_path / "pairs.csv"),
        2,
        "holds text, label, and no column of questions; call it question",
    )
    expect_one_line(cli("evaluate", reader, "--data", tmp_path / "squad.json"), 2, "holds no samples")
    asked = [{"id": "1", "question": "what " * 90, "answers": [{"text": "a", "answer_start": 0}]}]
    (tmp_path / "long.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": "a b", "qas": asked}]}]}))
    expect_one_line(cli("evaluate", reader, "--data", tmp_path / "long.json"), 2, "row 1: the question has 360 tokens")


def test_a_model_without_a_task_that_is_evaluated(cli, made, tmp_path):
    (tmp_path / "pairs.csv").write_text("text,label\na,0\n")
    _, folder = made("bert", "BertForMaskedLM")
    expect_one_line(
        cli("evaluate", folder, "--data", tmp_path / "pairs.csv"), 2, "was exported for fill-mask; labelled data are for "
    )


def test_names_of_the_data_that_the_model_has_not_are_never_taken_by_their_order(cli, made, tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["yes", "never"])})
    rows = {"text": ["a", "b"], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "d.parquet")
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    result = cli("evaluate", folder, "--data", tmp_path / "d.parquet")
    expect_one_line(result, 2, "row 2 has the label 'never', and the model has no, yes")


def test_a_split_that_is_not_there(cli, made, tmp_path):
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    table = datasets.Dataset.from_dict({"text": ["a"], "label": [0]})
    datasets.DatasetDict(test=table, train=table).save_to_disk(tmp_path / "splits")
    (tmp_path / "d.csv").write_text("text,label\na,0\n")
    expect_one_line(cli("evaluate", folder, "--data", tmp_path / "splits"), 2, "holds splits; give the folder of one, or --split")
    for data, split, said in (
        ("splits", "dev", "has no split 'dev'; choose one of test, train"),
        ("d.csv", "test", "has no split 'test'; leave --split out"),
    ):
        expect_one_line(cli("evaluate", folder, "--data", tmp_path / data, "--split", split), 2, said)


def test_several_numbers_for_a_text_are_not_one(made, tmp_path):
    """Of which only the first would be judged."""
    _, folder = made("bert", "BertForSequenceClassification", 3, pairs=True)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"problem_type": "regression"}))
    (tmp_path / "d.csv").write_text("sentence1,sentence2,score\na,b,0.5\n")
    with pytest.raises(UsageError, match="gives 3 numbers for a text"):
        onnxfuse.evaluate(tmp_path / "model.onnx", tmp_path / "d.csv", rounds=1)


def test_words_with_tags_do_not_calibrate(made, tmp_path):
    """They would be read as a sentence each."""
    (tmp_path / "words.txt").write_text(CONLL * 3)
    _, folder = made("bert", "BertForSequenceClassification", ["no", "yes"])
    with pytest.raises(UsageError, match=r"holds words with tags \(CoNLL\), wanted a text on each line"):
        quantize(QuantizeConfig(folder / "model.onnx", tmp_path / "q.onnx", calibration=str(tmp_path / "words.txt")))
    (tmp_path / "texts.txt").write_text("Vitamin B-12\nis in O\n\nsome of them\n")
    (found,) = onnxfuse.evaluate(folder / "model.onnx", tmp_path / "texts.txt", rounds=1).rows.values()
    assert (found.count, found.metrics, found.agreement) == (3, {}, 1.0), "texts without labels show closeness alone"


def test_images_that_lead_out_of_their_folder(tmp_path):
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "images" / "cat" / "one.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UsageError, match="outside"):
        open_source(str(tmp_path / "images"))
