"""Answers beside the right ones, by SQuAD's own rules.

Source: the rules of SQuAD's official evaluation, versions 1.1 and 2.0: answers are compared in small letters, without
punctuation, articles and runs of spaces; of several right ones the best counts; a question without an answer is right when
nothing is answered.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

ARTICLES = re.compile(r"\b(a|an|the)\b")

MARKS = str.maketrans("", "", string.punctuation)


def plain(answer: str) -> str:
    """An answer as it is compared."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(MARKS)).split())


def exact(answer: str, right: Sequence[str]) -> float:
    """1 where an answer is one of the right ones, else 0."""
    return float(plain(answer) in {plain(each) for each in right})


def overlap(answer: str, right: Sequence[str]) -> float:
    """F1 of an answer's words beside those of the right one that it is nearest to, 0 to 1."""
    return max(_overlap(plain(answer).split(), plain(each).split()) for each in right)


def _overlap(seen: Sequence[str], wanted: Sequence[str]) -> float:
    if not seen or not wanted:
        return float(seen == wanted)
    common = sum((Counter(seen) & Counter(wanted)).values())
    return 2 * common / (len(seen) + len(wanted))


def wanted(texts: Sequence[str]) -> list[str]:
    """The right answers that are compared: those that are more than punctuation; nothing where there are none."""
    return [each for each in texts if plain(each)] or [""]


def best_threshold(answered: np.ndarray, nothing: np.ndarray, surplus: np.ndarray) -> tuple[float, float]:
    """The score with the best threshold for answering nothing, and that threshold.

    Args:
        answered: each question's score where its answer is given [n].
        nothing: the same where nothing is answered [n].
        surplus: how much more the model believes in no answer than in its answer [n]; above the threshold, nothing is answered.
    """
    order = np.argsort(surplus, kind="stable")
    totals = np.concatenate([[nothing.sum()], nothing.sum() + np.cumsum((answered - nothing)[order])])
    last = np.append(surplus[order][1:] != surplus[order][:-1], True)  # those of one surplus are answered together
    allowed = np.concatenate([[True], last])
    at = int(np.argmax(np.where(allowed, totals, -np.inf)))
    return float(totals[at] / len(surplus)), float(surplus[order][at - 1]) if at else float("-inf")
