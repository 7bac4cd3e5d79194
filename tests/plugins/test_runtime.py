"""A runtime from one file outside the package: measured and compared as ours are."""

import json

import numpy as np
import pytest

import onnxfuse
from onnxfuse import plugins
from onnxfuse.errors import ModelError
from onnxfuse.io import onnx_file
from onnxfuse.runtime import runtimes
from tests.conftest import parse

REFERENCE = '''
"""onnx's own evaluator: each operator as a few lines of numpy."""

from onnx.reference import ReferenceEvaluator

from onnxfuse.runtime import Runtime


def open_runner(path, settings):
    evaluator = ReferenceEvaluator(str(path))
    return lambda feeds: dict(zip(evaluator.output_names, evaluator.run(None, {name: feeds[name] for name in evaluator.input_names})))


REFERENCE = Runtime("reference", "onnx's reference", open_runner, computes={"fp32": "bf16"})
'''


@pytest.fixture
def reference(tmp_path, monkeypatch):
    (tmp_path / "reference.py").write_text(REFERENCE)
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "reference.py"))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.onnx"
    text = "g (float[B,4] x) => (float[B,4] y) <float[4] w = {1, 2, 3, 4}> { p = Mul(x, w)  y = Tanh(p) }"
    onnx_file.save(parse(text, opset=20), path)
    return path


def test_it_is_measured_beside_ours(reference, model, cli):
    """In a process of its own too, whose memory is measured; its precision is what it says."""
    result = cli("benchmark", model, "--runtime", "ort", "--runtime", "reference", "--rounds", "2", "--json")
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)["results"]}
    assert [(row["kind"], row["runtime"]) for row in rows.values()] == [("fp32", "ort"), ("bf16", "reference")]
    row = rows[f"{model} in reference"]
    assert row["parity"]["passed"] and row["peak_memory"] > 0


def test_a_model_is_loaded_with_it(reference, model):
    x = np.array([[0.1, -0.2, 0.3, 0.0]], np.float32)
    loaded = onnxfuse.load(model, runtime="reference")
    assert loaded.settings.runtime == "reference"
    np.testing.assert_allclose(loaded(x=x)["y"], np.tanh(x * [1, 2, 3, 4]), rtol=1e-6)


def test_it_may_be_tuned_for_and_is_named_where_none_is_meant(reference, model, cli):
    for verb in ("tune", "benchmark"):
        result = cli(verb, model, "--runtime", "refrence")
        assert result.returncode == 2
        assert ", reference" in result.stderr
    assert "reference" in runtimes(".onnx") and "reference" not in runtimes(".tflite")


def test_without_its_file_there_is_none(model, cli):
    result = cli("benchmark", model, "--runtime", "reference")
    assert result.returncode == 2
    assert (
        "no runtime named 'reference'; choose one of cuda, tensorrt, openvino, " in result.stderr
        and ", reference" not in result.stderr
    )


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        (
            "evaluator = ReferenceEvaluator(str(path))",
            "raise RuntimeError('no device')",
            "cannot open {model}: RuntimeError: no device",
        ),
        ("evaluator.run(None", "evaluator.go(None", "cannot run {model}: AttributeError"),
        ("return lambda feeds: dict(", "return lambda feeds: list(", "gives a list for {model}, wanted a dict of arrays"),
    ],
)
def test_a_faulty_one_is_named(tmp_path, monkeypatch, model, right, wrong, words):
    (tmp_path / "reference.py").write_text(REFERENCE.replace(right, wrong))
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "reference.py"))
    with pytest.raises(ModelError) as raised:
        onnxfuse.load(model, runtime="reference")(x=[[1.0] * 4])
    assert f"runtime reference {words.format(model=model)}" in str(raised.value)
