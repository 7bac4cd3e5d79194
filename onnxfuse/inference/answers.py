"""Where a context answers a question, as the question-answering pipeline of ``transformers`` 4 found it; 5 has none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxfuse.architecture import OUTPUTS
from onnxfuse.errors import UsageError
from onnxfuse.inference.serving import Serving, require_text, several, softmax

TASKS = ("question-answering",)
OUTS = OUTPUTS[TASKS[0]]

FAR = -10_000.0
"""The logit of a token that is in no answer."""

BATCH = 8
"""Windows in a batch: they are long."""


@dataclass(frozen=True)
class Search:
    """How answers are looked for.

    Args:
        top: how many are given, best first.
        length: tokens of an answer, at most.
        window: tokens of a question with a part of its context, at most.
        stride: tokens that a part has in common with the next.
        none: whether no answer is one.
    """

    top: int
    length: int
    window: int
    stride: int
    none: bool

    def __post_init__(self) -> None:
        """Raises UsageError."""
        for name in ("top", "length", "window", "stride"):
            value = getattr(self, name)
            if type(value) is not int or value < (name != "stride"):
                raise UsageError(f"{name} is {value!r:.40}, wanted a whole number from {int(name != 'stride')}")


def answer(serving: Serving, question: Any, context: Any, search: Search) -> Any:
    """See ``Model.answer``."""
    serving.require("answer", TASKS, *OUTS)
    questions, single = several(question, (str,), "a question")
    contexts, alone = several(context, (str,), "a context")
    if single != alone or len(questions) != len(contexts):
        raise UsageError(f"{len(questions)} questions and {len(contexts)} contexts; give one of each, or lists of one length")
    found = [_found(serving, *pair, f" {number}", search) for number, pair in enumerate(zip(questions, contexts, strict=True), 1)]
    given = [answers if search.top > 1 else answers[0] for answers in found]
    return given[0] if single else given


def _found(serving: Serving, question: Any, context: Any, number: str, search: Search) -> list[dict[str, Any]]:
    """The best answers to one question."""
    for name, text in (("question", question), ("context", context)):
        if not require_text(text, name + number).strip():
            raise UsageError(f"{name}{number} is empty; wanted words")
    found, nothing = candidates(serving, question, context, search)
    none = {"answer": "", "score": nothing if search.none else 0.0, "start": 0, "end": 0}
    found += [none] if search.none or not found else []
    return sorted(found, key=lambda each: -each["score"])[: search.top]


def candidates(serving: Serving, question: str, context: str, search: Search) -> tuple[list[dict[str, Any]], float]:
    """The likeliest answers to a question, those of all windows, the scores of equal ones added; and how likely there is none."""
    tokens = serving.tokens
    length = min(search.window, tokens.longest)
    windows = tokens.windows(question, context, length, min(search.stride, length // 2))
    outputs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for places, rows, ran in serving.of_tokens([window for window, _ in windows], BATCH):
        assert rows.keep is not None
        for row, place in enumerate(places):
            start, end = (ran[name][row, : rows.keep.shape[1]][rows.keep[row]] for name in OUTS)
            outputs[place] = start, end
    answers: dict[str, dict[str, Any]] = {}
    nothing = np.inf
    for place, (window, inside) in enumerate(windows):
        can = inside | (np.array(window.ids) == tokens.named.get("cls_token"))
        start, end, null = _probabilities(can, *outputs[place])
        nothing = min(nothing, null)
        for first, last, score in _spans(start, end, search):
            begin, stop = _characters(window, inside, first, last)
            text = context[begin:stop]
            known = answers.setdefault(text.lower(), {"answer": text, "score": 0.0, "start": begin, "end": stop})
            known["score"] += score
    return list(answers.values()), float(nothing)


def _probabilities(can: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """How likely an answer begins and ends at each token [S], 0 where none can; and that of no answer, which the first token
    stands for."""
    start, end = (softmax(np.where(can, logits.astype(np.float32), np.float32(FAR))) for logits in (start, end))
    null = float(start[0] * end[0])
    start[0] = end[0] = 0
    return np.where(can, start, 0), np.where(can, end, 0), null


def _spans(start: np.ndarray, end: np.ndarray, search: Search) -> Iterator[tuple[int, int, float]]:
    """First and last tokens of the likeliest spans, and how likely each is; more than are asked for, since some are one word."""
    scores = np.tril(np.triu(np.outer(start, end)), search.length - 1)
    best = np.argsort(-scores, axis=None, kind="stable")[: 2 * search.top + 10]
    for first, last in zip(*np.unravel_index(best, scores.shape), strict=True):
        if scores[first, last] > 0:
            yield int(first), int(last), float(scores[first, last])


def _characters(window: Any, inside: np.ndarray, first: int, last: int) -> tuple[int, int]:
    """Begin and end in the context of the words that these tokens are of, or of the tokens where words are not told."""
    words = [window.word_ids[token] for token in (first, last)]
    if None not in words:  # a word's tokens that another window has do not count
        spans = [[at for at, word in enumerate(window.word_ids) if word == wanted and inside[at]] for wanted in words]
        first, last = (spans[0] or [first])[0], (spans[1] or [last])[-1]
    return int(window.offsets[first][0]), int(window.offsets[last][1])
