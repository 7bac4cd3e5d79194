"""TensorFlow models to export: small, with random weights, saved in every way that people save them.

These tests run in an environment of their own (``make test-tf``): transformers 5 has no TensorFlow classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxfuse.exporters.tensorflow import require_tensorflow
from onnxfuse.io.quiet import silent
from tests.conftest import SMALL

CLASSIFIER = {
    "bert": "TFAutoModelForSequenceClassification",
    "distilbert": "TFAutoModelForSequenceClassification",
    "vit": "TFAutoModelForImageClassification",
}


def disturb(weights: list[Any]) -> None:
    """Biases and norms that are not all alike: a rewrite that drops or swaps one must be seen."""
    rng = np.random.default_rng(0)
    for weight in weights:
        if len(weight.shape) == 1:
            weight.assign(np.asarray(weight) + rng.normal(0, 0.05, weight.shape).astype(np.float32))


def tf_model(family: str, head: str | None = None, layers: int | None = 2) -> Any:
    """One of transformers' TensorFlow models; as deep as the real one for ``layers`` None."""
    with silent():
        require_tensorflow()
        import transformers

        name, fields = SMALL[family]
        depth = {} if layers is None else {"n_layers" if family == "distilbert" else "num_hidden_layers": layers}
        config = getattr(transformers, name)(**fields, **depth)
        model = getattr(transformers, head or CLASSIFIER[family]).from_config(config)
        model.build_in_name_scope()
        disturb(model.weights)
    return model


def keras_model(family: str) -> Any:
    """One of KerasHub's backbones."""
    with silent():
        require_tensorflow()
        import keras_hub

        common = {"num_layers": 2, "num_heads": 4, "hidden_dim": 128}
        if family == "vit":
            model = keras_hub.models.ViTBackbone(image_shape=(32, 32, 3), patch_size=8, mlp_dim=256, **common)
        else:
            kind = {"bert": keras_hub.models.BertBackbone, "distilbert": keras_hub.models.DistilBertBackbone}[family]
            model = kind(vocabulary_size=500, intermediate_dim=256, max_sequence_length=64, **common)
        disturb(model.weights)
    return model


def saved_model(folder: Path, function: Any, signature: dict[str, Any], **parts: Any) -> Path:
    """A SavedModel of ``function`` with these inputs; ``parts`` hold its variables."""
    with silent():
        import tensorflow as tf

        holder = tf.Module()
        for name, part in parts.items():
            setattr(holder, name, part)
        holder.call = tf.function(function, input_signature=list(signature.values()))
        tf.saved_model.save(holder, str(folder), signatures={"serving_default": holder.call})
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each family a folder with tf_model.h5, config.json and saved_model/1/, as ``save_pretrained`` writes them."""
    folder = tmp_path_factory.mktemp("tensorflow")
    for family in SMALL:
        model = tf_model(family)
        with silent():
            model.save_pretrained(folder / family, saved_model=True)
    return folder
