"""On which side a checkpoint's tokenizer pads and cuts texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PADDING, TRUNCATION = "padding", "truncation"


def options_of(sentences: Mapping[str, Any]) -> dict[str, Any]:
    """What sentence_bert_config.json asks the tokenizer for at each call: its processing_kwargs for texts.

    Source: sentence-transformers 6.2 (``Transformer.processing_kwargs``).
    """
    asked = sentences.get("processing_kwargs")
    parts = [asked.get(kind) for kind in ("common", "text")] if isinstance(asked, Mapping) else []
    return {name: value for part in parts if isinstance(part, Mapping) for name, value in part.items()}


def side(kind: str, options: Mapping[str, Any], settings: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> Any:
    """``left`` or ``right``, or what else stands there: as is asked at each call, else as tokenizer_config.json says, else as
    tokenizer.json does, else right.

    Args:
        kind: ``PADDING`` or ``TRUNCATION``.
        options: as ``options_of``; ``settings``: tokenizer_config.json; ``tokenizer``: tokenizer.json.

    Source: transformers' PreTrainedTokenizerFast.
    """
    name, made = f"{kind}_side", tokenizer.get(kind)
    for said in (options, settings):
        if name in said:
            return said[name]
    return str(made.get("direction", "right")).lower() if isinstance(made, Mapping) else "right"
