"""Train models from what every machine has, so that accuracy can be measured without a download.

digits-vit    a small ViT on scikit-learn's handwritten digits
docs-bert     all-MiniLM-L6-v2 with a head that tells which module of the standard library a docstring's sentence is from
docs-bert-outliers    the same function, with channels of one layer made hundreds of times as large as the others
docs-reader   all-MiniLM-L6-v2 with a head that finds in a text what a function does, or which one does that
docs-tagger   the same with a head for words: names in code, types, constants, exceptions, each with its begin (BIO)
docs-filler   the same with a head for masked words

Each folder under OUT is a checkpoint as transformers saves it, with a tokenizer where it reads texts, its test set in test/ and
training inputs in calibration/: one .npy file for each input, and what is right in labels.npy (of spans start_positions.npy and
end_positions.npy, of tokens tags.npy, -100 where nothing is asked). The texts of the test set lie beside it: test/texts.txt, of
docs-bert with their labels in test/texts.csv, of the reader test/squad.json as SQuAD 1.1 has it, of the tagger test/words.conll.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from onnxfuse.evaluation.sentences import docstring_sentences, sentences_by_module

sys.path.insert(0, str(Path(__file__).parent))
from demo import minilm
from readings import TAGS, Reading, conll, readings, sentences_with_entities, span_labels, token_labels
from training import Arrays, Samples, Trained, fit

SEED, CALIBRATION = 0, 1000
MADE = "trained.txt"
"""The last file of a checkpoint that is whole: how good it is."""


def tokenized(texts: list[str], length: int) -> Arrays:
    """Texts as MiniLM takes them, of at most ``length`` tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    return dict(tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="np"))


def chosen(encoded: Any, index: Any) -> Arrays:
    """Some rows of a model's inputs."""
    return {name: encoded[name][index].astype(np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}


def labelled(texts: Iterable[str], labels: Iterable[str]) -> str:
    """A table of text and label, as data sets are published."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("text", "label"), *zip(texts, labels, strict=True)])
    return table.getvalue()


def lines(texts: Iterable[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def digits(log: Console) -> Trained:
    """A ViT of three layers on 8 x 8 pixels, 2 x 2 to a patch."""
    data = load_digits()
    pixels = ((data.images / 8) - 1).astype(np.float32)[:, None]
    first, second, labels, wanted = train_test_split(pixels, data.target, test_size=0.25, random_state=SEED, stratify=data.target)
    train, test = (Samples({"pixel_values": some}, {"labels": right}) for some, right in ((first, labels), (second, wanted)))
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        num_labels=10,
        initializer_range=0.05,
    )
    model = transformers.ViTForImageClassification(config)
    fit(model, train, epochs=50, batch=64, rate=1e-3, noise=0.2, log=log)
    return Trained(model, train, test)


def docs(log: Console, fewest: int = 140, most: int = 250) -> Trained:
    """MiniLM, tuned to tell the modules with the most sentences apart."""
    found = {name: texts[:most] for name, texts in sentences_by_module().items() if len(texts) >= fewest}
    names = sorted(found)
    texts = [text for name in names for text in found[name]]
    classes = np.repeat(np.arange(len(names)), [len(found[name]) for name in names])
    tokens = tokenized(texts, 48)
    order = train_test_split(np.arange(len(texts)), test_size=0.5, random_state=SEED, stratify=classes)
    train, test = (Samples(chosen(tokens, index), {"labels": classes[index]}) for index in order)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        minilm(), num_labels=len(names), id2label=dict(enumerate(names)), label2id={name: at for at, name in enumerate(names)}
    )
    fit(model, train, epochs=3, batch=32, rate=1e-4, log=log)
    tested = [texts[at] for at in order[1]]
    table = labelled(tested, [names[at] for at in classes[order[1]]])
    return Trained(model, train, test, {"texts.txt": lines(tested), "texts.csv": table}, minilm())


def reader(log: Console, count: int = 5000, tests: int = 500, each: int = 3) -> Trained:
    """MiniLM, tuned to find answers: ``each`` questions about a context teach more than the same one seen again."""
    test, kept = _asked(asked := readings(), tests)
    begin = int(kept[-1]) + 3  # of contexts without a sentence of the test's
    more = readings(each)[begin * each :]
    train, _ = _asked([more[at] for at in np.random.default_rng(SEED).permutation(len(more))[:count]])
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(minilm())
    fit(model, train, epochs=1, batch=8, rate=2e-4, log=log)
    entries = [asked[at].squad(int(at)) for at in kept]
    squad = {"version": "1.1", "data": [{"title": "the standard library", "paragraphs": entries}]}
    return Trained(model, train, test, {"squad.json": json.dumps(squad, indent=1)}, minilm())


def _asked(asked: list[Reading], most: int | None = None) -> tuple[Samples, np.ndarray]:
    """Questions as MiniLM takes them, without those whose answer was cut off, and the places of those that are left."""
    encoded = transformers.AutoTokenizer.from_pretrained(minilm())(
        *([getattr(each, name) for each in asked] for name in ("question", "context")),
        padding=True,
        truncation="only_second",
        max_length=128,
        return_tensors="np",
    )
    starts, ends = span_labels(encoded, asked).T
    kept = np.flatnonzero((starts > 0) & (ends > 0))[:most]
    return Samples(chosen(encoded, kept), {"start_positions": starts[kept], "end_positions": ends[kept]}), kept


def tagger(log: Console, count: int = 1400, tests: int = 600) -> Trained:
    """MiniLM, tuned to tell what a word is."""
    texts = sentences_with_entities(count + tests)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=64, return_offsets_mapping=True, return_tensors="np")
    tags = token_labels(encoded, texts)
    train, test = (
        Samples(chosen(encoded, index), {"tags": tags[index]})
        for index in (np.arange(tests, len(texts)), np.arange(min(tests, len(texts))))
    )
    model = transformers.AutoModelForTokenClassification.from_pretrained(
        minilm(), num_labels=len(TAGS), id2label=dict(enumerate(TAGS)), label2id={name: at for at, name in enumerate(TAGS)}
    )
    fit(model, train, epochs=2, batch=16, rate=3e-4, log=log)
    return Trained(model, train, test, {"texts.txt": lines(texts[:tests]), "words.conll": conll(texts[:tests])}, minilm())


def filler(log: Console, count: int = 1600, tests: int = 600) -> Trained:
    """MiniLM, tuned to guess one token in seven."""
    texts = list(docstring_sentences(1 << 30))
    pick = np.random.default_rng(SEED)
    texts = [texts[at] for at in pick.permutation(len(texts))[: count + tests]]
    tokens, mask = tokenized(texts, 40), transformers.AutoTokenizer.from_pretrained(minilm()).mask_token_id
    ids, places = tokens["input_ids"], np.cumsum(tokens["attention_mask"], 1)
    inner = (places > 1) & (places < places[:, -1:]) & (tokens["attention_mask"] > 0)
    masked = inner & (pick.random(ids.shape) < 1 / 7)
    masked[:tests] = False
    for row in range(min(tests, len(texts))):
        masked[row, pick.choice(np.flatnonzero(inner[row]))] = True
    shown = dict(tokens) | {"input_ids": np.where(masked, mask, ids)}
    wanted = np.where(masked, ids, -100)
    train, test = (Samples(chosen(shown, part), {"tags": wanted[part]}) for part in (slice(tests, None), slice(0, tests)))
    model = transformers.AutoModelForMaskedLM.from_pretrained(minilm())
    fit(model, train, epochs=1, batch=16, rate=4e-4, log=log)
    return Trained(model, train, test, {"texts.txt": lines(texts[:tests])}, minilm())


def add_outliers(model: torch.nn.Module, layer: int = 2, channels: tuple[int, ...] = (5, 70, 200), factor: float = 300.0) -> None:
    """Make channels of a layer's values, and so of its context, larger, and what reads them smaller: the function stays."""
    attention = model.bert.encoder.layer[layer].attention
    index = list(channels)
    with torch.no_grad():
        attention.self.value.weight[index] *= factor
        attention.self.value.bias[index] *= factor
        attention.output.dense.weight[:, index] /= factor


MODELS: dict[str, Callable[[Console], Trained]] = {
    "digits-vit": digits,
    "docs-bert": docs,
    "docs-reader": reader,
    "docs-tagger": tagger,
    "docs-filler": filler,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", choices=list(MODELS), action="append", help="this one alone; may be given several times")
    parser.add_argument("--keep", action="store_true", help="leave alone what is trained already")
    arguments = parser.parse_args()
    log = Console(stderr=True)
    for name in arguments.only or MODELS:
        if arguments.keep and (arguments.output / name / MADE).is_file():
            continue
        start = time.perf_counter()
        torch.manual_seed(SEED)
        log.print(f"training {name}")
        trained = MODELS[name](log)
        said = trained.score()
        trained.save(arguments.output / name, CALIBRATION)
        if name == "docs-bert":
            add_outliers(trained.model)
            trained.save(arguments.output / f"{name}-outliers", CALIBRATION)
        (arguments.output / name / MADE).write_text(f"{said}\n", encoding="utf-8")
        sys.stdout.write(f"{name}: {said} on {len(trained.test)} test samples, {time.perf_counter() - start:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
