"""Small models of each use, and rows of many kinds."""

import json

import pytest
import sentence_transformers
from sentence_transformers.sentence_transformer import modules

import onnxfuse
from onnxfuse.evaluation.sentences import docstring_sentences
from tests.families import tiny
from tests.inference.conftest import made, pieces, words  # noqa: F401 - fixtures

TEXTS = [f"{text} {at}" for at, text in enumerate(docstring_sentences(300))]


@pytest.fixture(scope="package")
def encoder(tmp_path_factory, words):  # noqa: F811
    """A sentence encoder with prompts: its checkpoint's folder, and its export with an optimized and an int8 model."""
    inside, saved, folder = (tmp_path_factory.mktemp(name) for name in ("inside", "saved", "exported"))
    tiny("bert", "BertModel", vocab_size=len(words)).save_pretrained(inside)
    words.save_pretrained(inside)
    chain = [modules.Transformer(str(inside), max_seq_length=20), modules.Pooling(32, pooling_mode="mean"), modules.Normalize()]
    sentence_transformers.SentenceTransformer(modules=chain, prompts={"query": "find this: "}, device="cpu").save(str(saved))
    onnxfuse.export(saved, folder, exporter="torchscript")
    onnxfuse.optimize(folder)
    return saved, folder


@pytest.fixture
def lines(tmp_path):
    """300 texts as .jsonl."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, "key": f"k{at}", "more": at}) + "\n" for at, text in enumerate(TEXTS)))
    return path
