"""A small BERT classifier, which everything hostile is made from: checkpoint, export, optimized and int8 model, and data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["the", "a", "of", "and", "to", "in", "is", "it", "for", "on", "as", "with", "by", "at", "from"],
)
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 32,
}


@dataclass(frozen=True)
class Sources:
    """``folder`` holds checkpoint/ (a classifier of three classes), export/ (with all three models) and data/."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def export(self) -> Path:
        return self.folder / "export"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def model(self) -> onnx.ModelProto:
        return onnx.load(self.export / "model.onnx")


def prepare(folder: Path, run: Callable[[Sequence[str]], None]) -> Sources:
    """Make them, each in a child, so that this process opens no session. Raises SystemExit when one fails."""
    made = Sources(folder)
    for work in (
        lambda: _checkpoint(made.checkpoint),
        lambda: run(["export", str(made.checkpoint), "-o", str(made.export), "--exporter", "torchscript"]),
        lambda: run(["optimize", str(made.export)]),
        lambda: run(["quantize", str(made.export), "--calibration", "none"]),
    ):
        if code := _in_child(work):
            raise SystemExit(f"what is attacked cannot be made: exit code {code}")
    rng = np.random.default_rng(0)
    made.data.mkdir()
    np.save(made.data / "input_ids.npy", rng.integers(5, len(WORDS), (12, 8)))
    np.save(made.data / "attention_mask.npy", np.ones((12, 8), np.int64))
    np.save(made.data / "token_type_ids.npy", np.zeros((12, 8), np.int64))
    np.save(made.data / "labels.npy", rng.integers(0, 3, 12))
    return made


def _in_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        work()
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        os._exit(code)


def _checkpoint(folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, num_labels=3))
    model.save_pretrained(folder)
    save_tokenizer(folder)


def save_tokenizer(folder: Path) -> None:
    """A word-piece tokenizer of ``WORDS``, in the files that BERT's have."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), WORDS[:5], strict=True))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 32, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    from transformers import BertTokenizer

    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
