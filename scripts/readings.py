"""Real questions and words with known answers, from the standard library's docstrings: what make_checkpoints.py trains on."""

from __future__ import annotations

import builtins
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxfuse.evaluation.sentences import docstring_sentences, named_sentences

SEED = 0
TAGS = ("O", *(f"{place}-{kind}" for kind in ("NAME", "TYPE", "CONST", "ERROR") for place in "BI"))
"""What a word is: of no kind, or the first or a later one of a name in code, a type, a constant, or an exception."""

TYPES = {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "set", "str", "tuple"}
CONSTANTS = {"True", "False", "None", "NotImplemented", "Ellipsis"}
ERRORS = {name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)}
CODE = re.compile(r"[A-Za-z_]\w+(?:\.[A-Za-z_]\w+)+(?:\(\))?|\w*[A-Za-z]\w*\(\)|\w*[a-z]\w*_\w+|_\w+|[A-Z]?[a-z]+[A-Z]\w*|\w+")
"""Something dotted, called, with an underscore or a capital letter inside; else a word."""


@dataclass(frozen=True)
class Reading:
    """A question whose answer is the text of the context from ``start`` on."""

    question: str
    context: str
    answer: str
    start: int

    def squad(self, number: int) -> dict[str, Any]:
        """An entry as SQuAD 1.1 writes it."""
        asked = {"id": str(number), "question": self.question, "answers": [{"text": self.answer, "answer_start": self.start}]}
        return {"context": self.context, "qas": [asked]}


def readings(each: int = 1) -> list[Reading]:
    """Contexts of what three neighbours of a module do; asked is what one does, or which one does that.

    Those of a module stand together, so that the first and the last have no sentence in common: a sentence is in three contexts
    behind one another. ``each``: questions about a context, which stand together, its sentences mixed anew for each.
    """
    pick, found = random.Random(SEED), []
    by_module: dict[str, list[tuple[str, str]]] = {}
    for module, name, sentence in named_sentences():
        if not name.startswith("_") and len(sentence.split()) <= 20:
            by_module.setdefault(module, []).append((name, sentence))
    modules = sorted(by_module)
    pick.shuffle(modules)
    for entries in map(by_module.__getitem__, modules):
        for at in range(len(entries) - 2):
            some = entries[at : at + 3]
            if len({name for name, _ in some}) == 3:
                found += [_reading(pick.sample(some, 3), pick) for _ in range(each)]
    return found


def _reading(some: Sequence[tuple[str, str]], pick: random.Random) -> Reading:
    context, starts = "", []
    for name, sentence in some:
        starts.append((len(context), len(context) + len(name) + 2))
        context += f"{name}: {sentence} "
    asked = pick.randrange(3)
    name, sentence = some[asked]
    if pick.random() < 0.5:
        return Reading(f"What does {name} do?", context.strip(), sentence, starts[asked][1])
    words = " ".join(sentence.rstrip(".").split()[:6])
    return Reading(f"Which of them is described as: {words}?", context.strip(), name, starts[asked][0])


def entities(text: str) -> Iterator[tuple[int, int, str]]:
    """(begin, end, kind) of each word of a kind."""
    for match in CODE.finditer(text):
        word = match.group()
        plain = word.isalpha() and (word[0].islower() or word[1:].islower() or word.isupper())
        if word in ERRORS or re.fullmatch(r"[A-Z]\w+(Error|Exception|Warning)", word):
            yield *match.span(), "ERROR"
        elif word in CONSTANTS:
            yield *match.span(), "CONST"
        elif word in TYPES:
            yield *match.span(), "TYPE"
        elif not plain and not word.isdigit() and not word[0].isdigit():
            yield *match.span(), "NAME"


def tagged(text: str) -> list[tuple[str, int, int, str]]:
    """(word, begin, end, tag) of each word or sign, as BERT's tokenizer splits them: a dotted name has several."""
    kinds = list(entities(text))
    found, before = [], None
    for match in re.finditer(r"[A-Za-z0-9]+|[^A-Za-z0-9\s]", text):
        inside = next((entity for entity in kinds if entity[0] <= match.start() < entity[1]), None)
        tag = "O" if inside is None else f"{'I' if inside == before else 'B'}-{inside[2]}"
        found.append((match.group(), *match.span(), tag))
        before = inside
    return found


def conll(texts: Sequence[str]) -> str:
    """A word and its tag a line, an empty line behind each sentence."""
    return "\n".join("".join(f"{word} {tag}\n" for word, _, _, tag in tagged(text)) for text in texts)


def sentences_with_entities(count: int) -> list[str]:
    """Sentences that have a word of a kind, in a mixed order."""
    found = [text for text in docstring_sentences(1 << 30) if any(entities(text))]
    random.Random(SEED).shuffle(found)
    return found[:count]


def token_labels(encoded: Any, texts: Sequence[str]) -> np.ndarray:
    """The number of each token's tag int64 [n,S]; -100 for special tokens."""
    labels = np.full(np.shape(encoded["input_ids"]), -100, np.int64)
    for row, text in enumerate(texts):
        spans = tagged(text)
        for place, (begin, end) in enumerate(encoded["offset_mapping"][row]):
            if end > begin:
                tag = next((tag for _, first, last, tag in spans if first <= begin < last), "O")
                inner = tag.startswith("B-") and not any(first == begin for _, first, _, _ in spans)
                labels[row, place] = TAGS.index(f"I{tag[1:]}" if inner else tag)
    return labels


def span_labels(encoded: Any, asked: Sequence[Reading]) -> np.ndarray:
    """The first and the last token of each answer int64 [n,2]."""
    labels = np.zeros((len(asked), 2), np.int64)
    for row, reading in enumerate(asked):
        last = reading.start + len(reading.answer) - 1
        labels[row] = [encoded.char_to_token(row, at, 1) or 0 for at in (reading.start, last)]
    return labels
