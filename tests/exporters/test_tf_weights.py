"""TensorFlow's weights where TensorFlow is not: read into PyTorch's class, or refused in one line."""

import json
import struct

import h5py
import numpy as np
import pytest
import torch

from onnxfuse.config import ExportConfig
from onnxfuse.errors import ExportError, MissingExtraError
from onnxfuse.exporters import framework_of, open_checkpoint, tf_weights, weights
from onnxfuse.exporters.home import Home
from onnxfuse.pipeline.export import export
from onnxfuse.runtime import open_runner
from tests.conftest import SMALL, messages, small_model

CLASSIFIER = {
    "bert": "AutoModelForSequenceClassification",
    "distilbert": "AutoModelForSequenceClassification",
    "vit": "AutoModelForImageClassification",
}


def tensorflow_name(name: str, value: torch.Tensor) -> str:
    """A PyTorch weight's name as transformers' TensorFlow classes write it."""
    *parts, leaf = name.split(".")
    path = "/".join(parts).replace("/layer/", "/layer_._")
    if leaf == "bias" and ("LayerNorm" in path or "layer_norm" in path or "layernorm" in path):
        leaf = "beta"
    elif leaf == "weight" and value.ndim == 1:
        leaf = "gamma"
    elif leaf == "weight" and "embeddings" in parts and parts[-1] != "projection":
        leaf = "weight" if "word" in path else "embeddings"
    elif leaf == "weight":
        leaf = "kernel"
    return f"{path}/{leaf}:0"


def save_h5(model, folder, skip=()):
    """tf_model.h5 and config.json as transformers 4.57 lays them out."""
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "tf_model.h5", "w") as file:
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point and not any(part in name for part in skip):
                axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(value.ndim)
                kernel = tensorflow_name(name, value).endswith("kernel:0")
                array = value.numpy().transpose(axes) if kernel else value.numpy()
                file[f"{name.split('.')[0]}/tf_model/{tensorflow_name(name, value)}"] = array
    (folder / "config.json").write_text(json.dumps(model.config.to_dict() | {"architectures": [type(model).__name__]}))


@pytest.mark.parametrize("family", list(SMALL))
def test_weights_of_h5_give_the_same_model(tmp_path, family):
    model = small_model(family, CLASSIFIER[family], layers=2)
    save_h5(model, tmp_path / "source")
    step = export(ExportConfig(str(tmp_path / "source"), tmp_path / "out", exporter="torchscript"))
    checkpoint = step.checkpoint
    assert step.origin == "PyTorch, with TensorFlow's weights from tf_model.h5, read without TensorFlow"
    assert checkpoint.framework == "pt"
    shape = (2, 3, 32, 32) if family == "vit" else (2, 5)
    feeds = {
        name: np.random.default_rng(0).standard_normal(shape).astype(np.float32) if family == "vit" else np.ones(shape, np.int64)
        for name in checkpoint.family.inputs
    }
    with torch.inference_mode():
        wanted = model(**{name: torch.from_numpy(array) for name, array in feeds.items()})["logits"].numpy()
    np.testing.assert_allclose(open_runner(step.path)(feeds)["logits"], wanted, atol=1e-5)


def test_a_tied_decoder_comes_from_the_table(tmp_path):
    model = small_model("distilbert", "AutoModelForMaskedLM", layers=1)
    save_h5(model, tmp_path / "source", skip=("vocab_projector.weight",))
    checkpoint = open_checkpoint(tmp_path / "source")
    for name, value in checkpoint.module.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=0)


def test_a_base_model_from_a_head_and_back(tmp_path):
    save_h5(small_model("bert", "AutoModelForMaskedLM", layers=1), tmp_path / "head")
    assert open_checkpoint(tmp_path / "head", task="feature-extraction").task == "feature-extraction"
    save_h5(small_model("bert", "AutoModel", layers=1), tmp_path / "base")
    with pytest.raises(
        ExportError,
        match=r"no weights for classifier\.weight and classifier\.bias of task text-classification; its weights fit --task feature-extraction$",
    ):
        open_checkpoint(tmp_path / "base", task="text-classification")


def test_a_tokens_table_of_another_size(tmp_path):
    save_h5(small_model("bert", "AutoModel", layers=1), tmp_path / "source")
    config = tmp_path / "source" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 400}))
    with pytest.raises(ExportError, match=r"word_embeddings\.weight is \[500, 128\], config\.json wants \[400, 128\]"):
        open_checkpoint(tmp_path / "source")


def test_a_broken_file(cli, tmp_path):
    save_h5(small_model("bert", "AutoModel", layers=1), tmp_path / "source")
    (tmp_path / "source" / "tf_model.h5").write_bytes(b"no such thing")
    result = cli("export", "source")
    assert result.returncode == 4
    assert "source/tf_model.h5 cannot be read as TensorFlow" in result.stderr and len(messages(result.stderr)) == 1


def header(path, metadata):
    content = json.dumps({"__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content)


def test_whose_safetensors_they_are(tmp_path):
    path = tmp_path / "model.safetensors"
    header(path, {"format": "tf"})
    assert found(tmp_path) == ("model.safetensors", "tf")
    (tmp_path / "tf_model.h5").write_bytes(b"HDF")
    header(path, {"format": "pt"})
    assert found(tmp_path) == ("model.safetensors", "pt")
    path.write_bytes(b"\xff" * 64)
    assert found(tmp_path) == ("model.safetensors", "pt")
    path.unlink()
    assert found(tmp_path) == ("tf_model.h5", "tf")


def found(folder):
    weights_of = weights.find(Home(str(folder)))
    return weights_of.name, weights_of.framework


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("bert/encoder/layer_._11/attention/self/query/kernel:0", "bert.encoder.layer.11.attention.self.query.weight"),
        ("mlm___cls/predictions/transform/LayerNorm/gamma:0", "cls.predictions.transform.LayerNorm.weight"),
        ("bert/embeddings/token_type_embeddings/embeddings:0", "bert.embeddings.token_type_embeddings.weight"),
        ("vit/embeddings/position_embeddings:0", "vit.embeddings.position_embeddings"),
    ],
)
def test_names(name, wanted):
    assert tf_weights.torch_name(name) == wanted


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "bert-base-cased", "--framework", "tf", "--random-weights"),
        ("export", "model.keras"),
        ("export", "saved"),
        ("export", "preset"),
        ("export", "bert-base-cased", "--framework", "tf", "--format", "tflite"),
    ],
)
def test_without_tensorflow_one_line_says_what_to_install(cli, tmp_path, arguments):
    (tmp_path / "model.keras").touch()
    for folder, file, content in (
        ("saved", "saved_model.pb", ""),
        ("preset", "config.json", '{"registered_name": "keras_hub>BertBackbone"}'),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(content)
    result = cli(*arguments)
    assert result.returncode == MissingExtraError.exit_code
    assert "TensorFlow" in result.stderr and "pip install 'onnxfuse[tf]'" in result.stderr
    assert len(messages(result.stderr)) == 1


def test_without_litert_one_line_says_what_to_install(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"TFL3")
    with pytest.raises(MissingExtraError, match=r"onnxfuse\[litert\]"):
        open_runner(tmp_path / "model.tflite")


def test_frameworks_by_name(cli):
    result = cli("export", "bert-base-cased", "--framework", "jax")
    assert result.returncode == 2
    assert "--framework jax: wanted one of pt, tf" in result.stderr
    assert framework_of("bert-base-cased") == "pt"
    result = cli("export", "bert-base-cased", "--random-weights", "--exporter", "tf2onnx")
    assert result.returncode == 2
    assert "--exporter tf2onnx takes TensorFlow models, this one is PyTorch's; choose dynamo or torchscript" in result.stderr
    result = cli("export", "bert-base-cased", "--random-weights", "--format", "tflite")
    assert result.returncode == 2
    assert "--format tflite converts TensorFlow models" in result.stderr
