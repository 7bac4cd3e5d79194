"""An exporter from one file outside the package: it exports, and is chosen and refused as ours are."""

import json

import pytest

from onnxfuse import plugins
from onnxfuse.io import onnx_file
from tests.conftest import messages
from tests.plugins.conftest import small_checkpoint

SIGNED = '''
"""TorchScript at one opset, with its name in the model."""

import onnx

from onnxfuse.exporters.api import Exporter
from onnxfuse.exporters.torch import torchscript


def write(checkpoint, path, opset):
    torchscript(checkpoint, path, opset)
    model = onnx.load(path)
    model.producer_name = "signed"
    onnx.save(model, path)


SIGNED = Exporter("signed", "pt", 18, range(18, 19), write)
'''


@pytest.fixture
def signed(tmp_path, monkeypatch):
    (tmp_path / "signed.py").write_text(SIGNED)
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "signed.py"))
    small_checkpoint("Bert", tmp_path / "checkpoint")


def test_it_exports(signed, cli, tmp_path):
    result = cli("export", "checkpoint", "--exporter", "signed", "-o", "out", "--json")
    assert result.returncode == 0, result.stderr
    step = json.loads(result.stdout)
    assert (step["exporter"], step["framework"], step["parity"]["passed"]) == ("signed", "pt", True)
    model = onnx_file.load(tmp_path / "out" / "model.onnx")
    assert (model.producer_name, model.opset_imports[""]) == ("signed", 18)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--exporter", "signed", "--opset", "17"], "the signed exporter writes opset 18 to 18, not 17"),
        (["--exporter", "other"], "no exporter named 'other'; choose one of tf2onnx, dynamo, torchscript, signed"),
        (["--exporter", "tf2onnx"], "takes TensorFlow models, this one is PyTorch's; choose dynamo or torchscript or signed"),
    ],
)
def test_it_is_refused_and_named_as_ours_are(signed, cli, arguments, message):
    result = cli("export", "checkpoint", *arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_without_its_file_there_is_none(cli, tmp_path):
    small_checkpoint("Bert", tmp_path / "checkpoint")
    result = cli("export", "checkpoint", "--exporter", "signed")
    assert result.returncode == 2
    assert "no exporter named 'signed'" in result.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("onnx.save(model, path)", "the signed exporter wrote no model for checkpoint"),
        ("model.producer_name = {}['x']", "the signed exporter failed on checkpoint: KeyError: 'x'"),
    ],
)
def test_a_faulty_one_is_named(signed, cli, tmp_path, line, words):
    faulty = SIGNED.replace("onnx.save(model, path)", "path.unlink()" if line.startswith("onnx") else line)
    (tmp_path / "signed.py").write_text(faulty)
    result = cli("export", "checkpoint", "--exporter", "signed", "-o", "out")
    assert result.returncode == 4, result.stderr
    assert words in messages(result.stderr)[0]
    assert not (tmp_path / "out" / "model.onnx").exists()
