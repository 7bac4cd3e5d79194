"""Packages: what lies where, what is refused, and what happens to what was there."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest

import onnxfuse
from onnxfuse.errors import ModelError
from onnxfuse.io import folders, onnx_file
from onnxfuse.layouts import layouts
from onnxfuse.pipeline.package import _clean, content_of
from tests.layouts.conftest import lay

FEEDS = {"input_ids": np.array([[3, 1, 4, 0]]), "attention_mask": np.array([[1, 1, 1, 0]])}
HUB = ("optimum", "sentence-transformers", "transformers.js")
PLACES = {
    **dict.fromkeys(HUB, ("onnx/model.onnx", "onnx/model_quantized.onnx", "")),
    "triton": ("encoder/1/model.onnx", "encoder_int8/1/model.onnx", "encoder/"),
    "ray-serve": ("model.onnx", "model_quantized.onnx", ""),
    "openvino": ("openvino_model.xml", "openvino_model_quantized.xml", ""),
}


@pytest.fixture
def source(name, tmp_path):
    """A folder of a model that a layout serves: Ray Serve answers with what the model gives for a text as a whole."""
    return lay(tmp_path / "encoder", *(("sentence_embedding", "sentence-similarity") if name == "ray-serve" else ()))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_every_layout_is_tested():
    assert set(layouts()) == set(PLACES)


@pytest.mark.parametrize("name", PLACES)
def test_the_line_that_opens_it_quotes_its_path(name, source):
    content = content_of(source / folders.MODEL)
    line = layouts()[name].use(content, "float", 'my "best" models')
    if name in ("triton", "ray-serve"):
        assert 'my "best" models' in shlex.split(line, comments=True)
    else:
        assert r'"my \"best\" models' in line


@pytest.mark.parametrize("name", PLACES)
def test_models_and_what_belongs_to_them_lie_where_the_library_looks(name, source, cli, tmp_path):
    result = cli("package", source, "--for", name, "-o", "out", "--json")
    assert result.returncode == 0, result.stderr
    told, (model, int8, home) = json.loads(result.stdout), PLACES[name]
    assert {each: found["path"] for each, found in told["models"].items()} == {"float": f"out/{model}", "int8": f"out/{int8}"}
    assert told["files"] == [each for each in files(tmp_path / "out") if each != folders.RECORD]
    assert {f"{home}config.json", f"{home}tokenizer.json", f"{home}tokenizer_config.json"} < set(told["files"])
    for each, found in told["models"].items():
        assert "out" in found["use"] and found["size"] > 100, each
        agrees = found["parity"]
        assert (agrees is None) == (name != "openvino") and (agrees is None or agrees["passed"])


@pytest.mark.parametrize("name", PLACES)
def test_no_file_names_a_place_of_this_machine(name, source, cli, tmp_path):
    assert cli("package", source, "--for", name, "-o", "out").returncode == 0
    for each in files(tmp_path / "out"):
        content = (tmp_path / "out" / each).read_bytes()
        assert str(tmp_path).encode() not in content and b"/home/somebody" not in content, each


@pytest.mark.parametrize("name", [*HUB, "triton"])
def test_every_verb_reads_what_is_packaged(name, encoder, cli, tmp_path):
    """The float model stands for the folder, or the int8 one where that is asked; config.json is found above it."""
    assert cli("package", encoder, "--for", name, "-o", "out").returncode == 0
    place = tmp_path / "out" / ("encoder" if name == "triton" else "")
    wanted = onnxfuse.load(encoder / folders.MODEL)(**FEEDS)["last_hidden_state"]
    model = folders.source_file(place, folders.MODEL)
    np.testing.assert_array_equal(onnxfuse.load(model)(**FEEDS)["last_hidden_state"], wanted)
    assert folders.read_config(model)["max_position_embeddings"] == 32
    assert cli("check", encoder, place).returncode == 0
    result = cli("optimize", place, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["path"] == str(model.with_name(folders.OPTIMIZED))
    assert onnxfuse.load(place).path.parent == model.parent


def test_load_of_a_hub_folder_takes_its_int8_model(encoder, cli, tmp_path):
    assert cli("package", encoder, "--for", "optimum", "-o", "out").returncode == 0
    opened = onnxfuse.load(tmp_path / "out")
    assert opened.path == tmp_path / "out/onnx/model_quantized.onnx"
    wanted = onnxfuse.load(encoder / folders.QUANTIZED)(**FEEDS)["last_hidden_state"]
    np.testing.assert_array_equal(opened(**FEEDS)["last_hidden_state"], wanted)


def test_the_optimized_model_is_the_float_one(encoder, cli, tmp_path):
    """Of its own note, too: what opens it takes the options that measured best."""
    assert cli("optimize", encoder).returncode == 0
    assert cli("package", encoder, "--for", "optimum", "-o", "out").returncode == 0
    assert "onnxfuse" in onnx_file.metadata(tmp_path / "out/onnx/model.onnx")
    assert "onnxfuse" not in onnx_file.metadata(encoder / folders.MODEL)


def test_a_model_above_its_config_is_no_package_where_it_has_its_own(encoder, cli, tmp_path):
    """A folder called onnx with a config.json of its own is a folder like any other."""
    inner = lay(tmp_path / "models" / "onnx")
    (tmp_path / "models" / "config.json").write_text("{}")
    assert folders.read_config(inner / folders.MODEL)["model_type"] == "bert"
    (inner / "config.json").unlink()
    assert folders.read_config(inner / folders.MODEL) == {}
    (tmp_path / "models" / "other").mkdir()
    assert folders.read_config(tmp_path / "models" / "other" / folders.MODEL) == {}


def test_from_python(encoder, tmp_path):
    made = onnxfuse.package(encoder, "optimum", tmp_path / "out")
    assert made.models["float"] == tmp_path / "out/onnx/model.onnx" and str(tmp_path / "out") in made.use["int8"]
    assert onnxfuse.load(made).path == made.models["int8"]
    with pytest.raises(onnxfuse.UsageError, match="no layout named"):
        onnxfuse.package(encoder, "keras", tmp_path / "other")


# Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "output", "task", "gone", "why"),
    [
        ("sentence-transformers", "sentence_embedding", "sentence-similarity", "", "--outputs last_hidden_state"),
        ("sentence-transformers", "sentence_embedding", "fill-mask", "", "--outputs logits"),
        ("sentence-transformers", "logits", "token-classification", "", "no class for task token-classification"),
        ("sentence-transformers", "logits", "text-classification", "tokenizer_config.json", "no tokenizer lies beside"),
        ("transformers.js", "logits", "text-classification", "tokenizer.json", "AutoTokenizer's save_pretrained"),
    ],
)
def test_a_model_that_cannot_serve_is_refused_with_the_next_step(name, output, task, gone, why, cli, tmp_path):
    folder = lay(tmp_path / "model", output, task)
    if gone:
        (folder / gone).unlink()
    result = cli("package", folder, "--for", name, "-o", "out")
    assert result.returncode == 3 and why in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert not (tmp_path / "out").exists()
    assert cli("package", folder, "--for", "optimum", "-o", "out").returncode == 0


def test_the_next_step_names_the_checkpoint(cli, tmp_path):
    folder = lay(tmp_path / "model", "sentence_embedding", "sentence-similarity")
    (folder / folders.RECORD).write_text(json.dumps({"export": {"plan": {"source": "org/checkpoint"}}}))
    result = cli("package", folder, "--for", "sentence-transformers")
    assert "onnxfuse export org/checkpoint --outputs last_hidden_state" in result.stderr


def test_no_such_layout(encoder, cli):
    result = cli("package", encoder, "--for", "keras")
    assert (
        result.returncode == 2 and "openvino, optimum, ray-serve, sentence-transformers, transformers.js, triton" in result.stderr
    )


def test_models_of_two_exports_are_refused(encoder, cli, tmp_path):
    lay(tmp_path / "other", "logits")
    (tmp_path / "other" / folders.QUANTIZED).rename(encoder / folders.QUANTIZED)
    result = cli("package", encoder, "--for", "optimum", "-o", "out")
    assert result.returncode == 3 and "make it anew" in result.stderr and not (tmp_path / "out").exists()


# What was there --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["optimum", "triton"])
def test_its_own_folder_is_never_the_output(name, encoder, cli):
    """Also where no file would be replaced: Triton's lie deeper."""
    before = files(encoder)
    assert cli("package", encoder, "--for", name, "-o", encoder).returncode == 2
    assert files(encoder) == before


@pytest.mark.parametrize("name", ["config.json", "onnx/model.onnx"])
def test_files_of_others_stay_but_with_overwrite(name, encoder, cli, tmp_path):
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).write_text("{}")
    result = cli("package", encoder, "--for", "optimum", "-o", "out")
    assert result.returncode == 2 and f"out/{name} is there" in result.stderr
    assert "writing" not in result.stderr  # what is in the way is seen before any work
    assert files(tmp_path / "out") == [name] and (tmp_path / "out" / name).read_text() == "{}"
    assert cli("package", encoder, "--for", "optimum", "-o", "out", "--overwrite").returncode == 0
    assert (tmp_path / "out" / name).stat().st_size > 2


def test_again_replaces_its_own_and_drops_what_is_no_longer_made(encoder, cli, tmp_path):
    assert cli("package", encoder, "--for", "triton", "-o", "out").returncode == 0
    (encoder / folders.QUANTIZED).unlink()
    (tmp_path / "out/encoder_int8/config.json").write_text("{}")  # changed since: somebody's
    assert cli("package", encoder, "--for", "triton", "-o", "out").returncode == 0
    assert [each for each in files(tmp_path / "out") if each.startswith("encoder_int8")] == ["encoder_int8/config.json"]
    assert len(files(tmp_path / "out")) == 7


def test_without_a_place_it_goes_into_packages(encoder, cli, tmp_path):
    assert cli("package", encoder, "--for", "optimum").returncode == 0
    assert (tmp_path / "packages/encoder-optimum/onnx/model.onnx").is_file()


def test_one_file_is_packaged_alone_under_its_name(encoder, cli, tmp_path):
    (encoder / folders.MODEL).rename(encoder / "mine.onnx")
    assert cli("package", encoder / "mine.onnx", "--for", "triton").returncode == 0
    assert sorted(each.name for each in (tmp_path / "packages/mine-triton").iterdir()) == ["mine", folders.RECORD]


# Details ---------------------------------------------------------------------------------------------------------


def test_json_loses_local_paths_and_keeps_hub_ids():
    inner = {"_name_or_path": "/a/b", "text_config": {"_name_or_path": "org/name", "sizes": [{"name_or_path": "/c"}]}}
    assert _clean(inner) == {"text_config": {"_name_or_path": "org/name", "sizes": [{}]}}
    assert _clean({"tokenizer_class": "TokenizersBackend"}) == {"tokenizer_class": "PreTrainedTokenizerFast"}
    assert _clean({"tokenizer_class": "BertTokenizer"}) == {"tokenizer_class": "BertTokenizer"}


def test_what_openvino_cannot_read_is_said_in_one_line(tmp_path):
    from onnxfuse.layouts.openvino import convert

    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"OpenVINO [0-9.]+ cannot read"):
        convert(tmp_path / "broken.onnx", tmp_path / "out.xml")
