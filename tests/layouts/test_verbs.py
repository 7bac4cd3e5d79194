"""Every verb reads every layout, the hub's and Triton's as they are; OpenVINO's files run, and are not rewritten.

Verbs are those of the command line, layouts those that are found: a new one of either turns this red until it is tried.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import onnxfuse
from onnxfuse.cli.app import VERBS
from onnxfuse.io import folders, onnx_file
from onnxfuse.layouts import layouts
from onnxfuse.pipeline import memory, view
from onnxfuse.runtime import declared
from tests.conftest import fill, parse
from tests.layouts.conftest import lay

FEEDS = {"input_ids": np.array([[3, 1, 4, 0]]), "attention_mask": np.array([[1, 1, 1, 0]])}

MODELS = {
    "optimize": ("optimize", "MODEL"),
    "quantize": ("quantize", "MODEL", "--overwrite", "--smooth", "off", "--rounding", "nearest"),
    "explain": ("explain", "MODEL"),
    "tune": ("tune", "MODEL", "--rounds", "1", "--length", "8", "--threads", "1"),
    "ablate": ("ablate", "MODEL", "--rounds", "1", "--length", "8"),
    "diff": ("diff", "MODEL", "encoder", "-o", "d.html"),
    "profile": ("profile", "MODEL", "--rounds", "1", "--length", "8"),
    "package": ("package", "MODEL", "--for", "optimum", "-o", "made"),
}
"""Verbs that make or look into a model, by name."""

RUNS = {
    "check": ("check", "MODEL", "encoder"),
    "benchmark": ("benchmark", "MODEL", "encoder", "--rounds", "1", "--length", "8"),
    "evaluate": ("evaluate", "MODEL", "encoder", "--data", "data.jsonl", "--rounds", "1"),
    "view": ("view", "MODEL", "--no-browser"),
}
"""Verbs that run or show one."""

OTHERS = {
    "export": (("export", "MODEL", "-o", "made"), "give the folder that save_pretrained wrote|save the model again with"),
    "run": (("run", "MODEL", "-o", "made"), "give the folder that save_pretrained wrote|save the model again with"),
    "report": (("report", "MODEL"), "that says what onnxfuse made"),
    "map": (("map", "MODEL", "--input", "data.jsonl", "-o", "made"), "map is for question-answering"),
    "push": (("push", "MODEL", "me/model"), "no package in the hub's layout|offline"),
}
"""Verbs that take something else, and what they say of a model."""

NO_MODEL = {"doctor"}

FLOAT = """g (int64[batch_size,sequence_length] input_ids, int64[batch_size,sequence_length] attention_mask, float[9,4] table,
  float[4,4096] wide, float[4096,4] narrow) => (float[batch_size,sequence_length,4] last_hidden_state) {
  rows = Gather (table, input_ids)
  more = MatMul (rows, wide)
  bent = Tanh (more)
  shown = MatMul (bent, narrow)
  last = Constant <value_ints = [-1]> ()
  mask = Unsqueeze (attention_mask, last)
  kept = Cast <to = 1> (mask)
  last_hidden_state = Mul (shown, kept)
}"""
"""As that of ``lay``, with products that are worth quantizing."""


OWN = "ray-serve"
"""It has models where our own folders have them, which all other tests read."""

PLACES = {str(sorted(each.places.items())): name for name, each in layouts().items() if name != OWN}
"""A layout for each way to place the models."""


@pytest.fixture(params=PLACES.values())
def packaged(request, tmp_path):
    """The name of a layout, and what a user gives a verb of it: its folder, of Triton a model's folder in it."""
    out = tmp_path / "packages"
    encoder = lay(tmp_path / "encoder")
    onnx_file.save(fill(parse(FLOAT), table=(9, 4), wide=(4, 4096), narrow=(4096, 4)), encoder / folders.MODEL)
    onnxfuse.package(encoder, request.param, out)
    rows = [{"input_ids": [1, at, 3], "attention_mask": [1, 1, 1]} for at in range(8)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return request.param, out / "encoder" if request.param == "triton" else out


def test_every_verb_is_tried():
    assert {verb.__name__ for verb in VERBS} == {*MODELS, *RUNS, *OTHERS, *NO_MODEL}


def test_every_verb_reads_every_layout(packaged, cli, monkeypatch):
    layout, folder = packaged
    monkeypatch.setattr(memory, "peak_memory", lambda *args, **kwargs: 0)  # a process for each file
    monkeypatch.setattr(view, "serve", lambda path, **_: str(path))
    monkeypatch.setattr(view, "wait", lambda: None)
    for name, line in (MODELS | RUNS).items():
        result = cli(*(folder if word == "MODEL" else word for word in line), "--json")
        if layout == "openvino" and name in MODELS:
            assert result.returncode == 2, (name, result.stderr)
            assert "in OpenVINO's own format, which is not rewritten: give the .onnx file" in result.stderr
        else:
            assert result.returncode == 0, (name, result.stderr)
            assert str("made" if name == "package" else folder) in result.stdout, name
    for name, (line, words) in OTHERS.items():
        result = cli(*(folder if word == "MODEL" else word for word in line))
        assert result.returncode != 0 and re.search(words, result.stderr), (name, result.stderr)


def test_every_layout_is_loaded(packaged, tmp_path):
    layout, folder = packaged
    int8 = layout != "triton"  # a folder of its own there
    wanted = onnxfuse.load(tmp_path / "encoder" / (folders.QUANTIZED if int8 else folders.MODEL))(**FEEDS)["last_hidden_state"]
    opened = onnxfuse.load(folder)
    assert opened.settings.runtime == ("openvino" if layout == "openvino" else "ort")
    np.testing.assert_allclose(opened(**FEEDS)["last_hidden_state"], wanted, rtol=0, atol=1e-5)
    got = onnxfuse.load_torch(folder)(**{name: torch.from_numpy(array) for name, array in FEEDS.items()})
    np.testing.assert_allclose(got.last_hidden_state.numpy(), wanted, rtol=0, atol=1e-5)


def test_what_is_not_where_it_was_wanted_is_named(encoder, cli, tmp_path):
    """Files of other names in the hub's folder, and the models of a Triton repository."""
    assert cli("package", encoder, "--for", "optimum", "-o", "hub").returncode == 0
    (tmp_path / "hub/onnx/model.onnx").rename(tmp_path / "hub/onnx/model_O4.onnx")
    (tmp_path / "hub/onnx/model_quantized.onnx").unlink()
    result = cli("optimize", "hub")
    assert result.returncode == 2 and "holds no model.onnx; give one of hub/onnx/model_O4.onnx" in result.stderr
    assert cli("optimize", "hub/onnx/model_O4.onnx").returncode == 0
    assert cli("package", encoder, "--for", "triton", "-o", "served").returncode == 0
    result = cli("optimize", "served")
    assert "give one of served/encoder/1/model.onnx, served/encoder_int8/1/model.onnx" in result.stderr


def test_tritons_newest_version_is_taken(encoder, cli, tmp_path):
    assert cli("package", encoder, "--for", "triton", "-o", "served").returncode == 0
    place = tmp_path / "served" / "encoder"
    for version in ("2", "10"):
        (place / version).mkdir()
        (place / version / "model.onnx").write_bytes((place / "1" / "model.onnx").read_bytes())
    opened = onnxfuse.load(place)
    assert opened.path == place / "10" / "model.onnx"
    assert folders.read_config(opened.path)["max_position_embeddings"] == 32


def test_openvinos_file_says_what_it_takes_and_what_it_was_made_with(encoder, cli, tmp_path):
    """In the hub's folder too; its weights count in its size."""
    assert cli("optimize", encoder).returncode == 0
    assert cli("package", encoder, "--for", "openvino", "-o", "hub/openvino").returncode == 0
    place = tmp_path / "hub" / "openvino" / folders.IR
    (place.parent / folders.IR_QUANTIZED).unlink()
    (place.parent / "config.json").rename(tmp_path / "hub" / "config.json")
    opened = onnxfuse.load(tmp_path / "hub")
    assert (opened.path, opened.inputs, opened.outputs) == (place, tuple(FEEDS), ("last_hidden_state",))
    assert set(declared(place).metadata_props) == {"onnxfuse"}
    assert opened.settings == replace(onnxfuse.load(encoder / folders.OPTIMIZED).settings, runtime="openvino")
    assert folders.read_config(place)["max_position_embeddings"] == 32
    assert onnx_file.model_bytes(place) == place.stat().st_size + place.with_suffix(".bin").stat().st_size
    with pytest.raises(onnxfuse.UsageError, match="input input_ids has shape"):
        opened(input_ids=[1, 2], attention_mask=[1, 1])
    for model in (place, tmp_path / "hub"):
        result = cli("quantize", model)
        assert result.returncode == 2 and result.stderr.count("\n") == 1 and "which is not rewritten" in result.stderr


def test_a_broken_file_of_openvino_is_said_in_one_line(cli, tmp_path):
    (tmp_path / "broken.xml").write_text("<net>")
    for line in (("check", "broken.xml", "broken.xml"), ("benchmark", "broken.xml")):
        result = cli(*line)
        assert result.returncode == 3 and re.search("OpenVINO [0-9.]+ cannot read broken.xml", result.stderr), result.stderr
