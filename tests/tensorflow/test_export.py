"""TensorFlow and Keras models become ONNX that computes the same, and fuses as PyTorch's do."""

import importlib.util
import shutil

import numpy as np
import pytest

import onnxfuse
from onnxfuse import catalog
from onnxfuse.config import ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.errors import ExportError
from onnxfuse.exporters import checkpoint_runner, open_checkpoint
from onnxfuse.io import onnx_file
from onnxfuse.io.quiet import silent
from onnxfuse.pipeline.check import check
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.runtime import open_runner
from onnxfuse.verify import parity
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from onnxfuse.verify.inputs import profile_of
from tests.conftest import SMALL
from tests.tensorflow.conftest import keras_model, tf_model

FAMILIES = list(SMALL)


def whole_chain(source, out, **options):
    """Export, optimize with every expected count required, quantize. Each step compares outputs and raises."""
    exported = export(ExportConfig(str(source), out, **options))
    checkpoint = exported.checkpoint
    assert exported.parity.passed and exported.parity.cases > 1
    optimized = optimize(OptimizeConfig(exported.path, out / "model_optimized.onnx", require=("all",)))
    quantized = quantize(QuantizeConfig(optimized.path, out / "model_quantized.onnx", calibration="none"))
    assert optimized.parity.passed and quantized.parity.passed
    assert quantized.description.matmuls >= 8
    return exported, optimized, checkpoint


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["h5", "safetensors", "saved_model"])
def test_every_way_to_save_a_model(checkpoints, tmp_path, family, form):
    source = checkpoints / family
    if form == "saved_model":
        source = source / "saved_model" / "1"
    elif form == "safetensors":
        with silent():
            tf_model(family).save_pretrained(tmp_path / "source", safe_serialization=True)
        source = tmp_path / "source"
    exported, optimized, checkpoint = whole_chain(source, tmp_path / "out")
    assert checkpoint.framework == "tf"
    assert exported.origin.startswith("TensorFlow, ")
    assert optimized.fused == {"attention": 2, "qkv": 2, "layer_norm": 5, "gelu": 2, "unfused": 0}
    assert str(optimized.padding) == ("kept: attention has no mask" if family == "vit" else "removed")
    model = onnx_file.load(exported.path)
    wanted = catalog.architecture(family).inputs
    assert [value.name for value in model.graph.inputs] == list(wanted)
    assert all(str(value.shape[axis]) == name for value in model.graph.inputs for axis, name in wanted[value.name].items())
    assert {str(value.dtype) for value in model.graph.inputs} == {"FLOAT" if family == "vit" else "INT64"}
    assert [value.name for value in model.graph.outputs] == ["logits"]


@pytest.mark.parametrize(
    ("head", "task"),
    [
        ("TFAutoModelForMultipleChoice", "multiple-choice"),
        ("TFAutoModelForNextSentencePrediction", "next-sentence-prediction"),
        ("TFAutoModelForPreTraining", "pre-training"),
    ],
)
def test_heads_give_their_own_outputs(tmp_path, head, task):
    model = tf_model("bert", head)
    with silent():
        model.save_pretrained(tmp_path / "source")
    exported, optimized, checkpoint = whole_chain(tmp_path / "source", tmp_path / "out")
    assert (checkpoint.framework, checkpoint.task) == ("tf", task)
    assert (str(optimized.padding) == "removed") == (task != "pre-training"), optimized.padding
    feeds = exported.model.inputs.feeds(3, 7, mask="right")
    if task == "multiple-choice":
        assert [value.shape for value in feeds.values()] == [(3, 2, 7)] * 3
    got, wanted = onnxfuse.load(optimized.path).run(feeds), model(feeds, training=False)
    for name, array in got.items():
        kept = feeds["attention_mask"].astype(bool) if array.shape[:2] == (3, 7) else np.ones(3, bool)
        np.testing.assert_allclose(array[kept], wanted[name].numpy()[kept], rtol=0, atol=1e-4 * np.abs(wanted[name]).max())


@pytest.mark.parametrize(("family", "layers"), [("bert", 12), ("distilbert", 6), ("vit", 12)])
def test_as_many_fuse_as_from_pytorch(tmp_path, family, layers):
    with silent():
        tf_model(family, layers=None).save_pretrained(tmp_path / "source")
    _, optimized, _ = whole_chain(tmp_path / "source", tmp_path / "out")
    assert optimized.fused == {
        "attention": layers,
        "qkv": layers,
        "layer_norm": 2 * layers + 1,
        "gelu": layers,
        "unfused": 0,
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["keras", "preset", "object"])
def test_keras_hub(tmp_path, family, form):
    model = keras_model(family)
    source = tmp_path / ("model.keras" if form == "keras" else "preset")
    with silent():
        (model.save if form == "keras" else model.save_to_preset)(str(source))
    if form == "object":
        step = export(ExportConfig("memory", tmp_path / "out"), source=model)
        checkpoint = step.checkpoint
        assert step.parity.passed
        return
    _, optimized, checkpoint = whole_chain(source, tmp_path / "out")
    assert optimized.fused == {"attention": 2, "qkv": 2, "layer_norm": 5, "gelu": 2, "unfused": 0}
    assert checkpoint.task == "feature-extraction"


@pytest.mark.parametrize(
    ("family", "task"), [("bert", "feature-extraction"), ("vit", "feature-extraction"), ("vit", "image-classification")]
)
def test_a_saved_model_that_keras_exports(tmp_path, family, task):
    """``model.export``: KerasHub's names of inputs, the channels last, and outputs without a name."""
    model = keras_model(family)
    with silent():
        if task == "image-classification":
            import keras_hub

            model = keras_hub.models.ViTImageClassifier(model, num_classes=3)
        model.export(str(tmp_path / "saved"), verbose=False)
    step = export(ExportConfig(str(tmp_path / "saved"), tmp_path / "out"))
    checkpoint = step.checkpoint
    assert step.parity.passed
    assert (checkpoint.family.model_type, checkpoint.task) == (family, task)
    fused = optimize(OptimizeConfig(step.path, tmp_path / "out" / "model_optimized.onnx")).fused
    assert (fused["attention"], fused["gelu"]) == (2, 2)


def test_pytorch_weights_in_tensorflows_class(tmp_path):
    from tests.conftest import small_model

    small_model("distilbert", "AutoModelForSequenceClassification", layers=1).save_pretrained(tmp_path / "source")
    steps = {
        framework: export(ExportConfig(str(tmp_path / "source"), tmp_path / str(framework), framework=framework))
        for framework in (None, "tf")
    }
    assert steps[None].origin == "PyTorch"
    assert check(steps[None].path, steps["tf"].path, "reassociate").passed


def test_a_keras_hub_classifier(tmp_path):
    with silent():
        import keras_hub

        model = keras_hub.models.BertTextClassifier(keras_model("bert"), num_classes=3)
        model.save(str(tmp_path / "classifier.keras"))
    _, optimized, checkpoint = whole_chain(tmp_path / "classifier.keras", tmp_path / "out")
    assert checkpoint.task == "text-classification"
    assert onnx_file.load(optimized.path).graph.outputs[0].shape[1] == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_pytorch_and_tensorflow_from_the_same_weights(checkpoints, tmp_path, family):
    """Four computations of one model: TensorFlow, its export, PyTorch with TensorFlow's weights, its export."""
    source = str(checkpoints / family)
    runs = {}
    for framework in ("tf", "pt"):
        step = export(ExportConfig(source, tmp_path / framework, framework=framework))
        checkpoint = step.checkpoint
        runs |= {framework: checkpoint_runner(checkpoint), f"{framework} export": open_runner(step.path)}
    assert "TensorFlow's weights" in step.origin
    cases = list(grid(profile_of(onnx_file.load(step.path), checkpoint.config)))
    expected = expect(runs.pop("tf"), cases)
    for name, run in runs.items():
        parity.compare(expected, run, "reassociate").require(f"{name} differs from TensorFlow")
    assert (
        optimize(OptimizeConfig(tmp_path / "tf" / "model.onnx", tmp_path / "tf.onnx")).fused
        == optimize(OptimizeConfig(tmp_path / "pt" / "model.onnx", tmp_path / "pt.onnx")).fused
    )


@pytest.mark.parametrize(
    ("family", "head", "task", "outputs"),
    [
        ("bert", "TFAutoModel", "feature-extraction", ["last_hidden_state"]),
        ("distilbert", "TFAutoModelForMaskedLM", "fill-mask", ["logits"]),
        ("bert", "TFAutoModelForMaskedLM", "fill-mask", ["logits"]),
        ("distilbert", "TFAutoModelForTokenClassification", "token-classification", ["logits"]),
        ("bert", "TFAutoModelForQuestionAnswering", "question-answering", ["start_logits", "end_logits"]),
        ("vit", "TFAutoModel", "feature-extraction", ["last_hidden_state"]),
    ],
)
def test_every_task(tmp_path, family, head, task, outputs):
    with silent():
        tf_model(family, head).save_pretrained(tmp_path / "source")
    _, optimized, checkpoint = whole_chain(tmp_path / "source", tmp_path / "out")
    assert checkpoint.task == task
    assert [value.name for value in onnx_file.load(optimized.path).graph.outputs] == outputs
    torch_step = export(ExportConfig(str(tmp_path / "source"), tmp_path / "pt", framework="pt"))
    assert check(optimized.path, torch_step.path, "reassociate").passed


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_mean_tokens": True},
        {"pooling_mode": ["cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]},
    ],
)
def test_sentence_embeddings(tmp_path, pooling):
    import json

    with silent():
        tf_model("bert", "TFAutoModel").save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "1_Pooling").mkdir()
    (tmp_path / "source" / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    (tmp_path / "source" / "modules.json").write_text(
        json.dumps([{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds.items()])
    )
    steps = [
        export(ExportConfig(str(tmp_path / "source"), tmp_path / framework, framework=framework)) for framework in ("tf", "pt")
    ]
    assert [value.name for value in onnx_file.load(steps[0].path).graph.outputs] == ["sentence_embedding"]
    assert check(steps[0].path, steps[1].path, "reassociate").passed


def test_modules_that_tensorflow_has_not_are_named(tmp_path):
    import json

    with silent():
        tf_model("bert", "TFAutoModel").save_pretrained(tmp_path / "source")
    source = tmp_path / "source"
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (source / "tokenizer_config.json").write_text(json.dumps({"padding_side": "left"}))
    (source / "modules.json").write_text(
        json.dumps(
            [
                {"type": f"sentence_transformers.models.{kind}", "path": path}
                for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"))
            ]
        )
    )
    with pytest.raises(ExportError, match="asks for Pooling of rows padded on the left, which is exported from PyTorch alone"):
        export(ExportConfig(str(source), tmp_path / "out", framework="tf"))


def test_opsets(checkpoints, tmp_path):
    for opset in (14, 16):
        step = export(ExportConfig(str(checkpoints / "bert"), tmp_path / str(opset), opset=opset))
        assert onnx_file.load(step.path).opset_imports[""] == opset
        optimized = optimize(OptimizeConfig(step.path, tmp_path / f"{opset}.onnx", require=("all",)))
        assert optimized.parity.passed


def test_random_weights_from_the_command_line(process, tmp_path):
    """At full size, in a process of its own: TensorFlow's threads are settled once."""
    result = process(
        "run",
        "distilbert-base-cased",
        "--framework",
        "tf",
        "--random-weights",
        "--length",
        "8",
        "--rounds",
        "1",
        "--threads",
        "1",
        "-o",
        "out",
    )
    assert result.returncode == 0, result.stderr
    assert "TensorFlow" in result.stdout and "attention 6/6" in result.stdout and "1 threads" in result.stdout
    assert "fastest here, which onnxfuse.load opens: " in result.stdout
    assert result.stdout.count("not tried: running models with OpenVINO") == (0 if importlib.util.find_spec("openvino") else 1)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"model.onnx", "model_optimized.onnx", "model_quantized.onnx"}


def test_what_stood_in_two_places_is_stored_once(tmp_path):
    """A tied decoder reads the embedding table; TensorFlow's graph names it twice."""
    with silent():
        model = tf_model("bert", "TFAutoModelForMaskedLM")
        model.save_pretrained(tmp_path / "source")
    step = export(ExportConfig(str(tmp_path / "source"), tmp_path / "out"))
    count = sum(int(np.prod(weight.shape)) for weight in {id(weight): weight for weight in model.weights}.values())
    assert step.size < 4 * count * 1.1 + 200_000


def test_a_model_that_moved_still_runs(checkpoints, tmp_path):
    """A SavedModel alone, without config.json two folders above: its inputs tell the family."""
    shutil.copytree(checkpoints / "vit" / "saved_model" / "1", tmp_path / "alone")
    checkpoint = open_checkpoint(tmp_path / "alone")
    assert (checkpoint.family.model_type, checkpoint.task) == ("vit", "image-classification")
    step = export(ExportConfig(str(tmp_path / "alone"), tmp_path / "out"))
    assert step.parity.passed


def test_tensorflow_and_litert_are_rows_beside_our_models(checkpoints, tmp_path):
    exported = export(ExportConfig(str(checkpoints / "bert"), tmp_path))
    lite = onnxfuse.export(checkpoints / "bert", tmp_path, format="tflite", overwrite=True)
    found = onnxfuse.benchmark([exported.path, lite.path], against=["tensorflow"], batch=1, length=16, rounds=1)
    assert list(found.rows) == [str(exported.path), str(lite.path), "tensorflow"] and not found.failed
    for row in list(found.rows.values())[1:]:
        assert row.parity.passed and row.timing.p50 > 0 and row.size > 0
    weights, file = found.rows["tensorflow"].size, found.rows[str(exported.path)].size
    assert 0.9 < weights / file < 1, "the file has nodes, too, which are little beside such small weights"
