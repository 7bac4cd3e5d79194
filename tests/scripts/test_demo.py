"""The demo's chain at small size: a sentence encoder with a tokenizer, from its folder to the table, as a user runs it."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from tests.conftest import BERT, save_tokenizer

ROOT = Path(__file__).resolve().parent.parent.parent
KNOWN, CHANNEL = BERT["vocab_size"] // 2, 3


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A sentence encoder whose upper half of ids, which the tokenizer never gives, has a channel of outliers, as trained tables
    have in ids that no text holds: on random ids its int8 model is far from float."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**BERT, num_hidden_layers=2, initializer_range=0.25)).eval()
    first = model.embeddings
    with torch.no_grad():
        for table in (first.word_embeddings, first.position_embeddings, first.token_type_embeddings):
            table.weight *= 0.14
            table.weight[:, CHANNEL] = 0
        first.word_embeddings.weight[KNOWN:, CHANNEL] = 30
        first.LayerNorm.weight[CHANNEL] = 250
    model.save_pretrained(folder)
    save_tokenizer(folder, KNOWN, ("input_ids", "attention_mask", "token_type_ids"))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 128, "pooling_mode_mean_tokens": True})
    )
    return folder


def chain(*arguments):
    spec = importlib.util.spec_from_file_location("demo", ROOT / "scripts" / "demo.py")
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    return demo.chain(*arguments)


def test_the_demos_chain_ends_with_its_table(encoder, tmp_path, capsys):
    chain(encoder, tmp_path, 1, 24, Console(width=160), Console(stderr=True))
    out, err = capsys.readouterr()
    others = ("optimized in OpenVINO", "static int8", "static int8 in OpenVINO")
    for row in ("PyTorch", "ONNX", "optimized", "int8", *others):
        assert any(line.split("\u2502")[1:2] and line.split("\u2502")[1].strip() == row for line in out.splitlines()), (row, out)
    assert "real inputs" in out
    for row in ("optimized", "int8", *others):
        assert re.search(rf"^{row}: 24 sentences keep a mean cosine of (0\.99|1\.00)", out, re.MULTILINE), (row, out)
    phases = err.splitlines()
    assert all(line.startswith("  ") for line in phases), err
    assert len(phases) == len(set(phases)) <= 19, err  # a line a phase: calibration alone has 64 batches
    assert "  calibrating" in phases and "  static int8: calibrating" in phases


def test_its_int8_model_is_far_from_float_on_random_ids(encoder, tmp_path):
    """Or else the test above would not tell on what the model was judged."""
    from onnxfuse.config import ExportConfig, QuantizeConfig
    from onnxfuse.io import folders
    from onnxfuse.pipeline.export import export
    from onnxfuse.pipeline.quantize import quantize
    from onnxfuse.runtime import open_runner
    from onnxfuse.verify import parity, verdict
    from onnxfuse.verify.expected import expect

    exported = export(ExportConfig(str(encoder), tmp_path, exporter="torchscript"))
    quantized = quantize(QuantizeConfig(exported.path, tmp_path / "model_quantized.onnx"))
    assert quantized.parity.cosine > 0.99
    random = expect(open_runner(exported.path), verdict.grid_of(exported.path, folders.read_config(exported.path)))
    assert parity.compare(random, open_runner(quantized.path), "int8").cosine < 0.99
