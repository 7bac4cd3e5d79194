"""Files beside models, as ``make fuzz`` writes them: the first byte of an input says which file the rest is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse import targets
from onnxfuse.config import OptimizeConfig
from onnxfuse.evaluation import dataset
from onnxfuse.exporters import description, weights
from onnxfuse.exporters.home import Home
from onnxfuse.io import folders
from onnxfuse.model import load
from onnxfuse.optimizer import fuse
from onnxfuse.pipeline.optimize import optimize
from tests.evaluation.conftest import averaging, collator_of
from tests.layer import SPELLINGS

CHECKPOINT = (
    "config.json",
    weights.INDEX,
    "modules.json",
    "tokenizer_config.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    weights.SAFETENSORS,
    weights.H5,
)
"""Files of a checkpoint; the first byte of an input says which it is."""

SHARD = "model-00001-of-00001.safetensors"
BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 20,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "pad_token_id": 0,
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
TEXTS: tuple[Any, ...] = (
    BERT,
    {"metadata": {"total_size": 30}, "weight_map": {"embeddings.weight": SHARD}},
    MODULES,
    {"tokenizer_class": "BertTokenizer", "model_max_length": 16, "do_lower_case": True},
    {"max_seq_length": 16, "do_lower_case": False},
    {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
)
"""What the first of them hold; all but the second lie in each checkpoint."""


def read_checkpoint(content: bytes, folder: Path) -> None:
    """A checkpoint with one strange file, described and its weights read."""
    (folder / "1_Pooling").mkdir()
    for name, value in zip(CHECKPOINT, TEXTS, strict=False):
        if name != weights.INDEX:
            (folder / name).write_text(json.dumps(value))
    (folder / SHARD).write_bytes(_safetensors())
    (folder / CHECKPOINT[content[0] % len(CHECKPOINT) if content else 0]).write_bytes(content[1:])
    home = Home(str(folder))
    weights.read(weights.require(home)) if weights.find(home) else None
    description.describe(str(folder), None, None)


def checkpoints() -> Iterable[bytes]:
    for number, value in enumerate(TEXTS):
        yield bytes([number]) + json.dumps(value).encode()
    yield bytes([CHECKPOINT.index(weights.SAFETENSORS)]) + _safetensors()
    yield bytes([CHECKPOINT.index(weights.H5)]) + _h5()


def _safetensors() -> bytes:
    from safetensors.numpy import save

    arrays = {"embeddings.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "half": np.ones(3, np.float16)}
    return bytes(save(arrays, metadata={"format": "pt"}))


def _h5() -> bytes:
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        group = root.create_group("bert")
        root.attrs["layer_names"] = [b"bert"]
        group.attrs["weight_names"] = [b"bert/embeddings/weight:0"]
        group.create_dataset("bert/embeddings/weight:0", data=np.arange(6, dtype=np.float32).reshape(2, 3))
    return file.getvalue()


DATA = ("data.csv", "data.jsonl", "data.txt", "data.npz", "input_ids.npy")
"""Data files; the first byte of an input says which it is."""


def read_data(content: bytes, folder: Path) -> None:
    """A data set, read and batched for a model that takes ids and a mask."""
    name = DATA[content[0] % len(DATA) if content else 0]
    (folder / name).write_bytes(content[1:])
    if name.endswith(".npy"):
        np.save(folder / "attention_mask.npy", np.array([[1, 1, 0], [1, 0, 0]]))
    collator = collator_of(averaging())
    for data in dataset.read(folder if name.endswith(".npy") else folder / name, [collator], lambda: _words):
        for feeds in data.batches(4):
            assert all(isinstance(array, np.ndarray) for array in feeds.values())


def _words(texts: Any) -> dict[str, np.ndarray]:
    width = max(1, *(len(text.split()) for text in texts))
    mask = np.array([[at < len(text.split()) for at in range(width)] for text in texts], np.int64)
    return {"input_ids": mask * 3, "attention_mask": mask}


def data_files() -> Iterable[bytes]:
    ids = np.array([[1, 2, 0], [3, 0, 0]])
    yield b"\0text,label\nsome words,1\nothers,0\n"
    yield b'\x01{"input_ids": [1, 2], "attention_mask": [1, 1], "label": 1}\n{"input_ids": [3, 4], "attention_mask": [1, 0], "label": 0}\n'
    yield b"\x02some words\nmore of them\n"
    for number, save in ((3, lambda file: np.savez(file, input_ids=ids, attention_mask=ids > 0)), (4, lambda f: np.save(f, ids))):
        file = io.BytesIO()
        save(file)
        yield bytes([number]) + file.getvalue()


RECORDS = (targets.FILE, "config.json", folders.RECORD, "metadata")
"""Texts that lie beside or in a model; the first byte of an input says which it is."""


def read_record(content: bytes, folder: Path) -> None:
    """A target's file, or a small model optimized beside a strange config.json or record, or loaded with strange metadata."""
    name, text = RECORDS[content[0] % len(RECORDS) if content else 0], content[1:]
    if name == targets.FILE:
        (folder / name).write_bytes(text)
        fuse(SPELLINGS[0].build(), targets.find(str(folder / name)))
        return
    model, path = averaging(), folder / folders.MODEL
    if name == "metadata":
        model.metadata_props["onnxfuse"] = text.decode("utf-8", "replace")
        path.write_bytes(ir.to_proto(model).SerializeToString())
        load(path)
        return
    path.write_bytes(ir.to_proto(model).SerializeToString())
    (folder / name).write_bytes(text)
    optimize(OptimizeConfig(path, folder / folders.OPTIMIZED, target="cpu"))


def records() -> Iterable[bytes]:
    for name in targets.NAMES:
        yield b"\0" + json.dumps(targets.find(name).to_json()).encode()
    yield b"\x01" + json.dumps(BERT).encode()
    yield b"\x02" + json.dumps({"optimize": {"plan": {"source": "model.onnx"}, "files": ["model_optimized.onnx"]}}).encode()
    yield b'\x03{"target": "cpu", "session": {"threads": 1, "runtime": "ort"}, "fused": {}, "versions": {}}'
