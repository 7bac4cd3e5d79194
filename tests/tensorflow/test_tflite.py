"""LiteRT models: they compute what TensorFlow does, in each precision, and are measured beside ONNX."""

import json

import numpy as np
import pytest

from onnxfuse.config import ExportConfig
from onnxfuse.errors import ModelError
from onnxfuse.io.quiet import silent
from onnxfuse.pipeline.export_tflite import export_tflite
from onnxfuse.runtime import Settings, litert, open_runner
from tests.conftest import SMALL
from tests.tensorflow.conftest import keras_model


@pytest.mark.parametrize("family", list(SMALL))
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision(checkpoints, tmp_path, family, precision):
    plan = ExportConfig(str(checkpoints / family), tmp_path, format="tflite", precision=precision)
    step = export_tflite(plan)
    assert step.parity.passed and step.parity.cases > 1
    assert litert.precision(step.path) == precision
    assert step.path.name == {"fp32": "model.tflite", "fp16": "model_fp16.tflite", "int8": "model_int8.tflite"}[precision]


def test_sizes_fall_with_the_precision(checkpoints, tmp_path):
    sizes = [
        export_tflite(ExportConfig(str(checkpoints / "bert"), tmp_path, format="tflite", precision=precision)).size
        for precision in ("fp32", "fp16", "int8")
    ]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < 0.4 * sizes[0]


def test_keras_hub_in_litert(tmp_path):
    with silent():
        keras_model("distilbert").save(str(tmp_path / "model.keras"))
    step = export_tflite(ExportConfig(str(tmp_path / "model.keras"), tmp_path, format="tflite"))
    assert step.parity.passed


def test_side_by_side_with_onnx(cli, checkpoints):
    assert cli("export", checkpoints / "bert", "-o", "out").returncode == 0
    for precision in ("fp32", "int8"):
        assert cli("export", checkpoints / "bert", "--format", "tflite", "--precision", precision, "-o", "out").returncode == 0
    result = cli("benchmark", "out", "--rounds", "2", "--length", "16", "--json")
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)["results"]}
    assert [(name.rsplit("/")[-1], row["kind"], row["runtime"]) for name, row in rows.items()] == [
        ("model.onnx", "fp32", "ort"),
        ("model.tflite", "fp32", "litert"),
        ("model_int8.tflite", "int8", "litert"),
    ]
    assert all(row["parity"]["passed"] and row["peak_memory"] > 0 for row in list(rows.values())[1:])


def test_shapes_change_from_call_to_call(checkpoints, tmp_path):
    step = export_tflite(ExportConfig(str(checkpoints / "distilbert"), tmp_path, format="tflite"))
    run = open_runner(step.path, Settings(threads=1))
    ids = np.arange(12).reshape(2, 6)
    whole = run({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]
    single = run({"input_ids": ids[1:], "attention_mask": np.ones_like(ids[1:])})["logits"]
    again = run({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]
    np.testing.assert_allclose(single[0], whole[1], atol=1e-5)
    np.testing.assert_array_equal(whole, again)
    with pytest.raises(ModelError, match="the model needs attention_mask"):
        run({"input_ids": ids})
    with pytest.raises(ModelError, match="LiteRT cannot run the model on attention_mask"):
        run({"input_ids": ids[0], "attention_mask": ids[0]})
    np.testing.assert_array_equal(run({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"], whole)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--format", "tflite", "--precision", "int4"], 2, "--precision int4: wanted one of fp32, fp16, int8"),
        (["--format", "coreml"], 2, "--format coreml: wanted one of onnx, tflite"),
        (["--format", "tflite", "--framework", "pt"], 2, "--format tflite converts TensorFlow models"),
    ],
)
def test_wrong_options(cli, checkpoints, arguments, code, message):
    result = cli("export", checkpoints / "bert", *arguments)
    assert result.returncode == code
    assert message in result.stderr


def test_files_that_are_no_models(cli, checkpoints, tmp_path):
    (tmp_path / "broken.tflite").write_bytes(b"nothing of the kind")
    result = cli("benchmark", "broken.tflite")
    assert result.returncode == 2
    assert "give an ONNX model first" in result.stderr
    with pytest.raises(ModelError, match="LiteRT cannot open"):
        open_runner(tmp_path / "broken.tflite")
