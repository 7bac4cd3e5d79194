"""Fixed shapes: the model takes these only, computes the same, and still loses its padding."""

import json

import numpy as np
import onnx
import pytest

from onnxfuse.config import ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.errors import ModelError
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.runtime import open_runner
from tests.cli.test_cli import expect_one_line
from tests.conftest import small_model

HEADS = {
    "bert": "AutoModelForSequenceClassification",
    "distilbert": "AutoModelForQuestionAnswering",
    "vit": "AutoModelForImageClassification",
}
WRITTEN = [("bert", "dynamo"), ("bert", "torchscript"), ("distilbert", "torchscript"), ("vit", "torchscript")]


@pytest.fixture(scope="module", params=WRITTEN, ids="-".join)
def exported(request, tmp_path_factory):
    family, exporter = request.param
    folder = tmp_path_factory.mktemp(family)
    model = small_model(family, HEADS[family], layers=2)
    return export(ExportConfig(family, folder, exporter=exporter), source=model).path


@pytest.mark.parametrize("sizes", [{"batch": 4, "length": 16}, {"batch": 2}, {"batch": 1}, {"length": 16}])
def test_fixed_sizes(exported, sizes, tmp_path):
    config = json.loads((exported.parent / "config.json").read_text())
    if config["model_type"] == "vit":
        sizes = {"batch": sizes.get("batch", 3)}
    step = optimize(OptimizeConfig(exported, tmp_path / "o.onnx", require=("all",), **sizes))
    assert step.parity.passed
    assert str(step.padding) == ("removed" if config["model_type"] == "bert" else str(step.padding))
    graph = onnx.load(tmp_path / "o.onnx").graph
    names = {"batch": "batch_size", "length": "sequence_length"}
    dims = [dim for value in (*graph.input, *graph.output) for dim in value.type.tensor_type.shape.dim]
    assert not {names[size] for size in sizes} & {dim.dim_param for dim in dims}
    assert set(sizes.values()) <= {dim.dim_value for dim in dims}
    assert quantize(QuantizeConfig(step.path, tmp_path / "q.onnx")).parity.passed


def test_other_sizes_are_refused(cli, bert_export, tmp_path):
    source = bert_export / "export" / "model.onnx"
    assert cli("optimize", source, "-o", "o.onnx", "--batch", 1, "--length", 8).returncode == 0
    ids = np.ones((1, 9), np.int64)
    with pytest.raises(ModelError, match=r"cannot run .*o\.onnx on input_ids \[1, 9\]"):
        open_runner(tmp_path / "o.onnx")({"input_ids": ids, "attention_mask": ids, "token_type_ids": ids})
    expect_one_line(cli("optimize", "o.onnx", "-o", "p.onnx", "--length", 9), 2, "no dynamic sequence length", "fixed to 9")
    result = cli("check", source, "o.onnx")
    assert "equal within 'reassociate'" in result.stdout, result.stderr
