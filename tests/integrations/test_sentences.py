"""Exported sentence encoders and cross-encoders inside sentence-transformers give what the checkpoint's own give."""

import json
import pickle
import shutil
import sys

import numpy as np
import onnx
import pytest
import sentence_transformers
import torch
import transformers
from sentence_transformers.sentence_transformer import modules

import onnxfuse
from onnxfuse.errors import MissingExtraError, UsageError
from onnxfuse.evaluation.sentences import docstring_sentences
from tests.families import TEXT

SENTENCES = docstring_sentences(60)
PAIRS = list(zip(SENTENCES[:20], SENTENCES[20:40], strict=True))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    words = sorted({word.lower().strip(".,:;()") for text in SENTENCES[:40] for word in text.split()} - {""})
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    return transformers.BertTokenizer(str(path), model_max_length=24)


@pytest.fixture(scope="module")
def original(tmp_path_factory, tokenizer):
    """A sentence encoder with prompts, saved as sentence-transformers saves it: cut at 20 tokens, pooled, projected, normed."""
    torch.manual_seed(0)
    inside = tmp_path_factory.mktemp("encoder")
    transformers.BertModel(transformers.BertConfig(**TEXT | {"vocab_size": len(tokenizer)})).save_pretrained(inside)
    tokenizer.save_pretrained(inside)
    encoder = modules.Transformer(str(inside), max_seq_length=20)
    chain = [encoder, modules.Pooling(32, pooling_mode="mean"), modules.Dense(32, 24), modules.Normalize()]
    prompts = {"query": "find: ", "document": "text: "}
    model = sentence_transformers.SentenceTransformer(
        modules=chain, prompts=prompts, default_prompt_name="document", similarity_fn_name="dot", device="cpu"
    )
    folder = tmp_path_factory.mktemp("saved")
    model.save(str(folder))
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu"), folder


@pytest.fixture(scope="module")
def exported(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    onnxfuse.export(original[1], folder, exporter="torchscript")
    onnxfuse.optimize(folder)
    return folder


@pytest.mark.parametrize("given", [{}, {"prompt_name": "query"}, {"prompt": "so: "}, {"batch_size": 7}, {"truncate_dim": 8}])
def test_sentences_are_encoded_as_by_the_checkpoint(original, exported, given):
    fast = onnxfuse.sentence_transformer(exported)
    wanted = original[0].encode(SENTENCES, **given)
    got = fast.encode(SENTENCES, **given)
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    assert np.abs(got - wanted).max() < 2e-5  # as tests/exporters/test_sentence.py
    assert fast.encode(SENTENCES[0], **given).shape == wanted[0].shape


def test_a_prompt_that_pooling_leaves_out_is_left_out(original, tmp_path):
    model = sentence_transformers.SentenceTransformer(str(original[1]), device="cpu")
    model.set_pooling_include_prompt(False)
    model.save(str(tmp_path / "saved"))
    onnxfuse.export(tmp_path / "saved", tmp_path / "out", exporter="torchscript")
    fast = onnxfuse.sentence_transformer(tmp_path / "out")
    for given in ({}, {"prompt_name": "query"}, {"prompt": ""}):
        assert np.abs(fast.encode(SENTENCES[:9], **given) - model.encode(SENTENCES[:9], **given)).max() < 2e-5
    assert (
        np.abs(fast.encode(SENTENCES[:9], prompt_name="query") - original[0].encode(SENTENCES[:9], prompt_name="query")).max()
        > 1e-3
    )


def test_what_is_asked_of_a_sentence_model(original, exported):
    fast = onnxfuse.sentence_transformer(exported, threads=1)
    assert isinstance(fast, sentence_transformers.SentenceTransformer)
    assert fast.get_embedding_dimension() == 24 and fast.max_seq_length == original[0].max_seq_length == 20
    assert (fast.prompts, fast.default_prompt_name) == (original[0].prompts, "document")
    assert fast.similarity_fn_name == "dot" and fast.device == torch.device("cpu")
    queries, documents = fast.encode_query(SENTENCES[:3]), fast.encode_document(SENTENCES)
    wanted = original[0].similarity(original[0].encode_query(SENTENCES[:3]), original[0].encode_document(SENTENCES))
    torch.testing.assert_close(fast.similarity(queries, documents), wanted, atol=1e-4, rtol=1e-4)


def test_a_sentence_model_is_pickled_and_saved(exported, tmp_path):
    fast = onnxfuse.sentence_transformer(exported)
    wanted = fast.encode(SENTENCES[:5])
    assert np.array_equal(pickle.loads(pickle.dumps(fast)).encode(SENTENCES[:5]), wanted)
    fast.save(str(tmp_path / "kept"))
    assert np.array_equal(onnxfuse.sentence_transformer(tmp_path / "kept").encode(SENTENCES[:5]), wanted)
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "kept"), trust_remote_code=True, device="cpu")
    assert np.array_equal(again.encode(SENTENCES[:5]), wanted)


def test_a_file_is_opened_itself_and_saved_so_that_it_is_opened_again(exported, tmp_path):
    """Of a folder the int8 model is opened; here one stands for it that gives other vectors."""
    folder = tmp_path / "several"
    shutil.copytree(exported, folder)
    shutil.copyfile(folder / "model.onnx", folder / "mine.onnx")
    graph = onnx.load(folder / "model.onnx")
    (last,) = [node for node in graph.graph.node if "sentence_embedding" in node.output]
    last.output[0] = "vectors"
    graph.graph.node.append(onnx.helper.make_node("Neg", ["vectors"], ["sentence_embedding"]))
    onnx.save(graph, folder / "model_quantized.onnx")
    wanted = onnxfuse.sentence_transformer(exported).encode(SENTENCES[:5])
    assert np.abs(onnxfuse.sentence_transformer(folder).encode(SENTENCES[:5]) + wanted).max() < 1e-5
    fast = onnxfuse.sentence_transformer(folder / "model_optimized.onnx")
    assert fast.default_prompt_name == "document"
    assert np.array_equal(fast.encode(SENTENCES[:5]), wanted)
    assert np.array_equal(pickle.loads(pickle.dumps(fast)).encode(SENTENCES[:5]), wanted)
    fast.save(str(tmp_path / "kept"))
    assert np.array_equal(onnxfuse.sentence_transformer(tmp_path / "kept").encode(SENTENCES[:5]), wanted)
    with pytest.raises(UsageError, match=r"mine\.onnx would not be found in a folder; call it model\.onnx"):
        onnxfuse.sentence_transformer(folder / "mine.onnx").save(str(tmp_path / "other"))


def test_token_embeddings_are_given_where_the_graph_has_them(original, exported, tmp_path):
    with pytest.raises(
        UsageError, match=r"gives sentence_embedding, and token_embeddings is asked for; export it with --outputs"
    ):
        onnxfuse.sentence_transformer(exported).encode(SENTENCES[:3], output_value="token_embeddings")
    names = ["sentence_embedding", "token_embeddings"]
    onnxfuse.export(original[1], tmp_path / "out", exporter="torchscript", outputs=names)
    fast = onnxfuse.sentence_transformer(tmp_path / "out")
    wanted = original[0].encode(SENTENCES[:3], output_value="token_embeddings")
    for mine, theirs in zip(fast.encode(SENTENCES[:3], output_value="token_embeddings"), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=0)


def test_several_processes_encode(exported):
    fast = onnxfuse.sentence_transformer(exported, threads=1)
    pool = fast.start_multi_process_pool(["cpu", "cpu"])
    try:
        got = fast.encode(SENTENCES, pool=pool)
    finally:
        fast.stop_multi_process_pool(pool)
    assert np.abs(got - fast.encode(SENTENCES)).max() < 1e-6


@pytest.mark.parametrize(("labels", "activation"), [(1, None), (1, torch.nn.Identity()), (3, None)])
def test_pairs_are_scored_as_by_the_checkpoint(tokenizer, tmp_path, labels, activation):
    torch.manual_seed(0)
    sizes = TEXT | {"vocab_size": len(tokenizer), "num_labels": labels}
    transformers.BertForSequenceClassification(transformers.BertConfig(**sizes)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    original = sentence_transformers.CrossEncoder(str(tmp_path / "bert"), device="cpu", activation_fn=activation)
    original.save_pretrained(str(tmp_path / "saved"))
    onnxfuse.export(tmp_path / "saved", tmp_path / "out", exporter="torchscript")
    fast = onnxfuse.cross_encoder(tmp_path / "out")
    assert isinstance(fast, sentence_transformers.CrossEncoder) and fast.num_labels == labels
    assert type(fast.activation_fn) is type(original.activation_fn)
    assert np.abs(fast.predict(PAIRS) - original.predict(PAIRS)).max() < 1e-5
    file = onnxfuse.cross_encoder(tmp_path / "out" / "model.onnx")
    file.save_pretrained(str(tmp_path / "kept"))
    for again in (file, sentence_transformers.CrossEncoder(str(tmp_path / "kept"), trust_remote_code=True, device="cpu")):
        assert np.array_equal(again.predict(PAIRS), fast.predict(PAIRS))
    if labels == 1:
        ranked = [[entry["corpus_id"] for entry in model.rank(SENTENCES[0], SENTENCES[1:9])] for model in (fast, original)]
        assert ranked[0] == ranked[1]


def test_what_is_no_sentence_model_is_refused(exported, tmp_path):
    with pytest.raises(UsageError, match="is no folder"):
        onnxfuse.sentence_transformer(tmp_path / "nothing")
    for given, words in ((None, "the folder is a NoneType, wanted a path"), ("", "the folder is an empty text, wanted a path")):
        for opened in (onnxfuse.sentence_transformer, onnxfuse.cross_encoder):
            with pytest.raises(UsageError, match=words):
                opened(given)
    with pytest.raises(UsageError, match=r"gives sentence_embedding, wanted logits: export a cross-encoder"):
        onnxfuse.cross_encoder(exported)


def test_without_the_library_the_extra_is_named(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxfuse.integrations.sentence_module", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'onnxfuse\[sentences\]'"):
        onnxfuse.sentence_transformer(exported)


def test_settings_that_are_broken_are_named(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "broken")
    (tmp_path / "broken" / "config_sentence_transformers.json").write_text(json.dumps([1]))
    with pytest.raises(onnxfuse.OnnxfuseError, match=r"config_sentence_transformers\.json"):
        onnxfuse.sentence_transformer(tmp_path / "broken")
