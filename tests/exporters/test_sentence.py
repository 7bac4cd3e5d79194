"""What modules.json asks for is in the graph: each kind of module gives what sentence-transformers' own encode gives."""

import json

import numpy as np
import onnx
import pytest
import torch
import transformers

import onnxfuse
from onnxfuse.errors import ExportError
from onnxfuse.evaluation.sentences import docstring_sentences
from onnxfuse.exporters import open_checkpoint
from tests.conftest import save_tokenizer

sentence_transformers = pytest.importorskip("sentence_transformers")
base = pytest.importorskip("sentence_transformers.base.modules")
parts = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
sparse = pytest.importorskip("sentence_transformers.sparse_encoder.modules")

WIDTH = 32
CONFIG = {"vocab_size": 300, "hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 2}
TEXTS = docstring_sentences(200)
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """A tiny BERT, its masked language model, and a classifier of one label, each with a tokenizer."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    config = transformers.BertConfig(**CONFIG, max_position_embeddings=128, initializer_range=0.3)
    for name, kind in (("bert", "BertModel"), ("mlm", "BertForMaskedLM"), ("reranker", "BertForSequenceClassification")):
        config.num_labels = 1
        getattr(transformers, kind)(config).save_pretrained(folder / name)
        save_tokenizer(folder / name, CONFIG["vocab_size"], ("input_ids", "attention_mask", "token_type_ids"))
    return folder


def disturbed(module):
    """A module with every weight random."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn_like(weight) * 0.3)
    return module


def pooling(*modes):
    return parts.Pooling(WIDTH, pooling_mode=list(modes))


def dense(out=16, activation=torch.nn.Tanh, **options):
    return disturbed(parts.Dense(WIDTH, out, activation_function=activation(), **options))


CHAINS = {
    **{mode: lambda mode=mode: [pooling(mode)] for mode in MODES},
    "all modes, the last one first": lambda: [pooling(*reversed(MODES))],
    "dense without bias": lambda: [pooling("cls"), dense(activation=torch.nn.Identity, bias=False), parts.Normalize()],
    "dense with GELU, of the same width and with a residual": lambda: [
        pooling("mean"),
        dense(WIDTH, torch.nn.GELU, use_residual=True),
    ],
    "dense with a residual of its own": lambda: [pooling("mean"), dense(16, torch.nn.ReLU, use_residual=True)],
    "tokens first": lambda: [
        dense(WIDTH, torch.nn.Identity, module_input_name="token_embeddings"),
        parts.Normalize("token_embeddings"),
        pooling("mean"),
    ],
    "four behind": lambda: [pooling("max"), dense(), disturbed(parts.LayerNorm(16)), parts.Dropout(0.5), parts.Normalize()],
}


def embed(model, tokenizer, texts, rows):
    """Embeddings of a model that onnxfuse made, in batches of so many rows, with padding."""
    batches = [texts[at : at + rows] for at in range(0, len(texts), rows)]
    return np.concatenate(
        [model(**tokenizer(batch, padding=True, return_tensors="np"))["sentence_embedding"] for batch in batches]
    )


def assert_encodes(source, out, wanted, prefix="", rows=16, padding="removed", exporter="torchscript", tokenizer=None):
    """The export and the optimized model give what encode does; ``padding``: what becomes of it in the latter."""
    step = onnxfuse.export(source, out, exporter=exporter)
    assert [value.name for value in onnx.load(step.path).graph.output] == ["sentence_embedding"]
    optimized = onnxfuse.optimize(out, verify="final")
    assert str(optimized.padding) == padding
    tokenizer = tokenizer or transformers.AutoTokenizer.from_pretrained(out)
    for path in (step.path, optimized.path):
        got = embed(onnxfuse.load(path), tokenizer, [prefix + text for text in TEXTS], rows)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("name", CHAINS)
def test_every_kind_of_module_equals_encode(encoders, tmp_path, name):
    transformer = base.Transformer(str(encoders / "bert"))
    model = sentence_transformers.SentenceTransformer(modules=[transformer, *CHAINS[name]()], device="cpu").eval()
    model.save(str(tmp_path / "source"))
    norms = "kept: ReduceL2 at /ReduceL2_output_0 reads padded positions"  # of each token
    padding = norms if name == "tokens first" else "removed"
    assert_encodes(tmp_path / "source", tmp_path / "out", model.encode(TEXTS, batch_size=16), padding=padding)


@pytest.mark.parametrize("side", ["right", pytest.param("left", marks=pytest.mark.slow)])
def test_torch_export_writes_the_same(encoders, tmp_path, side):
    transformer = base.Transformer(str(encoders / "bert"), tokenizer_args={"padding_side": side})
    behind = [disturbed(parts.Dense(6 * WIDTH, 8)), disturbed(parts.LayerNorm(8)), parts.Normalize()]
    model = sentence_transformers.SentenceTransformer(modules=[transformer, pooling(*MODES), *behind], device="cpu").eval()
    model.save(str(tmp_path / "source"))
    wanted = model.encode(TEXTS, batch_size=len(TEXTS))
    assert_encodes(tmp_path / "source", tmp_path / "out", wanted, rows=len(TEXTS), exporter="dynamo")


@pytest.mark.parametrize("said", ["tokenizer_config.json", "tokenizer.json", "sentence_bert_config.json"])
def test_a_tokenizer_that_pads_on_the_left(encoders, tmp_path, said):
    """In one batch: how far a row is padded moves its positions, and encode sorts rows by length."""
    transformer = base.Transformer(str(encoders / "bert"))
    model = sentence_transformers.SentenceTransformer(modules=[transformer, pooling(*MODES)], device="cpu").eval()
    model.save(str(tmp_path / "source"))
    path = tmp_path / "source" / said
    padding = {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    left = {
        "tokenizer_config.json": {"padding_side": "left"},
        "tokenizer.json": {"padding": padding | {"pad_token": "[PAD]"}},
        "sentence_bert_config.json": {"processing_kwargs": {"text": {"padding_side": "left"}}},
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | left[said]))
    settings = tmp_path / "source" / "tokenizer_config.json"
    if said != "tokenizer_config.json":
        settings.write_text(json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if k != "padding_side"}))
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "source"), device="cpu")
    assert model.preprocess(["a", "a b c"])["attention_mask"][0, 0] == 0
    wanted = model.encode(TEXTS, batch_size=len(TEXTS))
    left = transformers.AutoTokenizer.from_pretrained(tmp_path / "source", padding_side="left")
    assert_encodes(tmp_path / "source", tmp_path / "out", wanted, rows=len(TEXTS), tokenizer=left)


@pytest.mark.parametrize(("strategy", "activation"), [("max", "relu"), ("sum", "log1p_relu")])
def test_splade(encoders, tmp_path, strategy, activation):
    transformer = base.Transformer(str(encoders / "mlm"), transformer_task="fill-mask")
    pooled = sparse.SpladePooling(strategy, activation)
    model = sentence_transformers.SparseEncoder(modules=[transformer, pooled], device="cpu").eval()
    model.save(str(tmp_path / "source"))
    wanted = model.encode(TEXTS, batch_size=16, convert_to_sparse_tensor=False)
    assert_encodes(tmp_path / "source", tmp_path / "out", wanted.numpy())
    assert open_checkpoint(tmp_path / "source", outputs=("logits",)).outputs == ("logits",)
    with pytest.raises(ExportError, match=r"modules\.json asks for task fill-mask, --task for sentence-similarity; leave it out"):
        open_checkpoint(tmp_path / "source", task="sentence-similarity")


def test_a_reranker_of_one_label(encoders, tmp_path):
    model = sentence_transformers.CrossEncoder(str(encoders / "reranker"), device="cpu", activation_fn=torch.nn.Identity())
    model.save_pretrained(str(tmp_path / "source"))
    onnxfuse.export(tmp_path / "source", tmp_path / "out", exporter="torchscript")
    optimized = onnxfuse.optimize(tmp_path / "out")
    assert str(optimized.padding) == "removed"
    pairs = list(zip(TEXTS[:100], TEXTS[100:], strict=True))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    feeds = tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="np")
    wanted = model.predict(pairs)
    np.testing.assert_allclose(
        onnxfuse.load(optimized.path)(**feeds)["logits"][:, 0], wanted, rtol=0, atol=2e-5 * np.abs(wanted).max()
    )


def test_prompts_and_similarity_are_carried(encoders, tmp_path):
    prompts = {"query": "the query is that ", "passage": ""}
    model = sentence_transformers.SentenceTransformer(
        modules=[base.Transformer(str(encoders / "bert")), pooling("mean")],
        device="cpu",
        prompts=prompts,
        similarity_fn_name="dot",
    ).eval()
    model.save(str(tmp_path / "source"))
    assert_encodes(
        tmp_path / "source", tmp_path / "out", model.encode(TEXTS, prompt_name="query", batch_size=16), prefix=prompts["query"]
    )
    carried = json.loads((tmp_path / "out" / "config_sentence_transformers.json").read_text())
    assert (carried["prompts"]["query"], carried["similarity_fn_name"]) == (prompts["query"], "dot")


def test_what_lies_beside_is_what_others_pool_with(encoders, tmp_path):
    transformer = base.Transformer(str(encoders / "bert"))
    model = sentence_transformers.SentenceTransformer(modules=[transformer, pooling("mean"), dense()], device="cpu").eval()
    model.save(str(tmp_path / "source"))
    step = onnxfuse.export(tmp_path / "source", tmp_path / "out", exporter="torchscript", outputs=["last_hidden_state"])
    assert [value.name for value in onnx.load(step.path).graph.output] == ["last_hidden_state"]
    beside = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"} <= beside
    read = parts.Dense.load(str(tmp_path / "out"), subfolder="2_Dense")
    assert torch.equal(read.linear.weight, model[2].linear.weight)


PROMPT = "the query is that "


def prompted(encoders, *modes, side="right"):
    """A model whose pooling leaves prompts out."""
    transformer = base.Transformer(str(encoders / "bert"), tokenizer_args={"padding_side": side})
    pooled = parts.Pooling(WIDTH, list(modes), include_prompt=False)
    return sentence_transformers.SentenceTransformer(
        modules=[transformer, pooled, parts.Normalize()], device="cpu", prompts={"query": PROMPT, "document": ""}
    ).eval()


@pytest.mark.parametrize(
    ("side", "exporter"),
    [("right", "torchscript"), ("left", "torchscript"), pytest.param("left", "dynamo", marks=pytest.mark.slow)],
)
def test_a_pooling_that_leaves_prompts_out(encoders, tmp_path, side, exporter):
    """In one batch, with padding removed; one number for all rows, one for each, and none where there is no prompt."""
    model = prompted(encoders, *MODES, side=side)
    model.save(str(tmp_path / "source"))
    step = onnxfuse.export(tmp_path / "source", tmp_path / "out", exporter=exporter)
    optimized = onnxfuse.optimize(tmp_path / "out", verify="final")
    assert str(optimized.padding) == "removed"
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    length = len(tokenizer(PROMPT)["input_ids"]) - 1
    texts, every = TEXTS[:40], {"batch_size": 40}
    with_prompt, without = (
        tokenizer([begin + text for text in texts], padding=True, return_tensors="np") for begin in (PROMPT, "")
    )
    mixed = tokenizer([PROMPT + texts[0], texts[1]], padding=True, return_tensors="np")
    for path in (step.path, optimized.path):
        opened = onnxfuse.load(path)
        assert opened.inputs[-1] == "prompt_length"
        close = {"rtol": 0, "atol": 2e-5}
        got = opened(**with_prompt, prompt_length=length)["sentence_embedding"]
        np.testing.assert_allclose(got, model.encode(texts, prompt_name="query", **every), **close)
        np.testing.assert_allclose(opened(**without)["sentence_embedding"], model.encode(texts, **every), **close)
        got = opened(**mixed, prompt_length=[length, 0])["sentence_embedding"]
        alone = [opened(**mixed, prompt_length=given)["sentence_embedding"][at] for at, given in enumerate((length, 0))]
        np.testing.assert_allclose(got, alone, **close)


def test_without_a_sentence_embedding_there_is_no_prompt(encoders, tmp_path):
    prompted(encoders, "mean").save(str(tmp_path / "source"))
    assert list(open_checkpoint(tmp_path / "source").inputs)[2:] == ["token_type_ids", "prompt_length"]
    assert list(open_checkpoint(tmp_path / "source", outputs=["last_hidden_state"]).inputs)[2:] == ["token_type_ids"]
    assert list(open_checkpoint(tmp_path / "source", task="feature-extraction").inputs)[2:] == ["token_type_ids"]
