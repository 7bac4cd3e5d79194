"""What tests of packages share: a folder with a float and an int8 model, as small as can be, and what lies beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxfuse.io import folders, onnx_file
from tests.conftest import parse

TEXT = """g (int64[batch_size,sequence_length] input_ids, int64[batch_size,sequence_length] attention_mask)
  => (float[batch_size,sequence_length,4] {output})
  <float[9,4] table = {numbers}, int8[4,4] weight = {{1, 2, -3, 4, 5, -6, 7, 8, 9, 10, 11, -12, 13, 14, 15, 16}}> {{
  rows = Gather (table, input_ids)
  {between}
  last = Constant <value_ints = [-1]> ()
  mask = Unsqueeze (attention_mask, last)
  kept = Cast <to = 1> (mask)
  {output} = Mul (shown, kept)
}}"""

FLOAT = "shown = Tanh (rows)"
INT8 = """q, scale, zero = DynamicQuantizeLinear (rows)
  product = MatMulInteger (q, weight, zero)
  number = Cast <to = 1> (product)
  shown = Mul (number, scale)"""

BESIDE = {
    "config.json": {
        "model_type": "bert",
        "onnxfuse_task": "feature-extraction",
        "_name_or_path": "/home/somebody/checkpoint",
        "pad_token_id": 0,
        "max_position_embeddings": 32,
        "vocab_size": 9,
    },
    "tokenizer.json": {"version": "1.0"},
    "tokenizer_config.json": {"tokenizer_class": "TokenizersBackend", "tokenizer_file": "/home/somebody/t.json"},
}


def lay(folder: Path, output: str = "last_hidden_state", task: str = "feature-extraction") -> Path:
    """A folder with model.onnx, model_quantized.onnx and what belongs to them; their output is called so."""
    folder.mkdir(parents=True)
    numbers = "{" + ", ".join(f"{(7 * at % 23) / 23 - 0.5:.6f}" for at in range(36)) + "}"
    for name, between in ((folders.MODEL, FLOAT), (folders.QUANTIZED, INT8)):
        onnx_file.save(parse(TEXT.format(output=output, numbers=numbers, between=between)), folder / name)
    for name, content in BESIDE.items():
        told = content | ({"onnxfuse_task": task} if name == "config.json" else {})
        (folder / name).write_text(json.dumps(told))
    return folder


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """The folder of a model that gives last_hidden_state."""
    return lay(tmp_path / "encoder")


Lay = Callable[..., Path]
