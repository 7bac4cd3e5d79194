"""A baseline from one file outside the package: measured beside ours by its name."""

import json

import pytest

from onnxfuse import plugins
from onnxfuse.io import onnx_file
from tests.cli.test_cli import expect_one_line
from tests.conftest import parse

REFERENCE = '''
"""onnx's own evaluator: each operator as a few lines of numpy."""

from onnx.reference import ReferenceEvaluator

from onnxfuse.pipeline.baselines import Baseline, Made


def make(context):
    evaluator = ReferenceEvaluator(str(context.model))
    return Made(lambda feeds: dict(zip(evaluator.output_names, evaluator.run(None, feeds))), context.model.stat().st_size)


REFERENCE = Baseline("reference", "fp32", make)
'''


@pytest.fixture
def model(tmp_path, monkeypatch):
    (tmp_path / "reference.py").write_text(REFERENCE)
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "reference.py"))
    path = tmp_path / "m.onnx"
    text = "g (float[B,4] x) => (float[B,4] y) <float[4] w = {1, 2, 3, 4}> { p = Mul(x, w)  y = Tanh(p) }"
    onnx_file.save(parse(text, opset=20), path)
    return path


def test_it_is_measured_beside_ours(model, cli):
    result = cli("benchmark", model, "--against", "reference", "--rounds", "2", "--json")
    assert result.returncode == 0, result.stderr
    _, row = json.loads(result.stdout)["results"]
    assert (row["name"], row["kind"], row["path"], row["size"]) == ("reference", "fp32", None, model.stat().st_size)
    assert row["parity"]["passed"]


def test_its_name_is_among_those_that_a_wrong_one_is_answered_with(model, cli):
    expect_one_line(cli("benchmark", model, "--against", "refrence"), 2, "no baseline named refrence", "reference")
