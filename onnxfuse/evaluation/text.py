"""Texts as ids: the tokenizer in a folder, opened without running code from it or asking anyone for anything."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from onnxfuse.architecture import IDS, MASK, TYPES
from onnxfuse.errors import MissingExtraError, ModelError, first_line
from onnxfuse.io import door
from onnxfuse.io.quiet import quiet
from onnxfuse.runtime import Feeds

LONGEST = 256
"""Tokens of a text that are kept."""

FILES = ("tokenizer*", "vocab.*", "merges.txt", "*.model")
"""What shows that a folder has a tokenizer, whole or not."""

BESIDE = ("config.json", "special_tokens_map.json", "added_tokens.json", "processor_config.json", "*.jinja", "*_templates/*")
"""What ``transformers`` reads beside those to open one."""

T = TypeVar("T")


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a folder.

    Args:
        read: what ``transformers`` opened.
        longest: tokens of a text that are kept, those that mark its ends included.
        pad: the id of padding; None where the tokenizer has none.
    """

    folder: Path
    read: Any
    longest: int
    pad: int | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of it."""
        return () if self.pad is not None else ("padded with 0 under the mask, since the tokenizer has no token for padding",)

    def __call__(self, texts: Sequence[str]) -> Feeds:
        """Ids and mask [n, S], and token types where the tokenizer makes them, int64, S for the longest text.

        Raises:
            ModelError: the tokenizer fails on them.
        """
        ends = _guarded(self.folder, self.read.num_special_tokens_to_add)
        made = _guarded(self.folder, lambda: self.read(list(texts), truncation=True, max_length=max(self.longest, ends + 1)))
        rows = [row[: self.longest] for row in made["input_ids"]]
        width = max(1, *map(len, rows))
        left = self.read.padding_side == "left"
        at = [slice(width - len(row), None) if left else slice(len(row)) for row in rows]
        feeds = {IDS: np.full((len(rows), width), self.pad or 0, np.int64), MASK: np.zeros((len(rows), width), np.int64)}
        if "token_type_ids" in made:
            feeds[TYPES] = np.zeros((len(rows), width), np.int64)
        for number, (row, place) in enumerate(zip(rows, at, strict=True)):
            feeds[IDS][number, place], feeds[MASK][number, place] = row, 1
            if TYPES in feeds:
                feeds[TYPES][number, place] = made["token_type_ids"][number][: self.longest]
        return feeds


def has_tokenizer(folder: Path) -> bool:
    """Whether files of a tokenizer lie in ``folder``."""
    return any(not file.is_dir() for pattern in FILES for file in folder.glob(pattern))


def tokenizer(folder: Path, longest: int = LONGEST) -> Tokenizer:
    """The tokenizer in ``folder``, for texts of up to ``longest`` tokens, or fewer where it asks for fewer.

    Raises:
        MissingExtraError: ``transformers`` is not installed.
        ModelError: its files are broken, lie outside the folder, or need code or packages that are not there.
    """
    for file in (file for pattern in (*FILES, *BESIDE) for file in folder.glob(pattern)):
        if not file.is_dir():
            door.within(file, folder)
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizing text", "torch") from error
    read = _guarded(folder, lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True))
    if set(read.get_vocab()) <= set(read.all_special_tokens):
        raise _unusable(folder, f"its {type(read).__name__} knows no words, since none of the files is what this class reads")
    limit = read.model_max_length
    asked = int(min(limit, longest)) if isinstance(limit, int | float) and limit >= 2 else longest  # 0, -1: not told
    return Tokenizer(folder, read, min(asked, longest), read.pad_token_id)


def _guarded(folder: Path, call: Callable[[], T]) -> T:
    """What ``call`` gives; its failures in one line. The library underneath raises plain Exceptions. Raises ModelError."""
    try:
        with quiet():
            return call()
    except Exception as error:
        raise _unusable(folder, _why(folder, error)) from error


def _unusable(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"the tokenizer in {folder} cannot be used: {why}; save it again with save_pretrained, or give data with "
        "the model's inputs"
    )


def _why(folder: Path, error: Exception) -> str:
    pieces = sorted(folder.glob("*.model"))
    if pieces and not (folder / "tokenizer.json").is_file() and importlib.util.find_spec("sentencepiece") is None:
        return f"there is no tokenizer.json, and {pieces[0].name} needs the package sentencepiece"
    return f"{type(error).__name__}: {first_line(error)[:150]}"
