"""Files in the forms that data sets are published in: every figure equals one that is computed without onnxfuse."""

import csv
import json

import datasets
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
import transformers
from PIL import Image

from onnxfuse.config import BenchmarkConfig
from onnxfuse.pipeline.evaluate import evaluate

ROWS = 120
PLAN = BenchmarkConfig(batch=16, rounds=1)


def write_tsv(path, names, rows, mark=False):
    """As GLUE writes them: quotes are letters."""
    lines = ["\t".join(map(str, row)) for row in ([names] if names else []) + rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig" if mark else "utf-8")
    return path


def write_csv(path, names, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def write_lines(path, names, rows):
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    return path


def logits_of(source, texts, head="AutoModelForSequenceClassification"):
    """PyTorch's logits of texts or pairs, one at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = getattr(transformers, head).from_pretrained(source).eval()
    found = []
    with torch.no_grad():
        for text in texts:
            pair = text if isinstance(text, tuple) else (text,)
            found.append(model(**tokenizer(*pair, truncation=True, return_tensors="pt")).logits[0].numpy())
    return np.array(found)


def figures(folder, data, split=""):
    (found,) = evaluate([folder / "model.onnx"], data, PLAN, split=split).rows.values()
    assert found.count > 0
    for metric in found.metrics.values():
        assert np.isnan(metric.low) or metric.low <= metric.value <= metric.high
    return {name: metric.value for name, metric in found.metrics.items()}


def of_classes(labels, predicted):
    found = {
        "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
        "f1_macro": sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0),
        "matthews": sklearn.metrics.matthews_corrcoef(labels, predicted),
    }
    return found | ({"f1": sklearn.metrics.f1_score(labels, predicted)} if max(labels) == 1 else {})


def test_mrpc(made, sentences, pick, tmp_path):
    """Pairs with BOM, ids beside them and quotes that nothing closes; F1 is of the positive class."""
    source, folder = made("bert", "BertForSequenceClassification", 2, pairs=True)
    pairs = [(pick.choice(sentences), pick.choice(sentences)) for _ in range(ROWS)]
    labels = [pick.randrange(2) for _ in pairs]
    names = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
    rows = [[label, at, at + 1, *pair] for at, (label, pair) in enumerate(zip(labels, pairs, strict=True))]
    path = write_tsv(tmp_path / "msr_paraphrase_test.tsv", names, rows, mark=True)
    predicted = logits_of(source, pairs).argmax(axis=1)
    assert len(set(predicted)) == 2
    assert figures(folder, path) == pytest.approx(of_classes(labels, predicted))


@pytest.mark.parametrize("written", ["tsv", "csv", "jsonl", "json", "parquet", "arrow", "saved", "splits", "cola"])
def test_sst2_in_every_form(made, sentences, pick, tmp_path, written):
    source, folder = made("bert", "BertForSequenceClassification", 2)
    texts = sentences[:ROWS]
    labels = [pick.randrange(2) for _ in texts]
    rows = [list(row) for row in zip(texts, labels, strict=True)]
    path = tmp_path / f"dev.{'tsv' if written == 'cola' else written}"
    names = ["sentence", "label"]
    if written == "cola":
        write_tsv(path, None, [["gj04", label, "*" if label else "", text] for text, label in rows])
    elif written in ("tsv", "csv", "jsonl"):
        {"tsv": write_tsv, "csv": write_csv, "jsonl": write_lines}[written](path, names, rows)
    elif written == "json":
        path.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    else:
        features = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
        table = datasets.Dataset.from_dict({"sentence": texts, "label": labels}, features=features)
        if written == "parquet":
            table.to_parquet(path)
        elif written == "splits":
            datasets.DatasetDict(train=table.select([0]), test=table).save_to_disk(path)
        else:
            table.save_to_disk(tmp_path / "saved")
            path = tmp_path / "saved" if written == "saved" else next((tmp_path / "saved").glob("*.arrow"))
    predicted = logits_of(source, texts).argmax(axis=1)
    assert figures(folder, path, "test" if written == "splits" else "") == pytest.approx(of_classes(labels, predicted))


def test_stsb(made, sentences, pick, tmp_path):
    source, folder = made("bert", "BertForSequenceClassification", 1, pairs=True)
    pairs = [(pick.choice(sentences), pick.choice(sentences)) for _ in range(ROWS)]
    wanted = [round(pick.random() * 5, 3) for _ in pairs]
    names = ["index", "genre", "sentence1", "sentence2", "score"]
    rows = [[at, "news", *pair, score] for at, (pair, score) in enumerate(zip(pairs, wanted, strict=True))]
    given = logits_of(source, pairs)[:, 0]
    assert figures(folder, write_tsv(tmp_path / "sts.tsv", names, rows)) == pytest.approx(
        {"pearson": scipy.stats.pearsonr(wanted, given).statistic, "spearman": scipy.stats.spearmanr(wanted, given).statistic},
        abs=1e-6,
    )


@pytest.mark.parametrize("form", ["names", "numbers of the data", "numbers of the model"])
def test_labels_are_what_the_config_calls_them(made, sentences, pick, tmp_path, form):
    """The data's classes stand in another order than the model's."""
    ours = ["contradiction", "neutral", "entailment"]
    source, folder = made("bert", "BertForSequenceClassification", ours, pairs=True)
    theirs = ["entailment", "neutral", "contradiction"]
    pairs = [(pick.choice(sentences), pick.choice(sentences)) for _ in range(ROWS)]
    names = [pick.choice(theirs) for _ in pairs]
    right = [ours.index(name) for name in names]
    columns = {"premise": [a for a, _ in pairs], "hypothesis": [b for _, b in pairs]}
    if form == "names":
        path = write_csv(
            tmp_path / "mnli.csv",
            [*columns, "gold_label"],
            [[*pair, name.upper()] for pair, name in zip(pairs, names, strict=True)],
        )
    elif form == "numbers of the data":
        features = datasets.Features(
            {**dict.fromkeys(columns, datasets.Value("string")), "label": datasets.ClassLabel(names=theirs)}
        )
        path = tmp_path / "mnli.parquet"
        datasets.Dataset.from_dict(columns | {"label": [theirs.index(name) for name in names]}, features=features).to_parquet(
            path
        )
    else:
        path = write_lines(
            tmp_path / "mnli.jsonl", [*columns, "label"], [[*pair, label] for pair, label in zip(pairs, right, strict=True)]
        )
    predicted = logits_of(source, pairs).argmax(axis=1)
    assert len(set(predicted)) > 1
    assert figures(folder, path) == pytest.approx(of_classes(right, predicted))


def test_pairs_with_scores_for_embeddings(made, sentences, pick, tmp_path):
    source, folder = made("bert", "BertModel", task="sentence-similarity")
    pairs = [(pick.choice(sentences), pick.choice(sentences)) for _ in range(ROWS)]
    wanted = [pick.random() for _ in pairs]
    path = write_csv(
        tmp_path / "pairs.csv", ["sentence1", "sentence2", "score"], [[*p, s] for p, s in zip(pairs, wanted, strict=True)]
    )
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(source), transformers.AutoModel.from_pretrained(source).eval()

    def embedded(text):
        with torch.no_grad():
            return model(**tokenizer(text, truncation=True, return_tensors="pt")).last_hidden_state[0].mean(dim=0).numpy()

    cosines = [1 - scipy.spatial.distance.cosine(embedded(a), embedded(b)) for a, b in pairs]
    assert figures(folder, path) == pytest.approx(
        {
            "pearson": scipy.stats.pearsonr(wanted, cosines).statistic,
            "spearman": scipy.stats.spearmanr(wanted, cosines).statistic,
        },
        abs=1e-4,
    )


KINDS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@pytest.mark.parametrize("form", ["conll", "txt", "parquet"])
def test_conll(made, sentences, pick, tmp_path, form):
    """Words with tags; of a word the first token's class counts; seqeval is the judge."""
    seqeval = pytest.importorskip("seqeval.metrics")
    source, folder = made("bert", "BertForTokenClassification", KINDS)
    texts = [text.split()[:8] for text in sentences[:ROWS]]
    right = [[pick.choice(KINDS) for _ in words] for words in texts]
    if form == "parquet":
        tags = datasets.Sequence(datasets.ClassLabel(names=KINDS[::-1]))
        features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": tags})
        numbers = [[KINDS[::-1].index(tag) for tag in row] for row in right]
        path = tmp_path / "ner.parquet"
        datasets.Dataset.from_dict({"tokens": texts, "ner_tags": numbers}, features=features).to_parquet(path)
    else:
        path = tmp_path / f"eng.{form}"
        blocks = [
            "\n".join(f"{word} NN B-NP {tag}" for word, tag in zip(*row, strict=True)) for row in zip(texts, right, strict=True)
        ]
        path.write_text("-DOCSTART- -X- -X- O\n\n" + "\n\n".join(blocks) + "\n")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForTokenClassification.from_pretrained(source).eval()
    predicted = []
    for words in texts:
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            classes = model(**encoded).logits[0].argmax(dim=1).tolist()
        ids = encoded.word_ids()
        predicted.append([KINDS[classes[ids.index(at)]] if at in ids else "O" for at in range(len(words))])
    assert figures(folder, path) == pytest.approx(
        {
            "f1": seqeval.f1_score(right, predicted),
            "precision": seqeval.precision_score(right, predicted),
            "recall": seqeval.recall_score(right, predicted),
            "accuracy": seqeval.accuracy_score(right, predicted),
        }
    )


def test_a_folder_of_images(made, pick, tmp_path):
    """Classes go by the model's names, not by the order of the folders."""
    names = ["owl", "cat", "dog", "ant", "bee", "fox", "elk"]
    source, folder = made("vit", "ViTForImageClassification", names)
    files, right = [], []
    for at in range(60):
        number = pick.randrange(len(names))
        place = tmp_path / "images" / names[number]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(at).integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{at}.png")
        files.append(place / f"{at}.png")
        right.append(number)
    processor = transformers.AutoImageProcessor.from_pretrained(source, use_fast=False)
    model = transformers.AutoModelForImageClassification.from_pretrained(source).eval()
    with torch.no_grad():
        logits = [model(**processor(Image.open(file), return_tensors="pt")).logits[0].numpy() for file in files]
    predicted = np.argmax(logits, axis=1)
    found = figures(folder, tmp_path / "images")
    assert found == pytest.approx(
        {
            "accuracy": sklearn.metrics.accuracy_score(right, predicted),
            "top_5": sklearn.metrics.top_k_accuracy_score(right, np.array(logits), k=5, labels=range(len(names))),
            "f1_macro": sklearn.metrics.f1_score(right, predicted, average="macro", zero_division=0),
        }
    )
