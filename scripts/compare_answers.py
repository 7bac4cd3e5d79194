"""Hold ``onnxfuse.load(folder).answer`` against the question-answering pipeline of transformers 4, which 5 has no more.

    .venv-4.57/bin/python scripts/compare_answers.py FOLDER CHECKPOINT

FOLDER holds the exported model, CHECKPOINT what it was exported from. Questions are asked of long and short contexts, of Python's
standard library. Prints how many answers are the same, and leaves with 1 where one is not.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import transformers
from rich.console import Console

import onnxfuse
from onnxfuse.evaluation.sentences import docstring_sentences

QUESTIONS = ("what", "who is it", "Where [SEP] of a b", "what does it return?")
SCORE = 1e-5
OPTIONS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {}),
    ({"top": 3}, {"top_k": 3}),
    ({"length": 3, "none": True}, {"max_answer_len": 3, "handle_impossible_answer": True}),
    ({"window": 28, "stride": 4}, {"max_seq_len": 28, "doc_stride": 4}),
)
"""What is asked of each."""


def same(got: Any, wanted: Any) -> bool:
    """Whether places and texts are equal, and scores up to rounding."""
    pairs = zip(*(each if isinstance(each, list) else [each] for each in (got, wanted)), strict=True)
    return all(
        all(ours[name] == theirs[name] for name in ("answer", "start", "end")) and abs(ours["score"] - theirs["score"]) < SCORE
        for ours, theirs in pairs
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("checkpoint")
    asked = parser.parse_args()
    texts = docstring_sentences(24)
    contexts = (*texts[:8], f"{texts[8]} [SEP] {texts[9]}", " ".join(texts[8:20]), " ".join(texts))
    ours = onnxfuse.load(asked.folder)
    theirs = transformers.pipeline("question-answering", model=asked.checkpoint)
    wrong = total = 0
    log = Console(stderr=True, soft_wrap=True)
    for context in contexts:
        for question in QUESTIONS:
            for mine, its in OPTIONS:
                got, wanted = ours.answer(question, context, **mine), theirs(question=question, context=context, **its)
                total += 1
                if not same(got, wanted):
                    wrong += 1
                    log.print(f"{question!r} of {context[:40]!r} with {its}: {got}, wanted {wanted}", markup=False)
    Console().print(f"transformers {transformers.__version__}: {total - wrong} of {total} answers are the same")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
