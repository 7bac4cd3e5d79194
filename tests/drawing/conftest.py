"""A folder that ``run`` would leave: a small BERT, exported, optimized and quantized."""

import pytest
import torch
import transformers

import onnxfuse


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("drawn") / "small"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=100,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        id2label={0: "no", 1: "yes"},
    )
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    onnxfuse.export(model, place, task="text-classification")
    onnxfuse.optimize(place)
    onnxfuse.quantize(place, calibration="none")
    return place
