"""Words with tags: entities, as CoNLL and seqeval count them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxfuse.errors import UsageError
from onnxfuse.inference.serving import LOGITS, Serving
from onnxfuse.scoring import metrics
from onnxfuse.scoring.metrics import Metric
from onnxfuse.scoring.rows import TAGS, WORDS
from onnxfuse.scoring.source import Row, Source
from onnxfuse.scoring.task import Answer, Labels, Reader, Sample, Task, column_of

OUTSIDE = "O"

TAGGED = (TAGS, "ner_tags", "labels", "pos_tags", "chunk_tags")
"""The columns of tags; the first that is there."""


def reader(serving: Serving, source: Source) -> Reader:
    words, tags = column_of(source, "words", (WORDS, "words")), column_of(source, "tags", TAGGED)
    labels = Labels.of(serving, source.classes.get(tags, ()))

    def read(row: Row, where: str) -> Sample:
        given, marks = row.get(words), row.get(tags)
        if not isinstance(given, list) or not isinstance(marks, list) or len(given) != len(marks) or not given:
            raise UsageError(f"{where} has no list of words with a tag for each; correct it")
        if odd := next((word for word in given if not isinstance(word, str)), None):
            raise UsageError(f"{where} has {odd!r:.60} among its words, wanted texts")
        return Sample(where, given, [labels.names[labels.number(mark, where)] for mark in marks])

    return read


def answers(serving: Serving, samples: Sequence[Sample], batch: int) -> list[Answer]:
    names = Labels.of(serving).names
    made = serving.tokens.of_words([sample.asked for sample in samples])
    found: list[Answer | None] = [None] * len(samples)
    for places, rows, outputs in serving.of_tokens(made, batch):
        assert rows.keep is not None
        for row, place in enumerate(places):
            logits = outputs[LOGITS][row, : rows.keep.shape[1]][rows.keep[row]].astype(np.float64)
            found[place] = _answer(samples[place], made[place], logits, names)
    return [each for each in found if each is not None]


def _answer(sample: Sample, made: Any, logits: np.ndarray, names: Sequence[str]) -> Answer:
    """A word has the class of its first token; one without a token, or behind the cut, is of no kind."""
    first: dict[int, int] = {}
    for at, word in enumerate(made.word_ids):
        if word is not None:
            first.setdefault(word, at)
    read = [first[word] for word in range(len(sample.asked)) if word in first]
    said = tuple(names[int(logits[first[word]].argmax())] if word in first else OUTSIDE for word in range(len(sample.asked)))
    seen, there = entities(said), entities(sample.right)
    hits = sum(mark == tag for mark, tag in zip(said, sample.right, strict=True))
    return Answer((len(seen & there), len(seen), len(there), hits, len(said)), said, logits[read].reshape(-1))


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Kind, begin and end of each entity.

    Source: the rules of conlleval, which seqeval has by default: B and S begin one; I and E do so behind another kind, or
    behind O, E or S; all of one kind in a row are one.
    """
    found, kind, begin, last = set(), "", 0, OUTSIDE
    for at, tag in enumerate([*tags, OUTSIDE]):
        place, _, name = tag.partition("-")
        starts = place in ("B", "S") or (place in ("I", "E") and (last in (OUTSIDE, "E", "S") or name != kind))
        if last != OUTSIDE and (starts or place == OUTSIDE):
            found.add((kind, begin, at))
        if starts:
            kind, begin = name, at
        last = place
    return found


def figures(serving: Serving, kept: np.ndarray) -> Mapping[str, Metric]:
    found = metrics.of_entities(*kept[:, :3].T)
    return {"f1": found["f1"], **found, "accuracy": metrics.share(int(kept[:, 3].sum()), int(kept[:, 4].sum()))}


TASK = Task("token-classification", reader, answers, figures, lambda kept: kept[:, 3] == kept[:, 4])
