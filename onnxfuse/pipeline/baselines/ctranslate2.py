"""CTranslate2: the encoder in float32 and in int8, with the checkpoint's own head in PyTorch behind it.

It runs encoders alone and knows no task, so the head is what CTranslate2's guide has users do. Padding is told by each row's
length, and removed by CTranslate2 itself.

Source: CTranslate2 4.8 (``converters.TransformersConverter``, ``Encoder.forward_batch``), its guide for transformers.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.architecture import IDS, MASK, TYPES
from onnxfuse.errors import ModelError
from onnxfuse.io.atomic import scratch
from onnxfuse.pipeline.baselines.api import Baseline, Context, Made, in_torch
from onnxfuse.runtime import Feeds, Outputs

READS = {IDS, MASK, TYPES}
"""What its encoder can be given, the mask as lengths."""


def _convert(context: Context, path: Path, quantization: str) -> None:
    """Write the encoder in CTranslate2's format into the folder of ``path``, from a copy in the files of ``transformers``."""
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc]
        def load_tokenizer(self, *_: Any, **__: Any) -> Any:
            return _Words(int(encoder.config.vocab_size))

    encoder = context.torch().module.model.base_model
    with scratch() as saved:
        encoder.save_pretrained(saved)
        described = saved / "config.json"
        config = json.loads(described.read_text(encoding="utf-8"))  # transformers 5 leaves out what its positions are
        described.write_text(json.dumps({"position_embedding_type": "absolute"} | config), encoding="utf-8")
        Converter(str(saved)).convert(str(path.parent), quantization=quantization, force=True)


class _Words:
    """A vocabulary of a size, for the converter: rows are given as ids, which ask for no words."""

    unk_token = "0"

    def __init__(self, size: int) -> None:
        self.size = size

    def get_vocab(self) -> dict[str, int]:
        return {str(number): number for number in range(self.size)}


def _open(context: Context, kind: str) -> Made:
    """CTranslate2 in the place of the checkpoint's encoder: heads and pooling are its own, in PyTorch. Raises ModelError."""
    checkpoint = context.torch()
    if other := set(checkpoint.inputs) - READS:
        raise ModelError(f"CTranslate2 runs encoders of tokens, and {checkpoint.name} takes {', '.join(sorted(other))}")
    import ctranslate2

    path = context.made(f"ctranslate2-{kind}", partial(_convert, quantization=kind)).with_name("model.bin")
    encoder = ctranslate2.Encoder(str(path.parent), compute_type=kind, intra_threads=context.threads)
    replaced = {id(checkpoint.module.model.base_model): _module(encoder)}
    made = in_torch(replace(checkpoint, module=copy.deepcopy(checkpoint.module, replaced)), context)

    def call(feeds: Feeds) -> Outputs:
        mask = feeds[MASK].reshape(-1, feeds[MASK].shape[-1])
        if not np.array_equal(mask, np.arange(mask.shape[1]) < mask.sum(1, keepdims=True)):
            raise ModelError("CTranslate2 is told padding by each row's length, and here is some that is not at a row's end")
        return made.run(feeds)

    return Made(call, path.stat().st_size + made.size)


def _module(encoder: Any) -> Any:
    """CTranslate2's encoder as a module of PyTorch that is called, and answers, as those of ``transformers`` are."""
    import ctranslate2
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    def tensor(view: Any) -> Any:
        return None if view is None else torch.from_numpy(np.asarray(view))

    class Encoder(torch.nn.Module):
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None, **_: Any) -> Any:
            ids, lengths = input_ids.to(torch.int32).numpy(), attention_mask.sum(1).to(torch.int32).numpy()
            result = encoder.forward_batch(
                ctranslate2.StorageView.from_array(ids),
                ctranslate2.StorageView.from_array(lengths),
                None if token_type_ids is None else token_type_ids.tolist(),
            )
            return BaseModelOutputWithPooling(tensor(result.last_hidden_state), tensor(result.pooler_output))

    return Encoder()


BASELINES = (
    Baseline("ctranslate2", "fp32", partial(_open, kind="float32")),
    Baseline("ctranslate2-int8", "int8", partial(_open, kind="int8")),
)
