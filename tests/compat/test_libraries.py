"""Packages opened by the libraries they are for, with the lines that were printed: the same outputs, however rows are padded."""

from __future__ import annotations

import numpy as np
import openvino
import pytest

import onnxfuse
from onnxfuse.evaluation.text import tokenizer
from onnxfuse.io import folders, onnx_file
from onnxfuse.layouts.optimum import ANY, CLASSES
from onnxfuse.runtime.cores import cores
from onnxfuse.verify import parity
from onnxfuse.verify.expected import Expected
from onnxfuse.verify.grid import Case
from tests.compat.conftest import (
    MODELS,
    PADDINGS,
    POOLED,
    ROW,
    SENTENCES,
    TASKS,
    TEXTS,
    as_json,
    cases,
    read,
    require_alike,
    source_of,
)

BOTH = ("float", "int8")
ENCODERS = (SENTENCES, "feature-extraction", "text-classification", "fill-mask")
IN_JS = [name for name in TASKS if name != "multiple-choice"]


def asked_of(packaged, made, models, library, texts=lambda model: []):
    """What a reader is asked, for both precisions of each model, by model and precision; and the folder it starts in."""
    asked, home = {}, None
    for model in models:
        package = packaged(model, library)
        home = package.path.parent
        for precision, line in package.use.items():
            use = line.replace(f"{home}/", "")
            feeds = [as_json(case.feeds) for case in cases(source_of(made(model), precision))]
            asked[model, precision] = {"use": use, "cases": feeds, "texts": texts(model)}
    return asked, home


@pytest.fixture(scope="module")
def in_optimum(packaged, made, tmp_path_factory):
    asked, home = asked_of(packaged, made, [*TASKS, POOLED], "optimum")
    answers = read("optimum_reader.py", list(asked.values()), tmp_path_factory.mktemp("optimum"), home)
    return dict(zip(asked, answers, strict=True))


@pytest.mark.parametrize(("task", "precision"), MODELS)
def test_optimum_opens_each_task_in_its_class(task, precision, in_optimum, made):
    found = in_optimum[task, precision]
    assert found["class"] == CLASSES[task]
    require_alike(source_of(made(task), precision), found["cases"], precision)


def test_optimum_opens_a_pooled_sentence_model_as_it_is(in_optimum, made):
    assert in_optimum[POOLED, "float"]["class"] == ANY
    require_alike(made(POOLED) / folders.MODEL, in_optimum[POOLED, "float"]["cases"], "float")


@pytest.fixture(scope="module")
def in_sentence_transformers(packaged, made, tmp_path_factory):
    texts = {"text-classification": [[TEXTS[0], TEXTS[1]], [TEXTS[2], TEXTS[0]]]}
    asked, home = asked_of(packaged, made, ENCODERS, "sentence-transformers", lambda model: texts.get(model, list(TEXTS)))
    answers = read("sentence_reader.py", list(asked.values()), tmp_path_factory.mktemp("sentences"), home)
    return dict(zip(asked, answers, strict=True))


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("model", ENCODERS)
def test_sentence_transformers_runs_the_encoder(model, precision, in_sentence_transformers, made):
    names = {"text-classification": "CrossEncoder", "fill-mask": "SparseEncoder"}
    found = in_sentence_transformers[model, precision]
    assert found["class"] == names.get(model, "SentenceTransformer")
    require_alike(source_of(made(model), precision), found["cases"], precision)


def embeddings(made):
    """What onnxfuse's own export of the whole sentence encoder gives for ``TEXTS``, and what it read."""
    folder = made(POOLED)
    feeds = tokenizer(folder)(list(TEXTS))
    return Expected(Case("texts", feeds), {POOLED: onnxfuse.load(folder).run(feeds)[POOLED]})


def require_embeddings(made, vectors, precision):
    found = {POOLED: np.array(vectors, np.float32)}
    parity.compare([embeddings(made)], lambda feeds: found, ROW[precision]).require(f"embeddings, {precision}")


@pytest.mark.parametrize("precision", BOTH)
def test_sentence_transformers_encodes_texts_as_our_pooled_export_does(precision, in_sentence_transformers, made):
    require_embeddings(made, in_sentence_transformers[SENTENCES, precision]["texts"], precision)


@pytest.fixture(scope="module")
def in_js(packaged, made, tmp_path_factory):
    texts = {"text-classification": list(TEXTS), SENTENCES: list(TEXTS)}
    asked, home = asked_of(packaged, made, [*IN_JS, SENTENCES], "transformers.js", lambda model: texts.get(model, []))
    for precision in BOTH:
        asked[SENTENCES, precision]["options"] = {"pooling": "mean", "normalize": True}
        asked["text-classification", precision]["options"] = {"top_k": None}
    answers = read("transformers_reader.mjs", list(asked.values()), tmp_path_factory.mktemp("js"), home)
    return dict(zip(asked, answers, strict=True))


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("model", [*IN_JS, SENTENCES])
def test_transformers_js_gives_the_same_on_every_padding(model, precision, in_js, made):
    found = in_js[model, precision]["cases"]
    assert len(found) == (1 if model == "image-classification" else len(PADDINGS))
    require_alike(source_of(made(model), precision), found, precision)


@pytest.mark.parametrize("precision", BOTH)
def test_transformers_js_encodes_texts_as_our_pooled_export_does(precision, in_js, made):
    require_embeddings(made, in_js[SENTENCES, precision]["texts"], precision)


def test_transformers_js_classifies_texts_with_its_own_tokenizer(in_js, made):
    folder = made("text-classification")
    logits = onnxfuse.load(source_of(folder, "float")).run(tokenizer(folder)(list(TEXTS)))["logits"]
    wanted = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for row, found in zip(wanted, in_js["text-classification", "float"]["texts"], strict=True):
        scores = {each["label"]: each["score"] for each in found}
        np.testing.assert_allclose([scores[f"LABEL_{at}"] for at in range(len(row))], row, atol=1e-5)


TRITON = {"TYPE_INT64": "INT64", "TYPE_FP32": "FLOAT"}


def test_triton_parses_its_configuration_and_finds_what_the_model_takes(packaged, made, tmp_path):
    packages = [packaged(task, "triton") for task in TASKS]
    models = {path.parents[1] / "config.pbtxt": path for package in packages for path in package.models.values()}
    found = read("triton_reader.py", [{"config": str(path)} for path in models], tmp_path, tmp_path)
    for (path, model), config in zip(models.items(), found, strict=True):
        graph = onnx_file.load(model).graph
        assert config["name"] == path.parent.name and config["backend"] == "onnxruntime" and config["max_batch_size"] == 64
        assert config["dynamic_batching"] == {} and config["instance_group"] == [{"count": cores(), "kind": "KIND_CPU"}]
        assert config["parameters"] == {"intra_op_thread_count": {"string_value": "1"}}
        assert model == path.parent / "1" / "model.onnx"
        for told, values in ((config["input"], graph.inputs), (config["output"], graph.outputs)):
            assert [each["name"] for each in told] == [value.name for value in values]
            for each, value in zip(told, values, strict=True):
                sizes = [dim if isinstance(dim, int) else -1 for dim in value.shape.dims]
                assert [-1, *map(int, each["dims"])] == sizes and TRITON[each["data_type"]] == value.dtype.name


@pytest.mark.parametrize("task", TASKS)
def test_openvino_opens_its_own_format_by_the_line_that_is_printed(task, packaged, made):
    package = packaged(task, "openvino")
    for precision, line in package.use.items():
        model = eval(line, {"openvino": openvino})
        source = source_of(made(task), precision)
        answers = []
        for case in cases(source):
            outputs = model(case.feeds)
            answers.append(as_json({value.get_any_name(): outputs[value] for value in model.outputs}))
        require_alike(source, answers, precision)
