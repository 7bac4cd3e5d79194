"""Hold ``onnxfuse.load(folder).answer`` against the question-answering pipeline of transformers 4, which 5 has no more.

    .venv/bin/python scripts/compare_answers.py make build/answers
    .venv-4.57/bin/python scripts/compare_answers.py compare build/answers

The first makes a small checkpoint with random weights and exports it; the second asks both the same questions of long and short
contexts, prints how many answers are the same, and leaves with 1 where one is not. ``make test-full`` runs both.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import transformers
from rich.console import Console

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import onnxfuse  # noqa: E402
from onnxfuse.evaluation.sentences import docstring_sentences  # noqa: E402
from tests.families import tiny  # noqa: E402

TEXTS = docstring_sentences(24)
QUESTIONS = ("what", "who is it", "Where [SEP] of a b", "what does it return?")
CONTEXTS = (*TEXTS[:8], f"{TEXTS[8]} [SEP] {TEXTS[9]}", " ".join(TEXTS[8:20]), " ".join(TEXTS))
SCORE = 1e-5
OPTIONS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {}),
    ({"top": 3}, {"top_k": 3}),
    ({"length": 3, "none": True}, {"max_answer_len": 3, "handle_impossible_answer": True}),
    ({"window": 28, "stride": 4}, {"max_seq_len": 28, "doc_stride": 4}),
)
"""What is asked of each."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make(folder: Path) -> None:
    """A checkpoint whose tokenizer knows some words whole and the others by letters, and its export."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True, exist_ok=True)
    words = sorted({word.lower().strip(".,:;()") for text in TEXTS for word in text.split()} - {""})[::2]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS), ".", ",", *words]
    (checkpoint / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    tokenizer = transformers.BertTokenizer(str(checkpoint / "vocab.txt"), model_max_length=48)
    model = tiny("bert", "BertForQuestionAnswering", vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.3)
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    onnxfuse.export(checkpoint, folder / "exported", overwrite=True)


def same(got: Any, wanted: Any) -> bool:
    """Whether places and texts are equal, and scores up to rounding."""
    pairs = zip(*(each if isinstance(each, list) else [each] for each in (got, wanted)), strict=True)
    return all(
        all(ours[name] == theirs[name] for name in ("answer", "start", "end")) and abs(ours["score"] - theirs["score"]) < SCORE
        for ours, theirs in pairs
    )


def compare(folder: Path) -> int:
    """The exit code: 0 when all answers are the same."""
    ours, theirs = onnxfuse.load(folder / "exported"), transformers.pipeline("question-answering", str(folder / "checkpoint"))
    log = Console(stderr=True, soft_wrap=True)
    wrong = total = 0
    for context in CONTEXTS:
        for question in QUESTIONS:
            for mine, its in OPTIONS:
                got, wanted = ours.answer(question, context, **mine), theirs(question=question, context=context, **its)
                total += 1
                if not same(got, wanted):
                    wrong += 1
                    log.print(f"{question!r} of {context[:40]!r} with {its}: {got}, wanted {wanted}", markup=False)
    Console().print(f"transformers {transformers.__version__}: {total - wrong} of {total} answers are the same")
    return int(wrong > 0)


if __name__ == "__main__":
    verb, place = sys.argv[1:]
    sys.exit(compare(Path(place)) if verb == "compare" else make(Path(place)))
