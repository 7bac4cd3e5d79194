"""What cannot be exported says so in one line: what, where, seen, wanted, next step."""

import json

import numpy as np
import pytest

from onnxfuse.errors import ExportError, ModelError, UsageError
from onnxfuse.exporters import checkpoint_runner, open_checkpoint
from onnxfuse.io.quiet import silent
from tests.conftest import messages
from tests.tensorflow.conftest import keras_model, saved_model, tf_model


def ids(name, shape=(None, None), dtype="int32"):
    import tensorflow as tf

    return {name: tf.TensorSpec(shape, dtype, name=name)}


def encoder():
    """A layer that any ids will do for, and what makes hidden states of them."""
    import tensorflow as tf

    table = tf.Variable(tf.random.normal([50, 8]))
    return table, lambda found: {"last_hidden_state": tf.gather(table, found)}


def refused(cli, source, code, *parts):
    result = cli("export", source, "-o", "out")
    assert result.returncode == code
    assert len(messages(result.stderr)) == 1 and "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    ("signature", "parts"),
    [
        (lambda: ids("words"), ["takes words", "words is no input of an encoder", "save it again with input_ids"]),
        (
            lambda: ids("sentences", (None,), "string"),
            ["takes text (the string sentences)", "save the encoder behind the tokenizer"],
        ),
        (lambda: ids("input_ids", (1, 8)), ["takes input_ids as int32 (1, 8)", "integers [None, None]"]),
        (lambda: ids("input_ids", (None, None), "float32"), ["takes input_ids as float32", "integers [None, None]"]),
        (lambda: ids("input_ids") | ids("token_type_ids"), ["bert takes input_ids, attention_mask, token_type_ids"]),
    ],
)
def test_a_signature_that_is_no_encoders(cli, tmp_path, signature, parts):
    import tensorflow as tf

    table, call = encoder()

    def function(first, *rest):
        return call(tf.strings.length(first)[:, None] if first.dtype == tf.string else tf.cast(first, tf.int32))

    saved_model(tmp_path / "saved", function, signature(), table=table)
    refused(cli, tmp_path / "saved", 4, "the signature serving_default of", *parts)


def test_outputs_that_no_task_has(cli, tmp_path):
    import tensorflow as tf

    table = tf.Variable(tf.random.normal([50, 8]))

    def function(input_ids, attention_mask):
        return {"something": tf.gather(table, input_ids)}

    saved_model(tmp_path / "saved", function, ids("input_ids") | ids("attention_mask"), table=table)
    refused(cli, tmp_path / "saved", 4, "returns something", "last_hidden_state", "save it again with those names")


def test_a_saved_model_without_a_signature(cli, tmp_path):
    with silent():
        import tensorflow as tf

        tf.saved_model.save(tf.Module(), str(tmp_path / "saved"))
    refused(cli, tmp_path / "saved", 4, "has no signature", "signatures=")


def test_a_broken_saved_model(cli, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"no graph")
    refused(cli, tmp_path / "saved", 4, "cannot load the SavedModel")


def test_an_operator_that_onnx_has_not(cli, tmp_path):
    import tensorflow as tf

    table = tf.Variable(tf.random.normal([50, 8]))

    def function(input_ids, attention_mask):
        found = tf.gather(table, input_ids)
        return {"last_hidden_state": found + tf.math.lgamma(found) * tf.cast(attention_mask, tf.float32)[:, :, None]}

    saved_model(tmp_path / "saved", function, ids("input_ids") | ids("attention_mask"), table=table)
    refused(
        cli, tmp_path / "saved", 4, "TensorFlow's operator Lgamma", "tf2onnx cannot write at opset 18", "replace it in the model"
    )
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_a_head_that_was_never_trained(cli, tmp_path):
    with silent():
        tf_model("bert", "TFAutoModelForMaskedLM").save_pretrained(tmp_path / "source")
    result = cli("export", tmp_path / "source", "--task", "text-classification", "-o", "out")
    assert result.returncode == 4
    assert (
        "no weights for bert.pooler.dense.weight, bert.pooler.dense.bias and 2 more of task text-classification" in result.stderr
    )
    assert result.stderr.endswith("its weights fit --task feature-extraction and --task fill-mask\n")


def test_config_and_weights_of_two_models(cli, tmp_path):
    with silent():
        tf_model("bert").save_pretrained(tmp_path / "source")
    config = tmp_path / "source" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": 64}))
    refused(
        cli,
        tmp_path / "source",
        4,
        "bert.embeddings.position_embeddings.weight is [64, 128], config.json wants [64, 64]",
        "must be of one bert model",
    )


def test_exporters_of_the_other_framework(cli, checkpoints):
    result = cli("export", checkpoints / "bert", "--exporter", "dynamo")
    assert result.returncode == 2
    assert "--exporter dynamo takes PyTorch models, this one is TensorFlow's; choose tf2onnx" in result.stderr


def test_sources_that_are_not_there(cli, tmp_path):
    refused(cli, "missing.keras", 2, "missing.keras is not there")
    result = cli("export", "./missing", "--framework", "tf")
    assert result.returncode == 2
    assert "./missing is not there; give a checkpoint's folder or a hub id" in result.stderr
    (tmp_path / "broken.keras").write_bytes(b"no archive")
    refused(cli, "broken.keras", 4, "broken.keras cannot be read as an archive (File is not a zip file)")
    (tmp_path / "empty").mkdir()
    result = cli("export", "empty", "--framework", "tf")
    assert result.returncode == 2
    assert "is no TensorFlow model" in result.stderr


def test_a_keras_model_of_another_kind(cli, tmp_path):
    with silent():
        import keras

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.save(str(tmp_path / "dense.keras"))
    refused(cli, tmp_path / "dense.keras", 4, "is a Keras model of class Sequential", "BertBackbone")


def test_tasks_that_a_backbone_has_not():
    with pytest.raises(UsageError, match="no outputs for task text-classification"):
        open_checkpoint(keras_model("bert"), task="text-classification")
    with silent():
        import keras_hub

        model = keras_hub.models.BertMaskedLM(keras_model("bert"))
    with pytest.raises(ExportError, match=r"takes .*mask_positions"):
        open_checkpoint(model)


def test_inputs_that_tensorflow_refuses(checkpoints):
    run = checkpoint_runner(open_checkpoint(checkpoints / "distilbert"))
    ids = np.ones((1, 600), dtype=np.int64)
    with pytest.raises(
        ModelError, match=r"TensorFlow cannot run the model on input_ids \[1, 600\].*: indices.* = \d+ is not in \[0, 64\)"
    ):
        run({"input_ids": ids, "attention_mask": ids})
