"""Texts as tokens: the tokenizer.json of a model's folder, read by the package ``tokenizers`` alone."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.architecture import IDS, TYPES
from onnxfuse.errors import MissingExtraError, ModelError, UsageError
from onnxfuse.evaluation.collate import Rows
from onnxfuse.io import door, files
from onnxfuse.io.sides import PADDING, TRUNCATION, options_of, side

FILE, SETTINGS, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
SENTENCES = "sentence_bert_config.json"
"""What sentence-transformers says of how its texts are cut, and whether in small letters."""

OPTIONS = ("max_length", "padding_side", "truncation_side")
DONE = {
    "padding": (True, "longest"),
    "truncation": (True, "longest_first"),
    "add_special_tokens": (True,),
    "return_tensors": ("pt", "np"),
}
"""What sentence_bert_config.json may ask the tokenizer for: any value of the first, of the others what is done anyway."""

USUAL = {"mask_token": ("[MASK]", "<mask>"), "cls_token": ("[CLS]", "<s>")}
"""What tokens are called where tokenizer_config.json leaves that to a class of ``transformers``."""

SPACES = {
    **{f" {mark}": mark for mark in ".?!,"},
    " ' ": "'",
    **{f" {end}": end for end in ("n't", "'m", "'s", "'ve", "'re")},
}
"""What clean_up_tokenization_spaces puts in the place of what, in this order."""

Text = str | tuple[str, str]
"""A text, or a pair of them."""


@dataclass(frozen=True)
class Tokens:
    """The tokenizer of a folder.

    Args:
        folder: where it lies.
        cut: ``tokenizers``' own, which cuts texts at ``longest`` tokens.
        longest: tokens of a text or pair that are kept, those that mark its ends included.
        left: padding stands before the tokens.
        typed: whether it tells the second text of a pair by token types.
        named: ids of special tokens by their names in tokenizer_config.json.
        tidy: what decoded texts are made tidy with.
    """

    folder: Path
    cut: Any
    longest: int
    left: bool
    typed: bool
    named: Mapping[str, int]
    tidy: Mapping[str, str]

    @cached_property
    def whole(self) -> Any:
        """``tokenizers``' own, which leaves texts whole."""
        copy = type(self.cut).from_str(self.cut.to_str())
        copy.no_truncation()
        return copy

    def encoded(self, texts: Sequence[Text]) -> list[Any]:
        """Each text's tokens, cut. Raises ModelError: the tokenizer fails on them."""
        with door.reading(self.folder / FILE, "a tokenizer for these texts"):
            return list(self.cut.encode_batch_fast(list(texts)))

    def of_words(self, texts: Sequence[Sequence[str]]) -> list[Any]:
        """Each text's tokens, cut, which tell whose of its words they are (``word_ids``). Raises as ``encoded``."""
        with door.reading(self.folder / FILE, "a tokenizer for these words"):
            return list(self.cut.encode_batch([list(words) for words in texts], is_pretokenized=True))

    def count(self, text: str) -> int:
        """The tokens at the begin of every text that begins with ``text``: those that mark an end are not counted."""
        (made,) = self.encoded([text])
        return len(made.ids) - (1 if made.special_tokens_mask and made.special_tokens_mask[-1] else 0)

    def windows(self, question: str, context: str, length: int, stride: int) -> list[tuple[Any, np.ndarray]]:
        """A question with as much of its context as ``length`` tokens hold, as often as it takes; where padding stands before
        the tokens, the context is first.

        Args:
            stride: tokens that a window has in common with the next; fewer where one has no more than these.

        Returns:
            Of each window its tokens, and which of these are the context's, bool [S].

        Raises:
            UsageError: the question leaves no room.
        """
        with door.reading(self.folder / FILE, "a tokenizer for these texts"):
            asked, given = (self.whole.encode(text, add_special_tokens=False) for text in (question, context))
            room = length - self.whole.num_special_tokens_to_add(True) - len(asked.ids)
            if room < 1:
                raise UsageError(f"the question has {len(asked.ids)} tokens, which leaves none of {length} for its context")
            given.truncate(room, stride=stride if stride < room else room // 2)
            pairs = [(part, asked) if self.left else (asked, part) for part in (given, *given.overflowing)]
            made = [self.whole.post_process(*pair, True) for pair in pairs]
        return [(each, _part(each, len(first.ids), self.left)) for each, (first, _) in zip(made, pairs, strict=True)]

    def rows(self, made: Sequence[Any], pad: int, length: int | None = None) -> Rows:
        """A batch of encoded texts, filled up to ``length`` or the longest of them with ``pad``."""
        width = length or max(1, *(len(each.ids) for each in made))
        ids, keep = np.full((len(made), width), pad, np.int64), np.zeros((len(made), width), bool)
        types = np.zeros((len(made), width), np.int64)
        for row, each in enumerate(made):
            count = len(each.ids)
            place = slice(width - count, None) if self.left else slice(count)
            ids[row, place], keep[row, place] = each.ids, True
            if self.typed:
                types[row, place] = each.type_ids
        return Rows({IDS: ids, TYPES: types}, keep)

    def text(self, ids: Sequence[int], *, special: bool = True) -> str:
        """The text of tokens, with or without those that are special."""
        with door.reading(self.folder / FILE, "a tokenizer for these tokens"):
            text = str(self.cut.decode(list(ids), skip_special_tokens=not special))
        for old, new in self.tidy.items():
            text = text.replace(old, new)
        return text


def tokens_in(folder: Path, longest: int) -> Tokens:
    """The tokenizer in a folder, for texts of up to ``longest`` tokens, or fewer where its files ask for fewer.

    Raises:
        MissingExtraError: the package ``tokenizers`` is not installed.
        UsageError: there is no tokenizer.json.
        ModelError: a file is broken, lies outside the folder, or asks for what cannot be.
    """
    settings, sentences = (_object(folder / name) for name in (SETTINGS, SENTENCES))
    cut, options = _opened(folder), options_of(sentences)
    whole = _object(folder / FILE)
    if odd := [name for name, value in options.items() if value not in DONE.get(name, (value,) if name in OPTIONS else ())]:
        raise ModelError(
            f"{folder / SENTENCES} asks the tokenizer for {odd[0]} {options[odd[0]]!r:.40}, which is not done here; "
            "encode with onnxfuse.sentence_transformer(folder)"
        )
    asked = (options.get("max_length") or sentences.get("max_seq_length") or settings.get("model_max_length"), longest)
    kept = int(min(size for size in asked if isinstance(size, int | float) and size >= 2))  # 0, -1: not told
    if kept <= cut.num_special_tokens_to_add(True):
        raise ModelError(f"{folder}: texts are cut at {kept} tokens, which leaves none for their words; correct {SETTINGS}")
    cut_on = _choice(folder, TRUNCATION, side(TRUNCATION, options, settings, whole))
    with door.reading(folder / FILE, "a tokenizer"):
        cut.enable_truncation(kept, direction=cut_on)
        if sentences.get("do_lower_case") is True:
            _lower(cut)
    names = {**_object(folder / SPECIAL), **settings}
    tidy = settings.get("clean_up_tokenization_spaces") is True and type(cut.model).__name__ != "BPE"
    return Tokens(
        folder,
        cut,
        kept,
        _choice(folder, PADDING, side(PADDING, options, settings, whole)) == "left",
        _typed(settings.get("model_input_names")),
        {name: number for name in USUAL if (number := _special(cut, name, names.get(name))) is not None},
        SPACES if tidy else {},
    )


def _opened(folder: Path) -> Any:
    """The tokenizer itself, which neither cuts nor pads."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("reading texts", "text") from error
    path = folder / FILE
    if not os.path.lexists(path):
        raise UsageError(
            f"{folder} has no {FILE}, which makes tokens of texts; where transformers is installed, write it with: "
            "AutoTokenizer.from_pretrained(CHECKPOINT).save_pretrained(FOLDER)"
        )
    door.within(path, folder)
    if wrong := files.flaw(path):
        raise ModelError(f"{path} {wrong}")
    content = door.json_bytes(path)
    with door.reading(path, "a tokenizer"):
        read = Tokenizer.from_buffer(content)
        read.no_truncation()
        read.no_padding()
    return read


def _object(path: Path) -> dict[str, Any]:
    return files.read_object(door.linked(path, path.parent)) if os.path.lexists(path) else {}


def _choice(folder: Path, kind: str, found: Any) -> str:
    """The side that is cut or padded. Raises ModelError."""
    if found not in ("left", "right"):
        raise ModelError(f"{folder / SETTINGS} has {found!r:.40} as {kind}_side, wanted left or right; correct it")
    return str(found)


def _part(made: Any, first: int, chosen: bool) -> np.ndarray:
    """Which tokens of an encoded pair are of its first text, which has ``first`` of them, or of its second where ``chosen`` is
    false. (Encodings that were cut do not tell by sequence_ids.)"""
    words = np.array(made.special_tokens_mask) == 0
    return np.asarray(words & ((np.cumsum(words) <= first) == chosen))


def _typed(names: Any) -> bool:
    return TYPES in names if isinstance(names, Collection) else True


def _special(read: Any, name: str, said: Any) -> int | None:
    """The id of a special token; None where there is none."""
    content = said.get("content") if isinstance(said, dict) else said
    words = [content] if isinstance(content, str) else USUAL[name]
    return next((number for word in words if (number := read.token_to_id(word)) is not None), None)


def _lower(read: Any) -> None:
    """Have texts in small letters first, unless its own steps do so, as sentence-transformers has it."""
    from tokenizers import normalizers

    steps: Any = read.normalizer
    parts: Any = [] if steps is None else steps if isinstance(steps, normalizers.Sequence) else [steps]
    own = list(parts)
    if not any(isinstance(step, normalizers.Lowercase) for step in own):
        read.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
