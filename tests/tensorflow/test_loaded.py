"""What TensorFlow loaded is the checkpoint, by the same judge as PyTorch's."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from onnxfuse.config import ExportConfig
from onnxfuse.errors import ExportError, StorageError
from onnxfuse.exporters import open_checkpoint
from onnxfuse.io.quiet import silent
from onnxfuse.pipeline.export_tflite import export_tflite
from tests.conftest import small_model
from tests.tensorflow.conftest import tf_model


def saved(folder, head, **options):
    with silent():
        tf_model("bert", head).save_pretrained(folder, **options)
    return folder


def refused(folder, *parts, **options):
    with pytest.raises(ExportError) as raised:
        open_checkpoint(folder, **options)
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize("safe", [False, True])
def test_heads_that_are_left_out(tmp_path, safe):
    folder = saved(tmp_path, "TFAutoModelForPreTraining", safe_serialization=safe)
    assert open_checkpoint(folder).task == "pre-training"
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["TFBertForSurprise"]}
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "was saved as BertForSurprise, which onnxfuse does not export; its weights fit --task feature-extraction")
    for task in ("feature-extraction", "fill-mask"):
        checkpoint = open_checkpoint(folder, task=task)
        assert (checkpoint.task, checkpoint.framework) == (task, "tf")


def test_a_head_of_another_task_with_the_same_names(tmp_path):
    folder = saved(tmp_path, "TFAutoModelForSequenceClassification")
    refused(
        folder,
        "BertForTokenClassification does not read bert.pooler.dense",
        "and --task text-classification",
        task="token-classification",
    )


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"num_hidden_layers": 1}, ["does not read bert.encoder.layer.1.attention"]),
        ({"num_hidden_layers": 3}, ["no weights for bert.encoder.layer.2.attention.self.query.weight"]),
        (
            {"architectures": ["Mine"]},
            ["was saved as Mine", "its weights fit --task feature-extraction and --task text-classification"],
        ),
    ],
)
def test_a_config_of_another_model(tmp_path, change, parts):
    folder = saved(tmp_path, "TFAutoModelForSequenceClassification")
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | change))
    refused(folder, *parts)


def test_pytorchs_weights_in_several_files_and_with_positions(tmp_path):
    model = small_model("bert", "AutoModelForSequenceClassification", layers=1)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors") | {"bert.embeddings.position_ids": torch.arange(64)[None]}
    (tmp_path / "model.safetensors").unlink()
    named = {}
    for at in (0, 1):
        part = dict(list(weights.items())[at::2])
        save_file(part, tmp_path / f"part{at}.safetensors", {"format": "pt"})
        named |= dict.fromkeys(part, f"part{at}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    checkpoint = open_checkpoint(tmp_path, framework="tf")
    ids = np.arange(10).reshape(2, 5)
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor(ids), attention_mask=torch.ones(2, 5, dtype=torch.long)).logits.numpy()
    np.testing.assert_allclose(checkpoint.module(ids, np.ones_like(ids), np.zeros_like(ids))[0].numpy(), wanted, atol=1e-5)
    part = tmp_path / named["bert.embeddings.position_ids"]
    save_file(load_file(part) | {"bert.embeddings.position_ids": torch.arange(64)[None] + 1}, part, {"format": "pt"})
    refused(tmp_path, "takes other numbers for bert.embeddings.position_ids", framework="tf")


def test_a_pooler_that_features_do_not_show(tmp_path):
    model = small_model("bert", "AutoModel", layers=1)
    model.save_pretrained(tmp_path)
    weights = {name: value for name, value in load_file(tmp_path / "model.safetensors").items() if "pooler" not in name}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert open_checkpoint(tmp_path, framework="tf").task == "feature-extraction"
    del weights["encoder.layer.0.output.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    refused(tmp_path, "no weights for bert.encoder.layer.0.output.dense.bias of task feature-extraction", framework="tf")


def test_a_litert_model_takes_its_place_with_all_that_belongs_to_it(checkpoints, tmp_path):
    plan = ExportConfig(str(checkpoints / "distilbert"), tmp_path, format="tflite", overwrite=True)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(StorageError, match="what was there is untouched"):
        export_tflite(plan)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    (tmp_path / "config.json").rmdir()
    export_tflite(plan)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.tflite", "onnxfuse.json"]
    assert json.loads((tmp_path / "onnxfuse.json").read_text())["export tflite fp32"]["framework"] == "tf"
