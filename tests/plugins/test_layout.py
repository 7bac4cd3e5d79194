"""A layout from one file outside the package: its library's names, and a conversion that is held against the model."""

import json

import onnx
import pytest

from onnxfuse import plugins
from tests.layouts.conftest import lay

FLAT = '''
"""Vespa's application packages: the models in one folder, beside each other."""

from onnxfuse.layouts import FLOAT, INT8, Layout


def use(content, precision, folder):
    return f"vespa deploy {folder}"


FLAT = Layout("vespa", "Vespa", {FLOAT: "models/{name}.onnx", INT8: "models/{name}_int8.onnx"}, use)
'''

CONVERTED = """
import onnx
from onnxfuse.layouts import FLOAT, INT8, Layout


def convert(source, place):
    model = onnx.load(source)
    model.doc_string = "converted"
    for weight in model.graph.initializer:
        if weight.name == "table":
            values = onnx.numpy_helper.to_array(weight) * {factor}
            weight.CopyFrom(onnx.numpy_helper.from_array(values, "table"))
    onnx.save(model, place)


CONVERTED = Layout("converted", "Converted", {{FLOAT: "a.onnx", INT8: "b.onnx"}}, lambda *_: "", convert=convert)
"""


@pytest.fixture
def bring(tmp_path, monkeypatch):
    def call(text):
        lay(tmp_path / "encoder")
        (tmp_path / "plugins").mkdir()
        (tmp_path / "plugins" / "brought.py").write_text(text)
        monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "plugins"))

    return call


def test_it_is_chosen_as_ours_are(bring, cli):
    bring(FLAT)
    result = cli("package", "encoder", "--for", "vespa", "-o", "out", "--json")
    assert result.returncode == 0, result.stderr
    models = json.loads(result.stdout)["models"]
    assert {each: (found["path"], found["use"]) for each, found in models.items()} == {
        "float": ("out/models/encoder.onnx", "vespa deploy out"),
        "int8": ("out/models/encoder_int8.onnx", "vespa deploy out"),
    }


def test_what_is_converted_is_compared(bring, cli, tmp_path):
    bring(CONVERTED.format(factor="1"))
    result = cli("package", "encoder", "--for", "converted", "-o", "out", "--json")
    assert result.returncode == 0, result.stderr
    assert all(found["parity"]["passed"] for found in json.loads(result.stdout)["models"].values())
    assert onnx.load(tmp_path / "out/a.onnx").doc_string == "converted"


def test_a_conversion_that_computes_something_else_is_refused(bring, cli, tmp_path):
    bring(CONVERTED.format(factor="1.01"))
    result = cli("package", "encoder", "--for", "converted", "-o", "out")
    assert result.returncode == 5 and "Converted computes something else than encoder/model.onnx" in result.stderr
    assert "out/a.onnx was not written" in result.stderr and not (tmp_path / "out").exists()
